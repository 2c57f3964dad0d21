"""What an archive's reconcile asks of its database: which table it is of, and how far the dump of it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime

from ..api.types import ObjectKey
from ..archive.manifest import TableName
from ..archive.table_lookup import Target
from ..errors import PartwardenError, TableChanged, TableThere
from ..kube.cache import StoredArchive
from ..kube.client import Cluster
from ..planner.calendar import iso
from ..planner.drop_preconditions import server_label
from ..planner.findings import join_names
from ..postgres.conninfo import ConnectionInfo, resolve
from . import database_work
from .archive_job import JobRequest, resolve_job_request
from .archive_status import DUMPED
from .database_process import WorkerDefect
from .database_work import Supervisor, TableSearch
from .dump_progress import CopySearch, find_copy
from .settings import Settings
from .shard import Shard

log = logging.getLogger(__name__)

EVERY, AFTER_FAILURE = 30.0, 600.0
"""Seconds between two questions for one archive: a Job that has ended by then is never asked for."""
WITHIN = 10.0
"""Seconds that an answer may take: the threads of archives are few."""
STEP = 5
"""Percent by which progress goes up: each is a write."""


def find_table(
    cluster: Cluster,
    settings: Settings,
    execute: Callable[[Callable[[TableSearch, Supervisor], Target], TableSearch, Supervisor], Target],
    archive: StoredArchive,
    request: JobRequest,
) -> Target:
    """Find the table of an archive by its Secret and the database's catalog. ``execute``: `DatabaseProcesses.run`.

    Raises a `PartwardenError`: `TableChanged` where it is not the table that the archive was begun for.
    """
    target = execute(database_work.find_table, _search(cluster, settings, archive, request), Supervisor())
    check_table(archive, request, target)
    return target


def check_gone(
    cluster: Cluster,
    settings: Settings,
    execute: Callable[..., tuple[tuple[TableName, ...], datetime]],
    archive: StoredArchive,
    request: JobRequest,
    due: datetime,
) -> None:
    """Check in the database that the archive's table is gone, by its OID and by its name, and that its objects are
    ``due`` to be deleted by the clock of that server, too: the operator's own may be wrong by years. ``execute``:
    `DatabaseProcesses.run` within a few seconds.

    Raises `TableThere` where it is not so, and a `PartwardenError` where that cannot be seen: nothing is deleted then.
    """
    wanted = _search(cluster, settings, archive, request)
    if not wanted.oid or not wanted.server:
        raise TableThere(f"the OID and the server of {request.schema}.{request.spec.partition} are not known")
    there, now = execute(database_work.find_remains, wanted, Supervisor())
    if there:
        names = join_names([f"{each} (OID {each.oid})" for each in there])
        raise TableThere(f"{names} exists, by the OID or the name of the archive's table: drop or rename it")
    if now < due:
        raise TableThere(f"by the clock of the database server it is {iso(now)}, and it is due at {iso(due)}")


def _search(cluster: Cluster, settings: Settings, archive: StoredArchive, request: JobRequest) -> TableSearch:
    return TableSearch(
        connection=_connection(cluster, settings, archive, request),
        connect_timeout=settings.connect_timeout,
        schema=request.schema,
        name=request.spec.partition,
        oid=archive.status.get("oid") or request.spec.oid,
        server=str(archive.status.get("server") or ""),
        encoding=request.encoding,
        client=settings.job_client,
    )


def check_table(archive: StoredArchive, request: JobRequest, target: Target) -> None:
    """Raises `TableChanged` where ``target`` is not the table that the archive is of."""
    table, oid = f"{request.schema}.{request.spec.partition}", archive.status.get("oid") or request.spec.oid
    if archive.binding and archive.binding.server != server_label(target.server):
        raise TableChanged(
            f"table {table} is not the one that this archive is of: that was on another server than "
            f"{target.server or 'this one, which the role may not ask for its identity'}; the policy has another "
            "PartitionArchive made for it"
        )
    if oid and target.partition.oid != oid:
        raise TableChanged(
            f"table {table} is not the one that this archive is of (OID {oid}, now {target.partition.oid}): it was "
            "made anew; make another PartitionArchive for it"
        )


class ArchiveProgress:
    """How far the dumps of Jobs are, by what the server says of COPY: no right to read a pod's log is needed.

    Safe for threads, as long as one archive is with one thread at a time.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        shard: Shard,
        execute: Callable[[Callable[[CopySearch, Supervisor], int | None], CopySearch, Supervisor], int | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``execute``: calls the function with its two arguments, within `WITHIN` seconds. ``clock``: in seconds."""
        self._cluster, self._settings, self._shard = cluster, settings, shard
        self._execute, self._clock = execute, clock
        self._due: dict[ObjectKey, float] = {}

    def of(self, archive: StoredArchive) -> int | None:
        """Percent of the rows, in steps of `STEP`, that the running Job has dumped, `DUMPED` once it proves the dump.

        None: it is not time to ask, or nothing is to be seen.
        """
        now, before = self._clock(), archive.status.get("progress")
        due = self._due.setdefault(archive.key, now + EVERY)
        if before == DUMPED or now < due:
            return None
        after = AFTER_FAILURE
        try:
            percent = self._ask(archive)
            after = EVERY
        except (PartwardenError, WorkerDefect) as error:
            log.debug("how far it is cannot be seen: %s", error, extra={"archive": str(archive)})
            return None
        finally:
            # Without those of Jobs that have ended since.
            self._due = {key: at for key, at in list(self._due.items()) if now - at < AFTER_FAILURE}
            self._due[archive.key] = now + after
        if percent is None:
            return None if before is None else DUMPED
        return max(int(before or 0), min(percent, DUMPED - 1) // STEP * STEP)

    def _ask(self, archive: StoredArchive) -> int | None:
        policy = self._shard.policy(archive)
        request = resolve_job_request(archive.spec, policy.spec if policy else None)
        search = CopySearch(
            connection=_connection(self._cluster, self._settings, archive, request),
            connect_timeout=self._settings.connect_timeout,
            oid=int(archive.status.get("oid") or 0),
        )
        return self._execute(find_copy, search, Supervisor())


def _connection(cluster: Cluster, settings: Settings, archive: StoredArchive, request: JobRequest) -> ConnectionInfo:
    reference = request.database.secret_ref
    secret = cluster.secret(archive.key[0], reference.name) if reference else None
    return resolve(request.database, secret, reference.name if reference else None, ca_folder=settings.ca_folder)
