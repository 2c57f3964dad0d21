"""Find the table that an archive is to be made of, and where it is, or was, attached: parent, key and bounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
from psycopg.sql import SQL, Identifier

from ..api.retention import KeyEncoding
from ..errors import KeyOutOfRange, TableNotFound
from ..planner import marker
from ..planner.calendar import Range
from ..planner.inventory import KeyPart
from ..planner.keys import TYPES, Bounds, Codec, literals
from ..postgres import ddl, table_state
from ..postgres.connection import pinned, run
from .manifest import TableName

PATIENCE = ("2s", "30s")
"""Time limits for locks and for statements: only the catalog is read."""
PLAIN = "r"


class TableRow(NamedTuple):
    """What `TABLE` reads."""

    oid: int
    schema: str
    name: str
    kind: str
    bytes: int


# The size by the catalog's count of pages: pg_table_size() would wait for a lock on the table.
TABLE = """
SELECT c.oid::int8, n.nspname, c.relname, c.relkind::text,
       current_setting('block_size')::int8 * (greatest(c.relpages, 0)
         + coalesce((SELECT greatest(t.relpages, 0) FROM pg_class t WHERE t.oid = c.reltoastrelid), 0))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = coalesce({oid}::oid, to_regclass(format('%I.%I', {schema}, {name})))
"""
ATTACHED_TO = """
SELECT (SELECT i.inhparent::int8 FROM pg_inherits i WHERE i.inhrelid = c.oid AND c.relispartition), {comment}
FROM pg_class c WHERE c.oid = {oid}
"""


class ParentRow(NamedTuple):
    """What `PARENT` reads. ``bounds`` is None for a detached table; ``key`` None where there is no single column."""

    oid: int
    schema: str
    name: str
    key: str | None
    key_type: str | None
    bounds: str | None


# A mark counts only where the table's owner is the parent's, for others may write what they like into a comment, and
# where the table could be that parent's partition still.
PARENT = """
SELECT p.oid::int8, n.nspname, p.relname, a.attname, format_type(a.atttypid, NULL), {bounds}
FROM pg_class c
JOIN pg_class p ON p.oid = {parent} JOIN pg_namespace n ON n.oid = p.relnamespace
JOIN pg_partitioned_table t ON t.partrelid = p.oid
LEFT JOIN pg_attribute a ON a.attrelid = p.oid AND t.partnatts = 1 AND a.attnum = t.partattrs[0]
WHERE c.oid = {table} AND (c.relispartition OR t.partstrat = 'r' AND c.relowner = p.relowner AND EXISTS (
    SELECT FROM pg_attribute b WHERE b.attrelid = c.oid AND b.attname = a.attname AND b.atttypid = a.atttypid
    AND NOT b.attisdropped))
"""
CANONICAL = "SELECT ({lower}::{type})::text, ({upper}::{type})::text"
HAS_OTHERS = "SELECT EXISTS (SELECT FROM ONLY {table} WHERE {key} < {lower} OR {key} >= {upper})"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a table is attached, or was until it was detached. All are None where neither catalog nor mark says it."""

    parent: TableName | None = None
    bounds: tuple[str, str] | None = None
    """As in `ArchiveManifest`; None also for what is no range of one column, and where nothing tells how the key
    spells the moments of the mark."""
    key: str | None = None
    """None also where there is no single column."""


@dataclass(frozen=True, slots=True)
class Target:
    """The table, and its `Origin`."""

    partition: TableName
    parent: TableName | None = None
    bounds: tuple[str, str] | None = None
    key: str | None = None
    server: str = ""
    """As `inventory.Server.identity`; empty where the role may not ask."""
    bytes: int = 0
    """Heap and TOAST, as VACUUM or ANALYZE last counted their pages; 0 where they were never counted."""


def find(
    connection: psycopg.Connection[Any],
    schema: str,
    name: str,
    oid: int | None = None,
    encoding: KeyEncoding = KeyEncoding.NATIVE,
    server: str = "",
) -> Target:
    """The partition of that name, or the table that was detached. Raises `TableNotFound`, and psycopg's errors.

    ``oid``: where it is known, the table is looked for by that, whatever it is called now. ``encoding``: of the key,
    to say the bounds of what is detached. ``server``: where it is known, no other may answer; raises as
    `table_state.read`. In autocommit, in one transaction of its own.
    """
    with connection.transaction():
        run(connection, pinned(*PATIENCE))
        server = table_state.read(connection, server)
        (rows,) = run(connection, SQL(TABLE).format(oid=oid, schema=schema, name=name))
        if not rows:
            raise TableNotFound(
                f"table {schema}.{name} does not exist in database {connection.info.dbname!r}, or role "
                f"{connection.info.user!r} may not see its schema: correct spec.partition, or delete this archive"
            )
        row = TableRow(*rows[0])
        if row.kind != PLAIN:
            raise TableNotFound(
                f"{row.schema}.{row.name} is not a plain table: an archive is made of a partition that holds its rows "
                "itself; name one below it"
            )
        table = TableName(schema_=row.schema, name=row.name, oid=row.oid)
        origin = find_origin(connection, table, [encoding])
    return Target(table, origin.parent, origin.bounds, origin.key, server, row.bytes)


def find_origin(
    connection: psycopg.Connection[Any], table: TableName, encodings: Iterable[KeyEncoding] = TYPES
) -> Origin:
    """Where the table is attached by the catalog, or was by the mark in its comment. Raises psycopg's errors.

    The mark says when, and not how the key spells it: milliseconds of a bigint, or what stands behind those of a UUID.
    The CHECK that a detach leaves has the bounds in PostgreSQL's own words, which are those of the catalog before it.
    Where it was dropped, the key's type and ``encodings`` tell, and where several of these fit, the rows.

    To be asked in a transaction that has pinned its settings.
    """
    comment = ddl.read(Identifier("c", "oid"))
    (rows,) = run(connection, SQL(ATTACHED_TO).format(oid=table.oid, comment=comment))
    ((parent_oid, text),) = rows
    _, mark = marker.read(text)
    if parent_oid is None and mark is not None and mark.oid == table.oid:  # else it is a copy of another's comment
        parent_oid = mark.parent
    (rows,) = run(connection, SQL(PARENT).format(parent=parent_oid, table=table.oid, bounds=SQL(ddl.BOUNDS)))
    if not rows:
        return Origin()
    row = ParentRow(*rows[0])
    parent = TableName(schema_=row.schema, name=row.name, oid=row.oid)
    bounds: Bounds | None = None
    if row.bounds is not None:
        is_range = row.key is not None and row.bounds.startswith("FOR VALUES FROM")
        # What is cut off says nothing of where the range ends.
        is_range = is_range and len(row.bounds) < ddl.LONGEST_BOUNDS
        bounds = literals(row.bounds) if is_range else None
    elif mark is not None and row.key is not None and row.key_type is not None:
        key = KeyPart(row.key, row.key_type)
        bounds = table_state.bounds(connection, table.oid, key, mark.range) or _bounds_by_codec(
            connection, table, row.key, mark.range, [Codec.find(row.key_type, encoding) for encoding in encodings]
        )
    return Origin(parent, bounds and (bounds.lower, bounds.upper), row.key)


def _bounds_by_codec(
    connection: psycopg.Connection[Any],
    table: TableName,
    key: str,
    held: Range,
    codecs: Iterable[Codec | None],
) -> Bounds | None:
    """What the one codec makes of the range that can, or whose bounds are the only ones that all rows lie in."""

    def has_others(bounds: Bounds) -> bool:
        query = SQL(HAS_OTHERS).format(
            table=Identifier(table.schema_, table.name), key=Identifier(key), lower=bounds.lower, upper=bounds.upper
        )
        return bool(run(connection, query)[0][0][0])

    def spelled() -> Iterator[Bounds]:
        for codec in codecs:
            if codec is not None and (bounds := spell(held, codec)):
                query = SQL(CANONICAL).format(lower=bounds.lower, upper=bounds.upper, type=SQL(codec.type.value))
                yield Bounds(*run(connection, query)[0][0])

    possible = list(dict.fromkeys(spelled()))
    if len(possible) > 1:
        possible = [bounds for bounds in possible if not has_others(bounds)]
    return possible[0] if len(possible) == 1 else None


def spell(held: Range, codec: Codec) -> Bounds | None:
    """The bounds of a mark as the key takes them; None where it can have none such: anyone may write a mark."""
    if held.lower is None or held.upper is None:
        return None
    if {held.lower.tzinfo is not None, held.upper.tzinfo is not None} != {codec.aware}:
        return None
    try:
        return Bounds(codec.literal(held.lower), codec.literal(held.upper))
    except KeyOutOfRange:
        return None
