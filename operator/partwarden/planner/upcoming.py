"""What comes next, and when: also what has not begun, such as the expiry of a partition that is kept for years. Pure.

Moments follow from the policy and from what exists, never from now: a status that shows them changes only with these.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from ..api.policy import Mode
from ..api.retention import Approval, OnExpire
from ..api.types import parse_age
from ..errors import UserError
from .actions import CreatePartition, DetachPartition, DropDetached
from .calendar import HOUR, BoundedRange, Grid, Range, merge, subtract
from .context import DAYS, MONTHS, PlanContext, cutoff
from .creation import Wanted
from .foresight import ARCHIVE
from .inventory import Detached, Partition
from .keys import Codec, partition_name
from .marker import Phase
from .retirement import BY_USER, why_left_alone
from .schedule import OF_USER, PlannedStep, Wait, WaitsFor

SECOND, INSTANT = timedelta(seconds=1), timedelta(microseconds=1)
MOST_AHEAD = 1000
"""Intervals of coverage that are counted: as many as ``spec.premake`` may say."""
NEVER_BY_ITSELF = frozenset({WaitsFor.HOLD, WaitsFor.USER})
"""What a drop waits for that the policy does not make by itself, as things stand."""
DROP = DropDetached.__name__


@dataclass(frozen=True, slots=True)
class Upcoming:
    """``next``: what is done next. ``next_drop``: the next drop of what exists now. None: nothing, as things stand."""

    next: PlannedStep | None
    next_drop: PlannedStep | None
    """``not_before`` may be past: the drop is due then, or waits."""
    ahead: int | None
    """Whole intervals of unbroken coverage after the current one, `MOST_AHEAD` at most; None: without end."""
    runs_out: datetime | None
    """When the coverage ends that holds now, aware; where none does, when the last one ended. None: never."""
    creation_due: datetime | None
    """When the first range will be wanted, aware, that no partition holds: past where one is missing. None: never."""
    oldest_expired: datetime | None
    """When that partition expired which expired first, of those that are attached still, that no hold keeps and no user
    has attached again."""
    context: PlanContext = field(repr=False, compare=False)

    def expires_at(self, table: Partition | Detached) -> datetime | None:
        """As the function `expires_at`."""
        return expires_at(self.context, table)

    def drop_after(self, table: Partition | Detached) -> datetime | None:
        """As the function `drop_after`."""
        return drop_after(self.context, table)

    def is_held(self, table: Partition | Detached) -> bool:
        """Whether a hold names it, expired or not."""
        return self.context.is_held(table)

    def archive(self, table: Partition | Detached) -> str | None:
        """The PartitionArchive that counts for it, proven or not."""
        state = self.context.archives.latest(table.oid)
        return state.name if state else None


def upcoming(context: PlanContext, wanted: Wanted, steps: Sequence[PlannedStep], covered: Range | None) -> Upcoming:
    """``steps``: those of the plan. ``covered``: the unbroken coverage that holds now."""
    oldest, leaving = _retirement(context)
    coming = [*steps, *_creation(context, wanted), *leaving]
    end = covered.upper if covered else _ended(context)
    return Upcoming(
        next=min(coming, key=_order, default=None),
        next_drop=min(_drops(context, coming), key=_order, default=None),
        ahead=None if end is None else _ahead(context, end),
        runs_out=None if end is None else context.instant(end),
        creation_due=None if end is None else _wanted_since(context, end),
        oldest_expired=oldest,
        context=context,
    )


def expires_at(context: PlanContext, table: Partition | Detached) -> datetime | None:
    """The first moment, aware, at which the whole range is older than ``retention.keepFor``, to the second.

    None: never, or beyond the calendar. Whether the partition is detached then is not asked: a hold may keep it.
    """
    return _expiry(context, held.upper) if (held := _dated(context, table)) else None


def drop_after(context: PlanContext, table: Partition | Detached) -> datetime | None:
    """The earliest moment, aware, to the second, rounded up, at which the policy may drop the table; it may be past.

    None: never, as things stand; or it has expired and is attached still, so that its grace has not begun.
    """
    if context.spec.retention is None or context.retention.on_expire is not OnExpire.DROP:
        return None
    expires, grace = expires_at(context, table), context.retention.grace_period
    try:
        if isinstance(table, Detached):
            detached = table.marker.phase is Phase.DETACHED
            return max(expires, _up(table.marker.since + grace)) if expires and detached else None
        left = why_left_alone(table) is not None or expires is None or expires <= context.now
        return None if left or expires is None else expires + grace
    except OverflowError:
        return None


def _ended(context: PlanContext) -> datetime:
    """Where the last coverage before now ended; without one, where the current interval begins."""
    ends = (each.upper for each in context.coverage if each.upper and each.upper <= context.moment)
    return max(ends, default=context.current.lower)


def _ahead(context: PlanContext, end: datetime) -> int:
    count, cell = 0, context.current
    while count < MOST_AHEAD and cell.upper < end and (cell := context.grid.cell(cell.upper)).upper <= end:
        count += 1
    return count


def _wanted_since(context: PlanContext, start: datetime) -> datetime | None:
    """When what begins at ``start`` comes to be wanted: so many intervals earlier as are kept ready."""
    try:
        cell = context.grid.cell(start)
        for _ in range(context.spec.premake):
            cell = context.grid.cell(cell.lower - INSTANT)
        return context.instant(cell.lower)
    except (OverflowError, ValueError):
        return None


def _creation(context: PlanContext, wanted: Wanted) -> Iterator[PlannedStep]:
    """The first range that will be wanted and that no partition holds, once all that is wanted now exists."""
    coverage = merge([*context.coverage, *wanted.missing])
    try:
        start: datetime | None = wanted.cells[context.spec.premake].upper
        if held := next((each for each in coverage if start and each.contains(start)), None):
            start = held.upper
        if start is None or (at := _wanted_since(context, start)) is None:
            return
        piece = subtract(context.grid.cell(start), coverage)[0]
        name = partition_name(context.spec.table.name, context.spec.name_format, context.grid, piece)
    except (UserError, OverflowError, ValueError):
        return  # its name is too long, which the plan says once it is wanted; or the calendar ends
    yield PlannedStep(
        action=CreatePartition.__name__,
        verb=CreatePartition.verb,
        schema=context.parent.schema,
        name=name,
        range=piece,
        reason=f"{context.spec.premake} ahead (spec.premake)",
        lock="",
        not_before=at,
    )


def _retirement(context: PlanContext) -> tuple[datetime | None, list[PlannedStep]]:
    """When the first of the expired that stay attached without a hold has expired, and what becomes of the next."""
    if context.cutoff is None:
        return None, []
    free = [(each, held) for each, _ in context.ranged if not context.is_held(each) and (held := _dated(context, each))]
    late = [held for each, held in free if not (each.marker and each.marker.phase in BY_USER)]
    past = min((held.upper for held in late if context.has_expired(held)), default=None)
    young = [each for each in free if not context.has_expired(each[1]) and why_left_alone(each[0]) is None]
    oldest = _expiry(context, past) if past else None
    if not young or (at := _expiry(context, (first := min(young, key=lambda each: each[1].upper))[1].upper)) is None:
        return oldest, []
    partition, held = first
    retention, state = context.retention, context.archives.latest(partition.oid)
    archives = retention.archive is not None and (state is None or not state.proves(partition.oid))
    step = PlannedStep(
        action=ARCHIVE if archives else DetachPartition.__name__,
        verb="archive" if archives else DetachPartition.verb,
        schema=partition.schema,
        name=partition.name,
        oid=partition.oid,
        range=held,
        reason=f"older than {retention.keep_for} (spec.retention.keepFor)",
        lock="",
        rows=partition.rows,
        bytes=partition.bytes,
        not_before=at,
    )
    if (dropped := drop_after(context, partition)) is None:
        return oldest, [step]
    waits = [Wait(WaitsFor.ARCHIVE, f"an archive in {retention.archive} that is proven")] if archives else []
    if retention.approval is Approval.MANUAL or context.spec.mode is Mode.APPROVE:
        waits.append(Wait(WaitsFor.APPROVAL, "the user, who approves each drop, or each plan"))
    drop = replace(step, action=DROP, verb=DropDetached.verb, not_before=dropped, waits_for=tuple(waits))
    return oldest, [step, drop]


def _drops(context: PlanContext, steps: Sequence[PlannedStep]) -> Iterator[PlannedStep]:
    """Those of the steps that drop what exists, each at the earliest moment at which it can."""
    tables = {each.oid: each for each in context.detached}
    for step in steps:
        waits = {wait.on for wait in step.waits_for}
        if step.action != DROP or waits & NEVER_BY_ITSELF:
            continue
        if table := tables.get(step.oid or 0):
            step = replace(step, not_before=drop_after(context, table))
        # Its grace begins once it is detached, and with each moment until then it ends later.
        yield replace(step, not_before=None) if WaitsFor.DETACH in waits else step


def _order(step: PlannedStep) -> tuple[bool, datetime, bool]:
    """What waits for the user comes last, and before it what waits for nothing, then by moment."""
    of_user = any(wait.on in OF_USER for wait in step.waits_for)
    return of_user, step.not_before or datetime.min.replace(tzinfo=UTC), bool(step.waits_for)


def next_change(context: PlanContext, wanted: Wanted) -> datetime:
    """The first moment, aware, at which something expires or a grace ends; at the latest the next boundary."""
    # By instants for naive keys too: a clock set back over midnight shows a boundary twice, and the first is past.
    boundary = context.clock.cell(context.now).upper
    if context.cutoff is None:
        return boundary
    moments = [boundary]
    if context.retention.on_expire is OnExpire.DROP:
        # Differences: the sum of a grace and of whatever moment a mark names may lie beyond the calendar.
        left = (context.retention.grace_period - (context.now - each.marker.since) for each in context.detached)
        moments += [context.now + some for some in left if timedelta(0) < some < boundary - context.now]
    ranges = [held for _, held in context.ranged]
    ranges += [each.marker.range for each in context.detached]
    ranges += [each.range for each in wanted.actions if isinstance(each, CreatePartition)]
    young = (held.upper for held in ranges if held.upper is not None and held.upper > context.cutoff)
    if (first := min(young, default=None)) and (expires := _expiry(context, first)):
        moments.append(expires)
    return min(moments)


def _dated(context: PlanContext, table: Partition | Detached) -> BoundedRange | None:
    """The range of a table that retention takes once that has expired; None where it never does."""
    if context.cutoff is None:
        return None
    if isinstance(table, Detached):
        # What a mark says may be impossible, such as bounds that the key cannot have.
        counts = table in context.detached and table.marker.phase is not Phase.RESTORED
        return table.marker.range if counts else None
    return context.may_expire(table.range) if table.range and not table.detach_pending else None


def _expiry(context: PlanContext, upper: datetime) -> datetime | None:
    return _expiry_of(context.retention.keep_for, upper, context.clock, context.codec)


@lru_cache(maxsize=20_000)
def _expiry_of(keep_for: str, upper: datetime, clock: Grid, codec: Codec) -> datetime | None:
    """When `cutoff` comes to ``upper``. The same at each plan, so that a table of many partitions costs little.

    The calendar's own arithmetic finds it nearly always; where the clock is set or a month is too short, a search does.
    """

    def expired(now: datetime) -> bool:
        return cutoff(keep_for, now, clock, codec) >= upper

    try:
        near = _up(_forward(keep_for, upper, clock, codec))
        step = -SECOND if (over := expired(near)) else SECOND
        while expired(far := near + step) is over:
            near, step = far, 60 * step
    except (OverflowError, ValueError):
        return None
    early, late = (far, near) if over else (near, far)
    while late - early > SECOND:
        middle = early + (late - early) // (2 * SECOND) * SECOND
        early, late = (early, middle) if expired(middle) else (middle, late)
    return late


def _forward(keep_for: str, upper: datetime, clock: Grid, codec: Codec) -> datetime:
    """``upper`` and ``keep_for``, added by the calendar: aware. Raises ValueError or OverflowError beyond its end."""
    count, unit = parse_age(keep_for)
    if unit == "h":
        return (upper if codec.aware else clock.moment(upper)) + count * HOUR
    local = clock.local(upper) if codec.aware else upper
    if unit in DAYS:
        return clock.moment(local + timedelta(days=count * DAYS[unit]))
    year, month = divmod(local.year * 12 + local.month - 1 + count * MONTHS[unit], 12)
    if local.day <= monthrange(year, month + 1)[1]:
        return clock.moment(local.replace(year=year, month=month + 1))
    return clock.moment(datetime(year + (month == 11), (month + 1) % 12 + 1, 1))  # noqa: DTZ001 - by the wall clock


def _up(moment: datetime) -> datetime:
    """In UTC, to the second, rounded up."""
    whole = moment.astimezone(UTC).replace(microsecond=0)
    return whole if whole == moment else whole + SECOND
