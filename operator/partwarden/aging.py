"""When the age of something makes another plan, although nothing changes: it expires, or its grace ends."""

from __future__ import annotations

from datetime import datetime, timedelta

from .actions import CreatePartition
from .lifecycle import OnExpire
from .situation import Situation
from .wanting import Wanted

SECOND = timedelta(seconds=1)


def next_look(situation: Situation, wanted: Wanted, boundary: datetime) -> datetime:
    """The first moment, aware, until ``boundary`` at the latest, at which something expires or a grace ends.

    A few dozen steps at most, whatever the number of partitions.
    """
    retention = situation.spec.retention
    if retention is None or situation.cutoff is None:
        return boundary
    moments = [boundary]
    if retention.on_expire is OnExpire.DROP:
        # Differences: the sum of a grace and of whatever moment a mark names may lie beyond the calendar.
        left = (retention.grace_period - (situation.now - each.marker.since) for each in situation.detached)
        moments += [situation.now + some for some in left if timedelta(0) < some < boundary - situation.now]
    ranges = [held for _, held in situation.ranged]
    ranges += [each.marker.range for each in situation.detached]
    ranges += [each.range for each in wanted.actions if isinstance(each, CreatePartition)]
    young = [held.upper for held in ranges if held.upper is not None and held.upper > situation.cutoff]
    if young:
        moments.append(_when_expired(situation, min(young), boundary))
    return min(moments)


def _when_expired(situation: Situation, upper: datetime, latest: datetime) -> datetime:
    """When what ends at ``upper`` expires, to the second; ``latest`` where that is later. The cutoff only grows."""
    early, late = situation.now.replace(microsecond=0), latest
    if (cutoff := situation.cutoff_at(latest)) is None or cutoff < upper:
        return latest
    while late - early > SECOND:
        middle = early + (late - early) // (2 * SECOND) * SECOND
        reached = situation.cutoff_at(middle)
        early, late = (early, middle) if reached is not None and reached >= upper else (middle, late)
    return late
