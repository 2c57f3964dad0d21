"""A period that several archives make up, as one PartitionRestore: one Job for each, one after the other."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from partwarden.api.archive import ARCHIVE_PLURAL, TABLE_LABEL
from partwarden.api.restore import MOST_ARCHIVES, RestoredArchive
from partwarden.archive.job_order import WRONG, Report, RestoredTable, Task
from partwarden.controller import job_reconciler as module
from partwarden.controller.restore_parts import parts, with_part
from support.cluster import CREATED
from support.restore_world import KEY, LOCATION, Killed, World, drop_order, order, task

PERIOD: dict[str, Any] = {"period": "2019-01..2019-03", "policy": {"name": "run"}, "as": {"schema": "old"}}
MONTHS = ("2019-01", "2019-02", "2019-03", "2019-04")


def world_of(spec: dict[str, Any] = PERIOD, months: tuple[int, ...] = (1, 2, 3)) -> World:
    """With an archive of each of these months, and not of the whole year."""
    world = World(spec)
    del world.server.objects[ARCHIVE_PLURAL, "ns", "run-2019"]
    world.archives.remove(("ns", "run-2019"))
    for month in months:
        archive(world, f"run-{MONTHS[month - 1]}", month)
    return world


def archive(world: World, name: str, month: int, beyond: int = 0, **more: Any) -> None:
    lower, upper = (f"2019-{each:02}-01T00:00:00Z" for each in (month, beyond or month + 1))
    world.archive(name, lower, upper, **more)


def made(world: World) -> Report:
    """What the youngest Job reports: a table of its own for each."""
    number = len(world.jobs)
    table = RestoredTable(schema_="old", name=f"run_{number}")
    done = datetime.fromisoformat(CREATED)
    return Report(ok=True, rows=number, oid=100 + number, manifest_sha256="b" * 64, completed=done, restored=table)


def finish(world: World) -> None:
    """Reconcile, and end each Job well, until nothing is left to do."""
    for _ in range(20):
        if world.reconcile() is None:
            return
        if "status" not in world.jobs[-1] if world.jobs else False:
            world.end(made(world))
    raise AssertionError("it never ends")


def states(world: World) -> list[tuple[str, str]]:
    return [(each["archive"], each["state"]) for each in world.status["archives"]]


def test_an_archive_of_another_table_that_a_policy_of_that_name_had_is_left_out() -> None:
    world = world_of()
    for month, table in ((1, "app.run"), (2, "app.other")):
        archive(world, f"later-{month}", month, completed="2027-01-01", labels={TABLE_LABEL: table})
    # By a user, who names the policy for its database alone.
    archive(world, "by-hand", 3, completed="2027-01-01", more={"location": LOCATION.replace("app.run", "app.other")})
    world.reconcile()
    assert [name for name, _ in states(world)] == ["later-1", "run-2019-02", "run-2019-03"]


def test_each_archive_becomes_a_table_one_after_the_other() -> None:
    world = world_of(months=(3, 1, 2))
    assert world.reconcile() == 1.0
    assert (states(world), world.jobs) == ([(f"run-{each}", "Waiting") for each in MONTHS[:3]], [])
    world.reconcile()
    assert [state for _, state in states(world)] == ["Restoring", "Waiting", "Waiting"]
    world.end(made(world))
    assert world.reconcile() == 1.0
    assert (world.condition("Restored")[0], world.condition("Reconciling")[0]) == ("False", "True")
    assert [state for _, state in states(world)] == ["Restored", "Waiting", "Waiting"]
    finish(world)
    assert [state for _, state in states(world)] == ["Restored"] * 3
    ordered = [order(job) for job in world.jobs]
    assert len({each.uid for each in ordered}) == 3
    assert {(each.schema_, each.name, each.attach) for each in ordered} == {("old", None, False)}
    assert (world.status["archive"], world.status["table"], world.status["rows"]) == ("3 archives", "3 tables", 6)
    assert world.condition("Restored") == ("True", "Restored")
    assert [each["table"] for each in world.status["archives"]] == ["old.run_1", "old.run_2", "old.run_3"]
    assert [reason for reason, _ in world.server.events] == ["Restored"]
    world.restart()
    assert (world.reconcile(), len(world.jobs)) == (None, 3)


@pytest.mark.parametrize("point", [*range(1, 12)])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_operator_killed_at_any_write_has_one_job_made_for_each(when: str, point: int) -> None:
    world, writes = world_of(), list[str]()

    def kill(what: str) -> None:
        writes.append(what)
        if len(writes) == point:
            raise Killed

    setattr(world.server, when, kill)
    for _ in range(2):
        try:
            finish(world)
        except Killed:
            world.restart()
    assert len(writes) >= point
    assert len({order(job).uid for job in world.jobs}) == len(world.jobs) == 3
    assert len({each["oid"] for each in world.status["archives"]}) == 3


def test_what_was_chosen_stays_whatever_is_archived_later() -> None:
    world = world_of()
    world.reconcile()
    archive(world, "run-2019-02-newer", 2, completed="2026-01-02")
    world.archive("run-2019-all", "2019-01-01T00:00:00Z", "2019-04-01T00:00:00Z")
    world.restart()
    finish(world)
    assert [name for name, _ in states(world)] == [f"run-{each}" for each in MONTHS[:3]]


def test_one_that_fails_is_tried_again_and_those_before_it_stay() -> None:
    world = world_of()
    world.reconcile()
    world.reconcile()
    world.end(made(world))
    world.reconcile()
    world.reconcile()
    world.end(Report(ok=False, reason="NameTaken", message="old.run_2 exists already"), "Failed", WRONG)
    assert world.reconcile() == module.RETRY
    assert [state for _, state in states(world)] == ["Restored", "Failed", "Waiting"]
    assert world.condition("Stalled") == ("True", "NameTaken")
    world.now += timedelta(hours=1)
    finish(world)
    assert len(world.jobs) == 4
    assert [each["oid"] for each in world.status["archives"]] == [101, 103, 104]


def test_each_is_attached_to_the_table_of_the_policy() -> None:
    world = world_of({**{key: PERIOD[key] for key in ("period", "policy")}, "attach": True})
    finish(world)
    assert {(each.attach, each.parent, each.name) for each in map(order, world.jobs)} == {(True, ("app", "run"), None)}


REFUSED: dict[str, tuple[dict[str, Any], tuple[int, ...], str]] = {
    "a hole": (PERIOD, (1, 3), "no proven archive of the policy holds [2019-02-01T00:00:00Z, 2019-03-01T00:00:00Z)"),
    "a hole at its end": (
        PERIOD,
        (1, 2),
        "holds [2019-03-01T00:00:00Z, 2019-04-01T00:00:00Z); run-2019-01, run-2019-02 do",
    ),
    "one name": ({**PERIOD, "as": {"name": "x"}}, (1, 2, 3), "3 archives make up 2019-01..2019-03, and each becomes a"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_whole_is_named_with_the_way_out_and_heals(what: str) -> None:
    spec, months, words = REFUSED[what]
    world = world_of(spec, months)
    assert world.reconcile() == module.RETRY_USER_ERROR
    assert world.condition("Stalled") == ("True", "InvalidSpec")
    assert words in world.status["lastError"]["message"]
    assert "make another PartitionRestore" in world.status["lastError"]["message"]
    assert "archives" not in world.status
    for month in {1, 2, 3} - set(months):
        archive(world, f"run-{MONTHS[month - 1]}", month)
        world.reconcile()
        assert len(world.status["archives"]) == 3


def test_archives_that_overlap_are_named() -> None:
    world = world_of()
    archive(world, "run-both", 1, 3)
    world.reconcile()
    assert "archives run-2019-01 and run-both overlap" in world.status["lastError"]["message"]


def test_of_two_of_one_range_the_newest_is_taken() -> None:
    world = world_of()
    archive(world, "run-2019-02-newer", 2, completed="2026-01-02")
    world.reconcile()
    assert [name for name, _ in states(world)] == ["run-2019-01", "run-2019-02-newer", "run-2019-03"]


def test_more_than_there_is_room_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partwarden.controller.restore_source.MOST_ARCHIVES", 2)
    world = world_of()
    world.reconcile()
    assert "3 archives make up 2019-01..2019-03, and 2 is the most" in world.status["lastError"]["message"]


def test_each_table_is_dropped_again_and_one_that_must_stay_keeps_none_of_the_others() -> None:
    world = world_of({**PERIOD, "expireAfter": "14d"})
    for _ in range(12):
        world.reconcile()
        if world.jobs and "status" not in world.jobs[-1]:
            world.end(made(world))
    assert (len(world.jobs), world.status["expiresAt"]) == (3, "2026-01-15T00:00:00Z")
    world.now = datetime.fromisoformat("2026-01-15T00:00:00Z")
    for _ in range(12):
        world.reconcile()
        if "status" not in world.jobs[-1]:
            ordered = drop_order(world.jobs[-1])
            if ordered.oid == 102:
                world.end(Report(ok=False, reason="TableKept", message="it was altered"), "Failed", WRONG)
            else:
                world.end(Report(ok=True, oid=ordered.oid))
    assert [task(job) for job in world.jobs] == [Task.RESTORE] * 3 + [Task.DROP] * 3
    assert [state for _, state in states(world)] == ["Dropped", "Kept", "Dropped"]
    assert (world.status["state"], world.condition("Expired")) == ("Kept", ("False", "TableKept"))
    marks = [order(job).uid for job in world.jobs[:3]]
    assert [drop_order(job).uid for job in world.jobs[3:]] == marks
    assert world.reconciler.reconcile(KEY) == 3600.0


def test_a_status_has_room_for_the_most_archives() -> None:
    """The API server takes no object beyond 1.5 MB."""
    long = "x" * 2000
    status: dict[str, Any] = {"archives": [{"archive": f"{number:0253}"} for number in range(MOST_ARCHIVES)]}
    part = {"oid": 7, "location": "x" * 1000, "table": "x" * 512, "leftOff": [long] * 20}
    for place in range(MOST_ARCHIVES):
        status = with_part(status, place, {**parts(status)[place], **part, "expiry": {"reason": "R", "message": long}})
    assert len(json.dumps(status)) < 1_200_000
    RestoredArchive.model_validate(status["archives"][0], strict=False, by_alias=True, by_name=False)
