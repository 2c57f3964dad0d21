"""Partitions that spec.ensure asks for: those of its periods, within bounds, and none between them and others."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partwarden.api.period import MAX_ENSURED, parse_period, written
from partwarden.api.retention import Retention
from partwarden.api.types import Interval
from partwarden.errors import TooManyPartitions
from partwarden.planner import calendar
from partwarden.planner.calendar import Grid
from partwarden.planner.plan import Plan
from support import values
from support.values import inventory, moment, partition, plan, spec, years


def made(decided: Plan) -> list[str]:
    return [each.name for each in decided.creations]


@pytest.mark.parametrize(
    ("interval", "entry", "names"),
    [
        (Interval.YEAR, "2031..2032", ["run_2031", "run_2032"]),
        (Interval.YEAR, "2031-Q4..2032-Q1", ["run_2031", "run_2032"]),
        (Interval.MONTH, "2031-Q1", ["run_2031_01", "run_2031_02", "run_2031_03"]),
        (Interval.MONTH, "2031-W05", ["run_2031_01", "run_2031_02"]),
        (Interval.QUARTER, "2031-06", ["run_2031_q2"]),
        (Interval.DAY, "2031-06-01..2031-06-03", ["run_2031_06_01", "run_2031_06_02", "run_2031_06_03"]),
        (Interval.HOUR, "2031-06-01T13..2031-06-01T14", ["run_2031_06_01_13", "run_2031_06_01_14"]),
    ],
)
def test_every_partition_of_a_period_is_made(interval: Interval, entry: str, names: list[str]) -> None:
    policy = spec(interval=interval, premake=0, ensure=[entry])
    decided = plan(policy, inventory())
    assert made(decided)[1:] == names
    assert {each.reason for each in decided.creations[1:]} == {f"for {entry} (spec.ensure)"}
    assert (
        plan(spec(interval=interval, premake=0, ensure=[entry]), values.after(inventory(), decided.creations)).creations
        == ()
    )


def test_a_day_by_hours_is_all_of_its_hours_also_where_the_clock_is_set_back() -> None:
    policy = spec(interval=Interval.HOUR, timezone="Europe/Berlin", premake=0, ensure=["2031-10-26"])
    assert len(plan(policy, inventory()).creations) == 1 + 25


def test_holes_are_filled_from_the_oldest_partition_that_ensure_does_not_ask_for() -> None:
    policy = spec(premake=0, ensure=["1970"])
    for there in (years(2024, 2026), years(1970, 2024, 2026)):
        decided = plan(policy, inventory(*there))
        assert [each for each in made(decided) if each != "run_1970"] == ["run_2025"]
    assert made(plan(spec(premake=0, ensure=["1970", "1990"]), inventory(*years(1970)))) == ["run_2026", "run_1990"]


def test_a_partition_off_the_grid_that_reaches_beyond_a_period_is_no_work_of_ensure() -> None:
    odd = partition("odd", moment("2021-03-01"), moment("2023-01-01"))
    assert made(plan(spec(premake=0, ensure=["2022"]), inventory(odd, *years(2026)))) == [
        "run_2023",
        "run_2024",
        "run_2025",
    ]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Pacific/Kiritimati", "America/Los_Angeles"])
@pytest.mark.parametrize("interval", [Interval.YEAR, Interval.MONTH, Interval.WEEK, Interval.DAY])
def test_no_change_of_interval_or_zone_fills_holes_from_what_ensure_made(interval: Interval, zone: str) -> None:
    there = inventory(*years(2015, *range(2023, 2029)))
    decided = plan(spec(interval=interval, timezone=zone, premake=1, ensure=["2015"]), there)
    assert "TooManyPartitions" not in [each.reason for each in decided.findings]
    assert not [each for each in decided.creations if each.reason.startswith("hole")]


def test_weeks_that_ensure_made_are_not_filled_from_by_another_interval() -> None:
    weeks = plan(spec(interval=Interval.WEEK, premake=0, ensure=["2015-05..2015-06"]), inventory()).creations[1:]
    there = values.after(inventory(*years(2026)), weeks)
    assert plan(spec(interval=Interval.DAY, premake=0, ensure=["2015-05..2015-06"]), there).creations == ()


@pytest.mark.parametrize(
    "entries",
    [
        ["2030-06-01", *(f"{year}-01..{year}-11" for year in range(1900, 1999))],
        [f"{year}-0{month}" for year in range(1900, 1925) for month in (1, 3, 5, 7)],
    ],
)
def test_entries_that_are_too_long_are_not_cut_into_cells(monkeypatch: pytest.MonkeyPatch, entries: list[str]) -> None:
    asked: list[datetime] = []
    cell = calendar._cell

    def count(grid: Grid, at: datetime) -> calendar.BoundedRange:
        asked.append(at)
        return cell(grid, at)

    monkeypatch.setattr(calendar, "_cell", count)
    policy = spec(interval=Interval.HOUR, timezone="Europe/Berlin", premake=0, ensure=entries)
    decided = plan(policy, inventory())
    assert [each.reason for each in decided.findings] == ["TooManyPartitions"] * 99
    assert len(decided.creations) in (1 + 24, 1 + 31 * 24)
    assert len(asked) < 6 * MAX_ENSURED


def test_an_entry_that_asks_for_too_many_is_named_and_the_others_are_made() -> None:
    policy = spec(interval=Interval.DAY, premake=0, ensure=["2031-01-01", "2040..2049", "2032-01-01"])
    decided = plan(policy, inventory())
    assert made(decided)[1:] == ["run_2031_01_01", "run_2032_01_01"]
    (finding,) = decided.findings
    assert isinstance(finding.error, TooManyPartitions)
    assert finding.message == (
        "cannot create the partitions of spec.ensure[1], 2040..2049: with those of the other entries they are more "
        "than 1,000 by Day; name less, or set spec.startFrom if all since then shall exist"
    )


MOMENTS = st.datetimes(datetime(1000, 1, 7), datetime(8998, 12, 31))  # noqa: DTZ001 - a policy's calendar has no zone


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from(list(Interval)), MOMENTS, MOMENTS), max_size=100))
def test_no_more_are_made_than_is_promised(drawn: list[tuple[Interval, datetime, datetime]]) -> None:
    entries = ["..".join(written(kind, each) for each in sorted(pair)) for kind, *pair in drawn]
    decided = plan(spec(interval=Interval.HOUR, premake=0, ensure=entries), inventory())
    assert len(decided.creations) <= 1 + MAX_ENSURED


def test_entries_that_have_expired_are_one_finding() -> None:
    entries = [*(f"{year}-03-01" for year in range(1990, 2000)), "2000..2010", "2018..2030"]
    policy = spec(ensure=entries, premake=0, retention=Retention.model_validate({"keepFor": "5y"}))
    decided = plan(policy, inventory(*years(2026)))
    assert [each.reason for each in decided.findings] == ["EnsureExpired"]
    assert decided.findings[0].message == (
        "spec.ensure names what is older than 5y (spec.retention.keepFor): 1990-03-01, 1991-03-01, 1992-03-01, "
        "1993-03-01, 1994-03-01 and 6 more; no partition is made for it, and one that exists expires: take it out of "
        "spec.ensure, or raise spec.retention.keepFor"
    )
    assert sorted(made(decided)) == [f"run_{year}" for year in (2021, 2022, 2023, 2024, 2025, 2027, 2028, 2029, 2030)]


@given(
    st.sampled_from([Interval.MONTH, Interval.QUARTER, Interval.YEAR, Interval.WEEK]),
    st.sampled_from(list(Interval)[2:]),
    st.integers(0, 600),
    st.integers(0, 5),
    st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Apia"]),
)
def test_what_ensure_makes_is_what_its_period_overlaps(
    interval: Interval, kind: Interval, begin: int, more: int, zone: str
) -> None:
    first, last = (datetime(1990 + months // 12, months % 12 + 1, 9) for months in (begin, begin + more))  # noqa: DTZ001
    entry = f"{written(kind, first)}..{written(kind, last)}"
    policy = spec(interval=interval, timezone=zone, premake=0, ensure=[entry])
    decided = plan(policy, inventory(now=datetime(2026, 11, 22, 12, tzinfo=UTC)))
    grid = Grid(interval, ZoneInfo(zone))
    wanted = {grid.cell(datetime(2026, 11, 22, 12, tzinfo=UTC)), *grid.holding(parse_period(entry))}
    assert {each.range for each in decided.creations} == wanted
