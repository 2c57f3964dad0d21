"""What a database has, and has not, for the table that is to be restored in it."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from ..errors import NameTaken, StatementRejected
from ..postgres.connection import pinned, run
from .manifest import ArchiveManifest

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


def check_name(connection: psycopg.Connection[Any], schema: str, name: str, chosen: bool) -> bool:
    """Whether there is its schema, in which a table of that name can be made. One that the user has ``chosen`` must be
    there. Raises `NameTaken`, `StatementRejected`, or psycopg's errors."""
    _, ((exists, taken),) = run(connection, pinned("2s", "30s"), sql.SQL(IS_TAKEN).format(schema=schema, name=name))
    if not exists and chosen:
        raise StatementRejected(f"schema {schema!r} does not exist: create it, or choose another with --as")
    if taken:
        raise NameTaken(
            f"{schema}.{name} exists already, and is never loaded over: choose another name with --as, or rename it"
        )
    return bool(exists)


def absent_collations(connection: psycopg.Connection[Any], manifest: ArchiveManifest) -> frozenset[str]:
    """Collations of the archive's columns that the database has not: they depend on its operating system. Of those that
    are not among them the manifest's text is the server's own."""
    wanted = {column.collation for column in manifest.columns if column.collation}
    return frozenset(wanted - {name for (name,) in run(connection, COLLATIONS)[0]}) if wanted else frozenset()
