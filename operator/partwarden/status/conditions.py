"""Conditions of a PartitionPolicy: (plan, outcomes) or an error -> status. Pure; the clock is an argument.

They follow kstatus, which reads observedGeneration, then Reconciling, then Stalled, then Ready: a user's mistake is
Stalled (failed), an outage is Reconciling (in progress), and Ready=False alone would mean in progress for ever.
https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .. import errors
from ..api.policy import Mode, TableSpec
from ..api.retention import Drain
from ..api.status import Condition, ConditionStatus, ConditionType, LongAction, PartitionPolicyStatus
from ..api.types import Interval
from ..errors import ContentsChanged, PartwardenError, UserError
from ..planner.actions import Outcome
from ..planner.archive_gate import ArchiveGate
from ..planner.calendar import BoundedRange, Grid, iso
from ..planner.default_rows import DefaultRows, count_of, label
from ..planner.findings import join_names
from ..planner.inventory import Inventory
from ..planner.keys import Codec
from ..planner.maintenance import TOO_LARGE
from ..planner.plan import Plan
from .details import cut, details, span, summary_line

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN

CONVERGED = "Converged"
PLAN_PENDING = "PlanPending"
PARTITIONS_MISSING = "PartitionsMissing"
IN_PROGRESS = "InProgress"
SUSPENDED = "Suspended"
INTERNAL_ERROR = "InternalError"

NOT_REACHED = (errors.DatabaseUnreachable, errors.AuthenticationFailed, errors.TLSMismatch, errors.DatabaseNotFound)
"""The database itself, or the way to it, refuses the connection."""
OBSERVED = ("summary", "partitions", "plan", "next", "nextDrop", "findings")
"""The fields of a status that describe the table."""
MAX_INTERVALS = 20
"""Most intervals with rows in the default partition that a message names."""
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
    replaces the details of the table; None keeps those of the last status. ``errors`` are those to retry for, the one
    that Ready names first; an error outside the tree is not among them.
    """

    ready: ConditionState
    reconciling: bool
    stalled: bool
    others: Mapping[ConditionType, ConditionState] = field(default_factory=dict)
    table: PartitionPolicyStatus | None = None
    errors: tuple[PartwardenError, ...] = ()


def reconciled(spec: TableSpec, inventory: Inventory, plan: Plan, outcomes: Sequence[Outcome]) -> PolicyStatusUpdate:
    """The database was observed and the plan applied. ``inventory`` and ``plan`` were made after ``outcomes``."""
    findings = [finding.error for finding in plan.findings if finding.error]
    failures = [outcome.error for outcome in outcomes if outcome.error]
    unique: dict[tuple[str, str], PartwardenError] = {}
    for error in (*findings[: int(plan.blocked)], *failures, *findings):
        unique.setdefault((error.reason, str(error)), error)
    wrong = tuple(unique.values())
    ready, reconciling, stalled = _ready(spec, inventory, plan, wrong)
    server = inventory.server
    connected = f"PostgreSQL {server.version_text}, database {server.database!r}, as {server.user!r}"
    return PolicyStatusUpdate(
        ready=ready,
        reconciling=reconciling,
        stalled=stalled,
        others={
            ConditionType.DATABASE_REACHABLE: ConditionState(TRUE, "Connected", connected),
            ConditionType.PARTITIONS_AHEAD: _ahead(plan, ready),
            ConditionType.DEFAULT_PARTITION_EMPTY: default_partition_empty(spec, inventory, plan.codec),
            ConditionType.WITHIN_THRESHOLDS: _thresholds(spec, plan),
            ConditionType.ARCHIVES_HEALTHY: _archives_healthy(spec, plan.retired.gate, outcomes),
        },
        table=details(inventory, plan, outcomes),
        errors=wrong,
    )


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
        seen = dict(previous) if table is None or shown in (None, table) else {}
    return status | {part: seen[part] for part in OBSERVED if seen.get(part)}


def _ready(
    spec: TableSpec, inventory: Inventory, plan: Plan, wrong: Sequence[PartwardenError]
) -> tuple[ConditionState, bool, bool]:
    """Ready, and whether Reconciling and Stalled."""
    if wrong:
        stalled = isinstance(wrong[0], UserError)
        return _first([(error.reason, str(error)) for error in wrong]), not stalled, stalled
    line = summary_line(inventory, plan)
    if not plan.actions:
        return ConditionState(TRUE, CONVERGED, line), False, False
    to_do = _to_do(plan)
    if spec.mode is Mode.PLAN:
        message = f"{to_do}; spec.mode is Plan: read status.plan, then set it to Apply"
        return ConditionState(FALSE, PLAN_PENDING, message), False, False
    reason = PARTITIONS_MISSING if plan.names or plan.missing else IN_PROGRESS
    return ConditionState(FALSE, reason, f"{to_do}; {line}"), True, False


def _first(wrong: Sequence[tuple[str, str]]) -> ConditionState:
    """False for the first reason and message; the others are in status.findings."""
    (reason, message), *others = wrong
    more = f" (and {len(others)} more: see status.findings)" if others else ""
    return ConditionState(FALSE, reason, f"{message}{more}")


def _to_do(plan: Plan) -> str:
    """``2 partitions to create, 1 table to drop``."""
    counts = Counter((each.noun, each.verb) for each in plan.actions)
    return ", ".join(f"{count} {noun}{'' if count == 1 else 's'} to {verb}" for (noun, verb), count in counts.items())


def _ahead(plan: Plan, ready: ConditionState) -> ConditionState:
    if not plan.missing:
        return ConditionState(TRUE, "Covered", "the current partition and all that are wanted ahead exist")
    named = join_names([span(piece) for piece in plan.missing], 3)
    reason = PARTITIONS_MISSING if ready.reason == CONVERGED else ready.reason
    return ConditionState(FALSE, reason, f"no partition for {named}: {ready.message}")


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


def _archives_healthy(spec: TableSpec, gate: ArchiveGate, outcomes: Sequence[Outcome]) -> ConditionState:
    """False if an archive, or a table of one, needs the user. What is only waited for is the reason of True."""
    changed = [(each.error.reason, str(each.error)) for each in outcomes if isinstance(each.error, ContentsChanged)]
    if wrong := [*((trouble.reason, trouble.message) for trouble in gate.troubles), *changed]:
        return _first(wrong)
    if gate.notes:
        return ConditionState(TRUE, gate.notes[0].reason, "; ".join(note.message for note in gate.notes))
    if spec.retention is None or spec.retention.archive is None:
        return ConditionState(TRUE, "NoArchive", "spec.retention.archive is not set")
    return ConditionState(TRUE, "NothingWaits", "no expired partition waits for an archive, and no archive is wrong")


def default_partition_empty(spec: TableSpec, inventory: Inventory, codec: Codec) -> ConditionState:
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
    grid = Grid.of(spec, aware=codec.aware)
    message = f"DEFAULT partition {default} holds {describe(grid, rows)}{_way_out(spec, grid, rows)}"
    return ConditionState(FALSE, "DefaultHasRows", message)


def describe(grid: Grid, rows: DefaultRows) -> str:
    """Rows of the default partition: ``2019 (1,204 rows), 2021 (1 row)``, in a bounded number of words."""
    cells = _by_cell(grid, rows)
    named = [f"{label(grid, cell)} ({count_of(count, rows.whole)})" for cell, count in cells[:MAX_INTERVALS]]
    if rest := cells[MAX_INTERVALS:]:
        named.append(f"{len(rest)} more intervals ({count_of(sum(count for _, count in rest), rows.whole)})")
    if rows.elsewhere:
        apart = "" if rows.whole else ", or in more intervals than are counted"
        named.append(f"{count_of(rows.elsewhere, rows.whole)} elsewhere (NULL, infinite, beyond the calendar{apart})")
    total = f", {count_of(rows.total, rows.whole)} in all" if len(named) > 1 else ""
    return ", ".join(named) + total


def _way_out(spec: TableSpec, grid: Grid, rows: DefaultRows) -> str:
    days = list(dict.fromkeys(grid.local(cell.lower).date().isoformat() for cell, _ in _by_cell(grid, rows)))
    if not days:
        return ""
    if grid.interval is Interval.HOUR:
        # A date of spec.ensure means its first hour only.
        where = f'set spec.startFrom to "{days[0]}" if all since then shall exist'
    else:
        named = ", ".join(f'"{day}"' for day in days[:MAX_INTERVALS]) + (", …" if len(days) > MAX_INTERVALS else "")
        where = f"put [{named}] into spec.ensure to have partitions made for them"
    drain = "" if spec.default_partition.drain is Drain.AUTO else ", and set spec.defaultPartition.drain to Auto"
    return f"; {where}{drain}, or move the rows elsewhere"


def _by_cell(grid: Grid, rows: DefaultRows) -> list[tuple[BoundedRange, int]]:
    cells: Counter[BoundedRange] = Counter()
    for piece, count in rows.groups:
        cells[grid.cell(piece.lower)] += count
    return list(cells.items())


def _flag(value: bool, ready: ConditionState) -> ConditionState:
    return ConditionState(TRUE if value else FALSE, ready.reason, ready.message if value else "")


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
        reason=said.reason,
        message=cut(said.message),
        last_transition_time=since or iso(now.replace(microsecond=0)) or "",
        observed_generation=generation,
    ).model_dump(mode="json", by_alias=True, exclude_none=True)
