"""What a policy's status says of its archives: which fail or go whose tables are dropped, when they were read, and why
none can be made. Pure."""

from __future__ import annotations

from datetime import datetime

from ..api.archive import HOLD
from ..api.policy import TableSpec
from ..api.status import MAX_FAILING, Summary
from ..errors import ParquetUnavailable
from ..planner.calendar import iso
from ..planner.findings import Finding
from ..planner.forecast import Measured
from ..planner.plan_gate import most_retirements
from .warnings import ARCHIVE_FAILING, ARCHIVES_EXPIRING

FORMATS = "spec.retention.archive.formats"


def findings(spec: TableSpec, measured: Measured) -> list[Finding]:
    """One for each archive that fails, since what it holds is held by nothing else; and one where more are to be
    deleted at once than partitions may be retired, as after a slip of the pen in ``keepFor``."""
    text = "archive {}, whose table is dropped: {}: {}"
    found = [Finding(ARCHIVE_FAILING, each.name, text.format(*each)) for each in measured.failing]
    if measured.expiring > (most := most_retirements(spec)):
        message = (
            f"{measured.expiring:,} archives are to be deleted for good, more than {most:,} at once, the first at "
            f"{_to_the_second(measured.first_expiry)}: spec.retention.archive.keepFor of each is over; if that is not "
            f"meant, correct it, take deletion: Allowed away, or annotate PartitionArchives with {HOLD}"
        )
        found.append(Finding(ARCHIVES_EXPIRING, "spec.retention.archive", message))
    return [*found, *(Finding(*each) for each in unmakeable(measured))]


def unmakeable(measured: Measured) -> list[tuple[str, str, str]]:
    """Reason, field and message, where no archive could be made as the policy wants it. It is said before any is due:
    the day on which a partition expires is too late to learn of it."""
    return [(ParquetUnavailable.__name__, FORMATS, without_parquet(FORMATS))] if measured.no_parquet else []


def without_parquet(field: str) -> str:
    """What to do where the field asks for what the image of Jobs cannot make."""
    return (
        f"{field} asks for Parquet, and the image of the operator's Jobs has no pyarrow (PARTWARDEN_JOB_PARQUET is not "
        "true): install the image with the suffix -parquet (image.variant: parquet in the chart), or take Parquet out "
        "of formats; until then no archive is made"
    )


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
