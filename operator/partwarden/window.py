"""The times of day at which upkeep may begin, by the wall clock of a zone.

A window may pass midnight. Where the clock skips all of it there is none that day; where the clock repeats it, it comes
twice.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from .fields import parse_window

DAY = timedelta(days=1)
STRETCHES = 12
"""Most changes of a zone's offset that are looked past for the next opening: no zone has as many in a few days."""


def is_open(window: str | None, zone: ZoneInfo, now: datetime) -> bool:
    """Whether ``now`` (aware) lies in the window: its first minute does, the one it ends at does not.

    None is always open.
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
        change = _next_change(zone, moment, candidate)
        # Up to where the clock is set, its readings follow each other: the window opens where it begins, or there.
        moment = candidate if change is None else change
    return moment


def _next_change(zone: ZoneInfo, start: datetime, stop: datetime) -> datetime | None:
    """The first instant in ``(start, stop]``, to the second, with another offset than ``start``. None: there is none.

    ``stop`` is less than a day later, so that two changes do not hide each other.
    """
    offset = start.astimezone(zone).utcoffset()
    if stop.astimezone(zone).utcoffset() == offset:
        return None
    start = start.replace(microsecond=0)
    low, high = 0, -((start - stop) // timedelta(seconds=1))
    while high - low > 1:
        middle = (low + high) // 2
        same = (start + timedelta(seconds=middle)).astimezone(zone).utcoffset() == offset
        low, high = (middle, high) if same else (low, middle)
    return start + timedelta(seconds=high)
