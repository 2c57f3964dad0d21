"""Rows of DEFAULT: cut into pieces that agree with the grid, said in bounded words, and planned for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partwarden.api.retention import KeyEncoding
from partwarden.api.status import ConditionStatus, ConditionType
from partwarden.api.types import Interval
from partwarden.errors import InsufficientPrivilege
from partwarden.planner.actions import CreateDefault, CreatePartition, DrainIntoPartition
from partwarden.planner.calendar import BoundedRange, Grid, Range
from partwarden.planner.default_rows import (
    MAX_PIECES,
    MAX_SPANS,
    Cut,
    DefaultRows,
    finer_cut,
    first_cut,
    within_cells,
)
from partwarden.planner.inventory import Inventory, RelationKind
from partwarden.planner.keys import Codec, KeyType
from partwarden.planner.plan import Plan
from partwarden.status.conditions import default_partition_empty, reconciled
from partwarden.status.default_partition import describe, way_out
from support import values

CODECS = [
    Codec(KeyType.TIMESTAMPTZ),
    Codec(KeyType.TIMESTAMP),
    Codec(KeyType.UUID, KeyEncoding.UUID_V7),
    Codec(KeyType.BIGINT, KeyEncoding.EPOCH_MILLISECONDS),
    Codec(KeyType.INTEGER, KeyEncoding.EPOCH_SECONDS),
]


def year(number: int) -> BoundedRange:
    return BoundedRange(datetime(number, 1, 1, tzinfo=UTC), datetime(number + 1, 1, 1, tzinfo=UTC))


def held(*groups: tuple[int, int], **fields: Any) -> DefaultRows:
    return DefaultRows(tuple((year(number), rows) for number, rows in groups), **fields)


def found(rows: DefaultRows | None, *partitions: Any, **fields: Any) -> Inventory:
    return values.inventory(*partitions, values.default(), default_rows=rows, **fields)


def plan(rows: DefaultRows | None, *partitions: Any, **fields: Any) -> Plan:
    return values.plan(values.spec(**fields), found(rows, *partitions))


def counted(cut: Cut, moments: Sequence[datetime]) -> list[tuple[int, int]]:
    """What the server answers: the number of thresholds at or before each moment, with how many moments have it."""
    numbers = [bisect_right(cut.moments, moment) for moment in moments]
    return [(number, numbers.count(number)) for number in sorted(set(numbers))]


@pytest.mark.slow
@given(
    st.sampled_from(list(Interval)),
    st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Apia", "America/St_Johns"]),
    st.sampled_from(CODECS),
    st.lists(st.datetimes(datetime(1971, 1, 1), datetime(2037, 1, 1)), min_size=1, max_size=6),  # noqa: DTZ001
)
def test_the_passes_come_to_an_end_and_agree_with_the_grid(
    interval: Interval, zone: str, codec: Codec, naive: list[datetime]
) -> None:
    moments = [each.replace(tzinfo=UTC) if codec.aware else each for each in naive]
    moments = [each.replace(microsecond=0) for each in moments]
    grid = Grid(interval, ZoneInfo(zone) if codec.aware else None)
    cut, passes = first_cut(codec), 0
    while not cut.final:
        cut = finer_cut(grid, codec, [], [piece for piece, _ in cut.groups(counted(cut, moments))])
        passes += 1
    assert passes <= 3
    assert len(cut.moments) <= MAX_PIECES + MAX_SPANS
    assert all(before < after for before, after in pairwise(cut.moments))
    groups = within_cells(grid, cut.groups(counted(cut, moments)))
    expected = {cell: sum(cell.contains(each) for each in moments) for cell in map(grid.cell, moments)}
    assert dict(groups) == expected


def test_what_partitions_hold_is_cut_off() -> None:
    coverage = [BoundedRange(datetime(2020, 3, 1, tzinfo=UTC), datetime(2020, 6, 1, tzinfo=UTC))]
    cut = finer_cut(Grid(Interval.YEAR, ZoneInfo("UTC")), Codec(KeyType.TIMESTAMPTZ), coverage, [year(2020)])
    assert cut.literals == (
        "2020-01-01T00:00:00Z",
        "2020-03-01T00:00:00Z",
        "2020-06-01T00:00:00Z",
        "2021-01-01T00:00:00Z",
    )


@pytest.mark.parametrize(
    ("interval", "label"),
    [
        ("Year", "2024"),
        ("Quarter", "2024-Q4"),
        ("Month", "2024-12"),
        ("Week", "2025-W01"),
        ("Day", "2024-12-30"),
        ("Hour", "2024-12-30T13"),
    ],
)
def test_intervals_are_named_as_people_do(interval: str, label: str) -> None:
    grid = Grid(Interval(interval), ZoneInfo("UTC"))
    cell = grid.cell(datetime(2024, 12, 30, 13, 30, tzinfo=UTC))
    assert describe(grid, DefaultRows(((cell, 1204),))) == f"{label} (1,204 rows)"


def test_the_message_is_bounded_and_names_the_total() -> None:
    grid = Grid(Interval.YEAR, ZoneInfo("UTC"))
    rows = held(*((1900 + number, 1_000_000) for number in range(100)), whole=False, elsewhere=3)
    words = describe(grid, rows)
    assert "1919 (at least 1,000,000 rows), 80 more intervals (at least 80,000,000 rows)" in words
    assert words.endswith("at least 100,000,003 rows in all")
    assert len(words) < 1000


def test_the_condition_never_calls_empty_what_was_not_counted() -> None:
    error = InsufficientPrivilege("the rows of DEFAULT partition public.run_default cannot be counted")
    for rows, status, reason in [
        (None, ConditionStatus.UNKNOWN, "NotCounted"),
        (DefaultRows(error=error), ConditionStatus.UNKNOWN, "InsufficientPrivilege"),
        (DefaultRows(elsewhere=1), ConditionStatus.FALSE, "DefaultHasRows"),
        (DefaultRows(), ConditionStatus.TRUE, "Empty"),
    ]:
        said = default_partition_empty(values.spec(), found(rows), plan(rows))
        assert (said.status, said.reason) == (status, reason)


def test_rows_of_ranges_that_the_policy_does_not_want_leave_the_policy_ready() -> None:
    inventory = found(held((2019, 5)), *values.years(2026, 2027, 2028))
    verdict = reconciled(values.spec(), inventory, values.plan(values.spec(), inventory), [])
    assert (verdict.ready.status, verdict.ready.reason) == (ConditionStatus.TRUE, "ConvergedWithWarnings")
    assert verdict.others[ConditionType.DEFAULT_PARTITION_EMPTY].message == (
        'DEFAULT partition public.run_default holds 2019 (5 rows); set spec.ensure: ["2019"] to have partitions made '
        "for them, and set spec.defaultPartition.drain to Auto, or move the rows elsewhere"
    )


def advice(rows: DefaultRows, *partitions: Any, **fields: Any) -> str:
    policy = values.spec(default_partition={"drain": "Auto"}, **fields)
    inventory = found(rows, *partitions)
    return default_partition_empty(policy, inventory, values.plan(policy, inventory)).message.partition("; ")[2]


def hours(*texts: str) -> DefaultRows:
    """A row in each of these hours."""
    cells = [Grid(Interval.HOUR, ZoneInfo("UTC")).cell(values.moment(each)) for each in texts]
    return DefaultRows(tuple((cell, 1) for cell in cells))


@pytest.mark.parametrize(
    ("interval", "first", "days", "shown"),
    [
        ("Month", "2024-01-01", 170, '"2024-01..2024-06"'),
        ("Month", "2024-01-01", 366, '"2024"'),
        ("Month", "2024-01-01", 80, '"2024-Q1"'),
        ("Day", "2024-02-01", 29, '"2024-02"'),
        ("Day", "2024-02-01", 3, '"2024-02-01..2024-02-03"'),
        ("Week", "2024-01-01", 14, '"2024-W01..2024-W02"'),
        ("Year", "2019-01-01", 1600, '"2019..2023"'),
    ],
)
def test_the_advice_is_as_short_as_can_be(interval: str, first: str, days: int, shown: str) -> None:
    grid, begin = Grid(Interval(interval), ZoneInfo("UTC")), values.moment(first)
    rows = DefaultRows(tuple((cell, 1) for cell in grid.cells(begin, begin + timedelta(days=days))))
    said = advice(rows, *values.years(2025, 2026), interval=Interval(interval))
    assert said == f"set spec.ensure: [{shown}] to have partitions made for them, or move the rows elsewhere"
    assert advice(rows, *values.years(2025, 2026), interval=Interval(interval), ensure=["2031"]).startswith(
        f"add {shown} to spec.ensure to have"
    )


def test_the_advice_asks_for_no_more_than_ensure_makes() -> None:
    grid, begin = Grid(Interval.DAY, ZoneInfo("UTC")), values.moment("2020-01-01")
    rows = DefaultRows(tuple((cell, 1) for cell in grid.cells(begin, begin + timedelta(days=2000))))
    said = advice(rows, *values.years(2025, 2026), interval=Interval.DAY)
    assert said.startswith('set spec.ensure: ["2020-01-01..2022-09-26"]')
    made = values.plan(values.spec(interval=Interval.DAY, ensure=["2020-01-01..2022-09-26"]), found(None))
    assert "TooManyPartitions" not in [each.reason for each in made.findings]


def test_a_stray_row_of_1970_is_an_outlier_and_no_advice_to_make_everything_since() -> None:
    rows = DefaultRows(((year(1970), 1), (year(2019), 5)))
    assert advice(rows, *values.years(2025, 2026)) == (
        'set spec.ensure: ["2019"] to have partitions made for them, or move the rows elsewhere; 1970 lies far from '
        "everything else, as wrong dates do: correct those rows, or add them to spec.ensure if they are right"
    )
    assert "set" not in advice(DefaultRows(((year(1970), 1),)), *values.years(2025, 2026)).partition(";")[0]


def test_outliers_may_lie_ahead_and_hours_are_soon_far() -> None:
    assert advice(hours("2099-01-01T05:00"), interval=Interval.HOUR).startswith("2099-01-01T05 lies far")
    assert advice(hours("2024-06-01T05:00"), interval=Interval.HOUR).startswith("2024-06-01T05 lies far")
    assert advice(hours("2026-11-20T05:00", "2026-11-20T06:00"), interval=Interval.HOUR).startswith(
        'set spec.ensure: ["2026-11-20T05..2026-11-20T06"]'
    )


def test_rows_of_many_years_in_a_row_are_no_outliers() -> None:
    rows = held(*((number, 1) for number in range(1985, 2026)))
    assert advice(rows, *values.years(2026)).startswith('set spec.ensure: ["1985..2025"]')


def test_a_year_that_ensure_does_not_take_is_named_all_the_same() -> None:
    assert advice(DefaultRows(((year(202), 3),)), *values.years(2026)).startswith("202 lies far from everything else")


@pytest.mark.parametrize("interval", list(Interval))
@pytest.mark.parametrize("text", ["0003-03-03", "0999-12-30", "1000-01-01", "8999-12-31", "9000-01-01", "9996-01-01"])
def test_a_row_of_any_year_is_spoken_of(interval: Interval, text: str) -> None:
    cell = Grid(interval, ZoneInfo("UTC")).cell(values.moment(text))
    assert "far from everything else" in advice(DefaultRows(((cell, 1),)), interval=interval)


def test_advice_on_many_rows_beside_many_partitions_compares_each_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    grid, begin = Grid(Interval.HOUR, ZoneInfo("UTC")), values.moment("2025-01-01")
    covered = list(grid.cells(begin, begin + timedelta(hours=1000)))
    strays = [grid.cell(begin.replace(year=2030 + 2 * number)) for number in range(300)]
    hashed: list[Range] = []
    plain = Range.__hash__

    def count(each: Range) -> int:
        hashed.append(each)
        return plain(each)

    monkeypatch.setattr(Range, "__hash__", count)
    rows = DefaultRows(tuple((cell, 1) for cell in strays))
    assert way_out(values.spec(interval=Interval.HOUR), grid, rows, covered)
    assert len(hashed) < 20 * (len(covered) + len(strays))


def test_pieces_whose_rows_lie_in_default_are_filled_and_others_are_plain() -> None:
    decided = plan(held((2026, 7), (2028, 1)), default_partition={"drain": "Auto"}, premake=2)
    assert [(type(each), each.name) for each in decided.actions] == [
        (DrainIntoPartition, "run_2026"),
        (CreatePartition, "run_2027"),
        (DrainIntoPartition, "run_2028"),
    ]
    first = decided.actions[0]
    assert isinstance(first, DrainIntoPartition)
    assert (first.rows, first.max_rows) == (7, 100_000)
    assert first.lock == "ACCESS EXCLUSIVE on public.run and public.run_default"
    assert not decided.findings


def test_holes_and_dates_to_ensure_are_filled_too() -> None:
    policy = {"default_partition": {"drain": "Auto"}, "premake": 0, "ensure": ["2031-05-05"]}
    decided = plan(held((2024, 3), (2031, 4)), *values.years(2023, 2025, 2026), **policy)
    assert [(each.name, type(each)) for each in decided.actions] == [
        ("run_2031", DrainIntoPartition),
        ("run_2024", DrainIntoPartition),
    ]


@pytest.mark.parametrize(
    ("section", "kind", "words"),
    [
        ({}, RelationKind.TABLE, "move them out of it, or set spec.defaultPartition.drain to Auto"),
        (
            {"drain": "Auto", "drainMaxRows": 6},
            RelationKind.TABLE,
            "7 rows of its range lie in the DEFAULT partition public.run_default, more than 6",
        ),
        ({"drain": "Auto"}, RelationKind.PARTITIONED, "which is a partitioned table"),
    ],
)
def test_where_rows_may_not_move_only_their_piece_is_left(section: Any, kind: RelationKind, words: str) -> None:
    inventory = found(held((2026, 7)))
    inventory = replace(inventory, partitions=(replace(values.default(), kind=kind),))
    decided = values.plan(values.spec(default_partition=section, premake=1), inventory)
    assert [each.name for each in decided.actions] == ["run_2027"]
    (finding,) = decided.findings
    assert (finding.reason, finding.object) == ("DefaultHasRows", "[2026-01-01T00:00:00Z, 2027-01-01T00:00:00Z)")
    assert words in finding.message
    assert finding.error is not None


def test_where_not_all_rows_were_read_the_count_of_the_piece_itself_decides() -> None:
    planned = ((year(2026), 0), (year(2027), 2))
    decided = plan(
        held((2026, 7), (2019, 200_000), whole=False, planned=planned), default_partition={"drain": "Auto"}, premake=1
    )
    assert [type(each) for each in decided.actions] == [CreatePartition, DrainIntoPartition]


def test_what_was_not_counted_is_planned_as_ever() -> None:
    for rows in (None, DefaultRows(error=InsufficientPrivilege("no"))):
        decided = plan(rows, premake=0, default_partition={"drain": "Auto"})
        assert [type(each) for each in decided.actions] == [CreatePartition]


def test_a_default_partition_is_made_last_and_only_where_there_is_none() -> None:
    policy = values.spec(premake=1, default_partition={"ensure": True})
    decided = values.plan(policy, values.inventory())
    assert [type(each) for each in decided.actions] == [CreatePartition, CreatePartition, CreateDefault]
    assert decided.names[-1] == "run_default"
    assert decided.actions[-1].lock == "SHARE UPDATE EXCLUSIVE on public.run"
    assert not [each for each in values.plan(policy, found(DefaultRows())).actions if isinstance(each, CreateDefault)]
    taken = values.plan(policy, values.inventory(taken=frozenset({"run_default"})))
    assert [each.reason for each in taken.findings] == ["NameTaken"]
    assert len(taken.actions) == 2


def test_moments_between_two_spans_belong_to_no_interval() -> None:
    grid = Grid(Interval.YEAR, ZoneInfo("UTC"))
    gap = BoundedRange(year(2001).upper, year(2010).lower)
    assert within_cells(grid, [(year(2001), 1), (gap, 2), (year(2010), 3)]) == ((year(2001), 1), (year(2010), 3))


def test_pieces_do_not_grow_without_end() -> None:
    start = datetime(1901, 1, 1, tzinfo=UTC)
    spans = [BoundedRange(start, start + timedelta(days=400))] * (MAX_SPANS + 9)
    cut = finer_cut(Grid(Interval.HOUR, ZoneInfo("UTC")), Codec(KeyType.TIMESTAMPTZ), [], spans)
    assert not cut.final
    assert len(cut.moments) <= MAX_PIECES
