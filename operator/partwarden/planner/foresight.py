"""The steps that come after what is due: what follows from it, what each waits for, and in which order. Pure.

Nothing is decided here: each step is what the gate and the preconditions of a drop say of the table as it is, or as it
will be once the steps before it are done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from operator import itemgetter
from textwrap import shorten
from typing import Any

from ..api.policy import Mode
from . import archive_gate
from .actions import (
    Action,
    AttachDetached,
    ConfirmDetached,
    CreateDefault,
    CreatePartition,
    DetachPartition,
    DrainIntoPartition,
    DropDetached,
)
from .archive_gate import MOST_AT_ONCE, ArchiveRequest, CheckRequest, before_detach, drop_case
from .calendar import merge
from .context import PlanContext
from .creation import wanted
from .drop_preconditions import APPROVAL, ARCHIVING, CHECKING, GRACE, HELD, OUTSIDE, POLICY, Kept, all_unmet
from .findings import Finding, refusing
from .inventory import Detached, Partition
from .maintenance import Upkeep
from .marker import Marker, Phase
from .retirement import INTERRUPTED, LEFT_ALONE, Retired, confirmation, detaches_concurrently, detachment, drop_lock
from .schedule import OF_USER, PlannedStep, Wait, WaitsFor, due, step_of

Waits = tuple[Wait, ...]
Turn = tuple[bool, datetime, int, int, tuple[Any, ...]]
Chain = tuple[int, Iterable[PlannedStep]]
"""What becomes of one table, in order, and how many steps come before."""
ARCHIVE, CHECK = "ArchivePartition", "CheckArchive"
"""Steps that Jobs do, not the engine."""
LONGEST_WAIT = 200
"""Characters of a finding that a step repeats at most."""
END = datetime.max.replace(tzinfo=UTC)
OPEN = (WaitsFor.HOLD, WaitsFor.USER)
"""What a detach may wait for that no time brings."""
FROM_GATE = {
    HELD: WaitsFor.HOLD,
    APPROVAL: WaitsFor.APPROVAL,
    ARCHIVING: WaitsFor.ARCHIVE,
    CHECKING: WaitsFor.PROOF,
}
"""By the reason of a drop precondition that is not met. The others are a moment, or say that nothing is to come."""
RETIRE = tuple(each.__name__ for each in (ConfirmDetached, DetachPartition, DropDetached))
MAKE = tuple(each.__name__ for each in (CreatePartition, DrainIntoPartition, AttachDetached, CreateDefault))
TURNS = (*MAKE, *RETIRE, ARCHIVE, CHECK)
"""In which order the steps of one moment come; all others after them."""


def foresee(
    context: PlanContext, actions: Sequence[Action], retired: Retired, upkeep: Upkeep
) -> tuple[PlannedStep, ...]:
    """The actions, which are due, in their order; then all that comes after them, in the order of its moments.

    What only the table can say once something was done is not foreseen: ANALYZE of the parent after VACUUM has counted
    rows, upkeep of a partition that is filled or attached before.
    """
    now = list(due(actions, context.inventory))
    known, coming = {each.id for each in now}, dict[str, tuple[Turn, PlannedStep]]()
    retirement = _retirement(context, retired, detaches_concurrently(context, actions))
    for begun, chain in (*retirement, *_after_finalization(context, actions)):
        before = Counter[datetime | None]({None: begun})
        for step in chain:
            if step.id not in coming:
                coming[step.id] = _turn(step, before[step.not_before]), step
                before[step.not_before] += 1
    for step in due(upkeep.deferred, context.inventory):
        deferred = replace(step, not_before=upkeep.opens)
        coming[step.id] = _turn(deferred, 0), deferred
    return (*now, *(step for _, step in sorted(coming.values(), key=itemgetter(0)) if step.id not in known))


def _turn(step: PlannedStep, number: int) -> Turn:
    """What it is sorted by; what is equal stays as the planner has it. ``number``: of steps before it at its moment."""
    age: tuple[Any, ...] = ()
    if step.range and step.action in (*RETIRE, CHECK):
        # The oldest table first.
        age = (step.range.upper, step.oid)
    turn = TURNS.index(step.action) if step.action in TURNS else len(TURNS)
    moment = step.not_before or datetime.min.replace(tzinfo=UTC)
    return any(each.on in OF_USER for each in step.waits_for), moment, number, turn, age


def _after_finalization(context: PlanContext, actions: Sequence[Action]) -> Iterator[Chain]:
    """What a pending detach leaves: a range that no partition holds, and a table, with our mark where it was ours."""
    pending = [each for each in context.inventory.partitions if each.detach_pending]
    if not pending or context.cutoff is None:
        return
    # A mark of another range, which anyone may write, says nothing.
    left = [_table(each, each.marker) for each in pending if each.marker and each.marker.range == each.range]
    made = [each for each in actions if isinstance(each, CreatePartition | AttachDetached)]
    held = [*(held for each, held in context.ranged if not each.detach_pending), *(each.range for each in made)]
    returning = {each.oid for each in made if isinstance(each, AttachDetached)}
    outside = (*(each for each in context.detached if each.oid not in returning), *left)
    after = replace(context, coverage=tuple(merge(held)), detached=outside)
    gone = (Wait(WaitsFor.DETACH, "its detach is not finished"),)
    for step in due(wanted(after).actions, context.inventory):
        yield 1, [replace(step, waits_for=gone)]
    for table in left:
        yield 1, _of_table(after, table, archive_gate.Step(), gone)


def _retirement(context: PlanContext, retired: Retired, concurrently: bool) -> Iterator[Chain]:
    """Of each expired partition, the oldest first; then of each detached table."""
    leaving = [
        *((each, held, step, None) for each, held, step in retired.gate.detaches),
        *((each, held, before_detach(context, each), why) for each, held, why in retired.staying),
    ]
    requested = {each.oid for each in retired.gate.requests if isinstance(each, ArchiveRequest)}
    for each, held, step, why in leaving:
        action = detachment(context, each, held, concurrently=concurrently)
        yield 0, [_queued(found, step, requested) for found in _of_partition(context, action, each, step, why)]
    for case, step in retired.gate.drops:
        chain = _of_table(context, case.table, step, _stuck(step.trouble))
        yield 0, [_queued(found, step, requested) for found in chain]


def _queued(step: PlannedStep, gate: archive_gate.Step, requested: Collection[int | None]) -> PlannedStep:
    """With what an archive waits for that is not asked for yet."""
    if step.action != ARCHIVE or not isinstance(gate.request, ArchiveRequest) or step.oid in requested:
        return step
    others = Wait(WaitsFor.ARCHIVE, f"those of older tables, of which {MOST_AT_ONCE} are made at a time")
    return replace(step, waits_for=step.waits_for or (others,))


def _of_partition(
    context: PlanContext, action: DetachPartition, each: Partition, gate: archive_gate.Step, why: Finding | None
) -> Iterator[PlannedStep]:
    """Archive, detach, and what follows. ``why`` it stays, beside a hold."""
    mark = Marker(each.oid, context.parent.oid, str(context.parent), action.range, Phase.DETACHED, context.now)
    table, archived = _table(each, mark), context.retention.archive is not None
    context = replace(context, detached=(*context.detached, table))
    kept = _waits(_kept(context, table))
    before = (*_only(kept, WaitsFor.HOLD), *_stuck(why), *_stuck(gate.trouble))
    needed: Waits = _only(kept, WaitsFor.ARCHIVE) if archived else ()
    if needed:
        yield _archive(context, table, before)
    if isinstance(gate.request, CheckRequest):
        # It was attached again after a reading had failed.
        yield _reading(context, table, before)
        needed = (Wait(WaitsFor.PROOF, "its archive was not read again without an error"),)
    yield replace(step_of(action, each), waits_for=(*before, *needed))
    # What is left alone has no mark that counts: nothing follows once the user has detached it.
    if why is None or why.reason != LEFT_ALONE:
        left = (*before, Wait(WaitsFor.DETACH, "it is a partition still"))
        yield from _until_dropped(context, table, archive_gate.Step(), left)


def _of_table(context: PlanContext, table: Detached, gate: archive_gate.Step, before: Waits) -> Iterator[PlannedStep]:
    """What becomes of a table that is no partition, or will be none once ``before`` is over."""
    if table.marker.phase is Phase.DETACHING and context.has_expired(table.marker.range):
        held = _only(_waits(_kept(context, table)), WaitsFor.HOLD)
        yield replace(step_of(confirmation(table, INTERRUPTED), table), waits_for=(*before, *held))
        table = replace(table, marker=replace(table.marker, phase=Phase.DETACHED, since=context.now))
        gate, before = archive_gate.Step(), (*before, Wait(WaitsFor.DETACH, "its detach is not confirmed"))
    yield from _until_dropped(context, table, gate, before)


def _until_dropped(
    context: PlanContext, table: Detached, gate: archive_gate.Step, before: Waits
) -> Iterator[PlannedStep]:
    """Archive, reading and drop of a table whose mark says Detached, or will say so once ``before`` is over."""
    kept = _kept(context, table)
    reasons, waits, retention = {each.reason for each in kept}, _waits(kept), context.retention
    if OUTSIDE in reasons:
        return
    coming, drops = any(each.on is WaitsFor.DETACH for each in before), POLICY not in reasons
    # Of a detach that no time brings, also the end of the grace is not known.
    open_end = coming and (context.spec.mode is Mode.APPROVE or any(each.on in OPEN for each in (*before, *waits)))
    not_before = _grace_end(context, table, coming) if drops and GRACE in reasons and not open_end else None
    if retention.archive is not None:
        held, unproven = _only(waits, WaitsFor.HOLD), _only(waits, WaitsFor.ARCHIVE)
        if unproven:
            yield _archive(context, table, (*before, *held))
        if isinstance(gate.request, CheckRequest):
            yield _reading(context, table, before)
        elif drops and CHECKING in reasons:
            others = (each for each in waits if each.on is not WaitsFor.PROOF)
            yield _reading(context, table, (*before, *others), not_before)
        elif not drops and (coming or unproven):
            yield _reading(context, table, (*before, *held, *unproven))
    if drops:
        error = refusing(table, context.inventory.ties.get(table.oid, ()))
        yield _step(
            table,
            (DropDetached.__name__, DropDetached.verb),
            f"older than {retention.keep_for} (spec.retention.keepFor), once it is detached for {retention.grace} "
            "(spec.retention.grace)",
            drop_lock(table),
            (*before, *waits, *_stuck(Finding.of(str(table), error) if error else None)),
            not_before,
        )


def _archive(context: PlanContext, table: Detached, waits: Waits) -> PlannedStep:
    retention = context.retention
    why = f"older than {retention.keep_for} (spec.retention.keepFor); goes into {retention.archive} before it may leave"
    return _step(table, (ARCHIVE, "archive"), why, f"ACCESS SHARE on {table}", waits)


def _reading(context: PlanContext, table: Detached, waits: Waits, not_before: datetime | None = None) -> PlannedStep:
    why = f"its archive in {context.retention.archive} and the table are read again and compared"
    return _step(table, (CHECK, "compare with the archive"), why, f"ACCESS SHARE on {table}", waits, not_before)


def _step(
    table: Detached,
    kind: tuple[str, str],
    reason: str,
    lock: str,
    waits: Iterable[Wait],
    not_before: datetime | None = None,
) -> PlannedStep:
    """``kind``: action and verb."""
    return PlannedStep(
        action=kind[0],
        verb=kind[1],
        noun=DropDetached.noun if kind[0] != ARCHIVE else "partition",
        schema=table.schema,
        name=table.name,
        oid=table.oid,
        range=table.marker.range,
        reason=reason,
        lock=lock,
        rows=table.rows,
        bytes=table.bytes,
        not_before=not_before,
        waits_for=tuple(dict.fromkeys(waits)),
    )


def _table(each: Partition, mark: Marker) -> Detached:
    """The partition as a table of its own."""
    return Detached(each.oid, each.schema, each.name, mark, rows=each.rows, bytes=each.bytes)


def _kept(context: PlanContext, table: Detached) -> list[Kept]:
    """All that keeps the table from being dropped now."""
    return list(all_unmet(drop_case(context, table)))


def _waits(kept: Iterable[Kept]) -> Waits:
    return tuple(Wait(FROM_GATE[each.reason], each.message) for each in kept if each.reason in FROM_GATE)


def _only(waits: Waits, kind: WaitsFor) -> Waits:
    return tuple(each for each in waits if each.on is kind)


def _stuck(why: Finding | None) -> Waits:
    """For the user, who finds the whole message among the findings."""
    return () if why is None else (Wait(WaitsFor.USER, shorten(why.message, LONGEST_WAIT, placeholder=" …")),)


def _grace_end(context: PlanContext, table: Detached, coming: bool) -> datetime:
    """When the grace is over. ``coming``: it has not begun; counted from the last whole hour then, so that the same
    plan of a later minute says the same. It is no later than the true end, and may be past where the grace is short.
    """
    begins = table.marker.since
    if coming:
        begins = begins.replace(minute=0, second=0, microsecond=0)
    try:
        return begins + context.retention.grace_period
    except OverflowError:
        return END
