"""What upkeep is due, when, and what is said of it: decided from values."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from partwarden.errors import TableNotFound
from partwarden.planner.calendar import Range, iso
from partwarden.planner.inventory import (
    ClosedPartition,
    Inventory,
    KeyPart,
    MaintenanceFacts,
    Partition,
    Pruning,
    RelationKind,
    Statistics,
)
from partwarden.planner.keys import KeyType
from partwarden.planner.marker import ClosedMark
from partwarden.planner.plan import Plan, make_plan
from partwarden.status.conditions import failed, make_status, reconciled, suspended
from partwarden.status.events import Notice, changed
from support.samples import NOW, inventory, spec, year

YEARS = [year(number) for number in range(2023, 2029)]
GI = 2**30


def decide(found: Inventory, now: datetime | None = None, held: frozenset[str] = frozenset(), **fields: Any) -> Plan:
    return make_plan(spec(**fields), found, now or found.now, held)


def fact(each: Partition, **fields: Any) -> ClosedPartition:
    """A closed partition with rows and indexes, to which nothing was done yet."""
    values: dict[str, Any] = {
        "owner": "app",
        "may_own": True,
        "empty": False,
        "frozen": False,
        "indexed": True,
        "invalid": (),
        "mark": ClosedMark(each.oid),
        **fields,
    }
    return ClosedPartition(oid=each.oid, **values)


def known(*facts: ClosedPartition, partitions: list[Partition] = YEARS, **fields: Any) -> Inventory:
    return replace(inventory(partitions, **fields), facts=MaintenanceFacts(closed=facts))


def due(plan: Plan) -> list[str]:
    return [f"{type(each).__name__} {each.name}" for each in plan.actions]


BOTH: dict[str, Any] = {"maintenance": {"onClose": "VacuumAndReindex"}}


def test_nothing_is_asked_or_done_where_the_policy_does_not_ask() -> None:
    plan = decide(known(*map(fact, YEARS[:3])))
    assert (plan.actions, plan.upkeep.closed, plan.upkeep.boundary) == ((), frozenset(), None)


def test_the_newest_closed_partition_comes_first_and_vacuum_before_reindex() -> None:
    plan = decide(known(*map(fact, YEARS[1:3])), **BOTH)
    assert plan.upkeep.closed == {2023, 2024, 2025}
    assert due(plan) == [
        "VacuumPartition run_2025",
        "ReindexPartition run_2025",
        "VacuumPartition run_2024",
        "ReindexPartition run_2024",
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"empty": True}, []),
        ({"frozen": True}, ["ReindexPartition run_2025"]),
        ({"indexed": False}, ["VacuumPartition run_2025"]),
        ({"mark": ClosedMark(2025, vacuumed=NOW)}, ["ReindexPartition run_2025"]),
        ({"mark": ClosedMark(2025, reindexed=NOW)}, ["VacuumPartition run_2025"]),
        ({"mark": ClosedMark(2025, NOW, NOW)}, []),
        ({"mark": ClosedMark(2025, NOW, NOW, ("reindex",))}, []),
        ({"may_own": False}, []),
    ],
)
def test_what_was_done_or_need_not_be_is_not_done(fields: dict[str, Any], expected: list[str]) -> None:
    assert due(decide(known(fact(YEARS[2], **fields)), **BOTH)) == expected


@pytest.mark.parametrize(
    "other",
    [
        year(2025, kind=RelationKind.FOREIGN),
        year(2025, kind=RelationKind.PARTITIONED),
        replace(year(2025), detach_pending=True),
        replace(year(2025), range=Range(datetime(2024, 2, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))),
        replace(year(2025), range=Range(None, datetime(2026, 1, 1, tzinfo=UTC))),
    ],
    ids=["foreign", "partitioned", "pending", "off-grid", "unbounded"],
)
def test_what_is_not_a_plain_interval_of_rows_is_left_alone(other: Partition) -> None:
    found = known(fact(other), partitions=[other, year(2026), year(2027), year(2028)])
    assert not decide(found, **BOTH).upkeep.closed


@pytest.mark.parametrize("name", ["run_2025", "public.run_2025"])
def test_what_is_held_is_left_alone(name: str) -> None:
    assert decide(known(*map(fact, YEARS[2:3])), held=frozenset({name}), **BOTH).upkeep.closed == {2023, 2024}


def test_what_has_expired_is_not_polished_before_it_goes() -> None:
    bounded = [replace(each, bounds=_bounds(each)) for each in YEARS]
    plan = decide(known(*map(fact, YEARS[:3]), partitions=bounded), **BOTH, retention={"keepFor": "1y"})
    assert plan.upkeep.closed == {2025, 2024} - plan.retired.expired
    assert {2023} <= plan.retired.expired


def _bounds(each: Partition) -> str:
    assert each.range is not None
    return f"FOR VALUES FROM ('{iso(each.range.lower)}') TO ('{iso(each.range.upper)}')"


def test_a_range_has_passed_an_hour_after_its_end_and_the_plan_knows_when() -> None:
    end = datetime(2026, 1, 1, tzinfo=UTC)
    young = decide(known(*map(fact, YEARS[:3])), now=end + timedelta(minutes=59, seconds=59), **BOTH)
    assert 2025 not in young.upkeep.closed
    assert young.next_boundary == end + timedelta(hours=1)
    assert 2025 in decide(known(*map(fact, YEARS[:3])), now=end + timedelta(hours=1), **BOTH).upkeep.closed


def test_a_key_without_a_zone_is_judged_by_the_zone_of_the_policy() -> None:
    naive = [replace(each, range=_naive(each)) for each in YEARS]
    found = known(*map(fact, naive[:3]), partitions=naive, key=(KeyPart("submitted_at", KeyType.DATE),))
    auckland = {**BOTH, "timezone": "Pacific/Auckland"}
    # There the year ends when it is 11:00 of 31 December in UTC.
    assert 2025 not in decide(found, now=datetime(2025, 12, 31, 11, 59, tzinfo=UTC), **auckland).upkeep.closed
    assert 2025 in decide(found, now=datetime(2025, 12, 31, 12, tzinfo=UTC), **auckland).upkeep.closed


def _naive(each: Partition) -> Range:
    assert each.range is not None
    assert each.range.lower is not None
    assert each.range.upper is not None
    return Range(each.range.lower.replace(tzinfo=None), each.range.upper.replace(tzinfo=None))


def test_outside_of_the_window_nothing_is_planned_and_findings_stay() -> None:
    facts = (fact(YEARS[2]), fact(YEARS[1], may_own=False, owner="other"))
    shut = decide(known(*facts), timezone="UTC", maintenance={**BOTH["maintenance"], "window": "12:30-13:00"})
    opened = decide(known(*facts), timezone="UTC", maintenance={**BOTH["maintenance"], "window": "12:00-13:00"})
    assert (due(shut), shut.next_boundary) == ([], NOW + timedelta(minutes=30))
    assert due(opened) == ["VacuumPartition run_2025", "ReindexPartition run_2025"]
    assert [each.reason for each in shut.findings] == [each.reason for each in opened.findings] == ["NotOwner"]


def test_a_window_wakes_no_policy_when_nothing_is_due() -> None:
    plan = decide(inventory(YEARS), maintenance={"window": "12:30-13:00"})
    assert plan.next_boundary == datetime(2027, 1, 1, tzinfo=UTC)


def test_what_was_given_up_and_invalid_indexes_are_notices() -> None:
    mark = ClosedMark(2025, NOW, NOW, ("reindex",))
    plan = decide(known(fact(YEARS[2], mark=mark, invalid=("halfway",))), **BOTH)
    assert [(each.reason, each.error) for each in plan.findings] == [("UpkeepGaveUp", None), ("InvalidIndex", None)]
    assert "reindex of public.run_2025" in plan.findings[0].message


def test_what_reindex_would_skip_is_reported_and_not_planned() -> None:
    plan = decide(known(fact(YEARS[2], indexed=False, frozen=True, exclusive=("own", "run_2025_pkey"))), **BOTH)
    assert plan.actions == ()
    assert [(each.reason, each.error) for each in plan.findings] == [("IndexNotRebuilt", None)]
    assert "own, run_2025_pkey of public.run_2025" in plan.findings[0].message
    only = decide(known(fact(YEARS[2], frozen=True, exclusive=("own",))), maintenance={"onClose": "Vacuum"})
    assert only.findings == ()


def drifted(parent: int | None, *rows: int | None) -> Inventory:
    return inventory([year(2026 + number, rows=count) for number, count in enumerate(rows)], rows=parent)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (drifted(None, 100, 100, 100), False),
        (drifted(None, 1001, None, 0), True),
        (drifted(10_000, 10_000, 900, 0), False),
        (drifted(10_000, 10_000, 1300, 0), True),
        (drifted(10_000, 8_500, 0, 0), True),
        (drifted(10_000_000, 10_900_000, 0, 0), False),
        (drifted(5000, None, None, None), False),
    ],
)
def test_when_what_the_parent_believes_is_too_far_from_its_partitions(found: Inventory, expected: bool) -> None:
    assert decide(found).upkeep.drifted is expected
    assert not decide(found, maintenance={"analyzeParent": False}).upkeep.drifted


OLD = NOW - timedelta(days=3)


@pytest.mark.parametrize(
    ("statistics", "expected"),
    [
        (None, False),
        (Statistics(None, None, True), False),
        (Statistics(None, OLD, True), True),
        (Statistics(OLD, OLD, True), False),
        (Statistics(OLD, OLD + timedelta(minutes=14), True), False),
        (Statistics(OLD, OLD + timedelta(minutes=15), True), True),
        (Statistics(NOW, OLD, True), False),
        (Statistics(None, OLD, False), False),
    ],
)
def test_the_parent_is_analyzed_only_when_a_partition_was_well_after_it(
    statistics: Statistics | None, expected: bool
) -> None:
    found = replace(drifted(None, 5000, 0, 0), facts=MaintenanceFacts(statistics=statistics))
    assert due(decide(found)) == (["AnalyzeParent run"] if expected else [])


def test_upkeep_comes_after_all_else() -> None:
    found = replace(
        known(fact(YEARS[2]), partitions=YEARS[:4], rows=9_999_999), facts=MaintenanceFacts((fact(YEARS[2]),))
    )
    found = replace(found, facts=replace(found.facts, statistics=Statistics(None, OLD, True)))
    assert [each.split()[0] for each in due(decide(found, **BOTH))] == [
        "CreatePartition",
        "CreatePartition",
        "AnalyzeParent",
        "VacuumPartition",
        "ReindexPartition",
    ]


@pytest.mark.parametrize(
    ("pruning", "reasons", "words"),
    [
        (None, [], ""),
        (Pruning(True), [], ""),
        (Pruning(False), ["PruningDisabled"], "off for role 'app' in database 'orchestrator'"),
        (Pruning(True, ("role 'report'",)), ["PruningDisabled"], "off for role 'report'"),
        (Pruning(True, (), ("public.run_2025",)), ["PruningIncomplete"], "also scans public.run_2025"),
    ],
)
def test_what_is_said_of_pruning_stops_nothing(pruning: Pruning | None, reasons: list[str], words: str) -> None:
    plan = decide(replace(inventory(YEARS), facts=MaintenanceFacts(pruning=pruning)))
    assert [(each.reason, each.error) for each in plan.findings] == [(reason, None) for reason in reasons]
    assert all(words in each.message for each in plan.findings)


def status(*sizes: int, previous: dict[str, Any] | None = None, limit: str | None = "1Gi") -> dict[str, Any]:
    found = inventory([year(2024 + number, bytes=size) for number, size in enumerate(sizes)])
    fields: dict[str, Any] = {"thresholds": {"partitionSize": limit}, "startFrom": "2026-01-01", "premake": 0}
    verdict = reconciled(spec(**fields), found, decide(found, **fields), ())
    return make_status(verdict, previous or {}, 1, NOW)


def within(status: dict[str, Any]) -> dict[str, Any]:
    (found,) = [each for each in status["conditions"] if each["type"] == "WithinThresholds"]
    return dict(found)


def test_partitions_over_the_limit_are_named_and_marked_and_ready_is_not_concerned() -> None:
    shown = status(5 * GI, 1, GI, GI + 1)
    assert (within(shown)["status"], within(shown)["reason"]) == ("False", "PartitionTooLarge")
    assert (
        "larger than 1Gi (spec.thresholds.partitionSize): public.run_2024 (over 4 times that), public.run_2027 (over"
        in (within(shown)["message"])
    )
    assert {each["name"]: each.get("overThreshold") for each in shown["partitions"]} == {
        "run_2024": True,
        "run_2025": None,
        "run_2026": None,
        "run_2027": True,
    }
    assert shown["conditions"][0] | {"type": "Ready", "status": "True"} == shown["conditions"][0]
    assert [each["reason"] for each in shown["findings"]] == ["PartitionTooLarge"]


def test_growing_a_little_changes_no_message() -> None:
    assert within(status(5 * GI, 2, GI, GI + 1)) == within(status(6 * GI, 3, GI, GI + 4096))


def test_within_the_limit_and_without_one() -> None:
    assert within(status(GI, 1, GI))["reason"] == "WithinThresholds"
    none = within(status(5 * GI, 5 * GI, 5 * GI, limit=None))
    assert (none["status"], none["reason"]) == ("True", "NoThreshold")


def test_unknown_where_nothing_was_observed() -> None:
    for verdict in (failed(TableNotFound("x"), True), suspended()):
        assert within(make_status(verdict, {}, 1, NOW))["status"] == "Unknown"


def test_crossing_the_limit_is_an_event_once_and_so_is_coming_back() -> None:
    small, large, larger = (status(1, 1, size) for size in (1, 5 * GI, 20 * GI))
    (notice,) = changed(small, large)
    assert notice == Notice(notice.type, "PartitionTooLarge", within(large)["message"])
    assert notice.type == "Warning"
    assert changed(large, larger) == []
    (healed,) = changed(larger, small)
    assert (healed.type, healed.reason) == ("Normal", "WithinThresholds")
    assert changed(small, small) == []


@pytest.mark.slow
def test_the_largest_are_listed_and_named_however_many_there_are() -> None:
    many = [year(1400 + number, bytes=2 * GI) for number in range(900)]
    found = inventory([*many, year(2400, bytes=90 * GI)])
    fields: dict[str, Any] = {"thresholds": {"partitionSize": "1Gi"}, "startFrom": "2026-01-01"}
    verdict = reconciled(spec(**fields), found, decide(found, **fields), ())
    shown = make_status(verdict, {}, 1, NOW)
    assert within(shown)["message"].startswith(
        "larger than 1Gi (spec.thresholds.partitionSize): public.run_2400 (over 64"
    )
    assert "and 896 more" in within(shown)["message"]
    assert sum(each.get("overThreshold", False) for each in shown["partitions"]) >= 100
