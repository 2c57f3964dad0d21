"""Periods of spec.ensure: written and read the same, and exactly the partitions that they hold a part of."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from partwarden.api.period import DATE, MAX_ENSURED, parse_period, shortest, written
from partwarden.api.policy import TableSpec
from partwarden.api.types import Interval
from partwarden.api.validation import check
from partwarden.planner.calendar import Grid

KINDS = st.sampled_from(list(Interval))
MOMENTS = st.datetimes(datetime(1000, 1, 7), datetime(8999, 12, 1))  # noqa: DTZ001 - a policy's calendar has no zone
NEAR = st.datetimes(datetime(1995, 1, 1), datetime(2035, 1, 1))  # noqa: DTZ001
ZONES = st.sampled_from([None, "UTC", "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "Pacific/Apia"])


@pytest.mark.parametrize(
    ("text", "first", "beyond"),
    [
        ("2027", "2027-01-01", "2028-01-01"),
        ("2027-Q1", "2027-01-01", "2027-04-01"),
        ("2027-Q4", "2027-10-01", "2028-01-01"),
        ("2027-12", "2027-12-01", "2028-01-01"),
        ("2026-W53", "2026-12-28", "2027-01-04"),
        ("2028-02-29", "2028-02-29", "2028-03-01"),
        ("2027-12-31T23", "2027-12-31T23", "2028-01-01"),
        ("2024-01..2024-06", "2024-01-01", "2024-07-01"),
        ("2024..2024", "2024-01-01", "2025-01-01"),
        ("2024-W01..2025-W01", "2024-01-01", "2025-01-06"),
    ],
)
def test_what_a_period_is(text: str, first: str, beyond: str) -> None:
    found = parse_period(text)
    assert (found.first, found.beyond) == (datetime.fromisoformat(first), datetime.fromisoformat(beyond))


@given(KINDS, MOMENTS)
def test_a_period_is_read_as_it_was_written(kind: Interval, moment: datetime) -> None:
    period = parse_period(written(kind, moment))
    assert period.first <= moment < period.beyond
    assert written(kind, period.first) == written(kind, period.beyond - timedelta(hours=1)) == period.text


@given(KINDS, MOMENTS, MOMENTS)
def test_a_range_holds_both_ends_and_none_is_read_backwards(kind: Interval, one: datetime, two: datetime) -> None:
    begin, end = (written(kind, each) for each in sorted((one, two)))
    period = parse_period(f"{begin}..{end}")
    assert (period.first, period.beyond) == (parse_period(begin).first, parse_period(end).beyond)
    if begin != end:
        with pytest.raises(ValueError, match="begin before it ends"):
            parse_period(f"{end}..{begin}")


@given(KINDS, MOMENTS, MOMENTS)
def test_the_shortest_text_is_the_same_period(kind: Interval, one: datetime, two: datetime) -> None:
    begin, end = (written(kind, each) for each in sorted((one, two)))
    period = parse_period(f"{begin}..{end}")
    text = shortest(period.first, period.beyond)
    again = parse_period(text)
    assert (again.first, again.beyond) == (period.first, period.beyond)
    assert len(text) <= len(begin if begin == end else period.text)


@given(KINDS, st.datetimes(datetime(900, 1, 9), datetime(9100, 12, 1)))  # noqa: DTZ001
@example(Interval.WEEK, datetime(1000, 1, 1))  # noqa: DTZ001
@example(Interval.DAY, datetime(8999, 12, 31))  # noqa: DTZ001
@example(Interval.HOUR, datetime(8999, 12, 31))  # noqa: DTZ001
def test_in_every_year_there_is_a_shortest_text_or_none(interval: Interval, moment: datetime) -> None:
    cell = Grid(interval, None).cell(moment)
    try:
        again = parse_period(shortest(cell.lower, cell.upper))
    except ValueError:
        assert cell.lower.year < 1000 or cell.upper.year > 8999
    else:
        assert (again.first, again.beyond) == (cell.lower, cell.upper)


@given(KINDS, KINDS, NEAR, st.integers(0, 3), ZONES)
def test_a_period_of_any_kind_holds_exactly_the_cells_that_it_overlaps(
    kind: Interval, interval: Interval, begin: datetime, more: int, zone: str | None
) -> None:
    grid = Grid(interval, ZoneInfo(zone) if zone else None)
    last = begin + more * timedelta(hours=1 if interval is Interval.HOUR else 30 * 24)
    kind = Interval.DAY if interval is Interval.HOUR and kind is not Interval.HOUR else kind
    period = parse_period(f"{written(kind, begin)}..{written(kind, last)}")
    cells = list(grid.holding(period))
    first, beyond = grid.moment(period.first), grid.moment(period.beyond)
    around = list(
        grid.cells(grid.cell(grid.cell(first).lower - timedelta(hours=1)).lower, beyond + timedelta(days=400))
    )
    assert cells == [each for each in around if each.lower < beyond and first < each.upper and first < beyond]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (2031, 'must be a string, found 2031; write a period such as "2031"'),
        ("2024-01/2024-06", 'found "2024-01/2024-06"; write 2024-01..2024-06'),
        ("2024-01 to 2024-06", "; write 2024-01..2024-06"),
        ("2024-q1", "; write 2024-Q1"),
        ("2024-13", 'must be a period such as "2031", "2031-Q1"'),
        ("2024-01..2024", "or a range of two of one kind such as"),
        ("2024-02-30", "must be in the calendar: there is no such date"),
        ("2025-W53", "must be in the calendar: there is no such date, or no week of that number in that year"),
        ("2024-06..2024-01", "must begin before it ends"),
        ("9999", "must be a period such as"),
    ],
)
def test_what_is_no_period_is_answered_with_an_example(entry: object, problem: str) -> None:
    _, (said,) = check(TableSpec, {"table": {"name": "run"}, "ensure": [entry]}, "spec")
    assert said.startswith("spec.ensure[0]: must be")
    assert problem in said


def test_the_most_that_an_entry_makes_is_in_its_description() -> None:
    assert f"{MAX_ENSURED} partitions" in str(TableSpec.model_fields["ensure"].description)


@given(st.dates(datetime(1000, 1, 1).date(), datetime(8999, 12, 31).date()), st.integers(1, 31))  # noqa: DTZ001
def test_the_pattern_for_the_api_server_knows_the_calendar(drawn: date, day: int) -> None:
    text = f"{drawn:%Y-%m}-{day:02}"
    try:
        date.fromisoformat(text)
    except ValueError:
        assert not re.fullmatch(DATE, text)
    else:
        assert re.fullmatch(DATE, text)
