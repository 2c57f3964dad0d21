"""Structured fields of a manifest -> the statements that make its table and its types again.

A manifest is data: names become quoted identifiers, values become literals, and types are PostgreSQL's own text of what
the server resolved (see `resolving`). The one text that is taken over is an expression that `expressions` has read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from .errors import ArchiveDamaged
from .expressions import is_expression
from .record import ArchiveManifest, Attribute, TypeKind, UserType

UNBOUNDED = ("MINVALUE", "MAXVALUE")
KINDS = {"s": "STORED", "v": "VIRTUAL"}
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
        parts.append(SQL("GENERATED ALWAYS AS ({}) {}").format(column.expression, SQL(KINDS[column.kind])))
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
