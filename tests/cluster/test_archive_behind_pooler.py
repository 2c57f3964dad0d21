"""With a pooler that shares sessions, partitions are managed, and archives wait until the policy names the server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import report
from lab.archives import IMAGE, NOWHERE, PARTITION, S3, Archives
from lab.operator import until
from lab.pgbouncer import PgBouncer
from lab.postgres import Database, LabError
from lab.site import Site


@pytest.fixture
def pooler(pg_database: Database) -> Iterator[PgBouncer]:
    """One in transaction mode, as CloudNativePG's and Zalando's are."""
    try:
        started = PgBouncer.start(pg_database.server, "transaction")
    except LabError as error:
        report.could_not_run(f"PgBouncer: {error}")
    with started:
        yield started


def test_no_job_is_made_until_the_policy_names_the_server_itself(
    site: Site, pg_database: Database, pooler: PgBouncer
) -> None:
    pg_database.execute(PARTITION)
    archives = Archives(site)
    site.secret("run", {"uri": pooler.dsn(pg_database.name)})
    retention = {"keepFor": "3y", "archive": S3, "job": {"nodeSelector": NOWHERE}}
    with site.operator(JOB_IMAGE=IMAGE).serving():
        site.apply("run", {"retention": retention})
        until("archives are asked for", lambda: len(archives.kubectl.get("parc")["items"]) == 2)
        made = sorted(each["metadata"]["name"] for each in archives.kubectl.get("parc")["items"])
        for each in made:
            refused = archives.wait(each, "BehindPooler", Ready="False", Stalled="True")
            assert "set spec.database.archive.host" in refused["status"]["lastError"]["message"]
        assert archives.jobs() == []
        site.wait(DatabaseReachable="True", PartitionsAhead="True")

        server = pg_database.server
        direct = {"secretRef": {"name": "run"}, "archive": {"host": server.host, "port": server.port}}
        site.apply("run", {"retention": retention, "database": direct})
        for each in made:
            archives.job(each)
    # The same archives through a direct connection.
    assert sorted(each["metadata"]["name"] for each in archives.kubectl.get("parc")["items"]) == made
    variables = archives.jobs()[0]["spec"]["template"]["spec"]["containers"][0]["env"]
    (order,) = [each["value"] for each in variables if each["name"] == "PARTWARDEN_ORDER"]
    assert f'"port":{server.port}' in order
