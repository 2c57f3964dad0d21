"""Which archive a PartitionRestore is of, and the order of its Job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

from ..api.archive import TABLE_LABEL, PartitionArchiveSpec
from ..api.database import Database
from ..api.destination import Destination
from ..api.job_settings import JobSettings
from ..api.period import parse_period
from ..api.policy import PartitionPolicySpec
from ..api.restore import MOST_ARCHIVES, RESTORE_KIND, PartitionRestoreSpec
from ..api.validation import check
from ..archive import folder_names
from ..archive.job_order import DropOrder, RestoreOrder
from ..errors import ArchiveDamaged, InvalidSpec, TableKept
from ..kube.cache import StoredArchive, StoredRestore
from ..planner.calendar import BoundedRange, Grid, iso, merge, subtract
from ..planner.findings import join_names
from . import restore_parts
from .archive_job import resolve_database
from .archive_requests import label
from .archive_status import is_proven, reading

SHOWN = 10
"""Archives that a message names."""


class RestoreJobRequest(NamedTuple):
    """What a PartitionRestore asks for, completed by its policy."""

    spec: PartitionRestoreSpec
    database: Database
    policy: PartitionPolicySpec | None

    @property
    def parent(self) -> tuple[str, str] | None:
        """The table to attach to; None for the one that the archive's table belonged to."""
        return (self.policy.table.schema_, self.policy.table.name) if self.policy else None

    @property
    def job(self) -> JobSettings | None:
        """How its Jobs run: as those of the policy's archives, where it does not say."""
        retention = self.policy.retention if self.policy else None
        return self.spec.job or (retention.job if retention else None)


class Source(NamedTuple):
    """A proven archive. ``manifest_sha256`` is empty where nothing says it."""

    archive: str | None
    """Name of its PartitionArchive."""
    destination: Destination
    location: str
    manifest_sha256: str


class NotProven(Exception):
    """The archive is not proven yet."""


def resolve_restore_request(data: object, policy: object | None) -> RestoreJobRequest:
    """``data``: the spec of a stored PartitionRestore; ``policy``: that of its policy, None where there is none.

    Raises `InvalidSpec`.
    """
    spec, problems = check(PartitionRestoreSpec, data, "spec")
    if spec is None:
        raise InvalidSpec("; ".join(problems))
    found = check(PartitionPolicySpec, policy, "spec")[0] if policy is not None else None
    if found is None and spec.policy is not None and (spec.period is not None or spec.attach):
        # Else it would be attached to the table that the archive names, which the policy's need not be.
        raise InvalidSpec(
            f"spec.policy.name: PartitionPolicy {spec.policy.name!r} does not exist in this namespace, or is not "
            "valid, and says which period or table is meant: create it, or make another PartitionRestore"
        )
    return RestoreJobRequest(spec, resolve_database(spec.database, spec.policy, found, RESTORE_KIND), found)


def by_location(spec: PartitionRestoreSpec) -> Source | None:
    """The archive that the spec says the place of; None where it says none."""
    if (place := spec.location) is None:
        return None
    # Spelled as statuses of archives spell it: an archive that is about to be restored is known by its place.
    folder = "/".join(part for part in place.folder.split("/") if part)
    return Source(None, place.destination, f"{place.destination}/{folder}", place.manifest_sha256 or "")


Ranged = tuple[tuple[StoredArchive, BoundedRange], ...]
"""Archives with their ranges."""


class Selection(NamedTuple):
    """Proven archives of a policy: the newest one whose range is the period, and the newest of each range in it, the
    oldest range first, with those ranges."""

    exact: StoredArchive | None
    inside: Ranged


def select(policy: PartitionPolicySpec, text: str, archives: Iterable[StoredArchive]) -> Selection:
    """``archives``: that name the policy, in any order; those of another table are left out. ``text``: a period. Raises
    `UnknownTimeZone`."""
    wanted = {aware: period_range(policy, text, aware) for aware in (True, False)}
    newest: dict[tuple[str, str], tuple[StoredArchive, BoundedRange]] = {}
    # Each is read once: a namespace may have thousands of restores and of archives.
    read = ((each, each.status) for each in archives)
    for each, status in sorted(read, key=lambda pair: (str(pair[1].get("completed") or ""), pair[0].key)):
        held = _range(status) if is_proven(status) and not each.expired else None
        if held is None or not _is_of(each, status, policy):
            continue
        whole = wanted[held.lower.tzinfo is not None]
        if whole.lower <= held.lower and held.upper <= whole.upper:
            newest[held.lower.isoformat(), held.upper.isoformat()] = each, held
    inside = tuple(newest[key] for key in sorted(newest, key=lambda key: _order(newest[key][1])))
    exact = [each for each, held in inside if held == wanted[held.lower.tzinfo is not None]]
    return Selection(exact[0] if exact else None, inside)


def _is_of(archive: StoredArchive, status: Mapping[str, Any], policy: PartitionPolicySpec) -> bool:
    """Whether it is of the policy's table, as far as that is known. A policy of that name may have had another table;
    and what a user archived has no label, and may be of any table of the database: its folder says of which."""
    table = policy.table
    if (said := archive.labels.get(TABLE_LABEL)) is not None:
        return said == label(str(table))
    found = folder_names.table_of(str(status.get("location") or ""))
    return found in (None, folder_names.table_part(table.schema_, table.name))


def by_period(request: RestoreJobRequest, archives: Iterable[StoredArchive]) -> Ranged:
    """The newest proven archive whose range is the period, else all that make it up, the oldest range first. Raises
    `InvalidSpec` where there is none, and where they leave a hole, overlap, or cannot all become one table."""
    spec, policy = request.spec, request.policy
    assert spec.period is not None
    assert spec.policy is not None
    assert policy is not None
    found = select(policy, spec.period, archives)
    if found.exact is not None:
        return tuple((each, held) for each, held in found.inside if each.key == found.exact.key)
    if not found.inside:
        raise InvalidSpec(
            f"spec.period: no proven archive of policy {spec.policy.name!r} is of {spec.period}: see "
            "kubectl get partitionarchives -o wide for those that there are"
        )
    if why := why_ambiguous(found) or why_incomplete(policy, spec.period, found):
        raise InvalidSpec(
            f"spec.period: {why}; make another PartitionRestore of a shorter period, or one for each archive, by "
            f"spec.archive, as `kubectl partwarden restore {spec.period} {spec.policy.name}` does"
        )
    if len(found.inside) > MOST_ARCHIVES:
        raise InvalidSpec(
            f"spec.period: {len(found.inside)} archives make up {spec.period}, and {MOST_ARCHIVES} is the most: make "
            "others of shorter periods"
        )
    if len(found.inside) > 1 and spec.as_ is not None and spec.as_.name is not None:
        raise InvalidSpec(
            f"spec.as.name: {len(found.inside)} archives make up {spec.period}, and each becomes a table: make another "
            "PartitionRestore without that name, so that each is called as its partition was, in spec.as.schema; or "
            "with attach: true"
        )
    return found.inside


def why_ambiguous(found: Selection) -> str | None:
    """Which archives hold the same, or in no known order; None where there are none."""
    if len({held.lower.tzinfo is not None for _, held in found.inside}) > 1:
        return "of its archives some have bounds with a time zone, and some without"
    for (one, held), (other, following) in pairwise(found.inside):
        if following.lower < held.upper:
            return f"archives {one.key[1]} and {other.key[1]} overlap: {_span(held)} and {_span(following)}"
    return None


def why_incomplete(policy: PartitionPolicySpec, period: str, found: Selection) -> str | None:
    """What of the period no archive holds, where some hold the rest; None where they hold all."""
    whole = period_range(policy, period, found.inside[0][1].lower.tzinfo is not None)
    if holes := subtract(whole, merge(held for _, held in found.inside)):
        there = join_names([each.key[1] for each, _ in found.inside][:SHOWN])
        return (
            f"no proven archive of the policy holds {join_names([_span(each) for each in holes][:SHOWN])}; {there} do"
        )
    return None


def _order(held: BoundedRange) -> tuple[datetime, datetime]:
    return held.lower.replace(tzinfo=None), held.upper.replace(tzinfo=None)


def _span(held: BoundedRange) -> str:
    return f"[{iso(held.lower)}, {iso(held.upper)})"


def by_archive(name: str, archive: StoredArchive | None) -> Source:
    """The archive of that name. Raises `InvalidSpec` where there is none, and `NotProven`."""
    if archive is None:
        raise InvalidSpec(
            f"PartitionArchive {name!r} does not exist in this namespace: correct the name in another "
            "PartitionRestore, or name the archive by spec.location"
        )
    status = archive.status
    if "expired" in status:
        raise InvalidSpec(
            f"PartitionArchive {name} is the record of an archive that was deleted by keepFor of its policy: there is "
            "nothing to restore"
        )
    if archive.expired:
        # What is left is not known. A destination that refuses the deletion still has all of it.
        raise InvalidSpec(
            f"PartitionArchive {name}: the deletion of its archive has begun, by keepFor of its policy; as long as its "
            f"manifest.json is there, it can be restored by spec.location: {status.get('location')}"
        )
    if not is_proven(status):
        raise NotProven(
            f"PartitionArchive {name} is not proven yet: kubectl describe partitionarchive {name} says what it waits "
            "for"
        )
    spec, problems = check(PartitionArchiveSpec, archive.spec, "spec")
    if spec is None:
        raise InvalidSpec(f"PartitionArchive {name}: {'; '.join(problems)}")
    return Source(name, spec.destination, str(status.get("location")), str(status.get("manifestSha256")))


def check_whole(name: str, archive: StoredArchive | None) -> None:
    """Raises `ArchiveDamaged` where the last reading of the archive found it damaged: nothing is dropped for it."""
    if archive is not None and (found := reading(archive.status)) and found.get("ok") is not True:
        raise ArchiveDamaged(f"PartitionArchive {name} is not what was proven: {found.get('reason')}; find out why")


def restore_order(restore: StoredRestore, place: int, request: RestoreJobRequest, source: Source) -> RestoreOrder:
    """What the Job has to do that restores that part."""
    table = request.spec.as_
    return RestoreOrder(
        uid=restore_parts.mark_of(restore, place),
        # Not as the Jobs of archives do: they may read from elsewhere, and this one writes. A pooler is no obstacle.
        connection=request.database.connection,
        destination=source.destination,
        location=source.location,
        manifest_sha256=source.manifest_sha256,
        schema_=table.schema_ if table else None,
        name=table.name if table else None,
        attach=request.spec.attach,
        parent=request.parent,
    )


def drop_order(
    restore: StoredRestore, place: int, request: RestoreJobRequest, source: Source, due: datetime
) -> DropOrder:
    """What the Job has to do that drops the table of that part. Raises `TableKept` where the archive is not the one
    that it was restored from, as far as the cluster knows."""
    part = restore_parts.parts(restore.status)[place]
    restored = part.get("location"), part.get("manifestSha256")
    if not restored[1] or source.manifest_sha256 not in ("", restored[1]) or source.location != restored[0]:
        raise TableKept(
            f"table {part.get('table')} is kept: {source.archive or source.location} is another archive than the one "
            "that it was restored from"
        )
    return DropOrder(
        uid=restore_parts.mark_of(restore, place),
        connection=request.database.connection,
        destination=source.destination,
        table=str(part.get("table")),
        oid=int(part["oid"]),
        server=str(part.get("server") or ""),
        location=source.location,
        manifest_sha256=str(restored[1]),
        due=due,
    )


def period_range(policy: PartitionPolicySpec, text: str, aware: bool) -> BoundedRange:
    """The period in the policy's calendar. ``aware``: as for `Grid.of`."""
    period, at = parse_period(text), Grid.of(policy, aware=aware).moment
    return BoundedRange(at(period.first), at(period.beyond))


def _range(status: Mapping[str, Any]) -> BoundedRange | None:
    """The bounds in a status; None where it has none, or what another wrote there is none."""
    try:
        lower, upper = (datetime.fromisoformat(str(status.get(name))) for name in ("from", "to"))
    except ValueError:
        return None
    return BoundedRange(lower, upper) if (lower.tzinfo is None) == (upper.tzinfo is None) else None
