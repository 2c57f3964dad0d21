"""Describe a table for its manifest: the columns, and the user's types that they need. Values, never SQL.

``pg_dump`` of a table holds none of its types, and a database of ten years later may have none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from ..errors import ArchiveDamaged
from ..postgres.connection import run
from .manifest import ArchiveManifest, Attribute, Column, DomainCheck, TypeKind, UserType, is_expression

# Structured fields of a manifest -> the statements that make its table and its types again.
#
# A manifest is data: names become quoted identifiers, values become literals, and types are PostgreSQL's own text of
# what the server resolved (see `resolving`). The one text that is taken over is an expression that `expressions` has
# read.
#

UNBOUNDED = ("MINVALUE", "MAXVALUE")
GENERATION = {"s": "STORED", "v": "VIRTUAL"}
"""``pg_attribute.attgenerated``."""

Resolve = Callable[[Attribute], Composable]
"""The SQL of a type, as the server spells it; raises where the server knows none of that name."""


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


def expression(text: str) -> Composable:
    """The text of a manifest's expression. Raises `ArchiveDamaged` where it is anything but one expression."""
    if not is_expression(text):
        raise ArchiveDamaged(f"{text[:80]!r} of the manifest is not an expression of PostgreSQL: it is not executed")
    return SQL(text)


def create_type(each: UserType, resolve: Resolve) -> Iterator[Composed]:
    """The statements that make the type, each to be sent alone; none where it cannot be made from a manifest.

    Raises `ArchiveDamaged`, and what ``resolve`` raises.
    """
    made = Identifier(each.schema_, each.type_name)
    match each.kind:
        case TypeKind.EXTENSION if each.extension:
            words = SQL("CREATE EXTENSION IF NOT EXISTS {} SCHEMA {}")
            yield words.format(Identifier(each.extension), Identifier(each.schema_))
        case TypeKind.ENUM:
            yield SQL("CREATE TYPE {} AS ENUM ({})").format(made, SQL(", ").join(map(Literal, each.labels)))
        case TypeKind.COMPOSITE:
            parts = (SQL("{} {}").format(Identifier(of.name), _attribute(of, resolve)) for of in each.attributes)
            yield SQL("CREATE TYPE {} AS ({})").format(made, SQL(", ").join(parts))
        case TypeKind.DOMAIN:
            yield from _domain(made, each, resolve)
        case TypeKind.RANGE:
            yield _range(made, each, resolve)


def _attribute(of: Attribute, resolve: Resolve) -> Composed:
    collate = SQL(" COLLATE {}").format(Identifier(*of.collation)) if of.collation else SQL("")
    return SQL("{}{}").format(resolve(of), collate)


def _domain(made: Identifier, each: UserType, resolve: Resolve) -> Iterator[Composed]:
    not_null = SQL(" NOT NULL" if each.not_null else "")
    yield SQL("CREATE DOMAIN {} AS {}{}").format(made, _attribute(_only(each), resolve), not_null)
    for check in each.checks:
        add = SQL("ALTER DOMAIN {} ADD CONSTRAINT {} CHECK ({}){}")
        not_valid = SQL("" if check.valid else " NOT VALID")
        yield add.format(made, Identifier(check.name), expression(check.expression), not_valid)


def _range(made: Identifier, each: UserType, resolve: Resolve) -> Composed:
    of = _only(each)
    parts = [SQL("SUBTYPE = {}").format(resolve(of))]
    if each.multirange:
        parts.append(SQL("MULTIRANGE_TYPE_NAME = {}").format(Identifier(*each.multirange)))
    if each.opclass:
        parts.append(SQL("SUBTYPE_OPCLASS = {}").format(Identifier(*each.opclass)))
    if of.collation:
        parts.append(SQL("COLLATION = {}").format(Identifier(*of.collation)))
    return SQL("CREATE TYPE {} AS RANGE ({})").format(made, SQL(", ").join(parts))


def _only(each: UserType) -> Attribute:
    if len(each.attributes) != 1:
        raise ArchiveDamaged(f"the manifest does not say what type {each.name} is made from")
    return each.attributes[0]


def copy_in(table: Identifier, columns: Sequence[str], encoding: str = "UTF8") -> Composed:
    """COPY of rows in text format into these columns."""
    names = SQL(", ").join(map(Identifier, columns))
    return SQL("COPY {} ({}) FROM STDIN WITH (ENCODING {})").format(table, names, Literal(encoding))


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


def key_type(manifest: ArchiveManifest) -> str:
    """Of the partition key's column, as ``format_type`` spelled it; empty where the manifest does not know."""
    return next((each.type for each in manifest.columns if each.name == manifest.key), "")


def drop_constraint(table: Identifier, name: str) -> Composed:
    """Take a constraint of that name away."""
    return SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, Identifier(name))


def attach(parent: Identifier, table: Identifier, bounds: tuple[str, str]) -> Composed:
    """The table becomes the partition for these bounds, lower inclusive, upper exclusive."""
    lower, upper = (SQL(value) if value in UNBOUNDED else Literal(value) for value in bounds)
    return SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(parent, table, lower, upper)


FIRST_OF_USERS = 16384
"""What has a lower OID came with the server."""

# From 18 on NOT NULL is a constraint that may be NOT VALID; before, there is no such row.
COLUMNS = """
SELECT a.attname, format_type(a.atttypid, NULL), a.atttypmod, a.attnotnull,
       NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = a.attrelid AND k.contype = 'n'
                   AND k.conkey = ARRAY[a.attnum] AND NOT k.convalidated),
       a.attgenerated::text, CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END,
       (SELECT a.attcollation::regcollation::text FROM pg_type t WHERE t.oid = a.atttypid
        AND t.typcollation <> a.attcollation), a.atttypid
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = {} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
TYPE = """
SELECT format_type(t.oid, NULL), n.nspname, t.typname, t.typtype::text, t.typrelid,
       -- An array is made with its element, and a multirange with its range.
       CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE coalesce(m.rngtypid, 0) END,
       t.typbasetype, format_type(nullif(t.typbasetype, 0), NULL), t.typtypmod, t.typnotnull,
       (SELECT e.extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
        WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
          AND d.refclassid = 'pg_extension'::regclass),
       (SELECT jsonb_build_array(l.nspname, c.collname)
        FROM pg_collation c JOIN pg_namespace l ON l.oid = c.collnamespace
        WHERE c.oid = t.typcollation AND t.typtype = 'd'
          AND c.oid <> (SELECT typcollation FROM pg_type WHERE oid = t.typbasetype))
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_range m ON m.rngmultitypid = t.oid
WHERE t.oid = {}
"""
LABELS = "SELECT enumlabel FROM pg_enum WHERE enumtypid = {} ORDER BY enumsortorder"
CHECKS = """
SELECT conname, pg_get_expr(conbin, 0), convalidated FROM pg_constraint
WHERE contypid = {} AND contype = 'c' ORDER BY 1
"""
ATTRIBUTES = """
SELECT a.attname, format_type(a.atttypid, NULL), a.atttypmod, a.atttypid,
       (SELECT jsonb_build_array(l.nspname, c.collname)
        FROM pg_collation c JOIN pg_namespace l ON l.oid = c.collnamespace
        WHERE c.oid = a.attcollation AND c.oid <> t.typcollation)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = {} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
RANGE = """
SELECT r.rngsubtype, format_type(r.rngsubtype, NULL), o.nspname, c.opcname, NOT c.opcdefault, r.rngcanonical <> 0,
       mn.nspname, m.typname,
       (SELECT jsonb_build_array(l.nspname, k.collname)
        FROM pg_collation k JOIN pg_namespace l ON l.oid = k.collnamespace
        WHERE k.oid = r.rngcollation AND k.oid <> s.typcollation)
FROM pg_range r JOIN pg_type s ON s.oid = r.rngsubtype
JOIN pg_opclass c ON c.oid = r.rngsubopc JOIN pg_namespace o ON o.oid = c.opcnamespace
JOIN pg_type m ON m.oid = r.rngmultitypid JOIN pg_namespace mn ON mn.oid = m.typnamespace
WHERE r.rngtypid = {}
"""
KINDS = {"e": TypeKind.ENUM, "d": TypeKind.DOMAIN, "c": TypeKind.COMPOSITE, "r": TypeKind.RANGE}


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
    _, rows = run(connection, "SET LOCAL quote_all_identifiers = off", SQL(COLUMNS).format(oid))
    columns = tuple(
        Column(
            name=name,
            type=kind,
            typmod=typmod,
            not_null=not_null,
            not_null_valid=valid,
            generated=generated,
            expression=expression or "",
            collation=collation or "",
        )
        for name, kind, typmod, not_null, valid, generated, expression, collation, _ in rows
    )
    found = _Search(connection)
    for *_, type_oid in rows:
        found.visit(type_oid)
    return Description(columns, tuple(found.types))


@dataclass
class _Search:
    """Depth first: a type is added after what it is made from."""

    connection: psycopg.Connection[Any]
    types: list[UserType] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    def visit(self, oid: int) -> None:
        if oid < FIRST_OF_USERS or oid in self.seen:
            return
        self.seen.add(oid)
        ((text, schema, name, kind, relation, inner, base, *domain, extension, collation),) = self._ask(TYPE, oid)
        made = UserType(name=text, schema_=schema, type_name=name, kind=KINDS.get(kind, TypeKind.OTHER))
        if extension is not None:
            self._add(made, kind=TypeKind.EXTENSION, extension=extension)
        elif inner:
            self.visit(inner)
        elif kind == "e":
            self._add(made, labels=tuple(label for (label,) in self._ask(LABELS, oid)))
        elif kind == "d":
            self._domain(made, oid, base, domain, collation)
        elif kind == "c":
            self._composite(made, relation)
        elif kind == "r":
            self._range(made, oid)
        else:
            self._add(made)

    def _add(self, made: UserType, **more: Any) -> None:
        self.types.append(made.model_copy(update=more))

    def _ask(self, query: str, oid: int) -> list[tuple[Any, ...]]:
        return run(self.connection, SQL(query).format(oid))[0]

    def _domain(self, made: UserType, oid: int, base: int, rest: list[Any], collation: list[str] | None) -> None:
        self.visit(base)
        base_type, typmod, not_null = rest
        checks = tuple(DomainCheck(name=name, expression=text, valid=ok) for name, text, ok in self._ask(CHECKS, oid))
        of = Attribute(type=base_type, typmod=typmod, collation=_pair(collation))
        self._add(made, attributes=(of,), not_null=not_null, checks=checks)

    def _composite(self, made: UserType, relation: int) -> None:
        rows = self._ask(ATTRIBUTES, relation)
        for *_, inner, _ in rows:
            self.visit(inner)
        attributes = tuple(
            Attribute(name=name, type=kind, typmod=typmod, collation=_pair(collation))
            for name, kind, typmod, _, collation in rows
        )
        self._add(made, attributes=attributes)

    def _range(self, made: UserType, oid: int) -> None:
        """Without what only makes an index on it faster. One with a function of its own must be made by hand."""
        ((subtype, text, *opclass, special, canonical, many_schema, many, collation),) = self._ask(RANGE, oid)
        self.visit(subtype)
        if canonical:
            self._add(made, kind=TypeKind.OTHER)
            return
        self._add(
            made,
            attributes=(Attribute(type=text, collation=_pair(collation)),),
            opclass=(opclass[0], opclass[1]) if special else None,
            multirange=(many_schema, many),
        )


def _pair(collation: list[str] | None) -> tuple[str, str] | None:
    return (collation[0], collation[1]) if collation else None
