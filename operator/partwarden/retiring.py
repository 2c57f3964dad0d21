"""What becomes of old partitions: which have expired, and what is to be done with each."""

from __future__ import annotations

from dataclasses import dataclass

from .actions import Action
from .findings import Finding
from .situation import Situation
from .wanting import Wanted


@dataclass(frozen=True, slots=True)
class Retired:
    """``expired`` and ``kept`` are OIDs of partitions: past their time, and of those the ones that a hold keeps."""

    actions: tuple[Action, ...] = ()
    findings: tuple[Finding, ...] = ()
    expired: frozenset[int] = frozenset()
    kept: frozenset[int] = frozenset()


def retired(situation: Situation, wanted: Wanted) -> Retired:
    """Nothing at all where the policy has no ``retention``."""
    return Retired()
