"""What the condition ArchivesHealthy says: False where somebody must look at an archive, or at a table of one."""

from __future__ import annotations

from collections.abc import Sequence

from .actions import Outcome
from .errors import ContentsChanged
from .gating import Waiting
from .policy import TableSpec
from .status import ConditionStatus


def health(spec: TableSpec, waiting: Waiting, outcomes: Sequence[Outcome]) -> tuple[ConditionStatus, str, str]:
    """Status, reason and message. What is only waited for is told by the reason, while the status is True."""
    changed = [(each.error.reason, str(each.error)) for each in outcomes if isinstance(each.error, ContentsChanged)]
    if wrong := [*((each.reason, each.message) for each in waiting.troubles), *changed]:
        more = f" (and {len(wrong) - 1} more: see status.findings)" if len(wrong) > 1 else ""
        return ConditionStatus.FALSE, wrong[0][0], f"{wrong[0][1]}{more}"
    if waiting.notes:
        # What a person must do stands last, and is told first.
        told = "; ".join(each.message for each in reversed(waiting.notes))
        return ConditionStatus.TRUE, waiting.notes[-1].reason, told
    if spec.retention is None or spec.retention.archive is None:
        return ConditionStatus.TRUE, "NoArchive", "spec.retention.archive is not set"
    return ConditionStatus.TRUE, "NothingWaits", "no expired partition waits for an archive, and no archive is wrong"
