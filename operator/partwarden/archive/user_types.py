"""The user's types that an archive's columns need: catalog -> manifest -> a database that may not have them.

``pg_dump`` of a table holds none of its types, and a database of ten years later may have none of them. A manifest is
data: names become quoted identifiers or go to the server as parameters, values become literals, and types are the
server's own text of what it resolved. The one text that is taken over is an expression that `is_expression` has read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg
from psycopg import errors as pg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from ..errors import ArchiveDamaged, StatementRejected
from ..postgres.connection import Session, run, run_alone
from ..postgres.ddl import bounded, check_text
from ..postgres.errors import UNABLE, is_lost, message
from .manifest import Attribute, Column, DomainCheck, TypeKind, UserType, is_expression

FIRST_OF_USERS = 16384
"""What has a lower OID came with the server."""
KINDS = {"e": TypeKind.ENUM, "d": TypeKind.DOMAIN, "c": TypeKind.COMPOSITE, "r": TypeKind.RANGE}


class TypeRow(NamedTuple):
    """What `TYPE` reads; ``base`` and what follows it for a domain."""

    text: str
    schema: str
    name: str
    kind: str
    relation: int
    inner: int
    """Of an array its element, of a multirange its range: it is made with that one."""
    extension: str | None
    base: int
    base_text: str | None
    typmod: int
    not_null: bool
    collation: list[str] | None


TYPE = """
SELECT format_type(t.oid, NULL), n.nspname, t.typname, t.typtype::text, t.typrelid,
       CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE coalesce(m.rngtypid, 0) END,
       (SELECT e.extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
        WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
          AND d.refclassid = 'pg_extension'::regclass),
       t.typbasetype, format_type(nullif(t.typbasetype, 0), NULL), t.typtypmod, t.typnotnull,
       (SELECT jsonb_build_array(l.nspname, c.collname)
        FROM pg_collation c JOIN pg_namespace l ON l.oid = c.collnamespace
        WHERE c.oid = t.typcollation AND t.typtype = 'd'
          AND c.oid <> (SELECT typcollation FROM pg_type WHERE oid = t.typbasetype))
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_range m ON m.rngmultitypid = t.oid
WHERE t.oid = {}
"""
LABELS = "SELECT enumlabel FROM pg_enum WHERE enumtypid = {} ORDER BY enumsortorder"
CHECKS = """
SELECT conname, {text}, convalidated FROM pg_constraint
WHERE contypid = {} AND contype = 'c' ORDER BY 1
""".replace("{text}", bounded("pg_get_expr(conbin, 0)"))


class AttributeRow(NamedTuple):
    """A row of `ATTRIBUTES`."""

    name: str
    type: str
    typmod: int
    type_oid: int
    collation: list[str] | None


ATTRIBUTES = """
SELECT a.attname, format_type(a.atttypid, NULL), a.atttypmod, a.atttypid,
       (SELECT jsonb_build_array(l.nspname, c.collname)
        FROM pg_collation c JOIN pg_namespace l ON l.oid = c.collnamespace
        WHERE c.oid = a.attcollation AND c.oid <> t.typcollation)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = {} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""


class RangeRow(NamedTuple):
    """What `RANGE` reads; ``opclass`` where it is not the default."""

    subtype: int
    subtype_text: str
    opclass: list[str] | None
    canonical: bool
    multirange: list[str]
    collation: list[str] | None


RANGE = """
SELECT r.rngsubtype, format_type(r.rngsubtype, NULL),
       CASE WHEN NOT c.opcdefault THEN jsonb_build_array(o.nspname, c.opcname) END, r.rngcanonical <> 0,
       jsonb_build_array(mn.nspname, m.typname),
       (SELECT jsonb_build_array(l.nspname, k.collname)
        FROM pg_collation k JOIN pg_namespace l ON l.oid = k.collnamespace
        WHERE k.oid = r.rngcollation AND k.oid <> s.typcollation)
FROM pg_range r JOIN pg_type s ON s.oid = r.rngsubtype
JOIN pg_opclass c ON c.oid = r.rngsubopc JOIN pg_namespace o ON o.oid = c.opcnamespace
JOIN pg_type m ON m.oid = r.rngmultitypid JOIN pg_namespace mn ON mn.oid = m.typnamespace
WHERE r.rngtypid = {}
"""


def describe_types(connection: psycopg.Connection[Any], oids: Iterable[int]) -> tuple[UserType, ...]:
    """The user's types among these and what they are made from, each after that. Raises psycopg's errors."""
    types: list[UserType] = []
    seen: set[int] = set()

    def ask(query: str, oid: int) -> list[tuple[Any, ...]]:
        return run(connection, SQL(query).format(oid))[0]

    def visit(oid: int) -> None:
        if oid < FIRST_OF_USERS or oid in seen:
            return
        seen.add(oid)
        row = TypeRow(*ask(TYPE, oid)[0])
        if row.extension is None and row.inner:
            visit(row.inner)
        else:
            types.append(_described(oid, row, ask, visit))

    for oid in oids:
        visit(oid)
    return tuple(types)


def _described(
    oid: int, row: TypeRow, ask: Callable[[str, int], list[tuple[Any, ...]]], visit: Callable[[int], None]
) -> UserType:
    """The type; ``visit`` is called with what it is made from."""
    fields: dict[str, Any] = {}
    kind = KINDS.get(row.kind, TypeKind.OTHER)
    if row.extension is not None:
        kind, fields = TypeKind.EXTENSION, {"extension": row.extension}
    elif kind is TypeKind.ENUM:
        fields = {"labels": tuple(label for (label,) in ask(LABELS, oid))}
    elif kind is TypeKind.DOMAIN:
        visit(row.base)
        of = Attribute(type=row.base_text or "", typmod=row.typmod, collation=_pair(row.collation))
        checks = tuple(
            DomainCheck(name=name, expression=check_text(f"CHECK {name!r} of domain {row.text}", text), valid=valid)
            for name, text, valid in ask(CHECKS, oid)
        )
        fields = {"attributes": (of,), "not_null": row.not_null, "checks": checks}
    elif kind is TypeKind.COMPOSITE:
        attributes = [AttributeRow(*values) for values in ask(ATTRIBUTES, row.relation)]
        for attribute in attributes:
            visit(attribute.type_oid)
        fields["attributes"] = tuple(
            Attribute(name=each.name, type=each.type, typmod=each.typmod, collation=_pair(each.collation))
            for each in attributes
        )
    elif kind is TypeKind.RANGE:
        # Without what only makes an index on it faster. One with a function of its own must be made by hand.
        of_range = RangeRow(*ask(RANGE, oid)[0])
        visit(of_range.subtype)
        if of_range.canonical:
            kind = TypeKind.OTHER
        else:
            of = Attribute(type=of_range.subtype_text, collation=_pair(of_range.collation))
            fields = {"attributes": (of,), "opclass": _pair(of_range.opclass), "multirange": _pair(of_range.multirange)}
    return UserType(name=row.text, schema_=row.schema, type_name=row.name, kind=kind, **fields)


def _pair(names: list[str] | None) -> tuple[str, str] | None:
    return (names[0], names[1]) if names else None


Resolve = Callable[[Attribute], Composable]
"""The SQL of a type, as the server spells it; raises where the server knows none of that name."""


def create_type(type_: UserType, resolve: Resolve) -> Iterator[Composed]:
    """The statements that make the type, each to be sent alone; none where it cannot be made from a manifest.

    Raises `ArchiveDamaged`, and what ``resolve`` raises.
    """
    name = Identifier(type_.schema_, type_.type_name)
    match type_.kind:
        case TypeKind.EXTENSION if type_.extension:
            words = SQL("CREATE EXTENSION IF NOT EXISTS {} SCHEMA {}")
            yield words.format(Identifier(type_.extension), Identifier(type_.schema_))
        case TypeKind.ENUM:
            yield SQL("CREATE TYPE {} AS ENUM ({})").format(name, SQL(", ").join(map(Literal, type_.labels)))
        case TypeKind.COMPOSITE:
            parts = (SQL("{} {}").format(Identifier(of.name), _attribute(of, resolve)) for of in type_.attributes)
            yield SQL("CREATE TYPE {} AS ({})").format(name, SQL(", ").join(parts))
        case TypeKind.DOMAIN:
            yield from _domain(name, type_, resolve)
        case TypeKind.RANGE:
            yield _range(name, type_, resolve)


def _attribute(of: Attribute, resolve: Resolve) -> Composed:
    collate = SQL(" COLLATE {}").format(Identifier(*of.collation)) if of.collation else SQL("")
    return SQL("{}{}").format(resolve(of), collate)


def _domain(name: Identifier, type_: UserType, resolve: Resolve) -> Iterator[Composed]:
    not_null = SQL(" NOT NULL" if type_.not_null else "")
    yield SQL("CREATE DOMAIN {} AS {}{}").format(name, _attribute(_only(type_), resolve), not_null)
    for check in type_.checks:
        add = SQL("ALTER DOMAIN {} ADD CONSTRAINT {} CHECK ({}){}")
        not_valid = SQL("" if check.valid else " NOT VALID")
        yield add.format(name, Identifier(check.name), expression(check.expression), not_valid)


def _range(name: Identifier, type_: UserType, resolve: Resolve) -> Composed:
    of = _only(type_)
    parts = [SQL("SUBTYPE = {}").format(resolve(of))]
    if type_.multirange:
        parts.append(SQL("MULTIRANGE_TYPE_NAME = {}").format(Identifier(*type_.multirange)))
    if type_.opclass:
        parts.append(SQL("SUBTYPE_OPCLASS = {}").format(Identifier(*type_.opclass)))
    if of.collation:
        parts.append(SQL("COLLATION = {}").format(Identifier(*of.collation)))
    return SQL("CREATE TYPE {} AS RANGE ({})").format(name, SQL(", ").join(parts))


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
SELECT u.given, format_type(coalesce(to_regtype(u.given), (
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
            if self._resolved(Attribute(type=each.name)) is not None:
                continue
            if each.kind is TypeKind.OTHER or not each.type_name:
                self.missing[each.name] = "it is written in C or has functions of its own: create it first to have it"
                continue
            run(self.connection, "SAVEPOINT making")
            try:
                self._make(each)
                run(self.connection, "RELEASE SAVEPOINT making")
                self.made.append(each.name)
            except (psycopg.Error, ArchiveDamaged, StatementRejected) as error:
                if isinstance(error, psycopg.Error) and (is_lost(error) or (error.sqlstate or "").startswith(UNABLE)):
                    raise
                run(self.connection, "ROLLBACK TO SAVEPOINT making")
                self.missing[each.name] = message(error) if isinstance(error, psycopg.Error) else str(error)

    def _make(self, each: UserType) -> None:
        # Who may not create schemas may not even say so where there is one.
        (found,) = run(self.connection, SQL("SELECT 1 FROM pg_namespace WHERE nspname = {}").format(each.schema_))
        if not found:
            run_alone(self.connection, SQL("CREATE SCHEMA {}").format(Identifier(each.schema_)))
        for statement in create_type(each, self.sql):
            run_alone(self.connection, statement)
        if self._resolved(Attribute(type=each.name)) is None:
            raise StatementRejected(f"extension {each.extension} has no type {each.name}")

    def sql(self, of: Attribute | Column) -> Composable:
        """The type as the server spells it. Raises `StatementRejected` where it has none of that name."""
        if (found := self._resolved(of)) is None:
            raise StatementRejected(f"type {of.type} does not exist")
        return SQL(found)

    def find(self, of: Attribute | Column) -> Composable | None:
        """The same, or None."""
        found = self._resolved(of)
        return None if found is None else SQL(found)

    def base(self, name: str) -> Attribute | None:
        """What the domain of that name is made from, as the archive has it; None where it is no domain."""
        found = next((each for each in self.archived if each.name == name), None)
        return found.attributes[0] if found and found.kind is TypeKind.DOMAIN and found.attributes else None

    def why_missing(self, name: str) -> str:
        """For people: why a column's type is not there."""
        bare = name.removesuffix(ARRAY)
        return self.missing.get(bare, f"type {bare} does not exist, and the archive does not say what it is made of")

    def _resolved(self, of: Attribute | Column) -> str | None:
        bare = of.type.removesuffix(ARRAY)
        known = next((each for each in self.archived if each.name == bare), None)
        query = SQL(RESOLVED).format(
            given=of.type,
            bare=known.type_name if known else None,
            extension=known.extension if known else None,
            is_array=of.type.endswith(ARRAY),
            typmod=of.typmod if of.typmod >= 0 else None,
        )
        run(self.connection, "SAVEPOINT resolving")
        try:
            ((_, found),), _ = run(self.connection, query, "RELEASE SAVEPOINT resolving")
        except (pg.SyntaxErrorOrAccessRuleViolation, pg.DataError) as error:
            run(self.connection, "ROLLBACK TO SAVEPOINT resolving")
            if isinstance(error, pg.SyntaxError | pg.InvalidName | pg.DataError):
                words = f"{of.type[:80]!r} of the manifest is not a name of a type: {message(error)}"
                raise ArchiveDamaged(words) from None
            # A schema that the role may not see, or does not exist.
            return None
        # Where there is none, PostgreSQL says a word for it.
        return None if found is None or found in ("-", "???") else str(found)
