"""One session that is kept for a moment after its use, so that the next use of the same database need not connect.

To connect costs PostgreSQL as much as all that a reconcile reads: a process, a login, and a cache of the catalog. At a
start, and after an outage, many tables of one database are due together.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg.pq import TransactionStatus

from .connection import Session, connect, run, translating
from .conninfo import ConnectionInfo
from .settings import session_setting

KEPT_FOR = 0.25
"""Seconds for which a session waits for its next use: too short to be in the way of DROP DATABASE, which waits 5 s."""
OLDEST = 5.0
"""Seconds after which the next use connects anew: what an administrator changes for a role or a database, and where a
host name leads, counts for new sessions only."""
RESET = (
    "SET SESSION AUTHORIZATION DEFAULT",
    "RESET ALL",
    "CLOSE ALL",
    "UNLISTEN *",
    "DEALLOCATE ALL",
    "SELECT pg_catalog.pg_advisory_unlock_all()",
    "DISCARD TEMP",
)
"""All of DISCARD ALL that matters, as it may stand in one message with what follows."""


@dataclass(frozen=True, slots=True)
class _Kept:
    info: ConnectionInfo
    connect_timeout: int
    session: Session
    connected: float


class KeptSession:
    """Not safe for threads: a worker process does one thing at a time."""

    def __init__(self) -> None:
        self._kept: _Kept | None = None

    @property
    def exists(self) -> bool:
        """Whether a session is kept."""
        return self._kept is not None

    @contextmanager
    def use(self, info: ConnectionInfo, connect_timeout: int) -> Iterator[Session]:
        """As `connection.session`, and the session is kept afterwards where the block ends without an error."""
        current = self._take(info, connect_timeout) or _Kept(
            info, connect_timeout, connect(info, connect_timeout=connect_timeout), time.monotonic()
        )
        try:
            with translating(info):
                yield current.session
            if _is_whole(current.session) and time.monotonic() - current.connected < OLDEST:
                self._kept = current
        finally:
            if self._kept is not current:
                current.session.close()

    def close(self) -> None:
        """Close what is kept."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.session.close()

    def _take(self, info: ConnectionInfo, connect_timeout: int) -> _Kept | None:
        """The kept session, as new; None where it is another's, or the server does not answer on it as it should."""
        kept, self._kept = self._kept, None
        if kept is None:
            return None
        session, usual = kept.session, kept.session.longest
        if (kept.info, kept.connect_timeout) == (info, connect_timeout) and time.monotonic() - kept.connected < OLDEST:
            session.longest = float(connect_timeout)
            try:
                *_, direct = run(session, *RESET, session_setting(session.info.backend_pid))
            except psycopg.Error:
                # A server that was stopped meanwhile, for instance. A new connection finds out what is so.
                direct = []
            if direct and _is_whole(session):
                session.longest, session.round_trips = usual, 0
                return kept
        session.close()
        return None


def _is_whole(session: Session) -> bool:
    """Whether the session is as it was connected: to the server itself, without an error, between transactions."""
    return (
        not (session.closed or session.pooled or session.lost or session.reconnections)
        and session.info.transaction_status is TransactionStatus.IDLE
    )
