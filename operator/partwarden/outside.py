"""Statements that PostgreSQL refuses inside a transaction: VACUUM, and all that says CONCURRENTLY.

Their limits cannot end with a transaction, so they are set before, and those of the session again after. Behind a
pooler the next statement may run on another server connection, where they would bind other clients: there nothing is
set, and only the client watches the time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from .limits import LIMITS, LOCAL_COMMIT, setting
from .session import Session, run

GRACE = 30.0
"""Seconds in which the server should have ended a statement itself, after its limit."""


def run_outside(connection: Session, statement: sql.Composable, *, lock_timeout: int, limit: float) -> None:
    """Execute one statement outside a transaction.

    ``lock_timeout``: milliseconds to wait for each lock; ``limit``: seconds it may run. Raises `OutOfTime` after that,
    and psycopg's errors.
    """
    began = time.monotonic()
    with _limits(connection, lock_timeout, limit):
        try:
            run(connection, statement)
        except psycopg.errors.QueryCanceled as error:
            # An administrator, or the operator when it stops, cancels with the same SQLSTATE.
            if time.monotonic() - began < limit:
                raise
            raise OutOfTime(limit) from error


class OutOfTime(Exception):
    """The statement was ended by its time limit, of so many seconds."""


@contextmanager
def _limits(connection: Session, lock_timeout: int, limit: float) -> Iterator[None]:
    ((pid,),) = run(connection, "SELECT pg_catalog.pg_backend_pid()")[0]
    # A pooler tells a process of its own invention when it is connected to.
    direct = pid == connection.info.backend_pid
    patience = connection.longest
    connection.longest = max(patience, limit + GRACE)
    try:
        if direct:
            ours = {"lock_timeout": f"{lock_timeout}ms", "statement_timeout": f"{limit * 1000:.0f}ms"}
            run(connection, setting(LIMITS | LOCAL_COMMIT | ours, local=False))
        yield
    finally:
        connection.longest = patience
        if direct and not connection.closed:
            # Also after an error: each of these statements is over then, and the session is between transactions.
            # Not RESET, which brings back the limits of the role.
            run(connection, setting(LIMITS, local=False))
