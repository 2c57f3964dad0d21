"""Reconcile one PartitionRestore: read it and its Job, create the Job that is due, write down the result.

::

    status                      Job                 what a reconcile does
    not restored                none                pin the archives in the status, then create the Job of the next one,
                                                    or wait for the archive's proof or a slot (`job_slots`)
    not restored                runs                what its pod waits for
    not restored                succeeded           restored: the report's facts; then the next archive
    any                         failed              the cause, counted; the next Job after a pause
    restored                    -                   nothing, unless expireAfter is over: see `restore_steps`
    restored, and over          none                write down that it is dropped, then create Job `Drop`
    restored, and over          succeeded           dropped

Nothing is remembered that the cluster does not show. A Job's name follows from the restore's UID and the number of Jobs
that failed, so that it is never created twice; and were a result lost with its Job, the next one finds the table by its
mark (`archive.restored_once`), and reports it instead of making another, or finds that it is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from .. import errors
from ..api.types import ObjectKey
from ..archive.job_order import JobOrder, Task
from ..errors import ClusterUnavailable, InvalidSpec, NameTaken, PartwardenError
from ..kube.cache import ArchiveCache, RestoreCache, StoredRestore, parse_policy, parse_restore
from ..kube.client import JOBS, Cluster
from ..postgres.conninfo import resolve
from ..status.events import Notice
from . import archive_status, restore_expiry, restore_parts, restore_source, restore_status, restore_steps
from .archive_job import controller_of, manifest
from .archive_status import Status
from .archive_steps import AGAIN
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
from .restore_source import NotProven, Ranged, RestoreJobRequest, Source
from .restore_steps import Step, due
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
        if not self._shard.claims(restore):
            return None
        found = due(restore, self._shard.policy(restore), self._clock())
        if found.news is not None:
            return WRITTEN_MEANWHILE if self._write(restore, found.news) is None else found.after
        if found.step is None:
            return found.after
        job = self._cluster.get(JOBS, found.step.job)
        if job is not None:
            return self._follow(found.step, job)
        return self._start(found.step) if found.step.task is Task.RESTORE else self._start_drop(found.step)

    def _start(self, step: Step) -> float | None:
        """Create the Job if it may run now, or say in the status what keeps it from being created."""
        restore, now = step.restore, self._clock()
        if pause := archive_status.pause(restore.status, now):
            return pause
        try:
            request = self._request(restore)
            chosen = self._choose(restore, request)
            if len(chosen) > 1:
                # Before the first Job: an archive that is made later must not be restored in place of another.
                status = restore_parts.with_parts(restore.status, chosen)
                said = f"{len(chosen)} archives make up {request.spec.period}"
                self._write(restore, restore_status.waits(status, restore.generation, now, "ArchivesChosen", said))
                return WRITTEN_MEANWHILE
            source = self._source(step, request, chosen[0][0].key[1] if chosen else None)
            self._check_secret(restore, request)
            order = restore_source.restore_order(restore, step.place, request, source)
            # Before the Job: of several archives of a period, one that is newer later must not be restored beside this.
            pinned = restore_status.aims(restore.status, step.place, source.archive, source.location)
            begun = JobView(step.job[1], Phase.RUNNING)
            status = restore_status.runs(pinned, restore.generation, now, begun)
            if not self._slots.take(step.job, restore):
                status = restore_status.waits(restore.status, restore.generation, now, "Queued", self._slots.why_not)
                return WRITTEN_MEANWHILE if self._write(restore, status) is None else WAIT_FOR_SLOT
            return self._create(step, request, order, restore_steps.serial(restore, step.place), status)
        except NotProven as waits:
            status = restore_status.waits(restore.status, restore.generation, now, "ArchiveNotProven", str(waits))
            return WRITTEN_MEANWHILE if self._write(restore, status) is None else RETRY_USER_ERROR
        except ClusterUnavailable:
            raise
        except PartwardenError as error:
            return self._fail(restore, error)

    def _start_drop(self, step: Step) -> float | None:
        """Create the Job that drops a table, or say why it stays."""
        restore, now = step.restore, self._clock()
        at, body = restore_steps.expires_at(restore), self._cluster.policy(restore.policy) if restore.policy else None
        if at is None or now < at:
            # It was to be dropped, and the Job is not there any more: meanwhile the spec says something else.
            status = restore_expiry.scheduled(restore.status, restore.generation, now, at)
            self._write(restore, status)
            return WRITTEN_MEANWHILE
        step = restore_steps.dropping(restore, step.place)
        try:
            # As they are now: a hold may not have been seen yet. One of the restore's own that comes after this keeps
            # the status from being written, and with that the Job from being made.
            if why := restore_steps.why_held(restore, parse_policy(body) if body else None):
                status = restore_expiry.kept(restore.status, restore.generation, now, [step.place], ("Held", why))
                return WRITTEN_MEANWHILE if self._write(restore, status) is None else AGAIN
            request = self._request(restore)
            source = self._source(step, request)
            if source.archive is not None:
                restore_source.check_whole(source.archive, self._cluster.archive((restore.key[0], source.archive)))
            order = restore_source.drop_order(restore, step.place, request, source, at)
            self._check_secret(restore, request)
            if not self._slots.take(step.job, restore):
                # Nothing waits for it, and so nothing is said.
                return WAIT_FOR_SLOT
            status = restore_expiry.drops(restore.status, restore.generation, now, step.place, step.job[1])
            return self._create(step, request, order, restore_steps.drop_serial(restore, step.place), status)
        except NotProven as waits:
            return self._keep(step, ("ArchiveNotProven", str(waits)))
        except ClusterUnavailable:
            raise
        except PartwardenError as error:
            return self._keep(step, (error.reason, str(error)))

    def _request(self, restore: StoredRestore) -> RestoreJobRequest:
        if not self._settings.job_image:
            raise InvalidSpec(
                "the operator has no image for Jobs: set PARTWARDEN_JOB_IMAGE to the image that it runs from"
            )
        policy = self._shard.policy(restore)
        return restore_source.resolve_restore_request(restore.spec, policy.spec if policy else None)

    def _choose(self, restore: StoredRestore, request: RestoreJobRequest) -> Ranged:
        """The archives of a period; none where they were chosen before, or there is no period. Raises `InvalidSpec`."""
        if request.spec.period is None or restore.status.get("archive"):
            return ()
        assert restore.policy is not None
        return restore_source.by_period(request, self._archives.indexed(restore.policy))

    def _source(self, step: Step, request: RestoreJobRequest, chosen: str | None = None) -> Source:
        """The archive, as it is now; ``chosen``: its name, where the status has none. Raises `InvalidSpec`,
        `NotProven`."""
        restore = step.restore
        if (placed := restore_source.by_location(request.spec)) is not None:
            return placed
        name = restore.archive[1] if restore.archive else chosen or str(step.part.get("archive"))
        return restore_source.by_archive(name, self._cluster.archive((restore.key[0], name)))

    def _check_secret(self, restore: StoredRestore, request: RestoreJobRequest) -> None:
        """Raises what the Job would end with, and says it without one."""
        reference = request.database.secret_ref
        secret = self._cluster.secret(restore.key[0], reference.name) if reference else None
        resolve(request.database, secret, reference.name if reference else None, ca_folder=self._settings.ca_folder)

    def _create(self, step: Step, request: RestoreJobRequest, order: JobOrder, serial: str, status: Status) -> float:
        """Write the status, then create the Job, whose slot is taken. Returns `POLL_JOB` where it exists now."""
        after = None
        try:
            reference = request.database.secret_ref
            body = manifest(
                step.owner,
                order,
                serial,
                settings=self._settings,
                database_secret=reference.name if reference else None,
                wanted=request.job,
            )
            written = self._write(step.restore, status)
            if written is None:
                return WRITTEN_MEANWHILE
            after = self._create_job(written, step.job[1], body, "spec.job, or retention.job of the policy")
            return after
        finally:
            if after != POLL_JOB:
                self._slots.release(step.job)

    def _follow(self, step: Step, job: Mapping[str, Any]) -> float | None:
        """Write down how the Job stands, or what came of it."""
        restore, name, now = step.restore, step.job[1], self._clock()
        if controller_of(job) != step.owner:
            # What it reports says nothing of this restore.
            error = NameTaken(f"Job {name} exists, and was not made for this restore: delete it")
            if step.task is Task.DROP:
                return self._keep(step, (error.reason, str(error)))
            self._fail(restore, error)
            return RETRY
        pods = self._cluster.pods(job)
        seen = view(job, pods, now)
        self._slots.saw(job, pods)
        if seen.phase is Phase.RUNNING:
            after = POLL_PENDING if is_pending_long(seen.idle, now) else POLL_JOB
            if step.task is Task.DROP:
                return after
            status = restore_status.runs(restore.status, restore.generation, now, seen)
            return WRITTEN_MEANWHILE if self._write(restore, status) is None else after
        status, succeeded = (_drop_result if step.task is Task.DROP else _result)(step, seen, now)
        if self._write(restore, status) is None:
            return WRITTEN_MEANWHILE
        self._ended(step.task, succeeded, seen.took)
        if not succeeded:
            return RETRY
        # The next archive, the next table, or until expireAfter is over.
        goes_on = restore_parts.next_part(status) is not None or "expireAfter" in restore.spec
        return WRITTEN_MEANWHILE if goes_on else None

    def _keep(self, step: Step, why: tuple[str, str]) -> float:
        """The table stays for now."""
        restore = step.restore
        log.warning("kept: %s", why[1], extra={"restore": str(restore), "reason": why[0]})
        self._write(
            restore,
            restore_expiry.kept(restore.status, restore.generation, self._clock(), [step.place], why, tried=True),
        )
        return RETRY

    def _parse(self, body: Mapping[str, Any]) -> StoredRestore:
        return parse_restore(body)

    def _failed(self, restore: StoredRestore, error: PartwardenError) -> Status:
        return restore_status.failed(restore.status, restore.generation, self._clock(), error)

    def _changed(self, before: Status, status: Status) -> list[Notice]:
        return restore_status.changed(before, status)


def _result(step: Step, seen: JobView, now: datetime) -> tuple[Status, bool]:
    """The status that follows from a Job that has ended, and whether there is a table."""
    restore, report = step.restore, seen.report
    before, generation = restore.status, restore.generation
    about = {"restore": str(restore)}
    if report is not None and report.ok and report.restored is not None and report.oid:
        log.info("restored %s.%s", report.restored.schema_, report.restored.name, extra={**about, "reason": "Restored"})
        return restore_status.restored(before, generation, now, report, seen), True
    reason, message = (seen.reason, seen.message) if seen.reason else (NO_REPORT, "the report names no table")
    error = errors.from_report(reason, message) or (reason, message)
    log.warning("%s: %s", reason, message, extra={**about, "reason": reason})
    return restore_status.failed(before, generation, now, error, job=seen.name, ended=seen.ended), False


def _drop_result(step: Step, seen: JobView, now: datetime) -> tuple[Status, bool]:
    """The status that follows from a Job that was to drop a table, and whether that is gone."""
    restore, report, part = step.restore, seen.report, step.part
    about = {"restore": str(restore)}
    if report is not None and report.ok and report.oid == part.get("oid"):
        log.info("dropped %s", part.get("table"), extra={**about, "reason": restore_parts.DROPPED})
        return restore_expiry.dropped(restore.status, restore.generation, now, step.place), True
    why = (seen.reason, seen.message) if seen.reason else (NO_REPORT, "the report is not of this table")
    log.warning("kept: %s", why[1], extra={**about, "reason": why[0]})
    return restore_expiry.kept(restore.status, restore.generation, now, [step.place], why, tried=True), False
