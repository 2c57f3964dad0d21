"""What a status shows of a table, and which changes are worth an Event."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from partwarden.api.forecast import Forecast
from partwarden.api.retention import Retention
from partwarden.planner.actions import Outcome
from partwarden.planner.calendar import Range
from partwarden.planner.inventory import Partition, RelationKind
from partwarden.planner.marker import Marker, Phase
from partwarden.planner.plan import make_plan
from partwarden.status import events
from partwarden.status.conditions import reconciled
from partwarden.status.details import details, expected, human
from partwarden.status.events import CompletedAction, Notice, changed, done
from support import values
from support.samples import inventory, plan, spec, year


def shown(*partitions: Partition) -> dict[str, dict[str, Any]]:
    found = inventory(partitions)
    described = details(found, plan(found), ()).model_dump(mode="json", by_alias=True, exclude_none=True)
    return {each["name"]: each for each in described["partitions"]}


@pytest.mark.parametrize(
    ("partition", "state"),
    [
        (year(2025), "Past"),
        (year(2026), "Current"),
        (year(2027), "Future"),
        (replace(year(2031), range=None, bounds="DEFAULT"), "Default"),
        (replace(year(2031), range=Range(datetime(2031, 1, 1, tzinfo=UTC), None)), "Unmanaged"),
        (replace(year(2025), detach_pending=True), "DetachPending"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_where_a_partition_stands(partition: Partition, state: str) -> None:
    assert [each["state"] for each in shown(partition).values()] == [state]


def retained(*partitions: Partition, held: str = "", **fields: Any) -> dict[str, Any]:
    """The status where five years are kept."""
    found = values.inventory(*partitions, **fields)
    policy = values.spec(premake=0, start_from="2026-01-01", retention=Retention(keep_for="5y"))
    status = details(found, make_plan(policy, found, found.now, frozenset({held})), ())
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def test_expired_held_and_detached_are_distinguished() -> None:
    tables = tuple(
        values.detached(f"run_{number}", datetime(number, 1, 1, tzinfo=UTC), datetime(number + 1, 1, 1, tzinfo=UTC))
        for number in (2016, 2015)
    )
    status = retained(*values.years(2018, 2017, 2025, 2026), held="run_2018", detached=tables)
    assert [(each["name"], each["state"]) for each in status["partitions"]] == [
        ("run_2015", "Detached"),
        ("run_2016", "Detached"),
        ("run_2017", "Expired"),
        ("run_2018", "Held"),
        ("run_2025", "Past"),
        ("run_2026", "Current"),
    ]
    assert status["partitions"][0]["from"] == "2015-01-01T00:00:00Z"
    assert status["partitions"][0]["to"] == "2016-01-01T00:00:00Z"
    summary = status["summary"]
    assert (summary["partitions"], summary["expired"], summary["detached"]) == (4, 2, 2)


def test_detached_tables_push_no_partition_of_note_off_the_list() -> None:
    tables = tuple(
        values.detached(
            f"{'x' * 50}_{number}", datetime(number, 1, 1, tzinfo=UTC), datetime(number + 1, 1, 1, tzinfo=UTC)
        )
        for number in range(1000, 2010)
    )
    status = retained(*values.years(*range(2010, 2027)), detached=tables)
    states = [each["state"] for each in status["partitions"]]
    assert states.count("Detached") == 50
    assert states.count("Expired") == 11
    assert states[-1] == "Current"
    assert status["summary"]["detached"] == 1010


def test_without_retention_nothing_is_said_of_it() -> None:
    found = inventory([year(2026)])
    summary = details(found, plan(found), ()).model_dump(by_alias=True, exclude_none=True)["summary"]
    assert not {"expired", "detached"} & set(summary)


def test_a_partition_elsewhere_or_of_another_kind_says_so() -> None:
    found = shown(replace(year(2026), schema="old"), year(2027, kind=RelationKind.FOREIGN), year(2028))
    assert set(found) == {"old.run_2026", "run_2027", "run_2028"}
    assert found["run_2027"]["kind"] == "foreign table"
    assert "kind" not in found["run_2028"]


def test_bounds_rows_and_size() -> None:
    (entry,) = shown(year(2026, rows=None)).values()
    assert entry == {
        "name": "run_2026",
        "from": "2026-01-01T00:00:00Z",
        "to": "2027-01-01T00:00:00Z",
        "bytes": 1_000_000,
        "state": "Current",
    }


@pytest.mark.parametrize(
    ("exact", "shown"),
    [
        (0, 0),
        (7, 7),
        (99, 99),
        (104, 100),
        (105, 100),
        (106, 110),
        (8192, 8200),
        (123_456_789, 120_000_000),
        (995, 1000),
    ],
)
def test_sizes_and_estimates_have_two_significant_digits(exact: int, shown: int) -> None:
    found = inventory([year(2026, rows=exact, bytes=exact)])
    status = details(found, plan(found), ())
    assert status.summary is not None
    assert status.summary.largest is not None
    assert (status.partitions[0].rows, status.partitions[0].bytes) == (shown, shown)
    assert (status.summary.rows, status.summary.total_bytes) == (shown, shown)
    assert (status.summary.size, status.summary.largest.bytes) == (human(shown), shown)


def test_a_table_that_grows_a_little_has_the_same_status() -> None:
    before, after = (
        details(found, plan(found), ())
        for found in (inventory([year(2026, rows=number, bytes=8192 * number)]) for number in (1_010_000, 1_015_000))
    )
    assert before == after


def test_partitions_are_listed_in_ascending_order_with_default_last() -> None:
    default = replace(year(2031), range=None, name="run_default")
    first = replace(year(2020), range=Range(None, datetime(2021, 1, 1, tzinfo=UTC)), name="run_before")
    names = list(shown(default, year(2027), year(2026), first, year(2024)))
    assert names == ["run_before", "run_2024", "run_2026", "run_2027", "run_default"]


def test_beyond_the_limit_the_nearest_and_the_remarkable_are_listed() -> None:
    foreign, old = year(1500, kind=RelationKind.FOREIGN), year(1550)
    mark = Marker(old.oid, 1000, "public.run", values.bounds(old), Phase.RESTORED, values.NOW)
    found = shown(*[year(number) for number in range(1600, 2500)], foreign, replace(old, marker=mark))
    assert len(found) == 200
    assert "run_1500" in found
    assert found["run_1550"]["restored"]
    assert {f"run_{number}" for number in range(1930, 2120)} <= set(found)


@pytest.mark.parametrize(
    ("years", "until", "runway"),
    [
        (range(2024, 2029), "2029-01-01T00:00:00Z", 731),
        (range(2024, 2027), "2027-01-01T00:00:00Z", 0),
        (range(2024, 2026), None, 0),
        ((2026, 2028), "2027-01-01T00:00:00Z", 0),
    ],
)
def test_how_far_coverage_goes_without_a_gap(years: range, until: str | None, runway: int) -> None:
    found = inventory([year(number) for number in years])
    summary = details(found, plan(found), ()).summary
    assert summary is not None
    assert (summary.covered_until, summary.runway_days) == (until, runway)


def test_coverage_without_an_end_has_no_runway() -> None:
    found = inventory([replace(year(2026), range=Range(datetime(2020, 1, 1, tzinfo=UTC), None))])
    summary = details(found, plan(found), ()).summary
    assert summary is not None
    assert (summary.covered_until, summary.runway_days) == ("MAXVALUE", None)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1.0Ki"), (34_183_577, "32.6Mi"), (2**40, "1.0Ti"), (2**63, "8192.0Pi")],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert human(size) == text


def ready(status: str, reason: str = "Converged") -> dict[str, Any]:
    return {
        "conditions": [
            {"type": "Stalled", "status": "False"},
            {"type": "Ready", "status": status, "reason": reason, "message": "m"},
        ]
    }


FRESH: dict[str, Any] = {}
HEALTHY, DOWN, BROKEN = ready("True"), ready("False", "DatabaseUnreachable"), ready("False", "TableNotFound")
PENDING, SUSPENDED = ready("False", "PlanPending"), ready("Unknown", "Suspended")


@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        (FRESH, HEALTHY, []),
        (FRESH, DOWN, ["Warning DatabaseUnreachable"]),
        (HEALTHY, HEALTHY, []),
        (HEALTHY, DOWN, ["Warning DatabaseUnreachable"]),
        (DOWN, DOWN, []),
        (DOWN, BROKEN, ["Warning TableNotFound"]),
        (DOWN, HEALTHY, ["Normal Healthy"]),
        (HEALTHY, PENDING, ["Normal PlanPending"]),
        (HEALTHY, SUSPENDED, []),
        (SUSPENDED, HEALTHY, []),
        (SUSPENDED, DOWN, ["Warning DatabaseUnreachable"]),
    ],
)
def test_only_transitions_are_worth_an_event(before: dict[str, Any], after: dict[str, Any], events: list[str]) -> None:
    assert [f"{each.type} {each.reason}" for each in changed(before, after)] == events


def test_one_event_tells_of_all_partitions_done() -> None:
    found = inventory()
    actions = plan(found, premake=30).actions
    assert done([]) == []
    (one,) = done([CompletedAction.of(Outcome(actions[0]))])
    assert one == Notice(events.EventType.NORMAL, "PartitionCreated", "created partition run_2026")
    (many,) = done([CompletedAction.of(Outcome(action)) for action in actions])
    assert many.message.startswith("created 31 partitions: run_2026, run_2027, ")
    assert many.message.endswith("run_2035 and 21 more")


def test_an_event_fits_what_the_api_server_takes() -> None:
    after = ready("False", "StatementRejected")
    after["conditions"][1]["message"] = "ü" * 1024
    (notice,) = changed({}, after)
    assert len(notice.message.encode()) <= 1024


def test_a_forecast_is_part_of_the_summary_and_stays_while_only_the_current_partition_grows() -> None:
    def status(size: int) -> dict[str, Any]:
        found = inventory([year(2024, bytes=366_000), year(2025, bytes=365_000), year(2026, bytes=size)])
        table = reconciled(spec(), found, plan(found), ()).table
        assert table is not None
        summary: dict[str, Any] = table.model_dump(mode="json", by_alias=True, exclude_none=True)["summary"]
        return summary

    whole = {"partitions": 2, "rowsPerDay": 0, "bytesPerDay": 1000, "nextPartitionBytes": 360_000}
    assert status(1)["forecast"] == status(10**9)["forecast"] == whole
    assert "forecast" not in details(inventory(), plan(inventory()), ()).model_dump(exclude_none=True)["summary"]


MEASURED = Forecast(partitions=8, bytes_per_day=3 << 30, next_partition_bytes=21 << 30)


@pytest.mark.parametrize(
    ("forecast", "lines"),
    [
        (MEASURED, ["each day: 3.0Gi on disk, by 8 closed partitions", "next partition: ~21.0Gi"]),
        (
            MEASURED.model_copy(
                update={"rows_per_day": 12_000, "growth_percent": 4, "threshold_reached": "2027-03-01", "archives": 3}
            ),
            [
                "each day: ~12,000 rows, 3.0Gi on disk, +4% every 30 days, by 8 closed partitions",
                "next partition: ~21.0Gi",
                "over threshold: 2027-03-01",
            ],
        ),
        (
            MEASURED.model_copy(
                update={
                    "archives": 3,
                    "next_archive": "run_2020",
                    "next_archive_bytes": 1 << 30,
                    "next_archive_seconds": 90,
                    "claim_full": "2028-01-31",
                }
            ),
            [
                "each day: 3.0Gi on disk, by 8 closed partitions",
                "next partition: ~21.0Gi",
                "next archive: run_2020, ~1.0Gi in ~0:01:30, by 3 archives",
                "claim full: 2028-01-31",
            ],
        ),
    ],
    ids=["sizes", "growth", "archives"],
)
def test_a_forecast_for_people_says_what_was_measured(forecast: Forecast, lines: list[str]) -> None:
    assert [": ".join(each) for each in expected(forecast)] == lines
