"""The table that an archive is made of: where it is, or was, attached, and what its columns and types are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from ..api.retention import KeyEncoding
from ..errors import KeyOutOfRange, StatementRejected, TableNotFound
from ..planner import marker
from ..planner.calendar import Range
from ..planner.inventory import KeyPart
from ..planner.keys import TYPES, Bounds, Codec, fitting, literals, numbers, parse_bounds
from ..postgres import ddl, table_state
from ..postgres.connection import pinned, run
from .manifest import MOST_LABELS, Column, TableName, UserType

# The size by the catalog's count of pages: pg_table_size() would wait for a lock on the table.
TABLE = """
SELECT c.oid::int8, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
       current_setting('block_size')::int8 * (greatest(c.relpages, 0)
         + coalesce((SELECT greatest(t.relpages, 0) FROM pg_class t WHERE t.oid = c.reltoastrelid), 0)) AS bytes
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = coalesce({oid}::oid, to_regclass(format('%I.%I', {schema}, {name})))
"""
ATTACHED_TO = """
SELECT (SELECT i.inhparent::int8 FROM pg_inherits i WHERE i.inhrelid = c.oid AND c.relispartition), {comment}
FROM pg_class c WHERE c.oid = {oid}
"""

# ``bounds`` is NULL for a detached table, ``key`` where there is no single column. A mark counts only where the table's
# owner is the parent's, for others may write what they like into a comment, and where the table could be that parent's
# partition still.
PARENT = """
SELECT p.oid::int8, n.nspname AS schema, p.relname AS name, a.attname AS key,
       format_type(a.atttypid, NULL) AS key_type, {bounds} AS bounds
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
class Target:
    """A table, and where it is attached, or was until it was detached: None where neither catalog nor mark says it."""

    partition: TableName
    parent: TableName | None = None
    bounds: tuple[str, str] | None = None
    """As in `ArchiveManifest`; None also for what is no range of one column, and where nothing tells how the key
    spells the moments of the mark."""
    key: str | None = None
    """None also where there is no single column."""
    held: Range | None = None
    """The same in the key's domain, see `calendar`; None where the bounds are no moments."""
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
        # Only the catalog is read.
        run(connection, pinned("2s", "30s"))
        server = table_state.read(connection, server)
        (rows,) = run(connection, SQL(TABLE).format(oid=oid, schema=schema, name=name))
        if not rows:
            raise TableNotFound(
                f"table {schema}.{name} does not exist in database {connection.info.dbname!r}, or role "
                f"{connection.info.user!r} may not see its schema: correct spec.partition, or delete this archive"
                f"{table_state.similar_tables(connection, schema, name, kind='r')}"
            )
        (row,) = rows
        if row.kind != "r":
            raise TableNotFound(
                f"{row.schema}.{row.name} is not a plain table: an archive is made of a partition that holds its rows "
                "itself; name one below it"
            )
        table = TableName(schema_=row.schema, name=row.name, oid=row.oid)
        return replace(find_origin(connection, table, [encoding]), server=server, bytes=row.bytes)


# Not by regclass, which hides what the role may not see: a table that is there must not seem to be gone.
REMAINS = """
SELECT n.nspname AS schema, c.relname AS name, c.oid::int8
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = {oid}::oid OR (n.nspname = {schema} AND c.relname = {name}) ORDER BY c.oid
"""


def remains(
    connection: psycopg.Connection[Any], schema: str, name: str, oid: int, server: str
) -> tuple[tuple[TableName, ...], datetime]:
    """What is there of a table that was dropped, by its OID or by its name, and the server's clock. Raises as
    `table_state.read`, and psycopg's errors. In autocommit, in one transaction of its own."""
    with connection.transaction():
        # Only the catalog is read.
        run(connection, pinned("2s", "30s"))
        table_state.read(connection, server)
        rows, ((now,),) = run(
            connection, SQL(REMAINS).format(oid=oid, schema=schema, name=name), "SELECT clock_timestamp()"
        )
    return tuple(TableName(schema_=row.schema, name=row.name, oid=row.oid) for row in rows), now.astimezone(UTC)


def find_origin(
    connection: psycopg.Connection[Any], table: TableName, encodings: Iterable[KeyEncoding] = TYPES
) -> Target:
    """Where the table is attached by the catalog, or was by the mark in its comment. Raises psycopg's errors.

    The mark says when, and not how the key spells it: milliseconds of a bigint, or what stands behind those of a UUID.
    The CHECK that a detach leaves has the bounds in PostgreSQL's own words, which are those of the catalog before it.
    Where it was dropped, the key's type and ``encodings`` tell, and where several of these fit, the rows.

    To be asked in a transaction that has pinned its settings.
    """
    query = SQL(ATTACHED_TO).format(oid=table.oid, comment=ddl.COMMENT)
    (((parent_oid, text),),) = run(connection, query)
    _, mark = marker.read(text)
    if parent_oid is None and mark is not None and mark.oid == table.oid:  # else it is a copy of another's comment
        parent_oid = mark.parent
    (rows,) = run(connection, SQL(PARENT).format(parent=parent_oid, table=table.oid, bounds=ddl.BOUNDS))
    if not rows:
        return Target(table)
    (row,) = rows
    bounds: Bounds | None = None
    if row.bounds is not None:
        is_range = row.key is not None and row.bounds.startswith("FOR VALUES FROM")
        # What is cut off says nothing of where the range ends.
        bounds = literals(row.bounds) if is_range and len(row.bounds) < ddl.LONGEST_BOUNDS else None
    elif mark is not None and row.key is not None and row.key_type is not None:
        key = KeyPart(row.key, row.key_type)
        codecs = [codec for encoding in encodings if (codec := Codec.find(row.key_type, encoding))]
        bounds = table_state.bounds(connection, table.oid, key, mark.range) or _bounds_by_codec(
            connection, table, row.key, mark.range, codecs
        )
    held = mark.range if mark is not None and row.bounds is None else moments(row.key_type, bounds)[1]
    return Target(table, TableName(schema_=row.schema, name=row.name, oid=row.oid), bounds, row.key, held)


def _bounds_by_codec(
    connection: psycopg.Connection[Any], table: TableName, key: str, held: Range, codecs: Iterable[Codec]
) -> Bounds | None:
    """What the one codec makes of the range that can, or whose bounds are the only ones that all rows lie in."""

    def has_others(bounds: Bounds) -> bool:
        names = {"table": Identifier(table.schema_, table.name), "key": Identifier(key)}
        (((others,),),) = run(connection, SQL(HAS_OTHERS).format(**names, lower=bounds.lower, upper=bounds.upper))
        return bool(others)

    def spelled() -> Iterator[Bounds]:
        for codec in codecs:
            if bounds := spell(held, codec):
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


# The fields of a `Column`. From 18 on NOT NULL is a constraint that may be NOT VALID; before, there is no such row.
COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, NULL) AS type, a.atttypmod AS typmod, a.attnotnull AS not_null,
       NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = a.attrelid AND k.contype = 'n'
                   AND k.conkey = ARRAY[a.attnum] AND NOT k.convalidated) AS not_null_valid,
       a.attgenerated::text AS generated,
       CASE WHEN a.attgenerated <> '' THEN {expression} ELSE '' END AS expression,
       coalesce((SELECT a.attcollation::regcollation::text FROM pg_type t WHERE t.oid = a.atttypid
                 AND t.typcollation <> a.attcollation), '') AS collation, a.atttypid::int8 AS type_oid
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
FIRST_OF_USERS = 16384
"""What has a lower OID came with the server."""

# The fields of a `UserType`, and the types that it is made from: of an array its element, of a multirange its range,
# with which it is made. A range is described without what only makes an index on it faster; one with a function of its
# own must be made by hand.
TYPE = """
WITH t AS (SELECT * FROM pg_type WHERE oid = {oid}),
parts (place, name, type, typmod, coll) AS (
    SELECT a.attnum, a.attname, a.atttypid, a.atttypmod, a.attcollation FROM t JOIN pg_attribute a
    ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT 1, '', typbasetype, typtypmod, typcollation FROM t WHERE typtype = 'd'
    UNION ALL SELECT 1, '', typelem, -1, 0::oid FROM t WHERE typtype = 'b' AND typcategory = 'A'
    UNION ALL SELECT 1, '', r.rngsubtype, -1, r.rngcollation FROM t JOIN pg_range r ON r.rngtypid = t.oid
    UNION ALL SELECT 1, '', m.rngtypid, -1, 0::oid FROM t JOIN pg_range m ON m.rngmultitypid = t.oid)
SELECT format_type(t.oid, NULL) AS name, n.nspname AS schema, t.typname AS type_name, k.kind, e.extname AS extension,
       ARRAY(SELECT l.enumlabel::text FROM pg_enum l WHERE l.enumtypid = t.oid AND k.kind = 'Enum'
             ORDER BY l.enumsortorder) AS labels,
       (SELECT coalesce(jsonb_agg(jsonb_build_object(
                 'name', p.name, 'type', format_type(p.type, NULL), 'typmod', p.typmod, 'collation',
                 (SELECT jsonb_build_array(l.nspname, c.collname)
                  FROM pg_collation c JOIN pg_namespace l ON l.oid = c.collnamespace
                  WHERE c.oid = p.coll AND c.oid <> (SELECT typcollation FROM pg_type WHERE oid = p.type)))
               ORDER BY p.place), '[]')
        FROM parts p WHERE k.kind IN ('Domain', 'Composite', 'Range')) AS attributes,
       t.typnotnull AND k.kind = 'Domain' AS not_null,
       (SELECT coalesce(jsonb_agg(jsonb_build_object(
                 'name', c.conname, 'expression', {expression}, 'valid', c.convalidated)
               ORDER BY c.conname), '[]')
        FROM pg_constraint c WHERE c.contypid = t.oid AND c.contype = 'c' AND k.kind = 'Domain') AS checks,
       (SELECT jsonb_build_array(s.nspname, o.opcname) FROM pg_opclass o JOIN pg_namespace s ON s.oid = o.opcnamespace
        WHERE o.oid = r.rngsubopc AND NOT o.opcdefault AND k.kind = 'Range') AS opclass,
       (SELECT jsonb_build_array(s.nspname, m.typname) FROM pg_type m JOIN pg_namespace s ON s.oid = m.typnamespace
        WHERE m.oid = r.rngmultitypid AND k.kind = 'Range') AS multirange,
       t.typtype = 'b' AND t.typcategory = 'A' AND t.typelem <> 0 OR t.typtype = 'm' AS is_made_along,
       ARRAY(SELECT p.type FROM parts p ORDER BY p.place) AS made_from
FROM t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_range r ON r.rngtypid = t.oid
LEFT JOIN (pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass)
  ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e',
LATERAL (SELECT CASE WHEN e.extname IS NOT NULL THEN 'Extension' WHEN r.rngcanonical <> 0 THEN 'Other'
                WHEN t.typtype = 'e' THEN 'Enum' WHEN t.typtype = 'd' THEN 'Domain'
                WHEN t.typtype = 'c' THEN 'Composite' WHEN t.typtype = 'r' THEN 'Range' ELSE 'Other' END AS kind) k
"""


@dataclass(frozen=True, slots=True)
class Description:
    """Columns in order, without dropped ones; types each after those that it is made from."""

    columns: tuple[Column, ...]
    types: tuple[UserType, ...]


def describe(connection: psycopg.Connection[Any], oid: int) -> Description:
    """Describe the table with that OID. Raises psycopg's errors. To be asked in a transaction that has pinned its
    settings: names are qualified only where search_path is empty. From then on they are quoted in it only where need
    be: two descriptions are compared word by word."""
    query = SQL(COLUMNS).format(oid=oid, expression=ddl.bounded("pg_get_expr(d.adbin, d.adrelid)"))
    _, rows = run(connection, "SET LOCAL quote_all_identifiers = off", query)
    for row in rows:
        subject = f"cannot archive: the expression of generated column {row.name!r}"
        ddl.check_text(subject, row.expression, "ALTER COLUMN … DROP EXPRESSION keeps its values")
    columns = tuple(Column(**row._asdict()) for row in rows)
    types: list[UserType] = []
    seen: set[int] = set()

    def visit(oid: int) -> None:
        if oid < FIRST_OF_USERS or oid in seen:
            return
        seen.add(oid)
        query = SQL(TYPE).format(oid=oid, expression=ddl.bounded("pg_get_expr(c.conbin, 0)"))
        ((row,),) = run(connection, query)
        for check in row.checks:
            subject = f"cannot archive: CHECK {check['name']!r} of {row.name}"
            ddl.check_text(subject, check["expression"], "have it call a function instead")
        if len(row.labels) > MOST_LABELS:
            raise StatementRejected(
                f"cannot archive: enum {row.name} has {len(row.labels):,} labels, and a manifest takes "
                f"{MOST_LABELS:,}; make its columns text first"
            )
        # An extension has an array with its element, by whose name the array is found again.
        is_array = row.name.endswith("[]")
        for each in row.made_from if row.extension is None or is_array else ():
            visit(each)
        if not row.is_made_along or (row.extension is not None and not is_array):
            types.append(UserType(**row._asdict()))

    for row in rows:
        visit(row.type_oid)
    return Description(columns, tuple(types))


def moments(key_type: str | None, bounds: tuple[str, str] | None) -> tuple[Codec, Range] | tuple[None, None]:
    """Bounds as the catalog writes them, as moments of our calendar, at one end at least, and by which codec.

    None where they are none. Of seconds and milliseconds it is what the numbers are in the years in which bounds are
    expected (`keys.YEARS`), else what makes moments of both ends, else seconds.
    """
    found: list[tuple[Codec, Range]] = []
    text = "FOR VALUES FROM ({}) TO ({})".format(*bounds or ("", ""))
    for encoding in TYPES:
        if (codec := Codec.find(key_type or "", encoding)) is None:
            continue
        with suppress(ValueError):
            held = parse_bounds(text, codec)
            ends = (held.lower, held.upper) if held is not None else ()
            if held is not None and any(end is not None and codec.floor < end < codec.ceiling for end in ends):
                found.append((codec, held))
    unit = fitting(numbers([text]))
    expected = unit.encoding if unit is not None else None
    ranked = sorted(found, key=lambda each: (each[0].encoding is not expected, each[1].bounded is None))
    return ranked[0] if ranked else (None, None)
