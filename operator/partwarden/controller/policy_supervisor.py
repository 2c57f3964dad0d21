"""What the work on a database asks the operator: the newest state of its policy, and of the claim on its table."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..api.archive import AUTOMATIC
from ..api.policy import PartitionPolicySpec
from ..api.retention import Approval
from ..api.types import ObjectKey
from ..errors import PolicyConflict
from ..kube.cache import StoredPolicy, is_gone, parse_policy
from ..planner.drop_preconditions import Archives
from ..planner.recheck import Step, Withdrawn
from ..status.events import CompletedAction
from .archive_requests import ArchiveRequests
from .database_work import CONNECTING, Supervisor
from .event_handlers import PolicyEventHandler
from .long_actions import LongRun
from .ownership import TableIdentity, TableOwnership
from .runtime import Runtime
from .same_server import Challenge, ServerProofs
from .workqueue import DEADLINE

log = logging.getLogger(__name__)


class PolicySupervisor(Supervisor):
    """Of one reconcile. What the watch has shown costs nothing to ask; right before a drop the API server itself is
    asked, for a watch may lag behind it, or have fallen silent."""

    def __init__(
        self,
        policy: StoredPolicy,
        spec: PartitionPolicySpec,
        runtime: Runtime,
        handler: PolicyEventHandler,
        ownership: TableOwnership,
        proofs: ServerProofs,
        archives: ArchiveRequests,
        ending: Callable[[], bool],
    ) -> None:
        """``policy`` and ``spec`` are those that were planned for. ``ending``: whether the operator is to end."""
        self._policy, self._spec, self._runtime = policy, spec, runtime
        self._handler, self._ownership, self._archives, self._ending = handler, ownership, archives, ending
        self._proofs, self._challenge, self._approved = proofs, Challenge(), frozenset[str]()
        self.connection = ""
        """`same_server.digest` of the connection parameters."""
        self.done: list[CompletedAction] = []
        """What has succeeded so far. It is kept although an error, or the end of the process, may end the reconcile."""
        self.connected, self._doing = False, ""
        self.long: LongRun | None = None
        """Of this reconcile, while it works on the database."""

    def begins(self, what: str, seconds: float | None, step: Step | None = None) -> None:
        self.connected = self.connected or what != CONNECTING
        if self.long is not None:
            self.long.begins(step)
        if seconds is not None:
            if what != self._doing:
                # Known from the log while it lasts: a database may hold it up for all of that time.
                about = {"policy": str(self._policy), "reason": "StepBegins"}
                log.debug("begins: %s, for %.0f s at most", what, seconds, extra=about)
            self._doing = what
            # After that the process is ended, and what comes then has as long as what came before.
            aside = self.long is not None and self.long.aside
            self._runtime.policy_queue.deadline(self._policy.key, seconds + DEADLINE, aside=aside)

    def claim(self, server: str, oid: int, table: str) -> None:
        identity = TableIdentity(server, oid)
        if owner := self._ownership.claim(self._policy.key, identity, self._policy.age, self.connection):
            raise PolicyConflict(
                f"table {table} belongs to {self._named(owner)}: delete one of the two, or let this one name another "
                "table"
            )

    def disclaim(self) -> None:
        self._ownership.release(self._policy.key)

    def challenge(self) -> tuple[int, ...]:
        self._challenge = self._proofs.challenge(self._policy.key)
        return self._challenge.keys

    def compare(self) -> None:
        challenge, self._challenge = self._challenge, Challenge()
        self._proofs.compare(challenge)

    def did(self, action: CompletedAction) -> None:
        self.done.append(action)
        if (table := action.dropped) is not None:
            # At once: the next reconcile could only see that the table is gone.
            approval = self._approval(table.names)
            self._archives.record_drop(self._policy, table.oid, table.archive, self._runtime.clock(), approval)

    def must_wait(self, step: Step) -> bool:
        if waits := self.long is not None and not self.long.may_begin():
            about = {"policy": str(self._policy), "reason": "WaitsForLongAction", "partition": step.object}
            log.info("%s waits for others that take long", step.object, extra=about)
        return waits

    def finishes(self) -> None:
        if self.long is not None:
            self.long.take_back()

    def why_stopped(self) -> str:
        """Any edit stops the reconcile, and so does an older policy of the same table: it is planned anew at once."""
        if self._ending():
            return "the operator ends, or lost the Lease"
        if older := self._ownership.older(self._policy.key):
            return f"{self._named(older)} has claimed the table"
        now = self._runtime.policies.get(self._policy.key)
        if changed := _changed(self._policy, now):
            return changed
        if now is not None and now.edition != self._policy.edition:
            return "an annotation of its policy was edited"
        return ""

    def latest(self, server: str) -> tuple[frozenset[str], Archives]:
        """Annotations that do not concern the table stop nothing here: hours of comparing are not given away.

        Raises `Withdrawn`, and `ClusterUnavailable` where the API server does not answer.
        """
        body = self._runtime.cluster.policy(self._policy.key)
        if body is not None:
            self._handler.seen(body)
        now = parse_policy(body) if body is not None and not is_gone(body) else None
        if changed := _changed(self._policy, now):
            raise Withdrawn(changed)
        if older := self._ownership.older(self._policy.key):
            raise Withdrawn(f"{self._named(older)} has claimed the table")
        # Safe against a start at which a younger policy comes first: a drop waits until each older one was reconciled,
        # for those of other namespaces some minutes. Those that claim the table by now were compared: see `renew`.
        if unknown := self._ownership.unknown(self._policy, self._runtime.policies):
            raise Withdrawn(f"{self._named(unknown)} has not been reconciled since the operator began")
        assert now is not None
        self._approved = now.approved
        return now.held, self._archives.known(now, self._spec).on(server)

    def _approval(self, names: frozenset[str]) -> str:
        """What approved the drop of the table that is called so, right before it: an entry of the annotation, of
        several the one that says the most, or the policy."""
        manual = self._spec.retention is not None and self._spec.retention.approval is Approval.MANUAL
        return max(names & self._approved, key=len, default=AUTOMATIC) if manual else AUTOMATIC

    def _named(self, other: ObjectKey) -> str:
        """Without its name where it is of another namespace, whose objects the user may not see."""
        own = other[0] == self._policy.key[0]
        return f"the older policy {'/'.join(other)}" if own else "an older policy of another namespace"


def _changed(was: StoredPolicy, now: StoredPolicy | None) -> str:
    """How the policy differs from the one that was planned for, its annotations aside; empty where it does not."""
    if now is None or now.uid != was.uid:
        return "its policy was deleted, or is served by another operator"
    if now.generation != was.generation:
        return "spec.suspend of its policy is set" if now.suspended else "its policy was edited"
    return ""
