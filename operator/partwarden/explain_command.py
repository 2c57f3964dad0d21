"""``partwarden explain``: which partitions a query reads, and why not fewer. It is planned, never executed."""

from __future__ import annotations

import re
from typing import Any

import click
import psycopg
from psycopg import sql

from . import explaining, looking, outputs, render, suggesting
from .connection import from_dsn
from .errors import InvalidSpec
from .explaining import Reading
from .interval import iso
from .inventory import Partition
from .limits import LIMITS, setting
from .session import Session, run, session
from .sqlstate import message
from .transaction import reading, undo
from .views import View
from .where import Target, target

READS_ALL = 2
GENERIC = 160000
"""From that version on parameters need no values to be planned."""
SETTING = setting(LIMITS | {"statement_timeout": "30s", "lock_timeout": "5s"})
BELOW = """
WITH RECURSIVE found AS (
    SELECT inhrelid AS oid, inhrelid AS top FROM pg_catalog.pg_inherits WHERE inhparent = {parent}
    UNION ALL SELECT i.inhrelid, f.top FROM pg_catalog.pg_inherits i JOIN found f ON i.inhparent = f.oid
)
SELECT n.nspname || '.' || c.relname, tn.nspname || '.' || t.relname FROM found f
JOIN pg_catalog.pg_class c ON c.oid = f.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class t ON t.oid = f.top JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
"""
USED = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid() AND relation = {parent}),
       pg_catalog.current_setting('enable_partition_pruning') = 'on'
"""


@click.command(short_help="Whether a query prunes, and why not.")
@click.argument("query", metavar="SQL")
@target(suggesting.policies)
@outputs.option()
def explain(query: str, target: Target, output: str) -> int:
    """Whether a query prunes, which partitions it reads, and why not fewer. It is planned and never executed.

    Of POLICY, the database is asked from here, by the policy's Secret. -o wide shows the conditions. Exits 0 when it
    prunes, 2 when it reads every partition, 1 on an error.
    """
    if target.dsn is not None:
        with session(from_dsn(target.dsn)) as connection:
            views = looking.views(connection, target.table, target.filename)
            found = _explained(connection, query, views)
    else:
        # Here, for a database needs no Kubernetes client, which takes long to load.
        from . import reaching

        policies = reaching.Policies(target.where)
        policy = policies.one(target.policy)
        with session(policies.connection(policy)) as connection:
            found = _explained(connection, query, [looking.view(connection, policies.spec(policy))])
    if outputs.is_data(output):
        outputs.data([_document(*each) for each in found], output)
    elif output == "name":
        outputs.names(str(each) for view, reading in found for each in _read(view, reading))
    else:
        for each in found:
            _print(*each, wide=output == "wide")
    return 0 if all(reading.prunes for _, reading in found) else READS_ALL


Explained = tuple[View, Reading]


def _explained(connection: Session, query: str, views: list[View]) -> list[Explained]:
    """Of each of the tables that the query uses. Raises `InvalidSpec` where PostgreSQL does not plan it, or it uses
    none of them."""
    try:
        # READ ONLY: whatever planning calls, such as functions in constants, cannot write either.
        # As the owner, where that is one: to plan calls functions of indexes and constraints, if only with constants.
        owners = {view.plan.parent.owner: reading(view.plan.parent) for view in views}
        run(connection, "BEGIN READ ONLY", SETTING, *(next(iter(owners.values())) if len(owners) == 1 else ()))
        plan = _plan(connection, query)
        found = [each for view in views if (each := _judged(connection, plan, view))]
    except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError, psycopg.InternalError) as error:
        raise InvalidSpec(f"the query cannot be planned: {message(error)}") from None
    finally:
        undo(connection)
    if not found:
        names = ", ".join(str(each.plan.parent) for each in views)
        raise InvalidSpec(f"the query does not use {names}")
    return found


def _plan(connection: Session, query: str) -> Any:
    options, parameters = "FORMAT JSON, VERBOSE, COSTS OFF", re.search(r"\$\d", query)
    statement = query.strip().rstrip(";")
    if parameters and connection.info.server_version < GENERIC:
        raise InvalidSpec(
            "the query has parameters like $1: put values in their place; only PostgreSQL 16 or later plans it without"
        )
    if parameters and ";" in statement:
        raise InvalidSpec("the query has parameters and a semicolon: give one statement")
    if parameters:
        options += ", GENERIC_PLAN"
    # Not composed by psycopg: a query may hold percent signs and braces. With a binary result it is sent in the
    # extended protocol, which takes one statement and no more, but no parameters without values.
    text = f"EXPLAIN ({options}) {statement}"
    with connection.cursor(binary=not parameters) as cursor:
        cursor.execute(text.encode())
        row = cursor.fetchone()
    assert row is not None
    return row[0][0]["Plan"]


def _judged(connection: Session, plan: Any, view: View) -> Explained | None:
    parent = view.plan.parent
    used, below = run(connection, *(sql.SQL(each).format(parent=parent.oid) for each in (USED, BELOW)))
    ((locked, enabled),) = used
    if not locked:
        return None
    default = next((str(each) for each in view.inventory.partitions if each.range is None), None)
    return view, explaining.judge(plan, dict(below), default, view.plan.key, enabled)


def _read(view: View, reading: Reading) -> list[Partition]:
    known = {str(each): each for each in view.inventory.partitions}
    order = {each.name: place for place, each in enumerate(view.partitions)}
    found = [known[each] for each in reading.read if each in known]
    return sorted(found, key=lambda each: (order.get(each.name, len(order)), str(each)))


def _document(view: View, reading: Reading) -> dict[str, Any]:
    read = [
        {"name": str(each), "from": iso(each.range.lower) if each.range else None}
        | {"to": iso(each.range.upper) if each.range else None}
        for each in _read(view, reading)
    ]
    return {
        "table": str(view.plan.parent),
        "key": view.plan.key,
        "prunes": reading.prunes,
        "partitions": reading.total,
        "read": read,
        "leftOutAtStart": reading.removed,
        "conditions": list(reading.conditions),
        "why": list(reading.why),
    }


def _print(view: View, reading: Reading, wide: bool) -> None:
    count, total = len(reading.read), reading.total
    verb = "is" if count == 1 else "are"
    word = "prunes" if reading.prunes else "does not prune"
    line = f"{view.plan.parent} by {view.plan.key}: it {word}: {count} of {total} partitions {verb} read"
    click.echo(render.printable(line))
    for text in (*reading.why, *(f"condition {each}" for each in reading.conditions if wide)):
        click.echo(render.printable(f"  {text}"))
    rows = [("READ", "FROM", "TO")]
    for each in _read(view, reading):
        lower, upper = (iso(each.range.lower), iso(each.range.upper)) if each.range else ("DEFAULT", "")
        rows.append((str(each), lower or "MINVALUE", "MAXVALUE" if upper is None else upper))
    if len(rows) > 1:
        outputs.table(rows)
