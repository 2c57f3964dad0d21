"""What a status says of what comes next: in few words, and in no more columns than a terminal has."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from partwarden.api import crd
from partwarden.api.policy import Table
from partwarden.api.status import MAX_NEXT, MAX_WARNINGS
from partwarden.planner.drop_preconditions import UNKNOWN, Archives, ArchiveState, server_label
from partwarden.planner.inventory import Inventory
from partwarden.planner.plan import make_plan
from partwarden.planner.schedule import PlannedStep, Wait, WaitsFor
from partwarden.status.conditions import WITH_WARNINGS, make_status, reconciled, suspended
from partwarden.status.next_action import next_action
from support.values import NOW, detached, inventory, moment, partition, plan, spec, years

LATER = moment("2026-12-03T13:30:07")
DROP: dict[str, Any] = {"keepFor": "5y", "onExpire": "Drop", "dropWithoutArchive": True, "grace": "24h"}
ARCHIVED: dict[str, Any] = {"keepFor": "5y", "onExpire": "Drop", "archive": {"pvc": {"claimName": "archives"}}}
LONGEST = "a_table_of_25_characters_"
"""With its 25 characters, the longest realistic name of a table."""


def step(name: str, verb: str = "drop", **fields: Any) -> PlannedStep:
    return PlannedStep(action="DropDetached", verb=verb, schema="public", name=name, reason="", lock="", **fields)


def said(what: PlannedStep, zone: str = "UTC") -> dict[str, Any]:
    found = next_action(what, plan(spec(timezone=zone), inventory(*years(2026, 2027, 2028))))
    assert found
    return found.model_dump(mode="json", by_alias=True, exclude_none=True)


@pytest.mark.parametrize(
    ("name", "verb", "text"),
    [
        ("run_2018", "drop", "drop run_2018"),
        ("run_2018_11", "create", "create 2018_11"),
        ("run_2018", "create and fill", "create run_2018"),
        ("run_2018_11_22", "vacuum", "vacuum 2018_11_22"),
        ("a_name_of_another_kind_2018", "detach", "detach …kind_2018"),
    ],
)
def test_an_action_is_a_verb_and_as_much_of_a_name_as_there_is_room_for(name: str, verb: str, text: str) -> None:
    found = said(step(name, verb))["text"]
    assert found == text
    assert len(found) <= MAX_NEXT


@pytest.mark.parametrize(
    ("fields", "zone", "when"),
    [
        ({}, "UTC", "now"),
        ({"waits_for": (Wait(WaitsFor.ARCHIVE, "none is proven"),)}, "UTC", "waits: Archive"),
        ({"not_before": LATER}, "UTC", "2026-12-03 13:30"),
        ({"not_before": LATER}, "America/New_York", "2026-12-03 08:30"),
        ({"not_before": moment("2026-12-31T23:00")}, "Europe/Berlin", "2027-01-01"),
    ],
)
def test_a_moment_is_one_of_the_policys_zone(fields: dict[str, Any], zone: str, when: str) -> None:
    assert said(step("run_2018", **fields), zone)["when"] == when


def test_an_object_of_another_schema_bears_it() -> None:
    assert said(replace(step("run_2018"), schema="old"))["object"] == "old.run_2018"


def described(
    found: Inventory, held: str = "", archives: Archives = UNKNOWN, table: str = "run", **fields: Any
) -> dict[str, Any]:
    policy = spec(**fields).model_copy(update={"table": Table(name=table)})
    made = make_plan(policy, found, found.now, frozenset(filter(None, [held])), archives)
    return make_status(reconciled(policy, found, made, ()), {}, 1, found.now)


def test_the_status_has_what_comes_next_the_next_drop_and_the_moments_of_each_partition() -> None:
    table = detached("run_2018", moment("2018-01-01"), moment("2019-01-01"), moment("2026-11-22"))
    found = inventory(*years(2022, 2023, 2026, 2027, 2028), detached=(table,))
    status = described(found, "run_2023", start_from="2026-01-01", retention=DROP)
    assert status["next"] == {
        "action": "DropDetached",
        "object": "run_2018",
        "at": "2026-11-23T00:00:00Z",
        "waitsFor": [],
        "text": "drop run_2018",
        "when": "2026-11-23",
    }
    assert status["nextDrop"] == status["next"]
    moments = [
        {field: each[field] for field in ("name", "state", "expiresAt", "dropAfter", "held") if field in each}
        for each in status["partitions"][:3]
    ]
    assert moments == [
        {
            "name": "run_2018",
            "state": "Detached",
            "expiresAt": "2024-01-01T00:00:00Z",
            "dropAfter": "2026-11-23T00:00:00Z",
        },
        {"name": "run_2022", "state": "Past", "expiresAt": "2028-01-01T00:00:00Z", "dropAfter": "2028-01-02T00:00:00Z"},
        {
            "name": "run_2023",
            "state": "Past",
            "expiresAt": "2029-01-01T00:00:00Z",
            "dropAfter": "2029-01-02T00:00:00Z",
            "held": True,
        },
    ]


def test_without_retention_nothing_expires() -> None:
    status = described(inventory(*years(2026, 2027, 2028)))
    assert not {"expiresAt", "dropAfter", "held", "archive"} & set(status["partitions"][0])
    assert "nextDrop" not in status


@pytest.mark.slow
def test_a_full_status_with_all_of_it_stays_under_its_limit() -> None:
    names = [f"{number}_{'n' * 60}"[:63] for number in range(3000)]
    days = [moment("2019-01-01") + number * timedelta(days=1) for number in range(3001)]
    found = inventory(
        *(partition(name, days[number], days[number + 1]) for number, name in enumerate(names)),
        detached=tuple(
            replace(detached(f"{name}x", moment("2018-01-01"), moment("2018-01-02")), oid=number + 10**6)
            for number, name in enumerate(names[:500])
        ),
    )
    here = server_label(found.server.identity)
    states = {
        each.oid: (ArchiveState(f"{number:05}{'a' * 248}", 0, here, oid=each.oid),)
        for number, each in enumerate((*found.partitions, *found.detached))
    }
    status = described(
        found, archives=Archives(states), interval="Day", premake=0, start_from="2026-11-22", retention=ARCHIVED
    )
    assert len(json.dumps(status).encode()) < 64 * 1024
    assert 20 < len(status["partitions"]) < 200


def test_a_held_partition_is_listed_however_far_it_is_from_now() -> None:
    days = [moment("2019-01-01") + number * timedelta(days=1) for number in range(3001)]
    found = inventory(*(partition(f"run_{n}", days[n], days[n + 1]) for n in range(3000)))
    status = described(found, "run_7", interval="Day", premake=0, start_from="2026-11-22", retention={"keepFor": "50y"})
    assert [(each["name"], each["state"]) for each in status["partitions"] if each.get("held")] == [("run_7", "Past")]


def printed(status: dict[str, Any], name: str, age: str = "100d") -> list[str]:
    """The default cells of ``kubectl get ppol``."""
    ready = status["conditions"][0]
    assert ready["type"] == "Ready"
    cells = {
        "Ready": ready["status"],
        "Reason": ready["reason"],
        "Ahead": str(status.get("summary", {}).get("ahead", "")),
        "Next": status.get("next", {}).get("text", ""),
        "Next-At": status.get("next", {}).get("when", ""),
        "Warnings": status.get("summary", {}).get("warnings", ""),
        "Age": age,
    }
    return [name, *(cells[column["name"]] for column in crd.COLUMNS if not column.get("priority"))]


def width(rows: list[list[str]]) -> int:
    """Of the widest line that kubectl prints: three blanks stand between two columns."""
    widths = [max(len(cell) for cell in column) + 3 for column in zip(*rows, strict=True)]
    return sum(widths[:-1]) + max(len(row[-1]) for row in rows)


def test_kubectl_get_ppol_has_at_most_120_columns_for_realistic_names() -> None:
    heads = ["NAME", *(each["name"].upper() for each in crd.COLUMNS if not each.get("priority"))]
    day = [moment("2026-11-22"), moment("2026-11-23"), moment("2026-11-24")]
    partitions = [partition(f"{LONGEST}_2026_11_2{number + 2}", day[number], day[number + 1]) for number in range(2)]
    old = replace(
        detached(f"{LONGEST}_2018_11_22", moment("2018-11-22"), moment("2018-11-23"), moment("2026-11-22T11:00:07"))
    )
    found = inventory(*partitions, now=datetime.fromisoformat("2026-11-22T12:00:00Z"))
    found = replace(found, parent=replace(found.parent, name=LONGEST) if found.parent else None)
    kinds = [
        described(found, table=LONGEST, interval="Day", premake=1),
        described(replace(found, partitions=()), table=LONGEST, interval="Day", premake=1),
        described(replace(found, detached=(old,)), table=LONGEST, interval="Day", premake=0, retention=DROP),
        make_status(suspended(), {}, 1, NOW),
    ]
    rows = [heads, *(printed(each, "p" * 30) for each in kinds)]
    assert width(rows) <= 120, rows
    ready, *others = kinds[2]["conditions"]
    away = {**kinds[2], "conditions": [{**ready, "reason": WITH_WARNINGS}, *others]}
    widest = {**away, "summary": {**away["summary"], "warnings": "9" * MAX_WARNINGS}}
    assert width([heads, printed(widest, "p" * 20)]) <= 120
