"""psycopg's errors -> ours.

Statements are judged by SQLSTATE (psycopg has a class for each), never by words, which depend on lc_messages. A failed
connection attempt has no SQLSTATE in libpq, so words must do there; what is not recognised is an outage in the server's
own words. https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re

import psycopg
from psycopg import errors as pg

from . import errors
from .connection import ConnectionInfo
from .errors import PartwardenError

LOST = (
    pg.AdminShutdown,
    pg.CrashShutdown,
    pg.CannotConnectNow,
    pg.ConnectionException,
    pg.IdleInTransactionSessionTimeout,
)

CONNECT: tuple[tuple[type[PartwardenError], str], ...] = (
    (errors.AuthenticationFailed, r"password authentication failed|no password supplied|role \".*\" does not exist"),
    (errors.AuthenticationFailed, r"is not permitted to log in|authentication failed|SASL authentication"),
    (
        errors.TLSMismatch,
        r"server does not support SSL|no encryption|SSL off|certificate|SSL error|requires? (SSL|TLS)",
    ),
    (errors.TLSMismatch, r"sslmode value|sslrootcert"),
    (errors.DatabaseNotFound, r"database \".*\" does not exist|database \".*\" is not currently accepting"),
    (errors.InsufficientPrivilege, r"permission denied for database|CONNECT privilege"),
    (errors.AuthenticationFailed, r"no pg_hba.conf entry|pg_hba.conf rejects"),
)

HINTS: dict[type[PartwardenError], str] = {
    errors.AuthenticationFailed: "correct user and password in the Secret, or the server's pg_hba.conf",
    errors.TLSMismatch: "correct sslmode, the CA certificate (sslrootcert) or the host name",
    errors.DatabaseNotFound: "create it, or correct dbname",
    errors.InsufficientPrivilege: "GRANT CONNECT ON DATABASE to the role",
}


def translate_connect(error: psycopg.Error, info: ConnectionInfo) -> PartwardenError:
    """What kept us from connecting. The message names host, port and database, never a password."""
    words = _first_failure(str(error))
    for kind, pattern in CONNECT:
        if re.search(pattern, words):
            return kind(f"cannot connect to {info}: {words}; {HINTS[kind]}")
    return errors.DatabaseUnreachable(f"cannot connect to {info}: {words}")


def translate(error: psycopg.Error, subject: str) -> PartwardenError:
    """What a statement about ``subject`` failed of. Losing the connection is `DatabaseUnreachable`."""
    words = message(error)
    match error:
        case pg.LockNotAvailable() | pg.DeadlockDetected() | pg.QueryCanceled():
            return errors.TableBusy(f"{subject} is busy: {words}")
        case pg.DuplicateTable() | pg.DuplicateObject():
            return errors.NameTaken(
                f"{subject}: {words}; rename what bears that name, or choose another spec.nameFormat"
            )
        case pg.CheckViolation():
            return errors.DefaultHasRows(f"{subject}: {words}; move those rows out of the DEFAULT partition")
        case pg.InvalidObjectDefinition():
            return errors.TableChanged(f"{subject}: {words}; somebody made a partition meanwhile")
        case pg.UndefinedTable() | pg.UndefinedObject() | pg.WrongObjectType() | pg.InvalidSchemaName():
            return errors.TableChanged(f"{subject}: {words}")
        case pg.InsufficientPrivilege():
            return errors.InsufficientPrivilege(f"{subject}: {words}")
        case pg.ReadOnlySqlTransaction():
            return errors.ReadOnlyServer(f"{subject}: {words}; connect through the primary")
    if isinstance(error, LOST) or (isinstance(error, psycopg.OperationalError) and error.sqlstate is None):
        return errors.DatabaseUnreachable(f"the connection was lost while at work on {subject}: {words}")
    if isinstance(error, psycopg.OperationalError):
        return errors.DatabaseUnreachable(f"{subject}: {words}")
    return errors.StatementRejected(f"{subject}: PostgreSQL refused: {words} (SQLSTATE {error.sqlstate})")


def message(error: psycopg.Error) -> str:
    """The server's message, with its detail, in one line."""
    words = error.diag.message_primary or str(error)
    if error.diag.message_detail:
        words += f" ({error.diag.message_detail})"
    return _one_line(words)


def _first_failure(words: str) -> str:
    """libpq tells of every address it tried; the first is the one to read, but for a name with two address families."""
    words = words.split("Multiple connection attempts failed")[0]
    words = re.sub(r"^connection (failed|is bad): ", "", words.strip())
    words = re.sub(r"connection to server at .*?, port \d+ failed: ", "", words)
    return _one_line(re.sub(r"\b(FATAL|ERROR):\s+", "", words))


def _one_line(words: str) -> str:
    return " ".join(words.split())
