"""What each column of a table is in Parquet: of the type that holds its values exactly, or PostgreSQL's own text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier

from ...postgres.connection import run
from ..manifest import TableName


class Kind(Enum):
    """How values are converted. Arrays are of the kind of their elements."""

    INTEGER = auto()
    FLOAT = auto()
    BOOLEAN = auto()
    DECIMAL = auto()
    DATE = auto()
    TIMESTAMP = auto()
    TIMESTAMPTZ = auto()
    TIME = auto()
    UUID = auto()
    BYTEA = auto()
    STRING = auto()
    ENUM = auto()
    TEXT = auto()
    """PostgreSQL's text of what has no type of its own."""


KINDS = {
    **dict.fromkeys(("int2", "int4", "int8"), Kind.INTEGER),
    **dict.fromkeys(("float4", "float8"), Kind.FLOAT),
    "bool": Kind.BOOLEAN,
    "numeric": Kind.DECIMAL,
    "date": Kind.DATE,
    "timestamp": Kind.TIMESTAMP,
    "timestamptz": Kind.TIMESTAMPTZ,
    "time": Kind.TIME,
    "uuid": Kind.UUID,
    "bytea": Kind.BYTEA,
    **dict.fromkeys(("text", "varchar", "bpchar", "name", "json", "jsonb", "xml"), Kind.STRING),
}
"""Of types of pg_catalog."""
SENT = {"float4": "pg_catalog.float4send", "float8": "pg_catalog.float8send"}
"""By which numbers are read as their bits: their decimal digits say no more, and would have to be parsed."""
MOST_DIGITS = 38
"""Of a decimal: DuckDB, Spark and Trino read no more, and the first makes a floating-point number of it unasked."""

DAYS = "({0} < '0001-01-01' OR {0} > '9999-12-31')"
MOMENTS = "({0} < '{1}' OR {0} >= '{2}')"
INEXACT = {
    Kind.DECIMAL: ("{0} = 'NaN'", "holds NaN"),
    Kind.DATE: (DAYS, "holds infinity, or a date that is not of the years 1 to 9999"),
    Kind.TIMESTAMP: (
        MOMENTS.format("{0}", "0001-01-01", "10000-01-01"),
        "holds infinity, or a moment that is not of the years 1 to 9999",
    ),
    Kind.TIMESTAMPTZ: (
        MOMENTS.format("{0}", "0001-01-01 00:00:00+00", "10000-01-01 00:00:00+00"),
        "holds infinity, or a moment that is not of the years 1 to 9999",
    ),
    Kind.TIME: ("{0} = '24:00:00'", "holds 24:00:00"),
}
"""A condition in SQL of values that the type in Parquet cannot hold exactly, and what is said of them."""
SHAPED = "(pg_catalog.array_ndims({0}) <> 1 OR pg_catalog.array_lower({0}, 1) <> 1)"
"""A condition of arrays that are not lists."""

# From the column's type through domains, and once from an array to its elements, to the type that values are of. The
# modifier is that of the column or, of a domain, the domain's; an array's is that of its elements. Virtual columns hold
# nothing. int2vector and oidvector look like arrays, and are none.
COLUMNS = """
WITH RECURSIVE step (number, depth, is_array, oid, typmod) AS (
    SELECT a.attnum, 0, false, a.atttypid, a.atttypmod FROM pg_attribute a
    WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
    UNION ALL
    SELECT s.number, s.depth + 1, s.is_array OR t.typtype <> 'd',
           CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END,
           CASE WHEN t.typtype = 'd' AND s.typmod < 0 THEN t.typtypmod ELSE s.typmod END
    FROM step s JOIN pg_type t ON t.oid = s.oid
    WHERE t.typtype = 'd'
       OR NOT s.is_array AND EXISTS (SELECT FROM pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid))
SELECT DISTINCT ON (s.number) a.attname AS name, format_type(a.atttypid, a.atttypmod) AS spelled, s.is_array, s.typmod,
       CASE WHEN t.oid < {built_in} THEN t.typname::text ELSE '' END AS type, t.typtype = 'e' AS is_enum
FROM step s JOIN pg_type t ON t.oid = s.oid JOIN pg_attribute a ON a.attrelid = {oid} AND a.attnum = s.number
ORDER BY s.number, s.depth DESC
"""
BUILT_IN = 10_000
"""OIDs of types below are the same in every database."""


@dataclass(frozen=True, slots=True)
class ParquetColumn:
    """``precision`` and ``scale``: of a decimal; ``bits``: of a number. ``reason``: why it is text; else empty."""

    name: str
    kind: Kind
    is_array: bool = False
    precision: int = 0
    scale: int = 0
    bits: int = 0
    sent: str = ""
    """The function that gives the bits of a value, where they are read instead of its text."""
    reason: str = ""

    def as_text(self, reason: str) -> ParquetColumn:
        """The same as PostgreSQL's text."""
        return ParquetColumn(self.name, Kind.TEXT, reason=reason)

    @property
    def read(self) -> Composed:
        """The expression that COPY reads it by."""
        column = Identifier(self.name)
        if not self.sent:
            return SQL("{}").format(column)
        if not self.is_array:
            return SQL("{}({})").format(SQL(self.sent), column)
        return SQL(
            "CASE WHEN {0} IS NOT NULL THEN ARRAY(SELECT {1}(e) FROM pg_catalog.unnest({0}) AS u (e)) END"
        ).format(column, SQL(self.sent))


def choose(connection: psycopg.Connection[object], table: TableName) -> tuple[ParquetColumn, ...]:
    """The columns of that table, in order, each of a type that holds all of its values in the snapshot exactly.

    To be asked in a transaction that has pinned its settings. Reads the table where its types alone do not tell. Raises
    psycopg's errors.
    """
    (rows,) = run(connection, SQL(COLUMNS).format(oid=table.oid, built_in=BUILT_IN))
    found = [
        resolve(row.name, row.type, row.typmod, row.spelled, is_array=row.is_array, is_enum=row.is_enum) for row in rows
    ]
    return _without_inexact(connection, table, found)


def resolve(
    name: str, type_: str, typmod: int, spelled: str, *, is_array: bool = False, is_enum: bool = False
) -> ParquetColumn:
    """What the column is by its type: ``type_`` of pg_catalog, empty if it is of another schema, with its modifier.
    ``spelled``: the column's type, for people."""
    kind = Kind.ENUM if is_enum else KINDS.get(type_, Kind.TEXT)
    column = ParquetColumn(name, kind, is_array, sent=SENT.get(type_, ""))
    if kind is Kind.TEXT:
        return column.as_text(f"no type of Parquet holds every {spelled} exactly")
    if kind in (Kind.INTEGER, Kind.FLOAT):
        return replace(column, bits=int(type_.lstrip("intfloa")) * 8)
    if kind is not Kind.DECIMAL:
        return column
    if typmod < 0:
        return column.as_text(f"{spelled} has no precision")
    # https://www.postgresql.org/docs/current/datatype-numeric.html: since 15 the scale may be negative, or larger than
    # the precision; it has 11 bits and a sign.
    precision, scale = (typmod - 4) >> 16 & 0xFFFF, ((typmod - 4 & 0x7FF) ^ 1024) - 1024
    precision = max(precision, scale)
    if scale < 0:
        return column.as_text(f"{spelled} has a negative scale")
    if precision > MOST_DIGITS:
        return column.as_text(f"{spelled} may have more than {MOST_DIGITS} digits")
    return replace(column, precision=precision, scale=scale)


def _without_inexact(
    connection: psycopg.Connection[object], table: TableName, columns: Sequence[ParquetColumn]
) -> tuple[ParquetColumn, ...]:
    """The same, as text where one of their values is not exact otherwise. Reads the table once, if there are such."""
    doubtful = [(place, *each) for place, column in enumerate(columns) for each in conditions(column)]
    if not doubtful:
        return tuple(columns)
    queries = SQL(", ").join(SQL("coalesce(bool_or({}), false)").format(condition) for _, condition, _ in doubtful)
    name = Identifier(table.schema_, table.name)
    ((row,),) = run(connection, SQL("SELECT ARRAY[{}] FROM ONLY {}").format(queries, name))
    found = list(columns)
    for (place, _, reason), is_so in zip(doubtful, row[0], strict=True):
        if is_so and not found[place].reason:
            found[place] = found[place].as_text(reason)
    return tuple(found)


def conditions(column: ParquetColumn) -> Iterable[tuple[Composable, str]]:
    """Conditions in SQL of values that the column's type cannot hold exactly, and what is said of them."""
    name = Identifier(column.name)
    if column.is_array:
        yield SQL(SHAPED).format(name), "holds an array that has several dimensions, or does not begin at 1"
    if column.kind in INEXACT:
        condition, reason = INEXACT[column.kind]
        if column.is_array:
            element = SQL(condition).format(SQL("e"))
            yield SQL("EXISTS (SELECT FROM pg_catalog.unnest({}) AS u (e) WHERE {})").format(name, element), reason
        else:
            yield SQL(condition).format(name), reason
