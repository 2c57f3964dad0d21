"""What the parts of one operator process share."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from ..api.types import ObjectKey
from ..kube.cache import Store
from ..kube.client import Cluster
from ..kube.secrets import Secrets
from .settings import Settings
from .workqueue import WorkQueue

log = logging.getLogger(__name__)

AFTER_CRASH = 60.0
"""Seconds until a key is due again after an error that the work itself did not catch."""
PER_DATABASE = 2
WAIT_FOR_SLOT = 5.0
"""Seconds until a policy asks again for a connection. A slot that is released enqueues the next key earlier; this is
for where that key needed no connection any more, and so released none."""
STAY = 1.0
"""Seconds for which a worker goes on with one database while others wait, and no other namespace: its process need not
connect again for each table."""


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
    secrets: Secrets = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "secrets", Secrets(lambda namespace, name: self.cluster.secret(namespace, name)))

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
    waiting: list[ObjectKey] = field(default_factory=list)


class Slots:
    """A worker that gets no slot requeues its key instead of blocking. Safe for threads."""

    def __init__(self, limit: int = PER_DATABASE) -> None:
        self._limit = limit
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

    def release(self, database: Hashable, key: ObjectKey) -> list[ObjectKey]:
        """Give the slot back. Returns the key, if any, that is to be enqueued: the one that has waited the longest."""
        with self._lock:
            of = self._databases[database]
            of.used.remove(key)
            following = of.waiting[:1]
            del of.waiting[:1]
            if not (of.used or of.waiting):
                del self._databases[database]
            return following


class Workers:
    """Threads that call ``work`` with each key; it returns the seconds until the next time, None for never."""

    def __init__(self, queue: WorkQueue, work: Callable[[ObjectKey], float | None], count: int) -> None:
        self._queue, self._work, self.count = queue, work, count
        self._lock = threading.Lock()
        self._threads = [self._thread(f"worker-{number}") for number in range(count)]
        self._aside: set[threading.Thread] = set()
        """Those that end with what they do: another has their place."""

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    @property
    def ended(self) -> int:
        """How many of the threads have begun and are no more."""
        with self._lock:
            return sum(thread.ident is not None and not thread.is_alive() for thread in self._threads)

    def set_aside(self, thread: threading.Thread) -> None:
        """What that one does takes long: it goes on, and another one takes its place. Raises `RuntimeError` where the
        system refuses that one."""
        substitute = self._thread(thread.name)
        with self._lock:
            # First, since a system may refuse a thread: then all stays as it is.
            substitute.start()
            self._threads.remove(thread)
            self._threads.append(substitute)
            self._aside.add(thread)

    def wait(self, seconds: float) -> bool:
        """After the queue was closed: whether all have finished within so many seconds."""
        deadline = time.monotonic() + seconds
        with self._lock:
            threads = [*self._threads, *self._aside]
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _thread(self, name: str) -> threading.Thread:
        return threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        own = threading.current_thread()
        last, since = None, 0.0
        while own not in self._aside:
            if time.monotonic() - since > STAY:
                last, since = None, time.monotonic()
            if (key := self._queue.take(last)) is None:
                break
            after: float | None = AFTER_CRASH
            try:
                after = self._work(key)
                # Where no connection was free, other databases may have one.
                last = None if after == WAIT_FOR_SLOT else key
            except Exception:
                log.exception("unexpected error", extra={"policy": "/".join(key)})
            finally:
                self._queue.done(key, after, returns=own not in self._aside)
        with self._lock:
            self._aside.discard(own)


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
