"""PartitionArchives of a site whose Jobs' pods run on no node: tests write the end of each as kubelet would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.jobs import pods_of, seen
from lab.kubectl import Kubectl
from lab.operator import until
from lab.postgres import Database
from lab.site import GROUP, VERSION, Site, conditions
from partwarden.api.archive import CONTAINER, Fingerprint
from partwarden.archive.job_order import VARIABLE, JobSpec, Report
from partwarden.controller.job_status import Phase

IMAGE = "partwarden.invalid/partwarden:none"
NOWHERE = {"partwarden.dev/no-such-node": "true"}
S3 = {"s3": {"url": "s3://archives/runs", "secretRef": {"name": "storage"}}}
PARTITION = """
CREATE TABLE run (id bigint NOT NULL, at timestamptz NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE run_2019 PARTITION OF run FOR VALUES FROM ('2019-01-01Z') TO ('2020-01-01Z');
CREATE TABLE run_2020 PARTITION OF run FOR VALUES FROM ('2020-01-01Z') TO ('2021-01-01Z');
"""


class Archives:
    """Those of the site's first namespace."""

    def __init__(self, site: Site) -> None:
        self.site, self.kubectl = site, Kubectl(site.kubectl.kubeconfig, site.kubectl.environment, site.namespace)

    def apply(self, name: str, partition: str = "run_2020", **spec: Any) -> None:
        """Apply an archive by hand, with the Secret ``run``."""
        whole = {
            "database": {"secretRef": {"name": "run"}},
            "partition": partition,
            "destination": S3,
            "job": {"nodeSelector": NOWHERE},
            **spec,
        }
        self.kubectl.apply(
            {
                "apiVersion": f"{GROUP}/{VERSION}",
                "kind": "PartitionArchive",
                "metadata": {"name": name},
                "spec": {key: value for key, value in whole.items() if value is not None},
            }
        )

    def apply_restore(self, name: str, spec: Mapping[str, Any]) -> None:
        """Apply a PartitionRestore."""
        kind = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "PartitionRestore"}
        given = {key: value for key, value in spec.items() if value is not None}
        self.kubectl.apply({**kind, "metadata": {"name": name}, "spec": given})

    def get(self, name: str) -> dict[str, Any]:
        """The object."""
        return dict(self.kubectl.get("parc", name))

    def jobs(self) -> list[dict[str, Any]]:
        """All Jobs, oldest first."""
        found: list[dict[str, Any]] = self.kubectl.get("jobs")["items"]
        return sorted(found, key=lambda each: int(each["metadata"]["resourceVersion"]))

    def wait(self, name: str, reason: str = "", **wanted: str) -> dict[str, Any]:
        """The archive, once its conditions are as wanted, and Ready's reason is ``reason``."""
        last: dict[str, Any] = {}

        def met() -> dict[str, Any] | None:
            last.update(self.get(name))
            found = conditions(last.get("status", {}))
            right = all(found.get(kind, {}).get("status") == value for kind, value in wanted.items())
            return last if right and reason in ("", found.get("Ready", {}).get("reason")) else None

        try:
            return until(f"archive {name} is {wanted} {reason}", met)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {last.get('status')}") from None

    def job(self, name: str, other_than: str = "") -> str:
        """The Job that works on the archive, once it has a pod."""

        last: dict[str, Any] = {}

        def made() -> str | None:
            last.update(self.get(name).get("status", {}))
            job = last.get("job")
            return str(job) if job and job != other_than and pods_of(self.kubectl, job) else None

        try:
            return until(f"a Job for archive {name}", made)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {last}\n{self.kubectl('get', 'jobs,pods')}") from None

    def ended(self, job: str) -> None:
        """Wait until the Job has ended."""
        until(f"job {job} has ended", lambda: seen(self.kubectl, job).phase is not Phase.RUNNING)

    def end(self, job: str, report: Mapping[str, Any] | None, code: int, reason: str = "") -> None:
        """Write the end of the Job's pod; ``reason`` is kubelet's, such as OOMKilled.

        A report that is ok names the server that the Job's spec names, unless it says another.
        """
        if report is not None and report.get("ok"):
            report = {**report, "server": report.get("server") or self.order(job).server}
        self._end(job, report, code, reason)

    def _end(self, job: str, report: Mapping[str, Any] | None, code: int, reason: str = "") -> None:
        terminated: dict[str, Any] = {
            "exitCode": code,
            "reason": reason or ("Error" if code else "Completed"),
            "startedAt": "2026-01-01T00:00:00Z",
            "finishedAt": "2026-01-01T00:00:01Z",
        }
        if report is not None:
            terminated["message"] = json.dumps(report)
        self.play(job, {"terminated": terminated}, phase="Failed" if code else "Succeeded")

    def run_program(self, job: str, database: Database, folder: Path) -> tuple[int, dict[str, Any]]:
        """Do what the pod of the Job does, with the claim in a folder. Returns its exit code and its report."""
        (container,) = self.kubectl.get("job", job)["spec"]["template"]["spec"]["containers"]
        values = {each["name"]: each["value"] for each in container["env"] if "value" in each}
        asked = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each}
        assert asked.get("PARTWARDEN_DB_uri") in (None, {"name": "run", "key": "uri", "optional": True})
        order = {**json.loads(values[VARIABLE]), "mount": str(folder)}
        # A Job without the Secret of the database reaches none.
        secret = {"PARTWARDEN_DB_uri": database.dsn} if "PARTWARDEN_DB_uri" in asked else {}
        report = folder / "report.json"
        done = subprocess.run(
            [sys.executable, "-m", "partwarden", *container["args"][:1], "--report", str(report)],
            env={**os.environ, VARIABLE: json.dumps(order), **secret},
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, json.loads(report.read_text())

    def do(self, job: str, database: Database, folder: Path) -> None:
        """Do what the pod of the Job does, which must succeed, and write its end as kubelet would."""
        code, report = self.run_program(job, database, folder)
        assert (code, report["ok"]) == (0, True), report
        self._end(job, report, code)

    def order(self, job: str) -> JobSpec:
        """The JobSpec of the Job."""
        (container,) = self.kubectl.get("job", job)["spec"]["template"]["spec"]["containers"]
        (text,) = [each["value"] for each in container["env"] if each["name"] == VARIABLE]
        return JobSpec.model_validate_json(text)

    def play(self, job: str, state: Mapping[str, Any] | None, **status: Any) -> str:
        """Write this state of the Job's running pod as kubelet would. Returns the pod's name."""
        (pod,) = self.unfinished(job)
        if state is not None:
            container = {
                "name": CONTAINER,
                "image": IMAGE,
                "imageID": "",
                "ready": False,
                "restartCount": 0,
                "state": state,
            }
            status["containerStatuses"] = [container]
        name = str(pod["metadata"]["name"])
        patch = json.dumps({"status": status})
        self.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "--patch", patch)
        return name

    def unfinished(self, job: str) -> list[dict[str, Any]]:
        """The Job's pods that have not ended."""
        return [each for each in pods_of(self.kubectl, job) if each["status"]["phase"] in ("Pending", "Running")]

    def events(self, name: str) -> list[str]:
        """``type reason`` of the Events on the archive, oldest first."""
        selector = f"involvedObject.kind=PartitionArchive,involvedObject.name={name}"
        found: list[dict[str, Any]] = self.kubectl.get("events", "--field-selector", selector)["items"]
        found.sort(key=lambda each: int(each["metadata"]["resourceVersion"]))
        return [f"{each['type']} {each['reason']}" for each in found]


def oid(database: Database, table: str = "run_2020") -> int:
    """Of a table."""
    ((found,),) = database.query("SELECT %s::regclass::oid::int8", table)
    assert isinstance(found, int)
    return found


def proof(of: int, **changes: Any) -> dict[str, Any]:
    """The report of a Job that archived the table with that OID."""
    made = Report(
        ok=True,
        id="by-hand-1",
        location="s3://archives/runs/db/public.run/run_2020/by-hand-1",
        rows=3,
        bytes=2048,
        sha256="a" * 64,
        manifest_sha256="b" * 64,
        fingerprint=Fingerprint(algorithm="test", rows=3, content="c" * 64),
        oid=of,
        server_version="18.1",
        client_version="18.1",
    )
    return {**made.model_dump(mode="json", by_alias=True, exclude_none=True), **changes}
