"""The operator's connections to databases, kept open for a moment for the next policy of the same database.

Connecting costs several times what a look does, and the policies of one database are looked at together (`pace`). Only
a connection on which nothing was done but a look that went well is kept; what was changed on any other would be the
next policy's surprise. It serves none but who would connect with the very same parameters, password included.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg.pq import TransactionStatus

from ..api.types import ObjectKey
from .connection import Session, connect, translating
from .conninfo import ConnectionInfo

# At most so many connections to one database, without a worker ever waiting for one.
#

PER_DATABASE = 2


class Slots:
    """Who has a connection to which database, and who comes next."""

    def __init__(self, limit: int = PER_DATABASE) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._used: dict[Hashable, int] = defaultdict(int)
        self._waiting: dict[Hashable, deque[ObjectKey]] = defaultdict(deque)

    def acquire(self, database: Hashable, key: ObjectKey) -> bool:
        """Whether a slot was free. If not, the key is noted as waiting and `release` will name it."""
        with self._lock:
            if self._used[database] < self._limit:
                self._used[database] += 1
                return True
            if key not in self._waiting[database]:
                self._waiting[database].append(key)
            return False

    def taken(self, database: Hashable, key: ObjectKey) -> bool:
        """Whether `acquire` would fail now; the key is noted as waiting then, as there."""
        with self._lock:
            taken = self._used.get(database, 0) >= self._limit
            if taken and key not in self._waiting[database]:
                self._waiting[database].append(key)
            return taken

    def release(self, database: Hashable) -> ObjectKey | None:
        """Give the slot back. Returns the key that has waited the longest and should be woken."""
        with self._lock:
            self._used[database] -= 1
            waiting = self._waiting[database]
            following = waiting.popleft() if waiting else None
            if not waiting:
                del self._waiting[database]
            if not self._used[database]:
                del self._used[database]
            return following


log = logging.getLogger(__name__)

LINGER = 1.0
LONGEST_LIFE = 30.0
"""Seconds that a connection is kept unused, and since it was opened. DROP DATABASE waits five seconds for others to
leave, and what was changed for the role or the database is seen by whoever connects anew. `Connections.sweep` is to be
called as often as `LINGER` says."""


@dataclass(frozen=True, slots=True)
class _Idle:
    connection: Session
    info: ConnectionInfo
    opened: float
    since: float


class Connections:
    """Lends connections. Safe for threads; times are seconds of ``clock``, which never goes back."""

    def __init__(self, connect_timeout: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._connect_timeout, self._clock = connect_timeout, clock
        self._lock = threading.Lock()
        self._lent: set[Session] = set()
        self._idle: dict[Hashable, list[_Idle]] = defaultdict(list)
        self._closed = False

    @contextmanager
    def lend(self, info: ConnectionInfo) -> Iterator[Session]:
        """A connection as `session.session` gives, and with the same errors.

        It is kept for the next where the block sets `Session.reusable` and ends without an error. A database never has
        more connections than blocks have been open at once.
        """
        connection, opened = self._kept(info) or (None, 0.0)
        if connection is None:
            opened = self._clock()
            connection = connect(info, connect_timeout=self._connect_timeout)
        connection.reusable = False
        with self._lock:
            self._lent.add(connection)
        fine = False
        try:
            with translating(info):
                yield connection
            fine = connection.reusable
        finally:
            self._take_back(connection, info, opened, fine)

    def sweep(self) -> None:
        """Close what nobody has used for a moment."""
        now = self._clock()
        with self._lock:
            stale = [each for idle in self._idle.values() for each in idle if not self._fresh(each, now)]
            for each in stale:
                self._idle[each.info.database_key].remove(each)
            for key in [key for key, idle in self._idle.items() if not idle]:
                del self._idle[key]
        for each in stale:
            each.connection.close()

    def close(self) -> None:
        """Keep nothing from now on."""
        with self._lock:
            self._closed = True
            idle = [each for those in self._idle.values() for each in those]
            self._idle.clear()
        for each in idle:
            each.connection.close()

    def cancel(self) -> None:
        """Ask every database to end the statement that runs there, without waiting for its answer."""
        with self._lock:
            running = list(self._lent)
        for connection in running:
            threading.Thread(target=_cancel, args=(connection,), daemon=True).start()

    def _kept(self, info: ConnectionInfo) -> tuple[Session, float] | None:
        """One that can be used, and when it was opened; what cannot be used makes room for one that can."""
        now = self._clock()
        with self._lock:
            idle = self._idle.pop(info.database_key, [])
            chosen = next((each for each in idle if each.info == info and self._fresh(each, now)), None)
            others = [each for each in idle if each is not chosen]
            if chosen is not None and others:
                self._idle[info.database_key] = others
                others = []
        for each in others:
            each.connection.close()
        if chosen is None:
            return None
        if _hung_up(chosen.connection):
            chosen.connection.close()
            return None
        return chosen.connection, chosen.opened

    def _take_back(self, connection: Session, info: ConnectionInfo, opened: float, fine: bool) -> None:
        idle = fine and connection.info.transaction_status == TransactionStatus.IDLE
        with self._lock:
            self._lent.discard(connection)
            if idle and not self._closed:
                self._idle[info.database_key].append(_Idle(connection, info, opened, self._clock()))
                return
        connection.close()

    @staticmethod
    def _fresh(idle: _Idle, now: float) -> bool:
        return now < idle.since + LINGER and now < idle.opened + LONGEST_LIFE


def _hung_up(connection: Session) -> bool:
    """Whether the server has said something unasked, as it does before it goes, or is gone."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _cancel(connection: Session) -> None:
    try:
        connection.cancel_safe(timeout=2.0)
    except psycopg.Error as error:
        log.debug("cancel: %s", error)
