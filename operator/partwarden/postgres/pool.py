"""The limit of the operator's connections to each database."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Hashable

from ..api.types import ObjectKey

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
