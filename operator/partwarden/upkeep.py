"""What keeps partitions in good order once they are there: statistics, VACUUM, REINDEX, and what is worth a warning."""

from __future__ import annotations

from dataclasses import dataclass

from .actions import Action
from .findings import Finding
from .situation import Situation


@dataclass(frozen=True, slots=True)
class Upkeep:
    """``oversized``: OIDs of partitions over ``thresholds.partitionSize``."""

    actions: tuple[Action, ...] = ()
    findings: tuple[Finding, ...] = ()
    oversized: frozenset[int] = frozenset()


def upkeep(situation: Situation) -> Upkeep:
    """Decided last, and done last: creating and retiring come before."""
    return Upkeep()
