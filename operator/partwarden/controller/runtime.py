"""What the parts of one operator process share."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from ..api.types import ObjectKey
from ..kube.cache import Store
from ..kube.client import Cluster
from .settings import Settings
from .workqueue import WorkQueue

log = logging.getLogger(__name__)

PER_DATABASE = 2
LONG_PER_DATABASE = 1
"""How many of them may do what can take hours: the others are left to what creates partitions."""


def utc_now() -> datetime:
    """The wall clock, aware: marks conditions and Events. No decision about a table depends on it."""
    return datetime.now(UTC)


def share(workers: int, namespaces: int = 0) -> int:
    """How many of the workers, or Jobs, one namespace may have: no more than half where there may be others (0: any
    number), and one at least."""
    return workers if namespaces == 1 else max(1, workers // 2)


@dataclass(frozen=True, slots=True)
class Runtime:
    """Made once, by the manager. Every part is safe for threads."""

    cluster: Cluster
    settings: Settings
    clock: Callable[[], datetime] = utc_now
    policies: Store = field(default_factory=Store)
    policy_queue: WorkQueue = field(default_factory=WorkQueue)

    @classmethod
    def of(cls, cluster: Cluster, settings: Settings) -> Self:
        """With a queue that gives each namespace its share of the workers."""
        policies = Store()

        def database(key: ObjectKey) -> str:
            policy = policies.get(key)
            return policy.database if policy else ""

        queue = WorkQueue(share=share(settings.workers, len(settings.namespaces)), database=database)
        return cls(cluster, settings, policies=policies, policy_queue=queue)


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


class Every:
    """A thread that calls ``work`` every so many seconds until it is stopped, whatever comes of it."""

    def __init__(self, name: str, seconds: float, work: Callable[[], None], failed: Callable[[str], None]) -> None:
        """``failed`` gets the name when an error left ``work``: one that it should have caught itself."""
        self._name, self._seconds, self._work, self._failed = name, seconds, work, failed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the first call comes after the first pause."""
        self._thread.start()

    def stop(self) -> None:
        """No further call."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self._work()
            except Exception:
                log.exception("unexpected error of the %s; next attempt in %.0f s", self._name, self._seconds)
                self._failed(self._name)
