"""Connections of the operator to databases: at most so many to each at once, and a way to cancel what runs on them."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict, deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import psycopg

from ..api.types import ObjectKey
from .connection import Session, session
from .conninfo import ConnectionInfo

log = logging.getLogger(__name__)

PER_DATABASE = 2


class Slots:
    """The limit per database. A worker that gets no slot requeues its key instead of blocking. Safe for threads."""

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

    def release(self, database: Hashable) -> ObjectKey | None:
        """Give the slot back. Returns the key that has waited the longest, which is to be enqueued."""
        with self._lock:
            self._used[database] -= 1
            waiting = self._waiting[database]
            following = waiting.popleft() if waiting else None
            if not waiting:
                del self._waiting[database]
            if not self._used[database]:
                del self._used[database]
            return following


class Connections:
    """Opens a connection for each reconcile, and cancels what runs on those that are open. Safe for threads."""

    def __init__(self, connect_timeout: int) -> None:
        self._connect_timeout = connect_timeout
        self._lock = threading.Lock()
        self._open: set[Session] = set()

    @contextmanager
    def lend(self, info: ConnectionInfo) -> Iterator[Session]:
        """A connection as `connection.session` gives, with the same errors, closed at the end of the block."""
        with session(info, connect_timeout=self._connect_timeout) as connection:
            with self._lock:
                self._open.add(connection)
            try:
                yield connection
            finally:
                with self._lock:
                    self._open.discard(connection)

    def cancel(self) -> None:
        """Ask every database to end the statement that runs there, without waiting for its answer."""
        with self._lock:
            running = list(self._open)
        for connection in running:
            threading.Thread(target=_cancel, args=(connection,), daemon=True).start()


def _cancel(connection: Session) -> None:
    try:
        connection.cancel_safe(timeout=2.0)
    except psycopg.Error as error:
        log.debug("cancel: %s", error)
