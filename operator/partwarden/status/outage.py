"""What an outage means for a table that is covered for long: Ready stays True for a while. Pure.

The while is a share of the time for which partitions exist by the last status: minutes for a table by the hour, a day
for one by the year. All of it is taken from the last status and the clock: a restart of the operator changes nothing,
and nothing is written until it ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from ..api.policy import TableSpec
from ..api.status import FOR_EVER, ConditionStatus, ConditionType, FindingStatus, Severity
from ..errors import AuthenticationFailed, TLSMismatch, TransientError, UnsafePlan
from ..planner.calendar import SHORTEST, iso, load_zone
from .conditions import WITH_WARNINGS, ConditionState, PolicyStatusUpdate, find
from .details import cut
from .warnings import OUTAGE

SHARE = 10
"""The while is one such part of the time that is covered."""
LONGEST = timedelta(hours=24)
PASSES = (TransientError, AuthenticationFailed, TLSMismatch)
"""A password or a certificate may be in the middle of a rotation. What else a user must correct, such as a Secret that
does not exist, is no outage, and neither is an error in Partwarden."""


def endure(
    update: PolicyStatusUpdate, spec: TableSpec | None, previous: Mapping[str, Any], generation: int, now: datetime
) -> PolicyStatusUpdate:
    """The update as it stands while the table outlasts the outage that it tells of; any other as it is.

    ``spec``: that of the policy, None where it is not valid. ``previous``: the last status. ``now`` is aware.
    """
    error, ready = update.errors[0] if len(update.errors) == 1 else None, find(previous, ConditionType.READY)
    ahead = update.others.get(ConditionType.PARTITIONS_AHEAD)
    # What was never Ready as it reads now has nothing to keep; where it was observed, there is no outage.
    was_ready = ready.get("status") == ConditionStatus.TRUE and ready.get("observedGeneration") == generation
    if (
        update.ready.status != ConditionStatus.FALSE
        or ahead is None
        or ahead.status != ConditionStatus.UNKNOWN
        or not isinstance(error, PASSES)
        or isinstance(error, UnsafePlan)
        or spec is None
        or not was_ready
    ):
        return update
    until, since = (previous.get("summary") or {}).get("coveredUntil"), _since(previous, now)
    # Another operator's clock may have been fast.
    if since is None or since > now or (ends := since + _while(until, spec, since)) <= now:
        return update
    message = (
        f"the table could not be observed since {iso(since)}: {error}; it is covered until {until}, so Ready turns "
        f"False only at {iso(ends)}"
    )
    others = [each for each in previous.get("findings") or [] if each.get("severity") == Severity.WARNING]
    count = sum(each.get("object") != OUTAGE for each in others)
    more = f" (and {count} more: see status.findings)" if count else ""
    assert error is not None
    return replace(
        update,
        ready=ConditionState(ConditionStatus.TRUE, WITH_WARNINGS, f"{message}{more}"),
        reconciling=False,
        stalled=False,
        # What was last seen of the table is what the while is taken from.
        table=None,
        outage=FindingStatus(reason=error.reason, object=OUTAGE, message=cut(message), severity=Severity.WARNING),
        until=ends,
    )


def _since(previous: Mapping[str, Any], now: datetime) -> datetime | None:
    """When the table could no longer be observed; None where the status does not say it in a readable way."""
    ahead = find(previous, ConditionType.PARTITIONS_AHEAD)
    if ahead.get("status") != ConditionStatus.UNKNOWN:
        return now.replace(microsecond=0)
    return _moment(ahead.get("lastTransitionTime"), "UTC")


def _while(until: Any, spec: TableSpec, since: datetime) -> timedelta:
    """Zero where less than one interval is covered."""
    if until == FOR_EVER:
        return LONGEST
    end = _moment(until, spec.timezone)
    if end is None or end - since < SHORTEST[spec.interval]:
        return timedelta(0)
    whole = min((end - since) / SHARE, LONGEST)
    return whole - timedelta(microseconds=whole.microseconds)


def _moment(text: Any, zone: str) -> datetime | None:
    """Aware; a key without a time zone has moments in that of the policy."""
    try:
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=load_zone(zone))
    except (TypeError, ValueError):
        return None
