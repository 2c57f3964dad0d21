"""The limit of the operator's connections to each database."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field

from ..api.types import ObjectKey

PER_DATABASE = 2
LONG_PER_DATABASE = 1
"""How many of them may do what can take hours: the others are left to what creates partitions."""


@dataclass(slots=True)
class _Database:
    used: list[ObjectKey] = field(default_factory=list)
    long: set[ObjectKey] = field(default_factory=set)
    waiting: list[ObjectKey] = field(default_factory=list)
    waiting_long: list[ObjectKey] = field(default_factory=list)


class Slots:
    """A worker that gets no slot requeues its key instead of blocking. Safe for threads."""

    def __init__(self, limit: int = PER_DATABASE, long_limit: int = LONG_PER_DATABASE) -> None:
        self._limit, self._long_limit = limit, long_limit
        self._lock = threading.Lock()
        self._databases: defaultdict[Hashable, _Database] = defaultdict(_Database)

    def acquire(self, database: Hashable, key: ObjectKey) -> bool:
        """Whether a slot was free. If not, the key is noted as waiting and `release` will name it."""
        with self._lock:
            of = self._databases[database]
            if len(of.used) < self._limit:
                of.used.append(key)
                of.waiting = [each for each in of.waiting if each != key]
                return True
            if key not in of.waiting:
                of.waiting.append(key)
            return False

    def acquire_long(self, database: Hashable, key: ObjectKey) -> bool:
        """Whether a key that has a slot may do something long with it, until it gives the slot back.

        If not, it is noted as waiting for that, and `release` will name it.
        """
        with self._lock:
            of = self._databases[database]
            if key in of.long or len(of.long) < self._long_limit:
                of.long.add(key)
                of.waiting_long = [each for each in of.waiting_long if each != key]
                return True
            if key not in of.waiting_long:
                of.waiting_long.append(key)
            return False

    def release(self, database: Hashable, key: ObjectKey) -> list[ObjectKey]:
        """Give the slot back. Returns the keys that are to be enqueued: those that have waited the longest."""
        with self._lock:
            of = self._databases[database]
            of.used.remove(key)
            following = of.waiting[:1]
            if key in of.long:
                of.long.remove(key)
                following += of.waiting_long[:1]
                del of.waiting_long[:1]
            del of.waiting[:1]
            if not (of.used or of.waiting or of.waiting_long):
                del self._databases[database]
            return following
