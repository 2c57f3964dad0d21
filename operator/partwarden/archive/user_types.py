"""Types of a manifest -> types of a database: what the server has, what is made, and what there is no way to make.

Names go to the server as parameters, and what it answers is its own text: nothing of a manifest is used as SQL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import errors as pg
from psycopg.sql import SQL, Composable, Identifier

from ..errors import ArchiveDamaged, StatementRejected
from ..postgres.connection import Session, run, run_alone
from ..postgres.errors import UNABLE, is_lost, message
from .manifest import Attribute, Column, TypeKind, UserType
from .table_schema import create_type

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
