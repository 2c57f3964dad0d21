"""Which Events a change of a PartitionArchive's status is worth: what came to an end, and each new cause once. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .archive_conditions import is_proven, trouble
from .transitions import EventType, Notice, short


def changed(previous: Mapping[str, Any], status: Mapping[str, Any]) -> list[Notice]:
    """``Archived`` once it is proven, ``Verified`` at the end of each check that found all as it was, and a warning
    where something else than before is wrong."""
    notices = []
    if is_proven(status) and not is_proven(previous):
        message = f"{status.get('rows')} rows, {status.get('size')}, read back and equal: {status.get('location')}"
        notices.append(Notice(EventType.NORMAL, "Archived", short(message)))
    before, after = (each.get("check") or {} for each in (previous, status))
    if after.get("ok") and after.get("job") != before.get("job"):
        message = f"read again, and as it was proven: {status.get('location')}"
        notices.append(Notice(EventType.NORMAL, "Verified", short(message)))
    wrong = trouble(status)
    if wrong is not None and wrong != trouble(previous):
        notices.append(Notice(EventType.WARNING, wrong[0], short(wrong[1])))
    return notices
