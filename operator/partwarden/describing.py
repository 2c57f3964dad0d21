"""What a table is made of, for its manifest: the columns, and the types of users that they need.

``pg_dump`` of a table holds none of its types, and a database of ten years later may have none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql
from psycopg.sql import SQL, Composed, Identifier

from .record import Column, UserType
from .session import run

FIRST_OF_USERS = 16384
"""What has a lower OID came with the server."""

COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated::text,
       CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END,
       (SELECT a.attcollation::regcollation::text FROM pg_type t WHERE t.oid = a.atttypid
        AND t.typcollation <> a.attcollation), a.atttypid
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = {} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
TYPE = """
SELECT format_type(t.oid, NULL), n.nspname, t.typname, t.typtype::text, t.typrelid,
       -- An array is made with its element, and a multirange with its range.
       CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE coalesce(m.rngtypid, 0) END,
       t.typbasetype, format_type(t.typbasetype, t.typtypmod), t.typnotnull,
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
CHECKS = "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contypid = {} AND contype = 'c' ORDER BY 1"
ATTRIBUTES = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.atttypid,
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


@dataclass(frozen=True, slots=True)
class Description:
    """Columns in order, without dropped ones; types each after those that it is made from."""

    columns: tuple[Column, ...]
    types: tuple[UserType, ...]


def describe(connection: psycopg.Connection[Any], oid: int) -> Description:
    """The table with that OID. Raises psycopg's errors.

    To be asked in a transaction that has pinned its settings: names are qualified only where search_path is empty.
    From then on they are quoted in it only where need be: two descriptions are compared word by word.
    """
    _, rows = run(connection, "SET LOCAL quote_all_identifiers = off", SQL(COLUMNS).format(oid))
    columns = tuple(
        Column(
            name=name,
            type=kind,
            not_null=not_null,
            generated=generated,
            expression=expression or "",
            collation=collation or "",
        )
        for name, kind, not_null, generated, expression, collation, _ in rows
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
        ((text, schema, name, kind, relation, inner, base, base_text, not_null, extension, collation),) = self._ask(
            TYPE, oid
        )
        if extension is not None:
            create = SQL("CREATE EXTENSION IF NOT EXISTS {} SCHEMA {}").format(
                Identifier(extension), Identifier(schema)
            )
            self.types.append(UserType(name=text, schema_=schema, ddl=(create.as_string(),), extension=extension))
            return
        if inner:
            self.visit(inner)
            return
        made = Identifier(schema, name)
        if kind == "e":
            statements = list(self._enum(made, oid))
        elif kind == "d":
            statements = list(self._domain(made, oid, base, base_text, not_null, collation))
        elif kind == "c":
            statements = list(self._composite(made, relation))
        else:
            statements = list(self._range(made, oid)) if kind == "r" else []
        self.types.append(UserType(name=text, schema_=schema, ddl=tuple(each.as_string() for each in statements)))

    def _ask(self, query: str, oid: int) -> list[tuple[Any, ...]]:
        return run(self.connection, SQL(query).format(oid))[0]

    def _enum(self, made: Identifier, oid: int) -> Iterator[Composed]:
        labels = (sql.Literal(label) for (label,) in self._ask(LABELS, oid))
        yield SQL("CREATE TYPE {} AS ENUM ({})").format(made, SQL(", ").join(labels))

    def _domain(
        self, made: Identifier, oid: int, base: int, base_text: str, not_null: bool, collation: list[str] | None
    ) -> Iterator[Composed]:
        self.visit(base)
        rule = SQL(" NOT NULL" if not_null else "")
        yield SQL("CREATE DOMAIN {} AS {}{}{}").format(made, _text(base_text), _collate(collation), rule)
        for name, check in self._ask(CHECKS, oid):
            yield SQL("ALTER DOMAIN {} ADD CONSTRAINT {} {}").format(made, Identifier(name), _text(check))

    def _composite(self, made: Identifier, relation: int) -> Iterator[Composed]:
        attributes = self._ask(ATTRIBUTES, relation)
        for _, _, inner, _ in attributes:
            self.visit(inner)
        parts = (
            SQL("{} {}{}").format(Identifier(name), _text(kind), _collate(collation))
            for name, kind, _, collation in attributes
        )
        yield SQL("CREATE TYPE {} AS ({})").format(made, SQL(", ").join(parts))

    def _range(self, made: Identifier, oid: int) -> Iterator[Composed]:
        """Without what only makes an index on it faster. One with a function of its own must be made by hand."""
        ((subtype, text, *opclass, special, canonical, many_schema, many, collation),) = self._ask(RANGE, oid)
        self.visit(subtype)
        if canonical:
            return
        parts = [SQL("SUBTYPE = {}, MULTIRANGE_TYPE_NAME = {}").format(_text(text), Identifier(many_schema, many))]
        if special:
            parts.append(SQL("SUBTYPE_OPCLASS = {}").format(Identifier(*opclass)))
        if collation:
            parts.append(SQL("COLLATION = {}").format(Identifier(*collation)))
        yield SQL("CREATE TYPE {} AS RANGE ({})").format(made, SQL(", ").join(parts))


def _collate(collation: list[str] | None) -> Composed:
    return SQL(" COLLATE {}").format(Identifier(*collation)) if collation else Composed([])


def _text(words: str) -> sql.SQL:
    """PostgreSQL's own, which it deparsed with every name qualified and quoted."""
    return SQL(words)
