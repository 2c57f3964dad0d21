"""The parts of a PartitionRestore, each an archive and the table that it becomes: how its status holds them. Pure.

One archive stands in the status itself. Several, that make a period up, stand in its list ``archives``; then the status
sums them up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from ..kube.cache import StoredArchive, StoredRestore
from ..planner.calendar import BoundedRange, iso
from .archive_status import Status

WAITING, RESTORING, FAILED, RESTORED = "Waiting", "Restoring", "Failed", "Restored"
DROPPING, DROPPED, KEPT = "Dropping", "Dropped", "Kept"
MOST = 200
"""Characters of a text about one of several."""
PART = (
    *("archive", "location", "manifestSha256", "table", "oid", "attachedTo", "rows", "leftOff", "leftOffCount"),
    *("server", "completed", "dropped", "expiry"),
)
"""Fields of the status that say what became of an archive."""


def parts(status: Mapping[str, Any]) -> list[Status]:
    """All of them, one at least, the oldest range first."""
    archives = status.get("archives") or []
    return [dict(each) for each in archives] or [{key: status[key] for key in PART if key in status}]


def is_one_of_several(status: Mapping[str, Any]) -> bool:
    """Whether there is a list."""
    return bool(status.get("archives"))


def with_part(status: Mapping[str, Any], place: int, part: Mapping[str, Any]) -> Status:
    """The status with another part at that place."""
    if not is_one_of_several(status):
        return {**{key: value for key, value in status.items() if key not in PART}, **part}
    found = parts(status)
    found[place] = _short({**part, "state": part_state(part)})
    made = [each for each in found if each.get("oid")]
    summed: Status = {**status, "archives": found, "archive": f"{len(found)} archives"}
    if made:
        summed |= {"table": f"{len(made)} tables", "rows": sum(int(each.get("rows") or 0) for each in made)}
        summed["completed"] = max(str(each.get("completed") or "") for each in made)
    if left_off := sum(int(each.get("leftOffCount") or 0) for each in made):
        summed["leftOffCount"] = left_off
    return summed


def _short(part: Status) -> Status:
    """One of several: a status has room for all."""
    if "leftOff" in part:
        part = {**part, "leftOff": [each[:MOST] for each in part["leftOff"][:2]]}
    if "message" in (expiry := part.get("expiry") or {}):
        part = {**part, "expiry": {**expiry, "message": expiry["message"][:MOST]}}
    return part


def with_parts(status: Mapping[str, Any], archives: Iterable[tuple[StoredArchive, BoundedRange]]) -> Status:
    """The status of a restore of several archives, whose ranges are given, before the first is restored."""
    chosen = [
        {"archive": each.key[1], "from": iso(held.lower), "to": iso(held.upper), "state": WAITING}
        for each, held in archives
    ]
    return {**status, "archives": chosen, "archive": f"{len(chosen)} archives"}


def part_state(part: Mapping[str, Any]) -> str:
    """One word, as in the status of a restore."""
    expiry = part.get("expiry") or {}
    if not part.get("oid"):
        return str(part.get("state") or WAITING)
    if "dropped" in part:
        return DROPPED
    return DROPPING if "job" in expiry else KEPT if "reason" in expiry else RESTORED


def next_part(status: Mapping[str, Any]) -> int | None:
    """The place of the part that is restored next, or is being restored; None: all are."""
    return next((place for place, part in enumerate(parts(status)) if not part.get("oid")), None)


def is_restored(status: Mapping[str, Any]) -> bool:
    """Whether all tables were made, for good: none is made any more."""
    return next_part(status) is None


def mark_of(restore: StoredRestore, place: int) -> str:
    """What the table's mark says that it was made for: the UID of the restore, and, of several, which archive. All of
    one restore have the same length: none is a part of another."""
    if not is_one_of_several(restore.status):
        return restore.uid
    archive = str(parts(restore.status)[place].get("archive"))
    return f"{restore.uid}/{hashlib.sha256(archive.encode()).hexdigest()[:16]}"
