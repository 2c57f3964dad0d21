"""What a status shows of a table: totals, the partitions worth listing, what is still to be done, what was found.

Everything is bounded here, however many partitions a table has: what is not listed is still counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from ..api.forecast import Forecast
from ..api.status import (
    FOR_EVER,
    MAX_MESSAGE,
    MAX_PARTITIONS,
    MAX_PLAN,
    FindingStatus,
    Largest,
    LongAction,
    PartitionPolicyStatus,
    PartitionStatus,
    PlannedAction,
    Severity,
    State,
    Summary,
)
from ..errors import TableBusy, printable
from ..planner.actions import Outcome
from ..planner.calendar import BoundedRange, Range, iso
from ..planner.inventory import Detached, Inventory, Partition, RelationKind
from ..planner.marker import Phase
from ..planner.plan import Plan
from ..planner.recheck import Step
from ..planner.schedule import PlannedStep, WaitsFor
from .next_action import next_action
from .warnings import Graded, chosen, in_few_words, of_severity

MAX_NOTABLE = MAX_PARTITIONS // 2
"""Partitions with something to say that may push plain ones off the list."""
NOTABLE = (
    State.DEFAULT,
    State.UNMANAGED,
    State.LEGACY,
    State.SPLITTING,
    State.DETACH_PENDING,
    State.EXPIRED,
    State.HELD,
)
MOST_SECONDS = 10**9
"""Of a Job: what is beyond it was not measured but forged."""
MAX_OUTSIDE = 50
"""Detached tables that are listed, the youngest first to be."""
MAX_BYTES = 48_000
"""Of a table's details as JSON: with the conditions, the whole status stays under 64 KiB."""


def details(
    inventory: Inventory,
    plan: Plan,
    outcomes: Sequence[Outcome],
    found: Sequence[Graded] = (),
    forecast: Forecast | None = None,
) -> PartitionPolicyStatus:
    """The part of the status that describes the table; conditions and generation are left empty.

    Sizes and estimates have two significant digits: a table that grows steadily is no new status at each reconcile.
    """
    outside = sorted(inventory.detached, key=_age)[-MAX_OUTSIDE:]
    listed = _nearest(inventory.partitions, plan, MAX_PARTITIONS - len(outside))
    pending = [planned(each, outcomes) for each in plan.steps[:MAX_PLAN]]
    warnings = in_few_words([each.reason for each in of_severity(found, Severity.WARNING)])
    found = chosen(found)
    while True:
        summary = _rough_summary(summarise(inventory, plan, len(listed), forecast))
        whole = PartitionPolicyStatus(
            summary=summary.model_copy(update={"warnings": warnings}),
            partitions=[
                *(_rough_partition(_describe(each, plan)) for each in outside),
                *(_rough_partition(_describe(each, plan)) for each in listed),
            ],
            plan=pending,
            plan_digest=plan.gate.open or None,
            approved_plan=plan.gate.record,
            next=next_action(plan.upcoming.next, plan),
            next_drop=next_action(plan.upcoming.next_drop, plan),
            findings=[finding_status(each) for each in found],
        )
        if len(whole.model_dump_json(by_alias=True, exclude_none=True).encode()) <= MAX_BYTES or not (
            listed or outside
        ):
            return whole
        listed = _nearest(inventory.partitions, plan, len(listed) * 3 // 4)
        outside = outside[len(outside) - len(outside) * 3 // 4 :]
        pending, found = pending[: max(10, len(pending) * 3 // 4)], chosen(found, max(10, len(found) * 3 // 4))


def partitions_of(inventory: Inventory, plan: Plan) -> list[PartitionStatus]:
    """All of them, ascending, DEFAULT last; before them the tables that were detached."""
    outside = sorted(inventory.detached, key=_age)
    ordered = _nearest(inventory.partitions, plan, len(inventory.partitions))
    return [*(_describe(each, plan) for each in outside), *(_describe(each, plan) for each in ordered)]


def summarise(inventory: Inventory, plan: Plan, listed: int, forecast: Forecast | None = None) -> Summary:
    """Totals over every partition. Nothing in it changes while the table and its calendar stay as they are."""
    partitions = inventory.partitions
    rows = [each.rows for each in partitions if each.rows is not None]
    total = sum(each.bytes for each in partitions)
    counted = inventory.default_rows
    largest = max(partitions, key=lambda each: each.bytes, default=None)
    runway = max(0, (plan.covered_until - plan.current.upper).days) if plan.covered_until else 0
    return Summary(
        table=str(plan.parent),
        key=plan.key,
        interval=plan.interval,
        partitions=len(partitions),
        managed=len(plan.managed),
        expired=len(plan.retired.expired) if plan.retired.decided else None,
        detached=len(inventory.detached) if plan.retired.decided else None,
        listed=listed,
        pending=len(plan.actions),
        missing=len(plan.missing),
        rows=sum(rows) if rows else None,
        default_rows=counted.total if inventory.default and counted and counted.error is None else None,
        total_bytes=total,
        size=human(total),
        covered_until=FOR_EVER if plan.covered_for_ever else iso(plan.covered_until),
        runway_days=None if plan.covered_for_ever else runway,
        ahead=plan.upcoming.ahead,
        runs_out_at=iso(plan.upcoming.runs_out),
        creation_due_at=iso(plan.upcoming.creation_due),
        oldest_expired_at=iso(plan.upcoming.oldest_expired),
        largest=Largest(name=_name(largest, plan), bytes=largest.bytes, size=human(largest.bytes)) if largest else None,
        forecast=forecast,
    )


def summary_line(inventory: Inventory, plan: Plan) -> str:
    """``10 partitions, covered until 2029-01-01T00:00:00Z``."""
    count = len(inventory.partitions)
    until = "for ever" if plan.covered_for_ever else f"until {iso(plan.covered_until)}"
    covered = f"covered {until}" if plan.covered_for_ever or plan.covered_until else "now is not covered"
    return f"{count} partition{'' if count == 1 else 's'}, {covered}"


def expected(found: Forecast) -> list[tuple[str, str]]:
    """A forecast for people: label and text of each line. What was not measured has none."""
    rows = "" if found.rows_per_day is None else f"~{found.rows_per_day:,} rows, "
    growth = "" if found.growth_percent is None else f", {found.growth_percent:+d}% every 30 days"
    lines = [
        ("each day", f"{rows}{human(found.bytes_per_day)} on disk{growth}, by {found.partitions} closed partitions"),
        ("next partition", f"~{human(found.next_partition_bytes)}"),
    ]
    if found.threshold_reached:
        lines.append(("over threshold", found.threshold_reached))
    if found.next_archive:
        size, seconds = found.next_archive_bytes, found.next_archive_seconds
        text = found.next_archive if size is None else f"{found.next_archive}, ~{human(size)}"
        took = "" if seconds is None else f" in ~{timedelta(seconds=max(0, min(seconds, MOST_SECONDS)))}"
        lines.append(("next archive", f"{text}{took}, by {found.archives} archives"))
    if found.claim_full:
        lines.append(("claim full", found.claim_full))
    return lines


def long_action(step: Step, since: datetime) -> LongAction:
    """``since`` is aware."""
    return LongAction(
        action=cut(step.action),
        object=cut(step.object),
        since=iso(since.replace(microsecond=0)) or "",
        bytes=rough(step.bytes),
        size=human(rough(step.bytes)),
    )


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


def rough(number: int) -> int:
    """To two significant digits."""
    return round(number, 2 - len(str(number)))


def _rough_partition(exact: PartitionStatus) -> PartitionStatus:
    rows = None if exact.rows is None else rough(exact.rows)
    return exact.model_copy(update={"rows": rows, "bytes": rough(exact.bytes)})


def _rough_summary(exact: Summary) -> Summary:
    rows, total, largest = exact.rows, rough(exact.total_bytes), exact.largest
    if largest is not None:
        size = rough(largest.bytes)
        largest = largest.model_copy(update={"bytes": size, "size": human(size)})
    rows = None if rows is None else rough(rows)
    return exact.model_copy(update={"rows": rows, "total_bytes": total, "size": human(total), "largest": largest})


def span(piece: Range) -> str:
    """A range for people, half open."""
    return f"[{iso(piece.lower) or 'MINVALUE'}, {iso(piece.upper) or 'MAXVALUE'})"


def cut(message: str) -> str:
    """One line of at most MAX_MESSAGE characters."""
    message = printable(message)
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"


def _nearest(partitions: Sequence[Partition], plan: Plan, limit: int) -> list[Partition]:
    """At most ``limit`` of them, ascending by lower bound, DEFAULT last."""
    by_distance = sorted(partitions, key=lambda each: _distance(each.range, plan.current))
    notable = [each for each in by_distance if _is_notable(each, plan)][: min(MAX_NOTABLE, limit)]
    taken = {each.oid for each in notable}
    plain = [each for each in by_distance if each.oid not in taken][: limit - len(notable)]

    def position(each: Partition) -> tuple[int, timedelta, str]:
        if each.range is None:
            return 2, timedelta(0), each.name
        if each.range.lower is None:
            return 0, timedelta(0), each.name
        return 1, each.range.lower - plan.current.lower, each.name

    return sorted([*notable, *plain], key=position)


def _distance(held: Range | None, current: BoundedRange) -> timedelta:
    if held is not None and held.upper is not None and held.upper <= current.lower:
        return current.lower - held.upper
    if held is not None and held.lower is not None and held.lower >= current.upper:
        return held.lower - current.upper
    return timedelta(0)


def _came_back(each: Partition | Detached) -> bool:
    """From an archive: retention leaves it alone."""
    return each.marker is not None and each.marker.phase is Phase.RESTORED


def _is_notable(each: Partition, plan: Plan) -> bool:
    odd = each.oid in plan.upkeep.oversized or each.kind is not RelationKind.TABLE or _came_back(each)
    return odd or plan.upcoming.is_held(each) or _state(each, plan) in NOTABLE


def _state(each: Partition, plan: Plan) -> State:
    if each.detach_pending:
        return State.DETACH_PENDING
    if each.range is None:
        return State.DEFAULT
    # Before the rest: a day expires that is off the grid of months, also one of the current year.
    if each.oid in plan.retired.expired:
        return State.HELD if each.oid in plan.retired.kept else State.EXPIRED
    if each.converted:
        return State.LEGACY
    if each.oid in plan.growing:
        return State.SPLITTING
    if each.oid not in plan.managed:
        return State.UNMANAGED
    if each.range.overlaps(plan.current):
        return State.CURRENT
    return State.PAST if each.range.lower is not None and each.range.lower < plan.current.lower else State.FUTURE


def _name(each: Partition | Detached, plan: Plan) -> str:
    return each.name if each.schema == plan.parent.schema else str(each)


def _describe(each: Partition | Detached, plan: Plan) -> PartitionStatus:
    held: Range | None
    if isinstance(each, Detached):
        held, state, kind = each.marker.range, State.DETACHED, RelationKind.TABLE
    else:
        held, state, kind = each.range, _state(each, plan), each.kind
    return PartitionStatus(
        name=_name(each, plan),
        from_=iso(held.lower) if held else None,
        to=iso(held.upper) if held else None,
        rows=each.rows,
        bytes=each.bytes,
        state=state,
        kind=None if kind is RelationKind.TABLE else str(kind),
        oid=each.oid if state is State.DETACHED or each.oid in plan.retired.expired else None,
        over_threshold=True if each.oid in plan.upkeep.oversized else None,
        expires_at=iso(plan.upcoming.expires_at(each)),
        drop_after=iso(plan.upcoming.drop_after(each)),
        held=plan.upcoming.is_held(each) or None,
        restored=_came_back(each) or None,
        archive=plan.upcoming.archive(each),
    )


def _age(each: Detached) -> tuple[str, str]:
    return iso(each.marker.range.lower) or "", each.name


def planned(step: PlannedStep, outcomes: Sequence[Outcome] = ()) -> PlannedAction:
    """One step, and the lock holder that kept it from being done."""
    waits = [f"{wait.on}: {wait.message}" for wait in step.waits_for]
    what = step.action, step.schema, step.name
    for each in outcomes:
        if isinstance(each.error, TableBusy) and what == (
            type(each.action).__name__,
            each.action.schema,
            each.action.name,
        ):
            # "cannot drop table public.run_2018: cannot lock …": what cannot be done is the step.
            waits.append(f"{WaitsFor.LOCK}: {str(each.error).partition(': ')[2] or each.error}")
    return PlannedAction(
        action=step.action,
        partition=step.name,
        from_=iso(step.range.lower) if step.range else None,
        to=iso(step.range.upper) if step.range else None,
        reason=step.reason,
        lock=step.lock,
        rows=None if step.rows is None else rough(step.rows),
        bytes=None if step.bytes is None else rough(step.bytes),
        not_before=iso(step.not_before),
        waits_for=[cut(each) for each in waits],
    )


def finding_status(each: Graded) -> FindingStatus:
    """One finding, bounded."""
    severity, found = each
    subject, message = printable(found.object), cut(found.message)
    return FindingStatus(reason=found.reason, object=subject, message=message, severity=severity)
