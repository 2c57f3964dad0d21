"""What leaves the table that was converted, and when: decided from values."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from partwarden.planner.actions import SplitLegacy
from partwarden.planner.calendar import Range
from partwarden.planner.inventory import Partition, RelationKind
from partwarden.planner.keys import Bounds
from partwarden.planner.marker import ConvertedMark
from partwarden.planner.plan import Plan, make_plan
from support.samples import inventory, spec, year

CLOSED = datetime(2026, 1, 1, tzinfo=UTC)
BACKGROUND: dict[str, Any] = {
    "key": "submitted_at",
    "interval": "Year",
    "convert": {"mode": "Attach", "split": "Background"},
}


def moment(number: int, month: int = 1) -> datetime:
    return datetime(number, month, 1, tzinfo=UTC)


def legacy(first: int = 2020, beyond: datetime = CLOSED, **fields: Any) -> Partition:
    """The table that was converted, from that year on."""
    bounds = f"FOR VALUES FROM ('{first}-01-01 00:00:00+00') TO ('{beyond:%Y-%m-%d} 00:00:00+00')"
    values = {"range": Range(moment(first), beyond), "bounds": bounds, "converted": ConvertedMark(7, 100), **fields}
    return replace(year(first, oid=7, name="run_until_2025"), **values)


def decide(each: Partition, now: datetime | None = None, held: frozenset[str] = frozenset(), **fields: Any) -> Plan:
    found = inventory([each, year(2026), year(2027), year(2028)])
    return make_plan(spec(**BACKGROUND | fields), found, now or found.now, held)


def splits(plan: Plan) -> list[SplitLegacy]:
    return [each for each in plan.actions if isinstance(each, SplitLegacy)]


def test_the_youngest_interval_leaves_first_and_the_bounds_meet() -> None:
    (action,) = splits(decide(legacy()))
    assert (action.name, action.oid, action.title) == ("run_until_2025", 7, "run_2025 off run_until_2025")
    assert (action.into.name, action.range) == ("run_2025", Range(moment(2025), CLOSED))
    assert action.whole == Bounds("2020-01-01 00:00:00+00", "2026-01-01 00:00:00+00")
    assert action.into.bounds == Bounds("2025-01-01T00:00:00Z", "2026-01-01 00:00:00+00")
    assert action.rest == Bounds("2020-01-01 00:00:00+00", "2025-01-01T00:00:00Z")
    assert action.into.max_rows == 100_000


def test_its_name_is_asked_for_like_that_of_each_new_partition() -> None:
    assert decide(legacy()).names == ("run_2025",)


@pytest.mark.parametrize(
    "convert",
    [None, {"mode": "Attach"}, {"mode": "Never", "split": "Background"}, {"mode": "Undo", "split": "Background"}],
)
def test_nothing_leaves_where_the_policy_does_not_ask(convert: dict[str, Any] | None) -> None:
    assert splits(decide(legacy(), convert=convert)) == []


def test_one_interval_that_is_left_stays() -> None:
    plan = decide(legacy(2025))
    assert (splits(plan), plan.upkeep.findings) == ([], ())


def test_an_hour_after_its_end_an_interval_counts_as_passed() -> None:
    hour = timedelta(hours=1)
    plan = decide(legacy(), CLOSED + hour - timedelta(seconds=1))
    assert (splits(plan), plan.upkeep.boundary) == ([], CLOSED + hour)
    assert splits(decide(legacy(), CLOSED + hour)) != []


@pytest.mark.parametrize(
    "fields",
    [
        {"converted": None},
        {"converted": ConvertedMark(7, 100, validate=(("public", "log", "log_fkey"),))},
        {"converted": ConvertedMark(7, 100, undone=True)},
        {"kind": RelationKind.FOREIGN},
        {"detach_pending": True},
        {"range": None, "bounds": "DEFAULT"},
    ],
)
def test_another_partition_is_left_alone(fields: dict[str, Any]) -> None:
    assert splits(decide(legacy(**fields))) == []


def test_what_is_held_stays_whole() -> None:
    assert splits(decide(legacy(), held=frozenset({"run_until_2025"}))) == []


def test_what_has_expired_as_a_whole_is_not_divided() -> None:
    keep: dict[str, Any] = {"retention": {"keepFor": "6mo", "dropWithoutArchive": True}}
    assert splits(decide(legacy(), moment(2026, 6), **keep)) != []
    assert splits(decide(legacy(), moment(2026, 8), **keep)) == []


def test_it_waits_for_the_window() -> None:
    window: dict[str, Any] = {"timezone": "UTC", "maintenance": {"window": "02:00-04:00"}}
    plan = decide(legacy(), **window)
    assert splits(plan) == []
    assert [type(each) for each in plan.upkeep.deferred] == [SplitLegacy]
    assert "SplitLegacy" in [each.action for each in plan.steps]
    assert splits(decide(legacy(), datetime(2026, 6, 15, 3, tzinfo=UTC), **window)) != []


def test_an_end_within_an_interval_is_a_finding() -> None:
    plan = decide(legacy(beyond=moment(2025, 7)))
    assert splits(plan) == []
    assert [each.reason for each in plan.upkeep.findings] == ["SplitOffGrid"]
    assert "spec.interval" in plan.upkeep.findings[0].message


def test_a_name_that_is_taken_is_a_finding() -> None:
    named = replace(year(2031), name="run_2025")
    found = inventory([legacy(), year(2026), year(2027), year(2028), named])
    plan = make_plan(spec(**BACKGROUND), found, found.now)
    assert splits(plan) == []
    assert [each.reason for each in plan.upkeep.findings] == ["NameTaken"]
