"""One PartitionRestore with its archives, its Jobs and an operator, in memory, for unit tests of its reconciler."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from partwarden.api.archive import ARCHIVE_PLURAL, CONTAINER
from partwarden.api.policy import PLURAL
from partwarden.api.restore import RESTORE_KIND, RESTORE_PLURAL, PartitionRestoreStatus
from partwarden.api.types import ObjectKey
from partwarden.archive.job_order import VARIABLE, DropOrder, JobOrder, Report, RestoredTable, RestoreOrder, Task
from partwarden.controller.job_slots import JobSlots
from partwarden.controller.restore_events import RestoreEventHandler
from partwarden.controller.restore_reconciler import RestoreReconciler
from partwarden.controller.settings import Settings
from partwarden.controller.shard import Shard
from partwarden.controller.workqueue import WorkQueue
from partwarden.kube.cache import ArchiveCache, RestoreCache, Store, parse_archive, parse_policy
from support.cluster import CREATED, ApiServer, controlled_by

KEY: ObjectKey = ("ns", "run-2019-again")
LOCATION = "pvc://archives/app/app.run/run_2019/run-run-2019-1-0123456789-89abcdef"
SPEC: dict[str, Any] = {"archive": {"name": "run-2019"}, "policy": {"name": "run"}, "as": {"name": "run_2019_again"}}
POLICY = {"database": {"secretRef": {"name": "db"}}, "table": {"schema": "app", "name": "run"}}
DONE = Report(
    ok=True,
    rows=8000,
    oid=24811,
    manifest_sha256="b" * 64,
    server="7380000000000000001/16384",
    restored=RestoredTable(
        schema_="public", name="run_2019_again", left_off=("NotNull of a: it holds NULL",), left_off_count=1
    ),
)


class Killed(BaseException):
    """As SIGKILL, but for the process."""


class World:
    """The API server with a policy, its archives and one restore, the clock, and an operator that may be replaced."""

    def __init__(self, spec: dict[str, Any] = SPEC, **settings: Any) -> None:
        self.server, self.now = ApiServer(), datetime.fromisoformat(CREATED)
        self.server.secrets["ns", "db"] = {"uri": "postgresql://app:secret@db/app"}
        self.settings = Settings(**{"job_image": "partwarden:1", **settings})
        self.ended: list[tuple[Task, bool, float | None]] = []
        self.policies, self.archives = Store(), ArchiveCache()
        body = self.server.put(PLURAL, {"metadata": {"namespace": "ns", "name": "run"}, "spec": POLICY})
        self.policies.put(parse_policy(body))
        self.archive("run-2019", "2019-01-01T00:00:00Z", "2020-01-01T00:00:00Z")
        self.server.put(RESTORE_PLURAL, {"metadata": {"namespace": KEY[0], "name": KEY[1]}, "spec": spec})
        self.restart()

    def archive(
        self,
        name: str,
        lower: str,
        upper: str,
        proven: bool = True,
        completed: str = "2026-01-01",
        more: dict[str, object] | None = None,
        labels: dict[str, str] | None = None,
    ) -> None:
        """Make a PartitionArchive, or change it. ``more``: of its status."""
        spec = {
            "policy": {"name": "run"},
            "database": POLICY["database"],
            "partition": "run_2019",
            "destination": {"pvc": {"claimName": "archives"}},
        }
        status = {"from": lower, "to": upper, "location": LOCATION, "completed": completed, **(more or {})}
        status |= {"manifestSha256": "b" * 64} if proven else {}
        meta = {"namespace": "ns", "name": name, "labels": labels or {}}
        body = {"metadata": meta, "spec": spec, "status": status}
        self.archives.put(parse_archive(self.server.put(ARCHIVE_PLURAL, body)))

    def restart(self) -> None:
        """Another operator takes over, which remembers nothing."""
        cluster, cache, shard = self.server.cluster(), RestoreCache(), Shard(self.policies)
        clock, self.queue = lambda: self.now, WorkQueue()
        self.slots = JobSlots(self.settings, cache, shard, self.queue.enqueue, clock, RESTORE_KIND)
        self.events = RestoreEventHandler(cluster, cache, self.slots, shard, self.queue)
        self.reconciler = RestoreReconciler(
            *(cluster, cache, self.archives, shard, self.slots, self.settings, clock),
            lambda *ended: self.ended.append(ended),
        )
        self.events.seen(self.body)

    def reconcile(self) -> float | None:
        """Once."""
        return self.reconciler.reconcile(KEY)

    @property
    def body(self) -> dict[str, Any]:
        """The PartitionRestore."""
        return self.server.get(RESTORE_PLURAL, *KEY)

    @property
    def status(self) -> dict[str, Any]:
        """Its status, which must be valid."""
        status: dict[str, Any] = self.body.get("status") or {}
        PartitionRestoreStatus.model_validate(status, strict=False, by_alias=True, by_name=False)
        return status

    def condition(self, kind: str = "Ready") -> tuple[str, str]:
        """Status and reason."""
        (found,) = [each for each in self.status["conditions"] if each["type"] == kind]
        return found["status"], found["reason"]

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """All, the oldest first."""
        return self.server.list("jobs")

    def end(self, report: Report | None, condition: str = "Complete", code: int = 0) -> None:
        """The youngest Job ends so."""
        job = self.jobs[-1]
        message = {"message": report.model_dump_json(by_alias=True)} if report else {}
        state = {"terminated": {"exitCode": code, **message}}
        meta = {"namespace": job["metadata"]["namespace"], "name": f"{job['metadata']['name']}-0", **controlled_by(job)}
        self.server.put(
            "pods", {"metadata": meta, "status": {"containerStatuses": [{"name": CONTAINER, "state": state}]}}
        )
        said = {"type": condition, "status": "True", "lastTransitionTime": self.now.isoformat()}
        self.server.put("jobs", {**job, "status": {"conditions": [said]}})


def _order(job: dict[str, Any]) -> str:
    variables = job["spec"]["template"]["spec"]["containers"][0]["env"]
    (text,) = [each["value"] for each in variables if each["name"] == VARIABLE]
    return str(text)


def order(job: dict[str, Any]) -> RestoreOrder:
    """The order of a Job that restores."""
    return RestoreOrder.model_validate_json(_order(job))


def drop_order(job: dict[str, Any]) -> DropOrder:
    """The order of a Job that drops."""
    return DropOrder.model_validate_json(_order(job))


def task(job: dict[str, Any]) -> Task:
    """What the Job is for."""
    return JobOrder.model_validate_json(_order(job)).task
