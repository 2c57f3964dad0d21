"""Statements that PostgreSQL refuses inside a transaction, with limits of their own."""

from __future__ import annotations

import time

from psycopg import errors as pg
from psycopg.sql import Composable

from ..errors import StatementFailed
from ..planner.findings import quoted
from .connection import Session, run
from .errors import message
from .settings import LIMITS, LOCAL_COMMIT, setting
from .transaction import cancelled_after


class OutOfTime(Exception):
    """The statement was ended by its time limit, of so many seconds."""


def run_outside(connection: Session, subject: str, statement: Composable, *, lock_timeout: int, limit: float) -> None:
    """Execute what PostgreSQL refuses inside a transaction: VACUUM, and all that says CONCURRENTLY.

    ``subject``: what cannot be done, for a message. ``lock_timeout``: milliseconds to wait for each lock; ``limit``:
    seconds it may run. Raises `OutOfTime` after that, `StatementFailed` where the role's own limit, which holds behind
    a pooler, ended it, and psycopg's errors.
    """
    # Limits of such a statement cannot end with a transaction, so they are set before, and those of the session again
    # after. Behind a pooler the next statement may run on another server connection, where they would bind other
    # clients: there nothing is set, and it is cancelled from here.
    direct, began = not connection.pooled, time.monotonic()
    # The server should have ended it itself.
    with connection.patient(limit + 30.0):
        try:
            if direct:
                ours = {"lock_timeout": f"{lock_timeout}ms", "statement_timeout": f"{limit * 1000:.0f}ms"}
                run(connection, setting(LIMITS | LOCAL_COMMIT | ours, local=False))
                run(connection, statement)
            else:
                with cancelled_after(connection, limit):
                    run(connection, statement)
        except pg.QueryCanceled as error:
            # An administrator, or the operator when it stops, cancels with the same SQLSTATE.
            if time.monotonic() - began >= limit:
                raise OutOfTime(limit) from error
            if direct:
                raise
            raise StatementFailed(
                f"{subject}: {message(error)}; behind a pooler the limits of the role hold: ALTER ROLE "
                f"{quoted(connection.info.user)} SET statement_timeout = 0, or set host and port of the Secret or of "
                "spec.database.connection (by hand, --dsn) to the PostgreSQL server itself"
            ) from None
        finally:
            if direct and not connection.closed:
                # Also after an error: each of these statements is over then, and the session is between transactions.
                # Not RESET, which brings back the limits of the role.
                run(connection, setting(LIMITS, local=False))
