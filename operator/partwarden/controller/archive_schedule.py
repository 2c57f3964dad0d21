"""What time alone makes due for a proven archive: that it is read again, and that it is deleted. Pure.

Both are said by ``spec.retention.archive`` of the policy that the archive names, as it reads now. Without that policy
an archive is neither: what its author wanted is not known any more.
"""

from __future__ import annotations

import hashlib
from calendar import monthrange
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ..api import policy as api
from ..api.policy import Mode, PartitionPolicySpec
from ..api.retention import ArchiveSettings, Deletion
from ..api.types import parse_age
from ..api.validation import check
from ..kube.cache import StoredArchive, StoredPolicy, StoredRestore
from ..planner.drop_preconditions import Kept, server_label
from . import restore_claims
from .archive_status import is_proven, moment, reading

SPREAD = 0.25
"""The part of ``verifyEvery`` by which archives are read earlier, each by another part of it: those of one night do not
come back in one night."""
AFTER_FINDING = "1d"
"""Until an archive is read again that was found damaged, or could not be opened: that may be put right meanwhile."""
ANNOUNCED = timedelta(days=1)
"""Between the announcement of a deletion, in the status and as an Event, and the deletion."""
LATER = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
MONTHS = {"mo": 1, "y": 12}


def later(at: datetime, age: str) -> datetime | None:
    """``at``, which is aware, and an age, by the calendar in UTC: a day that the month has not is the first of the
    next. None beyond the calendar's end."""
    count, unit = parse_age(age)
    at = at.astimezone(UTC)
    try:
        if unit in LATER:
            return at + count * LATER[unit]
        year, month = divmod(at.year * 12 + at.month - 1 + count * MONTHS[unit], 12)
        if at.day <= monthrange(year, month + 1)[1]:
            return at.replace(year=year, month=month + 1)
        return at.replace(year=year + (month == 11), month=(month + 1) % 12 + 1, day=1)
    except (OverflowError, ValueError):
        return None


def settings(policy: StoredPolicy | None) -> tuple[PartitionPolicySpec, ArchiveSettings] | None:
    """The policy's spec, and what it says of archives; None where it says nothing, or is not valid."""
    spec = check(PartitionPolicySpec, policy.spec, "spec")[0] if policy is not None else None
    found = spec.retention.archive if spec is not None and spec.retention is not None else None
    return (spec, found) if spec is not None and found is not None else None


def last_verified(status: Mapping[str, Any]) -> datetime | None:
    """When the archive was last proven, also by a version that did not write that down."""
    return moment(status.get("lastVerified")) or moment(status.get("completed"))


def verification_due(archive: StoredArchive, every: str) -> datetime | None:
    """When it is to be read again; None: never, as its status does not say when it was proven.

    Never later than ``every`` after it was last read: by its UID, up to `SPREAD` of that earlier.
    """
    status = archive.status
    finding = status.get("verification") or {}
    if finding and finding.get("ok") is not True and (at := moment(finding.get("completed"))) is not None:
        return later(at, AFTER_FINDING)
    last = last_verified(status)
    latest = later(last, every) if last else None
    if last is None or latest is None:
        return None
    part = int.from_bytes(hashlib.sha256(archive.uid.encode()).digest()[:4]) / 2**32
    return latest - (latest - last) * SPREAD * part


@dataclass(frozen=True, slots=True)
class ExpiryCase:
    """All that the deletion of an archive's objects is decided from, but for its table. ``now`` is aware."""

    archive: StoredArchive
    policy: StoredPolicy | None
    now: datetime
    restores: Callable[[], Iterable[StoredRestore]] = tuple
    """Of whatever namespace: asked only where nothing else keeps it."""

    @property
    def status(self) -> dict[str, Any]:
        """Of the archive."""
        return self.archive.status

    @property
    def due(self) -> datetime | None:
        """When it may be deleted by ``keepFor``; None where that is never, or not known.

        Counted from the drop of its table, by which it became what is left of those rows, or from when it was made,
        where that is later: an archive that is not known to be all that is left has no such moment.
        """
        found, dropped = settings(self.policy), moment((self.status.get("dropped") or {}).get("at"))
        made = moment(self.status.get("completed"))
        if found is None or found[1].keep_for is None or dropped is None or made is None:
            return None
        return later(max(dropped, made), found[1].keep_for)


def is_allowed(case: ExpiryCase) -> Kept | None:
    """The policy says, as it reads now, that archives are deleted."""
    found = settings(case.policy)
    if case.policy is None or found is None or found[1].keep_for is None or found[1].deletion is not Deletion.ALLOWED:
        return Kept("NotAllowed", "its policy does not exist, or does not say keepFor and deletion: Allowed")
    if case.policy.suspended or found[0].mode is not Mode.APPLY:
        return Kept("NotAllowed", "its policy is suspended, or its spec.mode is not Apply")
    return None


def is_of_policy(case: ExpiryCase) -> Kept | None:
    """The operator made it for that very policy, with the database and the destination that this has now."""
    binding, found = case.archive.binding, settings(case.policy)
    assert found is not None
    spec, kept = found
    if binding is None or binding.database is None or case.archive.policy != (case.policy and case.policy.key):
        return Kept("NotOfPolicy", "a user made it, or its labels were changed")
    if binding.database.identity != spec.database.identity or binding.destination != kept.place:
        return Kept("NotOfPolicy", "it is of another database, or at another destination, than its policy names now")
    if server_label(str(case.status.get("server", ""))) != binding.server or binding.oid != case.status.get("oid"):
        return Kept("NotOfPolicy", "its status and its labels are not of the same table")
    return None


def is_last(case: ExpiryCase) -> Kept | None:
    """It was proven, is whole as far as is known, and its table was dropped: no drop waits for it any more."""
    status = case.status
    if not is_proven(status) or "dropped" not in status or "expired" in status:
        return Kept("TableThere", "it is not proven, or its table is not known to be dropped")
    if (said := reading(status)) and said.get("ok") is not True:
        return Kept("Damaged", f"it is not what was proven: {said.get('reason')}; find out why")
    return None


def is_not_held(case: ExpiryCase) -> Kept | None:
    """Nothing holds it: neither a label or annotation of its own, nor a hold of the policy on its table."""
    spec, policy = case.archive.spec, case.policy
    assert policy is not None
    schema = str(spec.get("schema") or (policy.spec.get("table") or {}).get("schema") or "public")
    called = api.names(schema, str(spec.get("partition")), int(case.status.get("oid") or 0))
    if case.archive.held or api.is_held(policy.held, called):
        return Kept("Held", f"{api.ANNOTATION} of it, or of its policy, holds it")
    return None


def is_over(case: ExpiryCase) -> Kept | None:
    """It was kept for as long as the policy wants."""
    due = case.due
    if due is None or case.now < due:
        return Kept("InRetention", "spec.retention.archive.keepFor of its policy is not over")
    return None


def is_not_restored(case: ExpiryCase) -> Kept | None:
    """No PartitionRestore that is not finished names it. One that comes after the deletion has begun is refused."""
    if "begun" in (case.status.get("expiry") or {}):
        return None
    spec = found[0] if (found := settings(case.policy)) is not None else None
    needed = next((each for each in case.restores() if restore_claims.needs(each, case.archive, spec)), None)
    if needed is not None:
        # Of what other namespaces hold their names are not said here.
        own = needed.key[0] == case.archive.key[0]
        which = f"PartitionRestore {needed}" if own else "a PartitionRestore of another namespace"
        return Kept(
            restore_claims.BEING_RESTORED,
            f"{which} is not finished, and is of it; {'delete that, or wait' if own else 'wait for that'}",
        )
    return None


EXPIRY_PRECONDITIONS: tuple[Callable[[ExpiryCase], Kept | None], ...] = (
    is_allowed,
    is_of_policy,
    is_last,
    is_not_held,
    is_over,
    is_not_restored,
)
"""In the order in which they are asked: each that follows may rely on those before. That its table is gone is asked of
the database after that, see `archive_database.check_gone`."""


def unmet(case: ExpiryCase) -> Kept | None:
    """Why the archive is kept; None where its deletion may be announced, and done a day later."""
    return next((kept for each in EXPIRY_PRECONDITIONS if (kept := each(case)) is not None), None)
