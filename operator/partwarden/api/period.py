"""Periods of the calendar as users write them: ``2031``, ``2031-Q1``, ``2031-06``, ``2031-W07``, dates, hours, ranges.

A range is two periods of one kind with ``..`` between, and holds both: so ISO 8601-2 (EDTF) writes "all from this to
that". A slash would be read in two ways: by ISO 8601-2 ``2024-01/2024-06`` holds June, and by the libraries that take
it for two moments, as ISO 8601-1 has it, June is left out.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import Field, StringConstraints

from .types import DAY, HINTS, LONGEST_PERIOD, Interval, Rule

YEAR = "[1-8][0-9]{3}"
KINDS = {
    Interval.YEAR: YEAR,
    Interval.MONTH: f"{YEAR}-(0[1-9]|1[0-2])",
    Interval.QUARTER: f"{YEAR}-Q[1-4]",
    Interval.WEEK: f"{YEAR}-W(0[1-9]|[1-4][0-9]|5[0-3])",
    Interval.DAY: DAY[1:-1],
    Interval.HOUR: f"{DAY[1:-1]}T([01][0-9]|2[0-3])",
}
"""Patterns of one period. Of two that write the same in as many characters `shortest` takes the first."""
WRITTEN = {
    Interval.YEAR: "%Y",
    Interval.MONTH: "%Y-%m",
    Interval.WEEK: "%G-W%V",
    Interval.DAY: "%Y-%m-%d",
    Interval.HOUR: "%Y-%m-%dT%H",
}
MONTHS = {Interval.YEAR: 12, Interval.QUARTER: 3, Interval.MONTH: 1}
STEPS = {Interval.WEEK: timedelta(weeks=1), Interval.DAY: timedelta(days=1), Interval.HOUR: timedelta(hours=1)}
TO = ".."
MAX_ENSURED = 1000
"""Most partitions that ``spec.ensure`` asks for, existing or not: of an entry that asks for more none is made."""
PERIOD = "^(" + "|".join(f"{one}([.][.]{one})?" for one in KINDS.values()) + ")$"
HINTS[PERIOD] = (
    'must be a period such as "2031", "2031-Q1", "2031-06", "2031-W07" or "2031-06-01", or a range of two of one kind '
    'such as "2024-01..2024-06"'
)
NO_SUCH = "must be in the calendar: there is no such date, or no week of that number in that year"
REVERSED = "must begin before it ends: write the earlier period before the .."


@dataclass(frozen=True, slots=True)
class Period:
    """``[first, beyond)``: two naive moments of the policy's calendar."""

    text: str
    first: datetime
    beyond: datetime


def parse_period(text: str) -> Period:
    """A period, or a range of them, from the year 1000 to 8999. Raises ValueError."""
    if not re.fullmatch(PERIOD[1:-1], text):
        raise ValueError(HINTS[PERIOD])
    begin, _, end = text.partition(TO)
    try:
        (first, _), (last, beyond) = _ends(begin), _ends(end or begin)
    except ValueError:
        raise ValueError(NO_SUCH) from None
    if last < first:
        raise ValueError(REVERSED)
    return Period(text, first, beyond)


def written(kind: Interval, local: datetime) -> str:
    """The period of that kind that holds ``local``, which is naive."""
    if kind is Interval.QUARTER:
        return f"{local.year:04}-Q{(local.month + 2) // 3}"
    return local.strftime(WRITTEN[kind])


def shortest(first: datetime, beyond: datetime) -> str:
    """``[first, beyond)``, naive, in the fewest characters. Raises ValueError where no period is that: what is not on
    full hours, or begins or ends in a year, be it that of a week, before 1000 or after 8999."""
    last = beyond - timedelta(hours=1)
    fitting = []
    for kind in KINDS:
        begin, end = written(kind, first), written(kind, last)
        with suppress(ValueError):
            if _ends(begin)[0] == first and _ends(end)[1] == beyond:
                fitting.append(begin if begin == end else f"{begin}{TO}{end}")
    if not fitting:
        raise ValueError(HINTS[PERIOD])
    return min(fitting, key=len)


def _ends(text: str) -> tuple[datetime, datetime]:
    """Of one period. Raises ValueError where it is none, or the calendar does not have it."""
    kind = next((kind for kind, one in KINDS.items() if re.fullmatch(one, text)), None)
    if kind is None:
        raise ValueError(HINTS[PERIOD])
    numbers = [int(each) for each in re.findall("[0-9]+", text)]
    if kind is Interval.WEEK:
        first = datetime.fromisocalendar(numbers[0], numbers[1], 1)
    elif kind is Interval.QUARTER:
        first = datetime(numbers[0], numbers[1] * 3 - 2, 1)  # noqa: DTZ001 - a policy's calendar has no zone
    else:
        first = datetime(*[*numbers, 1, 1][: max(3, len(numbers))])  # type: ignore[arg-type]  # noqa: DTZ001
    if step := STEPS.get(kind):
        return first, first + step
    month = first.month - 1 + MONTHS[kind]
    return first, first.replace(year=first.year + month // 12, month=month % 12 + 1)


def meant(text: str) -> str:
    """What was probably meant by what is no period: ``2024-01..2024-06`` for ``2024-01/2024-06``; "" if not known."""
    plain = "".join(text[:LONGEST_PERIOD].upper().replace(" TO ", TO).split())
    for sign in ("...", "/", "\u2013", "\u2026"):
        plain = plain.replace(sign, TO)
    return "" if _error(plain) else plain


LEAP = "([1-8][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[1357][26])00)"
DATE = f"({YEAR}-(0[13578]|1[02])-..|{YEAR}-(0[469]|11)-([012].|30)|{YEAR}-02-([01].|2[0-8])|{LEAP}-02-29)"
"""Of what `DAY` matches, those that are in the calendar."""
IS_PERIOD, IS_DATE = f"self.matches('{PERIOD}')", f"self.matches('^{DATE}(T..)?([.][.]{DATE}(T..)?)?$')"
SLASH = "self.substring(0, self.indexOf('/')) + '..' + self.substring(self.indexOf('/') + 1)"


def _is_long(year: str) -> str:
    """Years with a week 53: those that begin or end on a Thursday."""
    ends = (f"timestamp({year} + '-{day}T00:00:00Z').getDayOfWeek() == 4" for day in ("01-01", "12-31"))
    return f"({' || '.join(ends)})"


# Without macros over lists: of how many matches there are the API server estimates the worst, and refuses the rule.
PERIOD_RULES = (
    Rule(
        IS_PERIOD,
        HINTS[PERIOD],
        lambda text: _error(text) != HINTS[PERIOD],
        advice=f"self.contains('/') && ({SLASH}).matches('{PERIOD}') ? '; write ' + {SLASH} : ''",
    ),
    Rule(
        f"(!self.matches('^....-..-') || {IS_DATE}) && "
        f"(!self.matches('^....-W53') || {_is_long('self.substring(0, 4)')}) && "
        f"(!self.matches('[.][.]....-W53$') || {_is_long('self.substring(self.size() - 8, self.size() - 4)')})",
        NO_SUCH,
        lambda text: _error(text) != NO_SUCH,
    ),
    Rule(
        f"!self.contains('{TO}') || "
        f"self.substring(0, self.indexOf('{TO}')) <= self.substring(self.indexOf('{TO}') + 2)",
        REVERSED,
        lambda text: _error(text) != REVERSED,
    ),
)


def _error(text: str) -> str:
    try:
        parse_period(text)
    except ValueError as error:
        return str(error)
    return ""


PeriodText = Annotated[str, StringConstraints(max_length=LONGEST_PERIOD), *PERIOD_RULES]
"""A `parse_period`."""

Periods = Annotated[
    list[PeriodText],
    Field(
        max_length=100,
        description="Periods whose partitions must exist too, in the past or far ahead, such as '2031', '2031-Q1', "
        "'2031-06', '2031-W07', '2031-06-01' or '2031-06-01T13', or ranges such as '2024-01..2024-06', both included; "
        f"at most 100 entries and {MAX_ENSURED} partitions. Holes are never filled from one of them on.",
    ),
]
