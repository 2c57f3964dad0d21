"""Which archives a PartitionRestore that is not finished needs: those are not deleted. Pure."""

from __future__ import annotations

from ..api.policy import PartitionPolicySpec
from ..api.restore import PartitionRestoreSpec
from ..api.validation import check
from ..errors import UnknownTimeZone
from ..kube.cache import StoredArchive, StoredRestore
from . import restore_parts, restore_source

BEING_RESTORED = "BeingRestored"
"""Why an archive is kept."""


def needs(restore: StoredRestore, archive: StoredArchive, policy: PartitionPolicySpec | None) -> bool:
    """Whether the restore makes, or is about to make, a table of that archive, or drops one whose rows the archive has.
    ``policy``: the archive's, as far as it is valid."""
    wanted = [
        part
        for part in restore_parts.parts(restore.status)
        if not part.get("oid") or ("job" in (part.get("expiry") or {}) and "dropped" not in part)
    ]
    spec = check(PartitionRestoreSpec, restore.spec, "spec")[0] if wanted else None
    if spec is None:
        return False
    if (placed := restore_source.by_location(spec)) is not None:
        return _parts(placed.location) == _parts(str(archive.status.get("location") or ""))
    if restore.key[0] != archive.key[0]:
        return False
    named = {spec.archive.name} if spec.archive else {part["archive"] for part in wanted if "archive" in part}
    if named:
        return archive.key[1] in named
    if spec.period is None or restore.policy != archive.policy or policy is None:
        return False
    try:
        return bool(restore_source.select(policy, spec.period, [archive]).inside)
    except UnknownTimeZone:
        return False


def _parts(location: str) -> list[str]:
    """Of the place's URL, as it is read: a destination may be spelled in several ways."""
    return [part for part in location.split("/") if part not in ("", ".")]
