"""The place that a detached table had: its parent, the key and the bounds, from the mark in its COMMENT.

The mark says when, and not how the key spells it: milliseconds of a bigint, or what stands behind those of a UUID. The
CHECK that a detach leaves has the bounds in PostgreSQL's own words, which are those of the catalog before it. Where it
was dropped, the type of the key tells, and of a bigint the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from . import checks, marker
from .errors import KeyOutOfRange
from .interval import Range
from .inventory import KeyPart
from .keys import TYPES, Bounds, Codec
from .reading import Held, Place
from .record import TableName
from .session import run

# A mark is short; whatever else the comment holds is the user's.
MARKED = "SELECT right(obj_description({}, 'pg_class'), 10000)"
PARENT = """
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
    origin = _marked(held)
    if origin is None:
        return Place()
    bounds = checks.bounds(held.connection, held.table.oid, origin.key, origin.held) or _computed(held, origin)
    text = "FOR VALUES FROM ('{}') TO ('{}')".format(*bounds) if bounds else ""
    return Place(origin.parent, text, origin.key.column)


def _marked(held: Held) -> _Origin | None:
    (((comment,),),) = run(held.connection, sql.SQL(MARKED).format(held.table.oid))
    _, mark = marker.read(comment)
    if mark is None or mark.oid != held.table.oid:
        return None
    (found,) = run(held.connection, sql.SQL(PARENT).format(parent=mark.parent, table=held.table.oid))
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
