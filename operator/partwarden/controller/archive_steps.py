"""What is to be done next for an archive: the step that is due, and what its Job has to do. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from ..api.types import ObjectKey
from ..archive.job_order import JobSpec, Task
from ..archive.manifest import TableName
from ..archive.table_lookup import Target
from ..kube.cache import StoredArchive, StoredPolicy, StoredRestore
from . import archive_schedule, archive_status
from .archive_job import BESIDE, JobRequest, Owner
from .archive_job import name as job_name
from .restore_claims import BEING_RESTORED

AGAIN = 3600.0
"""Seconds until it is found out anew what time makes due: a policy may say something else by then."""
KEPT = timedelta(days=1)
"""Until another attempt is made to delete what must not be deleted, or could not be."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done next for an archive, by which Job. ``token``: of the check that is wanted."""

    archive: StoredArchive
    task: Task
    serial: str
    token: str = ""

    @property
    def owner(self) -> Owner:
        """The owner of the Job."""
        return Owner(*self.archive.key, self.archive.uid)

    @property
    def job(self) -> ObjectKey:
        """The Job's namespace and name."""
        return self.archive.key[0], job_name(self.owner, self.task, self.serial)


class Due(NamedTuple):
    """What time alone makes due: seconds until something is, None for never as things stand; the step that is; a status
    to write before."""

    after: float | None = None
    step: Step | None = None
    news: archive_status.Status | None = None


def next_step(archive: StoredArchive, wanted: str | None) -> Step | None:
    """The step that is due, None where all is done. ``wanted``: the token of the check that is asked for."""
    status = archive.status
    attempts, last = int(status.get("attempts") or 0), status.get("check") or {}
    if archive.expired:
        # Neither made anew nor read: it is gone, or going.
        return None
    if not archive_status.is_proven(status):
        return Step(archive, Task.ARCHIVE, str(attempts))
    if wanted is None or (last.get("token") == wanted and last.get("ok")):
        return None
    # After another check the same token means a new one: what was read before must not stand for it.
    return Step(archive, Task.CHECK, f"{wanted}/{attempts}/{last.get('job', '')}", wanted)


def due(
    archive: StoredArchive,
    policy: StoredPolicy | None,
    now: datetime,
    restores: Callable[[StoredArchive], Iterable[StoredRestore]] = lambda archive: (),
) -> Due:
    """What time alone makes due for an archive of which nothing else is wanted: seconds until something is, the step
    that is, or a status to write before. ``now`` is aware. ``restores``: that may be of an archive."""
    status, said = archive.status, archive_schedule.settings(policy)
    if not archive_status.is_proven(status) or "expired" in status or archive.policy is None:
        return Due()
    expiry, phase = status.get("expiry") or {}, status.get("phase")
    serial = f"{status.get('expiresAt', '')}/{expiry.get('attempts', 0)}"
    if phase == archive_status.PHASES[Task.EXPIRE]:
        # The Job is there, and ends; or all is asked again before it is made.
        return Due(AGAIN, Step(archive, Task.EXPIRE, serial))
    case = archive_schedule.ExpiryCase(archive, policy, now, partial(restores, archive))
    announced = archive_status.moment(status.get("expiresAt"))
    if (kept := archive_schedule.unmet(case)) is not None:
        if kept.reason == BEING_RESTORED:
            # All else is met: what keeps it is said.
            return Due(AGAIN, news=archive_status.announced(status, archive.generation, now, None, kept))
        if "expiresAt" in status or expiry.get("reason") == BEING_RESTORED:
            return Due(AGAIN, news=archive_status.announced(status, archive.generation, now, None))
    elif announced is None:
        at = now + archive_schedule.ANNOUNCED
        return Due(AGAIN, news=archive_status.announced(status, archive.generation, now, at))
    elif announced <= now:
        paused = archive_status.moment(expiry.get("nextAttempt"))
        if paused is None or paused <= now or paused > now + 2 * KEPT:
            return Due(AGAIN, Step(archive, Task.EXPIRE, serial))
    return _verification(archive, said[1].verify_every if said else None, bool(said and said[1].keep_for), now)


def _verification(archive: StoredArchive, every: str | None, keeps: bool, now: datetime) -> Due:
    """The same of the reading by schedule."""
    status = archive.status
    last = status.get("lastVerified") or status.get("completed"), (status.get("verification") or {}).get("job", "")
    step = Step(archive, Task.VERIFY, f"{'/'.join(map(str, last))}/{status.get('attempts', 0)}")
    if archive.expired:
        return Due(AGAIN)
    if status.get("phase") == archive_status.PHASES[Task.VERIFY]:
        # Also where the policy wants it no more: the Job is there, and ends.
        return Due(AGAIN, step)
    at = archive_schedule.verification_due(archive, every) if every else None
    if at is None:
        return Due(AGAIN if keeps else None)
    seconds = (at - now).total_seconds()
    return Due(AGAIN, step) if seconds <= 0 else Due(min(seconds, AGAIN))


def job_spec(step: Step, request: JobRequest, target: Target) -> JobSpec:
    """What the Job of the step has to do; ``target`` is the table as it was just found."""
    archive, table, checks = step.archive, target.partition, step.task is not Task.ARCHIVE
    status = archive.status
    # Unique among the archives of a partition, and the same however often its Job runs.
    own_id = f"{archive.key[1][:80].strip('-.')}-{hashlib.sha256(archive.uid.encode()).hexdigest()[:10]}"
    return JobSpec(
        task=step.task,
        id=str(status.get("id")) if checks else own_id,
        connection=request.database.connection if step.task not in BESIDE else None,
        parent=target.parent,
        server=target.server,
        partition=TableName(schema_=table.schema_, name=table.name, oid=table.oid),
        encoding=request.encoding,
        destination=request.spec.destination,
        large_objects=request.large_objects,
        compression=request.compression,
        compression_level=request.compression_level,
        formats=request.formats,
        location=str(status.get("location")) if checks else "",
        sha256=str(status.get("sha256")) if checks else "",
        manifest_sha256=str(status.get("manifestSha256")) if checks else "",
        begun="begun" in (status.get("expiry") or {}),
    )
