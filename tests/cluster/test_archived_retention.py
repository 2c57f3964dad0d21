"""Retention with archives: requested archives and checks, what the policy waits for, and its conditions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from lab.archives import IMAGE, NOWHERE, S3, Archives, proof
from lab.operator import until
from lab.postgres import Database
from lab.site import Site, conditions, partitions
from partwarden import __version__
from partwarden.archive.job_order import WRONG
from partwarden.postgres import fingerprint
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn

YEAR = datetime.now(UTC).year
OLD = f"run_{YEAR - 3}"
TABLE = f"""
CREATE TABLE run (id bigint NOT NULL, at timestamptz NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE {OLD} PARTITION OF run FOR VALUES FROM ('{YEAR - 3}-01-01Z') TO ('{YEAR - 2}-01-01Z');
INSERT INTO run SELECT number, '{YEAR - 3}-05-05Z' FROM generate_series(1, 3) number;
"""
RETENTION: dict[str, Any] = {
    "keepFor": "1y",
    "onExpire": "Drop",
    "grace": "0s",
    "archive": S3,
    "job": {"nodeSelector": NOWHERE},
}
CHANGED = {"ok": False, "reason": "ContentsChanged", "message": "the table holds something else"}


class Retired:
    """A policy, the archives that are made for it, and their Jobs, whose ends the test reports."""

    def __init__(self, site: Site, database: Database) -> None:
        self.site, self.database, self.archives = site, database, Archives(site)
        self.policy = ("ppol/run", "--namespace", site.namespace)
        ((self.oid,),) = database.query(f"SELECT '{OLD}'::regclass::oid::int8")

    def begin(self, **retention: Any) -> None:
        """The policy, reconciled once an hour unless something happens."""
        spec: dict[str, Any] = {
            "premake": 0,
            "resync": "1h",
            "startFrom": f"{YEAR}-01-01",
            "retention": {**RETENTION, **retention},
        }
        self.site.watch_over(self.database, **spec)

    def names(self) -> list[str]:
        """Of all archives, oldest first."""
        found: list[dict[str, Any]] = self.archives.kubectl.get("parc")["items"]
        found.sort(key=lambda each: str(each["metadata"]["creationTimestamp"]))
        return [str(each["metadata"]["name"]) for each in found]

    def made(self, *before: str) -> str:
        """The archive that there is beside those."""

        def news() -> str:
            return next((name for name in self.names() if name not in before), "")

        return until("another archive", news)

    def proof(self) -> dict[str, Any]:
        """The report of a Job that archived the present contents of the table."""
        with session(from_dsn(self.database.dsn)) as connection:
            taken = fingerprint.take(connection, "public", OLD)
        assert isinstance(self.oid, int)
        return proof(self.oid, fingerprint=taken.model_dump(by_alias=True))

    def end(self, name: str, report: dict[str, Any], after: str = "", code: int = 0) -> str:
        """The Job of the archive that comes after another one ends so; its name."""
        job = self.archives.job(name, after)
        self.archives.end(job, report, code)
        return job

    def says(self, reason: str, status: str = "True") -> dict[str, Any]:
        """ArchivesHealthy, once its reason is this one."""

        def met() -> dict[str, Any] | None:
            found = conditions(self.site.policy().get("status", {})).get("ArchivesHealthy", {})
            return found if (found.get("status"), found.get("reason")) == (status, reason) else None

        return until(f"ArchivesHealthy is {status} for {reason}", met)

    def rows(self) -> int | None:
        """Of the old table; None where there is none."""
        try:
            ((count,),) = self.database.query(f"SELECT count(*) FROM {OLD}")
        except psycopg.errors.UndefinedTable:
            return None
        return int(str(count))


@pytest.fixture
def retired(site: Site, pg_database: Database) -> Retired:
    """No operator runs yet."""
    pg_database.execute(TABLE)
    return Retired(site, pg_database)


def test_an_expired_partition_is_archived_proven_detached_approved_checked_and_dropped(retired: Retired) -> None:
    site, old = retired.site, [OLD, f"run_{YEAR}"]
    with site.operator(JOB_IMAGE=IMAGE).serving():
        retired.begin(approval="Manual")
        name = retired.made()
        assert OLD in retired.says("Archiving")["message"]
        spec = retired.archives.get(name)["spec"]
        assert (spec["policy"], spec["partition"], spec["oid"]) == ({"name": "run"}, OLD, retired.oid)
        assert spec["database"] == {"secretRef": {"name": "run"}}
        assert spec["job"]["nodeSelector"] == NOWHERE
        assert partitions(retired.database) == old
        first = retired.end(name, retired.proof())
        condition = retired.says("WaitsForApproval")
        assert partitions(retired.database) == old[1:]
        assert OLD in condition["message"]
        assert "partwarden.dev/approve-drop" in condition["message"]
    # Another operator finds all of that in the cluster again.
    with site.operator(JOB_IMAGE=IMAGE).serving():
        site.kubectl("annotate", *retired.policy, f"partwarden.dev/approve-drop={OLD}")
        last = retired.archives.job(name, first)
        assert retired.rows() == 3
        assert retired.end(name, retired.proof(), first) == last
        retired.says("NothingWaits")
        assert retired.rows() is None
        assert retired.names() == [name]
        found = retired.archives.get(name)
        assert found["status"]["rows"] == 3
        dropped = found["status"]["dropped"]
        assert abs(datetime.now(UTC) - datetime.fromisoformat(dropped.pop("at"))) < timedelta(minutes=5)
        assert dropped == {"approval": OLD, "operator": __version__}
        assert found["metadata"]["labels"]["partwarden.dev/table"] == "public.run"
        for selector in (
            ("--field-selector", f"spec.partition={OLD},spec.policy.name=run"),
            ("--selector", "partwarden.dev/policy=run,partwarden.dev/table=public.run"),
        ):
            lines = retired.archives.kubectl("get", "parc", *selector).splitlines()
            assert lines[0].split() == ["NAME", "PARTITION", "STATE", "ROWS", "SIZE", "DROPPED", "AGE"]
            (line,) = [each.split() for each in lines[1:]]
            assert line[:3] == [name, OLD, "Verified"]
            # How long ago, as AGE is.
            assert all(each[0].isdigit() for each in line[5:])
            assert len(line) == 7
        nothing = ("--field-selector", "spec.partition=run_1999", "--output", "name")
        assert retired.archives.kubectl("get", "parc", *nothing) == ""
    reasons = site.events()
    assert "Normal PartitionDetached" in reasons
    assert reasons.count("Normal WaitsForApproval") == 1
    assert reasons[-1] == "Normal PartitionDropped"
    assert site.event_objects()[-1].message == f"dropped table {OLD} (PartitionArchive {name})"


def test_a_drop_that_was_not_written_down_is_seen_by_the_next_operator(retired: Retired) -> None:
    site = retired.site
    with site.operator(JOB_IMAGE=IMAGE).serving():
        retired.begin(grace="1h")
        name = retired.made()
        retired.end(name, retired.proof())
        until("it is detached", lambda: OLD not in partitions(retired.database))
    # As after a drop whose operator was killed before it could write.
    retired.database.execute(f"DROP TABLE {OLD}")
    with site.operator(JOB_IMAGE=IMAGE).serving():
        dropped = until("it is seen", lambda: retired.archives.get(name)["status"].get("dropped"))
        assert dropped.keys() == {"at", "observed"}
        assert dropped["observed"] is True
        site.kubectl("annotate", *retired.policy, "partwarden.dev/hold=run_1999")
        until("it is reconciled again", lambda: "Warning HoldMatchesNothing" in site.events())
        status = retired.archives.get(name)["status"]
        assert (status["dropped"], status["state"], status["rows"]) == (dropped, "Verified", 3)


def test_a_table_that_was_changed_is_archived_again_and_a_damaged_archive_keeps_it(retired: Retired) -> None:
    with retired.site.operator(JOB_IMAGE=IMAGE).serving():
        retired.begin()
        name = retired.made()
        first = retired.end(name, retired.proof())
        retired.archives.job(name, first)
        retired.database.execute(f"DELETE FROM {OLD} WHERE id = 1")
        retired.end(name, CHANGED, first, WRONG)
        again = retired.made(name)
        assert retired.rows() == 2
        second = retired.end(again, retired.proof())
        retired.end(again, {"ok": False, "reason": "ArchiveDamaged", "message": "one byte is another"}, second, WRONG)
        said = retired.says("ArchiveDamaged", "False")
        assert said["message"].startswith(f"{OLD} stays: archive {again}: ")
        until("the Event", lambda: "Warning ArchiveDamaged" in retired.site.events())
        assert retired.archives.get(again)["status"]["state"] == "Failed"
        assert sorted(retired.names()) == sorted([name, again])
        assert retired.rows() == 2


def test_a_row_that_comes_after_the_last_reading_keeps_the_table(retired: Retired) -> None:
    with retired.site.operator(JOB_IMAGE=IMAGE).serving():
        retired.begin()
        name = retired.made()
        held = retired.proof()
        first = retired.end(name, held)
        retired.archives.job(name, first)
        # The check has read the table by then: its report is of before.
        retired.database.execute(f"INSERT INTO {OLD} VALUES (4, '{YEAR - 3}-06-06Z')")
        retired.end(name, held, first)
        retired.says("ContentsChanged", "False")
        assert retired.rows() == 4


def test_the_policy_reports_what_keeps_a_job_from_starting_until_it_starts(retired: Retired) -> None:
    with retired.site.operator(JOB_IMAGE=IMAGE).serving():
        retired.begin()
        name = retired.made()
        job = retired.archives.job(name)
        retired.archives.play(job, {"waiting": {"reason": "ErrImagePull"}})
        said = retired.says("ImagePullBackOff", "False")
        assert said["message"].startswith(f"{OLD} stays: archive {name}: ")
        assert retired.end(name, retired.proof()) == job
        retired.archives.wait(name, "Proven", Verified="True")
        retired.says("CheckingArchives")


def test_two_operators_archive_it_once_and_neither_drops_what_its_archive_does_not_hold(retired: Retired) -> None:
    site = retired.site
    with site.operator(JOB_IMAGE=IMAGE).serving() as one, site.operator(JOB_IMAGE=IMAGE).serving() as other:
        retired.begin()
        name = retired.made()
        held = retired.proof()
        first = retired.end(name, held)
        last = retired.archives.job(name, first)
        assert {each["metadata"]["name"] for each in retired.archives.jobs()} == {first, last}
        retired.database.execute(f"INSERT INTO {OLD} VALUES (4, '{YEAR - 3}-06-06Z')")
        # The check had read the table before that: its report is of the earlier contents.
        retired.end(name, held, first)
        after = retired.archives.job(name, last)
        retired.end(name, CHANGED, last, WRONG)
        again = retired.made(name)
        assert retired.rows() == 4
        new = retired.proof()
        job = ""
        for _ in range(2):
            job = retired.end(again, new, job)
        until("it is dropped", lambda: retired.rows() is None)
        mine = {each["metadata"]["name"] for each in retired.archives.jobs()}
        assert {first, last, after} < mine
        assert len(mine) == 5
        assert sorted(retired.names()) == sorted([name, again])
        assert not [line for line in [*one.lines(), *other.lines()] if "traceback" in line]


@pytest.fixture
def twin(retired: Retired) -> Iterator[Database]:
    """The new database: its table has the same name and OID, and one row more."""
    made = Database(retired.database.server, f"{retired.database.name}_twin")
    with psycopg.connect(retired.database.server.dsn(), autocommit=True) as connection:
        copy = psycopg.sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        names = (psycopg.sql.Identifier(each) for each in (made.name, retired.database.name))
        connection.execute(copy.format(*names))
    with made:
        made.execute(f"INSERT INTO {OLD} VALUES (4, '{YEAR - 3}-06-06Z')")
        assert made.query(f"SELECT '{OLD}'::regclass::oid::int8") == [(retired.oid,)]
        yield made


def test_after_a_move_to_another_database_nothing_that_was_proven_before_counts(
    retired: Retired, twin: Database
) -> None:
    site, both = retired.site, [OLD, f"run_{YEAR}"]
    with site.operator(JOB_IMAGE=IMAGE).serving():
        retired.begin(onExpire="Detach")
        name = retired.made()
        retired.end(name, retired.proof())
        retired.says("CheckingArchives")
        assert OLD not in partitions(retired.database)
        labels = retired.archives.get(name)["metadata"]["labels"]
        assert labels["partwarden.dev/oid"] == str(retired.oid)
    site.secret("run", {"uri": twin.dsn})
    with site.operator(JOB_IMAGE=IMAGE).serving():
        other = retired.made(name)
        assert OLD in retired.says("Archiving")["message"]
        assert partitions(twin) == both
        found = retired.archives.get(other)
        assert found["spec"]["oid"] == retired.oid
        assert found["metadata"]["labels"]["partwarden.dev/server"] != labels["partwarden.dev/server"]
        # A report about the former server says nothing about this one.
        was = retired.archives.get(name)["status"]["server"]
        job = retired.end(other, {**retired.proof(), "server": was})
        retired.archives.ended(job)
        retired.archives.wait(other, "NoReport")
        assert partitions(twin) == both
        assert twin.query(f"SELECT count(*) FROM {OLD}") == [(4,)]


def test_an_archive_that_was_asked_for_on_another_database_is_not_made_of_this_one(
    retired: Retired, twin: Database
) -> None:
    site = retired.site
    with site.operator().serving():
        retired.begin()
        name = retired.made()
        retired.archives.wait(name, "InvalidSpec")
    site.secret("run", {"uri": twin.dsn})
    with site.operator(JOB_IMAGE=IMAGE).serving():
        other = retired.made(name)
        reported = retired.archives.wait(name, "TableChanged")["status"]
        assert "that was on another server" in reported["lastError"]["message"]
        assert "job" not in reported
        retired.archives.job(other)
        assert len(retired.archives.jobs()) == 1
