"""One PartitionArchive: look at it and its Job, make a Job where one is needed, write down what came of it.

Everything that was decided can be seen again in the cluster. A Job's name follows from what it is for, so that nobody
makes it twice; what it reports is in the status before the Job can vanish, and were it lost, the next Job finds the
archive at its destination and proves it instead of making it again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from . import archive_conditions as says
from . import errors
from .archive_starting import AGAIN, LOOK_AGAIN, RETRY, Starter
from .archive_step import Step, is_result, is_whole, next_step, owner_of
from .archive_store import ArchiveStore, JobSlots, StoredArchive, parse
from .archive_telling import Teller
from .cluster import Cluster
from .cluster_archives import ArchivesInCluster
from .errors import ClusterUnavailable, NameTaken, PartwardenError
from .job import belongs
from .job import name as job_name
from .job_view import NO_REPORT, JobView, Phase, percent, view, working
from .order import Task
from .settings import Settings
from .sharding import Shard
from .store import is_gone
from .workqueue import Key

log = logging.getLogger(__name__)


class Tender:
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
        self._api, self._teller = ArchivesInCluster(cluster), Teller(cluster, clock)
        self._shard, self._archives, self._slots, self._clock = shard, archives, slots, clock
        self._starter = Starter(cluster, shard, slots, settings, clock)

    def tend(self, key: Key) -> float | None:
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
            archive = parse(body)
            if not self._shard.claims(archive):
                return None
            step = next_step(archive.status, self._archives.wanted_check(key))
            return None if step is None else self._take(archive, step)
        except ClusterUnavailable as error:
            log.warning("%s", error, extra={"archive": "/".join(key), "reason": error.reason})
            return RETRY
        finally:
            self._starter.sweep()

    def stop(self) -> None:
        """No further connection to a database."""
        self._starter.stop()

    def _take(self, archive: StoredArchive, step: Step) -> float | None:
        name = job_name(owner_of(archive), step.task, step.serial)
        job = self._api.job(archive.key[0], name)
        if job is None:
            return self._starter.begin(archive, step, name)
        if not belongs(job, owner_of(archive)):
            # What it reports proves nothing of this archive.
            taken = NameTaken(f"Job {name} exists, and was not made for this archive: delete it")
            status = says.failed(archive.status, archive.generation, self._clock(), taken)
            return self._tell(archive, status, RETRY)
        pods, now = self._api.pods(job), self._clock()
        seen = view(job, pods, now)
        self._slots.saw((archive.key[0], name), seen.phase is Phase.RUNNING, archive.key)
        if seen.phase is Phase.RUNNING:
            pod = working(pods) if step.task is Task.ARCHIVE else None
            far = percent(self._api.last_line(pod)) if pod else None
            status = says.runs(archive.status, archive.generation, now, step.task, seen, far)
            return self._tell(archive, status, LOOK_AGAIN)
        return self._conclude(archive, step, seen)

    def _conclude(self, archive: StoredArchive, step: Step, seen: JobView) -> float | None:
        status, succeeded = self._result(archive, step, seen)
        after = self._tell(archive, status, None if succeeded else RETRY)
        if after != AGAIN:
            self._ended(step.task, succeeded, seen.took)
        return after

    def _result(self, archive: StoredArchive, step: Step, seen: JobView) -> tuple[says.Status, bool]:
        """The status that follows from a Job that has ended, and whether the Job found all well."""
        before, generation, now = archive.status, archive.generation, self._clock()
        report = seen.report
        if step.task is Task.ARCHIVE and report is not None and report.ok and is_whole(report, before):
            log.info("archived %s", report.location, extra={"archive": str(archive), "reason": says.PROVEN})
            return says.proved(before, generation, now, report, seen.name), True
        if step.task is Task.CHECK and report is not None and is_result(report, before):
            return says.checked(before, generation, now, report, step.token, seen.name), report.ok
        reason, message = (seen.reason, seen.message) if seen.reason else (NO_REPORT, "the report is not of this table")
        known = getattr(errors, reason, None)
        told = known(message) if isinstance(known, type) and issubclass(known, PartwardenError) else (reason, message)
        log.warning("%s: %s", reason, message, extra={"archive": str(archive), "reason": reason})
        return says.failed(before, generation, now, told, job=seen.name, ended=seen.ended), False

    def _tell(self, archive: StoredArchive, status: says.Status, after: float | None) -> float | None:
        """Write the status; ``after``: the seconds until the next look, where nobody else has written it meanwhile."""
        return AGAIN if self._teller.tell(archive, status) is None else after
