"""Locks that readers and writers wait for: several are asked for as briefly as one, and none waits for the disk.

A session that waits for such a lock makes others queue behind it, and behind each that it has already. So all locks of
one message have `LOCK_TIMEOUT_HEAVY` together; and the message ends with a COMMIT that gives them back at once, while
`flush` waits for the disk afterwards.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.sql import SQL, Composed

from .connection import pinned, run
from .transaction import LOCK_TIMEOUT_HEAVY

LEAST = 10
"""Milliseconds for which each lock is asked for in any case."""

UNFLUSHED = {"synchronous_commit": "off"}
"""Settings of a transaction whose COMMIT gives its locks back before the disk has it; `flush` must come next.

Safe: a crash between leaves all of it undone, or nothing. What another session has committed durably meanwhile is
behind it in the write-ahead log, and has made it durable as well.
https://www.postgresql.org/docs/current/wal-async-commit.html
"""

# The time of the statement is that at which its message came.
LEFT = """
SELECT pg_catalog.set_config('lock_timeout', pg_catalog.ceil(greatest({least}, {limit} - 1000 * pg_catalog.date_part(
  'epoch', pg_catalog.clock_timestamp() - pg_catalog.statement_timestamp())))::text, true)
"""


def lock_in_time() -> Composed:
    """After each lock of a message: the next one is waited for as long as is left of `LOCK_TIMEOUT_HEAVY`."""
    return SQL(LEFT).format(least=LEAST, limit=LOCK_TIMEOUT_HEAVY)


def flush(connection: psycopg.Connection[Any]) -> None:
    """Return once the server's disk has all that was committed until now. Raises psycopg's errors."""
    # A commit waits for the disk only where it wrote something, which this does to no effect.
    write = "SELECT pg_catalog.pg_logical_emit_message(true, 'partwarden', 'committed')"
    run(connection, "BEGIN", pinned("1s", "60s"), write, "COMMIT")
