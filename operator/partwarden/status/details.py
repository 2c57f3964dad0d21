"""What a status shows of a table: totals, the partitions worth listing, what is still to be done, what was found.

Everything is bounded here, however many partitions a table has: what is not listed is still counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from ..api.status import (
    FOR_EVER,
    MAX_FINDINGS,
    MAX_MESSAGE,
    MAX_PARTITIONS,
    MAX_PLAN,
    FindingStatus,
    Largest,
    PartitionPolicyStatus,
    PartitionStatus,
    PlannedAction,
    State,
    Summary,
)
from ..errors import printable
from ..planner.actions import Action, Outcome
from ..planner.calendar import Range, iso
from ..planner.drop_preconditions import APPROVAL
from ..planner.inventory import Detached, Inventory, Partition, RelationKind
from ..planner.plan import Plan

MAX_NOTABLE = MAX_PARTITIONS // 2
"""Partitions with something to say that may push plain ones off the list."""
NOTABLE = (State.DEFAULT, State.UNMANAGED, State.DETACH_PENDING, State.EXPIRED, State.HELD)
MAX_OUTSIDE = 50
"""Detached tables that are listed, the youngest first to be."""
MAX_BYTES = 48_000
"""Of a table's details as JSON: with the conditions, the whole status stays under 64 KiB."""


def details(inventory: Inventory, plan: Plan, outcomes: Sequence[Outcome]) -> PartitionPolicyStatus:
    """The part of the status that describes the table; conditions and generation are left empty."""
    outside = sorted(inventory.detached, key=_age)[-MAX_OUTSIDE:]
    listed = _nearest(inventory.partitions, plan, MAX_PARTITIONS - len(outside))
    pending = [_planned(action) for action in plan.actions[:MAX_PLAN]]
    found = _found(plan, outcomes)
    while True:
        whole = PartitionPolicyStatus(
            summary=summarise(inventory, plan, len(listed)),
            partitions=[*(_outside(each, plan) for each in outside), *(_describe(each, plan) for each in listed)],
            plan=pending,
            findings=found,
        )
        if len(whole.model_dump_json(by_alias=True, exclude_none=True).encode()) <= MAX_BYTES or not (
            listed or outside
        ):
            return whole
        listed = _nearest(inventory.partitions, plan, len(listed) * 3 // 4)
        outside = outside[len(outside) - len(outside) * 3 // 4 :]
        pending, found = pending[: max(10, len(pending) * 3 // 4)], found[: max(10, len(found) * 3 // 4)]


def partitions_of(inventory: Inventory, plan: Plan) -> list[PartitionStatus]:
    """All of them, ascending, DEFAULT last; before them the tables that were detached."""
    outside = sorted(inventory.detached, key=_age)
    ordered = _nearest(inventory.partitions, plan, len(inventory.partitions))
    return [*(_outside(each, plan) for each in outside), *(_describe(each, plan) for each in ordered)]


def summarise(inventory: Inventory, plan: Plan, listed: int) -> Summary:
    """Totals over every partition. Nothing in it changes while the table and its calendar stay as they are."""
    partitions = inventory.partitions
    rows = [each.rows for each in partitions if each.rows is not None]
    total = sum(each.bytes for each in partitions)
    largest = max(partitions, key=lambda each: each.bytes, default=None)
    return Summary(
        table=str(plan.parent),
        key=plan.key,
        partitions=len(partitions),
        managed=len(plan.managed),
        expired=len(plan.retired.expired) if plan.retired.decided else None,
        detached=len(inventory.detached) if plan.retired.decided else None,
        listed=listed,
        pending=len(plan.actions),
        missing=len(plan.missing),
        rows=sum(rows) if rows else None,
        default_rows=_default_rows(inventory),
        total_bytes=total,
        size=human(total),
        covered_until=FOR_EVER if plan.covered_for_ever else iso(plan.covered_until),
        runway_days=_runway(plan),
        largest=Largest(name=_name(largest, plan), bytes=largest.bytes, size=human(largest.bytes)) if largest else None,
    )


def _default_rows(inventory: Inventory) -> int | None:
    found = inventory.default_rows
    return found.total if inventory.default is not None and found is not None and found.error is None else None


def summary_line(inventory: Inventory, plan: Plan) -> str:
    """``10 partitions, covered until 2029-01-01T00:00:00Z``."""
    count = len(inventory.partitions)
    until = "for ever" if plan.covered_for_ever else f"until {iso(plan.covered_until)}"
    covered = f"covered {until}" if plan.covered_for_ever or plan.covered_until else "now is not covered"
    return f"{count} partition{'' if count == 1 else 's'}, {covered}"


def human(size: int) -> str:
    """Bytes for people, in Kubernetes' binary units: ``512``, ``32.6Mi``, ``1.2Ti``."""
    if size < 1024:
        return str(size)
    amount = float(size)
    for unit in ("Ki", "Mi", "Gi", "Ti", "Pi"):
        amount /= 1024
        if amount < 1024 or unit == "Pi":
            break
    return f"{amount:.1f}{unit}"


def span(piece: Range) -> str:
    """A range for people, half open."""
    return f"[{iso(piece.lower) or 'MINVALUE'}, {iso(piece.upper) or 'MAXVALUE'})"


def cut(message: str) -> str:
    """One line of at most MAX_MESSAGE characters."""
    message = printable(message)
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"


def _runway(plan: Plan) -> int | None:
    if plan.covered_for_ever:
        return None
    if plan.covered_until is None or plan.current.upper is None:
        return 0
    return max(0, (plan.covered_until - plan.current.upper).days)


def _nearest(partitions: Sequence[Partition], plan: Plan, limit: int) -> list[Partition]:
    """At most ``limit`` of them, ascending by lower bound, DEFAULT last."""
    by_distance = sorted(partitions, key=lambda each: _distance(each.range, plan.current))
    notable = [each for each in by_distance if _is_notable(each, plan)][: min(MAX_NOTABLE, limit)]
    taken = {each.oid for each in notable}
    plain = [each for each in by_distance if each.oid not in taken][: limit - len(notable)]
    current = plan.current.lower

    def position(each: Partition) -> tuple[int, timedelta, str]:
        if each.range is None:
            return 2, timedelta(0), each.name
        if each.range.lower is None or current is None:
            return 0, timedelta(0), each.name
        return 1, each.range.lower - current, each.name

    return sorted([*notable, *plain], key=position)


def _distance(held: Range | None, current: Range) -> timedelta:
    if held is None:
        return timedelta(0)
    if held.upper is not None and current.lower is not None and held.upper <= current.lower:
        return current.lower - held.upper
    if held.lower is not None and current.upper is not None and held.lower >= current.upper:
        return held.lower - current.upper
    return timedelta(0)


def _is_notable(each: Partition, plan: Plan) -> bool:
    if each.oid in plan.upkeep.oversized:
        return True
    return _state(each, plan) in NOTABLE or _kind(each) is not None


def _state(each: Partition, plan: Plan) -> State:
    if each.detach_pending:
        return State.DETACH_PENDING
    if each.range is None:
        return State.DEFAULT
    if each.oid not in plan.managed:
        return State.UNMANAGED
    if each.range.overlaps(plan.current):
        return State.CURRENT
    if each.oid in plan.retired.expired:
        return State.HELD if each.oid in plan.retired.kept else State.EXPIRED
    return State.PAST if each.range.lower is not None and each.range.lower < plan.current.lower else State.FUTURE


def _kind(each: Partition) -> str | None:
    return None if each.kind is RelationKind.TABLE else str(each.kind)


def _name(each: Partition | Detached, plan: Plan) -> str:
    return each.name if each.schema == plan.parent.schema else str(each)


def _describe(each: Partition, plan: Plan) -> PartitionStatus:
    return PartitionStatus(
        name=_name(each, plan),
        from_=iso(each.range.lower) if each.range else None,
        to=iso(each.range.upper) if each.range else None,
        rows=each.rows,
        bytes=each.bytes,
        state=_state(each, plan),
        kind=_kind(each),
        oid=each.oid if each.oid in plan.retired.expired else None,
        over_threshold=True if each.oid in plan.upkeep.oversized else None,
    )


def _age(each: Detached) -> tuple[str, str]:
    return iso(each.marker.range.lower) or "", each.name


def _outside(each: Detached, plan: Plan) -> PartitionStatus:
    return PartitionStatus(
        name=_name(each, plan),
        from_=iso(each.marker.range.lower),
        to=iso(each.marker.range.upper),
        rows=each.rows,
        bytes=each.bytes,
        state=State.DETACHED,
        oid=each.oid,
    )


def _planned(action: Action) -> PlannedAction:
    return PlannedAction(
        action=type(action).__name__,
        partition=action.name,
        from_=iso(action.range.lower) if action.range else None,
        to=iso(action.range.upper) if action.range else None,
        reason=action.reason,
        lock=action.lock,
    )


def _found(plan: Plan, outcomes: Sequence[Outcome]) -> list[FindingStatus]:
    """Approvals that are waited for, then failures, errors and notices.

    An approval is an Event when it comes into the list, so it is never cut off by others.
    """
    approvals = [(each.reason, each.object, each.message) for each in plan.findings if each.reason == APPROVAL]
    failed = [(each.error.reason, str(each.action), str(each.error)) for each in outcomes if each.error]
    errors = [(each.reason, each.object, each.message) for each in plan.findings if each.error]
    notices = [
        (each.reason, each.object, each.message) for each in plan.findings if not each.error and each.reason != APPROVAL
    ]
    return [
        FindingStatus(reason=reason, object=printable(subject), message=cut(message))
        for reason, subject, message in [*approvals, *failed, *errors, *notices][:MAX_FINDINGS]
    ]
