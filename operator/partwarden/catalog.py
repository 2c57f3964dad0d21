"""PostgreSQL -> Inventory, each look in one round trip and one snapshot; what lies below partitions in one more.

Bounds are deparsed without their relation (``pg_get_expr(relpartbound, 0)``: they hold no column), so that a partition
which somebody has locked does not keep the table from being looked at. Sizes need a lock on each file's relation: where
they are not to be had at once, the planner's page counts stand in.
https://www.postgresql.org/docs/current/catalogs.html
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from . import detached, resemblance
from .bounds import parse_bounds
from .inventory import Grant, Inventory, KeyPart, Parent, Partition, RelationKind, Server, Strategy
from .keys import Codec
from .policy import TableSpec
from .questions import ACL, BELOW, EXACT_SIZE, PAGES, RELATED, SERVER, TAKEN, about_table
from .resemblance import Model, Traits
from .session import pinned, run
from .table import MIN_VERSION

KINDS = {"r": RelationKind.TABLE, "p": RelationKind.PARTITIONED, "f": RelationKind.FOREIGN}
STRATEGIES = {"r": Strategy.RANGE, "l": Strategy.LIST, "h": Strategy.HASH}
SET_ROLE_VERSION = 160000
PINNED = pinned(lock_timeout="500ms", statement_timeout="30s")
BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


def observe(connection: psycopg.Connection[Any], spec: TableSpec) -> Inventory:
    """What exists of the policy's table now. Raises psycopg's errors.

    ``parent`` is None when there is no such table, and when the server is older than 14, of which no more is asked.
    What only the making of partitions needs is left out: see `complete`.
    """
    version = connection.info.server_version
    if version < MIN_VERSION:
        _, rows = run(connection, PINNED, SERVER)
        return _inventory(version, spec, rows, [], [], [])
    try:
        return _inventory(version, spec, *_read(connection, spec, exact=True))
    except pg.LockNotAvailable:
        return _inventory(version, spec, *_read(connection, spec, exact=False))


def complete(connection: psycopg.Connection[Any], inventory: Inventory, names: Iterable[str]) -> Inventory:
    """The inventory with what the making of partitions called ``names`` needs to know. Raises psycopg's errors.

    One round trip. ``taken`` holds the names that belong to a relation or type of the parent's schema, since a new
    table needs both.
    """
    parent = inventory.parent
    assert parent is not None
    _, related, grants, taken, *resembling = _transaction(
        connection,
        *(sql.SQL(query).format(parent=parent.oid) for query in (RELATED, ACL)),
        sql.SQL(TAKEN).format(schema=parent.schema, names=list(names)),
        *resemblance.queries(inventory),
    )
    whole = replace(
        parent,
        related=tuple(name for (name,) in related),
        grants=tuple(Grant(*each) for each in grants),
    )
    like = resemblance.likeness(resembling)
    return replace(inventory, parent=whole, likeness=like, taken=frozenset(name for (name,) in taken))


def _read(connection: psycopg.Connection[Any], spec: TableSpec, *, exact: bool) -> list[list[tuple[Any, ...]]]:
    # From 16 on a member of the owning role may lack the right to give a table to it.
    set_role = "SET" if connection.info.server_version >= SET_ROLE_VERSION else "MEMBER"
    marks = spec.retention is not None
    _, server, parents, partitions, *marked = _transaction(
        connection, about_table(spec.table.schema_, spec.table.name, set_role, exact, marks)
    )
    size = EXACT_SIZE if exact else PAGES
    return [server, parents, _with_below(connection, partitions, size), marked[0] if marked else []]


def _with_below(
    connection: psycopg.Connection[Any], partitions: list[tuple[Any, ...]], size: sql.SQL
) -> list[tuple[Any, ...]]:
    """The same rows; of a partitioned one with the rows and bytes of everything below it."""
    oids = [oid for oid, _, _, kind, *_ in partitions if kind == "p"]
    if not oids:
        return partitions
    found = _transaction(connection, sql.SQL(BELOW).format(size=size, oids=oids))[1]
    below = {oid: (rows, total) for oid, rows, total in found}
    return [(*each[:6], *below.get(each[0], (None, 0)), *each[8:]) if each[3] == "p" else each for each in partitions]


def _transaction(connection: psycopg.Connection[Any], *queries: sql.Composable) -> list[list[tuple[Any, ...]]]:
    """The queries' rows, of one snapshot and in one round trip, after those of `PINNED`."""
    try:
        _, *results, _ = run(connection, BEGIN, PINNED, *queries, "COMMIT")
    except psycopg.Error:
        if not connection.closed:
            connection.rollback()
        raise
    return results


def _inventory(version: int, spec: TableSpec, *results: list[tuple[Any, ...]]) -> Inventory:
    server, parents, partitions, marked = results
    text, database, user, read_only, identity, now, superuser = server[0]
    parent = _parent(*parents[0][:13]) if parents else None
    model = Model(Traits(*parents[0][13:18]), parents[0][18]) if parents else None
    codec = _codec(parent, spec)
    return Inventory(
        server=Server(version, text, read_only, database, user, identity, superuser),
        parent=parent,
        now=datetime.fromisoformat(now).replace(tzinfo=UTC),
        partitions=tuple(_partition(codec, parent, model, *row) for row in partitions)
        if parent and model and codec
        else (),
        detached=detached.detached(marked, parent, codec) if parent and codec else (),
        marked_by_others=detached.of_other_owners(marked, parent) if parent else (),
    )


def _parent(
    oid: int,
    schema: str,
    name: str,
    kind: str,
    owner: str,
    strategy: str,
    key: list[list[str]],
    may_own: bool,
    may_create: bool,
    rows: int | None,
    login: str,
    owner_creates: bool,
    owner_superuser: bool,
) -> Parent:
    return Parent(
        oid=oid,
        schema=schema,
        name=name,
        kind=KINDS.get(kind, RelationKind.OTHER),
        owner=owner,
        strategy=STRATEGIES.get(strategy),
        key=tuple(KeyPart(column, type_) for column, type_ in key),
        may_own=may_own,
        may_create=may_create,
        rows=rows,
        login=login,
        owner_creates=owner_creates,
        owner_superuser=owner_superuser,
    )


def _codec(parent: Parent | None, spec: TableSpec) -> Codec | None:
    """What to read bounds by; None where the table cannot be managed, and its bounds need not be read."""
    if parent is None or parent.strategy is not Strategy.RANGE or len(parent.key) != 1:
        return None
    return Codec.find(parent.key[0].type, spec.key_encoding)


def _partition(
    codec: Codec,
    parent: Parent,
    model: Model,
    oid: int,
    schema: str,
    name: str,
    kind: str,
    bounds: str,
    pending: bool,
    rows: int | None,
    size: int | None,
    comment: str | None,
    *traits: Any,
) -> Partition:
    differs = model.differs(Traits(*traits))
    # Of another owner's table the comment is another's, too.
    mark = None if "owner" in differs else detached.mark_of(comment, oid, parent)
    held = parse_bounds(bounds, codec)
    return Partition(oid, schema, name, held, bounds, KINDS[kind], rows, size or 0, pending, differs, mark)
