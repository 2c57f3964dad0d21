"""What time alone makes due: readings by schedule, and the deletion of archives, with all that keeps one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from partwarden.api.archive import ARCHIVE_PLURAL, HOLD, OID_LABEL, POLICY_LABEL, ROUND_LABEL, SERVER_LABEL
from partwarden.api.policy import PLURAL
from partwarden.api.restore import RESTORE_PLURAL
from partwarden.api.types import ObjectKey
from partwarden.archive.job_order import Report, Task
from partwarden.controller import archive_reconciler as module
from partwarden.controller import archive_steps, job_reconciler
from partwarden.controller.archive_job import JobRequest
from partwarden.controller.archive_reconciler import ArchiveReconciler
from partwarden.controller.archive_requests import ArchiveRequests
from partwarden.controller.archive_schedule import ANNOUNCED, SPREAD, later, verification_due
from partwarden.controller.job_slots import JobSlots
from partwarden.controller.shard import Shard
from partwarden.errors import DatabaseUnreachable, PartwardenError, TableThere
from partwarden.kube.cache import (
    ArchiveCache,
    RestoreCache,
    Store,
    StoredArchive,
    StoredRestore,
    parse_archive,
    parse_policy,
    parse_restore,
)
from partwarden.planner.drop_preconditions import server_label
from support.cluster import refusal
from unit.controller.test_archive_reconciler import DONE, KEY, OID, SERVER, KillAt, Killed, World, order

POLICY: ObjectKey = (KEY[0], "run")
CLAIM = {"pvc": {"claimName": "archives"}}
KEEP = {"keepFor": "1y", "deletion": "Allowed"}
YEAR = timedelta(days=366)
DAMAGED = Report(ok=False, reason="ArchiveDamaged", message="data.dump has another sha256")
ALONE = DONE.model_copy(update={"server": ""})


class Kept(World):
    """Of a policy, whose archive is proven and whose table was dropped."""

    def __init__(self, archive: dict[str, Any] | None = None) -> None:
        self.gone: list[datetime] = []
        self.error: PartwardenError | None = None
        self.unseen = False
        """Whether no watch has shown a restore yet."""
        self.policies = Store()
        super().__init__()
        labels = {POLICY_LABEL: "run", SERVER_LABEL: server_label(SERVER), OID_LABEL: str(OID), ROUND_LABEL: "0"}
        spec = {**self.body["spec"], "policy": {"name": "run"}, "oid": OID}
        meta = {"namespace": KEY[0], "name": KEY[1], "labels": labels}
        self.server.put(ARCHIVE_PLURAL, {"metadata": meta, "spec": spec})
        self.says(archive or {})
        self.reconcile()
        self.end(DONE.model_copy(update={"completed": self.now}))
        self.reconcile()
        self.change(status={"dropped": {"at": self.now.isoformat(), "approval": "Automatic"}})

    def restart(self) -> None:
        cluster, self.cache, shard = self.server.cluster(), ArchiveCache(), Shard(self.policies)
        clock = lambda: self.now  # noqa: E731
        self.slots = JobSlots(self.settings, self.cache, shard, lambda key: None, clock)
        self.requests = ArchiveRequests(self.cache, cluster, lambda key: None)
        self.reconciler = ArchiveReconciler(
            *(cluster, self.cache, self.requests, shard, self.slots, self.tables.find, self.settings, clock),
            *(lambda *ended: self.ended.append(ended), lambda archive: None, self.check_gone),
            restores=self.seen_restores,
        )

    def seen_restores(self, archive: StoredArchive) -> list[StoredRestore]:
        cache = RestoreCache()
        for body in [] if self.unseen else self.server.list(RESTORE_PLURAL):
            cache.put(parse_restore(body))
        return cache.about(archive)

    def check_gone(self, archive: StoredArchive, request: JobRequest, due: datetime) -> None:
        self.gone.append(due)
        if self.error is not None:
            raise self.error

    def says(self, archive: dict[str, Any], annotations: dict[str, str] | None = None, **more: Any) -> None:
        """The policy's spec.retention.archive, beside the claim."""
        retention = {"keepFor": "5y", "onExpire": "Drop", "archive": {**CLAIM, **archive}}
        spec = {"table": {"name": "run"}, "database": {"secretRef": {"name": "db"}}, "retention": retention, **more}
        meta = {"namespace": POLICY[0], "name": POLICY[1], "annotations": annotations or {}}
        self.policies.put(parse_policy(self.server.put(PLURAL, {"metadata": meta, "spec": spec})))

    def change(self, status: dict[str, Any] | None = None, **metadata: Any) -> None:
        body = self.body
        meta = {**body["metadata"], **metadata}
        kept = {**body.get("status", {}), **(status or {})}
        left = {name: value for name, value in kept.items() if value is not None}
        self.server.put(ARCHIVE_PLURAL, {**body, "metadata": meta, "status": left})

    def announce(self) -> None:
        """Until a day after it was announced that it is deleted."""
        self.now += YEAR
        assert self.reconcile() == archive_steps.AGAIN
        assert self.condition("Expired") == ("False", "Announced")
        self.now += ANNOUNCED

    def tasks(self) -> list[Task]:
        return [order(job).task for job in self.jobs]


def due_in(every: str = "90d", uid: str = "a", **status: Any) -> datetime | None:
    meta = {"namespace": "ns", "name": "a", "uid": uid, "resourceVersion": "1"}
    found = parse_archive({"metadata": meta, "status": {"completed": "2026-01-01T00:00:00Z", **status}})
    return verification_due(found, every)


def test_ages_go_by_the_calendar() -> None:
    leap = datetime(2024, 2, 29, 12, tzinfo=UTC)
    assert later(leap, "1y") == datetime(2025, 3, 1, tzinfo=UTC).replace(hour=12)
    assert later(leap, "1mo") == datetime(2024, 3, 29, 12, tzinfo=UTC)
    assert later(leap, "90d") == leap + timedelta(days=90)
    assert later(leap, "99999y") is None


def test_archives_are_read_again_in_time_and_not_all_at_once() -> None:
    made = datetime(2026, 1, 1, tzinfo=UTC)
    moments = {due_in(uid=str(number)) for number in range(200)}
    days = sorted((each - made).total_seconds() / 86400 for each in moments if each)
    assert 90 * (1 - SPREAD) <= days[0] < 70
    assert 87 < days[-1] <= 90
    assert len({int(day) for day in days}) == 23
    assert due_in(uid="a") == due_in(uid="a")


def test_what_was_found_damaged_is_read_again_a_day_later() -> None:
    found = {"job": "j", "ok": False, "completed": "2026-03-01T00:00:00Z"}
    assert due_in(verification=found) == datetime(2026, 3, 2, tzinfo=UTC)
    assert due_in(completed="never") is None
    # Another wrote that it was at the end of all time.
    assert due_in(verification={**found, "completed": "9999-12-31T23:59:59Z"}) is None


def test_an_archive_is_read_again_by_schedule_without_its_database() -> None:
    world = Kept({"verifyEvery": "90d"})
    assert world.reconcile() == archive_steps.AGAIN
    world.now += timedelta(days=91)
    assert world.reconcile() == job_reconciler.POLL_JOB
    job = world.jobs[-1]
    said = order(job)
    assert (said.task, said.location, said.sha256, said.connection) == (
        *(Task.VERIFY, DONE.location, DONE.sha256),
        None,
    )
    variables = {each["name"] for each in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert not any(each.startswith("PARTWARDEN_DB_") for each in variables)
    assert (world.status["state"], world.condition()) == ("Verifying", ("True", "Proven"))
    world.end(ALONE.model_copy(update={"completed": world.now}))
    world.reconcile()
    assert (world.condition("Verified"), world.status["state"]) == (("True", "Proven"), "Verified")
    assert datetime.fromisoformat(world.status["lastVerified"]) == world.now
    assert (world.server.events[-1][0], world.server.events[0][0]) == ("Verified", "Archived")
    world.reconcile()
    assert world.tasks() == [Task.ARCHIVE, Task.VERIFY]


@pytest.mark.parametrize(
    ("by_hand", "own", "disk"), [(False, "old", "new"), (False, None, "new"), (True, "old", "old"), (True, None, "new")]
)
def test_its_jobs_run_as_the_policy_says_by_then(by_hand: bool, own: str | None, disk: str) -> None:
    """The nodes and limits of the day on which it was made may be no more; what a user made says how it runs."""
    world = Kept()
    job = {"job": {"nodeSelector": {"disk": own}}} if own else {}
    world.server.put(ARCHIVE_PLURAL, {**world.body, "spec": {**world.body["spec"], **job}})
    if by_hand:
        world.change(labels={})
    kept = {"keepFor": "5y", "archive": {**CLAIM, "verifyEvery": "90d"}, "job": {"nodeSelector": {"disk": "new"}}}
    world.says({}, retention=kept)
    world.now += timedelta(days=91)
    assert world.reconcile() == job_reconciler.POLL_JOB
    assert world.jobs[-1]["spec"]["template"]["spec"]["nodeSelector"] == {"disk": disk}


@pytest.mark.parametrize("wrong", [timedelta(days=-3650), timedelta(days=3650)], ids=["behind", "ahead"])
def test_the_clock_of_a_pod_moves_no_reading(wrong: timedelta) -> None:
    world = Kept({"verifyEvery": "90d"})
    for number in range(1, 3):
        world.now += timedelta(days=91)
        world.reconcile()
        assert world.tasks() == [Task.ARCHIVE, *[Task.VERIFY] * number]
        world.end(ALONE.model_copy(update={"completed": world.now + wrong}))
        world.now += timedelta(minutes=10)
        world.reconcile()
        assert world.condition("Verified") == ("True", "Proven")
        world.reconcile()
        assert len(world.jobs) == number + 1


def test_damage_that_is_found_by_schedule_is_reported_until_it_is_put_right() -> None:
    world = Kept({"verifyEvery": "30d"})
    world.now += timedelta(days=31)
    world.reconcile()
    world.end(DAMAGED.model_copy(update={"completed": world.now}), "Failed", 3)
    world.reconcile()
    assert (world.condition(), world.condition("Verified")) == (
        ("False", "ArchiveDamaged"),
        ("False", "ArchiveDamaged"),
    )
    assert (world.status["state"], world.server.events[-1][0]) == ("Failed", "ArchiveDamaged")
    world.reconcile()
    assert len(world.jobs) == 2
    world.now += timedelta(days=1, minutes=1)
    world.reconcile()
    world.end(ALONE.model_copy(update={"completed": world.now}))
    world.reconcile()
    assert world.condition("Verified") == ("True", "Proven")


def test_a_destination_that_does_not_answer_says_nothing_of_the_archive() -> None:
    world = Kept({"verifyEvery": "30d"})
    world.now += timedelta(days=31)
    world.reconcile()
    world.end(Report(ok=False, reason="DestinationUnreachable", message="no answer"), "Failed", 1)
    world.reconcile()
    assert (world.condition("Verified"), world.status["attempts"]) == (("True", "Proven"), 1)
    world.now += timedelta(hours=1)
    world.reconcile()
    assert world.tasks() == [Task.ARCHIVE, Task.VERIFY, Task.VERIFY]


def test_what_is_asked_for_by_a_table_comes_first() -> None:
    world = Kept({"verifyEvery": "30d"})
    world.now += timedelta(days=31)
    world.requests.want_check(KEY, "before-drop")
    world.reconcile()
    assert world.tasks()[-1] is Task.CHECK
    world.end(DONE.model_copy(update={"completed": world.now}))
    world.reconcile()
    world.reconcile()
    assert len(world.jobs) == 2


def test_archives_of_which_nothing_is_due_cost_the_api_server_nothing() -> None:
    world = Kept({"verifyEvery": "30d"})
    world.cache.put(parse_archive(world.body))
    asked: list[str] = []
    world.server.get = lambda *key: asked.append(key[0])  # type: ignore[method-assign,assignment]
    assert world.reconcile() == archive_steps.AGAIN
    assert asked == []


def test_an_archive_is_deleted_a_day_after_that_was_announced() -> None:
    world = Kept(KEEP)
    world.announce()
    assert world.server.events[-1][0] == "Announced"
    assert world.reconcile() == job_reconciler.POLL_JOB
    # A day after the announcement, which came a day late: the server's clock is asked for both.
    assert world.gone == [world.now]
    job = world.jobs[-1]
    assert (order(job).task, order(job).manifest_sha256, order(job).begun) == (
        *(Task.EXPIRE, DONE.manifest_sha256),
        False,
    )
    assert world.status["state"] == "Expiring"
    assert not parse_archive(world.body).status.keys() & {"expired"}
    world.end(DONE)
    world.reconcile()
    assert (world.status["state"], world.condition("Expired")) == ("Expired", ("True", "Expired"))
    assert world.condition("Archived") == ("False", "Expired")
    assert (world.status["sha256"], world.status["location"]) == (DONE.sha256, DONE.location)
    world.requests.want_check(KEY, "late")
    world.now += YEAR
    assert world.reconcile() is None
    assert len(world.jobs) == 2


def test_what_the_bucket_keeps_of_a_deleted_archive_is_said() -> None:
    world = Kept(KEEP)
    world.announce()
    world.reconcile()
    world.end(DONE.model_copy(update={"message": "its bucket keeps versions"}))
    world.reconcile()
    assert world.condition("Expired") == ("True", "Expired")
    (said,) = [each["message"] for each in world.status["conditions"] if each["type"] == "Expired"]
    assert said.endswith("; its bucket keeps versions")
    assert world.status["expiry"] == {"message": "its bucket keeps versions"}
    before = world.body
    world.now += YEAR
    assert world.reconcile() is None
    assert world.body == before


def _hold_by_label(world: Kept) -> None:
    world.change(labels={**world.body["metadata"]["labels"], HOLD: ""})


KEEPS: dict[str, Callable[[Kept], object]] = {
    "annotation": lambda world: world.change(annotations={HOLD: "false"}),
    "label": _hold_by_label,
    "hold of the policy": lambda world: world.says(KEEP, {HOLD: "run_2020"}),
    "policy forgets": lambda world: world.says({}),
    "policy keeps longer": lambda world: world.says({**KEEP, "keepFor": "2y"}),
    "policy suspended": lambda world: world.says(KEEP, suspend=True),
    "policy only plans": lambda world: world.says(KEEP, mode="Plan"),
    "policy asks for approval": lambda world: world.says(KEEP, mode="Approve"),
    "other destination": lambda world: world.says({**KEEP, "pvc": {"claimName": "others"}}),
    "other database": lambda world: world.says(KEEP, database={"secretRef": {"name": "other"}}),
    "policy not valid": lambda world: world.says(KEEP, interval="Fortnight"),
    "policy deleted": lambda world: (
        world.policies.remove(POLICY),
        world.server.objects.pop((PLURAL, *POLICY)),
    ),
    "table there": lambda world: world.change(status={"dropped": None}),
    "damaged": lambda world: world.change(status={"verification": {"ok": False, "reason": "ArchiveDamaged"}}),
    "changed": lambda world: world.change(status={"check": {"ok": False, "reason": "ContentsChanged"}}),
    "made by a user": lambda world: world.change(labels={}),
    "other server": lambda world: world.change(status={"server": "1/1"}),
    "no moment": lambda world: world.change(status={"dropped": {"at": "soon"}}),
}


@pytest.mark.parametrize("name", KEEPS)
def test_what_keeps_an_archive_takes_the_announcement_back(name: str) -> None:
    world = Kept(KEEP)
    world.announce()
    KEEPS[name](world)
    world.reconcile()
    world.reconcile()
    assert "expiresAt" not in world.status
    assert world.tasks() == [Task.ARCHIVE]


@pytest.mark.parametrize("name", ["hold of the policy", "policy forgets", "policy suspended", "policy deleted"])
def test_the_policy_is_read_as_it_is_when_the_job_is_made(name: str) -> None:
    world = Kept(KEEP)
    world.announce()
    known = world.policies.get(POLICY)
    assert known
    KEEPS[name](world)
    world.policies.remove(POLICY)
    world.policies.put(known)
    world.reconcile()
    assert (world.condition("Expired"), world.tasks()) == (("False", "TableThere"), [Task.ARCHIVE])


def test_a_pod_that_starts_late_deletes_nothing_that_is_held_by_then() -> None:
    """Its Job is over long before, and the next one is not made."""
    world = Kept(KEEP)
    world.announce()
    world.reconcile()
    job = world.jobs[-1]
    assert job["spec"]["activeDeadlineSeconds"] <= timedelta(minutes=15).total_seconds()
    KEEPS["annotation"](world)
    at = (world.now + timedelta(minutes=15)).isoformat()
    late = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "lastTransitionTime": at}
    world.server.put("jobs", {**job, "status": {"conditions": [late]}})
    world.reconcile()
    assert world.condition("Expired")[0] == "False"
    world.now += timedelta(days=2)
    world.reconcile()
    world.reconcile()
    assert world.tasks() == [Task.ARCHIVE, Task.EXPIRE]
    assert "expired" not in world.status


def test_a_hold_that_comes_while_the_database_is_asked_keeps_it() -> None:
    world = Kept(KEEP)
    world.announce()

    def hold(what: str) -> None:
        world.server.before = lambda what: None
        KEEPS["annotation"](world)

    world.server.before = hold
    assert world.reconcile() == job_reconciler.WRITTEN_MEANWHILE
    world.reconcile()
    assert world.tasks() == [Task.ARCHIVE]


@pytest.mark.parametrize(
    ("error", "hours"), [(TableThere("public.run_2020 exists"), 24), (DatabaseUnreachable("no answer"), 1)]
)
def test_while_its_table_is_there_or_that_is_not_known_it_is_kept(error: PartwardenError, hours: int) -> None:
    world = Kept(KEEP)
    world.announce()
    world.error = error
    world.reconcile()
    assert (world.condition("Expired"), world.condition()) == (("False", error.reason), ("True", "Proven"))
    world.now += timedelta(hours=hours, seconds=-1)
    world.reconcile()
    assert (len(world.gone), world.tasks()) == (1, [Task.ARCHIVE])
    world.now += timedelta(seconds=1)
    world.error = None
    world.reconcile()
    assert world.tasks() == [Task.ARCHIVE, Task.EXPIRE]


def test_without_a_database_to_ask_nothing_is_deleted() -> None:
    with pytest.raises(TableThere):
        module.unknown(parse_archive(Kept(KEEP).body), None, datetime.now(UTC))  # type: ignore[arg-type]


def test_a_bucket_that_keeps_the_objects_is_reported_and_tried_again_a_day_later() -> None:
    world = Kept(KEEP)
    world.announce()
    world.reconcile()
    world.end(Report(ok=False, reason="DeletionRefused", message="Object Lock"), "Failed", 3)
    world.reconcile()
    assert world.condition("Expired") == ("False", "DeletionRefused")
    assert world.server.events[-1] == ("DeletionRefused", "Object Lock")
    assert parse_archive(world.body).expired
    world.now += timedelta(hours=23)
    world.reconcile()
    assert len(world.jobs) == 2
    world.now += timedelta(hours=2)
    world.reconcile()
    assert (world.tasks()[-1], order(world.jobs[-1]).begun) == (Task.EXPIRE, True)
    assert len(world.jobs) == 3


@pytest.mark.parametrize(("status", "reason"), [(422, "InvalidSpec"), (403, "InsufficientPrivilege")])
def test_a_job_that_the_api_server_refuses_deletes_nothing_and_the_archive_still_counts(
    status: int, reason: str
) -> None:
    world = Kept(KEEP)
    world.announce()

    def refuse(what: str) -> None:
        if what == "create jobs":
            raise refusal(status, "spec.template: Invalid value")

    world.server.before = refuse
    assert world.reconcile() == archive_steps.AGAIN
    assert (world.condition("Expired"), world.condition()) == (("False", reason), ("True", "Proven"))
    assert (parse_archive(world.body).expired, world.status["state"]) == (False, "Verified")
    assert not world.status.keys() & {"lastError", "phase"}
    assert world.slots.held() == frozenset()
    world.server.before = lambda what: None
    world.reconcile()
    assert world.tasks() == [Task.ARCHIVE]
    world.now += timedelta(days=1)
    world.reconcile()
    assert (world.tasks(), order(world.jobs[-1]).begun) == ([Task.ARCHIVE, Task.EXPIRE], False)


def test_a_report_of_another_archive_deletes_nothing_from_the_record() -> None:
    world = Kept(KEEP)
    world.announce()
    world.reconcile()
    world.end(DONE.model_copy(update={"manifest_sha256": "0" * 64}))
    world.reconcile()
    assert "expired" not in world.status
    assert world.condition("Expired") == ("False", "NoReport")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(1, 5))
def test_killed_at_any_write_the_next_operator_ends_with_one_deletion(after: bool, number: int) -> None:
    world = Kept(KEEP)
    world.now += YEAR
    setattr(world.server, "after" if after else "before", KillAt(number))
    for _ in range(12):
        try:
            world.reconcile()
        except Killed:
            world.restart()
        world.now += timedelta(hours=13) if "expiresAt" in world.status and len(world.jobs) == 1 else timedelta(0)
        for job in world.jobs:
            if not job.get("status"):
                world.end(DONE)
    assert world.tasks() == [Task.ARCHIVE, Task.EXPIRE]
    assert world.status["state"] == "Expired"


RANGE = {"from": "2019-02-01T00:00:00Z", "to": "2019-03-01T00:00:00Z"}
OF_POLICY: dict[str, Any] = {"policy": {"name": "run"}, "as": {"name": "again"}}
BELOW = {"pvc": {"claimName": "archives", "path": "./run_2020//"}}
NEEDS: dict[str, tuple[str, dict[str, Any], dict[str, Any], bool]] = {
    "by its name": (KEY[0], {"archive": {"name": KEY[1]}, **OF_POLICY}, {}, True),
    "another by its name": (KEY[0], {"archive": {"name": "another"}, **OF_POLICY}, {}, False),
    "one of that name elsewhere": ("elsewhere", {"archive": {"name": KEY[1]}, **OF_POLICY}, {}, False),
    "by its period": (KEY[0], {"period": "2019", **OF_POLICY}, {}, True),
    "by another period": (KEY[0], {"period": "2018", **OF_POLICY}, {}, False),
    "chosen for a period": (KEY[0], {"period": "2018", **OF_POLICY}, {"archive": KEY[1]}, True),
    "another was chosen": (KEY[0], {"period": "2019", **OF_POLICY}, {"archive": "another"}, False),
    "one of several, not yet": (
        KEY[0],
        {"period": "2019", **OF_POLICY},
        {"archives": [{"archive": "another", "oid": 7}, {"archive": KEY[1]}]},
        True,
    ),
    "one of several, done": (
        KEY[0],
        {"period": "2019", **OF_POLICY},
        {"archives": [{"archive": KEY[1], "oid": 7}, {"archive": "another"}]},
        False,
    ),
    "by its place, from elsewhere": (
        "elsewhere",
        {"location": {"destination": CLAIM, "folder": DONE.location.removeprefix("pvc://archives/")}, **OF_POLICY},
        {},
        True,
    ),
    "by its place, spelled otherwise": (
        KEY[0],
        {"location": {"destination": CLAIM, "folder": "run_2020//by-hand-1/"}, **OF_POLICY},
        {},
        True,
    ),
    "by its place, at a destination spelled otherwise": (
        KEY[0],
        {"location": {"destination": BELOW, "folder": "by-hand-1"}, **OF_POLICY},
        {},
        True,
    ),
    "restored": (KEY[0], {"archive": {"name": KEY[1]}, **OF_POLICY}, {"oid": 7}, False),
    "restored, and being dropped": (
        KEY[0],
        {"archive": {"name": KEY[1]}, **OF_POLICY},
        {"oid": 7, "archive": KEY[1], "expiry": {"job": "j"}},
        True,
    ),
}


@pytest.mark.parametrize("how", NEEDS)
def test_an_archive_that_a_restore_needs_is_not_deleted_before_that_is_done(how: str) -> None:
    namespace, spec, status, needed = NEEDS[how]
    world = Kept(KEEP)
    world.change(status=RANGE)
    body = {"metadata": {"namespace": namespace, "name": "again"}, "spec": spec, "status": status}
    world.server.put(RESTORE_PLURAL, body)
    world.now += YEAR
    world.reconcile()
    assert world.condition("Expired") == ("False", "BeingRestored" if needed else "Announced")
    if needed:
        assert "elsewhere" not in str(world.status)
        writes = len(world.server.writes)
        world.reconcile()
        assert len(world.server.writes) == writes
        del world.server.objects[RESTORE_PLURAL, namespace, "again"]
        world.reconcile()
        assert world.condition("Expired") == ("False", "Announced")


def test_a_restore_that_no_watch_has_shown_yet_keeps_it() -> None:
    world = Kept(KEEP)
    world.announce()
    world.unseen = True
    spec = {"archive": {"name": KEY[1]}, **OF_POLICY}
    world.server.put(RESTORE_PLURAL, {"metadata": {"namespace": KEY[0], "name": "again"}, "spec": spec})
    jobs = len(world.jobs)
    world.reconcile()
    assert len(world.jobs) == jobs
    assert "PartitionRestore" in world.status["expiry"]["message"]
