"""make_plan: (policy, inventory, now) -> Plan. Pure, and the only place that decides.

The same plan is printed by ``partwarden plan``, executed by ``partwarden apply`` and by the operator, and turned into
status. Nothing is resumed: after an interruption the database is observed and planned again. Every prefix of a plan
leaves a valid database, because each action does, and none depends on another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from ..api import policy
from ..api.policy import TableSpec
from ..api.types import Interval
from ..errors import UnsafePlan
from .actions import (
    Action,
    AttachDetached,
    ConfirmDetached,
    CreateDefault,
    CreatePartition,
    DetachPartition,
    DropDetached,
    FinalizeDetach,
    SplitLegacy,
    TableAction,
)
from .archive_gate import Request
from .calendar import BoundedRange, Range, iso, merge, subtract
from .context import PlanContext
from .creation import wanted
from .drop_preconditions import UNKNOWN, Archives, unmet
from .findings import Finding, notices, pending_detaches, why_blocked
from .foresight import foresee
from .inventory import Inventory, Parent
from .keys import Codec
from .maintenance import Upkeep, upkeep
from .plan_gate import PlanGate, check_approval, marked, unapproved
from .retirement import Retired, retired
from .schedule import PlannedStep
from .upcoming import Upcoming, next_change, upcoming


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in order, and what to say.

    Moments are in the key's domain (see `calendar`) but for ``next_boundary``, which is aware.
    """

    parent: Parent
    key: str
    interval: Interval
    codec: Codec
    actions: tuple[Action, ...]
    """What can be done now, in order."""
    due: tuple[Action, ...]
    """The same, and what of now waits for an approval: what the table has to be read for, or else a plan that is
    approved would be another one by the next reading."""
    requests: tuple[Request, ...]
    """The archives and readings that are wanted, those that wait for an approval too."""
    steps: tuple[PlannedStep, ...]
    """The same, and all that comes after it: see `foresight`."""
    gate: PlanGate
    """What of it waits for the user's approval, and so is not among the actions."""
    findings: tuple[Finding, ...]
    current: BoundedRange
    """The cell of the grid that holds now, whether or not a partition does."""
    missing: tuple[BoundedRange, ...]
    """What of the current, the future and the ensured cells no partition holds yet, ascending within each."""
    covered_until: datetime | None
    """End (exclusive) of the unbroken coverage that begins now: None when now is not covered."""
    covered_for_ever: bool
    """Whether that coverage ends at MAXVALUE; ``covered_until`` is None then, too."""
    next_boundary: datetime
    """When the plan will differ although nothing changes."""
    managed: frozenset[int]
    """OIDs of the partitions whose bounds are exactly one cell of the grid."""
    growing: frozenset[int]
    """OIDs of those that will be, once the rest of an interval has left the table that was converted."""
    blocked: bool
    """Whether no action can succeed until a finding is resolved: none is tried then."""
    retired: Retired
    upkeep: Upkeep
    upcoming: Upcoming

    @property
    def creations(self) -> tuple[CreatePartition, ...]:
        """What is due that makes partitions with bounds."""
        return tuple(action for action in self.due if isinstance(action, CreatePartition))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tables that are to be made."""
        splits = (action for action in self.due if isinstance(action, SplitLegacy) and action.grows is None)
        made = (*self.due, *(action.into for action in splits))
        return tuple(each.name for each in made if isinstance(each, CreatePartition | CreateDefault))

    def check_invariants(self, context: PlanContext) -> None:
        """Refuse a plan that contradicts what it was made from, however that came about.

        No new range overlaps anything; creations come before retirements; nothing held is touched; what is detached or
        dropped has expired, and what is detached is a partition with exactly those two bounds; what is dropped has its
        proof, or the policy needs none; what needs the user's approval has it. Raises `UnsafePlan`.
        """
        for violation in (
            *_misordered(self.actions),
            *_overlapping(self.actions, context),
            *_unsafe(self, context),
            *unapproved(context, self.actions),
            *_misread(self.actions, context),
        ):
            raise UnsafePlan(f"cannot act on {self.parent}: {violation}; this is an error in Partwarden: report it")


def make_plan(
    spec: TableSpec,
    inventory: Inventory,
    now: datetime,
    held: frozenset[str] = frozenset(),
    archives: Archives = UNKNOWN,
) -> Plan:
    """Decide what to do, in which order, and what a person should know. ``now`` is aware.

    Creation comes first and stands alone, retirement next, upkeep last. ``held`` names what nothing may be done to;
    without ``archives`` nothing is proven. Raises a `UserError` when the table cannot be managed at all.
    """
    context = PlanContext.of(spec, inventory, now, held, archives)
    blocking, creation = why_blocked(spec, inventory, context.parent), wanted(context)
    retirement = retired(context, creation)
    keeping, here = upkeep(context, retirement), _coverage_of_now(context)
    managed = frozenset(each.oid for each, piece in context.ranged if context.cell_of(piece))
    splits = [each for each in (*keeping.actions, *keeping.deferred) if isinstance(each, SplitLegacy)]
    growing = frozenset(each.grows.oid for each in splits if each.grows is not None)
    due = (*creation.actions, *retirement.actions, *keeping.actions)
    foreseen = foresee(context, due, retirement, keeping)
    gate = check_approval(context, foreseen, retirement.gate)
    actions, requests = tuple(gate.allowed(due)), retirement.gate.requests
    steps, allowed = marked(foreseen, actions, gate), tuple(gate.requested(context, foreseen, requests))
    retirement = replace(retirement, gate=replace(retirement.gate, requests=allowed))
    plan = Plan(
        parent=context.parent,
        key=context.key,
        interval=spec.interval,
        codec=context.codec,
        actions=actions,
        due=due,
        requests=requests,
        steps=steps,
        gate=gate,
        findings=(
            *(*blocking, *creation.findings, *pending_detaches(inventory, spec, creation.cells)),
            *(*retirement.findings, *keeping.findings, *notices(inventory, spec, context.codec, managed | growing)),
        ),
        current=context.current,
        missing=creation.missing,
        covered_until=here.upper if here else None,
        covered_for_ever=here is not None and here.upper is None,
        next_boundary=min(filter(None, (next_change(context, creation), keeping.boundary))),
        managed=managed,
        growing=growing,
        blocked=bool(blocking),
        retired=retirement,
        upkeep=keeping,
        upcoming=upcoming(context, creation, steps, here),
    )
    plan.check_invariants(context)
    return plan


def _coverage_of_now(context: PlanContext) -> Range | None:
    """The unbroken coverage that now is in, without what is pending detach: its rows are invisible."""
    usable = merge(piece for each, piece in context.ranged if not each.detach_pending)
    return next((piece for piece in usable if piece.contains(context.moment)), None)


CREATIONS = (CreatePartition, CreateDefault, AttachDetached)
RETIREMENTS = (FinalizeDetach, ConfirmDetached, DetachPartition, DropDetached)


def _misordered(actions: Sequence[Action]) -> Iterator[str]:
    begun = next((number for number, action in enumerate(actions) if isinstance(action, RETIREMENTS)), len(actions))
    for action in actions[begun:]:
        if isinstance(action, CREATIONS):
            yield f"{action} is created after something is retired"


def _overlapping(actions: Sequence[Action], context: PlanContext) -> Iterator[str]:
    """New ranges that overlap an existing partition or each other: ascending, each meets what came before."""
    floor, ceiling = context.codec.floor, context.codec.ceiling
    new = [(action.range, str(action)) for action in actions if isinstance(action, CreatePartition | AttachDetached)]
    ranges = [*((piece, "") for _, piece in context.ranged), *new]
    ends = sorted((piece.lower or floor, piece.upper or ceiling, name) for piece, name in ranges)
    any_end = new_end = floor
    for lower, upper, name in (end for end in ends if end[0] < end[1]):
        if lower < (any_end if name else new_end):
            yield f"{name or 'a new partition'} overlaps what holds {iso(lower)}"
        any_end = max(any_end, upper)
        new_end = max(new_end, upper) if name else new_end


def _unsafe(plan: Plan, context: PlanContext) -> Iterator[str]:
    for action in plan.actions:
        # PostgreSQL knows no way back from a pending detach, so not even a hold keeps it from being finished.
        if isinstance(action, FinalizeDetach) or not isinstance(action, TableAction):
            continue
        if policy.is_held(context.held, policy.names(action.schema, action.name, action.oid)):
            yield f"{action} is held: {policy.HOLD} names it"
        if isinstance(action, DetachPartition | DropDetached):
            if not context.has_expired(action.range):
                yield f"the range of {action} has not expired"
            if not _proven(action, context):
                yield f"no archive proves {action}"
        if isinstance(action, DetachPartition) and action.oid not in plan.retired.expired - plan.retired.kept:
            yield f"{action} is detached and has not expired"
        if isinstance(action, DropDetached) and (kept := unmet(action.case)) is not None:
            yield f"{action} is dropped although {kept.message}"


def _misread(actions: Sequence[Action], context: PlanContext) -> Iterator[str]:
    """Whether what is detached has the bounds that the catalog shows: those are judged, not what the action says."""
    ranges = {each.oid: piece for each, piece in context.ranged}
    for action in actions:
        if isinstance(action, DetachPartition):
            dated = context.spec.retention is not None and context.may_expire(action.range) is not None
            if ranges.get(action.oid) != action.range or not dated:
                yield f"{action} is detached, and is no partition with those bounds that may expire"
        if isinstance(action, SplitLegacy):
            held, leaving = ranges.get(action.oid), action.into.range.bounded
            if held is None or leaving is None or held.upper != leaving.upper or subtract(leaving, [held]):
                yield f"{action} is split, and what is to leave it is not the end of its range"
            if action.grows is not None and ranges.get(action.grows.oid) != action.grows.range:
                yield f"{action} is split into {action.into}, which is no partition with those bounds"


def _proven(action: DetachPartition | DropDetached, context: PlanContext) -> bool:
    """Whether an archive proves the table, and a drop compares with that one; or the policy needs none."""
    retention, state = context.spec.retention, context.archives.latest(action.oid)
    if retention is None:
        return False
    if retention.archive is None:
        return isinstance(action, DetachPartition) or retention.drop_without_archive
    if state is None or not state.proves(action.oid):
        return False
    return isinstance(action, DetachPartition) or action.fingerprint == state.fingerprint
