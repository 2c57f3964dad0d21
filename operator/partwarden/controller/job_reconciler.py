"""What reconcilers of objects that Jobs work for have in common: when they come back, how a status is written."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Generic, TypeVar

from ..api.types import ObjectKey
from ..errors import ClusterUnavailable, InsufficientPrivilege, InvalidSpec, PartwardenError, UserError
from ..kube.cache import StoredOfPolicy
from ..kube.client import JOBS, BadRequest, Cluster, Forbidden, Invalid
from ..status.events import Notice
from . import archive_status
from .archive_status import Status
from .job_slots import JobSlots

log = logging.getLogger(__name__)

WRITTEN_MEANWHILE = 1.0
"""Seconds after another writer has changed the object: what it wrote counts."""
POLL_JOB, POLL_PENDING = 10.0, 60.0
"""Seconds between two reconciles while a Job runs, whose pod may wait for something, or has waited for long; the watch
shows its end."""
WAIT_FOR_SLOT = 600.0
"""Seconds until an object asks again for a slot. It is woken when one is free: this is for what that misses."""
RETRY = 30.0
"""Seconds after what may pass."""
RETRY_USER_ERROR = archive_status.LONGEST_PAUSE.total_seconds() / 6
"""Seconds after what the user must correct, in case the cause was elsewhere."""

T = TypeVar("T", bound=StoredOfPolicy)


class JobReconciler(ABC, Generic[T]):
    """Reconciles objects of one kind, each with one thread at a time, as the work queue sees to."""

    _about = "archive"
    """What a line of the log calls the object: one of `settings.SUBJECTS`."""

    def __init__(self, cluster: Cluster, slots: JobSlots, clock: Callable[[], datetime]) -> None:
        self._cluster, self._slots, self._clock = cluster, slots, clock

    def reconcile(self, key: ObjectKey) -> float | None:
        """Act once. Returns the seconds until the next reconcile, None for when it is enqueued."""
        after: float | None = RETRY
        try:
            after = self._reconcile(key)
        except ClusterUnavailable as error:
            log.warning("%s", error, extra={self._about: "/".join(key), "reason": error.reason})
        finally:
            if after != WAIT_FOR_SLOT:
                self._slots.leave(key)
        return after

    @abstractmethod
    def _reconcile(self, key: ObjectKey) -> float | None:
        """Raises `ClusterUnavailable`."""

    @abstractmethod
    def _parse(self, body: Mapping[str, Any]) -> T:
        """The object as the API server shows it."""

    @abstractmethod
    def _failed(self, subject: T, error: PartwardenError) -> Status:
        """The status of an object for which no Job could be created."""

    @abstractmethod
    def _changed(self, before: Status, status: Status) -> list[Notice]:
        """The Events of a change of status."""

    def _create_job(
        self,
        subject: T,
        name: str,
        body: Mapping[str, Any],
        settings: str,
        refused: Callable[[T, PartwardenError], float] | None = None,
    ) -> float:
        """Returns `POLL_JOB` where the Job exists now. ``settings``: the field that says how it runs. ``refused``: what
        to do where the API server refuses it, and no Job exists; as `_fail` returns it."""
        try:
            if self._cluster.create(JOBS, body):
                log.info("created Job %s", name, extra={self._about: str(subject), "reason": "JobCreated"})
        except Forbidden as error:
            # A quota or an admission policy of the namespace, too: the status must not go on saying that a Job runs.
            why: UserError = InsufficientPrivilege(
                f"{error}: see quotas, admission policies and roles of the namespace"
            )
        except (Invalid, BadRequest) as error:
            why = InvalidSpec(f"{error}: see {settings}, and PARTWARDEN_JOB_IMAGE")
        else:
            return POLL_JOB
        return (refused or self._fail)(subject, why)

    def _fail(self, subject: T, error: PartwardenError) -> float:
        log.warning("%s", error, extra={self._about: str(subject), "reason": error.reason})
        self._write(subject, self._failed(subject, error))
        return RETRY_USER_ERROR if isinstance(error, UserError) else RETRY

    def _write(self, subject: T, status: Status) -> T | None:
        """Write the status if it is still as it was read, and record Events of what has changed.

        Returns None where the object is gone, or was written to: what another operator saw meanwhile, such as a proof,
        is never taken back by one that had read before.
        """
        before = subject.status
        if status == before:
            return subject
        written = self._cluster.write_status(subject, status, subject.version)
        if written is None:
            return None
        for notice in self._changed(before, status):
            try:
                self._cluster.record(subject, notice, self._clock())
            except ClusterUnavailable as error:
                log.warning("%s", error, extra={self._about: str(subject), "reason": error.reason})
        return self._parse(written)
