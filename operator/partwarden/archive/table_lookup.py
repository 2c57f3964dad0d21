"""Which table an archive is to be made of: its OID, its parent and its bounds, as the catalog has them now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from ..api.retention import KeyEncoding
from ..errors import KeyOutOfRange, TableNotFound
from ..planner import marker
from ..planner.calendar import Range
from ..planner.inventory import KeyPart
from ..planner.keys import TYPES, Bounds, Codec, literals
from ..planner.marker import Marker
from ..postgres import ddl, table_state
from ..postgres.connection import pinned, run
from .manifest import TableName
from .snapshot import Held, Place

# The place that a detached table had: its parent, the key and the bounds, from the mark in its COMMENT.
#
# The mark says when, and not how the key spells it: milliseconds of a bigint, or what stands behind those of a UUID.
# The CHECK that a detach leaves has the bounds in PostgreSQL's own words, which are those of the catalog before it.
# Where it was dropped, the type of the key tells, and of a bigint the rows.
#

# A mark is short; whatever else the comment holds is the user's.
MARKED = "SELECT right(obj_description({}, 'pg_class'), 10000)"
PARENT_OF_MARK = """
SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, NULL)
FROM pg_partitioned_table p JOIN pg_class c ON c.oid = p.partrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0]
WHERE p.partrelid = {parent} AND p.partstrat = 'r' AND p.partnatts = 1
  AND c.relowner = (SELECT t.relowner FROM pg_class t WHERE t.oid = {table})
  AND EXISTS (SELECT FROM pg_attribute b WHERE b.attrelid = {table} AND b.attname = a.attname
              AND b.atttypid = a.atttypid AND NOT b.attisdropped)
"""
CANONICAL = "SELECT ({lower}::{type})::text, ({upper}::{type})::text"
HAS_OTHERS = "SELECT EXISTS (SELECT FROM ONLY {table} WHERE {key} < {lower} OR {key} >= {upper})"


@dataclass(frozen=True, slots=True)
class _Origin:
    """What the mark says: ``held`` in the domain of the key."""

    parent: TableName
    key: KeyPart
    held: Range


def place(held: Held) -> Place:
    """Where the table was attached; all is empty where no mark tells, or its parent is gone. Raises psycopg's errors.

    A mark on another table than the one that it was written on means nothing, nor one on a table of another owner than
    the parent's, who could write it as well.
    """
    origin = _from_mark(held)
    if origin is None:
        return Place()
    bounds = table_state.bounds(held.connection, held.table.oid, origin.key, origin.held) or _computed(held, origin)
    text = "FOR VALUES FROM ('{}') TO ('{}')".format(*bounds) if bounds else ""
    return Place(origin.parent, text, origin.key.column)


def _from_mark(held: Held) -> _Origin | None:
    (((comment,),),) = run(held.connection, sql.SQL(MARKED).format(held.table.oid))
    _, mark = marker.read(comment)
    if mark is None or mark.oid != held.table.oid:
        return None
    (found,) = run(held.connection, sql.SQL(PARENT_OF_MARK).format(parent=mark.parent, table=held.table.oid))
    for schema, name, column, type_ in found:
        parent = TableName(schema_=schema, name=name, oid=mark.parent)
        return _Origin(parent, KeyPart(column, type_), mark.range)
    return None


def _computed(held: Held, origin: _Origin) -> Bounds | None:
    """By the key's encoding, if only one fits the rows."""
    found = list(dict.fromkeys(_readings(held, origin)))
    if len(found) > 1:
        found = [each for each in found if not _has_others(held, origin, each)]
    return found[0] if len(found) == 1 else None


def _readings(held: Held, origin: _Origin) -> Iterator[Bounds]:
    lower, upper = origin.held.lower, origin.held.upper
    for encoding in TYPES:
        codec = Codec.find(origin.key.type, encoding)
        if codec is None or lower is None or upper is None:
            continue
        if {lower.tzinfo is not None, upper.tzinfo is not None} != {codec.aware}:
            continue
        try:
            ends = codec.literal(lower), codec.literal(upper)
        except KeyOutOfRange:
            continue
        query = sql.SQL(CANONICAL).format(lower=ends[0], upper=ends[1], type=sql.SQL(codec.type.value))
        yield Bounds(*run(held.connection, query)[0][0])


def _has_others(held: Held, origin: _Origin, bounds: Bounds) -> bool:
    assert origin.key.column is not None
    query = sql.SQL(HAS_OTHERS).format(
        table=sql.Identifier(held.table.schema_, held.table.name),
        key=sql.Identifier(origin.key.column),
        lower=bounds.lower,
        upper=bounds.upper,
    )
    return bool(run(held.connection, query)[0][0][0])


PATIENCE = ("2s", "30s")
"""Time limits for locks and for statements: only the catalog is read."""

TARGET = """
SELECT c.oid::int8, n.nspname, c.relname, c.relkind::text, pg_get_expr(c.relpartbound, 0),
       {comment}, i.inhparent::int8, c.relowner::int8,
       -- By the catalog's count of pages: pg_table_size() would wait for a lock on the table.
       current_setting('block_size')::int8 * (greatest(c.relpages, 0)
         + coalesce((SELECT greatest(t.relpages, 0) FROM pg_class t WHERE t.oid = c.reltoastrelid), 0))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND c.relispartition
WHERE c.oid = coalesce({oid}::oid, to_regclass(format('%I.%I', {schema}, {name})))
"""
PARENT = """
SELECT c.oid::int8, n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), c.relowner::int8
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_partitioned_table p ON p.partrelid = c.oid
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND p.partnatts = 1 AND a.attnum = p.partattrs[0]
WHERE c.oid = {}
"""
PLAIN = "r"


@dataclass(frozen=True, slots=True)
class Target:
    """``parent``, ``bounds`` and ``key`` are None where there is no parent to be seen, or nothing tells of them."""

    partition: TableName
    parent: TableName | None = None
    bounds: tuple[str, str] | None = None
    """As in `record.ArchiveManifest`."""
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
    `server_identity.read`. In autocommit, in one transaction of its own.
    """
    comment = ddl.read(sql.SQL("c.oid"))
    target = sql.SQL(TARGET).format(oid=oid, schema=schema, name=name, comment=comment)
    with connection.transaction():
        run(connection, pinned(*PATIENCE))
        server = table_state.read(connection, server)
        (found,) = run(connection, target)
        if not found:
            raise TableNotFound(
                f"table {schema}.{name} does not exist in database {connection.info.dbname!r}, or role "
                f"{connection.info.user!r} may not see its schema: correct spec.partition, or delete this archive"
            )
        ((oid, schema, name, kind, bounds, comment, parent_oid, owner, size),) = found
        if kind != PLAIN:
            raise TableNotFound(
                f"{schema}.{name} is not a plain table: an archive is made of a partition that holds its rows "
                "itself; name one below it"
            )
        partition = TableName(schema_=schema, name=name, oid=oid)
        _, mark = marker.read(comment)
        if mark is not None and mark.oid != oid:  # a copy of another table's comment
            mark = None
        parent_oid = parent_oid or (mark.parent if mark else None)
        (parents,) = run(connection, sql.SQL(PARENT).format(parent_oid))
    # A mark counts only where the table's owner is the parent's: others may write what they like into a comment.
    if not parents or (bounds is None and parents[0][-1] != owner):
        return Target(partition, server=server, bytes=size)
    ((*of_parent, key, type_name, _),) = parents
    parent = TableName(oid=of_parent[0], schema_=of_parent[1], name=of_parent[2])
    if bounds is not None:
        return Target(partition, parent, _bounds(bounds), key, server, size)
    codec = Codec.find(type_name or "", encoding)
    return Target(partition, parent, _marked(mark, codec), key, server, size)


def _marked(mark: Marker | None, codec: Codec | None) -> tuple[str, str] | None:
    """The bounds that a mark says; None where it says none that the key can have: anyone may have written it."""
    if mark is None or codec is None:
        return None
    try:
        return codec.literal(mark.range.lower), codec.literal(mark.range.upper)
    except (KeyOutOfRange, TypeError):
        return None


def _bounds(text: str) -> tuple[str, str] | None:
    """None for what is no range of one column."""
    try:
        lower, upper = literals(text)
    except ValueError:
        return None
    return lower, upper
