"""The identity of a server and its database: OIDs of tables mean something only together with it.

System identifier and OID of the database, as `inventory.Server.identity` has them. A standby that is promoted keeps
them. What initdb made anew has others, and so has the cluster that pg_upgrade moves into, or a copy of a database.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.sql import SQL

from .errors import InsufficientPrivilege, TableChanged
from .session import run

IDENTITY = """(SELECT system_identifier FROM pg_control_system()) || '/'
         || (SELECT oid FROM pg_database WHERE datname = current_database())"""
ALLOWED = "SELECT has_function_privilege('pg_control_system()', 'EXECUTE')"
"""True for every role, unless a superuser has taken that away."""


def read(connection: psycopg.Connection[Any], wanted: str = "") -> str:
    """The identity; "" where the role may not ask. ``wanted``: what it must be, where that is known.

    To be asked in a transaction that has pinned its settings. Raises `TableChanged` where the server or the database is
    another one, `InsufficientPrivilege` where that cannot be told, and psycopg's errors.
    """
    (((allowed,),),) = run(connection, ALLOWED)
    if not allowed:
        if not wanted:
            return ""
        raise InsufficientPrivilege(
            f"cannot tell whether this is server {wanted}, which the archive is of: role {connection.info.user!r} may "
            "not execute pg_control_system(); GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO that role"
        )
    (((found,),),) = run(connection, SQL("SELECT " + IDENTITY))
    if wanted not in ("", found):
        raise TableChanged(
            f"cannot use database {connection.info.dbname!r}: the archive is of a table of server {wanted}, and this "
            f"is {found} (system identifier, OID of the database); correct the Secret, or make another "
            "PartitionArchive for the table that is here"
        )
    return str(found)
