"""One PartitionArchive through all its states, and through operators that are killed before and after each write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest

from partwarden.api.archive import ARCHIVE_PLURAL, CONTAINER, Fingerprint
from partwarden.api.policy import PLURAL
from partwarden.api.retention import Compression, Format
from partwarden.api.types import ObjectKey
from partwarden.archive.job_order import VARIABLE, WRONG, JobSpec, Report, Task
from partwarden.archive.manifest import TableName
from partwarden.archive.table_lookup import Target
from partwarden.controller import job_reconciler as module
from partwarden.controller.archive_database import check_table
from partwarden.controller.archive_job import JobRequest
from partwarden.controller.archive_reconciler import ArchiveReconciler
from partwarden.controller.archive_requests import ArchiveRequests
from partwarden.controller.job_slots import JobSlots
from partwarden.controller.job_status import PENDING_LONG
from partwarden.controller.settings import Settings
from partwarden.controller.shard import Shard
from partwarden.errors import DatabaseUnreachable, PartwardenError, SecretNotFound
from partwarden.kube.cache import ArchiveCache, Store, StoredArchive, parse_archive, parse_policy
from support.cluster import CREATED, ApiServer, controlled_by, refusal

KEY: ObjectKey = ("ns", "by-hand")
SERVER, OID = "7380000000000000001/16384", 16402
BOUNDS = ("2020-01-01 00:00:00+00", "2021-01-01 00:00:00+00")
TABLE = Target(TableName(schema_="public", name="run_2020", oid=OID), bounds=BOUNDS, server=SERVER, bytes=2048)
DONE = Report(
    ok=True,
    id="by-hand-1",
    location="pvc://archives/run_2020/by-hand-1",
    rows=3,
    bytes=2048,
    sha256="a" * 64,
    manifest_sha256="b" * 64,
    fingerprint=Fingerprint(algorithm="test", rows=3, content="c" * 64),
    oid=OID,
    server=SERVER,
)
DAMAGED = Report(ok=False, reason="ArchiveDamaged", message="data.dump has another sha256", oid=OID, server=SERVER)


class Killed(BaseException):
    """As SIGKILL, but for the process."""


class Tables:
    """The catalog says where the table is, or fails."""

    def __init__(self) -> None:
        self.target = TABLE
        self.error: PartwardenError | None = None

    def find(self, archive: StoredArchive, request: JobRequest) -> Target:
        if self.error is not None:
            raise self.error
        check_table(archive, request, self.target)
        return self.target


class World:
    """The API server with one archive, the clock, and an operator that may be replaced by another."""

    def __init__(self, spec: Mapping[str, Any] | None = None, **settings: Any) -> None:
        """``spec``: more of the archive's."""
        self.server, self.tables, self.policies = ApiServer(), Tables(), Store()
        self.now = datetime.fromisoformat(CREATED)
        self.dumped: int | None = None
        """What is to be seen of a dump."""
        self.settings = Settings(**{"job_image": "partwarden:1", **settings})
        self.ended: list[tuple[Task, bool, float | None]] = []
        self.restart()
        spec = {
            "database": {"secretRef": {"name": "db"}},
            "partition": "run_2020",
            "destination": {"pvc": {"claimName": "archives"}},
            **(spec or {}),
        }
        self.server.put(ARCHIVE_PLURAL, {"metadata": {"namespace": KEY[0], "name": KEY[1]}, "spec": spec})

    def restart(self) -> None:
        """Another operator takes over, which remembers nothing."""
        cluster, self.cache, shard = self.server.cluster(), ArchiveCache(), Shard(self.policies)
        clock, self._woken = lambda: self.now, list[ObjectKey]()
        self.slots = JobSlots(self.settings, self.cache, shard, self._woken.append, clock)
        self.requests = ArchiveRequests(self.cache, cluster, lambda key: None)
        self.reconciler = ArchiveReconciler(
            *(cluster, self.cache, self.requests, shard, self.slots, self.tables.find, self.settings, clock),
            *(lambda *ended: self.ended.append(ended), lambda archive: self.dumped),
        )

    @property
    def woken(self) -> list[ObjectKey]:
        """Each once: one that is enqueued already is not enqueued again."""
        return list(dict.fromkeys(self._woken))

    def reconcile(self) -> float | None:
        return self.reconciler.reconcile(KEY)

    @property
    def body(self) -> dict[str, Any]:
        return self.server.get(ARCHIVE_PLURAL, *KEY)

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.body.get("status") or {}
        return status

    def condition(self, kind: str = "Ready") -> tuple[str, str]:
        (found,) = [each for each in self.status["conditions"] if each["type"] == kind]
        return found["status"], found["reason"]

    @property
    def jobs(self) -> list[dict[str, Any]]:
        return self.server.list("jobs")

    def pod(self, job: dict[str, Any], state: dict[str, Any]) -> None:
        meta = {"namespace": job["metadata"]["namespace"], "name": f"{job['metadata']['name']}-0", **controlled_by(job)}
        status = {"containerStatuses": [{"name": CONTAINER, "state": state}]}
        self.server.put("pods", {"metadata": meta, "status": status})

    def end(self, report: Report | None, condition: str = "Complete", code: int = 0) -> None:
        """The youngest Job ends so."""
        job = self.jobs[-1]
        message = {"message": report.model_dump_json(by_alias=True)} if report else {}
        self.pod(job, {"terminated": {"exitCode": code, **message}})
        at = (self.now + timedelta(minutes=5)).isoformat()
        said = {"type": condition, "status": "True", "lastTransitionTime": at}
        self.server.put("jobs", {**job, "status": {"conditions": [said]}})

    def prove(self) -> None:
        self.reconcile()
        self.end(DONE)
        assert self.reconcile() is None


@pytest.fixture
def world() -> World:
    return World()


def order(job: dict[str, Any]) -> JobSpec:
    variables = job["spec"]["template"]["spec"]["containers"][0]["env"]
    (text,) = [each["value"] for each in variables if each["name"] == VARIABLE]
    return JobSpec.model_validate_json(text)


def test_the_table_is_pinned_before_its_job_is_created(world: World) -> None:
    assert world.reconcile() == module.POLL_JOB
    assert world.server.writes == ["status partitionarchives", "create jobs"]
    (job,) = world.jobs
    assert (world.status["oid"], world.status["server"], world.status["tableBytes"]) == (OID, SERVER, 2048)
    assert (world.status["from"], world.status["to"]) == BOUNDS
    assert (world.status["job"], world.status["phase"]) == (job["metadata"]["name"], "Archiving")
    assert world.condition() == ("False", "JobRunning")
    assert (order(job).task, order(job).partition.oid, order(job).server) == (Task.ARCHIVE, OID, SERVER)
    assert world.slots.held() == {(KEY[0], job["metadata"]["name"])}


def test_the_dump_is_compressed_as_the_archive_says() -> None:
    world = World({"compression": "Gzip", "compressionLevel": 9})
    world.reconcile()
    (job,) = world.jobs
    assert (order(job).compression, order(job).compression_level) == (Compression.GZIP, 9)


def test_parquet_is_asked_of_no_image_without_it_and_is_made_once_there_is_one() -> None:
    world = World({"formats": ["Dump", "Parquet"]})
    assert world.reconcile() == module.RETRY_USER_ERROR
    assert world.jobs == []
    assert (world.condition(), world.condition("Stalled")) == (
        ("False", "ParquetUnavailable"),
        ("True", "ParquetUnavailable"),
    )
    error = world.status["lastError"]["message"]
    assert error.startswith("spec.formats asks for Parquet, and the image of the operator's Jobs has no pyarrow")
    assert "the suffix -parquet" in error
    assert [reason for reason, _ in world.server.events] == ["ParquetUnavailable"]
    # No attempt was made, so none is waited for.
    assert "nextAttempt" not in world.status

    world.settings = Settings(job_image="partwarden:1-parquet", job_parquet=True)
    world.restart()
    assert world.reconcile() == module.POLL_JOB
    assert order(world.jobs[0]).formats == (Format.DUMP, Format.PARQUET)
    world.end(DONE.model_copy(update={"formats": (Format.DUMP, Format.PARQUET), "parquet_bytes": 512}))
    world.reconcile()
    assert world.condition() == ("True", "Proven")
    assert (world.status["formats"], world.status["bytes"], world.status["parquetBytes"]) == (
        ["Dump", "Parquet"],
        2048,
        512,
    )
    assert "lastError" not in world.status


def test_an_archive_that_holds_parquet_is_read_again_by_any_image() -> None:
    world = World({"formats": ["Dump", "Parquet"]}, job_parquet=True)
    world.prove()
    world.settings = Settings(job_image="partwarden:1")
    world.restart()
    world.requests.want_check(KEY, "drop/1")
    assert world.reconcile() == module.POLL_JOB
    assert order(world.jobs[-1]).task is Task.CHECK


def test_an_archive_that_was_made_without_parquet_stays_as_it_is() -> None:
    """What the policy says later is for archives that are made later: the dump proves this one."""
    world = World({"policy": {"name": "run"}}, job_parquet=True)
    world.reconcile()
    assert order(world.jobs[0]).formats == (Format.DUMP,)
    world.end(DONE.model_copy(update={"formats": (Format.DUMP,)}))
    world.reconcile()
    archived = {"pvc": {"claimName": "archives"}, "formats": ["Dump", "Parquet"]}
    spec = {"table": {"name": "run"}, "database": {"secretRef": {"name": "db"}}}
    spec["retention"] = {"keepFor": "5y", "archive": archived}
    body = {"metadata": {"namespace": KEY[0], "name": "run"}, "spec": spec}
    world.policies.put(parse_policy(world.server.put(PLURAL, body)))
    writes = len(world.server.writes)
    world.restart()
    assert world.reconcile() is None
    assert (len(world.jobs), len(world.server.writes)) == (1, writes)
    assert world.status["formats"] == ["Dump"]


def test_a_running_job_is_polled_and_written_once(world: World) -> None:
    world.reconcile()
    world.pod(world.jobs[0], {"running": {}})
    writes = len(world.server.writes)
    assert [world.reconcile() for _ in range(3)] == [module.POLL_JOB] * 3
    assert len(world.server.writes) == writes


def test_progress_is_written_once_for_each_step_and_not_before_a_pod_runs(world: World) -> None:
    world.reconcile()
    world.dumped = 45
    world.reconcile()
    assert world.status["state"] == "Dumping"
    world.pod(world.jobs[0], {"running": {}})
    writes = len(world.server.writes)
    for world.dumped, state in ((45, "Dumping 45%"), (45, "Dumping 45%"), (None, "Dumping 45%"), (100, "Verifying")):
        world.reconcile()
        assert world.status["state"] == state
    assert len(world.server.writes) == writes + 2


def test_what_a_pod_waits_for_is_in_the_status_and_recorded(world: World) -> None:
    world.reconcile()
    world.pod(world.jobs[0], {"waiting": {"reason": "ImagePullBackOff"}})
    assert world.reconcile() == module.POLL_JOB
    assert world.condition() == ("False", "ImagePullBackOff")
    assert [reason for reason, _ in world.server.events] == ["ImagePullBackOff"]


def test_a_job_that_succeeded_is_a_proof(world: World) -> None:
    world.prove()
    assert world.condition() == ("True", "Proven")
    assert (world.status["manifestSha256"], world.status["rows"]) == ("b" * 64, 3)
    assert "phase" not in world.status
    assert [reason for reason, _ in world.server.events] == ["Archived"]
    assert world.ended == [(Task.ARCHIVE, True, 300.0)]
    assert world.slots.held() == frozenset()
    assert world.reconcile() is None
    assert len(world.jobs) == 1


@pytest.mark.parametrize(
    "change",
    [{"oid": OID + 1}, {"server": "other/1"}, {"sha256": ""}, {"manifest_sha256": ""}, {"fingerprint": None}],
    ids=lambda change: next(iter(change)),
)
def test_a_report_of_another_table_or_with_a_gap_proves_nothing(world: World, change: dict[str, Any]) -> None:
    world.reconcile()
    world.end(DONE.model_copy(update=change))
    assert world.reconcile() == module.RETRY
    assert "manifestSha256" not in world.status
    assert world.condition() == ("False", "NoReport")
    assert world.ended[0][:2] == (Task.ARCHIVE, False)


def test_a_failed_job_is_followed_by_another_after_a_pause(world: World) -> None:
    world.reconcile()
    report = Report(ok=False, reason="DestinationDenied", message="cannot write")
    world.end(report, "Failed", WRONG)
    assert world.reconcile() == module.RETRY
    assert (world.status["attempts"], world.condition("Stalled")) == (1, ("True", "DestinationDenied"))
    pause = world.reconcile()
    assert pause is not None
    assert len(world.jobs) == 1
    world.now += timedelta(seconds=pause)
    assert world.reconcile() == module.POLL_JOB
    assert len(world.jobs) == 2
    world.end(DONE)
    assert world.reconcile() is None
    assert not world.status.keys() & {"attempts", "lastError", "nextAttempt"}


def test_a_check_runs_once_for_its_token_and_reads_what_was_proven(world: World) -> None:
    world.prove()
    world.requests.want_check(KEY, "before-drop")
    assert world.reconcile() == module.POLL_JOB
    assert world.status["phase"] == "Checking"
    check = order(world.jobs[-1])
    assert (check.task, check.id, check.sha256, check.location) == (Task.CHECK, DONE.id, DONE.sha256, DONE.location)
    world.end(DONE)
    assert world.reconcile() is None
    assert (world.status["check"]["token"], world.status["check"]["ok"]) == ("before-drop", True)
    assert world.reconcile() is None
    world.requests.want_check(KEY, "another")
    assert world.reconcile() == module.POLL_JOB
    assert len(world.jobs) == 3


def test_damage_is_written_down_and_the_proof_stays(world: World) -> None:
    world.prove()
    world.requests.want_check(KEY, "before-drop")
    world.reconcile()
    world.end(DAMAGED, "Failed", WRONG)
    assert world.reconcile() == module.RETRY
    assert (world.condition("Archived"), world.condition("Verified")) == (
        ("True", "Proven"),
        ("False", "ArchiveDamaged"),
    )
    assert world.status["check"]["ok"] is False


def test_a_check_that_could_not_be_made_says_nothing_of_the_archive(world: World) -> None:
    world.prove()
    world.requests.want_check(KEY, "before-drop")
    world.reconcile()
    world.end(Report(ok=False, reason="AuthenticationFailed", message="wrong password"), "Failed", WRONG)
    assert world.reconcile() == module.RETRY
    assert "check" not in world.status
    assert world.condition("Verified") == ("True", "Proven")


@pytest.mark.parametrize(
    ("error", "pause", "ends"),
    [
        (DatabaseUnreachable("no answer"), module.RETRY, "Reconciling"),
        (SecretNotFound("there is no Secret"), module.RETRY_USER_ERROR, "Stalled"),
    ],
)
def test_what_keeps_a_job_from_being_created_is_in_the_status(
    world: World, error: PartwardenError, pause: float, ends: str
) -> None:
    world.tables.error = error
    assert world.reconcile() == pause
    assert world.condition(ends) == ("True", error.reason)
    assert (world.jobs, world.slots.held()) == ([], frozenset())
    world.tables.error = None
    assert world.reconcile() == module.POLL_JOB


def test_another_table_of_the_name_is_never_archived_in_its_place(world: World) -> None:
    world.reconcile()
    world.end(None, "Failed", 1)
    world.reconcile()
    world.now += timedelta(days=1)
    world.tables.target = Target(TableName(schema_="public", name="run_2020", oid=OID + 1), server=SERVER)
    assert world.reconcile() == module.RETRY
    assert world.condition()[1] == "TableChanged"
    assert len(world.jobs) == 1
    assert world.status["oid"] == OID


def test_without_an_image_no_job_is_created() -> None:
    world = World(job_image="")
    assert world.reconcile() == module.RETRY_USER_ERROR
    assert world.condition("Stalled") == ("True", "InvalidSpec")


def archives(world: World, count: int) -> list[ObjectKey]:
    """As many archives in another namespace, all known."""
    found = [("other", f"a-{number}") for number in range(count)]
    for namespace, name in found:
        body = {"metadata": {"namespace": namespace, "name": name}, "spec": world.body["spec"]}
        world.cache.put(parse_archive(world.server.put(ARCHIVE_PLURAL, body)))
    world.cache.put(parse_archive(world.body))
    return found


def test_without_a_slot_it_waits_until_it_is_woken() -> None:
    world = World(jobs=1)
    (other,) = archives(world, 1)
    assert world.reconciler.reconcile(other) == module.POLL_JOB
    assert world.reconcile() == module.WAIT_FOR_SLOT
    assert world.condition() == ("False", "Queued")
    writes = len(world.server.writes)
    assert world.reconcile() == module.WAIT_FOR_SLOT
    assert (len(world.server.writes), world.woken) == (writes, [])
    world.end(DONE)
    assert world.reconciler.reconcile(other) is None
    assert world.woken == [KEY]
    assert world.reconcile() == module.POLL_JOB


def test_a_thousand_archives_that_wait_ask_the_api_server_for_nothing() -> None:
    assert module.WAIT_FOR_SLOT >= 300
    world = World(jobs=1)
    many = archives(world, 20)
    assert [world.reconciler.reconcile(each) for each in many] == [module.POLL_JOB, *[module.WAIT_FOR_SLOT] * 19]
    assert world.woken == []


@pytest.mark.parametrize("end", ["deleted", "no table", "no answer"])
def test_one_that_is_woken_and_needs_no_job_any_more_wakes_the_next(end: str) -> None:
    world = World(jobs=1)
    first, second, third = archives(world, 3)
    for each in (first, second, third):
        world.reconciler.reconcile(each)
    world.end(DONE)
    assert world.reconciler.reconcile(first) is None
    assert world.woken == [second]
    if end == "deleted":
        del world.server.objects[ARCHIVE_PLURAL, *second]
    elif end == "no table":
        world.tables.error = SecretNotFound("there is no Secret")
    else:
        world.server.before = lambda what: _refuse_once(world)
    world.reconciler.reconcile(second)
    assert world.woken == [second, third]


def _refuse_once(world: World) -> None:
    world.server.before = lambda what: None
    raise refusal(500, "etcd is away")


@pytest.mark.parametrize("suspended", [True, False])
def test_a_job_that_is_pending_for_long_is_reported_and_gives_its_slot_to_another(suspended: bool) -> None:
    world = World(jobs=1)
    (other,) = archives(world, 1)
    world.reconcile()
    (job,) = world.jobs
    if suspended:
        world.server.put("jobs", {**job, "spec": {**job["spec"], "suspend": True}})
    else:
        said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes fit"}
        meta = {"namespace": KEY[0], "name": "p", "creationTimestamp": job["metadata"]["creationTimestamp"]}
        world.server.put("pods", {"metadata": {**meta, **controlled_by(job)}, "status": {"conditions": [said]}})
    made = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
    world.now = made + PENDING_LONG - timedelta(seconds=1)
    assert world.reconcile() == module.POLL_JOB
    assert world.reconciler.reconcile(other) == module.WAIT_FOR_SLOT
    world.now = made + PENDING_LONG
    assert world.reconcile() == module.POLL_PENDING
    assert world.woken == [other]
    assert world.condition() == ("False", "JobSuspended" if suspended else "JobPending")
    (ready,) = [each["message"] for each in world.status["conditions"] if each["type"] == "Ready"]
    assert f"has run since {job['metadata']['creationTimestamp']}" in ready
    assert ("is suspended" if suspended else "waits for a node: 0/3 nodes fit") in ready
    assert world.reconciler.reconcile(other) == module.POLL_JOB
    events = [reason for reason, _ in world.server.events]
    world.now += timedelta(hours=1)
    assert world.reconcile() == module.POLL_PENDING
    assert [reason for reason, _ in world.server.events] == events


def test_a_job_that_is_not_its_own_proves_nothing(world: World) -> None:
    world.reconcile()
    (job,) = world.jobs
    job["metadata"]["ownerReferences"][0]["uid"] = "of another"
    world.server.put("jobs", job)
    world.end(DONE)
    assert world.reconcile() == module.RETRY
    assert world.condition("Stalled") == ("True", "NameTaken")
    assert "manifestSha256" not in world.status


@pytest.mark.parametrize(
    ("status", "reason"), [(422, "InvalidSpec"), (400, "InvalidSpec"), (403, "InsufficientPrivilege")]
)
def test_a_job_that_the_api_server_refuses_is_the_users_to_correct(world: World, status: int, reason: str) -> None:
    """403 is also the answer of a quota and of admission policies."""

    def refuse(what: str) -> None:
        if what == "create jobs":
            raise refusal(status, "exceeded quota: jobs")

    world.server.before = refuse
    assert world.reconcile() == module.RETRY_USER_ERROR
    assert world.condition("Stalled") == ("True", reason)
    assert (world.status["oid"], world.status["state"]) == (OID, "Failed")
    assert world.slots.held() == frozenset()
    world.server.before = lambda what: None
    world.reconcile()
    assert (world.condition("Stalled")[0], len(world.jobs)) == ("False", 1)


def test_an_api_server_that_fails_is_tried_again(world: World) -> None:
    def refuse(what: str) -> None:
        raise refusal(500, "etcd is away")

    world.server.before = refuse
    assert world.reconcile() == module.RETRY
    assert (world.status, world.jobs) == ({}, [])
    assert world.slots.held() == frozenset()


def test_an_event_that_is_not_recorded_takes_nothing_back(world: World) -> None:
    world.reconcile()
    world.end(DONE)

    def refuse(what: str) -> None:
        if what == "event":
            raise refusal(403, "no right")

    world.server.before = refuse
    assert world.reconcile() is None
    assert world.condition() == ("True", "Proven")


def test_what_another_operator_wrote_meanwhile_stays(world: World) -> None:
    world.reconcile()
    world.end(DONE)
    body = world.body

    def prove_first(what: str) -> None:
        world.server.before = lambda what: None
        world.server.put(ARCHIVE_PLURAL, {**body, "status": {**body["status"], "manifestSha256": "other"}})

    world.server.before = prove_first
    assert world.reconcile() == module.WRITTEN_MEANWHILE
    assert world.status["manifestSha256"] == "other"
    assert world.ended == []


@pytest.mark.parametrize("ending", [True, False])
def test_an_archive_that_is_deleted_is_forgotten(world: World, ending: bool) -> None:
    world.cache.put(parse_archive(world.body))
    world.requests.want_check(KEY, "token")
    if ending:
        meta = {**world.body["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
        world.server.put(ARCHIVE_PLURAL, {**world.body, "metadata": meta})
    else:
        del world.server.objects[ARCHIVE_PLURAL, KEY[0], KEY[1]]
    assert world.reconcile() is None
    assert (world.cache.all(), world.requests.wanted_check(KEY)) == ([], None)
    assert world.jobs == []


class KillAt:
    """Ends the operator at its n-th write, before or after that is done."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, what: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


def _before(server: ApiServer, hook: Callable[[str], None]) -> None:
    server.before = hook


def _after(server: ApiServer, hook: Callable[[str], None]) -> None:
    server.after = hook


@pytest.mark.parametrize("when", [_before, _after])
@pytest.mark.parametrize("number", range(1, 9))
def test_killed_at_any_write_the_next_operator_ends_with_one_proof_and_one_check(
    world: World, when: Callable[[ApiServer, Callable[[str], None]], None], number: int
) -> None:
    when(world.server, KillAt(number))
    for _ in range(20):
        if world.status.get("manifestSha256"):
            world.requests.want_check(KEY, "before-drop")
        try:
            world.reconcile()
        except Killed:
            world.restart()
        for job in world.jobs:
            if not job.get("status"):
                world.end(DONE)
    tasks = [order(job).task for job in world.jobs]
    assert tasks == [Task.ARCHIVE, Task.CHECK]
    assert (world.condition(), world.condition("Verified")) == (("True", "Proven"), ("True", "Proven"))
    assert world.status["check"]["token"] == "before-drop"
