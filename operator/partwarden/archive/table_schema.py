"""Columns of a table: catalog -> manifest, and the statements that make and attach a table with them.

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
       a.attgenerated::text, CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) ELSE '' END,
       coalesce((SELECT a.attcollation::regcollation::text FROM pg_type t WHERE t.oid = a.atttypid
                 AND t.typcollation <> a.attcollation), ''), a.atttypid::int8
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = {} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
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
    _, values = run(connection, "SET LOCAL quote_all_identifiers = off", SQL(COLUMNS).format(oid))
    rows = [ColumnRow(*each) for each in values]
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
