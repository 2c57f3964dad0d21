"""The operator: watches show, the work queue decides when, threads do the work."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from .. import __version__
from ..api import archive
from ..api.policy import GROUP, PLURAL, VERSION
from ..errors import ClusterUnavailable, StartupError
from ..kube.archives import ArchivesInCluster
from ..kube.cache import ArchiveCache, Store
from ..kube.client import Cluster, TooManyRequests
from ..kube.config import configure
from ..kube.lease import LeaderElection
from .archive_job import JobSlots
from .archive_reconciler import ArchiveReconciler, TableFinder
from .archive_requests import ArchiveRequests
from .archive_status import state
from .event_handlers import ArchiveEventHandler, PolicyEventHandler
from .health import Health, Web, WorkerPoolStats
from .informers import Lister, Watches
from .metrics import Metrics, Sources
from .ownership import Shard, TableOwnership
from .policy_reconciler import PolicyReconciler
from .settings import Settings, configure_logging, wanted
from .workqueue import Every, Workers, WorkQueue

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
FINISH, CANCEL = 4.0, 2.0
"""Seconds that running work is given after SIGTERM: to finish by itself, then to be cancelled."""
ARCHIVE_WORKERS = 2
"""Threads for archives, whose work itself is done in Jobs."""
AGAIN = 3.0
"""Seconds after which the API server is asked again, where it is waited for."""


class Operator:
    """Everything that runs, wired."""

    def __init__(self, settings: Settings, early: threading.Event) -> None:
        """``early`` is set by a signal that comes before `run` has begun to listen for them."""
        self._settings, self._early = settings, early
        self._cluster = Cluster(
            configure(settings.kubeconfig), connections=settings.workers + 2, selector=str(settings.selector)
        )
        self._store, self._queue = Store(), WorkQueue()
        claims = TableOwnership(self._queue.enqueue)
        clock = lambda: datetime.now(UTC)  # noqa: E731
        metrics = Metrics(self._sources())
        # Archives have a queue and threads of their own: one that takes its time keeps no policy waiting.
        api, self._archives, self._archive_queue = ArchivesInCluster(self._cluster), ArchiveCache(), WorkQueue()
        self._shard = Shard(self._store, settings.selector, api.policy_exists)
        slots = JobSlots(settings.jobs, lambda owner: self._shard.has(self._archives.get(owner) if owner else None))
        requests = ArchiveRequests(self._archives, api, self._archive_queue.enqueue, settings.selector)
        self._archive_events = ArchiveEventHandler(
            api, self._archives, slots, self._shard, self._archive_queue, self._queue, settings.namespaces
        )
        tables = TableFinder(self._cluster, settings)
        archives = ArchiveReconciler(
            *(self._cluster, api, self._archives, requests, self._shard, slots, tables, settings, clock),
            metrics.job_ended,
        )
        self._archive_workers = Workers(self._archive_queue, archives.reconcile, ARCHIVE_WORKERS)
        self._intake = PolicyEventHandler(self._store, claims, self._queue, settings.selector, requests.moved)
        self._reconciler = PolicyReconciler(
            self._cluster,
            self._store,
            claims,
            self._queue,
            settings,
            clock,
            requests,
            metrics.looked,
            lost=lambda: self._leadership.lost,
        )
        self._workers = Workers(self._queue, self._reconciler.reconcile, settings.workers)
        self._leadership = LeaderElection(self._cluster, settings.lease)
        crews = {"policies": self._crew, "archives": self._archive_crew}
        self._health = Health(crews, settings.relist, self._leadership.others, self._leadership.stands_by)
        self._web = self._listening(metrics) if settings.listen else None
        self._lister = Lister(self._cluster, self._store, self._intake, self._archive_events, self._health, settings)
        self._listing = Every("lister", settings.relist, self._lister.again)

    def check(self) -> None:
        """Raises `StartupError` when the resource is not installed or a right is missing, and `ClusterUnavailable`."""
        if unserved := [each for each in (PLURAL, archive.ARCHIVE_PLURAL) if not self._cluster.serves(each)]:
            raise StartupError(
                f"the cluster does not serve {unserved[0]} of {GROUP}/{VERSION}: install the "
                "CustomResourceDefinitions with `partwarden crds | kubectl apply --server-side -f -`"
            )
        if missing := [str(right) for right in wanted(self._settings) if not self._cluster.may(right)]:
            raise StartupError(
                f"the operator's identity may not {'; '.join(missing)}: bind it to the roles in examples/rbac.yaml"
            )

    def run(self) -> None:
        """Serve, once it leads, until SIGTERM or SIGINT. Raises what ended it otherwise."""
        if self._web:
            self._web.start()
        try:
            if self._asked(self.check) and self._leadership.wait(self._early) and self._asked(self._lister.first):
                self._serve()
        finally:
            lost = self._leadership.lost
            self._leadership.end()
            if self._web:
                self._web.stop()
        if lost:
            raise StartupError("the Lease was lost: another operator may lead now, so this one ends")

    def _asked(self, question: Callable[[], None]) -> bool:
        """False when the process was told to stop before an answer came, or leads no more. With a Lease an API server
        that does not answer is waited for: whoever lost the Lease by that has ended, and would end again and again,
        later each time. One that asks for patience is waited for always: for a moment after the resource is installed
        it has no list of what a selector selects."""
        while not self._leadership.lost:
            try:
                question()
                return True
            except ClusterUnavailable as error:
                if not self._settings.lease and not isinstance(error, TooManyRequests):
                    raise
                log.warning("%s; tried again in %.0f s", error, AGAIN)
            if self._early.wait(AGAIN):
                break
        return False

    def _serve(self) -> None:
        namespaces, selector = self._settings.namespaces, self._settings.selector
        where = f"namespaces {', '.join(namespaces)}" if namespaces else "all namespaces"
        which = f", policies that match {str(selector)!r}," if selector else ""
        log.info("partwarden %s serves %s%s with %d workers", __version__, where, which, self._settings.workers)
        self._workers.start()
        self._archive_workers.start()
        self._listing.start()
        try:
            asyncio.run(self._watch())
        finally:
            self._stop()
            if not self._workers.wait(0 if self._leadership.lost else FINISH):
                log.info("cancelling what still runs")
                self._reconciler.cancel()
                self._workers.wait(CANCEL)
            # They were told at the same time: what they do is seen again by the next operator, wherever it ends.
            self._archive_workers.wait(CANCEL / 4)

    async def _watch(self) -> None:
        stopped = asyncio.Event()
        shown = {PLURAL: self._on_policy, archive.ARCHIVE_PLURAL: self._archive_events.on_archive}
        watches = Watches(self._cluster, self._settings, shown, self._archive_events.on_job)
        tasks = await watches.begin(stopped)
        loop = asyncio.get_running_loop()

        def stop(number: signal.Signals) -> None:
            log.info("%s: finishing what runs", number.name)
            self._stop()
            stopped.set()

        # kopf's own handlers would let the workers take up more.
        for number in SIGNALS:
            loop.add_signal_handler(number, stop, number)
        if self._early.is_set():
            stop(signal.SIGTERM)
        beating = asyncio.create_task(self._beat(stopped))
        await watches.run(tasks)
        beating.cancel()

    async def _beat(self, stopped: asyncio.Event) -> None:
        while not stopped.is_set():
            self._health.beat()
            if self._leadership.lost:
                self._stop()
                stopped.set()
            await asyncio.sleep(1)

    def _on_policy(self, event: Any) -> None:
        body, gone = event["object"], event["type"] == "DELETED"
        self._lister.shown(body, gone)
        (self._intake.deleted if gone else self._intake.seen)(body)

    def _crew(self) -> WorkerPoolStats:
        return WorkerPoolStats(self._queue.backlog(), self._workers.count, self._workers.ended)

    def _sources(self) -> Sources:
        """Asked at a scrape: by then all of it is there."""
        queues = {"policies": lambda: self._crew().backlog, "archives": lambda: self._archive_crew().backlog}
        return Sources(self._store, self._archive_states, queues)

    def _archive_states(self) -> list[tuple[str, str]]:
        """Namespace and state of each archive that is worked on here."""
        return [(each.key[0], state(each.status)) for each in self._archives.all() if self._shard.has(each)]

    def _archive_crew(self) -> WorkerPoolStats:
        workers = self._archive_workers
        return WorkerPoolStats(self._archive_queue.backlog(), workers.count, workers.ended)

    def _listening(self, metrics: Metrics) -> Web:
        health = self._health
        return Web(self._settings.listen, metrics.registry, health.unhealthy, health.unready, health.unfit)

    def _stop(self) -> None:
        self._health.stopping()
        self._reconciler.stop()
        self._queue.close()
        self._archive_queue.close()
        self._lister.stop()
        self._listing.stop()


def run(settings: Settings, only_check: bool = False) -> int:
    """Run the operator until it is told to stop, or ``only_check`` whether it could.

    Returns the exit code: 0 after SIGTERM or SIGINT, or where it could run, else 1.
    """
    configure_logging(settings)
    early = threading.Event()
    for number in SIGNALS:
        signal.signal(number, lambda *_: early.set())
    try:
        # One that runs beside it may have the port.
        operator = Operator(settings.model_copy(update={"listen": ""}) if only_check else settings, early)
        if only_check:
            operator.check()
            log.info("partwarden %s could run: the resources are there, and so are its rights", __version__)
            return 0
        operator.run()
    except (StartupError, ClusterUnavailable) as error:
        log.error("%s", error)
        return 1
    except Exception:
        log.exception("the watch ended, and the operator with it")
        return 1
    log.info("stopped")
    return 0
