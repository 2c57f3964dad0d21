"""What Prometheus is told of this operator: https://prometheus.io/docs/practices/naming/

Gauges of policies and archives are read from their statuses at each scrape, so that nothing stays of one that is gone.
Labels are bounded: the namespace and name of a policy, and words of fixed sets.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from . import __version__
from .order import Task
from .pace import Result
from .policy_metrics import families
from .store import Store
from .workqueue import Backlog, Key

LOOKS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
JOBS = (10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 24 * 3600.0)
"""Upper bounds in seconds, inclusive."""
ARCHIVE_STATES = ("Proven", "Working", "Failing")


@dataclass(frozen=True, slots=True)
class Sources:
    """What is asked at each scrape. ``archives``: namespace and state of each; ``queues``: by name."""

    policies: Store
    archives: Callable[[], Iterable[tuple[str, str]]]
    queues: Mapping[str, Callable[[], Backlog]]


class Metrics:
    """Safe for threads."""

    def __init__(self, sources: Sources, wall: Callable[[], float] = time.time) -> None:
        """``wall``: seconds since 1970, UTC."""
        self.registry = CollectorRegistry()
        self._sources, self._wall = sources, wall
        self._lock = threading.Lock()
        self._successes: dict[Key, float] = {}
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._looks = Counter(
            "partwarden_reconciles",
            "Looks at policies, by what came of them: Fine, Unfinished, Outage or Mistake.",
            ["result"],
            registry=self.registry,
        )
        self._look_seconds = Histogram(
            "partwarden_reconcile_duration_seconds",
            "How long a look at a policy took, with what it did.",
            buckets=LOOKS,
            registry=self.registry,
        )
        self._jobs = Counter(
            "partwarden_archive_jobs",
            "Jobs that archive, or read an archive again (task), by their result: Succeeded or Failed.",
            ["task", "result"],
            registry=self.registry,
        )
        self._job_seconds = Histogram(
            "partwarden_archive_job_duration_seconds",
            "How long such a Job took, from when it was made.",
            ["task"],
            buckets=JOBS,
            registry=self.registry,
        )
        for result in Result:
            self._looks.labels(result.name.capitalize())
        for task in Task:
            self._job_seconds.labels(task.value)
            for word in ("Succeeded", "Failed"):
                self._jobs.labels(task.value, word)
        self.registry.register(_Scraped(self._scrape))

    def looked(self, key: Key, result: Result, seconds: float) -> None:
        """A look at a policy has ended."""
        self._looks.labels(result.name.capitalize()).inc()
        self._look_seconds.observe(seconds)
        if result is Result.FINE:
            with self._lock:
                self._successes[key] = self._wall()

    def job_ended(self, task: Task, succeeded: bool, seconds: float | None) -> None:
        """A Job of an archive has ended, and that was written into its status."""
        self._jobs.labels(task.value, "Succeeded" if succeeded else "Failed").inc()
        if seconds is not None:
            self._job_seconds.labels(task.value).observe(seconds)

    def _scrape(self) -> Iterator[Any]:
        yield InfoMetricFamily("partwarden_build", "Which Partwarden this is.", {"version": __version__})
        policies = sorted(self._sources.policies.all(), key=lambda each: each.key)
        yield from families((each.key, each.suspended, each.status) for each in policies)
        yield self._last_successes({each.key for each in policies})
        yield self._archives()
        yield from self._queues()

    def _last_successes(self, known: set[Key]) -> GaugeMetricFamily:
        found = GaugeMetricFamily(
            "partwarden_policy_last_success_timestamp_seconds",
            "When a look at the policy last found all well, or made it so, since this process began.",
            labels=["namespace", "policy"],
        )
        with self._lock:
            self._successes = {key: at for key, at in self._successes.items() if key in known}
            for key, at in sorted(self._successes.items()):
                found.add_metric(key, at)
        return found

    def _archives(self) -> GaugeMetricFamily:
        counts: dict[tuple[str, str], int] = {}
        for namespace, state in self._sources.archives():
            for each in ARCHIVE_STATES:
                counts.setdefault((namespace, each), 0)
            counts[namespace, state] += 1
        found = GaugeMetricFamily(
            "partwarden_archives",
            "PartitionArchives, by their state: Proven; Failing, also one that was proven and is damaged now; Working.",
            labels=["namespace", "state"],
        )
        for labels, count in sorted(counts.items()):
            found.add_metric(labels, count)
        return found

    def _queues(self) -> Iterator[GaugeMetricFamily]:
        depth = GaugeMetricFamily("partwarden_queue_depth", "What is due and waits for a worker.", labels=["queue"])
        oldest = GaugeMetricFamily(
            "partwarden_queue_oldest_seconds", "How long the first in the queue has been due.", labels=["queue"]
        )
        busy = GaugeMetricFamily("partwarden_workers_busy", "Workers that are at work.", labels=["queue"])
        for name, look in self._sources.queues.items():
            found = look()
            depth.add_metric([name], found.due)
            oldest.add_metric([name], found.waiting)
            busy.add_metric([name], len(found.busy))
        yield from (depth, oldest, busy)


class _Scraped(Collector):
    """Asks at each scrape, and not when it is registered: its names are none of the others'."""

    def __init__(self, scrape: Callable[[], Iterator[Any]]) -> None:
        self._scrape = scrape

    def collect(self) -> Iterator[Any]:
        return self._scrape()

    def describe(self) -> list[Any]:
        return []
