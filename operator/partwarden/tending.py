"""One PartitionArchive: look at it and its Job, make a Job where one is needed, write down what came of it.

Everything that was decided can be seen again in the cluster. A Job's name follows from what it is for, so that nobody
makes it twice; what it reports is in the status before the Job can vanish, and were it lost, the next Job finds the
archive at its destination and proves it instead of making it again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from . import archive_conditions as says
from . import errors, targets
from .archive_store import ArchiveStore, JobSlots, StoredArchive, parse
from .archive_wish import ArchiveWish, resolve_wish
from .cluster import Cluster
from .cluster_archives import ArchivesInCluster
from .connection import resolve
from .connections import Connections
from .errors import ClusterUnavailable, InvalidSpec, NameTaken, PartwardenError, TableChanged, UserError
from .job import Owner, Runtime, belongs, manifest
from .job import name as job_name
from .job_view import NO_REPORT, JobView, Phase, percent, view, working
from .order import Order, Task
from .record import Report, TableName
from .settings import Settings
from .store import Store, is_gone
from .workqueue import Key

log = logging.getLogger(__name__)

LOOK_AGAIN = 10.0
"""Seconds between two looks at a Job that runs, whose pod may wait for something: its end is told by the watch."""
QUEUED = 15.0
"""Seconds until it is asked again whether another Job may run."""
RETRY = 30.0
"""Seconds after what could not be begun."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done next for an archive, by which Job."""

    task: Task
    serial: str
    token: str = ""


class Tender:
    """Works on PartitionArchives, each with one thread at a time, as the work queue sees to."""

    def __init__(
        self,
        cluster: Cluster,
        policies: Store,
        archives: ArchiveStore,
        slots: JobSlots,
        settings: Settings,
        clock: Callable[[], datetime],
    ) -> None:
        self._cluster, self._api = cluster, ArchivesInCluster(cluster)
        self._policies, self._archives, self._slots = policies, archives, slots
        self._settings, self._clock = settings, clock
        self._connections = Connections(settings.connect_timeout)

    def tend(self, key: Key) -> float | None:
        """Look once and act. Returns the seconds until the next look, None for when it is woken."""
        try:
            # As it is now, not as a watch last showed it: what another replica wrote must not be missed.
            body = self._api.archive(key)
            if body is None or is_gone(body):
                self._archives.remove(key)
                return None
            archive = parse(body)
            step = _next(archive.status, self._archives.wanted_check(key))
            return None if step is None else self._take(archive, step)
        except ClusterUnavailable as error:
            log.warning("%s", error, extra={"archive": "/".join(key), "reason": error.reason})
            return RETRY
        finally:
            self._connections.sweep()

    def stop(self) -> None:
        """No further connection to a database."""
        self._connections.close()

    def _take(self, archive: StoredArchive, step: Step) -> float | None:
        name = job_name(_owner(archive), step.task, step.serial)
        job = self._api.job(archive.key[0], name)
        if job is None:
            return self._begin(archive, step, name)
        if not belongs(job, _owner(archive)):
            # What it reports proves nothing of this archive.
            taken = NameTaken(f"Job {name} exists, and was not made for this archive: delete it")
            self._write(archive, says.failed(archive.status, archive.generation, self._clock(), taken))
            return RETRY
        pods = self._api.pods(job)
        seen = view(job, pods)
        self._slots.saw((archive.key[0], name), seen.phase is Phase.RUNNING)
        if seen.phase is Phase.RUNNING:
            pod = working(pods) if step.task is Task.ARCHIVE else None
            far = percent(self._api.last_line(pod)) if pod else None
            now = self._clock()
            self._write(archive, says.runs(archive.status, archive.generation, now, step.task, seen, far))
            return LOOK_AGAIN
        return self._conclude(archive, step, seen)

    def _begin(self, archive: StoredArchive, step: Step, name: str) -> float | None:
        status, now = archive.status, self._clock()
        if wait := says.pause(status, now):
            return wait
        try:
            policy = self._policies.get(archive.policy) if archive.policy else None
            wish = resolve_wish(archive.spec, policy.spec if policy else None)
            if not self._settings.job_image:
                raise InvalidSpec(
                    "the operator has no image for Jobs: set PARTWARDEN_JOB_IMAGE to the image that it runs from"
                )
            if not self._slots.take((archive.key[0], name)):
                message = f"{self._settings.jobs} Jobs run already, as many as PARTWARDEN_JOBS allows"
                self._write(archive, says.waits(status, archive.generation, now, "Queued", message))
                return QUEUED
            try:
                return self._create(archive, step, wish)
            except BaseException:
                self._slots.saw((archive.key[0], name), running=False)
                raise
        except ClusterUnavailable:
            raise
        except PartwardenError as error:
            log.warning("%s", error, extra={"archive": str(archive), "reason": error.reason})
            self._write(archive, says.failed(status, archive.generation, now, error))
            return says.LONGEST_PAUSE.total_seconds() / 6 if isinstance(error, UserError) else RETRY

    def _create(self, archive: StoredArchive, step: Step, wish: ArchiveWish) -> float:
        target = self._find(archive, wish)
        status = says.aims(archive.status, target.partition.oid, target.bounds)
        order = _order(archive, step, wish, target)
        body = manifest(
            _owner(archive),
            order,
            step.serial,
            runtime=_runtime(self._settings),
            database_secret=wish.database.secret_ref.name if wish.database.secret_ref else None,
            wishes=wish.job,
        )
        # The table is pinned before anything is made of it: a Job made first, and an operator killed before it wrote
        # the OID, would leave an archive that the next one takes for another table of that name.
        seen = JobView(body["metadata"]["name"], Phase.RUNNING)
        if not self._write(archive, says.runs(status, archive.generation, self._clock(), step.task, seen)):
            self._slots.saw((archive.key[0], seen.name), running=False)
            return RETRY
        if self._api.create_job(body):
            log.info("made Job %s", seen.name, extra={"archive": str(archive), "reason": "JobCreated"})
        return LOOK_AGAIN

    def _find(self, archive: StoredArchive, wish: ArchiveWish) -> targets.Target:
        reference = wish.database.secret_ref
        secret = self._cluster.secret(archive.key[0], reference.name) if reference else None
        info = resolve(wish.database, secret, reference.name if reference else None)
        oid = archive.status.get("oid") or wish.oid
        with self._connections.lend(info) as connection:
            found = targets.find(connection, wish.schema, wish.name, oid, wish.encoding)
            connection.reusable = True
        if oid and found.partition.oid != oid:
            raise TableChanged(
                f"table {wish.schema}.{wish.name} is not the one that this archive is of (OID {oid}, now "
                f"{found.partition.oid}): it was made anew; make another PartitionArchive for it"
            )
        return found

    def _conclude(self, archive: StoredArchive, step: Step, seen: JobView) -> float | None:
        status, generation, now = archive.status, archive.generation, self._clock()
        report = seen.report
        if step.task is Task.ARCHIVE and report is not None and report.ok and _is_whole(report, status):
            self._write(archive, says.proved(status, generation, now, report, seen.name))
            log.info("archived %s", report.location, extra={"archive": str(archive), "reason": says.PROVEN})
            return None
        if step.task is Task.CHECK and report is not None and _is_result(report, status):
            self._write(archive, says.checked(status, generation, now, report, step.token, seen.name))
            return None if report.ok else RETRY
        reason, message = (seen.reason, seen.message) if seen.reason else (NO_REPORT, "the report is not of this table")
        known = getattr(errors, reason, None)
        told = known(message) if isinstance(known, type) and issubclass(known, PartwardenError) else (reason, message)
        log.warning("%s: %s", reason, message, extra={"archive": str(archive), "reason": reason})
        self._write(archive, says.failed(status, generation, now, told, job=seen.name, ended=seen.ended))
        return RETRY

    def _write(self, archive: StoredArchive, status: Mapping[str, Any]) -> bool:
        """Returns False where the archive is gone."""
        if status == archive.status:
            return True
        return self._cluster.write_status(archive, status) is not None


def _next(status: Mapping[str, Any], wanted: str | None) -> Step | None:
    """The step that is due, None where all is done. ``wanted``: the token of the check that is asked for."""
    attempts = int(status.get("attempts") or 0)
    if not says.is_proven(status):
        return Step(Task.ARCHIVE, str(attempts))
    found = status.get("check") or {}
    if wanted is None or (found.get("token") == wanted and found.get("ok")):
        return None
    # After another check the same token means a new one: what was read before must not stand for it.
    return Step(Task.CHECK, f"{wanted}/{attempts}/{found.get('job', '')}", wanted)


def _is_whole(report: Report, status: Mapping[str, Any]) -> bool:
    """Whether it says all that a proof must, of the very table that the archive was begun for."""
    stated = report.sha256 and report.manifest_sha256 and report.location and report.fingerprint is not None
    return bool(stated) and report.oid == status.get("oid")


def _is_result(report: Report, status: Mapping[str, Any]) -> bool:
    """Whether the check came to an end: the archive is there and as it was, or it is known what is wrong with it."""
    if report.ok:
        proven = (status.get("oid"), status.get("sha256"), status.get("manifestSha256"))
        return (report.oid, report.sha256, report.manifest_sha256) == proven
    kind = getattr(errors, report.reason, None)
    return isinstance(kind, type) and issubclass(kind, UserError)


def _owner(archive: StoredArchive) -> Owner:
    return Owner(*archive.key, archive.uid)


def archive_id(archive: StoredArchive) -> str:
    """Unique among the archives of a partition, and the same however often its Job runs."""
    digest = hashlib.sha256(archive.uid.encode()).hexdigest()[:10]
    return f"{archive.key[1][:80].strip('-.')}-{digest}"


def _order(archive: StoredArchive, step: Step, wish: ArchiveWish, target: targets.Target) -> Order:
    status = archive.status
    checks = step.task is Task.CHECK
    return Order(
        task=step.task,
        id=str(status.get("id")) if checks else archive_id(archive),
        connection=wish.database.connection,
        parent=target.parent,
        partition=TableName(schema_=target.partition.schema_, name=target.partition.name, oid=target.partition.oid),
        bounds=target.bounds,
        key=target.key,
        destination=wish.destination,
        location=str(status.get("location")) if checks else "",
        sha256=str(status.get("sha256")) if checks else "",
        manifest_sha256=str(status.get("manifestSha256")) if checks else "",
    )


def _runtime(settings: Settings) -> Runtime:
    return Runtime(
        image=settings.job_image,
        service_account=settings.job_service_account,
        pull_secrets=settings.job_pull_secrets,
        env=settings.job_env,
        deadline=settings.job_deadline,
        retries=settings.job_retries,
    )
