"""All that the operator runs for archives, wired: what is known of them, a queue, and the threads that tend them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from ..api.archive import ARCHIVE_PLURAL
from ..api.types import ObjectKey
from ..archive.jobspec import Task
from ..kube.archives import ArchivesInCluster
from ..kube.cache import ArchiveStore, Store, parse_archive
from ..kube.client import Cluster
from .archive_job import JobSlots
from .archive_reconciler import ArchiveReconciler
from .archive_requests import ArchiveRequests
from .archive_status import is_proven, trouble
from .event_handlers import ArchiveEventHandler
from .health import WorkerPoolStats
from .ownership import Shard
from .settings import Settings
from .workqueue import Workers, WorkQueue

WORKERS = 2
"""Threads. The work itself is done in Jobs."""


class ArchiveService:
    """Its own queue and threads: an archive that takes its time keeps no policy waiting."""

    def __init__(
        self,
        cluster: Cluster,
        policies: Store,
        wake_policies: WorkQueue,
        settings: Settings,
        clock: Callable[[], datetime],
        ended: Callable[[Task, bool, float | None], None],
    ) -> None:
        """``ended``: as `Tender` has it."""
        self.store = ArchiveStore()
        self._settings, self._api = settings, ArchivesInCluster(cluster)
        self._cluster = cluster
        self._shard = Shard(policies, settings.selector, self._api.policy_exists, self._selects)
        self._queue, self._slots = WorkQueue(), JobSlots(settings.jobs, self._counts)
        self._intake = ArchiveEventHandler(self.store, self._slots, self._queue, wake_policies)
        self.desk = ArchiveRequests(self.store, self._api, self._queue.enqueue, settings.selector)
        self._tender = ArchiveReconciler(cluster, self._shard, self.store, self._slots, settings, clock, ended)
        self._workers = Workers(self._queue, self._tender.tend, WORKERS)

    def crew(self) -> WorkerPoolStats:
        """How the queue and its threads stand now."""
        return WorkerPoolStats(self._queue.backlog(), self._workers.count, self._workers.ended)

    def states(self) -> Iterator[tuple[str, str]]:
        """Namespace and state of each archive that is worked on here: one of `metrics.ARCHIVE_STATES`."""
        for each in filter(self._shard.has, self.store.all()):
            status = each.status
            proven = "Proven" if is_proven(status) else "Working"
            yield each.key[0], "Failing" if trouble(status) else proven

    def start(self) -> None:
        """Begin to work; `list` has been called before."""
        self._workers.start()

    def stop(self) -> None:
        """Take up no more."""
        self._queue.close()
        self._tender.stop()

    def wait(self, seconds: float) -> bool:
        """Whether all threads have finished within so many seconds."""
        return self._workers.wait(seconds)

    def list(self) -> None:
        """Ask for all archives and all Jobs, in case a watch fell silent. Raises `ClusterUnavailable`.

        Those of other operators, too: which archives are a policy's own, their labels do not say for ever.
        """
        before = self.store.all()
        scopes = self._settings.namespaces or (None,)
        self._intake.listed(before, [body for each in scopes for body in self._api.archives(each)])
        running = self._slots.running()
        self._intake.jobs_listed(running, [body for each in scopes for body in self._api.jobs(each)])
        if selector := self._settings.selector:
            bodies = (body for each in scopes for body in self._cluster.objects(ARCHIVE_PLURAL, each, selector))
            selected = {archive.key: archive.labels for archive in map(parse_archive, bodies)}
            for key in self._shard.refresh(self.store.all(), selected):
                self._queue.enqueue(key)

    def on_archive(self, event: Any) -> None:
        """An event of the watch of PartitionArchives."""
        (self._intake.deleted if event["type"] == "DELETED" else self._intake.seen)(event["object"])

    def on_job(self, event: Any) -> None:
        """An event of the watch of Jobs."""
        self._intake.job_seen(event["object"], gone=event["type"] == "DELETED")

    def _selects(self, key: ObjectKey) -> bool:
        return self._cluster.selected(ARCHIVE_PLURAL, key, self._settings.selector) is not None

    def _counts(self, owner: ObjectKey | None) -> bool:
        """Whether a Job for that archive takes one of this operator's slots."""
        return self._shard.has(self.store.get(owner) if owner else None)
