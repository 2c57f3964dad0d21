"""At most so many connections to one database, without a worker ever waiting for one."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Hashable

from .workqueue import Key

PER_DATABASE = 2


class Slots:
    """Who has a connection to which database, and who comes next."""

    def __init__(self, limit: int = PER_DATABASE) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._used: dict[Hashable, int] = defaultdict(int)
        self._waiting: dict[Hashable, deque[Key]] = defaultdict(deque)

    def acquire(self, database: Hashable, key: Key) -> bool:
        """Whether a slot was free. If not, the key is noted as waiting and `release` will name it."""
        with self._lock:
            if self._used[database] < self._limit:
                self._used[database] += 1
                return True
            if key not in self._waiting[database]:
                self._waiting[database].append(key)
            return False

    def taken(self, database: Hashable, key: Key) -> bool:
        """Whether `acquire` would fail now; the key is noted as waiting then, as there."""
        with self._lock:
            taken = self._used.get(database, 0) >= self._limit
            if taken and key not in self._waiting[database]:
                self._waiting[database].append(key)
            return taken

    def release(self, database: Hashable) -> Key | None:
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
