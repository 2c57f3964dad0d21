"""The operator process: builds every part, runs them until SIGTERM, and ends them in order."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from .. import __version__
from ..api import archive
from ..api.policy import GROUP, PLURAL, VERSION
from ..api.restore import RESTORE_KIND, RESTORE_PLURAL
from ..api.types import ObjectKey
from ..errors import ClusterUnavailable, StartupError
from ..kube.cache import ArchiveCache, RestoreCache, StoredArchive, is_gone
from ..kube.client import BadRequest, Cluster, TooManyRequests
from ..kube.config import configure
from ..kube.lease import LeaderElection
from . import database_work
from .archive_database import WITHIN, ArchiveProgress, check_gone, find_table
from .archive_reconciler import ArchiveReconciler
from .archive_requests import ArchiveRequests
from .archive_status import state
from .database_process import DatabaseProcesses
from .event_handlers import ArchiveEventHandler, PolicyEventHandler
from .health import Health, Web, WorkerPoolStats
from .informers import Lister, Watches
from .job_slots import JobSlots
from .long_actions import LongActions, long_limit
from .measurements import Measurements
from .metrics import Memory, Metrics, Sources
from .ownership import TableOwnership
from .policy_reconciler import PolicyReconciler
from .restore_events import RestoreEventHandler
from .restore_reconciler import RestoreReconciler
from .runtime import Every, Runtime, Workers, share
from .settings import Settings, configure_logging, wanted
from .shard import Shard
from .workqueue import WorkQueue

log = logging.getLogger(__name__)

PLURALS = (PLURAL, archive.ARCHIVE_PLURAL, RESTORE_PLURAL)
SIGNALS = (signal.SIGTERM, signal.SIGINT)
FINISH, CANCEL = 4.0, 2.0
"""Seconds that running work is given after SIGTERM: to finish by itself, then to be cancelled."""
ARCHIVE_WORKERS = 2
"""Threads for archives, whose work itself is done in Jobs."""
RESTORE_WORKERS = 1
"""Threads for restores: none waits for a database."""
TURN = 0.0005
"""Seconds for which one thread computes while others wait: they do little between two waits for a database, so that by
Python's own 5 ms each of eight workers would wait for another longer than it computes."""
AGAIN = 3.0
"""Seconds after which the API server is asked again, where it is waited for."""


class Operator:
    """Every part that runs."""

    def __init__(self, settings: Settings, early: threading.Event) -> None:
        """``early`` is set by a signal that comes before `run` has begun to listen for them."""
        self._settings, self._early = settings, early
        config = configure(settings.kubeconfig)
        self._cluster = cluster = Cluster(config, connections=settings.workers + 2, selector=settings.selector)
        self._runtime = runtime = Runtime.of(cluster, settings)
        self._leadership = LeaderElection(cluster, settings.lease)
        self._archive_queue = WorkQueue(share=share(ARCHIVE_WORKERS, len(settings.namespaces)))
        self._restore_queue = WorkQueue(share=share(RESTORE_WORKERS, len(settings.namespaces)))
        queues = {"policies": runtime.policy_queue, "archives": self._archive_queue, "restores": self._restore_queue}
        backlogs = {name: queue.backlog for name, queue in queues.items()}
        metrics = Metrics(Sources(runtime.policies, self._archive_states, backlogs))
        self._archives, self._states = ArchiveCache(), Memory[StoredArchive, str](lambda archive: state(archive.status))
        selects = partial(self._is_selected, archive.ARCHIVE_PLURAL)
        self._shard = Shard(runtime.policies, settings.selector, cluster.exists, selects, self._existing)
        self._processes = DatabaseProcesses(settings.worker_memory * 1024 * 1024, settings.reconcile_timeout)
        self._restores = RestoreCache()
        self._restore_events = self._build_restores(metrics)
        self._policy_events = self._build_policies(metrics, self._build_archives(metrics))
        workers = {"policies": self._workers, "archives": self._archive_workers, "restores": self._restore_workers}
        pools = {name: partial(_stats, queue, workers[name]) for name, queue in queues.items()}
        self._health = Health(pools, settings.relist, self._leadership)
        self._web = Web(settings.listen, metrics.registry, self._health) if settings.listen else None
        self._lister = Lister(runtime, self._policy_events, self._archive_events, self._restore_events, self._health)
        self._listing = Every("lister", settings.relist, self._lister.again, metrics.thread_failed)

    def _build_policies(self, metrics: Metrics, requests: ArchiveRequests) -> PolicyEventHandler:
        """The parts that reconcile policies."""
        runtime, settings = self._runtime, self._settings
        ownership = TableOwnership(runtime.policy_queue.enqueue, runtime.policy_queue.enqueue)
        handler = PolicyEventHandler(runtime.policies, ownership, runtime.policy_queue, requests.moved)
        execute, limit = partial(self._processes.run, database_work.work), long_limit(settings.workers)
        long = LongActions(
            *(runtime.policy_queue, self._set_aside, runtime.clock),
            *(limit, share(limit, len(settings.namespaces))),
        )
        self._reconciler = PolicyReconciler(
            *(runtime, handler, ownership, requests, execute, partial(self._processes.run, database_work.find_keys)),
            *(long, metrics.reconciled, lambda: self._leadership.lost),
            Measurements(self._cluster, runtime.policies, self._archives, requests, parquet=settings.job_parquet).of,
        )
        self._workers = Workers(runtime.policy_queue, self._reconciler.reconcile, settings.workers)
        return handler

    def _build_archives(self, metrics: Metrics) -> ArchiveRequests:
        """The parts that archive. They have a queue and threads of their own: an archive that takes its time keeps no
        policy waiting."""
        cluster, runtime, settings, shard = self._cluster, self._runtime, self._settings, self._shard
        slots = JobSlots(settings, self._archives, shard, self._archive_queue.enqueue)
        requests = ArchiveRequests(self._archives, cluster, self._archive_queue.enqueue, settings.selector)
        self._archive_events = ArchiveEventHandler(
            *(cluster, self._archives, slots, shard, self._archive_queue, runtime.policy_queue),
            *(settings.namespaces, self._restore_events.archive_changed),
        )
        find = partial(find_table, cluster, settings, self._processes.run)
        brief = partial(self._processes.run, within=WITHIN)
        progress = ArchiveProgress(cluster, settings, shard, brief)
        archives = ArchiveReconciler(
            *(cluster, self._archives, requests, shard, slots, find, settings, runtime.clock),
            *(metrics.job_ended, progress.of, partial(check_gone, cluster, settings, brief), self._restores.about),
        )
        self._archive_workers = Workers(self._archive_queue, archives.reconcile, ARCHIVE_WORKERS)
        return requests

    def _build_restores(self, metrics: Metrics) -> RestoreEventHandler:
        """The parts that restore, beside those that archive."""
        cluster, runtime, settings = self._cluster, self._runtime, self._settings
        cache, selects = self._restores, partial(self._is_selected, RESTORE_PLURAL)
        shard = Shard(runtime.policies, settings.selector, cluster.exists, selects, self._existing)
        slots = JobSlots(settings, cache, shard, self._restore_queue.enqueue, runtime.clock, RESTORE_KIND)
        restores = RestoreReconciler(
            *(cluster, cache, self._archives, shard, slots, settings, runtime.clock, metrics.job_ended)
        )
        self._restore_workers = Workers(self._restore_queue, restores.reconcile, RESTORE_WORKERS)
        return RestoreEventHandler(cluster, cache, slots, shard, self._restore_queue, settings.namespaces)

    def check(self) -> None:
        """Raises `StartupError` when the resource is not installed, a right is missing or the selector is none, and
        `ClusterUnavailable`."""
        if unserved := [plural for plural in PLURALS if not self._cluster.serves(plural)]:
            raise StartupError(
                f"the cluster does not serve {unserved[0]} of {GROUP}/{VERSION}: install the "
                "CustomResourceDefinitions with `partwarden crds | kubectl apply --server-side -f -`"
            )
        if missing := [str(right) for right in wanted(self._settings) if not self._cluster.may(right)]:
            raise StartupError(
                f"the operator's identity may not {'; '.join(missing)}: bind it to the roles in examples/rbac.yaml"
            )
        try:
            # Only the API server reads selectors; whether there is a policy of that name does not matter.
            self._cluster.policy((next(iter(self._settings.namespaces), "default"), "partwarden"))
        except BadRequest as error:
            raise StartupError(
                f"PARTWARDEN_SELECTOR={self._settings.selector!r} is no label selector: {error}"
            ) from None

    def run(self) -> None:
        """Serve, once it leads, until SIGTERM or SIGINT. Raises what ended it otherwise."""
        if self._web:
            self._web.start()
        try:
            if self._try(self.check) and self._leadership.wait(self._early) and self._try(self._lister.first):
                self._serve()
        finally:
            lost = self._leadership.lost
            self._leadership.end()
            if self._web:
                self._web.stop()
        if lost:
            raise StartupError("the Lease was lost: another operator may lead now, so this one ends")

    def _try(self, step: Callable[[], None]) -> bool:
        """False when a signal came before the API server answered, or the Lease was lost.

        With a Lease an API server that does not answer is waited for: an operator that lost its Lease by that has
        ended, and would end again and again, later each time. One that answers TooManyRequests is waited for always:
        for a moment after the resource is installed it cannot list what a selector selects.
        """
        while not self._leadership.lost:
            try:
                step()
                return True
            except ClusterUnavailable as error:
                if not self._settings.lease and not isinstance(error, TooManyRequests):
                    raise
                log.warning("%s; next attempt in %.0f s", error, AGAIN)
            if self._early.wait(AGAIN):
                break
        return False

    def _serve(self) -> None:
        namespaces, selector = self._settings.namespaces, self._settings.selector
        where = f"namespaces {', '.join(namespaces)}" if namespaces else "all namespaces"
        which = f", policies that match {selector!r}," if selector else ""
        log.info("partwarden %s serves %s%s with %d workers", __version__, where, which, self._settings.workers)
        self._workers.start()
        self._archive_workers.start()
        self._restore_workers.start()
        self._listing.start()
        try:
            asyncio.run(self._watch())
        finally:
            self._stop()
            if not self._workers.wait(0 if self._leadership.lost else FINISH):
                log.info("cancelling the statements that still run")
                self._processes.cancel()
                self._workers.wait(CANCEL)
            # They were stopped at the same time: the next operator sees what they did, wherever it ends.
            self._archive_workers.wait(CANCEL / 4)
            self._restore_workers.wait(CANCEL / 4)
            self._processes.close()

    async def _watch(self) -> None:
        stopped = asyncio.Event()
        watches = Watches(
            *(self._runtime, self._policy_events.on_policy, self._archive_events.on_archive),
            *(self._restore_events.on_restore, self._on_job),
        )
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

    def _on_job(self, event: Any) -> None:
        self._archive_events.on_job(event)
        self._restore_events.on_job(event)

    def _set_aside(self, thread: threading.Thread) -> None:
        self._workers.set_aside(thread)

    def _is_selected(self, plural: str, key: ObjectKey) -> bool:
        """Whether the object exists, and the selector selects it."""
        return self._cluster.selected(plural, key, self._settings.selector) is not None

    def _existing(self, namespace: str) -> frozenset[ObjectKey]:
        """The policies of the namespace, whichever operator serves them."""
        found = self._cluster.objects(PLURAL, namespace)
        return frozenset((namespace, each["metadata"]["name"]) for each in found if not is_gone(each))

    def _archive_states(self) -> list[tuple[str, str]]:
        """Namespace and state of each archive of this operator."""
        archives = filter(self._shard.has, self._archives.all())
        return [(archive.key[0], word) for archive, word in self._states.of(archives) if not archive.expired]

    def _stop(self) -> None:
        self._health.stopping()
        self._reconciler.stop()
        self._runtime.policy_queue.close()
        self._archive_queue.close()
        self._restore_queue.close()
        self._listing.stop()


def _stats(queue: WorkQueue, workers: Workers) -> WorkerPoolStats:
    return WorkerPoolStats(queue.backlog(), workers.count, workers.ended)


def run(settings: Settings, only_check: bool = False) -> int:
    """Run the operator until a signal ends it, or ``only_check`` whether it could run.

    Returns the exit code: 0 after SIGTERM or SIGINT, or where it could run, else 1.
    """
    configure_logging(settings)
    sys.setswitchinterval(TURN)
    early = threading.Event()
    for number in SIGNALS:
        signal.signal(number, lambda *_: early.set())
    try:
        # An operator that runs beside it may have the port.
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
