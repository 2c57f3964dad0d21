"""What the parts of one operator process share."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from ..api.types import ObjectKey
from ..kube.cache import Store
from ..kube.client import Cluster
from .settings import Settings
from .workqueue import WorkQueue

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The wall clock, aware: marks conditions and Events. No decision about a table depends on it."""
    return datetime.now(UTC)


def share(workers: int, namespaces: int = 0) -> int:
    """How many of the workers one namespace may have: no more than half where there may be others (0: any number)."""
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
