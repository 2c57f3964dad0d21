"""Decide what of a plan has to wait until the user has approved the plan. Pure.

With ``mode: Approve`` that is all of it; else its retirements, where more are due at once than
``spec.retention.maxRetirements``: what a slip of the pen would archive, detach and drop. An approval is of a plan, by
its digest, and is carried out in two reconciles or more:

1. The annotation names the digest of the plan as it is: the ids of its steps go into ``status.approvedPlan``. Nothing
   of it is done yet, since what is left of a plan, once something of it is done, has another digest.
2. From then on a step is done if its id is recorded and the annotation still names that digest: after any interruption,
   and days later, when a grace is over. The drop asks for it again under its lock.
3. What is done leaves the record. Once empty it stays for as long as the annotation names that digest, so that an
   approval is of one run only: after a restore, or an edit and its reverse, the same steps make the same digest.

If the status is lost, the annotation gone, or the retention or the database another one, an approval is needed again.
Once a plan waits, or an approval was taken back, nothing is retired by the limit alone until a plan is approved, the
spec is edited, or nothing is left to retire: `PlanApproval.pending`. Fewer tables than the limit may be what is left.
What prepares or ends the retirement of a table goes with its approval: the archive, and a detach that was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..api.approval import APPROVE_PLAN, MOST_STEPS, ApprovedPlan
from ..api.policy import Mode, TableSpec
from ..api.types import Interval
from .actions import Action, ConfirmDetached, DetachPartition, DropDetached, FinalizeDetach, TableAction
from .archive_gate import ArchiveGate, ArchiveRequest, Request
from .calendar import Range
from .context import PlanContext
from .drop_preconditions import ARCHIVING, CHECKING, plan_basis, unmet
from .findings import refusing
from .foresight import ARCHIVE, CHECK
from .inventory import Detached, Partition
from .marker import Phase
from .schedule import PlannedStep, Wait, WaitsFor, digest, id_of, step_id

RETIREMENTS = (DetachPartition.__name__, DropDetached.__name__)
FOLLOWERS = (ARCHIVE, CHECK, FinalizeDetach.__name__, ConfirmDetached.__name__)
"""What prepares or ends the retirement of a table."""
MOST_AT_ONCE, MOST_HOURS = 10, 72
"""``maxRetirements`` where the policy does not say it: three days' worth, and 10 at least."""
APPROVAL = Wait(WaitsFor.APPROVAL, f"the annotation {APPROVE_PLAN} does not name this plan")


@dataclass(frozen=True, slots=True)
class PlanGate:
    """``digest``: what the annotation has to name so that what waits is done; "" where nothing waits."""

    digest: str = ""
    waiting: tuple[PlannedStep, ...] = ()
    """The steps that are not done for want of an approval."""
    excess: int = 0
    """How many tables of no approved plan are to be retired at once."""
    bytes: int = 0
    """Of those tables."""
    most: int = 0
    """How many such need no approval."""
    everything: bool = False
    """Whether every step needs one."""
    pending: bool = False
    """Whether every retirement needs one, as a plan has waited, or an approval was taken back; False where none is
    left."""
    steps: frozenset[str] = frozenset()
    """The ids of the approved steps."""
    tables: frozenset[int] = frozenset()
    """OIDs of the tables whose retirement is approved."""
    named: str = ""
    """The digest that the annotation names."""
    record: ApprovedPlan | None = None
    """What the status is to say of the approved plan."""
    begins: bool = False
    """Whether that is news: once it is written, what it allows is done."""

    @property
    def retires_nothing(self) -> bool:
        """Whether every retirement that no approval covers has to wait."""
        return self.everything or self.pending or self.excess > self.most

    @property
    def open(self) -> str:
        """The digest of what is still without an approval; "" where that is nothing."""
        approved = self.begins and self.record is not None and len(self.record.steps) < MOST_STEPS
        return "" if approved else self.digest

    @property
    def is_used(self) -> bool:
        """Whether the annotation names what waits, and that approval was used already."""
        return self.digest != "" and self.named == self.digest and not self.begins

    def covers(self, action: str, oid: int | None, step: str) -> bool:
        """Whether the approval is of the step with that id."""
        return step in self.steps or (action in FOLLOWERS and oid in self.tables)

    def allows(self, action: str, oid: int | None, step: str) -> bool:
        """Whether the step may be done, as far as the user's approval is concerned."""
        needs = self.everything or (self.retires_nothing and action in (*RETIREMENTS, ARCHIVE, CHECK))
        return not needs or self.covers(action, oid, step)

    def allowed(self, actions: Iterable[Action]) -> Iterator[Action]:
        """Those that may be done. A drop that an approval covers asks for it again under its lock, also where no more
        tables are left than need none: taken back, it stops all that it was of."""
        for action in actions:
            what = type(action).__name__, _oid(action), id_of(action)
            if not self.allows(*what):
                continue
            if isinstance(action, DropDetached) and self.covers(*what):
                yield replace(action, case=replace(action.case, step=id_of(action)))
            else:
                yield action

    def requested(
        self, context: PlanContext, steps: Iterable[PlannedStep], requests: Iterable[Request]
    ) -> Iterator[Request]:
        """The requests for archives and readings that may be made. One by which an earlier reading counts no more is
        always made: it only ever keeps a table."""
        allowed = {(each.action, each.oid) for each in steps if self.allows(each.action, each.oid, each.id)}
        oids = {each.name: oid for oid, some in context.archives.states.items() for each in some}
        for each in requests:
            if isinstance(each, ArchiveRequest):
                may = (ARCHIVE, each.oid) in allowed
            else:
                may = each.void or (CHECK, oids.get(each.archive)) in allowed
            if may or not self.retires_nothing:
                yield each


def most_retirements(spec: TableSpec) -> int:
    """How many partitions may be retired at once without an approval."""
    said = spec.retention.max_retirements if spec.retention else None
    return said or (MOST_HOURS if spec.interval is Interval.HOUR else MOST_AT_ONCE)


def check_approval(context: PlanContext, steps: Sequence[PlannedStep], gate: ArchiveGate) -> PlanGate:
    """What of a plan waits for an approval, and what has one. ``steps``: all that the plan has."""
    spec, approval, basis = context.spec, context.archives.plan, _basis(context)
    due, everything = _leaving(context, gate), spec.mode is Mode.APPROVE
    leaving = frozenset(due.values())
    free = [each for each in steps if each.oid in leaving or not _is_kept(each)]
    wanted, recorded = [*_to_approve(free, everything)], approval.steps(basis)
    # Also what is no step for the moment, as while a hold keeps a table: it is approved still.
    retirements = _retirements(context) if recorded else {}
    approved = recorded & (retirements.keys() | {each.id for each in wanted})
    excess = {oid for step, oid in due.items() if step not in approved}
    used = approval.recorded if approval.recorded and approval.recorded.digest == approval.named else None
    found = PlanGate(
        excess=len(excess),
        bytes=sum({each.oid: each.bytes or 0 for each in steps if each.oid in excess}.values()),
        most=most_retirements(spec),
        everything=everything,
        pending=approval.pending and any(each.action in RETIREMENTS and each.id not in approved for each in wanted),
        steps=approved,
        tables=frozenset(retirements[each] for each in approved if each in retirements),
        named=approval.named,
        record=used and used.model_copy(update={"steps": sorted(approved)}),
    )
    waiting = [each for each in free if not found.allows(each.action, each.oid, each.id)]
    if not waiting:
        return found
    # An approval is of one run: where it is recorded, what has come back since then needs another one.
    name, first = digest(wanted, basis), sorted(each.id for each in wanted[:MOST_STEPS])
    begins = approval.named == name and used is None
    return replace(
        found,
        digest=name,
        waiting=tuple(waiting),
        record=ApprovedPlan(digest=name, basis=basis, steps=first) if begins else found.record,
        begins=begins,
    )


def marked(steps: Iterable[PlannedStep], actions: Iterable[Action], gate: PlanGate) -> tuple[PlannedStep, ...]:
    """The steps of the plan, those that wait for the approval with that, and first those of its ``actions``."""
    waiting, first = {each.id for each in gate.waiting}, {id_of(each) for each in actions}
    found = (_waiting(each) if each.id in waiting else each for each in steps)
    return tuple(sorted(found, key=lambda each: each.id not in first))


def _waiting(step: PlannedStep) -> PlannedStep:
    """The step while it waits for the approval of the plan. So does its detach: when its grace ends is not known."""
    known = step.not_before if all(each.on is not WaitsFor.DETACH for each in step.waits_for) else None
    return replace(step, waits_for=(*step.waits_for, APPROVAL), not_before=known)


def unapproved(context: PlanContext, actions: Sequence[Action]) -> Iterator[str]:
    """What of a plan's actions may not be done without an approval that is not there."""
    recorded, everything = context.archives.plan.steps(_basis(context)), context.spec.mode is Mode.APPROVE
    retirements = _retirements(context) if recorded else {}
    tables = {oid for step, oid in retirements.items() if step in recorded}
    retired = [each for each in actions if isinstance(each, DetachPartition | DropDetached)]
    free = {each.oid for each in retired if id_of(each) not in recorded}
    if len(free) > (most := 0 if context.archives.plan.pending else most_retirements(context.spec)):
        yield f"{len(free)} partitions are retired at once, more than {most}, and no approval names them"
    for each in actions if everything else ():
        follows = type(each).__name__ in FOLLOWERS and _oid(each) in tables
        if id_of(each) not in recorded and not follows:
            yield f"{each} is of no approved plan"
        if isinstance(each, DropDetached) and not each.case.step:
            yield f"{each} is dropped without asking again for the approval"


def _basis(context: PlanContext) -> str:
    return plan_basis(context.spec.retention, context.inventory.server.identity)


def _oid(action: Action) -> int | None:
    return action.oid if isinstance(action, TableAction) else None


def _is_kept(step: PlannedStep) -> bool:
    """Whether the user has to do something else first: once that is done, the plan is another one."""
    return any(each.on in (WaitsFor.HOLD, WaitsFor.USER) for each in step.waits_for)


def _to_approve(free: Sequence[PlannedStep], everything: bool) -> Iterator[PlannedStep]:
    """What an approval is of: all that is changed, and what is only read where nothing follows from it."""
    retired = {each.oid for each in free if each.action in RETIREMENTS}
    for each in free:
        if each.action in RETIREMENTS or (everything and not (each.action in FOLLOWERS and each.oid in retired)):
            yield each


def _leaving(context: PlanContext, gate: ArchiveGate) -> dict[str, int]:
    """All that is to be detached or dropped now, or as soon as its archive was made or read: the id of that step, and
    the OID. A reading that failed is tried again, so it keeps a table for a while only; ties keep it until the user
    acts."""
    found = dict[str, int]()
    for each, held, step in gate.detaches:
        if step.passes or step.waits or step.request:
            found[step_id(RETIREMENTS[0], each.schema, each.name, each.oid, held)] = each.oid
    for case, step in gate.drops:
        table, kept = case.table, unmet(case)
        comes = kept is not None and kept.reason in (ARCHIVING, CHECKING) and (step.waits or step.request)
        if (step.passes or comes) and not refusing(table, context.inventory.ties.get(table.oid, ())):
            found[step_id(RETIREMENTS[1], table.schema, table.name, table.oid, table.marker.range)] = table.oid
    return found


def _retirements(context: PlanContext) -> dict[str, int]:
    """The ids that the detach and the drop of each old table have as steps, whatever keeps it, and its OID."""
    found = dict[str, int]()
    tables: tuple[Partition | Detached, ...] = (*context.inventory.partitions, *context.detached)
    for each in tables:
        piece: Range | None = each.marker.range if isinstance(each, Detached) else each.range
        if piece is not None and context.has_expired(piece):
            left = isinstance(each, Detached) and each.marker.phase is Phase.DETACHED
            actions = RETIREMENTS[1:] if left else RETIREMENTS
            found |= {step_id(action, each.schema, each.name, each.oid, piece): each.oid for action in actions}
    return found
