"""Jobs in pods archive to a real S3 server over TLS, with credentials that the operator never sees."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab import pod, report
from lab.archives import Archives
from lab.cluster import Cluster, Reporter
from lab.image import CLIENT_MAJOR
from lab.kubectl import Kubectl
from lab.operator import until
from lab.postgres import Server
from lab.s3 import S3Server
from lab.site import Site
from partwarden.archive.manifest import DATA, MANIFEST
from partwarden.cli.main import main
from support.archived import use_client
from support.places import PREFIX, destination, secret

ROWS = 5000
FILL = f"""
CREATE TABLE run (id bigint NOT NULL, at timestamptz NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE run_2020 PARTITION OF run FOR VALUES FROM ('2020-01-01 00:00:00+00') TO ('2021-01-01 00:00:00+00');
INSERT INTO run SELECT n, '2020-01-01 00:00:00+00'::timestamptz + n * interval '1 hour'
FROM generate_series(1, {ROWS}) AS n;
"""


def test_an_expired_partition_is_archived_to_s3_once_the_secret_is_right_and_is_restored(
    pods: Cluster,
    installed: Kubectl,
    operator_image: str,
    new_server: Callable[..., Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not pods.host_address:
        report.could_not_run("servers on this machine: no address is known at which pods reach it")
    server = new_server(CLIENT_MAJOR, listen=f"127.0.0.1,{pods.host_address}")
    with (
        S3Server.start(Reporter(), tls=True, host=pods.host_address) as s3,
        Site(pods, installed, tmp_path).open() as site,
        server.new_database() as database,
        site.operator(JOB_IMAGE=operator_image, JOB_RETRIES="1"),
    ):
        s3.make_bucket("archives")
        database.execute(FILL)
        installed("label", "namespace", site.namespace, pod.ENFORCED)
        site.secret("run", {"uri": server.dsn(database.name, host=pods.host_address, sslmode="disable")})
        wrong = {**secret(s3), "secretAccessKey": "wrong-wrong-wrong"}
        site.secret("storage", wrong)
        archive = destination(s3, "archives").model_dump(mode="json", by_alias=True, exclude_none=True)
        # This machine's pg_restore, which reads it below, was built without zstd.
        archive["compression"] = "Gzip"
        retention = {"keepFor": "1y", "onExpire": "Drop", "grace": "0s", "archive": archive}
        site.apply("run", {"premake": 0, "startFrom": f"{datetime.now(UTC).year}-01-01", "retention": retention})
        archives = Archives(site)

        def refused() -> str:
            made = archives.kubectl.get("parc")["items"]
            error = made[0].get("status", {}).get("lastError") if made else None
            return str(made[0]["metadata"]["name"]) if error and error["reason"] == "DestinationDenied" else ""

        name = until("the archive's last error is that the credentials were refused", refused, 240)
        message = archives.get(name)["status"]["lastError"]["message"]
        assert "the credentials were refused: SignatureDoesNotMatch" in message
        assert s3.secret_key not in message
        assert s3.objects("archives") == []
        assert database.query("SELECT count(*) FROM run_2020") == [(ROWS,)]

        site.secret("storage", secret(s3))
        # The retry would come in a minute; deleting the archive lets the policy create it again at once.
        archives.kubectl("delete", "parc", name)
        gone = "SELECT to_regclass('run_2020') IS NULL"
        until("run_2020 is dropped", lambda: database.query(gone) == [(True,)], 400)
        status = archives.get(name)["status"]
        assert (status["rows"], status["check"]["ok"]) == (ROWS, True)
        assert status["location"].startswith(f"s3://archives/{PREFIX}/{database.name}/public.run/run_2020/")
        assert [each.rpartition("/")[2] for each in s3.objects("archives")] == [DATA, MANIFEST]

        use_client(monkeypatch)
        for key, value in {
            "AWS_ACCESS_KEY_ID": s3.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.secret_key,
            "AWS_ENDPOINT_URL": s3.endpoint,
            "AWS_CA_BUNDLE": str(s3.ca),
        }.items():
            monkeypatch.setenv(key, value)
        listed = CliRunner().invoke(main, ["restore", "--list", "--manifest", f"s3://archives/{PREFIX}"])
        assert listed.stdout.startswith(f"{status['location']}\n"), listed.output
        proven = CliRunner().invoke(main, ["verify", status["location"]])
        assert proven.exit_code == 0, proven.output
        arguments = ["--manifest", status["location"], "--dsn", database.dsn, "--as", "public.again"]
        restored = CliRunner().invoke(main, ["restore", *arguments])
        assert restored.exit_code == 0, restored.output
        assert database.query("SELECT count(*), sum(id) FROM again") == [(ROWS, ROWS * (ROWS + 1) // 2)]
