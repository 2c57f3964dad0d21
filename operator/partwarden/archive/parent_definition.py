"""Whether an archive fits the parent that it is to be attached to, and what a partition of that parent needs.

Checked before anything is loaded: ATTACH checks all of this again, but then the rows have been loaded, for hours
perhaps. What a partition needs is read as statements for a loaded table from the parent's catalog, and not made by
LIKE: a copy of the definition would keep a lock on the parent for as long as the rows are loaded, or need a table that
outlives the transaction. All text here is PostgreSQL's own, of its own catalog.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from ..api.policy import TableSpec
from ..errors import CannotAttach, InsufficientPrivilege, NotOwner, TableNotFound
from ..planner.calendar import Range
from ..planner.findings import quoted
from ..planner.inventory import Inventory, Parent, Strategy
from ..planner.keys import TYPES, Codec, parse_bounds
from ..postgres import catalog
from ..postgres.connection import Session, pinned, run
from ..postgres.settings import TEXT_SETTINGS, setting
from . import table_schema
from .manifest import ArchiveManifest, Column
from .user_types import Types

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
    *plain, not_null, checks, indexes = run(connection, *(sql.SQL(query).format(**parts) for query in queries))
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


CREATES = "SELECT has_schema_privilege({owner}, {schema}, 'CREATE')"
AS_OWN = "leave out --attach to load it as a table of its own"


@dataclass(frozen=True, slots=True)
class Parentage:
    """The parent as it is now: its inventory, its ``columns`` in order, and what else a partition needs.

    ``bounds`` are those that the partition is to have.
    """

    inventory: Inventory
    columns: tuple[Column, ...]
    definition: ParentDefinition
    key: tuple[str, str]
    """The partition key's column, and its type as the server spells it."""
    bounds: tuple[str, str]

    @property
    def parent(self) -> Parent:
        """It exists: `check` has seen it."""
        assert self.inventory.parent is not None
        return self.inventory.parent


def check(
    connection: Session, manifest: ArchiveManifest, parent_schema: str, parent_name: str, schema: str, name: str
) -> Parentage:
    """Read the parent, which the table ``schema.name`` is to be a partition of.

    Raises `TableNotFound`, `CannotAttach`, `NotOwner`, or psycopg's errors.
    """
    if manifest.bounds is None or manifest.key is None:
        raise CannotAttach("the archive does not say which bounds its table had: leave out --attach")
    kind, held = table_schema.key_type(manifest), range_of(manifest)
    encoding = next((each.encoding for each in _codecs(kind, manifest.bounds)), None)
    fields = {
        "table": {"schema": parent_schema, "name": parent_name},
        **({"keyEncoding": encoding} if encoding else {}),
    }
    inventory = catalog.observe(connection, TableSpec.model_validate(fields))
    parent = inventory.parent
    if parent is None:
        raise TableNotFound(
            f"table {parent_schema}.{parent_name} does not exist: name another with --parent, or leave out --attach"
        )
    key = [(part.column, part.type) for part in parent.key]
    if parent.strategy is not Strategy.RANGE or key != [(manifest.key, kind)]:
        raise CannotAttach(
            f"{parent} is not partitioned by RANGE of {manifest.key!r} of type {kind}, as it was: {AS_OWN}"
        )
    if not parent.may_own:
        raise NotOwner(f"role {inventory.server.user!r} is not an owner of {parent}: connect as {parent.owner!r}")
    for partition in inventory.partitions:
        if held is not None and partition.range is not None and partition.range.overlaps(held):
            raise CannotAttach(
                f"partition {partition} {partition.bounds} of {parent} holds what the archive held: {AS_OWN}"
            )
    with connection.transaction():
        run(connection, pinned("2s", "30s"), setting(TEXT_SETTINGS))
        ((creates,),) = run(connection, sql.SQL(CREATES).format(owner=parent.owner, schema=schema))[0]
        if parent.borrowed and not creates:
            grant = f"GRANT CREATE ON SCHEMA {quoted(schema)} TO {quoted(parent.owner)}"
            raise InsufficientPrivilege(
                f"{schema}.{name} is not attached to {parent}: all is done as {parent.owner!r}, its owner, who may not "
                f"create tables in schema {schema!r}: {grant}, or leave out --attach"
            )
        columns = table_schema.describe(connection, parent.oid).columns
        definition = read(connection, parent.oid, schema, name)
        _check_columns(parent, columns, manifest.columns, Types(connection, manifest.types))
    inventory = catalog.complete(connection, inventory, [])
    return Parentage(inventory, columns, definition, (manifest.key, kind), manifest.bounds)


def _codecs(kind: str, bounds: tuple[str, str]) -> Iterator[Codec]:
    """Those by which the bounds are moments of our calendar, at one end at least. Seconds come before milliseconds."""
    for encoding in TYPES:
        if (codec := Codec.find(kind, encoding)) is not None and (held := _held(codec, bounds)) is not None:
            ends = (end for end in (held.lower, held.upper) if end is not None)
            if any(codec.floor < end < codec.ceiling for end in ends):
                yield codec


def _held(codec: Codec, bounds: tuple[str, str]) -> Range | None:
    try:
        return parse_bounds("FOR VALUES FROM ({}) TO ({})".format(*bounds), codec)
    except ValueError:
        return None


def range_of(manifest: ArchiveManifest) -> Range | None:
    """The bounds as moments in the key's domain; None where the key does not say when."""
    if manifest.bounds is None:
        return None
    codec = next(_codecs(table_schema.key_type(manifest), manifest.bounds), None)
    return _held(codec, manifest.bounds) if codec is not None else None


def _check_columns(parent: Parent, present: Iterable[Column], archived: Iterable[Column], types: Types) -> None:
    """What the parent has and the archive has not gets its default; what it has no more would be lost."""
    by_name = {column.name: column for column in present}
    for column in archived:
        there = by_name.get(column.name)
        if there is None or not _takes(there, column, types):
            difference = "has no such column" if there is None else f"has it as {_words(there)}"
            raise CannotAttach(
                f"column {column.name!r} of the archive is {_words(column)}, but {parent} {difference}: {AS_OWN}"
            )


def _takes(there: Column, archived: Column, types: Types) -> bool:
    """Whether the parent's column is of the type, wherever that is now, and computed where the archived one was.

    Values that were computed and stored may become values like any other.
    """
    # Of the type alone: whether its values fit another length or precision is found out by loading them.
    bare = archived.model_copy(update={"typmod": -1})
    type_ = types.find(bare)
    same = there.type == archived.type or (type_ is not None and type_.as_string() == there.type)
    return same and (there.generated == archived.generated or (archived.generated == "s" and not there.generated))


def _words(column: Column) -> str:
    return f"{column.type}, generated" if column.generated else column.type
