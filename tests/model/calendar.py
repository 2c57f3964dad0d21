"""The calendar as the model understands it, worked out apart from Partwarden's own."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

MONTHS = {"Month": 1, "Quarter": 3, "Year": 12}


def too_old(keep_for: str, now: datetime, zone: ZoneInfo, zoned: bool) -> datetime:
    """Nothing that ends after this moment may be called expired. ``now`` is aware."""
    found = re.fullmatch(r"(\d+)(h|d|w|mo|y)", keep_for)
    assert found
    count, unit = int(found[1]), found[2]
    local = now.astimezone(zone).replace(tzinfo=None)
    if unit == "h":
        past = now - timedelta(hours=count)
        return past if zoned else past.astimezone(zone).replace(tzinfo=None)
    if unit in "dw":
        local -= timedelta(days=count * (7 if unit == "w" else 1))
    else:
        year, month = divmod(local.year * 12 + local.month - 1 - count * (12 if unit == "y" else 1), 12)
        local = local.replace(year=year, month=month + 1, day=min(local.day, monthrange(year, month + 1)[1]))
    return local.replace(tzinfo=zone).astimezone(UTC) if zoned else local


def is_cell(lower: datetime | None, upper: datetime | None, interval: str, zone: ZoneInfo, zoned: bool) -> bool:
    """Whether the range is exactly one interval of the calendar. The zone's clock skips no midnight."""
    if lower is None or upper is None:
        return False
    first = lower.astimezone(zone).replace(tzinfo=None) if zoned else lower
    last = upper.astimezone(zone).replace(tzinfo=None) if zoned else upper
    if interval == "Hour":
        return (first.minute, first.second, first.microsecond) == (0, 0, 0) and upper - lower == timedelta(hours=1)
    if first.time() != last.time() or first.time() != datetime.min.time():
        return False
    if interval in ("Day", "Week"):
        return last - first == timedelta(days=7 if interval == "Week" else 1) and (
            interval == "Day" or first.weekday() == 0
        )
    length = MONTHS[interval]
    distance = (last.year - first.year) * 12 + last.month - first.month
    return first.day == last.day == 1 and (first.month - 1) % length == 0 and distance == length
