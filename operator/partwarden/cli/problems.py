"""What is wrong with a policy, by its status: what ``partwarden health`` says and exits with. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from ..api.status import (
    FOR_EVER,
    Condition,
    ConditionType,
    PartitionPolicyStatus,
    PartitionStatus,
    Severity,
    State,
    Summary,
)
from .tables import Level, Problem, inserts

LEVELS = {
    ConditionType.DATABASE_REACHABLE: Level.CRITICAL,
    ConditionType.PARTITIONS_AHEAD: Level.WARNING,
    ConditionType.DEFAULT_PARTITION_EMPTY: Level.WARNING,
    ConditionType.WITHIN_THRESHOLDS: Level.WARNING,
    ConditionType.ARCHIVES_HEALTHY: Level.WARNING,
}
"""How bad a condition is that is False, where Ready is not True: else it is a warning."""


def conditions(found: PartitionPolicyStatus) -> dict[str, Condition]:
    """By type."""
    return {each.type: each for each in found.conditions}


def problems_of(found: PartitionPolicyStatus, now: datetime) -> Iterator[Problem]:
    """What is not as it should be, the current partition before all. ``now`` is aware."""
    said = conditions(found)
    ready, stalled = said.get("Ready"), "Stalled" in said and said["Stalled"].status == "True"
    is_ready = ready is not None and ready.status == "True"
    why = f"{ready.reason}: {ready.message}" if ready else "it has no status yet: does an operator serve it?"
    if found.summary is None:
        yield Level.CRITICAL, f"the operator has not observed its table: {why}"
        return
    yield from _coverage(found.summary, found.partitions, now)
    wrong = {kind: said[kind] for kind in LEVELS if kind in said and said[kind].status == "False"}
    for kind, about in wrong.items():
        yield Level.WARNING if is_ready else LEVELS[kind], f"{kind}=False, {about.reason}: {about.message}"
    reasons = {each.reason for each in wrong.values()}
    for each in found.findings:
        if each.severity is Severity.WARNING and each.reason not in reasons:
            yield Level.WARNING, f"{each.reason} ({each.object}): {each.message}"
    if stalled or not (is_ready or (ready is not None and ready.reason in reasons)):
        yield (Level.CRITICAL if stalled else Level.WARNING), f"{'stalled' if stalled else 'not Ready'}: {why}"


def _coverage(summary: Summary, partitions: list[PartitionStatus], now: datetime) -> Iterator[Problem]:
    until = summary.covered_until
    if until is None:
        yield Level.CRITICAL, f"no partition holds now: {inserts(partitions)}"
        return
    if until == FOR_EVER:
        return
    try:
        moment = datetime.fromisoformat(until)
    except ValueError:
        yield Level.CRITICAL, f"cannot tell until when it is covered: the status says {until!r}"
        return
    # A key without a time zone has moments without one: they are near enough in that of ``now``.
    if (moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)) <= now:
        yield Level.CRITICAL, f"no partition holds now: they end at {until}, and none are added"
        return
    # A runway of some hours is 0 days.
    following = any(each.state is State.FUTURE for each in partitions)
    if summary.runway_days == 0 and not summary.missing and not following:
        yield Level.WARNING, f"nothing follows the current partition: {inserts(partitions)} from {until} on"
