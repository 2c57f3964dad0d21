"""Cells of a whole year against Python's own calendar, in every zone and century."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partwarden.api.types import Interval
from partwarden.planner.calendar import Grid, Range

zones = st.sampled_from(sorted(available_timezones() - {"localtime", "posixrules", "Factory"})).map(ZoneInfo)
years = st.integers(1900, 2500) | st.integers(3, 9990)


def cells(interval: Interval, zone: ZoneInfo | None, year: int) -> list[tuple[datetime, Range]]:
    """The cells that begin within that year of the zone's wall clock, and when, by that clock."""
    grid = Grid(interval, zone)
    start, stop = (grid.moment(datetime(each, 1, 1)) for each in (year, year + 1))  # noqa: DTZ001
    found = [(grid.local(cell.lower), cell) for cell in grid.cells(start, stop)]
    return [(local, cell) for local, cell in found if local.year == year]


@pytest.mark.slow
@given(zones, years)
def test_a_year_has_each_of_its_days_once(zone: ZoneInfo, year: int) -> None:
    first = date(year, 1, 1)
    every = {first + timedelta(days=each) for each in range((date(year + 1, 1, 1) - first).days)}
    found = [local.date() for local, _ in cells(Interval.DAY, zone, year)]
    assert len(found) == len(set(found))
    left_out = every - set(found)
    # Some zones changed sides of the date line, and left out a day.
    assert len(left_out) <= 1
    for day in left_out:
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=zone)
        assert noon.astimezone(UTC).astimezone(zone).date() != day


@given(zones, years)
def test_a_year_has_twelve_months_and_four_quarters(zone: ZoneInfo, year: int) -> None:
    months, quarters = (cells(interval, zone, year) for interval in (Interval.MONTH, Interval.QUARTER))
    assert [(local.month, local.day) for local, _ in months] == [(month, 1) for month in range(1, 13)]
    assert [cell.lower for _, cell in months[::3]] == [cell.lower for _, cell in quarters]
    assert [local.month for local, _ in quarters] == [1, 4, 7, 10]


@given(years)
def test_a_month_has_its_days_leap_or_not(year: int) -> None:
    lengths = [cell.upper - cell.lower for _, cell in cells(Interval.MONTH, None, year) if cell.upper and cell.lower]
    assert [length.days for length in lengths] == [monthrange(year, month)[1] for month in range(1, 13)]


@given(zones, years)
def test_weeks_begin_on_mondays_and_are_numbered_by_iso_8601(zone: ZoneInfo, year: int) -> None:
    found = [local.isocalendar() for local, _ in cells(Interval.WEEK, zone, year)]
    mondays = [day for day in (date(year, 1, 1) + timedelta(days=each) for each in range(366)) if day.year == year]
    expected = [day.isocalendar() for day in mondays if day.isoweekday() == 1]
    # A Monday that the zone left out has its week begin on Tuesday.
    assert [(each.year, each.week) for each in found] == [(each.year, each.week) for each in expected]
    assert sum(each.weekday != 1 for each in found) <= 1


@pytest.mark.parametrize("year", [1900, 2000, 2024, 2026, 2100, 2400])
def test_weeks_over_the_years_end(year: int) -> None:
    last = Grid(Interval.WEEK, None).cell(datetime(year, 12, 31))  # noqa: DTZ001
    assert last.lower is not None
    assert last.lower.date() == date.fromisocalendar(*date(year, 12, 31).isocalendar()[:2], 1)
