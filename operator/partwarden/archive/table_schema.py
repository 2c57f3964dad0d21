"""Columns of a table: catalog -> manifest, and the statements that make a table, or a partition, with them.

Names become quoted identifiers, values literals, and types are the server's own text of what it resolved: a manifest is
data, never SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from ..postgres.connection import run
from ..postgres.ddl import bounded, check_text
from .manifest import ArchiveManifest, Column, UserType
from .user_types import describe_types


class ColumnRow(NamedTuple):
    """A row of `COLUMNS`: the fields of a `Column`, and the OID of its type."""

    name: str
    type: str
    typmod: int
    not_null: bool
    not_null_valid: bool
    generated: str
    expression: str
    collation: str
    type_oid: int


# From 18 on NOT NULL is a constraint that may be NOT VALID; before, there is no such row.
COLUMNS = """
SELECT a.attname, format_type(a.atttypid, NULL), a.atttypmod, a.attnotnull,
       NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = a.attrelid AND k.contype = 'n'
                   AND k.conkey = ARRAY[a.attnum] AND NOT k.convalidated),
       a.attgenerated::text, CASE WHEN a.attgenerated <> '' THEN {expression} ELSE '' END,
       coalesce((SELECT a.attcollation::regcollation::text FROM pg_type t WHERE t.oid = a.atttypid
                 AND t.typcollation <> a.attcollation), ''), a.atttypid::int8
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""


@dataclass(frozen=True, slots=True)
class Description:
    """Columns in order, without dropped ones; types each after those that it is made from."""

    columns: tuple[Column, ...]
    types: tuple[UserType, ...]


def describe(connection: psycopg.Connection[Any], oid: int) -> Description:
    """Describe the table with that OID. Raises psycopg's errors.

    To be asked in a transaction that has pinned its settings: names are qualified only where search_path is empty.
    From then on they are quoted in it only where need be: two descriptions are compared word by word.
    """
    query = SQL(COLUMNS).format(oid=oid, expression=SQL(bounded("pg_get_expr(d.adbin, d.adrelid)")))
    _, values = run(connection, "SET LOCAL quote_all_identifiers = off", query)
    rows = [ColumnRow(*each) for each in values]
    for row in rows:
        check_text(f"cannot archive: the expression of generated column {row.name!r}", row.expression)
    columns = tuple(Column(**{name: getattr(row, name) for name in Column.model_fields}) for row in rows)
    return Description(columns, describe_types(connection, [row.type_oid for row in rows]))


def key_type(manifest: ArchiveManifest) -> str:
    """Of the partition key's column, as ``format_type`` spelled it; empty where the manifest does not know."""
    return next((column.type for column in manifest.columns if column.name == manifest.key), "")


UNBOUNDED = ("MINVALUE", "MAXVALUE")
GENERATION = {"s": "STORED", "v": "VIRTUAL"}
"""By ``pg_attribute.attgenerated``."""


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column as it is to be made. ``type`` and ``collation`` are the server's own text."""

    name: str
    type: Composable
    collation: Composable | None = None
    expression: Composable | None = None
    kind: str = "s"
    """Of the generated column: ``pg_attribute.attgenerated``."""


def create_table(table: Identifier, columns: Sequence[TableColumn], unlogged: bool = False) -> Composed:
    """A table of its own, with columns and what is generated, and nothing else that could refuse a row."""
    parts = SQL(", ").join(_column(each) for each in columns)
    return SQL("CREATE {}TABLE {} ({})").format(SQL("UNLOGGED " if unlogged else ""), table, parts)


def _column(column: TableColumn) -> Composed:
    parts: list[Composable] = [Identifier(column.name), column.type]
    if column.collation is not None:
        parts.append(SQL("COLLATE {}").format(column.collation))
    if column.expression is not None:
        parts.append(SQL("GENERATED ALWAYS AS ({}) {}").format(column.expression, SQL(GENERATION[column.kind])))
    return SQL(" ").join(parts)


def copy_in(table: Identifier, columns: Sequence[str]) -> Composed:
    """COPY of rows in text format, in UTF-8, into these columns."""
    names = SQL(", ").join(map(Identifier, columns))
    return SQL("COPY {} ({}) FROM STDIN WITH (ENCODING 'UTF8')").format(table, names)


def comment(table: Identifier, text: str | None) -> Composed:
    """Sets the whole comment of the table."""
    return SQL("COMMENT ON TABLE {} IS {}").format(table, text)


def hold_to_bounds(table: Identifier, name: str, key: str, key_type: str, bounds: tuple[str, str]) -> Composed:
    """A CHECK that no row outside the bounds fulfils: ATTACH then need not read the table.

    ``key_type``: as the server spells it.
    """
    conditions: list[Composable] = [SQL("{} IS NOT NULL").format(Identifier(key))]
    for sign, value in zip((">=", "<"), bounds, strict=True):
        if value not in UNBOUNDED:
            parts = Identifier(key), SQL(sign), Literal(value), SQL(key_type)
            conditions.append(SQL("{} {} {}::{}").format(*parts))
    return SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({})").format(
        table, Identifier(name), SQL(" AND ").join(conditions)
    )


def drop_constraint(table: Identifier, name: str) -> Composed:
    """Take a constraint of that name away."""
    return SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, Identifier(name))


def attach(parent: Identifier, table: Identifier, bounds: tuple[str, str]) -> Composed:
    """The table becomes the partition for these bounds, lower inclusive, upper exclusive."""
    lower, upper = (SQL(value) if value in UNBOUNDED else Literal(value) for value in bounds)
    return SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(parent, table, lower, upper)


# What a partition of a parent needs, as statements for a loaded table, read from the parent's catalog. Not by LIKE: a
# copy of the definition would keep a lock on the parent for as long as the rows are loaded, or need a table that
# outlives the transaction. All text here is PostgreSQL's own, of its own catalog.
DEFAULTS = """
SELECT format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', {table}, a.attname, pg_get_expr(d.adbin, d.adrelid))
FROM pg_attribute a JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = {parent} AND a.attgenerated = '' AND NOT a.attisdropped ORDER BY a.attnum
"""
STORAGE = """
SELECT format('ALTER TABLE %s ALTER COLUMN %I SET STORAGE %s', {table}, a.attname,
              CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = {parent} AND a.attnum > 0 AND NOT a.attisdropped AND a.attstorage <> t.typstorage ORDER BY a.attnum
"""
COMPRESSION = """
SELECT format('ALTER TABLE %s ALTER COLUMN %I SET COMPRESSION %s', {table}, a.attname,
              CASE a.attcompression WHEN 'p' THEN 'pglz' ELSE 'lz4' END)
FROM pg_attribute a
WHERE a.attrelid = {parent} AND a.attnum > 0 AND NOT a.attisdropped AND a.attcompression IN ('p', 'l') ORDER BY a.attnum
"""
COMMENTS = """
SELECT format('COMMENT ON COLUMN %s.%I IS %L', {table}, a.attname, col_description(a.attrelid, a.attnum))
FROM pg_attribute a
WHERE a.attrelid = {parent} AND a.attnum > 0 AND NOT a.attisdropped
  AND col_description(a.attrelid, a.attnum) IS NOT NULL ORDER BY a.attnum
"""

# Before 18 there is no constraint of that kind.
NOT_NULL = """
SELECT a.attname, format('%I IS NULL', a.attname),
       CASE WHEN k.oid IS NULL THEN format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL', {table}, a.attname)
       ELSE format('ALTER TABLE %s ADD CONSTRAINT %I %s', {table}, k.conname, pg_get_constraintdef(k.oid)) END
FROM pg_attribute a
LEFT JOIN pg_constraint k ON k.conrelid = a.attrelid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum]
WHERE a.attrelid = {parent} AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull ORDER BY a.attnum
"""
CHECKS = """
SELECT k.conname, format('NOT (%s)', pg_get_expr(k.conbin, k.conrelid)),
       format('ALTER TABLE %s ADD CONSTRAINT %I %s', {table}, k.conname, pg_get_constraintdef(k.oid))
FROM pg_constraint k WHERE k.conrelid = {parent} AND k.contype = 'c' ORDER BY k.conname
"""

# An equal index is taken over by ATTACH; that of an EXCLUDE constraint or of a key WITHOUT OVERLAPS is not: it makes
# those itself. What stands before USING is known, whatever the names hold.
INDEXES = """
SELECT coalesce(k.conname, c.relname), NULL,
       CASE WHEN k.oid IS NOT NULL THEN format('ALTER TABLE %s ADD %s', {table}, pg_get_constraintdef(k.oid))
       ELSE format('CREATE %sINDEX ON %s USING %s', x.uni, {table}, substr(x.def, length(x.head) + 1)) END
FROM (SELECT i.*, u.uni, pg_get_indexdef(i.indexrelid) AS def,
             format('CREATE %sINDEX %I ON ONLY %I.%I USING ', u.uni, ic.relname, n.nspname, p.relname) AS head
      FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid JOIN pg_class p ON p.oid = i.indrelid
      JOIN pg_namespace n ON n.oid = p.relnamespace,
      LATERAL (SELECT CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END AS uni) u
      WHERE i.indrelid = {parent} AND NOT i.indisexclusion) x
JOIN pg_class c ON c.oid = x.indexrelid
LEFT JOIN pg_constraint k ON k.conindid = x.indexrelid AND k.conrelid = x.indrelid AND k.contype IN ('p', 'u')
WHERE starts_with(x.def, x.head) ORDER BY x.indexrelid
"""
STATISTICS = """
SELECT format('CREATE STATISTICS %I.%I %s ON %s FROM %s', {schema}, left({name} || '_' || e.stxname, 63),
              (SELECT '(' || string_agg(CASE kind WHEN 'd' THEN 'ndistinct' WHEN 'f' THEN 'dependencies' ELSE 'mcv' END,
                                        ', ') || ')'
               FROM unnest(e.stxkind) kind WHERE kind <> 'e'), pg_get_statisticsobjdef_columns(e.oid), {table})
FROM pg_statistic_ext e WHERE e.stxrelid = {parent} ORDER BY e.oid
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """A constraint or index that the rows must fulfil. ``broken``: the condition of the rows that do not, if it can be
    said."""

    name: str
    broken: SQL | None
    statement: SQL


@dataclass(frozen=True, slots=True)
class ParentDefinition:
    """``before``: for the empty table. ``not_null``, ``checks``, ``indexes`` and ``after``: once it is filled."""

    before: tuple[SQL, ...]
    not_null: tuple[Rule, ...]
    checks: tuple[Rule, ...]
    indexes: tuple[Rule, ...]
    after: tuple[SQL, ...]


def read_definition(connection: psycopg.Connection[Any], parent: int, schema: str, name: str) -> ParentDefinition:
    """Read what the table ``schema.name`` needs to become a partition of the table with OID ``parent``.

    To be asked in a transaction that has pinned its settings: names are qualified only where search_path is empty.
    Raises psycopg's errors.
    """
    table = Identifier(schema, name).as_string()
    queries = (DEFAULTS, STORAGE, COMPRESSION, COMMENTS, STATISTICS, NOT_NULL, CHECKS, INDEXES)
    parts = {"parent": parent, "table": table, "schema": schema, "name": name}
    *plain, not_null, checks, indexes = run(connection, *(SQL(query).format(**parts) for query in queries))
    defaults, storage, compression, comments, statistics = (
        tuple(SQL(statement) for (statement,) in rows) for rows in plain
    )
    return ParentDefinition(
        before=(*defaults, *storage, *compression),
        not_null=_rules(not_null),
        checks=_rules(checks),
        indexes=_rules(indexes),
        after=(*comments, *statistics),
    )


def _rules(rows: list[tuple[Any, ...]]) -> tuple[Rule, ...]:
    return tuple(Rule(name, broken and SQL(broken), SQL(statement)) for name, broken, statement in rows)
