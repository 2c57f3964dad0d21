"""``expireAfter``: when the table of a PartitionRestore is dropped, what keeps it, and operators that are killed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from partwarden.api.archive import ARCHIVE_PLURAL
from partwarden.api.policy import PLURAL
from partwarden.api.restore import RESTORE_PLURAL
from partwarden.archive.job_order import WRONG, Report, Task
from partwarden.controller import job_reconciler as module
from partwarden.controller.archive_steps import AGAIN
from support.cluster import CREATED
from support.restore_world import DONE, KEY, LOCATION, SPEC, Killed, World, drop_order, task

EXPIRING = {**SPEC, "expireAfter": "14d"}
DUE = "2026-01-15T00:00:00Z"
GONE = Report(ok=True, oid=24811, server="7380000000000000001/16384", rows=8000)


def edit(world: World, **changes: Any) -> None:
    """As a user does: the generation goes up with the spec."""
    body = world.body
    spec = {key: value for key, value in {**body["spec"], **changes}.items() if value is not None}
    meta = {**body["metadata"], "generation": body["metadata"]["generation"] + 1}
    world.events.seen(world.server.put(RESTORE_PLURAL, {**body, "metadata": meta, "spec": spec}))


def annotate(world: World, annotations: dict[str, str]) -> None:
    body = world.body
    meta = {**body["metadata"], "annotations": annotations}
    world.events.seen(world.server.put(RESTORE_PLURAL, {**body, "metadata": meta}))


def restored(spec: dict[str, Any] = EXPIRING) -> World:
    """A restore whose table is there, at the moment at which it was made."""
    world = World(spec)
    world.reconcile()
    world.end(DONE.model_copy(update={"completed": datetime.fromisoformat(CREATED)}))
    world.reconcile()
    return world


@pytest.fixture
def world() -> World:
    """One whose time is over."""
    world = restored()
    world.reconcile()
    world.now = datetime.fromisoformat(DUE)
    return world


def test_it_says_when_the_table_goes_and_then_drops_it() -> None:
    world = restored()
    assert world.reconcile() == 1.0
    assert (world.status["expiresAt"], world.status["state"]) == (DUE, "Restored")
    assert world.condition("Expired") == ("False", "Scheduled")
    assert world.reconcile() == AGAIN
    world.now = datetime.fromisoformat(DUE) - timedelta(seconds=5)
    assert world.reconcile() == 6.0
    world.now = datetime.fromisoformat(DUE)
    writes = len(world.server.writes)
    assert world.reconcile() == module.POLL_JOB
    assert world.server.writes[writes:] == ["status partitionrestores", "create jobs"]
    told = drop_order(world.jobs[-1])
    assert (told.uid, told.oid, told.location) == (world.body["metadata"]["uid"], 24811, LOCATION)
    assert (told.manifest_sha256, told.due, told.table) == ("b" * 64, world.now, "public.run_2019_again")
    assert (world.status["state"], world.condition()) == ("Dropping", ("True", "Restored"))
    assert world.reconcile() == module.POLL_PENDING
    world.end(GONE)
    world.reconcile()
    assert (world.status["state"], world.condition("Expired")) == ("Dropped", ("True", "Dropped"))
    assert [world.condition(each)[0] for each in ("Ready", "Restored", "Reconciling")] == ["True", "True", "False"]
    assert [reason for reason, _ in world.server.events] == ["Restored", "Dropped"]
    assert [each[:2] for each in world.ended] == [(Task.RESTORE, True), (Task.DROP, True)]
    assert (world.reconcile(), len(world.jobs), world.slots.held()) == (None, 2, frozenset())


@pytest.mark.parametrize("wrong", [timedelta(days=-30), timedelta(), timedelta(days=30)])
@pytest.mark.parametrize("who", ["pod", "operator"])
def test_the_clock_of_a_pod_or_an_operator_moves_no_drop(who: str, wrong: timedelta) -> None:
    """One that is behind must not have the table dropped at once, or once it is right again."""
    world = World(EXPIRING)
    world.reconcile()
    world.now += timedelta(minutes=5)
    world.end(DONE.model_copy(update={"completed": world.now + (wrong if who == "pod" else timedelta())}))
    right = world.now + timedelta(minutes=1)
    world.now = right + (wrong if who == "operator" else timedelta())
    world.reconcile()
    world.now = right
    world.reconcile()
    assert CREATED <= world.status["completed"] <= "2026-01-01T00:06:00Z"
    assert (world.status["state"], len(world.jobs)) == ("Restored", 1)
    assert world.status["expiresAt"].startswith("2026-01-15T00:0")


@pytest.mark.parametrize("point", range(1, 7))
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_operator_killed_at_any_write_drops_by_one_job(world: World, when: str, point: int) -> None:
    writes: list[str] = []

    def kill(what: str) -> None:
        writes.append(what)
        if len(writes) == point:
            raise Killed

    setattr(world.server, when, kill)
    for _ in range(8):
        try:
            world.reconcile()
            if len(world.jobs) == 2 and "status" not in world.jobs[1]:
                world.end(GONE)
        except Killed:
            world.restart()
    assert [task(job) for job in world.jobs] == [Task.RESTORE, Task.DROP]
    assert world.status["state"] == "Dropped"


def test_what_keeps_it_is_said_and_asked_again_ever_more_rarely(world: World) -> None:
    pauses = []
    for _ in range(7):
        world.reconcile()
        world.end(Report(ok=False, reason="ContentsChanged", message="it holds 13 rows"), "Failed", WRONG)
        world.reconcile()
        assert (world.status["state"], world.condition("Expired")) == ("Kept", ("False", "ContentsChanged"))
        following = datetime.fromisoformat(world.status["expiry"]["nextAttempt"])
        pauses.append((following - world.now).days)
        jobs = len(world.jobs)
        world.reconcile()
        assert len(world.jobs) == jobs
        world.now = following
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    assert world.condition() == ("True", "Restored")
    assert [reason for reason, _ in world.server.events] == ["Restored"] + ["ContentsChanged"] * 7
    world.reconcile()
    world.end(GONE)
    world.reconcile()
    assert world.status["state"] == "Dropped"


def test_what_may_pass_is_asked_again_an_hour_later(world: World) -> None:
    world.reconcile()
    world.end(Report(ok=False, reason="TableBusy", message="held by pid 7"), "Failed", 1)
    world.reconcile()
    assert world.status["expiry"]["nextAttempt"] == "2026-01-15T01:00:00Z"


def test_a_report_of_another_table_drops_nothing(world: World) -> None:
    world.reconcile()
    world.end(GONE.model_copy(update={"oid": 1}))
    world.reconcile()
    assert world.condition("Expired") == ("False", "NoReport")


def test_expire_after_is_changed_added_and_removed_at_any_time(world: World) -> None:
    edit(world, expireAfter="20d")
    world.reconcile()
    assert (world.status["expiresAt"], world.status["observedGeneration"]) == ("2026-01-21T00:00:00Z", 2)
    assert (world.reconcile(), len(world.jobs)) == (AGAIN, 1)
    edit(world, expireAfter=None)
    world.reconcile()
    assert "expiresAt" not in world.status
    assert "Expired" not in {each["type"] for each in world.status["conditions"]}
    assert (world.reconcile(), len(world.jobs)) == (None, 1)
    edit(world, expireAfter="1h")
    world.reconcile()
    assert (world.reconcile(), len(world.jobs)) == (module.POLL_JOB, 2)


def test_another_expire_after_is_another_attempt_of_a_table_that_was_kept(world: World) -> None:
    world.reconcile()
    world.end(Report(ok=False, reason="TableKept", message="it was altered"), "Failed", WRONG)
    world.reconcile()
    edit(world, expireAfter="13d")
    world.reconcile()
    assert (world.condition("Expired"), "expiry" in world.status) == (("False", "Scheduled"), False)
    assert (world.reconcile(), len(world.jobs)) == (module.POLL_JOB, 3)


def test_a_job_that_runs_ends_whatever_the_spec_says_by_then(world: World) -> None:
    world.reconcile()
    edit(world, expireAfter=None)
    assert world.reconcile() == module.POLL_PENDING
    world.end(GONE)
    world.reconcile()
    assert world.status["state"] == "Dropped"
    world.reconcile()
    assert (world.status["observedGeneration"], world.reconcile()) == (2, None)


def test_a_job_that_vanished_is_not_made_again_where_the_spec_says_something_else(world: World) -> None:
    world.reconcile()
    world.server.objects.pop(("jobs", "ns", world.jobs[-1]["metadata"]["name"]))
    edit(world, expireAfter=None)
    world.reconcile()
    world.reconcile()
    assert (world.status["state"], len(world.jobs), "expiry" in world.status) == ("Restored", 1, False)


def test_a_hold_of_the_restore_keeps_the_table_as_long_as_it_is_there(world: World) -> None:
    annotate(world, {"partwarden.dev/hold": ""})
    assert world.reconcile() == AGAIN
    assert (world.condition("Expired"), world.status["state"]) == (("False", "Held"), "Kept")
    writes = len(world.server.writes)
    assert (world.reconcile(), len(world.server.writes)) == (AGAIN, writes)
    annotate(world, {})
    assert world.queue.take() == KEY
    assert (world.reconcile(), len(world.jobs)) == (module.POLL_JOB, 2)


def test_a_hold_of_the_policy_that_no_watch_has_shown_yet_keeps_the_table(world: World) -> None:
    body = world.server.get(PLURAL, "ns", "run")
    meta = {**body["metadata"], "annotations": {"partwarden.dev/hold": "run_2019_again"}}
    world.server.put(PLURAL, {**body, "metadata": meta})
    assert world.reconcile() == AGAIN
    assert (world.condition("Expired"), len(world.jobs)) == (("False", "Held"), 1)


NOT_RESTORABLE: dict[str, tuple[dict[str, object], str]] = {
    "deleted": ({"expired": "2026-01-02T00:00:00Z"}, "InvalidSpec"),
    "being deleted": ({"expiry": {"begun": "2026-01-02T00:00:00Z"}}, "InvalidSpec"),
    "damaged": ({"verification": {"ok": False, "reason": "ArchiveDamaged"}}, "ArchiveDamaged"),
    "another by that name": ({"location": f"{LOCATION}0"}, "TableKept"),
}


@pytest.mark.parametrize("what", NOT_RESTORABLE)
def test_an_archive_that_cannot_be_restored_keeps_the_table(world: World, what: str) -> None:
    more, reason = NOT_RESTORABLE[what]
    world.archive("run-2019", "2019-01-01T00:00:00Z", "2020-01-01T00:00:00Z", more=more)
    world.reconcile()
    assert (world.condition("Expired"), len(world.jobs)) == (("False", reason), 1)


def test_an_archive_that_is_not_known_any_more_keeps_the_table(world: World) -> None:
    del world.server.objects[ARCHIVE_PLURAL, "ns", "run-2019"]
    world.reconcile()
    assert (world.condition("Expired"), len(world.jobs)) == (("False", "InvalidSpec"), 1)


def test_without_a_manifest_that_is_known_nothing_is_dropped() -> None:
    world = World(EXPIRING)
    world.reconcile()
    world.end(DONE.model_copy(update={"manifest_sha256": ""}))
    world.now = datetime.fromisoformat(DUE)
    for _ in range(3):
        world.reconcile()
    world.now += timedelta(days=15)
    world.reconcile()
    assert (world.condition("Expired"), len(world.jobs)) == (("False", "TableKept"), 1)


@pytest.mark.parametrize("completed", ["soon", "9999-12-31T00:00:00Z"])
def test_a_status_that_another_wrote_drops_nothing(world: World, completed: str) -> None:
    body = world.body
    world.server.put(RESTORE_PLURAL, {**body, "status": {**body["status"], "completed": completed}})
    for _ in range(3):
        world.reconcile()
    assert len(world.jobs) == 1


def test_a_partition_never_expires() -> None:
    world = World({**{key: SPEC[key] for key in ("archive", "policy")}, "attach": True, "expireAfter": "14d"})
    world.reconcile()
    assert "expireAfter is for a table of its own" in world.status["lastError"]["message"]
    assert world.jobs == []
