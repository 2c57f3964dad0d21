"""Reconcile one PartitionPolicy: observe, plan, claim, apply, write status, requeue.

Nothing is remembered from one reconcile to the next that cannot be read again, but for the pauses after failures.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..api.policy import PartitionPolicySpec
from ..api.status import ConditionStatus
from ..api.types import ObjectKey
from ..api.validation import parse_spec
from ..errors import ClusterUnavailable, PartwardenError, PolicyConflict
from ..kube.cache import StoredPolicy
from ..planner.calendar import load_zone
from ..planner.forecast import NOTHING, Measured
from ..postgres.conninfo import ConnectionInfo
from ..status import conditions, details, events, outage
from . import workqueue
from .archive_requests import ArchiveRequests
from .conversion_rests import ConversionRests
from .database_process import WorkerDefect
from .database_work import WorkReport, WorkRequest
from .event_handlers import PolicyEventHandler
from .long_actions import LongActions, LongRun, Running
from .ownership import TableOwnership
from .policy_supervisor import PolicySupervisor
from .runtime import WAIT_FOR_SLOT, Runtime, Slots
from .same_server import Look, ServerProofs, connection_info, digest

log = logging.getLogger(__name__)

WAIT_FOR_OLDER, PATIENCE_WITH_OLDER = 0.5, 3.0
"""Seconds until a policy asks again whether older ones were reconciled, and for how long it waits for that at first."""
RESYNC = 600.0
"""Seconds, where the spec is not valid."""


class NoFreeSlot(Exception):
    """The database has as many connections as the operator may open to it."""


Execute = Callable[[WorkRequest, PolicySupervisor], WorkReport]
"""Does the work on a database: in a process of its own, see `database_process`."""


@dataclass(slots=True)
class Run:
    """What one reconcile has come to so far."""

    policy: StoredPolicy
    beside: Running | None = None
    """What another run of the policy does, which takes long."""
    began: float = field(default_factory=time.monotonic)
    update: conditions.PolicyStatusUpdate = field(default_factory=conditions.suspended)
    done: list[events.CompletedAction] = field(default_factory=list)
    report: WorkReport = field(default_factory=WorkReport)
    resync: float = RESYNC
    spec: PartitionPolicySpec | None = None
    """None where it is not valid."""

    @property
    def failed(self) -> bool:
        """Whether something is to be tried again."""
        return bool(self.update.errors) or self.update.reconciling

    def about(self, reason: str) -> dict[str, Any]:
        """The fields of a log line."""
        return {"policy": str(self.policy), "reason": reason}


class PolicyReconciler:
    """Safe for threads. The work queue gives each policy to one thread at a time."""

    def __init__(
        self,
        runtime: Runtime,
        handler: PolicyEventHandler,
        ownership: TableOwnership,
        archives: ArchiveRequests,
        execute: Execute,
        look: Look,
        long: LongActions,
        observe: Callable[[ObjectKey, workqueue.Result, float, bool], None],
        lost: Callable[[], bool] = lambda: False,
        measure: Callable[[StoredPolicy, PartitionPolicySpec], Measured] = lambda policy, spec: NOTHING,
    ) -> None:
        """``execute`` does the work on a database, and ``look`` asks that of a rival. ``observe`` gets the result of
        each reconcile, its seconds, and whether the table was observed and is as the policy wants but for warnings.
        ``lost``: whether the Lease is, so that no further action may begin. ``measure``: as `Measurements.of`."""
        self._runtime, self._handler, self._ownership, self._archives = runtime, handler, ownership, archives
        self._execute, self._long, self._observe = execute, long, observe
        self._lost, self._measure, self._stopping = lost, measure, False
        self._proofs = ServerProofs(runtime, ownership, look)
        self._slots, self._backoff, self._rests = Slots(), workqueue.Backoff(), ConversionRests()
        self._waiting: dict[ObjectKey, float] = {}
        """Policies that wait for older ones, and since when."""

    def reconcile(self, key: ObjectKey) -> float | None:
        """Bring the table to the state that the policy asks for, and write the status.

        Returns the seconds until the next reconcile; None: when the policy changes. An error is a condition of the
        status, also one that is not of `partwarden.errors`.
        """
        policy = self._runtime.policies.get(key)
        if policy is None:
            # A reconcile that ran while the policy was deleted may have claimed the table once more.
            self._ownership.release(key)
            self._backoff.forget(key)
            self._rests.forget(key)
            self._waiting.pop(key, None)
            self._long.forget(key)
            return None
        if not policy.suspended and self._awaits_older(policy):
            return WAIT_FOR_OLDER
        run, supervisor = Run(policy, self._long.running(key)), None
        try:
            if policy.suspended:
                # It is observed only: another policy may have the table meanwhile.
                self._ownership.release(key)
                self._long.forget(key)
            run.spec = spec = parse_spec(policy.spec)
            run.resync = spec.resync_period.total_seconds()
            supervisor = self._supervisor(policy, spec)
            run.done = supervisor.done
            with self._connection(policy, spec, supervisor) as connection:
                run.report = self._execute(self._request(run, spec, connection), supervisor)
            run.update = self._rests.note(policy, run.report, self._runtime.clock())
            self._request_archives(run, spec, connection)
        except NoFreeSlot:
            return WAIT_FOR_SLOT
        except PartwardenError as error:
            run.update = conditions.failed(error, supervisor is not None and supervisor.connected)
        except Exception as error:
            name = error.name if isinstance(error, WorkerDefect) else type(error).__name__
            log.exception("%s", name, extra=run.about("InternalError"))
            run.update = conditions.broken(name)
        if policy.suspended and run.update.ready.reason != conditions.INTERNAL_ERROR:
            run.update = conditions.suspended(run.update)
        result = self._write_status(run, self._is_outdated(run, supervisor))
        self._ownership.note(key)
        if self._is_outdated(run, supervisor):
            return 0.0
        return None if result is None else self._requeue(run, result)

    def _is_outdated(self, run: Run, supervisor: PolicySupervisor | None) -> bool:
        """Whether it was set aside, and the policy was edited and reconciled meanwhile: the status says that by now."""
        if supervisor is None or supervisor.long is None or not supervisor.long.was_aside:
            return False
        known = self._runtime.policies.get(run.policy.key)
        return known is None or known.edition != run.policy.edition

    def stop(self) -> None:
        """Begin no further action, and write no failure into a status: it may be one because of the end."""
        self._stopping = True

    def _awaits_older(self, policy: StoredPolicy) -> bool:
        """Whether an older policy may only not have claimed the table yet: at a start, and right after both were made.

        One whose status says PolicyConflict waits until then: otherwise a restart would make it Ready for a moment, two
        writes and two Events of something that never was. Others wait for `PATIENCE_WITH_OLDER`, and then begin: what
        they create is needed, and before a drop older ones are waited for longer.
        """
        if self._ownership.unknown(policy, self._runtime.policies) is None:
            self._waiting.pop(policy.key, None)
            return False
        if _lost(policy):
            return True
        since = self._waiting.setdefault(policy.key, time.monotonic())
        return time.monotonic() - since < PATIENCE_WITH_OLDER

    @contextmanager
    def _connection(
        self, policy: StoredPolicy, spec: PartitionPolicySpec, supervisor: PolicySupervisor
    ) -> Iterator[ConnectionInfo]:
        """One of the connections that may be opened to the database at once, and how to open it.

        Raises `NoFreeSlot`, and errors of `partwarden.errors` where the spec or the Secret prevents it.
        """
        load_zone(spec.timezone)
        info = connection_info(self._runtime, policy, spec)
        supervisor.connection = digest(info)
        # By namespace: no other can use up the connections to a database by naming its host.
        database = (policy.key[0], info.database_key)
        if not self._slots.acquire(database, policy.key):
            raise NoFreeSlot
        supervisor.long = LongRun(self._long, database, policy.key)
        try:
            yield info
        finally:
            supervisor.long.close()
            for following in self._slots.release(database, policy.key):
                self._runtime.policy_queue.enqueue(following)

    def _request(self, run: Run, spec: PartitionPolicySpec, connection: ConnectionInfo) -> WorkRequest:
        settings, policy = self._runtime.settings, run.policy
        return WorkRequest(
            spec=spec,
            connection=connection,
            held=policy.held,
            archives=self._archives.known(policy, spec),
            patience=settings.lock_patience,
            connect_timeout=settings.connect_timeout,
            policy=policy.key,
            measured=self._measure(policy, spec),
            rests=self._rests.of(policy),
            beside=run.beside.step.action if run.beside else "",
        )

    def _supervisor(self, policy: StoredPolicy, spec: PartitionPolicySpec) -> PolicySupervisor:
        def ending() -> bool:
            return self._stopping or self._lost()

        parts = self._runtime, self._handler, self._ownership, self._proofs, self._archives
        return PolicySupervisor(policy, spec, *parts, ending)

    def _request_archives(self, run: Run, spec: PartitionPolicySpec, connection: ConnectionInfo) -> None:
        """What the work has found out about archives, and what its plan wants of them."""
        report = run.report
        for archive in report.doubted:
            self._archives.doubt(run.policy, archive)
        if report.missing:
            self._archives.record_missing(run.policy, spec, report.server, report.missing, self._runtime.clock())
        if report.stopped:
            log.info("stopped: %s; the table is planned again", report.stopped, extra=run.about("Stopped"))
        elif report.requests is not None:
            self._archives.ask(run.policy, spec, report.server, report.requests, connection.database_key)

    def _write_status(self, run: Run, outdated: bool) -> workqueue.Result | None:
        """Write the status if it differs and is not ``outdated``, and record Events of it and of what was done.

        Returns None when the policy was deleted, or is served by another operator now. A write that fails makes the
        result Transient.
        """
        for action in run.done:
            about = run.about(action.reason) | {"partition": action.name, "seconds": round(action.seconds, 3)}
            log.info("%s %s %s in %.2f s", action.past, action.noun, action.name, action.seconds, extra=about)
        result = workqueue.result(run.update.errors, run.update.reconciling)
        exists, notices, well = True, list[events.Notice](), result is workqueue.Result.CONVERGED
        try:
            if not outdated:
                exists, notices = self._write(run)
                well = well or (run.update.ready.status == ConditionStatus.TRUE and run.update.outage is None)
        except ClusterUnavailable as error:
            log.warning("%s", error, extra=run.about(error.reason))
            result = workqueue.Result.TRANSIENT
        # What was done is done, and the next reconcile does not know of it.
        for notice in [*events.done(run.done), *notices]:
            self._record(run, notice)
        if not exists:
            return None
        self._observe(run.policy.key, result, time.monotonic() - run.began, well)
        return result

    def _write(self, run: Run) -> tuple[bool, list[events.Notice]]:
        """Whether the policy exists and is served here, and the Events of what its status says now."""
        policy, cluster = run.policy, self._runtime.cluster
        known = self._runtime.policies.get(policy.key)
        if known is None or known.uid != policy.uid:
            return False, []
        if self._stopping and run.failed:
            return True, []
        previous = known.status
        now, long = self._runtime.clock(), details.long_action(*run.beside) if run.beside else None
        run.update = outage.endure(run.update, run.spec, previous, policy.generation, now)
        if run.update.until is not None:
            run.report.boundary = (run.update.until - now).total_seconds()
        status = conditions.make_status(run.update, previous, policy.generation, now, policy.table, long)
        if status == previous:
            return True, []
        written = cluster.write_status(policy, status)
        if written is None:
            self._handler.gone(policy)
            return False, []
        # No selector applies to the answer of a write, and the watch may show a change of labels as older than it.
        relabelled = (written["metadata"].get("labels") or {}) != known.labels
        if relabelled and self._runtime.settings.selector and cluster.policy(policy.key) is None:
            self._handler.deleted(written)
            return False, []
        # All of it: an edit right before the write is in no later version that the watch might show.
        self._handler.seen(written)
        notices = events.changed(previous, status)
        _log_status(run, notices)
        return True, notices

    def _record(self, run: Run, notice: events.Notice) -> None:
        try:
            self._runtime.cluster.record(run.policy, notice, self._runtime.clock())
        except ClusterUnavailable as error:
            log.warning("%s", error, extra=run.about(error.reason))

    def _requeue(self, run: Run, result: workqueue.Result) -> float:
        ends = [each for each in (run.report.boundary, self._rests.remaining(run.policy.key)) if each is not None]
        after = self._backoff.after(run.policy.key, run.policy.edition, result, run.resync, min(ends, default=None))
        if run.report.more:
            self._backoff.forget(run.policy.key)
            after = 0.0
        reason, message = run.update.ready.reason, run.update.ready.message
        if run.policy.suspended and run.update.errors:
            reason, message = run.update.errors[0].reason, str(run.update.errors[0])
        level, word = (
            (logging.WARNING, "attempt") if run.failed and not run.report.more else (logging.DEBUG, "reconcile")
        )
        log.log(level, "%s: %s; next %s in %.0f s", reason, message, word, after, extra=run.about(reason))
        return after


def _lost(policy: StoredPolicy) -> bool:
    """Whether its status says that an older policy owns its table."""
    if PolicyConflict.__name__.encode() not in policy.status_json:
        return False  # of a thousand policies nearly all: without reading the JSON
    ready = (each for each in policy.status.get("conditions", []) if each.get("type") == "Ready")
    return any(each.get("reason") == PolicyConflict.__name__ for each in ready)


def _log_status(run: Run, notices: Sequence[events.Notice]) -> None:
    """What a new status says, but for why Ready turned False: `PolicyReconciler._requeue` logs that."""
    ready = run.update.ready
    if not run.failed:
        log.info("%s: %s", ready.reason, ready.message, extra=run.about(ready.reason))
    for notice in notices:
        if notice.type is events.EventType.WARNING and notice.reason != ready.reason:
            log.warning("%s: %s", notice.reason, notice.message, extra=run.about(notice.reason))
