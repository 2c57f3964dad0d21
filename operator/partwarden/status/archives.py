"""What a policy's status says of archives whose tables are dropped: which fail, and when they were last read. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ..api.status import MAX_FAILING, Summary
from ..planner.calendar import iso
from ..planner.findings import Finding
from ..planner.forecast import Failing, Measured
from .warnings import ARCHIVE_FAILING


def findings(failing: Sequence[Failing]) -> list[Finding]:
    """One for each archive: what it holds is held by nothing else."""
    text = "archive {}, whose table is dropped: {}: {}"
    return [Finding(ARCHIVE_FAILING, each.name, text.format(*each)) for each in failing]


def with_archives(summary: Summary, measured: Measured) -> Summary:
    """The summary, and what is known of the archives."""
    return summary.model_copy(
        update={
            "failing_archives": [f"{each.name}: {each.reason}" for each in measured.failing[:MAX_FAILING]],
            "oldest_verified_at": _to_the_second(measured.oldest_verified),
            "verification_due_at": _to_the_second(measured.verification_due),
        }
    )


def _to_the_second(moment: datetime | None) -> str | None:
    return iso(moment.replace(microsecond=0)) if moment else None
