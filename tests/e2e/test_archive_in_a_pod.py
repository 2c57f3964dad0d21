"""`partwarden archive` in pods of the operator's image: from PostgreSQL over the pods' network to a claim, and back."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from lab import jobs, pod, report, volume
from lab.archives import Archives
from lab.cluster import Cluster
from lab.image import CLIENT_MAJOR
from lab.kubectl import Kubectl
from lab.operator import until
from lab.postgres import MAJORS, Database, Server
from lab.proxy import Proxy
from lab.site import Site, conditions
from partwarden.api.destination import PVC, Destination
from partwarden.archive.job_order import JobSpec, Report, Task
from partwarden.archive.manifest import TableName
from partwarden.cli.main import main
from partwarden.controller import archive_job
from partwarden.controller.job_status import JobView, Phase
from partwarden.controller.settings import Settings

ROWS = 5000
FILL = f"""
CREATE TABLE run (id bigint NOT NULL, at timestamptz NOT NULL, payload jsonb) PARTITION BY RANGE (at);
CREATE TABLE run_2020 PARTITION OF run FOR VALUES FROM ('2020-01-01 00:00:00+00') TO ('2021-01-01 00:00:00+00');
INSERT INTO run SELECT n, '2020-01-01 00:00:00+00'::timestamptz + n * interval '1 hour', jsonb_build_object('n', n)
FROM generate_series(1, {ROWS}) AS n;
"""
SPOIL = """
import pathlib
(data,) = pathlib.Path("/archives").rglob("data.dump")
data.chmod(0o600)
content = bytearray(data.read_bytes())
content[len(content) // 2] ^= 1
data.write_bytes(content)
"""
LIST = "import pathlib; print(sorted(path.name for path in pathlib.Path('/archives').rglob('*') if path.is_file()))"


BOTH = "['data.dump', 'manifest.json']\n"


@dataclass(frozen=True)
class Stand:
    """A database that pods reach, and a namespace with its Secret and a claim."""

    kubectl: Kubectl
    image: str
    database: Database
    host: str
    """This machine, as pods see it."""

    def order(self, task: Task = Task.ARCHIVE, proven: Report | None = None) -> JobSpec:
        """For run_2020."""
        found = self.database.query("SELECT 'run'::regclass::oid::int, 'run_2020'::regclass::oid::int")
        parent, partition = (int(str(oid)) for oid in found[0])
        return JobSpec(
            task=task,
            id="a1",
            parent=TableName(schema_="public", name="run", oid=parent),
            partition=TableName(schema_="public", name="run_2020", oid=partition),
            destination=Destination(pvc=PVC(claim_name=jobs.CLAIM)),
            location=proven.location if proven else "",
            sha256=proven.sha256 if proven else "",
            manifest_sha256=proven.manifest_sha256 if proven else "",
        )

    def run(self, order: JobSpec, serial: str, **environment: str) -> JobView:
        """One Job, until it has ended."""
        owner = archive_job.Owner(self.kubectl.namespace or "", "run-2020", "4711")
        settings = Settings(job_image=self.image, job_retries=0, job_env=environment)
        # As the operator makes them: what reads the archive alone gets no Secret of a database.
        secret = None if order.task in (Task.VERIFY, Task.EXPIRE) else "run-db"
        made = archive_job.manifest(owner, order, serial, settings=settings, database_secret=secret)
        # No such PartitionArchive exists, and objects without an owner are garbage collected.
        del made["metadata"]["ownerReferences"]
        self.kubectl.apply(made)
        return jobs.ended(self.kubectl, str(made["metadata"]["name"]))


@pytest.fixture
def stand(
    pods: Cluster, restricted: Kubectl, operator_image: str, claim: str, new_server: Callable[..., Server]
) -> Callable[[int], Stand]:
    """Makes one, on a server of a major."""

    def make(major: int) -> Stand:
        server = _server(pods, new_server, major)
        database = server.new_database()
        database.execute(FILL)
        uri = server.dsn(database.name, host=pods.host_address, sslmode="disable")
        restricted("create", "secret", "generic", "run-db", f"--from-literal=uri={uri}")
        return Stand(restricted, operator_image, database, pods.host_address)

    return make


def _server(pods: Cluster, new_server: Callable[..., Server], major: int) -> Server:
    if not pods.host_address:
        report.could_not_run("PostgreSQL on this machine: no address is known at which pods reach it")
    return new_server(major, listen=f"127.0.0.1,{pods.host_address}")


def test_a_partition_is_archived_proven_checked_brought_back_and_deleted(stand: Callable[[int], Stand]) -> None:
    here = stand(CLIENT_MAJOR)
    first = here.run(here.order(), "1")
    assert first.phase is Phase.COMPLETE, first
    proven = first.report
    assert proven
    assert (proven.ok, proven.rows, proven.id) == (True, ROWS, "a1")
    assert pod.python(here.kubectl, here.image, LIST, claim=jobs.CLAIM).said == BOTH

    again = here.run(here.order(), "2")
    assert again.report
    assert (again.report.sha256, again.report.manifest_sha256) == (proven.sha256, proven.manifest_sha256)

    checked = here.run(here.order(Task.CHECK, proven), "3")
    assert checked.report
    assert checked.report.fingerprint == proven.fingerprint

    assert proven.location in listed(here, proven.location)

    folder = proven.location.replace(f"pvc://{jobs.CLAIM}", "/archives")
    dsn = here.database.server.dsn(here.database.name, host=here.host)
    arguments = ("restore", "--manifest", folder, "--dsn", dsn, "--as", "public.again")
    restored = pod.run(here.kubectl, here.image, *arguments, claim=jobs.CLAIM)
    assert restored.code == 0, restored.said
    differing = "SELECT count(*) FROM (TABLE run_2020 EXCEPT ALL TABLE again) AS x"
    assert here.database.query(f"SELECT count(*), ({differing}) FROM again") == [(ROWS, 0)]

    read = here.run(here.order(Task.VERIFY, proven), "4")
    assert read.phase is Phase.COMPLETE, read
    assert read.report
    assert (read.report.ok, read.report.manifest_sha256) == (True, proven.manifest_sha256)

    assert pod.python(here.kubectl, here.image, SPOIL, claim=jobs.CLAIM).code == 0
    spoilt = here.run(here.order(Task.CHECK, proven), "5")
    assert spoilt.phase is Phase.FAILED, spoilt
    assert spoilt.reason in ("ArchiveDamaged", "DumpFailed", "ProofFailed"), spoilt
    assert here.database.query("SELECT count(*) FROM run_2020") == [(ROWS,)]

    # Spoilt twice it is what it was.
    assert pod.python(here.kubectl, here.image, SPOIL, claim=jobs.CLAIM).code == 0
    deleted = here.run(here.order(Task.EXPIRE, proven), "6")
    assert deleted.phase is Phase.COMPLETE, deleted
    assert deleted.report
    assert (deleted.report.ok, deleted.report.location) == (True, proven.location)
    assert pod.python(here.kubectl, here.image, LIST, claim=jobs.CLAIM).said == "[]\n"


def listed(here: Stand, location: str) -> str:
    """The output of the command that the message gives for reading an archive on a claim; its folder there
    is said as the location."""
    done = CliRunner().invoke(main, ["restore", "--manifest", location, "--list"])
    (typed,) = [line for line in done.stderr.splitlines() if line.startswith("  kubectl run ")]
    said = here.kubectl(*shlex.split(typed.replace("--image=IMAGE", f"--image={here.image}"))[1:])
    return said.replace("file:///archives", f"pvc://{jobs.CLAIM}")


OLDER = """
import pathlib
folder = pathlib.Path("/archives/older")
folder.mkdir()
for name in ("pg_dump", "pg_restore"):
    (folder / name).write_text(f"#!/bin/sh\\necho '{name} (PostgreSQL) 13.4'\\n")
    (folder / name).chmod(0o755)
"""


def test_a_server_newer_than_the_images_pg_dump_is_named_as_that(stand: Callable[[int], Stand]) -> None:
    here = stand(MAJORS[0])
    assert pod.python(here.kubectl, here.image, OLDER, claim=jobs.CLAIM).code == 0
    failed = here.run(here.order(), "1", PARTWARDEN_PG_BIN="/archives/older")
    assert failed.phase is Phase.FAILED
    assert failed.reason == "ClientTooOld"
    assert f"pg_dump 13.4 is older than the server, {MAJORS[0]}." in failed.message
    assert pod.python(here.kubectl, here.image, LIST, claim=jobs.CLAIM).said == "['pg_dump', 'pg_restore']\n"


LARGE = """
UPDATE run_2020 SET payload = jsonb_build_object('n', id, 'text', repeat(md5(id::text), 128));
ANALYZE run_2020;
"""
"""20 MiB in COPY, and a hundredth of that on the disk."""
HELD = 4 << 20
"""Bytes that come through of a connection before its server waits: with what sockets hold, a part of that dump."""


@contextmanager
def held_up(pods: Cluster, database: Database) -> Iterator[tuple[Proxy, str]]:
    """A way to the server on which it has to wait until that is released, and the URI of the database by it."""
    server = database.server
    with Proxy(server.host, server.port, listen=pods.host_address) as way:
        way.hold(HELD)
        uri = server.dsn(database.name, host=pods.host_address, sslmode="disable")
        yield way, uri.replace(f":{server.port}/", f":{way.port}/")


def test_a_partition_archive_by_hand_of_the_oldest_server_says_how_far_it_is_is_proven_and_outlives_its_job(
    pods: Cluster, installed: Kubectl, operator_image: str, new_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = _server(pods, new_server, MAJORS[0])
    with (
        Site(pods, installed, tmp_path).open() as site,
        volume.claimed(pods, operator_image, jobs.CLAIM, site.namespace),
        server.new_database() as database,
        held_up(pods, database) as (way, uri),
        site.operator(JOB_IMAGE=operator_image),
    ):
        database.execute(FILL + LARGE)
        installed("label", "namespace", site.namespace, pod.ENFORCED)
        site.secret("run", {"uri": uri})
        archives = Archives(site)
        archives.apply("by-hand", destination={"pvc": {"claimName": jobs.CLAIM}}, job=None)
        shown = re.compile("^by-hand +run_2020 +Dumping [1-9][05]?% ", re.MULTILINE)
        until("its percentage is shown", lambda: shown.search(archives.kubectl("get", "parc", "by-hand")), 120)
        way.release()
        status = archives.wait("by-hand", Ready="True", Archived="True", Verified="True")["status"]
        assert " Verified " in archives.kubectl("get", "parc", "by-hand")
        assert (status["rows"], status["fingerprint"]["rows"]) == (ROWS, ROWS)
        assert status["location"].startswith(f"pvc://{jobs.CLAIM}/{database.name}/public.run/run_2020/")
        assert len(archives.jobs()) == 1
        archives.kubectl("delete", "parc", "by-hand")
        until("the Job is gone", lambda: not archives.jobs())
        # Nothing is removed at the destination, and nothing was left in the database.
        assert pod.python(archives.kubectl, operator_image, LIST, claim=jobs.CLAIM).said == BOTH
        assert database.query("SELECT count(*) FROM run_2020") == [(ROWS,)]


FETCH = """
import base64, pathlib
(data,) = pathlib.Path("/archives").rglob("data.parquet")
print(base64.b64encode(data.read_bytes()).decode())
"""
COLUMNS = "SELECT id, (extract(epoch FROM at) * 1000000)::bigint, payload::text FROM {} ORDER BY id"
IN_DUCKDB = """SELECT id, epoch_us("at"), payload FROM read_parquet('{}') ORDER BY id"""


def test_an_expired_partition_is_archived_with_parquet_detached_read_again_and_dropped(
    pods: Cluster,
    installed: Kubectl,
    operator_image: str,
    parquet_image: str,
    new_server: Callable[..., Server],
    tmp_path: Path,
) -> None:
    server = _server(pods, new_server, CLIENT_MAJOR)
    with (
        Site(pods, installed, tmp_path).open() as site,
        volume.claimed(pods, operator_image, jobs.CLAIM, site.namespace),
        server.new_database() as database,
    ):
        database.execute(FILL)
        rows = database.query(COLUMNS.format("run_2020"))
        installed("label", "namespace", site.namespace, pod.ENFORCED)
        site.secret("run", {"uri": server.dsn(database.name, host=pods.host_address, sslmode="disable")})
        archive = {"pvc": {"claimName": jobs.CLAIM}, "formats": ["Dump", "Parquet"]}
        retention = {"keepFor": "1y", "onExpire": "Drop", "grace": "0s", "archive": archive}
        archives = Archives(site)
        with site.operator(JOB_IMAGE=operator_image):
            # This image has no pyarrow.
            site.apply("run", {"premake": 0, "startFrom": f"{datetime.now(UTC).year}-01-01", "retention": retention})
            healthy = site.wait(ArchivesHealthy="False", Ready="True")["status"]
            assert conditions(healthy)["ArchivesHealthy"]["reason"] == "ParquetUnavailable"
            (waits,) = archives.kubectl.get("parc")["items"]
            archives.wait(waits["metadata"]["name"], Stalled="True")
            assert archives.jobs() == []
        with site.operator(JOB_IMAGE=parquet_image, JOB_PARQUET="true"):
            gone = "SELECT to_regclass('run_2020') IS NULL"
            until("run_2020 is dropped", lambda: database.query(gone) == [(True,)], 240)
            site.wait(ArchivesHealthy="True")
        (made,) = archives.kubectl.get("parc")["items"]
        assert made["metadata"]["uid"] == waits["metadata"]["uid"]
        assert (made["status"]["rows"], made["status"]["formats"]) == (ROWS, ["Dump", "Parquet"])
        assert made["status"]["check"]["ok"] is True
        fetched = pod.python(archives.kubectl, operator_image, FETCH, claim=jobs.CLAIM)
        assert fetched.code == 0, fetched.said
        copy = tmp_path / "data.parquet"
        copy.write_bytes(base64.b64decode(fetched.said))
        assert copy.stat().st_size == made["status"]["parquetBytes"]
        with duckdb.connect() as connection:
            assert connection.execute(IN_DUCKDB.format(copy)).fetchall() == rows
        folder = made["status"]["location"].replace(f"pvc://{jobs.CLAIM}", "/archives")
        dsn = server.dsn(database.name, host=pods.host_address)
        arguments = ("restore", "--manifest", folder, "--dsn", dsn, "--as", "public.again")
        restored = pod.run(archives.kubectl, operator_image, *arguments, claim=jobs.CLAIM)
        assert restored.code == 0, restored.said
        assert database.query("SELECT count(*), sum(id) FROM again") == [(ROWS, ROWS * (ROWS + 1) // 2)]
