"""What a table must have to become a partition, as statements for a loaded table, read from the parent's catalog.

Not by LIKE: a copy of the definition would keep a lock on the parent for as long as the rows are loaded, or need a
table that outlives the transaction. All text here is PostgreSQL's own, of its own catalog.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from .session import run

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
    broken: sql.SQL | None
    statement: sql.SQL


@dataclass(frozen=True, slots=True)
class ParentDefinition:
    """``before``: for the empty table. ``not_null``, ``checks``, ``indexes`` and ``after``: once it is filled."""

    before: tuple[sql.SQL, ...]
    not_null: tuple[Rule, ...]
    checks: tuple[Rule, ...]
    indexes: tuple[Rule, ...]
    after: tuple[sql.SQL, ...]


def read(connection: psycopg.Connection[Any], parent: int, schema: str, name: str) -> ParentDefinition:
    """Read what the table ``schema.name`` needs to become a partition of the table with OID ``parent``.

    To be asked in a transaction that has pinned its settings: names are qualified only where search_path is empty.
    Raises psycopg's errors.
    """
    table = sql.Identifier(schema, name).as_string()
    queries = (DEFAULTS, STORAGE, COMPRESSION, COMMENTS, STATISTICS, NOT_NULL, CHECKS, INDEXES)
    parts = {"parent": parent, "table": table, "schema": schema, "name": name}
    *plain, not_null, checks, indexes = run(connection, *(sql.SQL(each).format(**parts) for each in queries))
    defaults, storage, compression, comments, statistics = (
        tuple(sql.SQL(statement) for (statement,) in rows) for rows in plain
    )
    return ParentDefinition(
        before=(*defaults, *storage, *compression),
        not_null=_rules(not_null),
        checks=_rules(checks),
        indexes=_rules(indexes),
        after=(*comments, *statistics),
    )


def _rules(rows: list[tuple[Any, ...]]) -> tuple[Rule, ...]:
    return tuple(
        Rule(name, None if broken is None else sql.SQL(broken), sql.SQL(statement)) for name, broken, statement in rows
    )
