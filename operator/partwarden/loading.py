"""Loads an archive's rows into a new table, and proves that they are what was archived.

All in a transaction of the caller's: until it commits no other session sees any of it, and an error takes all of it
away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from . import fingerprint, remaking
from .errors import NameTaken, PartwardenError, RestoredDiffers, StatementRejected
from .record import ArchiveManifest
from .session import Session, pinned, run
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
# An unknown collation is an error up to 15, and NULL from 16 on.
COLLATIONS = """
SELECT c.oid::regcollation::text FROM pg_collation c
WHERE c.collencoding IN (-1, (SELECT encoding FROM pg_database WHERE datname = current_database()))
"""


def check_name(connection: psycopg.Connection[Any], schema: str, name: str) -> None:
    """Whether a table of that name can be made. Raises `NameTaken`, `StatementRejected`, or psycopg's errors."""
    _, ((exists, taken),) = run(connection, pinned("2s", "30s"), sql.SQL(IS_TAKEN).format(schema=schema, name=name))
    if not exists:
        raise StatementRejected(f"schema {schema!r} does not exist: create it, or choose another with --as")
    if taken:
        raise NameTaken(
            f"{schema}.{name} exists already, and is never loaded over: choose another name with --as, or rename it"
        )


def absent_collations(connection: psycopg.Connection[Any], manifest: ArchiveManifest) -> frozenset[str]:
    """Collations of the archive's columns that the database has not: they depend on its operating system.

    Of those that are not among them the manifest's text is the server's own.
    """
    wanted = {each.collation for each in manifest.columns if each.collation}
    return frozenset(wanted - {name for (name,) in run(connection, COLLATIONS)[0]}) if wanted else frozenset()


def fill(
    connection: Session, table: sql.Identifier, columns: Sequence[str], manifest: ArchiveManifest, data: Iterable[bytes]
) -> None:
    """COPY the rows into these columns. ``data``: as COPY writes them; what it raises ends the COPY.

    Raises `RestoredDiffers`, and psycopg's errors.
    """
    statement = remaking.copy_in(table, columns)
    with connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for chunk in data:
                copy.write(chunk)
        rows = cursor.rowcount
    if rows != manifest.rows:
        raise RestoredDiffers(f"{rows} rows were loaded, but the archive says {manifest.rows}: nothing is restored")


def compare(connection: Session, schema: str, name: str, manifest: ArchiveManifest) -> None:
    """Whether the table holds what was archived, by the fingerprint of both. Raises `RestoredDiffers`.

    Values are hashed as the archive's were, whatever types the columns have now. Columns that the archive has not are
    no part of it.
    """
    wanted = manifest.fingerprint
    archived = [each for each in manifest.columns if each.generated != "v"]
    sent = fingerprint.sent(connection, sorted({each.type for each in archived}))
    found = fingerprint.take(connection, schema, name, {each.name: sent[each.type] for each in archived})
    if found != wanted:
        raise RestoredDiffers(
            f"what was loaded differs from what was archived: fingerprint {found.content} of {found.rows} rows, "
            f"archived were {wanted.content} of {wanted.rows} rows ({wanted.algorithm}): nothing is restored"
        )


def is_about_rows(error: Exception) -> bool:
    """Whether another form of the table may take what this one refused: not where the server or connection failed."""
    if isinstance(error, RestoredDiffers):
        return True
    if not isinstance(error, psycopg.Error) or is_lost(error):
        return False
    return not (error.sqlstate or "XX").startswith(UNABLE) and not isinstance(error, pg.ReadOnlySqlTransaction)


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
