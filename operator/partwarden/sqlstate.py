"""What a statement failed of: psycopg's errors -> ours.

Judged by SQLSTATE (psycopg has a class for each), never by words, which depend on lc_messages.
https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import psycopg
from psycopg import errors as pg

from . import errors
from .errors import PartwardenError

LOST = ("08", "57P")
LOST_EXACTLY = ("25P03", "25P04")
"""The server has ended the connection: it shuts down, was told to, or idleness or the transaction took too long."""

UNABLE = ("40", "53", "57", "58", "XX")
"""The server would, but cannot now: rolled back, no resources left, cancelled, a failing disk, damaged data."""


def translate(error: psycopg.Error, subject: str) -> PartwardenError:
    """What a statement about ``subject`` failed of. Losing the connection is `DatabaseUnreachable`."""
    words = message(error)
    match error:
        case pg.LockNotAvailable() | pg.DeadlockDetected():
            return errors.TableBusy(f"{subject} is busy: {words}")
        case pg.DuplicateTable() | pg.DuplicateObject():
            return errors.NameTaken(
                f"{subject}: {words}; rename what bears that name, or choose another spec.nameFormat"
            )
        case pg.CheckViolation() if error.diag.constraint_name is None:
            # The bounds of partitions are a constraint without a name.
            return errors.DefaultHasRows(f"{subject}: {words}; move those rows out of the DEFAULT partition")
        case pg.UniqueViolation() | pg.InvalidObjectDefinition():
            return errors.TableChanged(f"{subject}: {words}; somebody made a partition meanwhile: looked at again")
        case pg.UndefinedTable() | pg.UndefinedObject() | pg.WrongObjectType() | pg.InvalidSchemaName():
            return errors.TableChanged(f"{subject}: {words}; it was changed meanwhile: looked at again")
        case pg.InsufficientPrivilege():
            return errors.InsufficientPrivilege(
                f"{subject}: {words}; grant it to the owner of the table, as whom it was tried"
            )
        case pg.ReadOnlySqlTransaction():
            return errors.ReadOnlyServer(
                f"{subject}: {words}; connect through the primary, or end "
                "default_transaction_read_only = on of the role, the database or the server"
            )
        case pg.ProtocolViolation() if "statement pooling" in words:
            # PgBouncer's own words, in no other language, before it hangs up.
            return errors.BehindPooler(
                f"{subject}: {words}; connect to the PostgreSQL server itself, or set the pooler's pool_mode to "
                "transaction or session"
            )
    return _by_class(error, subject, words)


def _by_class(error: psycopg.Error, subject: str, words: str) -> PartwardenError:
    state = error.sqlstate or ""
    if is_lost(error):
        return errors.DatabaseUnreachable(f"{subject}: the connection was lost: {words}")
    if state.startswith(UNABLE):
        return errors.StatementFailed(
            f"{subject}: PostgreSQL could not finish a statement: {words} (SQLSTATE {state}); see the server's log"
        )
    return errors.StatementRejected(f"{subject}: PostgreSQL refused a statement: {words} (SQLSTATE {state or 'none'})")


def is_lost(error: psycopg.Error) -> bool:
    """Whether the connection has gone with this error."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state.startswith(LOST) or state in LOST_EXACTLY


def message(error: psycopg.Error) -> str:
    """The server's message, with its detail, in one line. No detail that may quote a row."""
    words = error.diag.message_primary or str(error)
    if error.diag.message_detail and not isinstance(error, psycopg.IntegrityError):
        words += f" ({error.diag.message_detail})"
    return " ".join(words.split())
