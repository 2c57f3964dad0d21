"""The statements that make a table, the types of its columns, and a partition, in a database that may lack all of it.

A manifest is data, never SQL: names become quoted identifiers or go to the server as parameters, values become
literals, and types are the server's own text of what it resolved. The one text that is taken over is an expression that
`is_expression` has read. ``pg_dump`` of a table holds none of its types, and a database of ten years later may have
none of them.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from ..errors import ArchiveDamaged, StatementRejected
from ..planner.inventory import KeyPart
from ..postgres.connection import Session, run, run_alone
from ..postgres.errors import UNABLE, is_lost, message
from .manifest import Attribute, Column, TypeKind, UserType, is_expression

UNBOUNDED = ("MINVALUE", "MAXVALUE")
GENERATION = {"s": "STORED", "v": "VIRTUAL"}
"""By ``pg_attribute.attgenerated``."""


def create_type(type_: UserType, resolve: Callable[[Attribute], Composable]) -> Iterator[Composed]:
    """The statements that make the type, each to be sent alone; none where it cannot be made from a manifest.
    ``resolve``: the SQL of a type, as the server spells it. Raises `ArchiveDamaged`, and what ``resolve`` raises."""

    def attribute(of: Attribute) -> Composed:
        collate = SQL(" COLLATE {}").format(Identifier(*of.collation)) if of.collation else SQL("")
        return SQL("{}{}").format(resolve(of), collate)

    name = Identifier(type_.schema_, type_.type_name)
    match type_.kind:
        case TypeKind.EXTENSION if type_.extension:
            # With those that it requires: no column need be of a type of theirs.
            words = SQL("CREATE EXTENSION IF NOT EXISTS {} SCHEMA {} CASCADE")
            yield words.format(Identifier(type_.extension), Identifier(type_.schema_))
        case TypeKind.ENUM:
            yield SQL("CREATE TYPE {} AS ENUM ({})").format(name, SQL(", ").join(map(Literal, type_.labels)))
        case TypeKind.COMPOSITE:
            parts = (SQL("{} {}").format(Identifier(of.name), attribute(of)) for of in type_.attributes)
            yield SQL("CREATE TYPE {} AS ({})").format(name, SQL(", ").join(parts))
        case TypeKind.DOMAIN:
            not_null = SQL(" NOT NULL" if type_.not_null else "")
            yield SQL("CREATE DOMAIN {} AS {}{}").format(name, attribute(_only(type_)), not_null)
            for check in type_.checks:
                add = SQL("ALTER DOMAIN {} ADD CONSTRAINT {} CHECK ({}){}")
                not_valid = SQL("" if check.valid else " NOT VALID")
                yield add.format(name, Identifier(check.name), expression(check.expression), not_valid)
        case TypeKind.RANGE:
            of = _only(type_)
            named = {
                "MULTIRANGE_TYPE_NAME": type_.multirange,
                "SUBTYPE_OPCLASS": type_.opclass,
                "COLLATION": of.collation,
            }
            options = [SQL("SUBTYPE = {}").format(resolve(of))]
            options += [SQL(f"{option} = {{}}").format(Identifier(*names)) for option, names in named.items() if names]
            yield SQL("CREATE TYPE {} AS RANGE ({})").format(name, SQL(", ").join(options))


def _only(type_: UserType) -> Attribute:
    if len(type_.attributes) != 1:
        raise ArchiveDamaged(f"the manifest does not say what type {type_.name} is made from")
    return type_.attributes[0]


def expression(text: str) -> Composable:
    """The text of a manifest's expression. Raises `ArchiveDamaged` where it is anything but one expression."""
    if not is_expression(text):
        raise ArchiveDamaged(f"{text[:80]!r} of the manifest is not an expression of PostgreSQL: it is not executed")
    return SQL(text)


# A type of an extension may have moved to another schema with it.
RESOLVED = """
SELECT format_type(coalesce(to_regtype(u.given), (
    SELECT CASE WHEN u.is_array THEN t.typarray ELSE t.oid END FROM pg_type t
    JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
    JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
    WHERE e.extname = u.extension AND t.typname = u.bare))::oid, u.typmod)
FROM (SELECT {given}::text AS given, {bare}::text AS bare, {extension}::text AS extension, {is_array}::bool AS is_array,
             {typmod}::int4 AS typmod) u
"""
ARRAY = "[]"


@dataclass(slots=True)
class Types:
    """What the types of one manifest are in one database, inside one transaction."""

    connection: Session
    archived: Sequence[UserType]
    """The user's types of the manifest, each after those that it is made from."""
    made: list[str] = field(default_factory=list)
    """Names of those that were made, in that order."""
    missing: dict[str, str] = field(default_factory=dict)
    """Name -> why there is no such type, and none was made."""

    def make(self) -> None:
        """Make those of the user's types that the database has not, and can have. Raises psycopg's errors."""
        for each in self.archived:
            if self.find(Attribute(type=each.name)) is not None:
                continue
            if each.kind is TypeKind.OTHER or not each.type_name:
                self.missing[each.name] = "it is written in C or has functions of its own: create it first to have it"
                continue
            try:
                with self.connection.transaction():
                    self._make(each)
                self.made.append(each.name)
            except psycopg.Error as error:
                if is_lost(error) or (error.sqlstate or "").startswith(UNABLE):
                    raise
                self.missing[each.name] = message(error)
            except (ArchiveDamaged, StatementRejected) as error:
                self.missing[each.name] = str(error)

    def _make(self, each: UserType) -> None:
        # Who may not create schemas may not even say so where there is one.
        (found,) = run(self.connection, SQL("SELECT 1 FROM pg_namespace WHERE nspname = {}").format(each.schema_))
        if not found:
            run_alone(self.connection, SQL("CREATE SCHEMA {}").format(Identifier(each.schema_)))
        for statement in create_type(each, self.sql):
            run_alone(self.connection, statement)
        if self.find(Attribute(type=each.name)) is None:
            raise StatementRejected(f"extension {each.extension} has no type {each.name}")

    def make_enum(self, name: str, schema: str) -> Composable | None:
        """Make an enum of the labels that the one of that name had, beside it; None where it was none. Raises psycopg's
        errors."""
        known = self._archived(name)
        if known is None or known.kind is not TypeKind.ENUM:
            return None
        # Of 63 bytes at most.
        short = known.type_name.encode()[:50].decode(errors="ignore")
        made = known.model_copy(update={"schema_": schema, "type_name": f"{short}_{secrets.token_hex(4)}"})
        for statement in create_type(made, self.sql):
            run_alone(self.connection, statement)
        self.made.append(f"{schema}.{made.type_name}")
        return Identifier(schema, made.type_name)

    def sql(self, of: Attribute | Column) -> Composable:
        """The type as the server spells it. Raises `StatementRejected` where it has none of that name."""
        if (found := self.find(of)) is None:
            raise StatementRejected(f"type {of.type} does not exist, or its schema may not be used")
        return found

    def find(self, of: Attribute | Column) -> Composable | None:
        """The same, or None. Raises `ArchiveDamaged` where the text is no name of a type."""
        bare = of.type.removesuffix(ARRAY)
        known = self._archived(bare)
        query = SQL(RESOLVED).format(
            given=of.type,
            bare=known.type_name if known else None,
            extension=known.extension if known else None,
            is_array=of.type.endswith(ARRAY),
            # Not NULL: of `bpchar` and `bit` without a length PostgreSQL then says words that mean the length 1.
            typmod=max(of.typmod, -1),
        )
        try:
            with self.connection.transaction():
                (((found,),),) = run(self.connection, query)
        except (pg.SyntaxError, pg.InvalidName, pg.DataError) as error:
            words = f"{of.type[:80]!r} of the manifest is not a name of a type: {message(error)}"
            raise ArchiveDamaged(words) from None
        except pg.InsufficientPrivilege as error:
            # The role may not see its schema.
            self.missing.setdefault(bare, message(error))
            return None
        # Where there is none, PostgreSQL says a word for it.
        return None if found in (None, "-", "???") else SQL(found)

    def base(self, name: str) -> Attribute | None:
        """What the domain of that name is made from, as the archive has it; None where it is no domain."""
        found = self._archived(name)
        return found.attributes[0] if found and found.kind is TypeKind.DOMAIN and found.attributes else None

    def why_missing(self, name: str) -> str:
        """For people: why a column's type is not there."""
        bare = name.removesuffix(ARRAY)
        return self.missing.get(bare, f"type {bare} does not exist, and the archive does not say what it is made of")

    def _archived(self, name: str) -> UserType | None:
        return next((each for each in self.archived if each.name == name), None)


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
    parts = []
    for column in columns:
        words: list[Composable] = [Identifier(column.name), column.type]
        if column.collation is not None:
            words.append(SQL("COLLATE {}").format(column.collation))
        if column.expression is not None:
            words.append(SQL("GENERATED ALWAYS AS ({}) {}").format(column.expression, SQL(GENERATION[column.kind])))
        parts.append(SQL(" ").join(words))
    return SQL("CREATE {}TABLE {} ({})").format(SQL("UNLOGGED " if unlogged else ""), table, SQL(", ").join(parts))


def comment(table: Identifier, text: str | None) -> Composed:
    """Sets the whole comment of the table."""
    return SQL("COMMENT ON TABLE {} IS {}").format(table, text)


def hold_to_bounds(table: Identifier, name: str, key: KeyPart, bounds: tuple[str, str]) -> Composed:
    """A CHECK that no row outside the bounds fulfils: ATTACH then need not read the table. ``key``: of the parent, as
    the server spells its type."""
    assert key.column is not None
    column = Identifier(key.column)
    conditions: list[Composable] = [SQL("{} IS NOT NULL").format(column)]
    for sign, value in zip((">=", "<"), bounds, strict=True):
        if value not in UNBOUNDED:
            conditions.append(SQL("{} {} {}::{}").format(column, SQL(sign), Literal(value), SQL(key.type)))
    check = SQL(" AND ").join(conditions)
    return SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({})").format(table, Identifier(name), check)


def attach(parent: Identifier, table: Identifier, bounds: tuple[str, str]) -> Composed:
    """The table becomes the partition for these bounds, lower inclusive, upper exclusive."""
    lower, upper = (SQL(value) if value in UNBOUNDED else Literal(value) for value in bounds)
    return SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(parent, table, lower, upper)


# What a partition of a parent needs, as statements for a loaded table, read from the parent's catalog. Not by LIKE: a
# copy of the definition would keep a lock on the parent for as long as the rows are loaded, or need a table that
# outlives the transaction. All text here is PostgreSQL's own, of its own catalog.
COLUMN_SETTINGS = """
SELECT format('ALTER TABLE %s ALTER COLUMN %I SET %s', {table}, a.attname, s.setting)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.attgenerated = '',
LATERAL (VALUES (1, 'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid)),
                (2, CASE WHEN a.attstorage <> t.typstorage THEN 'STORAGE ' || CASE a.attstorage
                        WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END END),
                (3, CASE a.attcompression WHEN 'p' THEN 'COMPRESSION pglz' WHEN 'l' THEN 'COMPRESSION lz4' END)
        ) s (kind, setting)
WHERE a.attrelid = {parent} AND a.attnum > 0 AND NOT a.attisdropped AND s.setting IS NOT NULL ORDER BY kind, a.attnum
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
SELECT format('CREATE STATISTICS %I.%I %s ON %s FROM %s', {schema},
              CASE WHEN octet_length(u.name) > 63
                   OR EXISTS (SELECT FROM pg_statistic_ext x JOIN pg_namespace n ON n.oid = x.stxnamespace
                              WHERE n.nspname = {schema} AND x.stxname = u.name)
              THEN 'statistics_' || md5(concat(u.name, clock_timestamp())) ELSE u.name END,
              (SELECT '(' || string_agg(CASE kind WHEN 'd' THEN 'ndistinct' WHEN 'f' THEN 'dependencies' ELSE 'mcv' END,
                                        ', ') || ')'
               FROM unnest(e.stxkind) kind WHERE kind <> 'e'), pg_get_statisticsobjdef_columns(e.oid), {table})
FROM pg_statistic_ext e, LATERAL (SELECT {name} || '_' || e.stxname AS name) u
WHERE e.stxrelid = {parent} ORDER BY e.oid
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
    """``before``: for the empty table. ``rules``, by kind, and ``after``: once it is filled."""

    before: tuple[SQL, ...]
    rules: tuple[Rule, ...]
    after: tuple[SQL, ...]


def read_definition(connection: psycopg.Connection[Any], parent: int, schema: str, name: str) -> ParentDefinition:
    """Read what the table ``schema.name`` needs to become a partition of the table with OID ``parent``. To be asked in
    a transaction that has pinned its settings: names are qualified only where search_path is empty. Raises psycopg's
    errors."""
    parts = {"parent": parent, "table": Identifier(schema, name).as_string(), "schema": schema, "name": name}

    def ask(*queries: str) -> list[tuple[Any, ...]]:
        return [row for rows in run(connection, *(SQL(each).format(**parts) for each in queries)) for row in rows]

    return ParentDefinition(
        before=tuple(SQL(statement) for (statement,) in ask(COLUMN_SETTINGS)),
        rules=tuple(
            Rule(name, broken and SQL(broken), SQL(statement))
            for name, broken, statement in ask(NOT_NULL, CHECKS, INDEXES)
        ),
        after=tuple(SQL(statement) for (statement,) in ask(COMMENTS, STATISTICS)),
    )
