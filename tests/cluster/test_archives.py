"""PartitionArchives and their Jobs: one Job at a time, its report in the status, and no proof without a report."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from lab.archives import IMAGE, Archives, oid, proof
from lab.kubectl import KubectlError
from lab.operator import Operator, until
from lab.postgres import Database
from lab.site import Site, conditions
from partwarden.archive.job_order import WRONG

DENIED = {"ok": False, "reason": "InsufficientPrivilege", "message": "may not read public.run_2020"}


@pytest.fixture
def operator(site: Site) -> Iterator[Operator]:
    """An operator that may run one Job."""
    with site.operator(JOB_IMAGE=IMAGE, JOBS="1").serving() as running:
        yield running


def test_what_a_job_proved_is_in_the_status_and_no_other_job_is_made(
    archives: Archives, operator: Operator, pg_database: Database
) -> None:
    archives.apply("by-hand")
    job = archives.job("by-hand")
    running = archives.wait("by-hand", Reconciling="True", Archived="False", Verified="False")
    assert running["status"]["state"] == "Dumping"
    assert running["status"]["oid"] == oid(pg_database)
    assert (running["status"]["from"], running["status"]["to"]) == ("2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z")
    (made,) = archives.jobs()
    assert made["metadata"]["ownerReferences"][0]["uid"] == running["metadata"]["uid"]
    assert made["spec"]["template"]["spec"]["containers"][0]["image"] == IMAGE

    archives.end(job, proof(oid(pg_database)), 0)
    proven = archives.wait("by-hand", "Proven", Ready="True", Archived="True", Verified="True")
    assert proven["status"]["rows"] == 3
    assert proven["status"]["size"] == "2.0Ki"
    shown = archives.kubectl("get", "parc", "by-hand").splitlines()
    columns = ["NAME", "PARTITION", "STATE", "ROWS", "SIZE", "DROPPED", "AGE"]
    assert shown[0].split() == columns
    assert shown[1].split()[:-1] == ["by-hand", "run_2020", "Verified", "3", "2.0Ki"]
    heading, wide = archives.kubectl("get", "parc", "by-hand", "-o", "wide").splitlines()
    assert heading.split() == [*columns, "FROM", "TO", "VERIFIED", "APPROVAL", "FORMATS", "LOCATION", "MESSAGE"]
    assert "s3://archives/runs/db/public.run/run_2020/by-hand-1" in wide

    # Its Job was deleted, and the operator has reconciled the archive since: it would make the same one.
    archives.kubectl("delete", "job", job)
    archives.apply("after", partition="run_2019")
    archives.job("after")
    assert [each["metadata"]["name"] for each in archives.jobs()] == [archives.get("after")["status"]["job"]]


def test_a_job_that_is_deleted_by_hand_is_made_again_and_is_the_only_one(
    archives: Archives, operator: Operator, pg_database: Database
) -> None:
    archives.apply("by-hand")
    job = archives.job("by-hand")
    (first,) = archives.jobs()
    archives.kubectl("delete", "job", job, "--cascade=foreground")

    def again() -> bool:
        found = archives.jobs()
        return len(found) == 1 and found[0]["metadata"]["uid"] != first["metadata"]["uid"]

    until("the Job is made again", again)
    assert archives.job("by-hand") == job
    archives.end(job, proof(oid(pg_database)), 0)
    archives.wait("by-hand", "Proven", Verified="True")


def test_a_failure_is_reported_counted_and_retried_later(archives: Archives, operator: Operator) -> None:
    archives.apply("by-hand")
    job = archives.job("by-hand")
    archives.end(job, DENIED, WRONG)
    failed = archives.wait("by-hand", "InsufficientPrivilege", Stalled="True", Archived="False", Verified="False")
    assert failed["status"]["lastError"]["message"] == DENIED["message"]
    assert failed["status"]["attempts"] == 1
    assert failed["status"]["nextAttempt"]
    assert [each["metadata"]["name"] for each in archives.jobs()] == [job]


@pytest.mark.parametrize(
    "changes",
    [{"oid": 1}, {"server": "1/1"}, {"sha256": ""}, {"manifestSha256": ""}, {"fingerprint": None}, {"location": ""}],
)
def test_a_report_that_is_not_of_this_table_or_not_whole_proves_nothing(
    archives: Archives, operator: Operator, pg_database: Database, changes: dict[str, object]
) -> None:
    archives.apply("by-hand")
    archives.end(archives.job("by-hand"), proof(oid(pg_database), **changes), 0)
    failed = archives.wait("by-hand", "NoReport", Archived="False", Verified="False")
    assert "manifestSha256" not in failed["status"]


def test_an_operator_that_was_killed_finds_what_ended_meanwhile(
    archives: Archives, site: Site, pg_database: Database
) -> None:
    with site.operator(JOB_IMAGE=IMAGE).serving() as first:
        archives.apply("by-hand")
        job = archives.job("by-hand")
        first.stop(signal.SIGKILL)
    archives.end(job, proof(oid(pg_database)), 0)
    with site.operator(JOB_IMAGE=IMAGE).serving():
        archives.wait("by-hand", "Proven", Verified="True")
    assert [each["metadata"]["name"] for each in archives.jobs()] == [job]


def test_two_operators_make_one_job(archives: Archives, site: Site, pg_database: Database) -> None:
    with site.operator(JOB_IMAGE=IMAGE).serving(), site.operator(JOB_IMAGE=IMAGE).serving():
        archives.apply("by-hand")
        archives.apply("other", partition="run_2019")
        jobs = {archives.job("by-hand"), archives.job("other")}
        assert {each["metadata"]["name"] for each in archives.jobs()} == jobs
        archives.end(archives.job("by-hand"), proof(oid(pg_database)), 0)
        archives.wait("by-hand", "Proven", Verified="True")
        assert {each["metadata"]["name"] for each in archives.jobs()} == jobs


def test_jobs_wait_for_one_another_and_go_with_their_archive(
    archives: Archives, operator: Operator, pg_database: Database
) -> None:
    archives.apply("first")
    job = archives.job("first")
    archives.apply("second", partition="run_2019")
    archives.wait("second", "Queued", Reconciling="True")
    archives.kubectl("delete", "parc", "first")
    until("its Job is gone", lambda: job not in [each["metadata"]["name"] for each in archives.jobs()])
    assert oid(pg_database)
    archives.job("second")


def test_a_recreated_table_is_not_taken_for_the_archived_one(
    archives: Archives, operator: Operator, pg_database: Database
) -> None:
    known = oid(pg_database)
    pg_database.execute(
        "DROP TABLE run_2020; CREATE TABLE run_2020 PARTITION OF run FOR VALUES FROM ('2020-01-01Z') TO ('2021-01-01Z')"
    )
    archives.apply("by-hand", oid=known)
    found = archives.wait("by-hand", "TableNotFound", Stalled="True", Archived="False")
    assert "run_2020" in conditions(found["status"])["Ready"]["message"]
    assert archives.jobs() == []


def test_a_table_that_was_renamed_is_found_by_its_oid(
    archives: Archives, operator: Operator, pg_database: Database
) -> None:
    known = oid(pg_database)
    pg_database.execute("ALTER TABLE run_2020 RENAME TO run_old")
    archives.apply("by-hand", oid=known)
    archives.job("by-hand")
    (job,) = archives.jobs()
    variables = job["spec"]["template"]["spec"]["containers"][0]["env"]
    (order,) = [each["value"] for each in variables if each["name"] == "PARTWARDEN_ORDER"]
    assert '"name":"run_old"' in order


def test_what_keeps_a_job_from_being_created_is_reported(archives: Archives, site: Site) -> None:
    with site.operator().serving():
        archives.apply("no-image")
        found = archives.wait("no-image", "InvalidSpec", Stalled="True")
        assert "PARTWARDEN_JOB_IMAGE" in conditions(found["status"])["Ready"]["message"]
    with site.operator(JOB_IMAGE=IMAGE).serving():
        archives.apply("no-secret", database={"secretRef": {"name": "gone"}})
        archives.wait("no-secret", "SecretNotFound", Stalled="True")
        archives.apply("no-policy", database=None, policy={"name": "gone"})
        found = archives.wait("no-policy", "InvalidSpec", Stalled="True")
        assert "PartitionPolicy 'gone' does not exist" in conditions(found["status"])["Ready"]["message"]
        archives.apply("no-table", partition="run_1999")
        archives.wait("no-table", "TableNotFound", Stalled="True")


def test_what_an_archive_is_of_cannot_be_changed(archives: Archives) -> None:
    archives.apply("by-hand")
    with pytest.raises(KubectlError, match="an archive is of one partition for ever"):
        archives.apply("by-hand", partition="run_2019")
