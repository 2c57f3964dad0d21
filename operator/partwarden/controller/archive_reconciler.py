"""Reconcile one PartitionArchive: read it and its Job, create the Job that is due, write down the result.

::

    status                      Job of the step     what a reconcile does
    not proven                  none                pin the table in the status, then create Job `Archive`, or wait for
                                                    a slot (`job_slots`)
    not proven                  runs                phase, since when, and what its pod waits for
    not proven                  succeeded           proven: the report's facts
    proven, no check wanted     -                   nothing, but for what time alone makes due (`archive_schedule`):
                                                    create Job `Verify`; announce the deletion, then create Job `Expire`
    proven, a check wanted      none                create Job `Check`
    proven, a check wanted      ended               what the check found
    any                         failed              the cause, counted; the next Job after a pause

Everything that was decided can be read again from the cluster. A Job's name follows from what it is for, so that it is
never created twice; what it reports is in the status before the Job can vanish, and were it lost, the next Job finds
the archive at its destination and proves it instead of making it again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from .. import errors
from ..api.restore import RESTORE_PLURAL
from ..api.retention import Format
from ..api.types import ObjectKey
from ..archive.job_order import Report, Task
from ..archive.manifest import TableName
from ..archive.table_lookup import Target
from ..errors import (
    ClusterUnavailable,
    InvalidSpec,
    NameTaken,
    ParquetUnavailable,
    PartwardenError,
    TableThere,
    UserError,
)
from ..kube.cache import ArchiveCache, StoredArchive, StoredRestore, parse_archive, parse_policy, parse_restore
from ..kube.client import JOBS, Cluster
from ..planner.calendar import iso
from ..status.archives import FORMATS, without_parquet
from ..status.events import Notice
from . import archive_notices, archive_schedule, archive_status
from .archive_job import BESIDE, JobRequest, controller_of, manifest, resolve_job_request
from .archive_requests import ArchiveRequests
from .archive_steps import AGAIN, KEPT, Due, Step, due, job_spec, next_step
from .job_reconciler import POLL_JOB, POLL_PENDING, RETRY, WAIT_FOR_SLOT, WRITTEN_MEANWHILE, JobReconciler
from .job_slots import JobSlots
from .job_status import NO_REPORT, JobView, Phase, is_pending_long, view
from .settings import Settings
from .shard import Shard

log = logging.getLogger(__name__)

FINDINGS = (errors.ArchiveDamaged, errors.ContentsChanged, errors.DestinationNotFound, errors.DestinationDenied)
"""What a check finds out about the archive. Any other end of one says nothing of it, such as a wrong password."""


def unknown(archive: StoredArchive, request: JobRequest, due: datetime) -> None:
    """Where no database is asked, no table is known to be gone."""
    raise TableThere("no database is asked")


class ArchiveReconciler(JobReconciler[StoredArchive]):
    """Reconciles PartitionArchives."""

    def __init__(
        self,
        cluster: Cluster,
        cache: ArchiveCache,
        requests: ArchiveRequests,
        shard: Shard,
        slots: JobSlots,
        find: Callable[[StoredArchive, JobRequest], Target],
        settings: Settings,
        clock: Callable[[], datetime],
        ended: Callable[[Task, bool, float | None], None] = lambda task, succeeded, seconds: None,
        progress: Callable[[StoredArchive], int | None] = lambda archive: None,
        check_gone: Callable[[StoredArchive, JobRequest, datetime], None] = unknown,
        restores: Callable[[StoredArchive], Iterable[StoredRestore]] = lambda archive: (),
    ) -> None:
        """``find``: as `archive_database.find_table`. ``ended`` is called for each Job that has ended: its
        task, whether all was well, the seconds that it took. ``progress``: as `archive_database.ArchiveProgress.of`.
        ``check_gone``: as `archive_database.check_gone`. ``restores``: those that a watch has shown, and that
        may be of the archive."""
        super().__init__(cluster, slots, clock)
        self._cache, self._requests, self._shard = cache, requests, shard
        self._find, self._settings = find, settings
        self._ended, self._progress, self._check_gone = ended, progress, check_gone
        self._restores = restores

    def _reconcile(self, key: ObjectKey) -> float | None:
        known = self._cache.get(key)
        ours = self._shard.decided(known) if known is not None else None
        if ours is False:
            return None
        wanted = self._requests.wanted_check(key)
        # Where it is not certain that it is this operator's, `Shard.claims` finds out, also for the metrics.
        if ours and known is not None and next_step(known, wanted) is None:
            quiet = self._due(known)
            if quiet.step is None and quiet.news is None:
                # The API server is not asked, however many archives there are.
                return quiet.after
        # As it is now, not as a watch last showed it: what another replica wrote must not be missed.
        archive = self._cluster.archive(key)
        if archive is None:
            self._cache.remove(key)
            self._requests.forget(key)
            return None
        if not self._shard.claims(archive):
            return None
        step = next_step(archive, wanted)
        if step is None:
            found = self._due(archive)
            if found.news is not None:
                return WRITTEN_MEANWHILE if self._write(archive, found.news) is None else found.after
            if found.step is None:
                return found.after
            step = found.step
        job = self._cluster.get(JOBS, step.job)
        return self._start(step) if job is None else self._follow(step, job)

    def _due(self, archive: StoredArchive) -> Due:
        return due(archive, self._shard.policy(archive), self._clock(), self._restores)

    def _start(self, step: Step) -> float | None:
        """Create the Job if it may run now, or say in the status what keeps it from being created."""
        archive, now = step.archive, self._clock()
        if pause := archive_status.pause(archive.status, now):
            return pause
        policy = self._shard.policy(archive)
        if policy is None and not self._shard.claims(archive):
            # It has just moved to another operator, and is not deleted: nothing is missing.
            return None
        try:
            said, made_here = policy.spec if policy else None, archive.binding is not None
            request = resolve_job_request(archive.spec, said, made_here)
            if not self._settings.job_image:
                raise InvalidSpec(
                    "the operator has no image for Jobs: set PARTWARDEN_JOB_IMAGE to the image that it runs from"
                )
            if step.task is Task.ARCHIVE and Format.PARQUET in request.formats and not self._settings.job_parquet:
                own = request.spec.formats is not None
                raise ParquetUnavailable(without_parquet("spec.formats" if own else f"{FORMATS} of its policy"))
            if not self._slots.take(step.job, archive):
                if step.task in BESIDE:
                    # Nothing waits for it, and so nothing is said.
                    return WAIT_FOR_SLOT
                why = self._slots.why_not
                status = archive_status.waits(archive.status, archive.generation, now, "Queued", why)
                return WRITTEN_MEANWHILE if self._write(archive, status) is None else WAIT_FOR_SLOT
            after = None
            try:
                after = self._create(step, request)
                return after
            finally:
                if after != POLL_JOB:
                    self._slots.release(step.job)
        except ClusterUnavailable:
            raise
        except PartwardenError as error:
            return self._keep(archive, error) if step.task is Task.EXPIRE else self._fail(archive, error)

    def _create(self, step: Step, request: JobRequest) -> float:
        """Pin the table, then create the Job. Returns `POLL_JOB` where it exists now."""
        archive, reference = step.archive, request.database.secret_ref if step.task not in BESIDE else None
        target = self._target(step, request)
        body = manifest(
            step.owner,
            job_spec(step, request, target),
            step.serial,
            settings=self._settings,
            database_secret=reference.name if reference else None,
            wanted=request.job,
        )
        # The table is pinned before anything is made of it: a Job created first, and an operator killed before it wrote
        # the OID, would leave an archive that the next one takes for another table of that name.
        bounds = (iso(target.held.lower), iso(target.held.upper)) if target.held else target.bounds
        pinned = archive_status.aims(archive.status, target.partition.oid, bounds, target.server, target.bytes)
        begun = JobView(step.job[1], Phase.RUNNING)
        if step.task is Task.EXPIRE:
            pinned = archive_status.expires(pinned, self._clock(), begun.name)
        status = archive_status.runs(pinned, archive.generation, self._clock(), step.task, begun)
        # Only while it is as it was read: a hold that has come since keeps it from being written.
        written = self._write(archive, status)
        if written is None:
            return WRITTEN_MEANWHILE
        # Of a deletion that never began nothing was deleted: the archive counts again.
        refused = partial(self._keep, before=archive.status) if step.task is Task.EXPIRE else None
        return self._create_job(written, begun.name, body, "retention.job of the policy", refused)

    def _target(self, step: Step, request: JobRequest) -> Target:
        """The table: as the catalog has it, or, where no Job reads it, as the status has it. Raises a
        `PartwardenError`, and of an archive that is to be deleted where anything keeps that."""
        archive, status = step.archive, step.archive.status
        if step.task not in BESIDE:
            return self._find(archive, request)
        if step.task is Task.EXPIRE:
            # As it is now: a hold, an edit of the policy, or a restore may not have been seen yet.
            body = self._cluster.policy(archive.policy) if archive.policy else None
            elsewhere = [each for each in self._restores(archive) if each.key[0] != archive.key[0]]
            restores = [*elsewhere, *map(parse_restore, self._cluster.objects(RESTORE_PLURAL, archive.key[0]))]
            policy = parse_policy(body) if body else None
            case = archive_schedule.ExpiryCase(archive, policy, self._clock(), lambda: restores)
            if (kept := archive_schedule.unmet(case)) is not None:
                raise TableThere(f"{kept.message}; see annotation and spec.retention.archive of its policy")
            announced = archive_status.moment(status.get("expiresAt"))
            assert case.due is not None
            if announced is None:
                raise TableThere("its deletion was not announced, which comes first")
            # Safe: all that the policy demands is met, the archive was announced to be deleted a day ago, by the
            # server's clock too, and in the very database that it is of there is no table of its OID or its name that
            # could need it.
            self._check_gone(archive, request, max(case.due, announced))
        table = TableName(schema_=request.schema, name=request.spec.partition, oid=int(status.get("oid") or 0))
        return Target(table, server=str(status.get("server") or ""))

    def _follow(self, step: Step, job: Mapping[str, Any]) -> float | None:
        """Write down how the Job stands, or what came of it."""
        archive, now = step.archive, self._clock()
        if controller_of(job) != step.owner:
            # What it reports proves nothing of this archive.
            self._fail(archive, NameTaken(f"Job {step.job[1]} exists, and was not made for this archive: delete it"))
            return RETRY
        pods = self._cluster.pods(job)
        seen = view(job, pods, now)
        self._slots.saw(job, pods)
        if seen.phase is Phase.RUNNING:
            # While no pod runs there is nothing to see.
            dumps = step.task is Task.ARCHIVE and seen.idle is None
            dumped = self._progress(archive) if dumps else None
            status = archive_status.runs(archive.status, archive.generation, now, step.task, seen, dumped)
            after: float | None = POLL_PENDING if is_pending_long(seen.idle, now) else POLL_JOB
            return WRITTEN_MEANWHILE if self._write(archive, status) is None else after
        status, succeeded = _result(step, seen, now)
        if self._write(archive, status) is None:
            return WRITTEN_MEANWHILE
        self._ended(step.task, succeeded, seen.took)
        if step.task in BESIDE:
            return AGAIN
        return None if succeeded else RETRY

    def _keep(self, archive: StoredArchive, error: PartwardenError, before: Mapping[str, Any] | None = None) -> float:
        """Its objects are not deleted now. ``before``: the status to go on from; None for the one that it has."""
        log.warning("kept: %s", error, extra={"archive": str(archive), "reason": error.reason})
        pause = KEPT if isinstance(error, UserError) else timedelta(seconds=AGAIN)
        why = error.reason, str(error)
        said = archive.status if before is None else before
        self._write(archive, archive_status.kept(said, archive.generation, self._clock(), why, pause))
        return AGAIN

    def _parse(self, body: Mapping[str, Any]) -> StoredArchive:
        return parse_archive(body)

    def _failed(self, archive: StoredArchive, error: PartwardenError) -> archive_status.Status:
        return archive_status.failed(archive.status, archive.generation, self._clock(), error)

    def _changed(self, before: archive_status.Status, status: archive_status.Status) -> list[Notice]:
        return archive_notices.changed(before, status)


def is_whole(report: Report, status: Mapping[str, Any]) -> bool:
    """Whether it says all that a proof must, of the very table of the very server that the archive was begun for."""
    stated = report.sha256 and report.manifest_sha256 and report.location and report.fingerprint is not None
    return bool(stated) and (report.oid, report.server) == (status.get("oid"), status.get("server", ""))


def is_result(report: Report, status: Mapping[str, Any], alone: bool = False) -> bool:
    """Whether the check came to an end: the archive is there and as it was, or it is known what is wrong with it.
    ``alone``: no server was asked."""
    if report.ok:
        server = "" if alone else status.get("server", "")
        proven = (status.get("oid"), server, status.get("sha256"), status.get("manifestSha256"))
        return (report.oid, report.server, report.sha256, report.manifest_sha256) == proven
    return report.reason in {each.__name__ for each in FINDINGS}


def _result(step: Step, seen: JobView, now: datetime) -> tuple[archive_status.Status, bool]:
    """The status that follows from a Job that has ended, and whether the Job found all well."""
    before, generation, report = step.archive.status, step.archive.generation, seen.report
    about = {"archive": str(step.archive)}
    if step.task is Task.ARCHIVE and report is not None and report.ok and is_whole(report, before):
        log.info("archived %s", report.location, extra={**about, "reason": archive_status.PROVEN})
        return archive_status.proved(before, generation, now, report, seen.name, seen.took), True
    if step.task is Task.CHECK and report is not None and is_result(report, before):
        return archive_status.checked(before, generation, now, report, step.token, seen.name), report.ok
    if step.task is Task.VERIFY and report is not None and is_result(report, before, alone=True):
        return archive_status.verified(before, generation, now, report, seen.name), report.ok
    if step.task is Task.EXPIRE and report is not None and report.ok and is_result(report, before):
        log.info("deleted %s", report.location, extra={**about, "reason": archive_status.EXPIRED})
        return archive_status.expired(before, generation, now, seen.name, report.message), True
    reason, message = (seen.reason, seen.message) if seen.reason else (NO_REPORT, "the report is not of this table")
    if step.task is Task.EXPIRE:
        log.warning("not deleted: %s: %s", reason, message, extra={**about, "reason": reason})
        return archive_status.kept(before, generation, now, (reason, message), KEPT, seen.name), False
    error = errors.from_report(reason, message) or (reason, message)
    log.warning("%s: %s", reason, message, extra={**about, "reason": reason})
    return archive_status.failed(before, generation, now, error, job=seen.name, ended=seen.ended), False
