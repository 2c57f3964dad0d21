"""The Events of a change in the status of a PartitionArchive. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..status.conditions import TRUE
from ..status.events import EventType, Notice, short
from .archive_status import EXPIRED, VERIFIED, expiry_conditions, is_proven, reading, trouble


def changed(previous: Mapping[str, Any], status: Mapping[str, Any]) -> list[Notice]:
    """The Events of a change of status.

    ``Archived`` once it is proven, ``Verified`` at the end of each check that found all as it was, and a warning where
    something else than before is wrong.
    """
    notices, location = [], status.get("location")
    if is_proven(status) and not is_proven(previous):
        message = f"{status.get('rows')} rows, {status.get('size')}, read back and equal: {location}"
        notices.append(Notice(EventType.NORMAL, "Archived", short(message)))
    before, after = (each.get("check") or {} for each in (previous, status))
    if after.get("ok") and after.get("job") != before.get("job"):
        notices.append(Notice(EventType.NORMAL, "Verified", short(f"read again, and as it was proven: {location}")))
    read = [(each.get("verification") or {}).get("job") for each in (previous, status)]
    if read[0] != read[1] and reading(status).get("ok") is True and status.get("verification"):
        notices.append(Notice(EventType.NORMAL, VERIFIED, short(f"read again, and as it was proven: {location}")))
    notices += _expiry_notices(previous, status)
    wrong = trouble(status)
    if wrong is not None and wrong != trouble(previous):
        notices.append(Notice(EventType.WARNING, wrong[0], short(wrong[1])))
    return notices


def _expiry_notices(previous: Mapping[str, Any], status: Mapping[str, Any]) -> list[Notice]:
    before, after = expiry_conditions(previous).get(EXPIRED), expiry_conditions(status).get(EXPIRED)
    if after is None or before == after:
        return []
    done = after.status is TRUE
    return [Notice(EventType.NORMAL if done else EventType.WARNING, after.reason, short(after.message))]
