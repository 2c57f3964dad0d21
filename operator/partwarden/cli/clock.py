"""Moments of one table as `partwarden timeline` and `partwarden report` read and write them.

Bounds are in the domain of the key: instants in UTC, or naive where it has no zone. Words are by the clock of the
policy's zone. What a status says is text that others may have written: what is no moment is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from ..api.types import Interval
from ..errors import UnknownTimeZone
from ..planner.calendar import BoundedRange, Grid, load_zone

PERIODS = {
    Interval.YEAR: "%Y",
    Interval.MONTH: "%Y-%m",
    Interval.WEEK: "%G-W%V",
    Interval.DAY: "%Y-%m-%d",
    Interval.HOUR: "%Y-%m-%dT%H",
}


@dataclass(frozen=True, slots=True)
class Clock:
    """Reads moments for one table. ``grid``: that of the policy, in the key's domain."""

    zone: ZoneInfo
    grid: Grid

    @classmethod
    def of(cls, timezone: str, interval: Interval, bounds: Iterable[str | None]) -> Clock:
        """``bounds``: of the table; the first that is a moment tells whether its key has a zone."""
        try:
            zone = load_zone(timezone)
        except UnknownTimeZone:
            zone = load_zone("UTC")
        known = next((moment for each in bounds if (moment := _moment(each))), None)
        return cls(zone, Grid(interval, zone if known is None or known.tzinfo else None))

    def instant(self, text: str | None) -> datetime | None:
        """In UTC; None for what is none, or is in no year of the zone."""
        with suppress(OverflowError, ValueError):
            if moment := _moment(text):
                instant = moment.astimezone(UTC) if moment.tzinfo else Grid(Interval.DAY, self.zone).moment(moment)
                return instant.astimezone(self.zone).astimezone(UTC)
        return None

    def bound(self, text: str | None) -> datetime | None:
        """In the key's domain."""
        moment = _moment(text)
        if moment and moment.tzinfo is self.grid.zone is None:
            return moment
        instant = self.instant(text)
        return self.here(instant) if instant else None

    def here(self, instant: datetime) -> datetime:
        """An instant in the key's domain."""
        return instant if self.grid.zone else instant.astimezone(self.zone).replace(tzinfo=None)

    def period(self, lower: datetime | None, upper: datetime | None) -> str:
        """A range for people: a period where it is exactly one, else its ends."""
        return period(lower, upper, self.grid.zone)

    def short(self, bound: datetime) -> str:
        """One bound for people."""
        return short(bound, self.grid.zone)


def when(moment: datetime, now: datetime) -> str:
    """From ``now`` on: ``in 5 h``, ``in 27 d``, from a hundred days on its date there; ``now`` for what has come."""
    left = moment - now
    if left <= timedelta(0):
        return "now"
    if left < timedelta(days=2):
        return f"in {max(1, round(left / timedelta(hours=1)))} h"
    return f"in {left.days} d" if left.days < 100 else moment.astimezone(now.tzinfo).date().isoformat()


def period(lower: datetime | None, upper: datetime | None, zone: ZoneInfo | None = None) -> str:
    """A range for people: a period where it is exactly one, else its ends. ``zone``: None for naive ones."""
    if lower is None or upper is None:
        return f"from {short(lower, zone)}" if lower else f"before {short(upper, zone)}" if upper else "everything"
    for interval in Interval:
        with suppress(OverflowError):
            grid = Grid(interval, zone)
            if grid.cell(lower) == BoundedRange(lower, upper):
                # A period may begin after its midnight, where the clock skips that: the day is the same.
                local = grid.local(lower)
                shape = PERIODS.get(interval, f"%Y-Q{(local.month + 2) // 3}")
                return local.strftime(shape) + (_pass(lower, zone) if interval is Interval.HOUR else "")
    return f"{short(lower, zone)}/{short(upper, zone)}"


def short(moment: datetime, zone: ZoneInfo | None = None) -> str:
    """``2026-01-01``, or ``2026-01-01T07:30`` where it is no midnight. ``zone``: None for a naive one."""
    text = Grid(Interval.DAY, zone).local(moment).isoformat().removesuffix("T00:00:00")
    return text.removesuffix(":00") + _pass(moment, zone) if "T" in text else text


def _pass(moment: datetime, zone: ZoneInfo | None) -> str:
    """The offset, where the clock of the zone shows that time twice."""
    if zone is None:
        return ""
    local = moment.astimezone(zone)
    return "" if local.utcoffset() == local.replace(fold=1 - local.fold).utcoffset() else local.isoformat()[-6:]


def _moment(text: str | None) -> datetime | None:
    with suppress(ValueError):
        return datetime.fromisoformat(text or "")
    return None
