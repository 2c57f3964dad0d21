"""Reconcile one PartitionRestore: read it and its Job, create the Job that is due, write down the result.

::

    status                      Job                 what a reconcile does
    restored                    -                   nothing, ever
    not restored                none                pin the archive in the status, then create the Job, or wait for the
                                                    archive's proof or a slot (`job_slots`)
    not restored                runs                what its pod waits for
    not restored                succeeded           restored: the report's facts
    not restored                failed              the cause, counted; the next Job after a pause

Nothing is remembered that the cluster does not show. A Job's name follows from the restore's UID and the number of Jobs
that failed, so that it is never created twice; and were a result lost with its Job, the next one finds the table by its
mark (`archive.restored_once`), and reports it instead of making another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from .. import errors
from ..api.restore import RESTORE_KIND
from ..api.types import ObjectKey
from ..archive.job_order import Task
from ..errors import ClusterUnavailable, InvalidSpec, NameTaken, PartwardenError
from ..kube.cache import ArchiveCache, RestoreCache, StoredRestore, parse_restore
from ..kube.client import JOBS, Cluster
from ..postgres.conninfo import resolve
from ..status.events import Notice
from . import archive_status, restore_source, restore_status
from .archive_job import Owner, controller_of, manifest
from .archive_job import name as job_name
from .archive_status import Status
from .job_reconciler import (
    POLL_JOB,
    POLL_PENDING,
    RETRY,
    RETRY_USER_ERROR,
    WAIT_FOR_SLOT,
    WRITTEN_MEANWHILE,
    JobReconciler,
)
from .job_slots import JobSlots
from .job_status import NO_REPORT, JobView, Phase, is_pending_long, view
from .restore_source import NotProven, RestoreJobRequest, Source
from .settings import Settings
from .shard import Shard

log = logging.getLogger(__name__)


class RestoreReconciler(JobReconciler[StoredRestore]):
    """Reconciles PartitionRestores."""

    _about = "restore"

    def __init__(
        self,
        cluster: Cluster,
        cache: RestoreCache,
        archives: ArchiveCache,
        shard: Shard,
        slots: JobSlots,
        settings: Settings,
        clock: Callable[[], datetime],
        ended: Callable[[Task, bool, float | None], None] = lambda task, succeeded, seconds: None,
    ) -> None:
        """``shard``: of restores. ``ended``: as for `ArchiveReconciler`."""
        super().__init__(cluster, slots, clock)
        self._cache, self._archives, self._shard, self._settings = cache, archives, shard, settings
        self._ended = ended

    def _reconcile(self, key: ObjectKey) -> float | None:
        known = self._cache.get(key)
        if known is not None and self._shard.decided(known) is False:
            return None
        # As it is now, not as a watch last showed it: what another replica wrote must not be missed.
        restore = self._cluster.restore(key)
        if restore is None:
            self._cache.remove(key)
            return None
        if restore_status.is_restored(restore.status) or not self._shard.claims(restore):
            return None
        job = self._cluster.get(JOBS, _job(restore))
        return self._start(restore) if job is None else self._follow(restore, job)

    def _start(self, restore: StoredRestore) -> float | None:
        """Create the Job if it may run now, or say in the status what keeps it from being created."""
        now = self._clock()
        if pause := archive_status.pause(restore.status, now):
            return pause
        policy = self._shard.policy(restore)
        try:
            if not self._settings.job_image:
                raise InvalidSpec(
                    "the operator has no image for Jobs: set PARTWARDEN_JOB_IMAGE to the image that it runs from"
                )
            request = restore_source.resolve_restore_request(restore.spec, policy.spec if policy else None)
            source = self._source(restore, request)
            self._check_secret(restore, request)
            if not self._slots.take(_job(restore), restore):
                status = restore_status.waits(restore.status, restore.generation, now, "Queued", self._slots.why_not)
                return WRITTEN_MEANWHILE if self._write(restore, status) is None else WAIT_FOR_SLOT
            after = None
            try:
                after = self._create(restore, request, source)
                return after
            finally:
                if after != POLL_JOB:
                    self._slots.release(_job(restore))
        except NotProven as waits:
            status = restore_status.waits(restore.status, restore.generation, now, "ArchiveNotProven", str(waits))
            return WRITTEN_MEANWHILE if self._write(restore, status) is None else RETRY_USER_ERROR
        except ClusterUnavailable:
            raise
        except PartwardenError as error:
            return self._fail(restore, error)

    def _source(self, restore: StoredRestore, request: RestoreJobRequest) -> Source:
        """The archive, as it is now: the one that was chosen once for a period. Raises `InvalidSpec`, `NotProven`."""
        if (placed := restore_source.by_location(request.spec)) is not None:
            return placed
        key = restore.archive
        if key is None and (chosen := restore.status.get("archive")):
            key = restore.key[0], str(chosen)
        if key is None:
            assert restore.policy is not None
            key = restore_source.by_period(request, self._archives.indexed(restore.policy))
        return restore_source.by_archive(key[1], self._cluster.archive(key))

    def _check_secret(self, restore: StoredRestore, request: RestoreJobRequest) -> None:
        """Raises what the Job would end with, and says it without one."""
        reference = request.database.secret_ref
        secret = self._cluster.secret(restore.key[0], reference.name) if reference else None
        resolve(request.database, secret, reference.name if reference else None, ca_folder=self._settings.ca_folder)

    def _create(self, restore: StoredRestore, request: RestoreJobRequest, source: Source) -> float:
        """Pin the archive, then create the Job. Returns `POLL_JOB` where it exists now."""
        reference, failures = request.database.secret_ref, _failures(restore)
        body = manifest(
            _owner(restore),
            restore_source.order(restore, request, source),
            failures,
            settings=self._settings,
            database_secret=reference.name if reference else None,
            wanted=request.spec.job,
        )
        # Before the Job: of several archives of a period, one that is newer later must not be restored beside this one.
        pinned = restore_status.aims(restore.status, source.archive, source.location)
        begun = JobView(_job(restore)[1], Phase.RUNNING)
        written = self._write(restore, restore_status.runs(pinned, restore.generation, self._clock(), begun))
        if written is None:
            return WRITTEN_MEANWHILE
        return self._create_job(written, begun.name, body, "spec.job")

    def _follow(self, restore: StoredRestore, job: Mapping[str, Any]) -> float | None:
        """Write down how the Job stands, or what came of it."""
        name, now = _job(restore)[1], self._clock()
        if controller_of(job) != _owner(restore):
            # What it reports says nothing of this restore.
            self._fail(restore, NameTaken(f"Job {name} exists, and was not made for this restore: delete it"))
            return RETRY
        pods = self._cluster.pods(job)
        seen = view(job, pods, now)
        self._slots.saw(job, pods)
        if seen.phase is Phase.RUNNING:
            status = restore_status.runs(restore.status, restore.generation, now, seen)
            after = POLL_PENDING if is_pending_long(seen.idle, now) else POLL_JOB
            return WRITTEN_MEANWHILE if self._write(restore, status) is None else after
        status, succeeded = _result(restore, seen, now)
        if self._write(restore, status) is None:
            return WRITTEN_MEANWHILE
        self._ended(Task.RESTORE, succeeded, seen.took)
        return None if succeeded else RETRY

    def _parse(self, body: Mapping[str, Any]) -> StoredRestore:
        return parse_restore(body)

    def _failed(self, restore: StoredRestore, error: PartwardenError) -> Status:
        return restore_status.failed(restore.status, restore.generation, self._clock(), error)

    def _changed(self, before: Status, status: Status) -> list[Notice]:
        return restore_status.changed(before, status)


def _owner(restore: StoredRestore) -> Owner:
    return Owner(*restore.key, restore.uid, RESTORE_KIND)


def _failures(restore: StoredRestore) -> str:
    """How many Jobs have failed, by the status: tells the Jobs of a restore apart."""
    return str(int(restore.status.get("attempts") or 0))


def _job(restore: StoredRestore) -> ObjectKey:
    return restore.key[0], job_name(_owner(restore), Task.RESTORE, _failures(restore))


def _result(restore: StoredRestore, seen: JobView, now: datetime) -> tuple[Status, bool]:
    """The status that follows from a Job that has ended, and whether there is a table."""
    before, generation, report = restore.status, restore.generation, seen.report
    about = {"restore": str(restore)}
    if report is not None and report.ok and report.restored is not None and report.oid:
        log.info("restored %s.%s", report.restored.schema_, report.restored.name, extra={**about, "reason": "Restored"})
        return restore_status.restored(before, generation, now, report, seen.name, seen.took), True
    reason, message = (seen.reason, seen.message) if seen.reason else (NO_REPORT, "the report names no table")
    error = errors.from_report(reason, message) or (reason, message)
    log.warning("%s: %s", reason, message, extra={**about, "reason": reason})
    return restore_status.failed(before, generation, now, error, job=seen.name, ended=seen.ended), False
