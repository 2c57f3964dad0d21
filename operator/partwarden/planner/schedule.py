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
    def is_due(self) -> bool:
        """Whether nothing keeps it from being done now."""
        return self.not_before is None and not self.waits_for

    @property
    def id(self) -> str:
        """What it does to what, `STEP_ID` digits: the same however the estimates and moments change."""
        return step_id(self.action, self.schema, self.name, self.oid, self.range)


def step_id(action: str, schema: str, name: str, oid: int | None, piece: Range | None) -> str:
    """See `PlannedStep.id`."""
    bounds = (iso(piece.lower), iso(piece.upper)) if piece else None
    return hashlib.sha256(repr((action, schema, name, oid, bounds)).encode()).hexdigest()[:STEP_ID]


def id_of(action: Action) -> str:
    """The `PlannedStep.id` of an action."""
    oid = action.oid if isinstance(action, TableAction) else None
    return step_id(type(action).__name__, action.schema, action.name, oid, action.range)


def digest(steps: Iterable[PlannedStep], basis: str = "") -> str:
    """What an approval names: that of the steps, in whatever order, and of the `drop_preconditions.plan_basis`; the
    same while they are the same."""
    return hashlib.sha256("\n".join([basis, *sorted(each.id for each in steps)]).encode()).hexdigest()[:16]


def due(actions: Iterable[Action], inventory: Inventory) -> Iterator[PlannedStep]:
    """The actions of a plan as steps that nothing keeps."""
    found: tuple[Partition | Detached, ...] = (*inventory.partitions, *inventory.detached)
    tables = {each.oid: each for each in found}
    for action in actions:
        yield step_of(action, tables.get(action.oid) if isinstance(action, TableAction) else None)


def step_of(action: Action, table: Partition | Detached | None) -> PlannedStep:
    """The action as a step that nothing keeps. ``table``: that it is about; None: it does not exist yet."""
    return PlannedStep(
        action=type(action).__name__,
        verb=action.verb,
        noun=action.noun,
        schema=action.schema,
        name=action.name,
        oid=action.oid if isinstance(action, TableAction) else None,
        range=action.range,
        reason=action.reason,
        lock=action.lock,
        rows=table.rows if table else None,
        bytes=table.bytes if table else None,
    )
