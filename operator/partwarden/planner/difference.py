"""What an edit of a policy changes from now on: two plans of one table, compared. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..api.policy import TableSpec
from .inventory import Inventory, Partition
from .plan import Plan
from .schedule import PlannedStep

MOST_FIELDS = 100
"""Fields that differ which are named."""


@dataclass(frozen=True, slots=True)
class Difference:
    """``before`` is the policy as it is, ``after`` as it is edited."""

    fields: tuple[tuple[str, Any, Any], ...]
    """What differs in the specs: path, before and after; None where the field is left out."""
    expiring: tuple[Partition, ...]
    """Partitions that have expired by the edited policy only, the oldest first."""
    staying: tuple[Partition, ...]
    """Those that have expired by the policy as it is only."""
    added: tuple[PlannedStep, ...]
    removed: tuple[PlannedStep, ...]
    moved: tuple[tuple[PlannedStep, PlannedStep], ...]
    """Steps of both plans that come at another time, or wait for something else: before and after."""

    @property
    def differs(self) -> bool:
        """Whether anything is done otherwise."""
        return bool(self.expiring or self.staying or self.added or self.removed or self.moved)


def compare(specs: tuple[TableSpec, TableSpec], plans: tuple[Plan, Plan], inventory: Inventory) -> Difference:
    """``specs`` and ``plans``: before and after, of the same table at the same moment."""
    old_spec, new_spec = (each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in specs)
    old, new = (plan.retired.expired for plan in plans)
    before, after = ({each.id: each for each in plan.steps} for plan in plans)
    both = ((before[each], after[each]) for each in before if each in after)
    aged = sorted(inventory.partitions, key=lambda each: (str(each.range and each.range.upper), each.oid))
    return Difference(
        fields=tuple(_fields(old_spec, new_spec, "spec"))[:MOST_FIELDS],
        expiring=tuple(each for each in aged if each.oid in new - old),
        staying=tuple(each for each in aged if each.oid in old - new),
        added=tuple(step for each, step in after.items() if each not in before),
        removed=tuple(step for each, step in before.items() if each not in after),
        moved=tuple(pair for pair in both if _course(pair[0]) != _course(pair[1])),
    )


def _course(step: PlannedStep) -> tuple[object, frozenset[str]]:
    return step.not_before, frozenset(each.on for each in step.waits_for)


def _fields(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Of mappings each field that differs, and of all else the whole."""
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in sorted({*before, *after}):
            yield from _fields(before.get(name), after.get(name), f"{path}.{name}")
    else:
        yield path, before, after
