"""What is due next for a PartitionArchive, what its Job is told, and whether a report is of it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import archive_conditions as says
from . import errors
from .archive_store import StoredArchive
from .archive_wish import ArchiveWish
from .job import Owner
from .order import Order, Task
from .record import Report, TableName
from .targets import Target

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
    if not says.is_proven(status):
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


def order_of(archive: StoredArchive, step: Step, wish: ArchiveWish, target: Target) -> Order:
    """What the Job of the step is told; ``target`` is the table as it was just found."""
    status = archive.status
    checks = step.task is Task.CHECK
    return Order(
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
