"""Conditions of a PartitionPolicy: (plan, outcomes) or an error -> status. Pure; the clock is an argument.

They follow kstatus, which reads observedGeneration, then Reconciling, then Stalled, then Ready: a user's mistake is
Stalled (failed), an outage is Reconciling (in progress), and Ready=False alone would mean in progress for ever.
https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .. import errors
from ..api.policy import Mode, TableSpec
from ..api.status import (
    MAX_REASON,
    Condition,
    ConditionStatus,
    ConditionType,
    FindingStatus,
    LongAction,
    PartitionPolicyStatus,
    Severity,
)
from ..api.types import ObjectKey
from ..errors import ContentsChanged, DefaultHasRows, PartwardenError, UserError, printable
from ..planner.actions import CreateDefault, CreatePartition, Outcome, SplitLegacy
from ..planner.archive_gate import ArchiveGate
from ..planner.calendar import Grid, iso
from ..planner.findings import Finding, join_names
from ..planner.forecast import NOTHING, Measured, forecast
from ..planner.inventory import Inventory, Server
from ..planner.maintenance import TOO_LARGE
from ..planner.plan import Plan
from . import archives
from .approval import by_annotation, to_do, why_waiting
from .default_partition import describe, way_out
from .details import cut, details, span, summary_line
from .warnings import Graded, carry_on, graded, of_severity

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN

CONVERGED = "Converged"
WITH_WARNINGS = "ConvergedWithWarnings"
PLAN_PENDING = "PlanPending"
PARTITIONS_MISSING = "PartitionsMissing"
IN_PROGRESS = "InProgress"
CONVERTING = "Converting"
UNDONE = "Undone"
SUSPENDED = "Suspended"
INTERNAL_ERROR = "InternalError"

NOT_REACHED = (errors.DatabaseUnreachable, errors.AuthenticationFailed, errors.TLSMismatch, errors.DatabaseNotFound)
"""The database itself, or the way to it, refuses the connection."""
OBSERVED = ("summary", "partitions", "plan", "planDigest", "approvedPlan", "next", "nextDrop", "findings")
"""The fields of a status that describe the table."""
APPROVALS = ("planDigest", "approvedPlan")
"""Of them, what decides whether the next plan needs an approval: no error makes that forgotten."""
OF_TABLE = (
    ConditionType.PARTITIONS_AHEAD,
    ConditionType.DEFAULT_PARTITION_EMPTY,
    ConditionType.WITHIN_THRESHOLDS,
    ConditionType.ARCHIVES_HEALTHY,
)
"""What can be said only once the table was observed."""


@dataclass(frozen=True, slots=True)
class ConditionState:
    """One condition without its times."""

    status: ConditionStatus
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class PolicyStatusUpdate:
    """What one reconcile of a policy writes into its status.

    ``others``: the conditions beside Ready, Reconciling and Stalled; one that is missing stays as it was. ``table``
    replaces the details of the table; None keeps those of the last status. ``errors`` are those to retry for, whether
    or not Ready is False for them, the worst first; an error outside the tree is not among them. ``outage``: why Ready
    is True although the table could not be observed, ``until`` when: see `outage.endure`.
    """

    ready: ConditionState
    reconciling: bool
    stalled: bool
    others: Mapping[ConditionType, ConditionState] = field(default_factory=dict)
    table: PartitionPolicyStatus | None = None
    errors: tuple[PartwardenError, ...] = ()
    outage: FindingStatus | None = None
    until: datetime | None = None


def reconciled(
    spec: TableSpec,
    inventory: Inventory,
    plan: Plan,
    outcomes: Sequence[Outcome],
    measured: Measured = NOTHING,
    policy: ObjectKey | None = None,
) -> PolicyStatusUpdate:
    """The database was observed and the plan applied. ``inventory`` and ``plan`` were made after ``outcomes``.

    ``policy``: how commands in messages name it.
    """
    default = default_partition_empty(spec, inventory, plan)
    stray = [Finding(default.reason, str(inventory.default), default.message)] if default.status is FALSE else []
    found = graded(plan, outcomes, [*stray, *archives.findings(spec, measured)])
    ready, reconciling, stalled = _ready(spec, inventory, plan, found, any(each.error for each in outcomes), policy)
    seen = details(inventory, plan, outcomes, found, forecast(spec, inventory, plan, measured))
    if seen.summary is not None:
        seen = seen.model_copy(update={"summary": archives.with_archives(seen.summary, measured)})
    return PolicyStatusUpdate(
        ready=ready,
        reconciling=reconciling,
        stalled=stalled,
        others={
            ConditionType.DATABASE_REACHABLE: answered(inventory.server),
            ConditionType.PARTITIONS_AHEAD: _ahead(plan, ready),
            ConditionType.DEFAULT_PARTITION_EMPTY: default,
            ConditionType.WITHIN_THRESHOLDS: _thresholds(spec, plan),
            ConditionType.ARCHIVES_HEALTHY: _archives_healthy(spec, plan.retired.gate, outcomes, measured),
        },
        table=seen,
        errors=tuple({(each.reason, each.message): each.error for _, each in found if each.error}.values()),
    )


def answered(server: Server) -> ConditionState:
    """DatabaseReachable, of the server that has answered."""
    message = f"PostgreSQL {server.version_text}, database {server.database!r}, as {server.user!r}"
    return ConditionState(TRUE, "Connected", message)


def failed(error: PartwardenError, connected: bool) -> PolicyStatusUpdate:
    """No plan could be made, or applying it broke off. ``connected``: the database had answered by then."""
    stalled = isinstance(error, UserError)
    unknown = ConditionState(UNKNOWN, error.reason, "the table could not be observed")
    return PolicyStatusUpdate(
        ready=ConditionState(FALSE, error.reason, str(error)),
        reconciling=not stalled,
        stalled=stalled,
        others=dict.fromkeys(OF_TABLE, unknown) | {ConditionType.DATABASE_REACHABLE: _reachable(error, connected)},
        table=PartitionPolicyStatus() if stalled and connected else None,
        errors=(error,),
    )


def broken(name: str) -> PolicyStatusUpdate:
    """An error in Partwarden itself, of the class ``name``: retried like an outage."""
    message = f"internal error {name}: see the operator's log, and report it"
    return PolicyStatusUpdate(ready=ConditionState(FALSE, INTERNAL_ERROR, message), reconciling=True, stalled=False)


def suspended(seen: PolicyStatusUpdate | None = None) -> PolicyStatusUpdate:
    """spec.suspend is set: what was ``seen`` stays true of the table, and is nothing to act on. None: nothing was."""
    message = "spec.suspend is set: the table is observed, and nothing is changed; set it to false to resume"
    unknown = ConditionState(UNKNOWN, SUSPENDED)
    return PolicyStatusUpdate(
        ready=ConditionState(UNKNOWN, SUSPENDED, message),
        reconciling=False,
        stalled=False,
        others=seen.others if seen else dict.fromkeys((ConditionType.DATABASE_REACHABLE, *OF_TABLE), unknown),
        table=seen.table if seen else None,
        errors=seen.errors if seen else (),
    )


def make_status(
    update: PolicyStatusUpdate,
    previous: Mapping[str, Any],
    generation: int,
    now: datetime,
    table: str | None = None,
    long: LongAction | None = None,
) -> dict[str, Any]:
    """The status to be written, as JSON would have it. Equal to ``previous`` when there is nothing to write.

    ``now`` is aware and only marks conditions that changed. ``table`` names the table of the current spec: what
    ``previous`` shows of another one is not carried on. ``long``: the action that is done beside this reconcile.
    """
    earlier = {each.get("type"): each for each in previous.get("conditions") or [] if isinstance(each, Mapping)}
    says = {
        **update.others,
        ConditionType.READY: update.ready,
        ConditionType.RECONCILING: _flag(update.reconciling, update.ready),
        ConditionType.STALLED: _flag(update.stalled, update.ready),
    }
    conditions = [condition(kind, says.get(kind), earlier.get(kind), generation, now) for kind in ConditionType]
    status = {"observedGeneration": generation, "conditions": [each for each in conditions if each]}
    if long is not None:
        status["longAction"] = long.model_dump(mode="json", by_alias=True)
    if update.table is not None:
        seen = update.table.model_dump(mode="json", by_alias=True, exclude_none=True)
    else:
        shown = (previous.get("summary") or {}).get("table")
        seen = carry_on(previous, update.outage) if table is None or shown in (None, table) else {}
    if update.table is None or update.table.summary is None:
        # Of another spec a plan that has waited is another one.
        kept = APPROVALS if previous.get("observedGeneration") == generation else APPROVALS[1:]
        seen = {key: each for key, each in seen.items() if key not in APPROVALS} | {
            key: previous.get(key) for key in kept
        }
    return status | {part: seen[part] for part in OBSERVED if seen.get(part)}


def _ready(
    spec: TableSpec, inventory: Inventory, plan: Plan, found: Sequence[Graded], failed: bool, policy: ObjectKey | None
) -> tuple[ConditionState, bool, bool]:
    """Ready, and whether Reconciling and Stalled. ``failed``: whether an action did."""
    if wrong := of_severity(found, Severity.ERROR):
        stalled = isinstance(wrong[0].error, UserError)
        return _first([(each.reason, each.message) for each in wrong]), not stalled, stalled
    line, waits = summary_line(inventory, plan), why_waiting(plan.gate, by_annotation(plan.gate, policy))
    if plan.gate.begins and spec.mode is not Mode.PLAN:
        message = f"plan {plan.gate.digest} is approved, and begins; {line}"
        return ConditionState(FALSE, IN_PROGRESS, message), True, False
    if spec.mode is Mode.PLAN and plan.steps:
        message = f"{to_do(plan.steps)}; spec.mode is Plan: read status.plan, then set it to Apply"
        return ConditionState(FALSE, PLAN_PENDING, "; ".join(filter(None, (message, waits)))), False, False
    # Of what is beside the coverage, one failure keeps other work for a later reconcile: that is no progress.
    makes = plan.missing or any(isinstance(each, CreatePartition | CreateDefault) for each in plan.actions)
    # A split may go on for weeks, and nothing is missing meanwhile.
    urgent = any(not isinstance(each, SplitLegacy) for each in plan.actions)
    if urgent and (makes or not failed):
        reason = PARTITIONS_MISSING if makes else IN_PROGRESS
        return ConditionState(FALSE, reason, f"{to_do(plan.steps[: len(plan.actions)])}; {line}"), True, False
    if waits:
        return ConditionState(FALSE, PLAN_PENDING, waits), False, False
    if plan.missing:
        return ConditionState(FALSE, PARTITIONS_MISSING, line), True, False
    if warnings := of_severity(found, Severity.WARNING):
        said = _first([("", each.message) for each in warnings]).message
        return ConditionState(TRUE, WITH_WARNINGS, f"{said}; {line}"), False, False
    return ConditionState(TRUE, CONVERGED, line), False, False


def _first(wrong: Sequence[tuple[str, str]]) -> ConditionState:
    """False for the first reason and message; the others are in status.findings."""
    (reason, message), *others = wrong
    more = f" (and {len(others)} more: see status.findings)" if others else ""
    return ConditionState(FALSE, reason, f"{message}{more}")


def _ahead(plan: Plan, ready: ConditionState) -> ConditionState:
    if not plan.missing:
        return ConditionState(TRUE, "Covered", "the current partition and all that are wanted ahead exist")
    named = join_names([span(piece) for piece in plan.missing], 3)
    return ConditionState(FALSE, ready.reason, f"no partition for {named}: {ready.message}")


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
    return ConditionState(UNKNOWN, error.reason, f"no connection was made: {error}")


def _archives_healthy(
    spec: TableSpec, gate: ArchiveGate, outcomes: Sequence[Outcome], measured: Measured
) -> ConditionState:
    """False if an archive, or a table of one, needs the user. What is only waited for is the reason of True."""
    left = [(each.reason, f"archive {each.name}, whose table is dropped: {each.message}") for each in measured.failing]
    left += [(reason, message) for reason, _, message in archives.unmakeable(measured)]
    changed = [(each.error.reason, str(each.error)) for each in outcomes if isinstance(each.error, ContentsChanged)]
    if wrong := [*left, *((trouble.reason, trouble.message) for trouble in gate.troubles), *changed]:
        return _first(wrong)
    if gate.notes:
        return ConditionState(TRUE, gate.notes[0].reason, "; ".join(note.message for note in gate.notes))
    if spec.retention is None or spec.retention.archive is None:
        return ConditionState(TRUE, "NoArchive", "spec.retention.archive is not set")
    return ConditionState(TRUE, "NothingWaits", "no expired partition waits for an archive, and no archive is wrong")


def default_partition_empty(spec: TableSpec, inventory: Inventory, plan: Plan) -> ConditionState:
    """It never calls empty what was not counted."""
    default, rows = inventory.default, inventory.default_rows
    if default is None:
        return ConditionState(TRUE, "NoDefaultPartition", "the table has no DEFAULT partition")
    if rows is None:
        return ConditionState(UNKNOWN, "NotCounted", f"the rows of {default} were not counted")
    if rows.error is not None:
        return ConditionState(UNKNOWN, rows.error.reason, str(rows.error))
    if not rows.total:
        return ConditionState(TRUE, "Empty", f"DEFAULT partition {default} is empty")
    grid = Grid.of(spec, aware=plan.codec.aware)
    covered = [plan.current, *(each.range for each in inventory.partitions if each.range)]
    message = f"DEFAULT partition {default} holds {describe(grid, rows)}{way_out(spec, grid, rows, covered)}"
    return ConditionState(FALSE, DefaultHasRows.__name__, message)


def _flag(value: bool, ready: ConditionState) -> ConditionState:
    return ConditionState(TRUE if value else FALSE, ready.reason, ready.message if value else "")


def find(status: Mapping[str, Any], kind: ConditionType) -> Mapping[str, Any]:
    """The condition of that type; empty where the status has none."""
    return next((each for each in status.get("conditions") or [] if each.get("type") == kind), {})


def condition(
    kind: str, said: ConditionState | None, earlier: Mapping[str, Any] | None, generation: int, now: datetime
) -> dict[str, Any] | None:
    """The condition as JSON has it; None keeps ``earlier``. Its time is new only if the status changed."""
    if said is None:
        return dict(earlier) if earlier else None
    since = earlier.get("lastTransitionTime") if earlier and earlier.get("status") == said.status else None
    return Condition(
        type=kind,
        status=said.status,
        # It may come from a pod's report, or from a status that others can write.
        reason=printable(said.reason)[:MAX_REASON] or ConditionStatus.UNKNOWN,
        message=cut(said.message),
        last_transition_time=since or iso(now.replace(microsecond=0)) or "",
        observed_generation=generation,
    ).model_dump(mode="json", by_alias=True, exclude_none=True)
