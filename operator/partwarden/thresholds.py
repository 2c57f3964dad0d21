"""Which partitions are larger than ``thresholds.partitionSize`` allows. That is reported, and changes nothing."""

from __future__ import annotations

from .findings import Finding
from .inventory import Partition
from .situation import Situation

NAMED = 5
TOO_LARGE = "PartitionTooLarge"


def oversized(situation: Situation) -> list[Partition]:
    """Every partition over the limit, whatever its kind, the largest first.

    Two of which neither has twice the other's size, about, are ordered by name: sizes change at every look, and what is
    said of them should not.
    """
    limit = situation.spec.thresholds.partition_bytes
    if limit is None:
        return []
    large = [each for each in situation.inventory.partitions if each.bytes > limit]
    return sorted(large, key=lambda each: (-_doublings(each.bytes, limit), each.schema, each.name))


def thresholds_finding(situation: Situation, large: list[Partition]) -> list[Finding]:
    """One notice that names the largest, with roundly how many times the limit they have reached."""
    limit = situation.spec.thresholds.partition_bytes
    if not large or limit is None:
        return []
    named = ", ".join(f"{each} ({_times(each.bytes, limit)})" for each in large[:NAMED])
    more = f" and {len(large) - NAMED} more" if len(large) > NAMED else ""
    message = (
        f"larger than {situation.spec.thresholds.partition_size} (spec.thresholds.partitionSize): {named}{more}; "
        "choose a shorter spec.interval for those to come, or raise the limit"
    )
    return [Finding(TOO_LARGE, str(situation.spec.table), message)]


def _doublings(size: int, limit: int) -> int:
    return (size // limit).bit_length() - 1


def _times(size: int, limit: int) -> str:
    doublings = _doublings(size, limit)
    return f"over {1 << doublings} times that" if doublings else "over that"
