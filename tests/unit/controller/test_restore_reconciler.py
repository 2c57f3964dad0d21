"""One PartitionRestore through all its states, and through operators that are killed before and after each write."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from partwarden.api.archive import ARCHIVE_PLURAL
from partwarden.api.crd import RESTORE
from partwarden.api.policy import PLURAL
from partwarden.api.restore import RESTORE_PLURAL
from partwarden.archive.job_order import WRONG, Report, Task
from partwarden.controller import job_reconciler as module
from partwarden.kube.cache import parse_archive, parse_policy
from support.restore_world import DONE, KEY, LOCATION, POLICY, SPEC, Killed, World, order


@pytest.fixture
def world() -> World:
    return World()


def test_the_archive_is_pinned_before_the_job_is_created(world: World) -> None:
    assert world.reconcile() == module.POLL_JOB
    assert world.server.writes == ["status partitionrestores", "create jobs"]
    (job,) = world.jobs
    told = order(job)
    assert (told.uid, told.location, told.manifest_sha256) == (world.body["metadata"]["uid"], LOCATION, "b" * 64)
    assert (told.name, told.attach, told.task) == ("run_2019_again", False, Task.RESTORE)
    assert (world.status["archive"], world.status["state"]) == ("run-2019", "Restoring")
    (reference,) = job["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["controller"]) == (RESTORE.kind, True)
    assert world.slots.held() == {("ns", job["metadata"]["name"])}


@pytest.mark.parametrize("own", [None, {"nodeSelector": {"disk": "own"}}])
def test_its_jobs_run_as_those_of_the_policys_archives_where_it_does_not_say(own: dict[str, Any] | None) -> None:
    """Such as with the label by which a pod has an identity of the cloud."""
    theirs = {"nodeSelector": {"disk": "theirs"}, "labels": {"azure.workload.identity/use": "true"}}
    world = World({**SPEC, **({"job": own} if own else {})})
    spec = {**POLICY, "retention": {"keepFor": "5y", "job": theirs}}
    meta = {"namespace": "ns", "name": "run"}
    world.policies.put(parse_policy(world.server.put(PLURAL, {"metadata": meta, "spec": spec})))
    world.reconcile()
    template = world.jobs[0]["spec"]["template"]
    assert template["spec"]["nodeSelector"] == (own or theirs)["nodeSelector"]
    assert ("azure.workload.identity/use" in template["metadata"]["labels"]) is (own is None)


def test_a_job_that_succeeded_is_the_end(world: World) -> None:
    world.reconcile()
    world.end(DONE)
    assert world.reconcile() is None
    assert world.condition("Restored") == ("True", "Restored")
    assert [world.condition(each)[0] for each in ("Ready", "Reconciling", "Stalled")] == ["True", "False", "False"]
    assert (world.status["table"], world.status["rows"], world.status["oid"]) == ("public.run_2019_again", 8000, 24811)
    assert (world.status["leftOff"], world.status["leftOffCount"]) == (["NotNull of a: it holds NULL"], 1)
    assert [reason for reason, _ in world.server.events] == ["Restored"]
    assert world.ended[0][:2] == (Task.RESTORE, True)
    assert world.slots.held() == frozenset()
    writes = list(world.server.writes)
    world.server.objects.pop(("jobs", "ns", world.jobs[0]["metadata"]["name"]))
    world.restart()
    assert (world.reconcile(), world.jobs, world.server.writes) == (None, [], writes)


def test_attach_goes_to_the_table_of_the_policy() -> None:
    world = World({**{key: SPEC[key] for key in ("archive", "policy")}, "attach": True})
    world.reconcile()
    told = order(world.jobs[0])
    assert (told.attach, told.parent, told.name) == (True, ("app", "run"), None)


@pytest.mark.parametrize("point", range(1, 5))
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_operator_killed_at_any_write_has_one_job_made_and_one_result_written(when: str, point: int) -> None:
    world, writes = World(), []

    def kill(what: str) -> None:
        writes.append(what)
        if len(writes) == point:
            raise Killed

    setattr(world.server, when, kill)
    for _ in range(8):
        try:
            world.reconcile()
            if world.jobs and "status" not in world.jobs[0]:
                world.end(DONE)
        except Killed:
            world.restart()
    assert len(writes) >= point
    assert len(world.jobs) == 1
    assert world.condition("Restored") == ("True", "Restored")


def test_two_operators_make_one_job(world: World) -> None:
    other = world.reconciler
    world.restart()
    assert [world.reconcile(), other.reconcile(KEY)] == [module.POLL_JOB] * 2
    assert len(world.jobs) == 1


def test_a_job_that_failed_is_followed_by_another_after_a_pause(world: World) -> None:
    world.reconcile()
    world.end(Report(ok=False, reason="NameTaken", message="public.run_2019_again exists already"), "Failed", WRONG)
    assert world.reconcile() == module.RETRY
    assert (world.status["state"], world.condition("Stalled")) == ("Failed", ("True", "NameTaken"))
    assert world.condition("Restored")[0] == "False"
    pause = world.reconcile()
    assert pause is not None
    assert len(world.jobs) == 1
    world.now += timedelta(seconds=pause)
    assert world.reconcile() == module.POLL_JOB
    world.end(DONE)
    assert world.reconcile() is None
    assert not world.status.keys() & {"attempts", "lastError", "nextAttempt"}
    assert len(world.jobs) == 2


@pytest.mark.parametrize("change", [{"restored": None}, {"oid": 0}], ids=["no table", "no OID"])
def test_a_report_with_a_gap_is_no_table(world: World, change: dict[str, Any]) -> None:
    world.reconcile()
    world.end(DONE.model_copy(update=change))
    assert world.reconcile() == module.RETRY
    assert world.condition() == ("False", "NoReport")


def test_a_job_of_another_is_believed_nothing(world: World) -> None:
    world.reconcile()
    (job,) = world.jobs
    job["metadata"]["ownerReferences"][0]["uid"] = "another"
    world.server.put("jobs", job)
    world.end(DONE)
    assert world.reconcile() == module.RETRY
    assert world.condition() == ("False", "NameTaken")


def test_the_proof_of_its_archive_is_waited_for_and_wakes_it() -> None:
    world = World({**SPEC, "archive": {"name": "run-2020"}})
    world.archive("run-2020", "2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z", proven=False)
    assert world.reconcile() == module.RETRY_USER_ERROR
    assert (world.condition("Reconciling"), world.jobs) == (("True", "ArchiveNotProven"), [])
    assert world.queue.take() == KEY
    world.queue.done(KEY, None)
    world.archive("run-2020", "2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z")
    world.events.archive_changed(parse_archive(world.server.get(ARCHIVE_PLURAL, "ns", "run-2020")))
    assert world.queue.take() == KEY
    assert world.reconcile() == module.POLL_JOB


GONE: list[dict[str, object]] = [{"expiry": {"begun": "2026-01-02T00:00:00Z"}}, {"expired": "2026-01-02T00:00:00Z"}]
PERIOD = {"period": "2019", "policy": {"name": "run"}, "as": {"name": "again"}}


@pytest.mark.parametrize("status", GONE)
def test_an_archive_that_is_deleted_or_is_being_deleted_is_not_restored(status: dict[str, object]) -> None:
    world = World({**SPEC, "archive": {"name": "run-2020"}})
    world.archive("run-2020", "2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z", more=status)
    world.reconcile()
    assert (world.condition(), world.jobs) == (("False", "InvalidSpec"), [])


@pytest.mark.parametrize("status", GONE)
def test_a_period_is_never_an_archive_that_is_deleted(status: dict[str, object]) -> None:
    world = World(PERIOD)
    world.archive("run-2019-b", "2019-01-01T00:00:00Z", "2020-01-01T00:00:00Z", completed="2026-01-02")
    world.archive("run-2019-c", "2019-01-01T00:00:00Z", "2020-01-01T00:00:00Z", completed="2026-01-03", more=status)
    world.reconcile()
    assert world.status["archive"] == "run-2019-b"


def test_a_period_is_the_newest_proven_archive_of_it_and_stays_the_one_that_was_chosen() -> None:
    world = World(PERIOD)
    world.archive("run-2019-b", "2019-01-01T00:00:00Z", "2020-01-01T00:00:00Z", completed="2026-01-02")
    world.archive("run-2019-c", "2019-01-01T00:00:00Z", "2020-01-01T00:00:00Z", proven=False, completed="2026-01-03")
    world.archive("run-2018", "2018-01-01T00:00:00Z", "2019-01-01T00:00:00Z", completed="2026-01-04")
    world.reconcile()
    assert world.status["archive"] == "run-2019-b"
    world.end(None, "Failed", 1)
    world.reconcile()
    world.archive("run-2019-d", "2019-01-01T00:00:00Z", "2020-01-01T00:00:00Z", completed="2026-01-05")
    world.now += timedelta(days=1)
    world.reconcile()
    assert (len(world.jobs), world.status["archive"]) == (2, "run-2019-b")


def test_a_period_that_no_archive_is_says_which_lie_in_it() -> None:
    world = World({**PERIOD, "period": "2018..2019"})
    assert world.reconcile() == module.RETRY_USER_ERROR
    assert world.condition("Stalled") == ("True", "InvalidSpec")
    hole = "holds [2018-01-01T00:00:00Z, 2019-01-01T00:00:00Z); run-2019 do; make another PartitionRestore"
    assert hole in world.status["lastError"]["message"]
    world = World({**PERIOD, "period": "2012"})
    world.reconcile()
    assert "no proven archive of policy 'run' is of 2012" in world.status["lastError"]["message"]


PLACE = {"destination": {"pvc": {"claimName": "old", "path": "x"}}, "folder": "app/public.run/run_2019/id"}


def test_a_location_needs_no_partition_archive() -> None:
    world = World({"location": PLACE, "database": POLICY["database"], "as": {"name": "again", "schema": "old"}})
    world.reconcile()
    told = order(world.jobs[0])
    assert (told.location, told.manifest_sha256) == ("pvc://old/x/app/public.run/run_2019/id", "")
    assert (told.schema_, told.name, told.parent) == ("old", "again", None)


WRONG_SPECS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing to restore": ({"policy": {"name": "run"}, "attach": True}, "exactly one of archive, location and period"),
    "two": ({**PERIOD, "archive": {"name": "run-2019"}}, "exactly one of archive, location and period"),
    "no database": ({"archive": {"name": "run-2019"}, "attach": True}, "needs policy, database, or both"),
    "as and attach": ({**SPEC, "attach": True}, "needs either as"),
    "neither": ({"archive": {"name": "run-2019"}, "policy": {"name": "run"}}, "needs either as"),
    "out of the destination": (
        {"location": {**PLACE, "folder": "app/../../etc"}, "policy": {"name": "run"}, "attach": True},
        "must not have . or ..",
    ),
    "no such archive": ({**SPEC, "archive": {"name": "nope"}}, "PartitionArchive 'nope' does not exist"),
    "no such policy": ({**SPEC, "policy": {"name": "nope"}}, "PartitionPolicy 'nope' does not exist"),
    "no calendar": ({**PERIOD, "policy": {"name": "nope"}}, "says which period or table is meant"),
}


@pytest.mark.parametrize("what", WRONG_SPECS)
def test_what_is_wrong_is_named_and_no_job_is_made(what: str) -> None:
    spec, words = WRONG_SPECS[what]
    world = World(spec)
    assert world.reconcile() == module.RETRY_USER_ERROR
    assert world.condition("Stalled") == ("True", "InvalidSpec")
    assert words in world.status["lastError"]["message"]
    assert (world.jobs, world.slots.held()) == ([], frozenset())


def test_a_missing_secret_is_said_without_a_job(world: World) -> None:
    world.server.secrets.clear()
    assert world.reconcile() == module.RETRY_USER_ERROR
    assert (world.condition("Stalled"), world.jobs) == (("True", "SecretNotFound"), [])
    assert [reason for reason, _ in world.server.events] == ["SecretNotFound"]


def test_one_that_is_deleted_is_forgotten(world: World) -> None:
    world.reconcile()
    del world.server.objects[RESTORE_PLURAL, *KEY]
    assert world.reconcile() is None


def test_without_a_slot_it_waits_until_it_is_woken() -> None:
    world = World(jobs=1)
    world.server.secrets["other", "db"] = {"uri": "postgresql://app:secret@db/app"}
    spec = {"location": PLACE, "database": POLICY["database"], "as": {"name": "again"}}
    other = {"metadata": {"namespace": "other", "name": "x"}, "spec": spec}
    world.events.seen(world.server.put(RESTORE_PLURAL, other))
    assert world.reconciler.reconcile(("other", "x")) == module.POLL_JOB
    assert world.reconcile() == module.WAIT_FOR_SLOT
    assert (world.condition(), world.status["state"]) == (("False", "Queued"), "Waiting")
    world.end(DONE)
    assert world.reconciler.reconcile(("other", "x")) is None
    assert world.reconcile() == module.POLL_JOB
