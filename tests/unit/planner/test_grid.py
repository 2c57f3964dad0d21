"""Cells of the grid tile the time line, in every zone, through every trick that clocks have played."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partwarden.api.types import Interval
from partwarden.errors import UnknownTimeZone
from partwarden.planner.calendar import BoundedRange, Grid, Range, iso, load_zone, merge, subtract

TICK = timedelta(microseconds=1)
ZONES = sorted(available_timezones() - {"localtime", "posixrules", "Factory"})
LONGEST = {
    Interval.HOUR: timedelta(hours=1),
    Interval.DAY: timedelta(days=1, hours=24),
    Interval.WEEK: timedelta(days=8),
    Interval.MONTH: timedelta(days=32),
    Interval.QUARTER: timedelta(days=93),
    Interval.YEAR: timedelta(days=367),
}

intervals = st.sampled_from(list(Interval))
NOT_OF_IANA = ("right/Europe/Berlin", "right/UTC", "posix/Europe/Berlin", "localtime", "posixrules", "Factory")
zones = st.sampled_from(ZONES).map(ZoneInfo)
naive_moments = st.datetimes(min_value=datetime(1000, 1, 2), max_value=datetime(8999, 12, 30))  # noqa: DTZ001
# Where the zones have rules of their own, and beyond.
moments = st.one_of(
    st.datetimes(min_value=datetime(1850, 1, 1), max_value=datetime(2060, 1, 1)),  # noqa: DTZ001
    naive_moments,
).map(lambda moment: moment.replace(tzinfo=UTC))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def bounds(cell: Range) -> tuple[str | None, str | None]:
    return iso(cell.lower), iso(cell.upper)


def check_tile(grid: Grid, moment: datetime) -> None:
    cell = grid.cell(moment)
    assert cell.lower is not None
    assert cell.upper is not None
    assert cell.lower <= moment < cell.upper
    assert cell.upper - cell.lower <= LONGEST[grid.interval]
    assert grid.cell(cell.lower) == cell
    assert grid.cell(cell.upper - TICK) == cell
    assert grid.cell(cell.upper).lower == cell.upper
    assert grid.cell(cell.lower - TICK).upper == cell.lower


@given(intervals, naive_moments)
def test_naive_cells_tile_the_time_line(interval: Interval, moment: datetime) -> None:
    check_tile(Grid(interval, None), moment)


@given(intervals, zones, moments)
def test_cells_tile_the_time_line_in_every_zone(interval: Interval, zone: ZoneInfo, moment: datetime) -> None:
    check_tile(Grid(interval, zone), moment)


@pytest.mark.slow
@pytest.mark.parametrize("interval", list(Interval))
@pytest.mark.parametrize(
    ("zone", "moment"),
    [
        ("Europe/Berlin", "2026-03-29T01:00:00Z"),  # spring forward
        ("Europe/Berlin", "2026-10-25T01:00:00Z"),  # fall back
        ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),  # half an hour back
        ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),  # half an hour forward
        ("Asia/Beirut", "2024-03-30T22:00:00Z"),  # midnight skipped
        ("America/Havana", "2024-11-03T05:00:00Z"),  # 01:00 back to 00:00: midnight twice
        ("America/Goose_Bay", "2010-11-07T02:31:00Z"),  # 00:01 back to 23:01 of the day before
        ("America/Toronto", "1947-09-28T04:00:00Z"),  # the same an hour long
        ("Pacific/Apia", "2011-12-30T10:00:00Z"),  # 30 December left out
        ("Pacific/Kwajalein", "1993-08-21T12:00:00Z"),  # 21 August left out
        ("America/Juneau", "1867-10-19T00:00:00Z"),  # a day had twice
        ("Africa/Monrovia", "1972-01-07T00:44:30Z"),  # off by 44 minutes and 30 seconds
        ("Asia/Manila", "1844-12-31T16:00:00Z"),
    ],
)
def test_cells_tile_the_time_line_around_a_change_of_clocks(interval: Interval, zone: str, moment: str) -> None:
    for minutes in range(-1500, 1501, 60):
        for shift in (-TICK, timedelta(0), timedelta(seconds=1)):
            check_tile(Grid(interval, ZoneInfo(zone)), at(moment) + timedelta(minutes=minutes) + shift)


@given(intervals, zones, moments, st.timedeltas(timedelta(0), timedelta(days=400)))
def test_later_moments_never_lie_in_earlier_cells(
    interval: Interval, zone: ZoneInfo, moment: datetime, step: timedelta
) -> None:
    grid = Grid(interval, zone)
    earlier, later = grid.cell(moment), grid.cell(moment + step)
    assert earlier == later or not earlier.overlaps(later)
    assert (earlier.lower, earlier.upper) <= (later.lower, later.upper)


@given(intervals, zones, moments, st.timedeltas(timedelta(0), timedelta(days=3)))
def test_cells_of_a_stretch_touch_and_cover_it(
    interval: Interval, zone: ZoneInfo, start: datetime, length: timedelta
) -> None:
    cells = list(Grid(interval, zone).cells(start, start + length + TICK))
    assert cells[0].contains(start)
    assert cells[-1].contains(start + length)
    assert all(left.upper == right.lower for left, right in pairwise(cells))


@given(zones, moments)
def test_the_first_moment_of_a_date_is_what_a_clock_would_say(zone: ZoneInfo, moment: datetime) -> None:
    grid = Grid(Interval.DAY, zone)
    first = grid.moment(grid.local(moment).replace(hour=0, minute=0, second=0, microsecond=0, fold=0))
    assert grid.local(first).date() == grid.local(moment).date()
    assert first <= moment


@pytest.mark.parametrize(
    ("interval", "moment", "expected"),
    [
        (Interval.YEAR, "2026-12-31T23:59:59", ("2026-01-01", "2027-01-01")),
        (Interval.QUARTER, "2026-11-30", ("2026-10-01", "2027-01-01")),
        (Interval.QUARTER, "2026-03-31", ("2026-01-01", "2026-04-01")),
        (Interval.MONTH, "2024-02-29", ("2024-02-01", "2024-03-01")),
        (Interval.MONTH, "2026-01-31", ("2026-01-01", "2026-02-01")),
        (Interval.WEEK, "2027-01-01", ("2026-12-28", "2027-01-04")),
        (Interval.WEEK, "2024-12-31", ("2024-12-30", "2025-01-06")),
        (Interval.DAY, "2024-02-29T12:00:00", ("2024-02-29", "2024-03-01")),
        (Interval.HOUR, "2026-12-31T23:59:59.999999", ("2026-12-31T23:00:00", "2027-01-01")),
    ],
)
def test_naive_cells(interval: Interval, moment: str, expected: tuple[str, str]) -> None:
    assert bounds(Grid(interval, None).cell(at(moment))) == expected


@pytest.mark.parametrize(
    ("interval", "zone", "moment", "expected"),
    [
        (Interval.YEAR, "Europe/Berlin", "2026-12-31T23:30:00Z", ("2026-12-31T23:00:00Z", "2027-12-31T23:00:00Z")),
        (Interval.DAY, "Europe/Berlin", "2026-03-29T12:00:00Z", ("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z")),
        (Interval.DAY, "Europe/Berlin", "2026-10-25T12:00:00Z", ("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z")),
        # Midnight was skipped: the day began at 01:00 local time.
        (Interval.DAY, "Asia/Beirut", "2024-03-31T12:00:00Z", ("2024-03-30T22:00:00Z", "2024-03-31T21:00:00Z")),
        # Midnight came twice: the day began at the first.
        (Interval.DAY, "America/Havana", "2024-11-03T12:00:00Z", ("2024-11-03T04:00:00Z", "2024-11-04T05:00:00Z")),
        # Samoa had no 30 December 2011: the 29th is followed by the 31st.
        (Interval.DAY, "Pacific/Apia", "2011-12-30T09:00:00Z", ("2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z")),
        (Interval.DAY, "Pacific/Apia", "2011-12-30T10:00:00Z", ("2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z")),
        (Interval.HOUR, "Asia/Kolkata", "2026-01-01T00:00:00Z", ("2025-12-31T23:30:00Z", "2026-01-01T00:30:00Z")),
        # 02:00 went back to 01:30: the hour from 01:00 is cut in two, and each is a cell.
        (
            Interval.HOUR,
            "Australia/Lord_Howe",
            "2026-04-04T14:59:00Z",
            ("2026-04-04T14:00:00Z", "2026-04-04T15:00:00Z"),
        ),
        (
            Interval.HOUR,
            "Australia/Lord_Howe",
            "2026-04-04T15:10:00Z",
            ("2026-04-04T15:00:00Z", "2026-04-04T15:30:00Z"),
        ),
    ],
)
def test_cells_in_a_zone(interval: Interval, zone: str, moment: str, expected: tuple[str, str]) -> None:
    assert bounds(Grid(interval, ZoneInfo(zone)).cell(at(moment))) == expected


def test_samoa_left_out_a_day() -> None:
    grid = Grid(Interval.DAY, ZoneInfo("Pacific/Apia"))
    cells = islice(grid.cells(at("2011-12-28T10:00Z"), at("2012-01-02T00:00Z")), 4)
    assert [grid.local(cell.lower).day for cell in cells] == [28, 29, 31, 1]


def test_weeks_of_a_year_with_53() -> None:
    cells = list(Grid(Interval.WEEK, None).cells(at("2026-01-01"), at("2027-01-01")))
    assert len(cells) == 53
    assert bounds(cells[0])[0] == "2025-12-29"


ranges = st.builds(
    lambda lower, length: Range(lower, None if length is None or lower is None else lower + length),
    st.none() | st.datetimes(datetime(2000, 1, 1), datetime(2000, 1, 20)),  # noqa: DTZ001
    st.none() | st.timedeltas(TICK, timedelta(days=5)),
)


@given(st.lists(ranges), st.datetimes(datetime(1999, 12, 30), datetime(2000, 2, 1)))  # noqa: DTZ001
def test_merging_keeps_what_is_held(held: list[Range], moment: datetime) -> None:
    merged = merge(held)
    assert any(each.contains(moment) for each in held) == any(each.contains(moment) for each in merged)
    for left, right in pairwise(merged):
        assert left.upper is not None
        assert right.lower is not None
        assert left.upper < right.lower


@given(st.lists(ranges), st.datetimes(datetime(2000, 1, 2), datetime(2000, 1, 25)))  # noqa: DTZ001
def test_subtracting_leaves_what_is_not_held(held: list[Range], moment: datetime) -> None:
    whole = BoundedRange(at("2000-01-02"), at("2000-01-25"))
    pieces = subtract(whole, merge(held))
    free = whole.contains(moment) and not any(each.contains(moment) for each in held)
    assert free == any(piece.contains(moment) for piece in pieces)
    assert all(piece.lower < piece.upper for piece in pieces)


@pytest.mark.parametrize(
    "name", ["Mars/Olympus_Mons", "Europe", "../../etc/passwd", "", "utc/", "a\0b", "x" * 5000, *NOT_OF_IANA]
)
def test_zones_that_do_not_exist(name: str) -> None:
    with pytest.raises(UnknownTimeZone, match=r"spec\.timezone"):
        load_zone(name)


def test_moments_are_written_as_iso_8601() -> None:
    assert iso(None) is None
    assert iso(at("2026-01-01T01:00:00+01:00")) == "2026-01-01T00:00:00Z"
    assert iso(at("2026-01-01")) == "2026-01-01"
    assert iso(at("2026-01-01T12:00:00.5")) == "2026-01-01T12:00:00.500000"
