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

from ..api.policy import Mode, PartitionPolicySpec
from ..api.types import ObjectKey
from ..api.validation import parse_spec
from ..errors import ClusterUnavailable, ContentsChanged, PartwardenError, PolicyConflict
from ..kube.cache import StoredPolicy
from ..planner.actions import DropDetached, Outcome
from ..planner.calendar import load_zone
from ..planner.inventory import Inventory
from ..planner.plan import Plan
from ..postgres.connection import Session
from ..postgres.conninfo import resolve
from ..postgres.engine import maintain, observe_and_plan
from ..postgres.pool import Connections, Slots
from ..status import conditions, events
from . import workqueue
from .archive_requests import ArchiveRequests
from .event_handlers import PolicyEventHandler
from .ownership import TableIdentity, TableOwnership
from .policy_recheck import PolicyRecheck
from .runtime import Runtime

log = logging.getLogger(__name__)

WAIT_FOR_SLOT = 5.0
"""Seconds until a policy asks again for a connection. A slot that is released enqueues the next key earlier; this is
for where that key needed no connection any more, and so released none."""
WAIT_FOR_OLDER = 0.5
"""Seconds until a policy in conflict asks again whether the older ones were reconciled, at a start."""
RESYNC = 600.0
"""Seconds, where the spec is not valid."""


class NoFreeSlot(Exception):
    """The database has as many connections as the operator may open to it."""


@dataclass(slots=True)
class Run:
    """What one reconcile has come to so far. ``boundary``: seconds until the calendar changes the plan."""

    policy: StoredPolicy
    began: float = field(default_factory=time.monotonic)
    update: conditions.PolicyStatusUpdate = field(default_factory=conditions.suspended)
    outcomes: list[Outcome] = field(default_factory=list)
    """What was done. It is kept although an error may end the reconcile."""
    connected: bool = False
    boundary: float | None = None
    resync: float = RESYNC
    more_drops: bool = False
    """A table was dropped, and the plan has another drop, which does not wait for the resync."""

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
        observe: Callable[[ObjectKey, workqueue.Result, float], None],
        lost: Callable[[], bool] = lambda: False,
    ) -> None:
        """``observe`` gets the result of each reconcile and its seconds. ``lost``: whether the Lease is, so that no
        further action may begin."""
        self._runtime, self._handler, self._ownership, self._archives = runtime, handler, ownership, archives
        self._observe, self._lost, self._stopping = observe, lost, False
        self._slots, self._backoff = Slots(), workqueue.Backoff()
        self._connections = Connections(runtime.settings.connect_timeout)

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
            return None
        if self._stays_in_conflict(policy):
            return WAIT_FOR_OLDER
        run = Run(policy)
        try:
            if policy.suspended:
                self._ownership.release(key)
            else:
                spec = parse_spec(policy.spec)
                run.resync = spec.resync_period.total_seconds()
                with self._connection(policy, spec) as connection:
                    run.connected = True
                    archives = self._archives.known(policy, spec)
                    inventory, plan = observe_and_plan(connection, spec, held=policy.held, archives=archives)
                    self._claim(policy, inventory, plan)
                    recheck, stopped = self._recheck(policy, spec), ""
                    if plan.actions and spec.mode is Mode.APPLY and not plan.blocked:
                        report = maintain(
                            connection,
                            spec,
                            patience=self._runtime.settings.lock_patience,
                            held=policy.held,
                            archives=archives,
                            observed=(inventory, plan),
                            outcomes=run.outcomes,
                            recheck=recheck,
                        )
                        inventory, plan, stopped = report.inventory, report.after, report.stopped
                    self._request_archives(run, spec, inventory, plan, stopped or recheck.why_stopped())
                run.update = conditions.reconciled(spec, inventory, plan, run.outcomes)
                run.boundary = (plan.next_boundary - inventory.now).total_seconds()
                run.more_drops = _has_more_drops(run.outcomes, plan)
        except NoFreeSlot:
            return WAIT_FOR_SLOT
        except PartwardenError as error:
            run.update = conditions.failed(error, run.connected)
        except Exception as error:
            log.exception("%s", type(error).__name__, extra=run.about("InternalError"))
            run.update = conditions.broken(error)
        result = self._write_status(run)
        self._ownership.note(key)
        return None if result is None else self._requeue(run, result)

    def stop(self) -> None:
        """Begin no further action, and write no failure into a status: it may be one because of the end."""
        self._stopping = True

    def cancel(self) -> None:
        """Ask every database to end the statement that runs there, without waiting for its answer."""
        self._connections.cancel()

    def _stays_in_conflict(self, policy: StoredPolicy) -> bool:
        """Whether its status says PolicyConflict, and an older policy may only not have claimed the table yet.

        Otherwise a restart would make it Ready for a moment: two writes and two Events of something that never was.
        """
        ready = (each for each in policy.status.get("conditions", []) if each.get("type") == "Ready")
        conflict = any(each.get("reason") == PolicyConflict.__name__ for each in ready)
        return conflict and self._ownership.unknown(policy, self._runtime.policies.all()) is not None

    @contextmanager
    def _connection(self, policy: StoredPolicy, spec: PartitionPolicySpec) -> Iterator[Session]:
        """Raises `NoFreeSlot`, and errors of `partwarden.errors` where the spec, the Secret or the server prevents it.

        The Secret is read anew each time: a password that was changed needs no restart.
        """
        load_zone(spec.timezone)
        reference = spec.database.secret_ref
        secret = self._runtime.cluster.secret(policy.key[0], reference.name) if reference else None
        folder = self._runtime.settings.ca_folder
        info = resolve(spec.database, secret, reference.name if reference else None, ca_folder=folder)
        if not self._slots.acquire(info.database_key, policy.key):
            raise NoFreeSlot
        try:
            with self._connections.lend(info) as connection:
                yield connection
        finally:
            if following := self._slots.release(info.database_key):
                self._runtime.policy_queue.enqueue(following)

    def _claim(self, policy: StoredPolicy, inventory: Inventory, plan: Plan) -> None:
        """Raises `PolicyConflict` where an older policy has the table."""
        table = TableIdentity(inventory.server.identity, plan.parent.oid)
        if owner := self._ownership.claim(policy.key, table, policy.age):
            raise PolicyConflict(
                f"table {plan.parent} belongs to the older policy {'/'.join(owner)}: delete one of the two, or "
                "let this one name another table"
            )

    def _recheck(self, policy: StoredPolicy, spec: PartitionPolicySpec) -> PolicyRecheck:
        def ending() -> bool:
            return self._stopping or self._lost()

        return PolicyRecheck(policy, spec, self._runtime, self._handler, self._ownership, self._archives, ending)

    def _request_archives(
        self, run: Run, spec: PartitionPolicySpec, inventory: Inventory, plan: Plan, stopped: str
    ) -> None:
        for outcome in run.outcomes:
            if isinstance(outcome.action, DropDetached) and isinstance(outcome.error, ContentsChanged):
                self._archives.doubt(run.policy, outcome.action.archive)
        if stopped:
            log.info("stopped: %s; the table is planned again", stopped, extra=run.about("Stopped"))
        elif spec.mode is Mode.APPLY and not plan.blocked:
            self._archives.ask(run.policy, spec, inventory.server.identity, plan.retired.gate.requests)

    def _write_status(self, run: Run) -> workqueue.Result | None:
        """Write the status if it differs, and record Events of it and of what was done.

        Returns None when the policy was deleted, or is served by another operator now. A write that fails makes the
        result Transient.
        """
        for outcome in run.outcomes:
            if outcome.error is None:
                _log_done(run, outcome)
        result = workqueue.result(run.update.errors, run.update.reconciling)
        exists = True
        try:
            exists, notices = self._write(run)
            for notice in [*events.done(run.outcomes), *notices]:
                self._record(run, notice)
        except ClusterUnavailable as error:
            log.warning("%s", error, extra=run.about(error.reason))
            result = workqueue.Result.TRANSIENT
        if not exists:
            return None
        self._observe(run.policy.key, result, time.monotonic() - run.began)
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
        status = conditions.make_status(run.update, previous, policy.generation, self._runtime.clock(), policy.table)
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

    def _requeue(self, run: Run, result: workqueue.Result) -> float | None:
        if run.policy.suspended and result is workqueue.Result.CONVERGED:
            return None
        after = self._backoff.after(run.policy.key, run.policy.edition, result, run.resync, run.boundary)
        if run.more_drops:
            self._backoff.forget(run.policy.key)
            after = 0.0
        ready = run.update.ready
        level, word = (
            (logging.WARNING, "attempt") if run.failed and not run.more_drops else (logging.DEBUG, "reconcile")
        )
        log.log(
            level, "%s: %s; next %s in %.0f s", ready.reason, ready.message, word, after, extra=run.about(ready.reason)
        )
        return after


def _has_more_drops(outcomes: Sequence[Outcome], plan: Plan) -> bool:
    dropped = any(isinstance(outcome.action, DropDetached) and outcome.error is None for outcome in outcomes)
    return dropped and any(isinstance(action, DropDetached) for action in plan.actions)


def _log_done(run: Run, outcome: Outcome) -> None:
    action = outcome.action
    about = run.about(action.done) | {"partition": str(action), "seconds": round(outcome.seconds, 3)}
    log.info("%s %s %s in %.2f s", action.past, action.noun, action, outcome.seconds, extra=about)


def _log_status(run: Run, notices: Sequence[events.Notice]) -> None:
    """What a new status says, but for why Ready turned False: `PolicyReconciler._requeue` logs that."""
    ready = run.update.ready
    if not run.failed:
        log.info("%s: %s", ready.reason, ready.message, extra=run.about(ready.reason))
    for notice in notices:
        if notice.type is events.EventType.WARNING and notice.reason != ready.reason:
            log.warning("%s: %s", notice.reason, notice.message, extra=run.about(notice.reason))
