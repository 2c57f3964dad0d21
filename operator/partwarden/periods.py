"""Periods as people type them: ``2027``, ``2027-Q1``, ``2027-03``, ``2027-W05``, ``2027-03-09``. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from .errors import InvalidSpec
from .interval import Grid, Interval

FORMS = (
    "a year like 2027, a quarter like 2027-Q1, a month like 2027-03, an ISO week like 2027-W05, "
    "or a day like 2027-03-09"
)
PERIOD = re.compile(
    r"(?P<year>\d{4})(?:-(?:[qQ](?P<quarter>[1-4])"
    r"|[wW](?P<week>\d{2})|(?P<month>\d{2})(?:-(?P<day>\d{2}))?))?"
)
MOST = 100
"""Partitions that may be asked for at once, as many as spec.ensure takes."""


@dataclass(frozen=True, slots=True)
class Period:
    """``[first, beyond)`` in days of the policy's calendar."""

    text: str
    first: date
    beyond: date


def parse(text: str) -> Period:
    """Raises `InvalidSpec`."""
    match = PERIOD.fullmatch(text.strip())
    try:
        if match:
            return Period(text.strip(), *_days({name: int(part) for name, part in match.groupdict().items() if part}))
    except ValueError:
        pass
    raise InvalidSpec(f"{text!r} is no period: it must be {FORMS}")


def known(text: str) -> Period | None:
    """The same, None for what is no period: a name, perhaps."""
    try:
        return parse(text)
    except InvalidSpec:
        return None


def _days(found: dict[str, int]) -> tuple[date, date]:
    year = found["year"]
    if "week" in found:
        first = date.fromisocalendar(year, found["week"], 1)
        return first, first + timedelta(weeks=1)
    if "day" in found:
        first = date(year, found["month"], found["day"])
        return first, first + timedelta(days=1)
    if "quarter" in found or "month" in found:
        months = 3 if "quarter" in found else 1
        begin = (found["quarter"] - 1) * 3 if "quarter" in found else found["month"] - 1
        first = date(year, begin + 1, 1)
        following = year * 12 + begin + months
        return first, date(following // 12, following % 12 + 1, 1)
    return date(year, 1, 1), date(year + 1, 1, 1)


def days(period: Period, interval: Interval) -> list[str]:
    """A day of each partition that holds some of the period, ascending, for spec.ensure. Raises `InvalidSpec`."""
    if interval is Interval.HOUR:
        raise InvalidSpec("partitions by Hour cannot be named by a day: make them ahead with `partwarden auto`")
    grid = Grid(interval, None)
    cells = grid.cells(midnight(period.first), midnight(period.beyond))
    found = []
    for cell in cells:
        assert cell.lower is not None
        found.append(max(cell.lower, midnight(period.first)).date().isoformat())
        if len(found) > MOST:
            raise InvalidSpec(f"{period.text} holds more than {MOST} partitions by {interval}: ask for less at once")
    return found


def midnight(day: date | str) -> datetime:
    """The beginning of a day, naive. Raises ValueError for a text that is none."""
    return datetime.combine(date.fromisoformat(day) if isinstance(day, str) else day, time())
