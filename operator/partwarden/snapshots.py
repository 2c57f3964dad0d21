"""Transactions that keep an old snapshot: what they read later, they read as of then, but by the partitions of now."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg

from .session import run

LONGEST = 1.0
"""Seconds that they are waited for."""
PAUSE = 0.02

# Without a transaction of its own, a statement has a snapshot only for as long as it runs. Whose a snapshot is may be
# seen by everybody, and so may the virtual transaction; not what it does.
HELD = """
SELECT l.virtualtransaction, a.pid, a.usename, nullif(a.application_name, '')
FROM pg_stat_activity a
JOIN pg_locks l ON l.pid = a.pid AND l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.granted
WHERE a.datname = current_database() AND a.usesysid IS NOT NULL AND a.backend_xmin IS NOT NULL
  AND a.pid <> pg_backend_pid() AND coalesce(a.backend_type, 'client backend') = 'client backend'
ORDER BY a.pid
"""


def outlast(connection: psycopg.Connection[Any], deadline: float, sleep: Callable[[float], None]) -> str | None:
    """Wait until no snapshot of this database is held any more that is held now; who has the first that is left.

    ``deadline``: of `time.monotonic`; it is not waited for long anyway. Raises psycopg's errors.
    """
    end = min(deadline, time.monotonic() + LONGEST)
    held = {transaction for transaction, *_ in _look(connection)}
    while left := [each for each in _look(connection) if each[0] in held]:
        if time.monotonic() >= end:
            _, pid, user, application = left[0]
            return f"process {pid} ({application or 'unnamed'}, role {user!r})"
        sleep(PAUSE)
    return None


def _look(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    # Within a transaction it is else always the same that is seen of others.
    _, found = run(connection, "SELECT pg_stat_clear_snapshot()", HELD)
    return found
