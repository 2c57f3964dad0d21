"""How bad each finding is: whether it keeps a policy from being Ready, is a warning beside that, or a notice. Pure.

Ready says whether the table is covered as the policy wants, so an error is one of severity Error only where it keeps
partitions from being made. What keeps retention or upkeep from going on is a warning: the table is covered, and
something is stuck that a user would want to know of. Both are tried again alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .. import errors
from ..api.status import MAX_FINDINGS, MAX_WARNINGS, FindingStatus, Severity
from ..errors import DefaultHasRows, DetachPending
from ..planner.actions import Outcome
from ..planner.conversion_steps import CHECK_STANDS, RESTS, WILL_CHANGE
from ..planner.drop_preconditions import APPROVAL
from ..planner.findings import Finding
from ..planner.maintenance import TOO_LARGE
from ..planner.plan import CREATIONS, Plan
from ..planner.retirement import ANNOTATION_TOO_LONG, HOLD_MATCHES_NOTHING, LEFT_ALONE

OUTAGE = "spec.database"
"""The object of the finding that says that the table cannot be observed: see `outage`."""

ARCHIVE_FAILING = "ArchiveFailing"
ARCHIVES_EXPIRING = "ArchivesExpiring"
ROWS_AT_STAKE = (
    *(ARCHIVES_EXPIRING, ARCHIVE_FAILING, HOLD_MATCHES_NOTHING),
    *(DetachPending.__name__, "CannotReturn", DefaultHasRows.__name__),
)
"""Warnings that come before all others, the worst first: rows may go that should be kept, or are lost, are not seen by
queries, or lie where no retention reaches them. After them come errors of retention and upkeep, and archives that are
wrong."""
STUCK = (
    CHECK_STANDS,
    errors.ParquetUnavailable.__name__,
    ANNOTATION_TOO_LONG,
    LEFT_ALONE,
    "DetachedElsewhere",
    "ApprovalAmbiguous",
    "UpkeepGaveUp",
    TOO_LARGE,
)
"""The other warnings, the worst first."""
NOTICES = frozenset(
    {
        # What the policy waits for, by the user's own wish or for a while.
        *(APPROVAL, "CheckingArchives", "Archiving"),
        # An approval that was used names a table that was dropped.
        "ApprovalMatchesNothing",
        # The policy or the table is as the user made it.
        *(WILL_CHANGE, RESTS),
        *("EnsureExpired", "OffGrid", "SplitOffGrid", "SubPartitioned", "DiffersFromParent", "SuperuserLogin"),
        # Any role can write such a comment.
        *("MarkNotCounted", "CommentTooLong"),
        # Slower than it could be.
        *("PruningDisabled", "PruningIncomplete", "InvalidIndex", "IndexNotRebuilt"),
    }
)
"""Findings that stop nothing. Every finding without an error is in one of the three: a test enumerates them."""
WORDS = {
    ARCHIVES_EXPIRING: "archives expire",
    DefaultHasRows.__name__: "rows in DEFAULT",
    HOLD_MATCHES_NOTHING: "unknown hold",
    LEFT_ALONE: "expired, stays",
    CHECK_STANDS: "CHECK stands",
    TOO_LARGE: "large partition",
    errors.DatabaseUnreachable.__name__: "unreachable",
    errors.DatabaseUnresponsive.__name__: "unresponsive",
    errors.AuthenticationFailed.__name__: "login refused",
    errors.DestinationNotFound.__name__: "no destination",
    errors.DestinationDenied.__name__: "archive denied",
    errors.ParquetUnavailable.__name__: "no Parquet",
}
"""What a warning is called in few words, where those of its reason say it less well or are too long."""


class Graded(NamedTuple):
    """A finding with its severity."""

    severity: Severity
    finding: Finding


def graded(plan: Plan, outcomes: Sequence[Outcome] = (), more: Iterable[Finding] = ()) -> list[Graded]:
    """All that was found, the worst first: by the plan, by what became of its actions, and ``more``."""
    failed = [
        Graded(
            Severity.ERROR if isinstance(each.action, CREATIONS) else Severity.WARNING,
            Finding.of(str(each.action), each.error),
        )
        for each in outcomes
        if each.error
    ]
    # By identity: of the same reason and words one may block creation, and the other upkeep.
    beside = {id(each) for each in (*plan.retired.findings, *plan.upkeep.findings)}
    troubles = {id(each) for each in plan.retired.gate.troubles}

    def severity(found: Finding) -> Severity:
        if found.error is not None:
            return Severity.WARNING if id(found) in beside else Severity.ERROR
        wrong = found.reason in ROWS_AT_STAKE + STUCK or id(found) in troubles
        return Severity.WARNING if wrong else Severity.NOTICE

    found = [Graded(severity(each), each) for each in (*plan.findings, *more)]
    # What blocks everything is the first of a plan's findings.
    return sorted([*found[: int(plan.blocked)], *failed, *found[int(plan.blocked) :]], key=_rank)


def _rank(each: Graded) -> tuple[int, int]:
    order = (*ROWS_AT_STAKE, None, *STUCK)
    reason = each.finding.reason if each.finding.reason in order else None
    return [*Severity].index(each.severity), order.index(reason) * (each.severity is Severity.WARNING)


def of_severity(found: Iterable[Graded], severity: Severity) -> list[Finding]:
    """The findings of that severity, in their order; of the same reason and words one."""
    unique: dict[tuple[str, str], Finding] = {}
    for each, finding in found:
        if each is severity:
            unique.setdefault((finding.reason, finding.message), finding)
    return [*unique.values()]


def chosen(found: Sequence[Graded], at_most: int = MAX_FINDINGS) -> list[Graded]:
    """At most so many of them, in their order: no reason is left out while another has several."""
    earlier, turns = Counter[str](), list[tuple[int, int]]()
    for place, each in enumerate(found):
        turns.append((earlier[each.finding.reason], place))
        earlier[each.finding.reason] += 1
    return [found[place] for place in sorted(place for _, place in sorted(turns)[:at_most])]


def in_few_words(reasons: Sequence[str]) -> str | None:
    """``2: rows in DEFAULT``: how many, and what the first is; None where there is none."""
    if not reasons:
        return None
    split = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", reasons[0]).lower()
    words = f"{len(reasons)}: {WORDS.get(reasons[0], split)}"
    return words if len(words) <= MAX_WARNINGS else words[: MAX_WARNINGS - 1] + "…"


def carry_on(previous: Mapping[str, Any], outage: FindingStatus | None) -> dict[str, Any]:
    """The details of the last status, with the finding of the outage that there is now, and none of an earlier one."""
    was = previous.get("findings") or []
    findings = [each for each in was if each.get("object") != OUTAGE]
    if outage is None and len(findings) == len(was):
        return dict(previous)
    if outage is not None:
        findings = [outage.model_dump(mode="json", by_alias=True), *findings][:MAX_FINDINGS]
    warnings = in_few_words([each["reason"] for each in findings if each.get("severity") == Severity.WARNING])
    summary = {**(previous.get("summary") or {}), "warnings": warnings}
    return {**previous, "findings": findings, "summary": {k: v for k, v in summary.items() if v is not None}}
