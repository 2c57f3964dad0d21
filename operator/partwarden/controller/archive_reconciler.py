"""Makes the Job that is due for a PartitionArchive, or says what keeps it from being made."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .. import errors
from ..api.types import ObjectKey
from ..archive import pgdump, table_lookup
from ..archive.jobspec import JobSpec, Report, Task
from ..archive.manifest import TableName
from ..archive.table_lookup import Target
from ..errors import ClusterUnavailable, InvalidSpec, NameTaken, PartwardenError, TableChanged, UserError
from ..kube.archives import ArchivesInCluster
from ..kube.cache import ArchiveStore, StoredArchive, is_gone, parse_archive
from ..kube.client import Cluster
from ..planner.archives import server_label
from ..postgres.connection import session
from ..postgres.conninfo import resolve
from . import archive_status
from .archive_job import ArchiveWish, JobSlots, Owner, Runtime, belongs, manifest, resolve_job_request
from .archive_job import name as job_name
from .job_status import NO_REPORT, JobView, Phase, view
from .ownership import Shard
from .settings import Settings

# What is due next for a PartitionArchive, what its Job is told, and whether a report is of it. Pure.
#

FOUND = (errors.ArchiveDamaged, errors.ContentsChanged, errors.DestinationNotFound, errors.DestinationDenied)
"""What a check finds out about the archive. Whatever else ends one says nothing of it, a wrong password for example."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done next for an archive, by which Job."""

    task: Task
    serial: str
    token: str = ""


def next_step(status: Mapping[str, Any], wanted: str | None) -> Step | None:
    """The step that is due, None where all is done. ``wanted``: the token of the check that is asked for."""
    attempts = int(status.get("attempts") or 0)
    if not archive_status.is_proven(status):
        return Step(Task.ARCHIVE, str(attempts))
    found = status.get("check") or {}
    if wanted is None or (found.get("token") == wanted and found.get("ok")):
        return None
    # After another check the same token means a new one: what was read before must not stand for it.
    return Step(Task.CHECK, f"{wanted}/{attempts}/{found.get('job', '')}", wanted)


def is_whole(report: Report, status: Mapping[str, Any]) -> bool:
    """Whether it says all that a proof must, of the very table of the very server that the archive was begun for."""
    stated = report.sha256 and report.manifest_sha256 and report.location and report.fingerprint is not None
    return bool(stated) and (report.oid, report.server) == (status.get("oid"), status.get("server", ""))


def is_result(report: Report, status: Mapping[str, Any]) -> bool:
    """Whether the check came to an end: the archive is there and as it was, or it is known what is wrong with it."""
    if report.ok:
        proven = (status.get("oid"), status.get("server", ""), status.get("sha256"), status.get("manifestSha256"))
        return (report.oid, report.server, report.sha256, report.manifest_sha256) == proven
    return report.reason in {each.__name__ for each in FOUND}


def owner_of(archive: StoredArchive) -> Owner:
    """Whom its Jobs belong to."""
    return Owner(*archive.key, archive.uid)


def archive_id(archive: StoredArchive) -> str:
    """Unique among the archives of a partition, and the same however often its Job runs."""
    digest = hashlib.sha256(archive.uid.encode()).hexdigest()[:10]
    return f"{archive.key[1][:80].strip('-.')}-{digest}"


def order_of(archive: StoredArchive, step: Step, wish: ArchiveWish, target: Target) -> JobSpec:
    """What the Job of the step is told; ``target`` is the table as it was just found."""
    status = archive.status
    checks = step.task is Task.CHECK
    return JobSpec(
        task=step.task,
        id=str(status.get("id")) if checks else archive_id(archive),
        connection=wish.database.connection,
        parent=target.parent,
        server=target.server,
        partition=TableName(schema_=target.partition.schema_, name=target.partition.name, oid=target.partition.oid),
        bounds=target.bounds,
        key=target.key,
        destination=wish.destination,
        large_objects=wish.large_objects,
        location=str(status.get("location")) if checks else "",
        sha256=str(status.get("sha256")) if checks else "",
        manifest_sha256=str(status.get("manifestSha256")) if checks else "",
    )


# Writes the status of a PartitionArchive, and records Events of what has changed.
#

log = logging.getLogger(__name__)


class ArchiveStatusWriter:
    """Safe for threads, as the `Cluster` is."""

    def __init__(self, cluster: Cluster, clock: Callable[[], datetime]) -> None:
        self._cluster, self._clock = cluster, clock

    def tell(self, archive: StoredArchive, status: Mapping[str, Any]) -> StoredArchive | None:
        """Make that its status, if it is still as it was read. Returns the archive as it is then.

        None where it is gone, or somebody else has written to it: what another operator saw meanwhile, such as a
        proof, is never taken back by one that had looked before. Raises `ClusterUnavailable`.
        """
        before = archive.status
        if status == before:
            return archive
        written = self._cluster.write_status(archive, status, archive.version)
        if written is None:
            return None
        for notice in archive_status.changed(before, status):
            try:
                self._cluster.record(archive, notice, self._clock())
            except ClusterUnavailable as error:
                log.warning("%s", error, extra={"archive": str(archive), "reason": error.reason})
        return parse_archive(written)


AGAIN = 1.0
"""Seconds after somebody else has written the status meanwhile: what he saw counts."""
LOOK_AGAIN = 10.0
"""Seconds between two looks at a Job that runs, whose pod may wait for something: its end is told by the watch."""
QUEUED = 15.0
"""Seconds until it is asked again whether another Job may run."""
RETRY = 30.0
"""Seconds after what could not be begun."""


class JobStarter:
    """Reads Secrets and the database's catalog, and creates Jobs."""

    def __init__(
        self,
        cluster: Cluster,
        shard: Shard,
        slots: JobSlots,
        settings: Settings,
        clock: Callable[[], datetime],
    ) -> None:
        self._cluster, self._api, self._teller = (
            cluster,
            ArchivesInCluster(cluster),
            ArchiveStatusWriter(cluster, clock),
        )
        self._shard, self._slots, self._settings, self._clock = shard, slots, settings, clock

    def begin(self, archive: StoredArchive, step: Step, name: str) -> float | None:
        """Make the Job of that name, if it may be made now. Returns the seconds until the next look, None for never.

        Raises `ClusterUnavailable`; what else is in the way is told in the status.
        """
        status, now = archive.status, self._clock()
        if wait := archive_status.pause(status, now):
            return wait
        try:
            policy = self._shard.policy(archive)
            if policy is None and not self._shard.claims(archive):
                # It has just moved, and is not gone: nothing that is missing may be told.
                return None
            wish = resolve_job_request(archive.spec, policy.spec if policy else None)
            if not self._settings.job_image:
                raise InvalidSpec(
                    "the operator has no image for Jobs: set PARTWARDEN_JOB_IMAGE to the image that it runs from"
                )
            if not self._slots.take((archive.key[0], name), archive.key):
                message = f"{self._settings.jobs} Jobs run already, as many as PARTWARDEN_JOBS allows"
                self._teller.tell(archive, archive_status.waits(status, archive.generation, now, "Queued", message))
                return QUEUED
            try:
                return self._create(archive, step, wish)
            except BaseException:
                self._slots.saw((archive.key[0], name), running=False)
                raise
        except ClusterUnavailable:
            raise
        except PartwardenError as error:
            return self._failed(archive, error)

    def _create(self, archive: StoredArchive, step: Step, wish: ArchiveWish) -> float:
        target = self._find(archive, wish)
        status = archive_status.aims(archive.status, target.partition.oid, target.bounds, target.server, target.bytes)
        body = manifest(
            owner_of(archive),
            order_of(archive, step, wish, target),
            step.serial,
            runtime=_runtime(self._settings),
            database_secret=wish.database.secret_ref.name if wish.database.secret_ref else None,
            wishes=wish.job,
        )
        # The table is pinned before anything is made of it: a Job made first, and an operator killed before it wrote
        # the OID, would leave an archive that the next one takes for another table of that name.
        seen = JobView(body["metadata"]["name"], Phase.RUNNING)
        pinned = self._teller.tell(
            archive, archive_status.runs(status, archive.generation, self._clock(), step.task, seen)
        )
        if pinned is None:
            self._slots.saw((archive.key[0], seen.name), running=False)
            return AGAIN
        try:
            if self._api.create_job(body):
                log.info("made Job %s", seen.name, extra={"archive": str(archive), "reason": "JobCreated"})
        except InvalidSpec as error:
            self._slots.saw((archive.key[0], seen.name), running=False)
            return self._failed(pinned, error)
        return LOOK_AGAIN

    def _failed(self, archive: StoredArchive, error: PartwardenError) -> float:
        log.warning("%s", error, extra={"archive": str(archive), "reason": error.reason})
        self._teller.tell(archive, archive_status.failed(archive.status, archive.generation, self._clock(), error))
        return archive_status.LONGEST_PAUSE.total_seconds() / 6 if isinstance(error, UserError) else RETRY

    def _find(self, archive: StoredArchive, wish: ArchiveWish) -> table_lookup.Target:
        reference = wish.database.secret_ref
        secret = self._cluster.secret(archive.key[0], reference.name) if reference else None
        info = resolve(wish.database, secret, reference.name if reference else None)
        oid = archive.status.get("oid") or wish.oid
        # As its Job would find out, but before there is one.
        pgdump.check(info, self._settings.connect_timeout)
        with session(info, connect_timeout=self._settings.connect_timeout) as connection:
            if client := self._settings.job_client:
                pgdump.check_version(str(client), connection.info.parameter_status("server_version") or "")
            server = str(archive.status.get("server") or "")
            found = table_lookup.find(connection, wish.schema, wish.name, oid, wish.encoding, server)
        if archive.binding and archive.binding.server != server_label(found.server):
            raise TableChanged(
                f"table {wish.schema}.{wish.name} is not the one that this archive is of: that was on another server "
                f"than {found.server or 'this one, which the role may not ask for its identity'}; the policy has "
                "another PartitionArchive made for it"
            )
        if oid and found.partition.oid != oid:
            raise TableChanged(
                f"table {wish.schema}.{wish.name} is not the one that this archive is of (OID {oid}, now "
                f"{found.partition.oid}): it was made anew; make another PartitionArchive for it"
            )
        return found


def _runtime(settings: Settings) -> Runtime:
    return Runtime(
        image=settings.job_image,
        service_account=settings.job_service_account,
        pull_secrets=settings.job_pull_secrets,
        env=settings.job_env,
        deadline=settings.job_deadline,
        retries=settings.job_retries,
    )


# One PartitionArchive: look at it and its Job, make a Job where one is needed, write down what came of it.
#
# Everything that was decided can be seen again in the cluster. A Job's name follows from what it is for, so that nobody
# makes it twice; what it reports is in the status before the Job can vanish, and were it lost, the next Job finds the
# archive at its destination and proves it instead of making it again.
#


class ArchiveReconciler:
    """Works on PartitionArchives, each with one thread at a time, as the work queue sees to."""

    def __init__(
        self,
        cluster: Cluster,
        shard: Shard,
        archives: ArchiveStore,
        slots: JobSlots,
        settings: Settings,
        clock: Callable[[], datetime],
        ended: Callable[[Task, bool, float | None], None],
    ) -> None:
        """``ended`` is told of each Job that has ended: what it did, whether all was well, and the seconds it took."""
        self._ended = ended
        self._api, self._teller = ArchivesInCluster(cluster), ArchiveStatusWriter(cluster, clock)
        self._shard, self._archives, self._slots, self._clock = shard, archives, slots, clock
        self._starter = JobStarter(cluster, shard, slots, settings, clock)

    def tend(self, key: ObjectKey) -> float | None:
        """Look once and act. Returns the seconds until the next look, None for when it is woken."""
        known = self._archives.get(key)
        if known is not None and self._shard.decided(known) is False:
            return None
        try:
            # As it is now, not as a watch last showed it: what another replica wrote must not be missed.
            body = self._api.archive(key)
            if body is None or is_gone(body):
                self._archives.remove(key)
                return None
            archive = parse_archive(body)
            if not self._shard.claims(archive):
                return None
            step = next_step(archive.status, self._archives.wanted_check(key))
            return None if step is None else self._take(archive, step)
        except ClusterUnavailable as error:
            log.warning("%s", error, extra={"archive": "/".join(key), "reason": error.reason})
            return RETRY

    def _take(self, archive: StoredArchive, step: Step) -> float | None:
        name = job_name(owner_of(archive), step.task, step.serial)
        job = self._api.job(archive.key[0], name)
        if job is None:
            return self._starter.begin(archive, step, name)
        if not belongs(job, owner_of(archive)):
            # What it reports proves nothing of this archive.
            taken = NameTaken(f"Job {name} exists, and was not made for this archive: delete it")
            status = archive_status.failed(archive.status, archive.generation, self._clock(), taken)
            return self._tell(archive, status, RETRY)
        pods, now = self._api.pods(job), self._clock()
        seen = view(job, pods, now)
        self._slots.saw((archive.key[0], name), seen.phase is Phase.RUNNING, archive.key)
        if seen.phase is Phase.RUNNING:
            status = archive_status.runs(archive.status, archive.generation, now, step.task, seen)
            return self._tell(archive, status, LOOK_AGAIN)
        return self._conclude(archive, step, seen)

    def _conclude(self, archive: StoredArchive, step: Step, seen: JobView) -> float | None:
        status, succeeded = self._result(archive, step, seen)
        after = self._tell(archive, status, None if succeeded else RETRY)
        if after != AGAIN:
            self._ended(step.task, succeeded, seen.took)
        return after

    def _result(self, archive: StoredArchive, step: Step, seen: JobView) -> tuple[archive_status.Status, bool]:
        """The status that follows from a Job that has ended, and whether the Job found all well."""
        before, generation, now = archive.status, archive.generation, self._clock()
        report = seen.report
        if step.task is Task.ARCHIVE and report is not None and report.ok and is_whole(report, before):
            log.info("archived %s", report.location, extra={"archive": str(archive), "reason": archive_status.PROVEN})
            return archive_status.proved(before, generation, now, report, seen.name), True
        if step.task is Task.CHECK and report is not None and is_result(report, before):
            return archive_status.checked(before, generation, now, report, step.token, seen.name), report.ok
        reason, message = (seen.reason, seen.message) if seen.reason else (NO_REPORT, "the report is not of this table")
        error = errors.from_report(reason, message) or (reason, message)
        log.warning("%s: %s", reason, message, extra={"archive": str(archive), "reason": reason})
        return archive_status.failed(before, generation, now, error, job=seen.name, ended=seen.ended), False

    def _tell(self, archive: StoredArchive, status: archive_status.Status, after: float | None) -> float | None:
        """Write the status; ``after``: the seconds until the next look, where nobody else has written it meanwhile."""
        return AGAIN if self._teller.tell(archive, status) is None else after
