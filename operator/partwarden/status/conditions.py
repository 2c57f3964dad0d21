"""What the conditions say: (plan, outcomes) or an error -> status. Pure; the clock is an argument.

The conditions follow kstatus, which reads observedGeneration, then Reconciling, then Stalled, then Ready: a user's
mistake is Stalled (failed), an outage is Reconciling (in progress), and Ready=False alone would mean in progress for
ever. https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .. import errors
from ..api.policy import Mode, TableSpec
from ..api.status import Condition, ConditionStatus, ConditionType, PartitionPolicyStatus
from ..errors import ContentsChanged, PartwardenError, UserError
from ..planner.actions import Outcome
from ..planner.archive_gate import ArchiveGate
from ..planner.calendar import iso
from ..planner.default_rows import emptiness
from ..planner.inventory import Inventory
from ..planner.maintenance import TOO_LARGE
from ..planner.plan import Plan
from .details import cut, details, span

# What the condition ArchivesHealthy says: False where somebody must look at an archive, or at a table of one.
#


def health(spec: TableSpec, gate: ArchiveGate, outcomes: Sequence[Outcome]) -> tuple[ConditionStatus, str, str]:
    """Status, reason and message. What is only waited for is told by the reason, while the status is True."""
    changed = [(each.error.reason, str(each.error)) for each in outcomes if isinstance(each.error, ContentsChanged)]
    if wrong := [*((each.reason, each.message) for each in gate.troubles), *changed]:
        more = f" (and {len(wrong) - 1} more: see status.findings)" if len(wrong) > 1 else ""
        return ConditionStatus.FALSE, wrong[0][0], f"{wrong[0][1]}{more}"
    if gate.notes:
        return ConditionStatus.TRUE, gate.notes[0].reason, "; ".join(each.message for each in gate.notes)
    if spec.retention is None or spec.retention.archive is None:
        return ConditionStatus.TRUE, "NoArchive", "spec.retention.archive is not set"
    return ConditionStatus.TRUE, "NothingWaits", "no expired partition waits for an archive, and no archive is wrong"


TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN

CONVERGED = "Converged"
PLAN_PENDING = "PlanPending"
PARTITIONS_MISSING = "PartitionsMissing"
IN_PROGRESS = "InProgress"
SUSPENDED = "Suspended"
INTERNAL_ERROR = "InternalError"

NOT_REACHED = (errors.DatabaseUnreachable, errors.AuthenticationFailed, errors.TLSMismatch, errors.DatabaseNotFound)
"""What a database says, or does not say, instead of letting us in."""


@dataclass(frozen=True, slots=True)
class ConditionState:
    """One condition without its times."""

    status: ConditionStatus
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class PolicyStatusUpdate:
    """What one look at a policy came to.

    ``table`` replaces what the status shows of the table; None keeps what was last seen. ``errors`` are those to try
    again for, the one that Ready names first; an error outside the tree is not among them.
    """

    ready: ConditionState
    reconciling: bool
    stalled: bool
    reachable: ConditionState | None = None
    """None keeps what the condition said last."""
    ahead: ConditionState | None = None
    default_empty: ConditionState | None = None
    thresholds: ConditionState | None = None
    archives: ConditionState | None = None
    table: PartitionPolicyStatus | None = None
    errors: tuple[PartwardenError, ...] = ()


def reconciled(spec: TableSpec, inventory: Inventory, plan: Plan, outcomes: Sequence[Outcome]) -> PolicyStatusUpdate:
    """After the database was read, and the plan, where there was one to execute, executed.

    ``inventory`` and ``plan`` are those of the last look, after ``outcomes``.
    """
    found = [each.error for each in plan.findings if each.error]
    blocking = found[:1] if plan.blocked else []
    failed = [each.error for each in outcomes if each.error]
    wrong = tuple(_unique([*blocking, *failed, *found]))
    ready, reconciling, stalled = _ready(spec, inventory, plan, wrong)
    server = inventory.server
    connected = f"PostgreSQL {server.version_text}, database {server.database!r}, as {server.user!r}"
    return PolicyStatusUpdate(
        ready=ready,
        reconciling=reconciling,
        stalled=stalled,
        reachable=ConditionState(TRUE, "Connected", connected),
        ahead=_ahead(plan, ready),
        default_empty=ConditionState(*emptiness(spec, inventory, plan.codec)),
        thresholds=_thresholds(spec, plan),
        archives=ConditionState(*health(spec, plan.retired.gate, outcomes)),
        table=details(inventory, plan, outcomes),
        errors=wrong,
    )


def failed(error: PartwardenError, connected: bool) -> PolicyStatusUpdate:
    """No plan could be made, or its execution broke off. ``connected``: the database had answered by then."""
    stalled = isinstance(error, UserError)
    message = str(error)
    return PolicyStatusUpdate(
        ready=ConditionState(FALSE, error.reason, message),
        reconciling=not stalled,
        stalled=stalled,
        reachable=_reachable(error, connected),
        ahead=ConditionState(UNKNOWN, error.reason, "the table could not be looked at"),
        default_empty=ConditionState(UNKNOWN, error.reason, "the table could not be looked at"),
        thresholds=ConditionState(UNKNOWN, error.reason, "the table could not be looked at"),
        archives=ConditionState(UNKNOWN, error.reason, "the table could not be looked at"),
        table=PartitionPolicyStatus() if stalled and connected else None,
        errors=(error,),
    )


def broken(error: Exception) -> PolicyStatusUpdate:
    """An error that nobody foresaw: ours to mend, tried again like an outage."""
    message = f"an error in Partwarden itself, {type(error).__name__}: see the operator's log, and report it"
    return PolicyStatusUpdate(ready=ConditionState(FALSE, INTERNAL_ERROR, message), reconciling=True, stalled=False)


def suspended() -> PolicyStatusUpdate:
    """spec.suspend is set: nothing was looked at, and what was last seen stays."""
    message = "spec.suspend is set: nothing is looked at or created until it is taken away"
    return PolicyStatusUpdate(
        ready=ConditionState(UNKNOWN, SUSPENDED, message),
        reconciling=False,
        stalled=False,
        reachable=ConditionState(UNKNOWN, SUSPENDED),
        ahead=ConditionState(UNKNOWN, SUSPENDED),
        default_empty=ConditionState(UNKNOWN, SUSPENDED),
        thresholds=ConditionState(UNKNOWN, SUSPENDED),
        archives=ConditionState(UNKNOWN, SUSPENDED),
    )


def make_status(
    verdict: PolicyStatusUpdate, previous: Mapping[str, Any], generation: int, now: datetime, table: str | None = None
) -> dict[str, Any]:
    """The status to be written, as JSON would have it. Equal to ``previous`` when there is nothing to write.

    ``now`` is aware and only marks conditions that changed. ``table`` names the table of the current spec: what
    ``previous`` shows of another one is not carried on.
    """
    earlier = {each.get("type"): each for each in previous.get("conditions") or [] if isinstance(each, Mapping)}
    says = {
        ConditionType.READY: verdict.ready,
        ConditionType.RECONCILING: _flag(verdict.reconciling, verdict.ready),
        ConditionType.STALLED: _flag(verdict.stalled, verdict.ready),
        ConditionType.DATABASE_REACHABLE: verdict.reachable,
        ConditionType.PARTITIONS_AHEAD: verdict.ahead,
        ConditionType.DEFAULT_PARTITION_EMPTY: verdict.default_empty,
        ConditionType.WITHIN_THRESHOLDS: verdict.thresholds,
        ConditionType.ARCHIVES_HEALTHY: verdict.archives,
    }
    conditions = [condition(kind, said, earlier.get(kind), generation, now) for kind, said in says.items()]
    status = {"observedGeneration": generation, "conditions": [each for each in conditions if each]}
    if verdict.table is not None:
        seen = verdict.table.model_dump(mode="json", by_alias=True, exclude_none=True)
    else:
        shown = (previous.get("summary") or {}).get("table")
        seen = dict(previous) if table is None or shown in (None, table) else {}
    return status | {part: seen[part] for part in ("summary", "partitions", "plan", "findings") if seen.get(part)}


def summary_line(inventory: Inventory, plan: Plan) -> str:
    """``10 partitions, covered until 2029-01-01T00:00:00Z``."""
    count = len(inventory.partitions)
    until = "for ever" if plan.covered_for_ever else f"until {iso(plan.covered_until)}"
    covered = f"covered {until}" if plan.covered_for_ever or plan.covered_until else "now is not covered"
    return f"{count} partition{'' if count == 1 else 's'}, {covered}"


def _unique(found: Iterable[PartwardenError]) -> Iterable[PartwardenError]:
    seen: set[tuple[str, str]] = set()
    for error in found:
        if (key := (error.reason, str(error))) not in seen:
            seen.add(key)
            yield error


def _ready(
    spec: TableSpec, inventory: Inventory, plan: Plan, wrong: tuple[PartwardenError, ...]
) -> tuple[ConditionState, bool, bool]:
    """Ready, and whether Reconciling and Stalled."""
    line = summary_line(inventory, plan)
    if wrong:
        stalled = isinstance(wrong[0], UserError)
        more = f" (and {len(wrong) - 1} more: see status.findings)" if len(wrong) > 1 else ""
        return ConditionState(FALSE, wrong[0].reason, f"{wrong[0]}{more}"), not stalled, stalled
    if not plan.actions:
        return ConditionState(TRUE, CONVERGED, line), False, False
    count = _to_do(plan)
    if spec.mode is Mode.PLAN:
        return (
            ConditionState(FALSE, PLAN_PENDING, f"{count}; spec.mode is Plan: read status.plan, then set it to Apply"),
            False,
            False,
        )
    return (
        ConditionState(FALSE, PARTITIONS_MISSING if plan.names or plan.missing else IN_PROGRESS, f"{count}; {line}"),
        True,
        False,
    )


def _to_do(plan: Plan) -> str:
    """``2 partitions to create, 1 table to drop``."""
    counts = Counter((each.noun, each.verb) for each in plan.actions)
    return ", ".join(f"{count} {noun}{'' if count == 1 else 's'} to {verb}" for (noun, verb), count in counts.items())


def _ahead(plan: Plan, ready: ConditionState) -> ConditionState:
    if not plan.missing:
        return ConditionState(TRUE, "Covered", "the current partition and all that are wanted ahead exist")
    named = ", ".join(span(piece) for piece in plan.missing[:3])
    more = f" and {len(plan.missing) - 3} more" if len(plan.missing) > 3 else ""
    reason = PARTITIONS_MISSING if ready.reason == CONVERGED else ready.reason
    return ConditionState(FALSE, reason, f"no partition for {named}{more}: {ready.message}")


def _thresholds(spec: TableSpec, plan: Plan) -> ConditionState:
    if spec.thresholds.partition_size is None:
        return ConditionState(TRUE, "NoThreshold", "spec.thresholds.partitionSize is not set")
    for each in plan.findings:
        if each.reason == TOO_LARGE:
            return ConditionState(FALSE, TOO_LARGE, each.message)
    return ConditionState(TRUE, "WithinThresholds", f"no partition is larger than {spec.thresholds.partition_size}")


def _reachable(error: PartwardenError, connected: bool) -> ConditionState:
    if isinstance(error, NOT_REACHED):
        return ConditionState(FALSE, error.reason, str(error))
    if connected:
        return ConditionState(TRUE, "Connected", "the database answered")
    return ConditionState(UNKNOWN, error.reason, f"there is no connection to judge by: {error}")


def _flag(value: bool, ready: ConditionState) -> ConditionState:
    return ConditionState(TRUE if value else FALSE, ready.reason, ready.message if value else "")


def condition(
    kind: str, said: ConditionState | None, earlier: Mapping[str, Any] | None, generation: int, now: datetime
) -> dict[str, Any] | None:
    if said is None:
        return dict(earlier) if earlier else None
    since = earlier.get("lastTransitionTime") if earlier and earlier.get("status") == said.status else None
    return Condition(
        type=kind,
        status=said.status,
        reason=said.reason,
        message=cut(said.message),
        last_transition_time=since or iso(now.replace(microsecond=0)) or "",
        observed_generation=generation,
    ).model_dump(mode="json", by_alias=True, exclude_none=True)
