"""When rows are old enough: the moment before which everything has expired, counted by the calendar.

Two things hold for every policy: the cutoff is never later than now less ``keepFor``, and as time goes on it never goes
back. So nothing younger expires, and what has expired once is never young again unless the policy is edited.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, time, timedelta

from ..api.types import parse_age
from .calendar import HOUR, Grid
from .keys import Codec

DAYS = {"d": 1, "w": 7}
MONTHS = {"mo": 1, "y": 12}


def cutoff(keep_for: str, now: datetime, clock: Grid, codec: Codec) -> datetime:
    """What lies wholly before this moment, in the key's domain, has expired. ``now`` is aware.

    ``clock`` has the policy's zone whatever the key. Hours are counted by instants, all else by the wall clock: a day
    that the month does not have becomes the month's last, a time that the clock skips the instant at which it skips,
    one that comes twice the first of the two. Whole seconds, rounded down. Where the calendar ends, `Codec.floor`.
    """
    count, unit = parse_age(keep_for)
    second = now.astimezone(UTC).replace(microsecond=0)
    try:
        if unit == "h":
            past = second - count * HOUR
            found = past if codec.aware else clock.steady(past)
        else:
            local = _back(clock.steady(second), count, unit)
            found = clock.moment(local) if codec.aware else local
    except (OverflowError, ValueError):
        return codec.floor
    return max(found, codec.floor)


def _back(local: datetime, count: int, unit: str) -> datetime:
    """``local`` less a number of days, weeks, months or years. Raises ValueError or OverflowError before year 1."""
    if unit in DAYS:
        return local - timedelta(days=count * DAYS[unit])
    year, month = divmod(local.year * 12 + local.month - 1 - count * MONTHS[unit], 12)
    if year < 1:
        raise ValueError("before the year 1")
    longest, last = monthrange(local.year, local.month)[1], monthrange(year, month + 1)[1]
    if longest > last and local.day >= last:
        # Several days of this month share the last one of that month: it begins for all of them, or the cutoff would
        # go back at each midnight between them.
        return datetime.combine(datetime(year, month + 1, last), time.min)  # noqa: DTZ001 - a wall clock has no zone
    return local.replace(year=year, month=month + 1)
