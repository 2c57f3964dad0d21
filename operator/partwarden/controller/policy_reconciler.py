"""One policy: look, decide, act, say so.

Nothing is remembered between two looks that could not be seen again, but for when to look next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ..api.policy import Mode, PartitionPolicySpec
from ..api.types import ObjectKey
from ..api.validation import parse_spec
from ..errors import ClusterUnavailable, ContentsChanged, PartwardenError, PolicyConflict
from ..kube.cache import Store, StoredPolicy
from ..kube.client import Cluster
from ..planner.actions import DropDetached, Outcome
from ..planner.calendar import load_zone
from ..postgres.connection import Session
from ..postgres.conninfo import ConnectionInfo, resolve
from ..postgres.engine import maintain, observe_and_plan
from ..postgres.pool import Connections, Slots
from ..status import events
from ..status.conditions import PolicyStatusUpdate, broken, failed, make_status, reconciled, suspended
from . import workqueue
from .archive_requests import ArchiveRequests
from .event_handlers import PolicyEventHandler
from .ownership import TableIdentity, TableOwnership
from .policy_recheck import PolicyRecheck
from .settings import Settings
from .workqueue import WorkQueue

log = logging.getLogger(__name__)

WAIT_FOR_ELDER = 0.2
PATIENCE_WITH_ELDERS = 2.0
"""Seconds between two questions whether they were looked at, and how long they are waited for in all."""
WAIT_FOR_SLOT = 5.0
"""Seconds. Whoever gives a slot back wakes the next; this is for one that was woken and then had no need of it."""
RESYNC = 600.0
"""Seconds, where the spec is too wrong to say."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a policy came to. ``boundary``: in how many seconds the calendar changes the plan; ``database``:
    what it was about, where it could be looked at."""

    verdict: PolicyStatusUpdate
    outcomes: tuple[Outcome, ...] = ()
    boundary: float | None = None
    resync: float = RESYNC
    database: Hashable = None
    more: bool = False
    """Whether a table was dropped, and the plan has another drop: it is not waited for."""

    @property
    def failed(self) -> bool:
        """Whether something went wrong, foreseen or not."""
        return bool(self.verdict.errors) or self.verdict.reconciling


class PolicyReconciler:
    """Works on policies, each with one thread at a time, as the work queue sees to."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        claims: TableOwnership,
        queue: WorkQueue,
        settings: Settings,
        clock: Callable[[], datetime],
        archives: ArchiveRequests,
        looked: Callable[[ObjectKey, workqueue.Result, float], None],
        lost: Callable[[], bool] = lambda: False,
    ) -> None:
        """``looked`` is told of each look: what came of it, and the seconds that it took. ``lost``: whether the Lease
        is, so that nothing more may be begun."""
        self._archives, self._looked = archives, looked
        self._cluster, self._store, self._claims, self._queue = cluster, store, claims, queue
        self._settings, self._clock = settings, clock
        self._intake, self._slots = PolicyEventHandler(store, claims, queue, settings.selector, archives.moved), Slots()
        self._pace = workqueue.Backoff()
        self._looked_at: dict[ObjectKey, object] = {}
        self._waiting_since: dict[ObjectKey, float] = {}
        self._databases: dict[ObjectKey, Hashable] = {}
        self._connections = Connections(settings.connect_timeout)
        self._stopping, self._lost = False, lost

    def reconcile(self, key: ObjectKey) -> float | None:
        """Look once, act, and write what came of it. Returns the seconds until the next look, None for never."""
        policy = self._store.get(key)
        if policy is None:
            # A look that ran when it went may have claimed the table once more.
            self._claims.release(key)
            self._looked_at.pop(key, None)
            self._waiting_since.pop(key, None)
            self._databases.pop(key, None)
            self._pace.forget(key)
            return None
        if self._must_wait_for_elder(policy):
            return WAIT_FOR_ELDER
        began = time.monotonic()
        look = self._look(policy)
        if look is None:
            return WAIT_FOR_SLOT
        self._looked_at[key] = policy.edition
        self._waiting_since.pop(key, None)
        result = workqueue.result(look.verdict.errors, look.verdict.reconciling)
        try:
            if not self._say(policy, look):
                return None
        except ClusterUnavailable as error:
            log.warning("%s", error, extra=_about(policy, error.reason))
            result = workqueue.Result.TRANSIENT
        self._looked(key, result, time.monotonic() - began)
        if policy.suspended and result is workqueue.Result.CONVERGED:
            return None
        after = self._pace.after(key, policy.edition, result, look.resync, look.boundary, together=look.database)
        if look.more:
            self._pace.forget(key)
            after = 0.0
        self._log(policy, look, after)
        return after

    def stop(self) -> None:
        """From now on, what fails is not told: it may fail because it was stopped."""
        self._stopping = True

    def cancel(self) -> None:
        """Ask every database to end the statement that runs there, without waiting for its answer."""
        self._connections.cancel()

    def _look(self, policy: StoredPolicy) -> Look | None:
        """None when the database has no slot free just now."""
        if policy.suspended:
            self._claims.release(policy.key)
            return Look(suspended())
        resync, connected = RESYNC, False
        outcomes: list[Outcome] = []
        try:
            spec = parse_spec(policy.spec)
            resync = spec.resync_period.total_seconds()
            load_zone(spec.timezone)
            # The Secret is read anew at every look, but not in vain where the database has no slot free.
            if self._slots.taken(self._databases.get(policy.key), policy.key):
                return None
            info = self._connection(policy, spec)
            self._databases[policy.key] = info.database_key
            if not self._slots.acquire(info.database_key, policy.key):
                return None
            try:
                with self._connections.lend(info) as connection:
                    connected = True
                    look = self._work(policy, spec, connection, outcomes)
                    return replace(look, database=info.database_key)
            finally:
                if following := self._slots.release(info.database_key):
                    self._queue.enqueue(following)
        except PartwardenError as error:
            return Look(failed(error, connected), tuple(outcomes), resync=resync)
        except Exception as error:
            log.exception("%s", type(error).__name__, extra=_about(policy, "InternalError"))
            return Look(broken(error), tuple(outcomes), resync=resync)

    def _connection(self, policy: StoredPolicy, spec: PartitionPolicySpec) -> ConnectionInfo:
        reference = spec.database.secret_ref
        secret = self._cluster.secret(policy.key[0], reference.name) if reference else None
        return resolve(spec.database, secret, reference.name if reference else None)

    def _work(
        self, policy: StoredPolicy, spec: PartitionPolicySpec, connection: Session, outcomes: list[Outcome]
    ) -> Look:
        """What is done is added to ``outcomes``, so that it is told although an error may end the work."""
        known = self._archives.known(policy, spec)
        inventory, plan = observe_and_plan(connection, spec, held=policy.held, archives=known)
        table = TableIdentity(inventory.server.identity, plan.parent.oid)
        if winner := self._claims.claim(policy.key, table, policy.age):
            raise PolicyConflict(
                f"table {plan.parent} belongs to the older policy {'/'.join(winner)}: delete one of the two, or "
                "let this one name another table"
            )
        recheck, stopped = self._recheck(policy, spec), ""
        if plan.actions and spec.mode is Mode.APPLY and not plan.blocked:
            patience = self._settings.lock_patience
            report = maintain(
                connection,
                spec,
                patience=patience,
                held=policy.held,
                archives=known,
                observed=(inventory, plan),
                outcomes=outcomes,
                recheck=recheck,
            )
            inventory, plan, stopped = report.inventory, report.after, report.stopped
        for each in outcomes:
            if isinstance(each.action, DropDetached) and isinstance(each.error, ContentsChanged):
                self._archives.doubt(policy, each.action.archive)
        if stopped := stopped or recheck.why_stopped():
            log.info("not done, and planned anew: %s", stopped, extra=_about(policy, "Stopped"))
        elif spec.mode is Mode.APPLY and not plan.blocked:
            self._archives.ask(policy, spec, inventory.server.identity, plan.retired.gate.requests)
        return Look(
            reconciled(spec, inventory, plan, outcomes),
            tuple(outcomes),
            boundary=(plan.next_boundary - inventory.now).total_seconds(),
            resync=spec.resync_period.total_seconds(),
            more=_dropped(outcomes) and any(isinstance(each, DropDetached) for each in plan.actions),
        )

    def _recheck(self, policy: StoredPolicy, spec: PartitionPolicySpec) -> PolicyRecheck:
        def ending() -> bool:
            return self._stopping or self._lost()

        return PolicyRecheck(policy, spec, self._cluster, self._store, self._intake, self._archives, ending)

    def _say(self, policy: StoredPolicy, look: Look) -> bool:
        """Write the status if it differs, then record Events. Returns False when the policy is gone, or another
        operator's by now: what was done is told all the same."""
        now, notices = self._clock(), events.done(look.outcomes)
        for outcome in look.outcomes:
            if outcome.error is None:
                action = outcome.action
                about = _about(policy, action.done) | {"partition": str(action), "seconds": round(outcome.seconds, 3)}
                log.info("%s %s %s in %.2f s", action.past, action.noun, action, outcome.seconds, extra=about)
        held = self._store.get(policy.key)
        gone = held is None or held.uid != policy.uid
        if held is not None and not gone and not (self._stopping and look.failed):
            previous = held.status
            status = make_status(look.verdict, previous, policy.generation, now, policy.table)
            if status != previous:
                written = self._cluster.write_status(policy, status)
                if written is None:
                    gone = True
                    self._intake.gone(policy)
                else:
                    # All of it: what was edited right before the write is in no later version that a watch might show.
                    self._intake.seen(written)
                    news = events.changed(previous, status)
                    notices += news
                    _log(policy, look, news)
        for notice in notices:
            try:
                self._cluster.record(policy, notice, now)
            except ClusterUnavailable as error:
                log.warning("%s", error, extra=_about(policy, error.reason))
        return not gone

    def _must_wait_for_elder(self, policy: StoredPolicy) -> bool:
        """Whether an older policy that seems to mean the same table is yet to be looked at for the first time.

        After a start every claim is unknown: the younger of two should not begin to work and stop again. It is not
        waited for long, since the elder's database may not answer, and may be another one.
        """
        if self._looked_at.get(policy.key) == policy.edition:
            return False
        since = self._waiting_since.setdefault(policy.key, time.monotonic())
        return time.monotonic() < since + PATIENCE_WITH_ELDERS and any(
            each.age < policy.age
            and each.table == policy.table
            and not each.suspended
            and self._looked_at.get(each.key) != each.edition
            for each in self._store.all()
        )

    def _log(self, policy: StoredPolicy, look: Look, after: float) -> None:
        ready, about = look.verdict.ready, _about(policy, look.verdict.ready.reason)
        if look.failed and not look.more:
            log.warning("%s: %s; next try in %.0f s", ready.reason, ready.message, after, extra=about)
        else:
            log.debug("%s: %s; next look in %.0f s", ready.reason, ready.message, after, extra=about)


def _dropped(outcomes: Sequence[Outcome]) -> bool:
    return any(isinstance(each.action, DropDetached) and each.error is None for each in outcomes)


def _about(policy: StoredPolicy, reason: str) -> dict[str, Any]:
    return {"policy": str(policy), "reason": reason}


def _log(policy: StoredPolicy, look: Look, news: Sequence[events.Notice]) -> None:
    """What a new status says; why Ready turned False is in the log by then."""
    ready = look.verdict.ready
    if not look.failed:
        log.info("%s: %s", ready.reason, ready.message, extra=_about(policy, ready.reason))
    for each in news:
        if each.type is events.EventType.WARNING and each.reason != ready.reason:
            log.warning("%s: %s", each.reason, each.message, extra=_about(policy, each.reason))
