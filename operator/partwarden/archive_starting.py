"""Makes the Job that is due for a PartitionArchive, or says what keeps it from being made."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from . import archive_conditions as says
from . import dumping, poolers, targets
from .archive_step import Step, order_of, owner_of
from .archive_store import JobSlots, StoredArchive
from .archive_telling import Teller
from .archive_wish import ArchiveWish, resolve_wish
from .archives import server_label
from .cluster import Cluster
from .cluster_archives import ArchivesInCluster
from .connection import resolve
from .connections import Connections
from .errors import ClusterUnavailable, InvalidSpec, PartwardenError, TableChanged, UserError
from .job import Runtime, manifest
from .job_view import JobView, Phase
from .settings import Settings
from .sharding import Shard

log = logging.getLogger(__name__)

AGAIN = 1.0
"""Seconds after somebody else has written the status meanwhile: what he saw counts."""
LOOK_AGAIN = 10.0
"""Seconds between two looks at a Job that runs, whose pod may wait for something: its end is told by the watch."""
QUEUED = 15.0
"""Seconds until it is asked again whether another Job may run."""
RETRY = 30.0
"""Seconds after what could not be begun."""


class Starter:
    """Reads Secrets and the database's catalog, and creates Jobs."""

    def __init__(
        self,
        cluster: Cluster,
        shard: Shard,
        slots: JobSlots,
        settings: Settings,
        clock: Callable[[], datetime],
    ) -> None:
        self._cluster, self._api, self._teller = cluster, ArchivesInCluster(cluster), Teller(cluster, clock)
        self._shard, self._slots, self._settings, self._clock = shard, slots, settings, clock
        self._connections = Connections(settings.connect_timeout)

    def sweep(self) -> None:
        """Close connections that nobody uses."""
        self._connections.sweep()

    def stop(self) -> None:
        """No further connection to a database."""
        self._connections.close()

    def begin(self, archive: StoredArchive, step: Step, name: str) -> float | None:
        """Make the Job of that name, if it may be made now. Returns the seconds until the next look, None for never.

        Raises `ClusterUnavailable`; what else is in the way is told in the status.
        """
        status, now = archive.status, self._clock()
        if wait := says.pause(status, now):
            return wait
        try:
            policy = self._shard.policy(archive)
            if policy is None and not self._shard.claims(archive):
                # It has just moved, and is not gone: nothing that is missing may be told.
                return None
            wish = resolve_wish(archive.spec, policy.spec if policy else None)
            if not self._settings.job_image:
                raise InvalidSpec(
                    "the operator has no image for Jobs: set PARTWARDEN_JOB_IMAGE to the image that it runs from"
                )
            if not self._slots.take((archive.key[0], name), archive.key):
                message = f"{self._settings.jobs} Jobs run already, as many as PARTWARDEN_JOBS allows"
                self._teller.tell(archive, says.waits(status, archive.generation, now, "Queued", message))
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
        status = says.aims(archive.status, target.partition.oid, target.bounds, target.server)
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
        pinned = self._teller.tell(archive, says.runs(status, archive.generation, self._clock(), step.task, seen))
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
        self._teller.tell(archive, says.failed(archive.status, archive.generation, self._clock(), error))
        return says.LONGEST_PAUSE.total_seconds() / 6 if isinstance(error, UserError) else RETRY

    def _find(self, archive: StoredArchive, wish: ArchiveWish) -> targets.Target:
        reference = wish.database.secret_ref
        secret = self._cluster.secret(archive.key[0], reference.name) if reference else None
        info = resolve(wish.database, secret, reference.name if reference else None)
        oid = archive.status.get("oid") or wish.oid
        # As its Job would find out, but before there is one.
        poolers.check(info, self._settings.connect_timeout)
        with self._connections.lend(info) as connection:
            if client := self._settings.job_client:
                dumping.check_version(str(client), connection.info.parameter_status("server_version") or "")
            server = str(archive.status.get("server") or "")
            found = targets.find(connection, wish.schema, wish.name, oid, wish.encoding, server)
            connection.reusable = True
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
