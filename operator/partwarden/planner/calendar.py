"""Calendar steps and half-open ranges: where a partition of a policy begins and ends.

A moment is a ``datetime`` in the domain of the partition key: aware and in UTC for ``timestamptz``, naive for
``timestamp`` and ``date`` (a date is its midnight). The two are never mixed. Ranges include their lower bound and
exclude the upper one, as PostgreSQL's ``FOR VALUES FROM … TO …`` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..api.period import Period
from ..api.policy import TableSpec
from ..api.types import Interval, is_zone, parse_window
from ..errors import UnknownTimeZone

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MONTHS = {Interval.MONTH: 1, Interval.QUARTER: 3, Interval.YEAR: 12}
SHORTEST = {
    Interval.HOUR: HOUR,
    Interval.DAY: DAY,
    Interval.WEEK: 7 * DAY,
    Interval.MONTH: 28 * DAY,
    Interval.QUARTER: 90 * DAY,
    Interval.YEAR: 365 * DAY,
}
"""How long an interval is by the wall clock, at the least."""
STRETCHES = 12
"""Most changes of a zone's offset that are passed on the way to the next opening: no zone has as many in a few days."""


@dataclass(frozen=True, slots=True, eq=False)
class Range:
    """``[lower, upper)``; ``None`` is MINVALUE as a lower bound and MAXVALUE as an upper one.

    Equal to whatever range has the same bounds, a `BoundedRange` included.
    """

    lower: datetime | None
    upper: datetime | None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Range) and (self.lower, self.upper) == (other.lower, other.upper)

    def __hash__(self) -> int:
        return hash((self.lower, self.upper))

    def contains(self, moment: datetime) -> bool:
        """Whether a row with this key belongs here."""
        return (self.lower is None or self.lower <= moment) and (self.upper is None or moment < self.upper)

    @property
    def bounded(self) -> BoundedRange | None:
        """The same where it has both bounds."""
        return None if self.lower is None or self.upper is None else BoundedRange(self.lower, self.upper)

    def is_before(self, moment: datetime | None) -> bool:
        """Whether all of it lies before the moment; None is before everything."""
        return moment is not None and self.upper is not None and self.upper <= moment

    def overlaps(self, other: Range) -> bool:
        """Whether some key belongs in both."""
        begins = self.lower is None or other.upper is None or self.lower < other.upper
        return begins and (other.lower is None or self.upper is None or other.lower < self.upper)


@dataclass(frozen=True, slots=True, eq=False)
class BoundedRange(Range):
    """A range with both bounds."""

    lower: datetime
    upper: datetime


def merge(ranges: Iterable[Range]) -> list[Range]:
    """The same keys as non-touching ranges, ascending."""
    floor = datetime.min
    merged: list[Range] = []
    for each in sorted(ranges, key=lambda r: (r.lower is not None, (r.lower or floor).replace(tzinfo=None))):
        last = merged[-1] if merged else None
        if last and (last.upper is None or each.lower is None or each.lower <= last.upper):
            upper = None if last.upper is None or each.upper is None else max(last.upper, each.upper)
            merged[-1] = Range(last.lower, upper)
        else:
            merged.append(each)
    return merged


def subtract(whole: BoundedRange, coverage: Sequence[Range]) -> list[BoundedRange]:
    """The pieces of ``whole`` that no range of ``coverage`` (as `merge` returns it) holds, ascending."""
    pieces, lower = [], whole.lower
    for each in coverage:
        if not each.overlaps(whole):
            continue
        if each.lower is not None and each.lower > lower:
            pieces.append(BoundedRange(lower, each.lower))
        if each.upper is None or each.upper >= whole.upper:
            return pieces
        lower = max(lower, each.upper)
    pieces.append(BoundedRange(lower, whole.upper))
    return pieces


def load_zone(name: str) -> ZoneInfo:
    """The IANA zone of that name. Raises `UnknownTimeZone`."""
    try:
        if not is_zone(name):
            raise ValueError(name)
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UnknownTimeZone(
            f"spec.timezone: {name!r} is not in the IANA time zone database; use a name like UTC or Europe/Berlin"
        ) from None


@dataclass(frozen=True, slots=True)
class Grid:
    """The boundaries of one interval.

    ``zone`` is the zone whose calendar counts, for a ``timestamptz`` key; ``None`` for naive keys, whose calendar is
    their own. A cell begins at the first instant that carries its local date (or hour): where midnight is skipped by
    the clock, that is the instant after the gap; where it comes twice, the first of the two. A day that a zone left
    out has no cell.
    """

    interval: Interval
    zone: ZoneInfo | None

    @classmethod
    def of(cls, spec: TableSpec, *, aware: bool = True) -> Grid:
        """That of a policy. ``aware``: as for keys with a zone; False for naive ones. Raises `UnknownTimeZone`."""
        return cls(spec.interval, load_zone(spec.timezone) if aware else None)

    def cell(self, moment: datetime) -> BoundedRange:
        """The cell that holds ``moment``."""
        return _cell(self, moment)

    def cells(self, start: datetime, stop: datetime) -> Iterator[BoundedRange]:
        """Every cell that overlaps ``[start, stop)``, ascending."""
        cell = self.cell(start)
        while cell.lower < stop:
            yield cell
            cell = self.cell(cell.upper)

    def holding(self, period: Period) -> Iterator[BoundedRange]:
        """Every cell that holds a part of the period, ascending; none where the zone left all of it out."""
        return self.cells(self.moment(period.first), self.moment(period.beyond))

    def local(self, moment: datetime) -> datetime:
        """The naive wall-clock time of ``moment``, its ``fold`` 1 in the second pass of a repeated hour."""
        return moment if self.zone is None else moment.astimezone(self.zone).replace(tzinfo=None)

    def steady(self, moment: datetime) -> datetime:
        """The earliest naive wall-clock time that ``zone`` shows at ``moment`` or later: it never goes back.

        Where the clock is set back, it waits through the first pass of what comes twice. To the second.
        """
        assert self.zone is not None
        local = moment.astimezone(self.zone)
        first, second = local.utcoffset(), local.replace(fold=1).utcoffset()
        assert first is not None
        assert second is not None
        if local.fold == 0 and second < first:
            start = moment.astimezone(UTC)
            local = transition(self.zone, start, start + (first - second)).astimezone(self.zone)
        return local.replace(tzinfo=None, fold=0)

    def moment(self, local: datetime) -> datetime:
        """The moment at which the wall clock first shows ``local`` (naive), or would have."""
        if self.zone is None:
            return local
        before = local.replace(tzinfo=self.zone, fold=0)
        instant = before.astimezone(UTC)
        if instant.astimezone(self.zone).replace(tzinfo=None, fold=0) == local:
            return instant
        # The wall clock skips it: by the offset after the gap it lies before the gap, and the other way round.
        return transition(self.zone, local.replace(tzinfo=self.zone, fold=1).astimezone(UTC), instant)

    def _truncate(self, local: datetime) -> datetime:
        if self.interval is Interval.HOUR:
            return local.replace(minute=0, second=0, microsecond=0, fold=0)
        day = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        if self.interval is Interval.WEEK:
            return day - timedelta(days=day.weekday())
        months = MONTHS.get(self.interval)
        return day.replace(month=(day.month - 1) // months * months + 1, day=1) if months else day

    def _step(self, label: datetime) -> datetime:
        if months := MONTHS.get(self.interval):
            return self._truncate(label + timedelta(days=31 * months))
        return label + SHORTEST[self.interval]

    def _hour_start(self, moment: datetime) -> datetime:
        assert self.zone is not None
        local = moment.astimezone(self.zone)
        past = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        start = moment.astimezone(UTC) - past
        if start.astimezone(self.zone).utcoffset() == local.utcoffset():
            return start
        return transition(self.zone, start, moment.astimezone(UTC).replace(microsecond=0))

    def _hour_end(self, lower: datetime) -> datetime:
        assert self.zone is not None
        local = lower.astimezone(self.zone)
        end = lower + HOUR - timedelta(minutes=local.minute, seconds=local.second)
        if end.astimezone(self.zone).utcoffset() == local.utcoffset():
            return end
        return transition(self.zone, lower, end)


def transition(zone: ZoneInfo, start: datetime, stop: datetime) -> datetime:
    """The first instant in ``(start, stop]``, to the second, at which the zone's offset is that of ``stop``.

    There is one change between them: they are less than a day apart, and two changes would hide each other.
    """
    after = stop.astimezone(zone).utcoffset()
    low, high = 0, -((start - stop) // timedelta(seconds=1))
    while high - low > 1:
        middle = (low + high) // 2
        changed = (start + timedelta(seconds=middle)).astimezone(zone).utcoffset() == after
        low, high = (low, middle) if changed else (middle, high)
    return start + timedelta(seconds=high)


@lru_cache(maxsize=20_000)
def _cell(grid: Grid, moment: datetime) -> BoundedRange:
    """Every plan asks for the same cells again: those of a table's partitions and the next ones."""
    if grid.interval is Interval.HOUR and grid.zone is not None:
        lower = grid._hour_start(moment)
        return BoundedRange(lower, grid._hour_end(lower))
    label = grid._truncate(moment if grid.zone is None else moment.astimezone(grid.zone).replace(tzinfo=None))
    lower = upper = grid.moment(label)
    # A clock set back over midnight shows the old date again after the new one's first instant: go on by instants.
    while upper <= moment:
        label = grid._step(label)
        lower, upper = upper, grid.moment(label)
    return BoundedRange(lower, upper)


def iso(moment: datetime | None) -> str | None:
    """ISO 8601 for people, status and SQL alike: ``2026-01-01T00:00:00Z``, or without a zone where the key has none.

    A naive midnight is written as its date. ``None`` stays None.
    """
    if moment is None:
        return None
    if moment.tzinfo is not None:
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return moment.date().isoformat() if moment.time() == datetime.min.time() else moment.isoformat()


def is_open(window: str | None, zone: ZoneInfo, now: datetime) -> bool:
    """Whether ``now`` (aware) lies in the maintenance window: its first minute does, the one it ends at does not.

    None is always open. A window may pass midnight. Where the clock skips all of it there is none that day; where the
    clock repeats it, it comes twice.
    """
    if window is None:
        return True
    begin, end = parse_window(window)
    clock = now.astimezone(zone).time().replace(fold=0)
    return begin <= clock < end if begin < end else clock >= begin or clock < end


def next_opening(window: str, zone: ZoneInfo, now: datetime) -> datetime:
    """The first moment at or after ``now`` (aware) at which the window is open, in UTC."""
    begin, _ = parse_window(window)
    moment = now.astimezone(UTC)
    for _ in range(STRETCHES):
        if is_open(window, zone, moment):
            return moment
        local = moment.astimezone(zone)
        ahead = datetime.combine(local.date(), begin) - local.replace(tzinfo=None, fold=0)
        candidate = moment + ahead % DAY
        # Up to where the clock is set, its readings follow each other: the window opens where it begins, or there.
        if moment.astimezone(zone).utcoffset() != candidate.astimezone(zone).utcoffset():
            candidate = transition(zone, moment.replace(microsecond=0), candidate)
        moment = candidate
    return moment
