"""Everything that a policy does by itself: what is due, what follows from it, and what each step waits for. Pure.

`plan.Plan.actions` are the steps that can be done now; `plan.Plan.steps` has them and all that comes after them, see
`foresight`: the archive before a detach, the drop after the grace, upkeep whose window is closed. What has not begun,
such as the expiry of a partition that is kept for years, is no step: see `upcoming`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from .actions import Action, TableAction
from .calendar import Range, iso
from .inventory import Detached, Inventory, Partition

STEP_ID = 12
"""Hexadecimal digits of `PlannedStep.id`."""


class WaitsFor(StrEnum):
    """What a step waits for, beside the time."""

    ARCHIVE = "Archive"
    """An archive of the table that is made and proven."""
    PROOF = "Proof"
    """The last reading of the archive, and of the table beside it."""
    DETACH = "Detach"
    """The table to be no partition any more."""
    APPROVAL = "Approval"
    """The user: an annotation that names the table, or the plan."""
    HOLD = "Hold"
    """The user: to take a hold away."""
    LOCK = "Lock"
    """Another session, which holds a lock."""
    USER = "User"
    """The user: to resolve what a finding names."""


OF_USER = (WaitsFor.HOLD, WaitsFor.APPROVAL, WaitsFor.USER)
"""What no time brings."""


class Wait(NamedTuple):
    """``message`` is for people, such as ``no archive of it is proven``."""

    on: WaitsFor
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """One step. ``action`` is the name of its class in `actions`, or ``ArchivePartition`` or ``CheckArchive``."""

    action: str
    verb: str
    """For people, such as ``detach``."""
    noun: str = "partition"
    schema: str
    name: str
    """Of the partition, or table, that it is about."""
    oid: int | None = None
    """None: the table does not exist yet."""
    range: Range | None = None
    reason: str
    lock: str
    rows: int | None = None
    """The planner's estimate; None where it is not known."""
    bytes: int | None = None
    """With indexes and TOAST; None where the table does not exist yet."""
    not_before: datetime | None = None
    """Aware. None: now, or as soon as what it waits for has come."""
    waits_for: tuple[Wait, ...] = ()

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def id(self) -> str:
        """What it does to what, `STEP_ID` digits: the same however the estimates and moments change."""
        bounds = (iso(self.range.lower), iso(self.range.upper)) if self.range else None
        what = repr((self.action, self.schema, self.name, self.oid, bounds))
        return hashlib.sha256(what.encode()).hexdigest()[:STEP_ID]


def digest(steps: Iterable[PlannedStep]) -> str:
    """What an approval names: that of the steps, in whatever order; the same while they are the same."""
    return hashlib.sha256("\n".join(sorted(each.id for each in steps)).encode()).hexdigest()[:16]


def due(actions: Iterable[Action], inventory: Inventory) -> Iterator[PlannedStep]:
    """The actions of a plan as steps that nothing keeps."""
    found: tuple[Partition | Detached, ...] = (*inventory.partitions, *inventory.detached)
    tables = {each.oid: each for each in found}
    for action in actions:
        oid = action.oid if isinstance(action, TableAction) else None
        table = tables.get(oid) if oid is not None else None
        yield PlannedStep(
            action=type(action).__name__,
            verb=action.verb,
            noun=action.noun,
            schema=action.schema,
            name=action.name,
            oid=oid,
            range=action.range,
            reason=action.reason,
            lock=action.lock,
            rows=table.rows if table else None,
            bytes=table.bytes if table else None,
        )
