"""The metrics of this operator: https://prometheus.io/docs/practices/naming/

Gauges of policies and archives are made of those that exist at each scrape, so that nothing stays of a deleted one. A
status is parsed once for each version of it. Labels are bounded: the namespace and name of a policy, and words of fixed
sets.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from .. import __version__
from ..api.status import FOR_EVER, Severity
from ..api.types import ObjectKey
from ..archive.job_order import Task
from ..kube.cache import Store, StoredObject, StoredPolicy
from .workqueue import Backlog, Result

LABELS = ("namespace", "policy")
RECONCILE_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
JOB_SECONDS = (10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 24 * 3600.0)
"""Upper bounds in seconds, inclusive."""
ARCHIVE_STATES = ("Proven", "Working", "Failing")


class Number(NamedTuple):
    """A field of ``status.summary``, and its metric."""

    field: str
    metric: str
    help: str


NUMBERS = (
    Number("partitions", "partitions", "Partitions of the table."),
    Number("managed", "managed_partitions", "Partitions that are exactly one interval."),
    Number("expired", "expired_partitions", "Partitions older than retention.keepFor that still exist."),
    Number("detached", "detached_tables", "Detached tables that still exist."),
    Number("rows", "rows", "Rows of all partitions, by the planner's estimate, two significant digits."),
    Number("totalBytes", "bytes", "Size of all partitions on disk, with indexes and TOAST, two significant digits."),
    Number("defaultRows", "default_rows", "Rows in the DEFAULT partition, counted; a lower limit above 200,000."),
    Number("pending", "pending_actions", "Length of the plan: actions that are still to be done."),
    Number("missing", "missing_ranges", "Wanted ranges that no partition holds yet."),
    Number("ahead", "ahead_intervals", "Whole intervals that are covered after the current one, at most 1000."),
    Number("rowsPerDay", "forecast_rows_per_day", "Rows that come in a day, by partitions whose ranges have passed."),
    Number("bytesPerDay", "forecast_bytes_per_day", "Bytes on disk that come in a day, by the same partitions."),
    Number("nextPartitionBytes", "forecast_next_partition_bytes", "Size that the next partition will have."),
    Number("nextArchiveBytes", "forecast_next_archive_bytes", "Size that the next archive will have."),
    Number("nextArchiveSeconds", "forecast_next_archive_seconds", "Seconds that the next archive's Job will take."),
    Number(
        "thresholdReached",
        "forecast_threshold_reached_timestamp_seconds",
        "The day, its midnight in UTC, on which a partition grows beyond spec.thresholds.partitionSize.",
    ),
    Number(
        "claimFull",
        "forecast_claim_full_timestamp_seconds",
        "The day, its midnight in UTC, on which archives fill their PersistentVolumeClaim.",
    ),
)
"""Of ``status.summary``, and of ``forecast`` in it."""
MOMENTS = (
    Number(
        "runsOutAt",
        "covered_until_timestamp_seconds",
        "When the coverage ends that holds now, or ended if none does; +Inf: never.",
    ),
    Number(
        "creationDueAt",
        "creation_due_timestamp_seconds",
        "When the next partition is due to be created; past where one is missing.",
    ),
    Number(
        "oldestExpiredAt",
        "oldest_expired_timestamp_seconds",
        "When the oldest partition expired that is attached still, that no hold keeps and no user attached again.",
    ),
    Number(
        "oldestVerifiedAt",
        "oldest_verification_timestamp_seconds",
        "When the archive was last read again, and proven, that was not for the longest time.",
    ),
    Number(
        "verificationDueAt",
        "verification_due_timestamp_seconds",
        "When that archive is to be read again at the latest, by retention.archive.verifyEvery.",
    ),
    Number("nextDrop", "next_drop_timestamp_seconds", "When the next table may be dropped, at the earliest."),
)
"""Moments of the summary, and of the next drop, in seconds since 1970. They are known ahead, so that an alert on them
fires also where no operator makes them new."""


def families(policies: Iterable[tuple[ObjectKey, bool, Mapping[str, Any]]]) -> list[GaugeMetricFamily]:
    """One family for each metric, of all policies: each with its key, whether it is suspended, and its status.

    What a status does not say has no sample.
    """
    runway = _family("runway_days", "Whole days for which partitions exist after the current one ends; +Inf: for ever.")
    numbers = {each.field: _family(each.metric, each.help) for each in NUMBERS}
    moments = {each.field: _family(each.metric, each.help) for each in MOMENTS}
    condition = _family("condition", "1: the condition is True, 0: False; absent while Unknown.", "condition")
    findings = _family("findings", "Findings of the last reconcile, by reason and severity.", "reason", "severity")
    long = _family("long_action_start_timestamp_seconds", "When an action began that takes long.", "action")
    long_bytes = _family("long_action_bytes", "Size of the table that such an action is done to.", "action")
    paused = _family("suspended", "1 where spec.suspend is true, else 0.")
    for key, suspended, status in policies:
        paused.add_metric(key, suspended)
        summary: Mapping[str, Any] = status.get("summary") or {}
        days = float("inf") if summary.get("coveredUntil") == FOR_EVER else summary.get("runwayDays")
        if days is not None:
            runway.add_metric(key, days)
        said = {**(summary.get("forecast") or {}), **summary}
        for field, family in numbers.items():
            if (number := _number(said.get(field))) is not None:
                family.add_metric(key, number)
        for field, seconds in _moments(summary, status.get("nextDrop") or {}):
            moments[field].add_metric(key, seconds)
        for each in status.get("conditions") or []:
            if each["status"] != "Unknown":
                condition.add_metric([*key, each["type"]], each["status"] == "True")
        if action := status.get("longAction"):
            long.add_metric([*key, action["action"]], _seconds(action["since"]) or 0.0)
            long_bytes.add_metric([*key, action["action"]], action["bytes"])
        kinds = collections.Counter((each["reason"], each["severity"]) for each in status.get("findings") or [])
        for kind, count in sorted(kinds.items()):
            findings.add_metric([*key, *kind], count)
    return [runway, *numbers.values(), *moments.values(), condition, findings, long, long_bytes, paused]


def _moments(summary: Mapping[str, Any], drop: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for each in MOMENTS:
        if (seconds := _seconds({**summary, "nextDrop": drop.get("at")}.get(each.field))) is not None:
            yield each.field, seconds
    if summary.get("coveredUntil") == FOR_EVER:
        yield "runsOutAt", float("inf")


def _seconds(moment: Any) -> float | None:
    """None for what is no moment: one status that another program wrote takes no metric from the others."""
    try:
        return datetime.fromisoformat(moment).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _number(said: Any) -> float | None:
    """Of a day, its midnight in UTC."""
    return _seconds(f"{said}T00:00:00Z") if isinstance(said, str) else said


def _family(name: str, text: str, *more: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"partwarden_policy_{name}", text, labels=[*LABELS, *more])


def shown(status: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a status that `families` reads."""
    return {
        "summary": status.get("summary"),
        "nextDrop": status.get("nextDrop"),
        "longAction": status.get("longAction"),
        "conditions": [{name: each[name] for name in ("type", "status")} for each in status.get("conditions") or []],
        "findings": [
            {"reason": each["reason"], "severity": each.get("severity") or Severity.NOTICE}
            for each in status.get("findings") or []
        ],
    }


T = TypeVar("T", bound=StoredObject)
R = TypeVar("R")


class Memory(Generic[T, R]):
    """What a function returned for each object that was last asked for."""

    def __init__(self, compute: Callable[[T], R]) -> None:
        self._compute, self._known = compute, dict[ObjectKey, tuple[T, R]]()

    def of(self, objects: Iterable[T]) -> Iterator[tuple[T, R]]:
        """The function is called for what has come, or changed, since the last time."""
        known = {}
        for each in objects:
            before = self._known.get(each.key)
            known[each.key] = before if before and before[0] is each else (each, self._compute(each))
        self._known = known
        return iter(known.values())


@dataclass(frozen=True, slots=True)
class Sources:
    """What each scrape reads. ``archives``: namespace and state of each; ``queues``: by name."""

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
        self._successes: dict[ObjectKey, float] = {}
        self._statuses = Memory[StoredPolicy, dict[str, Any]](lambda policy: shown(policy.status))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._reconciles = Counter(
            "partwarden_reconciles",
            "Reconciles of policies, by result: Converged, InProgress, Transient or UserError.",
            ["result"],
            registry=self.registry,
        )
        self._reconcile_seconds = Histogram(
            "partwarden_reconcile_duration_seconds",
            "Duration of a reconcile, with everything it did.",
            buckets=RECONCILE_SECONDS,
            registry=self.registry,
        )
        self._jobs = Counter(
            "partwarden_archive_jobs",
            "Jobs that archive or check an archive (task), by result: Succeeded or Failed.",
            ["task", "result"],
            registry=self.registry,
        )
        self._job_seconds = Histogram(
            "partwarden_archive_job_duration_seconds",
            "Duration of such a Job, from its creation.",
            ["task"],
            buckets=JOB_SECONDS,
            registry=self.registry,
        )
        for result in Result:
            self._reconciles.labels(result.value)
        for task in Task:
            self._job_seconds.labels(task.value)
            for word in ("Succeeded", "Failed"):
                self._jobs.labels(task.value, word)
        self._failures = Counter(
            "partwarden_thread_failures",
            "Unexpected errors of a thread that does something at regular intervals: the log has them.",
            ["thread"],
            registry=self.registry,
        )
        self._failures.labels("lister")
        self.registry.register(_Scraped(self._scrape))

    def reconciled(self, key: ObjectKey, result: Result, seconds: float, well: bool) -> None:
        """A reconcile of a policy has ended. ``well``: the table is as the policy wants it, but for warnings."""
        self._reconciles.labels(result.value).inc()
        self._reconcile_seconds.observe(seconds)
        if well:
            with self._lock:
                self._successes[key] = self._wall()

    def job_ended(self, task: Task, succeeded: bool, seconds: float | None) -> None:
        """A Job of an archive has ended, and that was written into its status."""
        self._jobs.labels(task.value, "Succeeded" if succeeded else "Failed").inc()
        if seconds is not None:
            self._job_seconds.labels(task.value).observe(seconds)

    def thread_failed(self, name: str) -> None:
        """An unexpected error left the work of that thread, which goes on."""
        self._failures.labels(name).inc()

    def _scrape(self) -> Iterator[Any]:
        yield InfoMetricFamily("partwarden_build", "The version of Partwarden.", {"version": __version__})
        policies = sorted(self._sources.policies.all(), key=lambda each: each.key)
        yield from families((each.key, each.suspended, status) for each, status in self._statuses.of(policies))
        yield self._last_successes({each.key for each in policies})
        yield self._archives()
        yield from self._queues()

    def _last_successes(self, known: set[ObjectKey]) -> GaugeMetricFamily:
        found = _family(
            "last_success_timestamp_seconds",
            "When a reconcile of the policy last succeeded, if only with warnings, since this process began.",
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
            "PartitionArchives, by state: Proven; Failing, also one that was proven and is damaged now; Working.",
            labels=["namespace", "state"],
        )
        for labels, count in sorted(counts.items()):
            found.add_metric(labels, count)
        return found

    def _queues(self) -> Iterator[GaugeMetricFamily]:
        depth = GaugeMetricFamily(
            "partwarden_queue_depth", "Keys that are due and wait for a worker.", labels=["queue"]
        )
        oldest = GaugeMetricFamily(
            "partwarden_queue_oldest_seconds", "How long the first in the queue has been due.", labels=["queue"]
        )
        busy = GaugeMetricFamily("partwarden_workers_busy", "Workers that work on a key.", labels=["queue"])
        for name, ask in self._sources.queues.items():
            backlog = ask()
            depth.add_metric([name], backlog.due)
            oldest.add_metric([name], backlog.waiting)
            busy.add_metric([name], len(backlog.busy))
        yield from (depth, oldest, busy)


class _Scraped(Collector):
    """Collects at each scrape, and not when it is registered."""

    def __init__(self, scrape: Callable[[], Iterator[Any]]) -> None:
        self._scrape = scrape

    def collect(self) -> Iterator[Any]:
        return self._scrape()

    def describe(self) -> list[Any]:
        return []
