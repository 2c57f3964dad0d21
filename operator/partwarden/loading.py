"""Loads an archive's rows into a new table, and proves that they are what was archived.

All in a transaction of the caller's: until it commits nobody sees any of it, and whatever fails takes all of it away.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from . import fingerprint, remaking
from .errors import NameTaken, PartwardenError, RestoredDiffers, StatementRejected
from .record import ArchiveManifest
from .session import Session, run
from .sqlstate import UNABLE, is_lost, message, translate

LONGEST = 7 * 24 * 3600.0
"""Seconds that one answer may take: a table of terabytes is loaded and read in single statements."""

IS_TAKEN = """
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = {schema}),
       EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = {schema} AND c.relname = {name})
       OR EXISTS (SELECT FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
                  WHERE n.nspname = {schema} AND t.typname = {name})
"""
OWN_COLUMNS = """
SELECT a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND c.relname = {name} AND a.attnum > 0 AND NOT a.attisdropped
"""
ABSENT_TYPES = (
    "SELECT each FROM unnest({}::text[]) WITH ORDINALITY u(each, n) WHERE to_regtype(each) IS NULL ORDER BY n"
)
# An unknown collation is an error up to 15, and NULL from 16 on.
COLLATIONS = """
SELECT c.oid::regcollation::text FROM pg_collation c
WHERE c.collencoding IN (-1, (SELECT encoding FROM pg_database WHERE datname = current_database()))
"""


def check_name(connection: psycopg.Connection[Any], schema: str, name: str) -> None:
    """Whether a table of that name can be made. Raises `NameTaken`, `StatementRejected`, or psycopg's errors."""
    (((exists, taken),),) = run(connection, sql.SQL(IS_TAKEN).format(schema=schema, name=name))
    if not exists:
        raise StatementRejected(f"schema {schema!r} does not exist: create it, or choose another with --as")
    if taken:
        raise NameTaken(
            f"{schema}.{name} exists already, and is never loaded over: choose another name with --as, or rename it"
        )


def make_types(connection: psycopg.Connection[Any], manifest: ArchiveManifest) -> list[str]:
    """Make those types of users that the database has not. Returns their names, in the order in which they were made.

    Raises `StatementRejected` where one must be made by hand, and psycopg's errors.
    """
    names = [each.name for each in manifest.types]
    absent = [name for (name,) in run(connection, sql.SQL(ABSENT_TYPES).format(names))[0]]
    made = []
    for each in manifest.types:
        if each.name not in absent:
            continue
        if not each.ddl:
            raise StatementRejected(
                f"type {each.name} does not exist, and the archive does not hold what it is made of: create it first"
            )
        if each.schema_:
            # Who may not create schemas may not even say so where there is one.
            (found,) = run(connection, sql.SQL("SELECT 1 FROM pg_namespace WHERE nspname = {}").format(each.schema_))
            if not found:
                run(connection, sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(each.schema_)))
        run(connection, *(sql.SQL(statement) for statement in each.ddl))
        made.append(each.name)
    return made


def absent_collations(connection: psycopg.Connection[Any], manifest: ArchiveManifest) -> frozenset[str]:
    """Collations of the archive's columns that the database has not: they depend on its operating system."""
    wanted = {each.collation for each in manifest.columns if each.collation}
    return frozenset(wanted - {name for (name,) in run(connection, COLLATIONS)[0]}) if wanted else frozenset()


def fill(connection: Session, table: sql.Identifier, manifest: ArchiveManifest, data: Iterable[bytes]) -> None:
    """COPY the rows in. ``data``: as COPY writes them; what it raises ends the COPY. Raises `RestoredDiffers`."""
    statement = remaking.copy_in(table, manifest.columns, "UTF8")
    with connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for chunk in data:
                copy.write(chunk)
        rows = cursor.rowcount
    if rows != manifest.rows:
        raise RestoredDiffers(f"{rows} rows were loaded, but the archive says {manifest.rows}: nothing is restored")


def compare(connection: Session, schema: str, name: str, manifest: ArchiveManifest) -> None:
    """Whether the table holds what was archived, by the fingerprint of both. Raises `RestoredDiffers`.

    Columns that the archive has not are no part of it: they are away while it is taken, and back after it.
    """
    columns, wanted = [each.name for each in manifest.columns], manifest.fingerprint
    own = [column for (column,) in run(connection, sql.SQL(OWN_COLUMNS).format(schema=schema, name=name))[0]]
    others = [sql.SQL("DROP {} CASCADE").format(sql.Identifier(each)) for each in own if each not in columns]
    run(connection, "SAVEPOINT comparing")
    if others:
        # Safe: a savepoint brings them back, nobody else sees this table, and no row of it is anybody's yet.
        drop = sql.SQL("ALTER TABLE {} {}").format(sql.Identifier(schema, name), sql.SQL(", ").join(others))
        run(connection, drop)
    found = fingerprint.take(connection, schema, name, columns)
    run(connection, "ROLLBACK TO SAVEPOINT comparing")
    if found != wanted:
        raise RestoredDiffers(
            f"what was loaded differs from what was archived: fingerprint {found.content} of {found.rows} rows, "
            f"archived were {wanted.content} of {wanted.rows} rows ({wanted.algorithm}): nothing is restored"
        )


def refused(error: psycopg.Error, subject: str) -> PartwardenError:
    """What a statement of a restore failed of; nothing here is about a policy, or looked at again."""
    state = error.sqlstate or ""
    passing = is_lost(error) or state.startswith(UNABLE)
    if passing or isinstance(error, pg.InsufficientPrivilege | pg.ReadOnlySqlTransaction | pg.LockNotAvailable):
        return translate(error, subject)
    if isinstance(error, pg.DuplicateTable):
        return NameTaken(f"{subject}: {message(error)}; choose another name with --as")
    return StatementRejected(
        f"{subject}: PostgreSQL refused a statement: {message(error)} (SQLSTATE {state or 'none'})"
    )
