"""What is to be expected of a table, from what was measured: nothing is made up, and one outlier spoils nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partwarden.api.forecast import Forecast
from partwarden.api.policy import TableSpec
from partwarden.api.types import Interval
from partwarden.planner.calendar import Grid
from partwarden.planner.drop_preconditions import server_label
from partwarden.planner.forecast import LARGEST, NOTHING, Claim, Measured, PastArchive, forecast
from partwarden.planner.inventory import Partition, RelationKind
from partwarden.status import details
from support import values

MIB = 1 << 20
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
"""A Monday: its week is the current one."""
ARCHIVING: dict[str, Any] = {"retention": {"keepFor": "1y", "archive": {"pvc": {"claimName": "archives"}}}}
HERE = server_label(values.SERVER.identity)


def closed(*sizes: int | None, interval: Interval = Interval.WEEK, rows: int | None = 700) -> list[Partition]:
    """The newest partitions with these bytes, the youngest last, and the current one, which is full. None: a gap."""
    grid = Grid.of(values.spec(timezone="UTC", interval=interval))
    cell = grid.cell(NOW)
    found = [values.partition("current", cell.lower, cell.upper, bytes=999 * MIB, rows=10**9)]
    for number, size in enumerate(reversed(sizes)):
        cell = grid.cell(cell.lower - timedelta(seconds=1))
        if size is not None:
            found.append(values.partition(f"run_{number}", cell.lower, cell.upper, bytes=size, rows=rows))
    return found


def expected(
    partitions: list[Partition],
    interval: Interval = Interval.WEEK,
    measured: Measured = NOTHING,
    now: datetime = NOW,
    **fields: Any,
) -> Forecast | None:
    policy = TableSpec.model_validate({"table": {"name": "run"}, "interval": interval, "timezone": "UTC", **fields})
    found = values.inventory(*partitions, now=now)
    return forecast(policy, found, values.plan(policy, found), measured)


def known(*arguments: Any, **fields: Any) -> Forecast:
    found = expected(*arguments, **fields)
    assert found is not None
    return found


def test_without_a_partition_that_is_closed_there_is_none() -> None:
    assert expected(closed()) is None
    assert expected([]) is None


def test_bytes_and_rows_of_a_day_are_those_of_closed_partitions() -> None:
    found = known(closed(*[7 * MIB] * 3))
    assert (found.partitions, found.bytes_per_day, found.rows_per_day) == (3, 1_000_000, 100)
    # What a partition will have that is as long.
    assert found.next_partition_bytes == 7_000_000


def test_rows_that_were_never_estimated_are_not_made_up() -> None:
    assert known(closed(MIB, MIB, rows=None)).rows_per_day is None


def test_only_tables_that_hold_rows_here_are_measured() -> None:
    foreign = [replace(each, kind=RelationKind.FOREIGN) for each in closed(MIB, MIB)]
    assert expected(foreign) is None
    assert expected([replace(each, detach_pending=True) for each in closed(MIB)]) is None


def test_the_current_partition_changes_nothing_while_it_grows() -> None:
    partitions = closed(*[7 * MIB] * 8)
    grown = [replace(partitions[0], bytes=2 * partitions[0].bytes, rows=7), *partitions[1:]]
    assert expected(partitions) == expected(grown)


def test_a_partition_of_centuries_says_nothing_of_a_day() -> None:
    *others, oldest = closed(*[7 * MIB] * 4)
    assert oldest.range is not None
    early = replace(oldest.range, lower=datetime(1000, 1, 1, tzinfo=UTC))
    assert known([*others, replace(oldest, range=early, bytes=1 << 50)]).partitions == 3


@pytest.mark.parametrize("interval", [Interval.HOUR, Interval.DAY])
def test_hours_and_days_are_measured_by_whole_weeks(interval: Interval) -> None:
    """Nights and Sundays count as they come."""
    hours = 24 if interval is Interval.HOUR else 1
    week = [24 // hours * MIB if day < 5 else 0 for day in range(7) for _ in range(hours)]
    found = known(closed(*week * 4, interval=interval), interval)
    assert found.partitions == 4 * len(week)
    assert found.bytes_per_day == pytest.approx(sum(week) / 7, rel=0.06)


def test_after_a_change_of_the_interval_both_lengths_count_by_their_days() -> None:
    grid, partitions = Grid.of(values.spec(timezone="UTC")), closed(*[7 * MIB] * 2)
    month = replace(grid, interval=Interval.MONTH).cell(datetime(2026, 10, 1, tzinfo=UTC))
    older = values.partition("run_2026_10", month.lower, month.upper, bytes=31 * MIB, rows=3100)
    found = known([*partitions, older])
    assert (found.bytes_per_day, found.rows_per_day) == (1_000_000, 100)


SIZES = st.lists(st.integers(0, 1 << 40), min_size=1, max_size=12)


@given(SIZES)
def test_nothing_is_negative_and_all_is_rounded(sizes: list[int]) -> None:
    found = known(closed(*sizes), thresholds={"partitionSize": "1Gi"})
    for number in (found.bytes_per_day, found.rows_per_day, found.next_partition_bytes):
        assert number is not None
        assert number >= 0
        assert float(f"{number:.2g}") == number
    assert found.threshold_reached is None or date.fromisoformat(found.threshold_reached) >= NOW.date()


@given(st.lists(st.integers(MIB, 1 << 40), min_size=1, max_size=12), st.integers(1, 6))
def test_ten_times_as_large_is_ten_times_as_much_in_the_same_time(sizes: list[int], power: int) -> None:
    one, other = known(closed(*sizes)), known(closed(*(size * 10**power for size in sizes)))
    assert other.bytes_per_day == pytest.approx(one.bytes_per_day * 10**power, rel=0.06)
    assert (other.growth_percent, other.partitions) == (one.growth_percent, one.partitions)


@given(st.lists(st.integers(70 * MIB, 140 * MIB), min_size=2, max_size=7), st.integers(0, 1 << 50), st.data())
def test_one_outlier_spoils_nothing(usual: list[int], outlier: int, data: st.DataObject) -> None:
    sizes = list(usual)
    sizes.insert(data.draw(st.integers(0, len(usual))), outlier)
    found = known(closed(*sizes))
    assert min(usual) / 7 * 0.95 <= found.bytes_per_day <= max(usual) / 7 * 1.06


@given(SIZES)
def test_a_gap_between_partitions_changes_no_rate(sizes: list[int]) -> None:
    gaps = [each for size in sizes for each in (None, size)]
    assert known(closed(*gaps)).bytes_per_day == known(closed(*sizes)).bytes_per_day


def test_a_trend_is_shown_where_all_agree_on_it() -> None:
    growing = known(closed(*(70 * MIB + 7 * MIB * week for week in range(8))))
    assert growing.growth_percent is not None
    assert growing.growth_percent > 0
    # The eleventh of the row, 70 + 9 * 7 MiB, is the next one.
    assert growing.next_partition_bytes == pytest.approx(133 * MIB, rel=0.06)
    assert known(closed(*(140 * MIB - 7 * MIB * week for week in range(8)))).growth_percent < 0  # type: ignore[operator]
    assert known(closed(*[70 * MIB, 77 * MIB] * 4)).growth_percent is None
    assert known(closed(70 * MIB, 77 * MIB, 84 * MIB)).growth_percent is None


def reached(*sizes: int, limit: str = "100Mi") -> str | None:
    return known(closed(*sizes), thresholds={"partitionSize": limit}).threshold_reached


def test_a_partition_that_outgrows_its_threshold_does_it_on_a_day() -> None:
    # 200 MiB a week: half of it by Thursday.
    assert reached(*[200 * MIB] * 4) == "2026-11-26"
    assert reached(*[70 * MIB] * 4) is None
    assert known(closed(*[200 * MIB] * 4)).threshold_reached is None


def test_a_day_that_has_passed_is_that_of_the_next_partition() -> None:
    assert reached(*[20_000 * MIB] * 4) == "2026-11-23"
    days = {"thresholds": {"partitionSize": "100Mi"}, "now": NOW + timedelta(days=4)}
    assert known(closed(*[700 * MIB] * 4), **days).threshold_reached == "2026-12-01"


def test_a_threshold_that_only_growth_reaches_has_a_day_within_ten_years() -> None:
    growing = [70 * MIB + 7 * MIB * week for week in range(8)]
    day = reached(*growing, limit="200Mi")
    assert day is not None
    assert date(2027, 1, 25) < date.fromisoformat(day) < date(2027, 3, 1)
    assert reached(*growing, limit="1Ti") is None
    assert reached(*reversed(growing), limit="200Mi") is None


def made(oid: int, rows: int, size: int, seconds: int | None, server: str = HERE) -> PastArchive:
    return PastArchive(server, oid, rows, size, seconds, NOW - timedelta(seconds=oid))


def archives(*some: PastArchive, claim: Claim | None = None, rows: int | None = 700) -> Forecast:
    return known(closed(*[7 * MIB] * 4, rows=rows), measured=Measured(some, claim), **ARCHIVING)


def test_the_next_archive_is_that_of_the_oldest_partition_and_costs_what_those_of_its_size_did() -> None:
    found = archives(made(1, 1000, 50_000, 100), made(2, 1000, 50_000, 100), made(3, 10, 5_000, 20))
    assert (found.archives, found.next_archive) == (3, "run_3")
    assert (found.next_archive_bytes, found.next_archive_seconds) == (35_000, 70)
    assert found.archive_bytes_per_day == 5_000


def test_a_small_archive_takes_no_less_than_the_shortest_has_taken() -> None:
    assert archives(made(1, 70_000, 50_000, 40)).next_archive_seconds == 40


def test_of_archives_nothing_is_made_up() -> None:
    empty = archives()
    assert (empty.archives, empty.next_archive, empty.next_archive_bytes) == (None, None, None)
    # None is nearly as large.
    assert archives(made(1, 10, 500, 20)).next_archive_bytes is None
    assert archives(made(1, 1000, 500, None)).next_archive_seconds is None
    assert archives(made(1, 0, 500, 20)).archives is None
    assert archives(made(1, 1000, 500, 20, server="another")).archives is None
    unknown = archives(made(1, 1000, 500, 20), rows=None)
    assert (unknown.next_archive, unknown.next_archive_bytes, unknown.archive_bytes_per_day) == ("run_3", None, None)
    # Without spec.retention.archive nothing will be archived.
    assert known(closed(MIB), measured=Measured((made(1, 1000, 500, 20),))).archives is None


def test_what_is_archived_or_held_is_not_next() -> None:
    partitions = closed(*[7 * MIB] * 2)
    oldest = partitions[-1]
    proven = Measured((made(oldest.oid, 700, 500, 20),))
    assert known(partitions, measured=proven, **ARCHIVING).next_archive == "run_0"
    young = {"retention": {**ARCHIVING["retention"], "keepFor": "1d"}}
    other = Measured((made(1, 700, 500, 20),))
    assert known(partitions, measured=other, **young, holds=[oldest.name]).next_archive == "run_0"


def test_numbers_that_others_forged_are_no_larger_than_a_status_holds() -> None:
    most = (1 << 63) - 1
    found = archives(made(1, 1, most, most), made(2, most, most, most), rows=most)
    numbers = [each for each in found.model_dump().values() if isinstance(each, int)]
    assert max(numbers) == LARGEST
    assert known(closed(*[most] * 4, interval=Interval.HOUR), Interval.HOUR).bytes_per_day == LARGEST
    assert "next archive" in dict(details.expected(found))


def full(capacity: int, used: int, others: int = 0) -> str | None:
    claim = Claim(capacity, used, datetime(2026, 11, 1, 5, tzinfo=UTC), others)
    return archives(made(1, 1000, 50_000, 100), claim=claim).claim_full


def test_a_claim_is_full_when_what_all_policies_archive_fills_it() -> None:
    # 5,000 bytes a day of this policy.
    assert full(1_000_000, 500_000) == "2027-02-09"
    assert full(1_000_000, 500_000, others=5_000) == "2026-12-21"
    assert full(1_000_000, 2_000_000) == "2026-11-01"
    assert full(1 << 40, 500_000) is None


@given(st.integers(0, 1 << 62), st.integers(0, 1 << 62), st.integers(0, 1 << 62))
def test_a_claim_of_any_size_is_full_on_a_day_or_never(capacity: int, used: int, others: int) -> None:
    day = full(capacity, used, others)
    assert day is None or date(2026, 11, 1) <= date.fromisoformat(day) <= date(2036, 11, 1)


STATUS = {
    "manifestSha256": "b",
    "server": values.SERVER.identity,
    "oid": 5,
    "rows": 3,
    "bytes": 2048,
    "seconds": 60,
    "completed": "2026-01-01T00:00:00Z",
}


def test_an_archive_counts_once_it_is_proven_and_its_status_says_all_of_it() -> None:
    assert PastArchive.of(STATUS) == PastArchive(HERE, 5, 3, 2048, 60, datetime(2026, 1, 1, tzinfo=UTC))
    for field in set(STATUS) - {"seconds"}:
        assert PastArchive.of({key: value for key, value in STATUS.items() if key != field}) is None
    wrong = [("rows", -1), ("bytes", "x"), ("oid", []), ("seconds", {}), ("completed", "2026"), ("completed", 5)]
    assert [each for each in wrong if PastArchive.of({**STATUS, each[0]: each[1]})] == []
