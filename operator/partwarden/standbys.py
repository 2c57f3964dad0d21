"""Wait until synchronous standbys have what was committed before, while no lock is held.

Transactions of Partwarden commit with ``synchronous_commit = local`` (`limits.LOCAL_COMMIT`): a commit that waits for a
standby keeps its locks meanwhile.
"""

from __future__ import annotations

import threading
from contextlib import suppress

import psycopg

from .session import Session, run

PATIENCE = 30.0
"""Seconds that standbys are waited for."""

DEFAULT = "SET LOCAL synchronous_commit TO DEFAULT"
# A commit waits for standbys only where it wrote something: this message is of no effect, and the last thing written.
WRITE = """
SELECT pg_catalog.pg_logical_emit_message(true, 'partwarden', 'committed')
WHERE pg_catalog.current_setting('synchronous_standby_names') OPERATOR(pg_catalog.<>) ''
"""


def confirmed(connection: Session, seconds: float | None = None) -> bool:
    """Whether the standbys that the server's configuration demands have all that this session has committed.

    Raises nothing: a lost connection, or standbys that do not answer within ``seconds``, by default `PATIENCE`, confirm
    nothing.
    """
    late = threading.Event()

    def give_up() -> None:
        late.set()
        with suppress(psycopg.Error):
            connection.cancel_safe(timeout=2.0)

    timer = threading.Timer(PATIENCE if seconds is None else seconds, give_up)
    timer.start()
    try:
        # Cancelled in its wait, COMMIT succeeds with a warning.
        run(connection, "BEGIN", DEFAULT, WRITE, "COMMIT")
    except psycopg.Error:
        return False
    finally:
        timer.cancel()
        timer.join()
    return not late.is_set()
