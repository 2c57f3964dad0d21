"""One PartitionArchive of a site, reconciled step by step by the operator's own code, with its rights."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from kubernetes.client import Configuration

from lab.archives import IMAGE, Archives, oid, proof
from lab.postgres import Database
from partwarden.archive.job_order import JobSpec
from partwarden.controller.archive_database import find_table
from partwarden.controller.archive_reconciler import ArchiveReconciler
from partwarden.controller.archive_requests import ArchiveRequests
from partwarden.controller.job_slots import JobSlots
from partwarden.controller.settings import Settings
from partwarden.controller.shard import Shard
from partwarden.kube.cache import ArchiveCache, Store
from partwarden.kube.client import Cluster
from partwarden.kube.config import configure
from support.in_process import in_this_process

NAME = "by-hand"


class ReconciledArchive:
    """An operator that reconciles when the test says so, with a clock that the test sets."""

    def __init__(
        self,
        archives: Archives,
        database: Database,
        connect: Callable[[Configuration], Cluster] = Cluster,
        **settings: Any,
    ) -> None:
        """``connect`` makes the client of the API server."""
        self.archives, self.database = archives, database
        self.now = datetime.now(UTC)
        self.key = (archives.site.namespace, NAME)
        kubeconfig = archives.site.operator().kubeconfig
        self.settings = Settings(kubeconfig=kubeconfig, job_image=IMAGE, **settings)
        self.cluster = connect(configure(kubeconfig))
        self.restart()

    def restart(self) -> None:
        """Replace the operator by a new one without memory."""
        cache, shard = ArchiveCache(), Shard(Store())
        self.requests = ArchiveRequests(cache, self.cluster, lambda key: None)
        find = partial(find_table, self.cluster, self.settings, in_this_process)
        clock = lambda: self.now  # noqa: E731
        slots = JobSlots(self.settings, cache, shard, lambda key: None, clock)
        self.reconciler = ArchiveReconciler(
            self.cluster, cache, self.requests, shard, slots, find, self.settings, clock
        )

    def check(self, token: str) -> None:
        """Request a check of the archive, as a policy does."""
        self.requests.want_check(self.key, token)

    def reconcile(self) -> float | None:
        """Reconcile once; seconds until the next reconcile, if one is due."""
        return self.reconciler.reconcile(self.key)

    def later(self) -> None:
        """Reconcile once, at the time of the next attempt."""
        self.now = datetime.fromisoformat(self.status()["nextAttempt"])
        self.reconcile()

    def begin(self) -> str:
        """Create the archive and wait for the pod of its Job. Returns the Job's name."""
        self.archives.apply(NAME)
        self.reconcile()
        return self.archives.job(NAME)

    def proven(self) -> None:
        """Archive and prove."""
        self.begin()
        self.end(proof(oid(self.database)))

    def end(self, report: dict[str, Any], code: int = 0) -> dict[str, Any]:
        """The running Job ends with this report, and the archive is reconciled."""
        job = self.archives.job(NAME)
        self.archives.end(job, report, code)
        self.archives.ended(job)
        self.reconcile()
        return self.status()

    def status(self) -> dict[str, Any]:
        """The status from the API server."""
        found: dict[str, Any] = self.archives.get(NAME)["status"]
        return found

    def ready(self) -> tuple[str, str]:
        """Reason and message of Ready."""
        (found,) = [each for each in self.status()["conditions"] if each["type"] == "Ready"]
        return found["reason"], found["message"]

    def orders(self) -> list[JobSpec]:
        """The specs of the Jobs, oldest first."""
        found = []
        for job in self.archives.jobs():
            variables = job["spec"]["template"]["spec"]["containers"][0]["env"]
            (text,) = [each["value"] for each in variables if each["name"] == "PARTWARDEN_ORDER"]
            found.append(JobSpec.model_validate_json(text))
        return found


class Meanwhile(Cluster):
    """Calls ``what`` once, right before a status is written, and ``early`` once, before a Secret is read."""

    def __init__(self, configuration: Configuration, selector: str = "") -> None:
        super().__init__(configuration, selector=selector)
        self.what: Callable[[], object] | None = None
        self.early: Callable[[], object] | None = None

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        if (early := self.early) is not None:
            self.early = None
            early()
        return super().secret(namespace, name)

    def write_status(self, *arguments: Any) -> dict[str, Any] | None:
        if (what := self.what) is not None:
            self.what = None
            what()
        return super().write_status(*arguments)
