"""Tables of a database as the commands show them, and their rows counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import psycopg
from psycopg import sql

from ..api.policy import Table, TableSpec
from ..api.retention import Retention
from ..archive import verify
from ..errors import InvalidSpec
from ..planner.inventory import Inventory
from ..postgres.connection import Session, pinned, run
from ..postgres.engine import observe_and_plan
from ..postgres.transaction import undo
from . import guess, import_, manifest
from .options import spelled
from .table_view import View

LONGEST = 86400.0
"""Seconds that the rows of one partition may take to count."""
COUNTING = pinned(lock_timeout="10s", statement_timeout="24h")

EVER = Retention.model_validate({"keepFor": "1000y"})
"""With it tables that were detached are seen, and nothing is older."""


def seeing_detached(spec: TableSpec) -> TableSpec:
    """The same, by which tables that were detached are shown, too."""
    return spec if spec.retention else spec.model_copy(update={"retention": EVER})


def views(
    connection: Session, table: Mapping[str, str] | None, filename: str | None, detached: bool = False
) -> list[View]:
    """Of the policy's table, or of all that can be managed. ``detached``: also without retention, tables that were
    detached are seen. Raises `PartwardenError`."""
    see = seeing_detached if detached else lambda spec: spec
    if filename is not None:
        policy = manifest.load(
            manifest.read(filename), filename, table=dict(table) if table else None, needs_database=False
        )
        return [view(connection, see(policy.spec))]
    only = Table.model_validate(table) if table else None
    seen = import_.look(connection, only)
    if only and seen and seen[0].error:
        raise seen[0].error
    known = [view(connection, see(guess.spec(each.table, each.guess))) for each in seen if each.guess]
    if not known:
        raise InvalidSpec("no table here is partitioned by RANGE on one column that says when")
    return known


def spec(connection: Session, table: Mapping[str, str] | None, filename: str | None) -> TableSpec:
    """The same, of exactly one table. Raises `PartwardenError`."""
    if filename is not None:
        whole = dict(table) if table else None
        return manifest.load(manifest.read(filename), filename, table=whole, needs_database=False).spec
    found = import_.look(connection, Table.model_validate(table) if table else None)
    if len(found) == 1 and found[0].error:
        raise found[0].error
    known = [each for each in found if each.guess]
    if len(known) != 1:
        names = ", ".join(spelled(each.table.schema_, each.table.name) for each in known[:10])
        raise InvalidSpec(f"there are {len(known)} tables that can be managed: name one by --table ({names or 'none'})")
    assert known[0].guess is not None
    return guess.spec(known[0].table, known[0].guess)


def view(connection: Session, spec: TableSpec) -> View:
    """The table as it is now. Raises as `engine.observe_and_plan`."""
    inventory, plan = observe_and_plan(connection, spec)
    return View(spec, inventory, plan)


def count(connection: Session, inventory: Inventory, say: Callable[[str], None]) -> dict[int, int]:
    """Rows of each partition by its OID, each counted by itself: what others write meanwhile may be in or not.

    Raises psycopg's errors.
    """
    found: dict[int, int] = {}
    for number, each in enumerate(inventory.partitions, 1):
        say(f"counting {each}, {number} of {len(inventory.partitions)}")
        found[each.oid] = rows(connection, each.schema, each.name)
    return found


def rows(connection: Session, schema: str, name: str) -> int:
    """The rows of one table, counted. Raises psycopg's errors."""
    connection.longest = LONGEST
    query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, name))
    try:
        # An error is better than a number of those rows only that a policy of row security shows.
        begin = ("BEGIN READ ONLY", COUNTING, "SET LOCAL row_security = off")
        *_, ((found,),), _ = run(connection, *begin, query, "COMMIT")
    except psycopg.Error:
        undo(connection)
        raise
    return int(found)


def archives(url: str | None) -> dict[int, str]:
    """Where the newest archive of each table is, by the table's OID: those at that address, or below. Raises what
    reading raises."""
    found = verify.find(url) if url else None
    return {each.manifest.partition.oid: each.url for each in found.archives} if found else {}
