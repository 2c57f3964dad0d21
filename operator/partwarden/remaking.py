"""A manifest -> SQL that makes its table again. The counterpart of `partwarden.describing`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from .record import ArchiveManifest, Column

UNBOUNDED = ("MINVALUE", "MAXVALUE")
KINDS = {"s": "STORED", "v": "VIRTUAL"}
"""``pg_attribute.attgenerated``."""


def create_table(table: Identifier, columns: Sequence[Column], missing: Collection[str] = ()) -> Composed:
    """A table of its own: columns, NOT NULL, what is generated. Collations in ``missing`` are left out."""
    parts = (_column(each, missing) for each in columns)
    return SQL("CREATE TABLE {} ({})").format(table, SQL(", ").join(parts))


def _column(column: Column, missing: Collection[str]) -> Composed:
    parts: list[Composable] = [Identifier(column.name), SQL(column.type)]
    if column.collation and column.collation not in missing:
        parts.append(SQL("COLLATE {}").format(SQL(column.collation)))
    if column.generated:
        words = SQL("GENERATED ALWAYS AS ({}) {}")
        parts.append(words.format(SQL(column.expression), SQL(KINDS[column.generated])))
    if column.not_null:
        parts.append(SQL("NOT NULL"))
    return SQL(" ").join(parts)


def copy_in(table: Identifier, columns: Sequence[Column], encoding: str) -> Composed:
    """COPY of the rows as ``pg_dump`` wrote them: all columns in order, but those that are generated."""
    names = SQL(", ").join(Identifier(each.name) for each in columns if not each.generated)
    return SQL("COPY {} ({}) FROM STDIN WITH (ENCODING {})").format(table, names, Literal(encoding))


def comment(table: Identifier, text: str | None) -> Composed:
    """Sets the whole comment of the table."""
    return SQL("COMMENT ON TABLE {} IS {}").format(table, text)


def hold_to_bounds(table: Identifier, name: str, manifest: ArchiveManifest) -> Composed:
    """A CHECK that no row outside the bounds fulfils: ATTACH then need not read the table."""
    assert manifest.key is not None
    assert manifest.bounds is not None
    key, kind = Identifier(manifest.key), key_type(manifest)
    conditions: list[Composable] = [SQL("{} IS NOT NULL").format(key)]
    for sign, value in zip((">=", "<"), manifest.bounds, strict=True):
        if value not in UNBOUNDED:
            conditions.append(SQL("{} {} {}::{}").format(key, SQL(sign), Literal(value), SQL(kind)))
    return SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({})").format(
        table, Identifier(name), SQL(" AND ").join(conditions)
    )


def key_type(manifest: ArchiveManifest) -> str:
    """Of the partition key's column, as ``format_type`` spells it; empty where the manifest does not know."""
    return next((each.type for each in manifest.columns if each.name == manifest.key), "")


def drop_constraint(table: Identifier, name: str) -> Composed:
    """Take a constraint of that name away."""
    return SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, Identifier(name))


def attach(parent: Identifier, table: Identifier, bounds: tuple[str, str]) -> Composed:
    """The table becomes the partition for these bounds, lower inclusive, upper exclusive."""
    lower, upper = (SQL(value) if value in UNBOUNDED else Literal(value) for value in bounds)
    return SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(parent, table, lower, upper)
