"""Names tell partitions apart and fit into what PostgreSQL keeps."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partwarden.api.policy import UNIQUE, Table, TableSpec
from partwarden.api.types import Interval
from partwarden.errors import NameTooLong
from partwarden.planner.calendar import BoundedRange, Grid
from partwarden.planner.keys import DEFAULT_FORMATS, MAX_BYTES, partition_name

FORMATS = [
    (interval, "".join(f"{{{name}}}" for name in sorted(names))) for interval, sets in UNIQUE.items() for names in sets
] + list(DEFAULT_FORMATS.items())
# Hours from before the clocks go back; the rest long enough for leap years, and years of 53 weeks.
START = {interval: datetime(2019, 12, 25, tzinfo=UTC) for interval in Interval} | {
    Interval.HOUR: datetime(2026, 4, 3, tzinfo=UTC)
}
STOP = datetime(8999, 1, 1, tzinfo=UTC)


def names(grid: Grid, name_format: str | None, start: datetime, count: int) -> list[str]:
    return [partition_name("run", name_format, grid, cell) for cell in islice(grid.cells(start, STOP), count)]


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Australia/Lord_Howe"])
@pytest.mark.parametrize(("interval", "name_format"), FORMATS)
def test_every_permitted_format_tells_partitions_apart(interval: Interval, name_format: str, zone: str) -> None:
    TableSpec(table=Table(name="run"), interval=interval, name_format=name_format)
    run = names(Grid(interval, ZoneInfo(zone)), name_format, START[interval], 800)
    assert len(set(run)) == len(run)


@given(
    st.sampled_from(list(Interval)),
    st.datetimes(datetime(1850, 1, 1), datetime(2060, 1, 1)),  # noqa: DTZ001
    st.sampled_from(["Pacific/Apia", "America/Goose_Bay", "America/Havana", "Asia/Beirut", "Africa/Monrovia"]),
)
def test_names_stay_apart_where_clocks_do_odd_things(interval: Interval, start: datetime, zone: str) -> None:
    run = names(Grid(interval, ZoneInfo(zone)), None, start.replace(tzinfo=UTC), 60)
    assert len(set(run)) == len(run)


@given(
    st.sampled_from(list(Interval)),
    st.datetimes(datetime(2000, 1, 1), datetime(2060, 1, 1)),  # noqa: DTZ001
    st.lists(st.timedeltas(timedelta(0), timedelta(days=1)), min_size=2, max_size=5, unique=True),
)
def test_pieces_of_a_cell_have_names_of_their_own(
    interval: Interval, moment: datetime, offsets: list[timedelta]
) -> None:
    grid = Grid(interval, None)
    cell = grid.cell(moment)
    cuts = sorted({cell.lower + (cell.upper - cell.lower) * (offset / timedelta(days=1.1)) for offset in offsets})
    pieces = [BoundedRange(lower, upper) for lower, upper in zip([cell.lower, *cuts], [*cuts, cell.upper], strict=True)]
    pieces = [piece for piece in pieces if piece.lower != piece.upper]
    run = [partition_name("run", None, grid, piece) for piece in [cell, *pieces] if piece != cell or len(pieces) > 1]
    assert len(set(run)) == len(run)


@pytest.mark.parametrize(
    ("interval", "moment", "expected"),
    [
        (Interval.YEAR, "2026-11-22T12:00", "run_2026"),
        (Interval.QUARTER, "2026-11-22T12:00", "run_2026_q4"),
        (Interval.MONTH, "2026-11-22T12:00", "run_2026_11"),
        (Interval.WEEK, "2027-01-01T12:00", "run_2026_w53"),
        (Interval.DAY, "2026-11-02T12:00", "run_2026_11_02"),
        (Interval.HOUR, "2026-11-02T03:59", "run_2026_11_02_03"),
    ],
)
def test_default_names(interval: Interval, moment: str, expected: str) -> None:
    grid = Grid(interval, None)
    assert partition_name("run", None, grid, grid.cell(datetime.fromisoformat(moment))) == expected


def test_the_hour_that_comes_twice() -> None:
    berlin = Grid(Interval.HOUR, ZoneInfo("Europe/Berlin"))
    run = names(berlin, "{year}{month}{day}t{hour}", datetime(2026, 10, 24, 23, tzinfo=UTC), 4)
    assert run == ["20261025t01", "20261025t02", "20261025t02b", "20261025t03"]


def test_a_piece_says_where_it_begins() -> None:
    grid = Grid(Interval.YEAR, None)
    begin, end = datetime(2026, 3, 5), datetime(2027, 1, 1)  # noqa: DTZ001
    assert partition_name("run", None, grid, BoundedRange(begin, end)) == "run_2026_20260305"
    late = begin.replace(hour=7, minute=30, microsecond=5)
    assert partition_name("run", None, grid, BoundedRange(late, end)) == "run_2026_20260305t073000000005"


def test_the_table_may_be_called_like_a_placeholder() -> None:
    grid = Grid(Interval.YEAR, None)
    assert partition_name("{year}", None, grid, grid.cell(datetime(2026, 1, 1))) == "{year}_2026"  # noqa: DTZ001


@pytest.mark.parametrize(("letter", "fits"), [("x", 58), ("é", 29), ("実", 19), ("\N{GRINNING FACE}", 14)])
def test_the_limit_is_in_bytes(letter: str, fits: int) -> None:
    grid = Grid(Interval.YEAR, None)
    cell = grid.cell(datetime(2026, 1, 1))  # noqa: DTZ001
    name = partition_name(letter * fits, None, grid, cell)
    assert len(name.encode()) <= MAX_BYTES
    with pytest.raises(NameTooLong, match=r"has \d+ bytes, PostgreSQL keeps 63: shorten spec\.nameFormat"):
        partition_name(letter * (fits + 1), None, grid, cell)
