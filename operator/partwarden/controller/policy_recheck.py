"""Ask the newest state of a policy whether what was planned for it is still to be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..api.policy import PartitionPolicySpec
from ..kube.cache import StoredPolicy, is_gone, parse_policy
from ..planner.drop_preconditions import DropCase, Recheck, Withdrawn
from ..postgres.transaction import READ_ALL_LIMIT
from .archive_requests import ArchiveRequests
from .event_handlers import PolicyEventHandler
from .ownership import TableOwnership
from .runtime import Runtime
from .workqueue import DEADLINE


class PolicyRecheck(Recheck):
    """Of one reconcile. What the watch has shown costs nothing to ask; right before a drop the API server itself is
    asked, for a watch may lag behind it, or have fallen silent."""

    single_drop = True

    def __init__(
        self,
        policy: StoredPolicy,
        spec: PartitionPolicySpec,
        runtime: Runtime,
        handler: PolicyEventHandler,
        ownership: TableOwnership,
        archives: ArchiveRequests,
        ending: Callable[[], bool],
    ) -> None:
        """``policy`` and ``spec`` are those that were planned for. ``ending``: whether the operator is to end."""
        self._policy, self._spec, self._runtime = policy, spec, runtime
        self._handler, self._ownership, self._archives, self._ending = handler, ownership, archives, ending

    def why_stopped(self) -> str:
        """Any edit stops the reconcile, and so does an older policy of the same table: it is planned anew at once."""
        # It is asked before each action, of which the longest reads every row of a table.
        self._runtime.policy_queue.deadline(self._policy.key, READ_ALL_LIMIT + DEADLINE)
        if self._ending():
            return "the operator ends, or lost the Lease"
        if older := self._ownership.older(self._policy.key):
            return f"the older policy {'/'.join(older)} has claimed the table"
        now = self._runtime.policies.get(self._policy.key)
        if changed := _changed(self._policy, now):
            return changed
        if now is not None and now.edition != self._policy.edition:
            return "an annotation of its policy was edited"
        return ""

    def renew(self, case: DropCase) -> DropCase:
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
            raise Withdrawn(f"the older policy {'/'.join(older)} has claimed the table")
        # Safe against a start at which a younger policy comes first: a drop waits until each older one was reconciled.
        if unknown := self._ownership.unknown(self._policy, self._runtime.policies):
            raise Withdrawn(f"the older policy {'/'.join(unknown)} has not been reconciled since the operator began")
        assert now is not None
        return replace(case, held=now.held, archives=self._archives.known(now, self._spec).on(case.server))


def _changed(was: StoredPolicy, now: StoredPolicy | None) -> str:
    """How the policy differs from the one that was planned for, its annotations aside; empty where it does not."""
    if now is None or now.uid != was.uid:
        return "its policy was deleted, or is served by another operator"
    if now.generation != was.generation:
        return "spec.suspend of its policy is set" if now.suspended else "its policy was edited"
    return ""
