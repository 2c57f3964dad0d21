"""The actions of a plan and their outcomes. Values; `postgres.engine` executes them.

Each action stands for itself: doing it, or not, leaves a valid database whatever became of those before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

from ..api.archive import Fingerprint
from ..api.retention import OnLargeObjects
from ..errors import PartwardenError
from .calendar import BoundedRange, Range
from .drop_preconditions import DropCase
from .inventory import Partition, Tie
from .keys import Bounds, Codec
from .marker import Marker

LARGE_DRAIN = 10_000
"""Rows: to move more of them out of DEFAULT counts as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """``schema`` and ``name`` are those of the partition, or table, that it is about.

    Each kind has words: ``verb`` and ``past`` for people, ``done`` is the reason of the Event.
    """

    verb: ClassVar[str]
    past: ClassVar[str]
    done: ClassVar[str]
    noun: ClassVar[str] = "partition"

    schema: str
    name: str
    reason: str
    lock: str
    """The heaviest lock taken on something that others use, and on what."""
    range: Range | None = None

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def title(self) -> str:
        """What an Event calls it."""
        return self.name

    @property
    def long(self) -> bool:
        """Whether it may read or write every row of a table, which may take hours."""
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePartition(Action):
    """Make an empty table like the parent and attach it for ``range``."""

    verb, past, done = "create", "created", "PartitionCreated"
    range: Range
    bounds: Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainIntoPartition(CreatePartition):
    """The same, and rows of the DEFAULT partition that belong in ``range`` move into it."""

    verb, past, done = "create and fill", "created, and filled from DEFAULT,", "PartitionDrained"
    rows: int
    """As counted when it was planned."""
    max_rows: int

    @property
    def long(self) -> bool:
        return self.rows > LARGE_DRAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateDefault(Action):
    """Make an empty table like the parent and attach it as its DEFAULT partition."""

    verb, past, done = "create", "created", "DefaultPartitionCreated"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableAction(Action):
    """One on a table that exists: ``oid`` is that table's."""

    oid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LongTableAction(TableAction):
    """One that may read every row of it."""

    @property
    def long(self) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachDetached(LongTableAction):
    """Attach a detached table again."""

    verb, past, done = "attach again", "attached again", "PartitionAttached"
    range: BoundedRange
    bounds: Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalizeDetach(TableAction):
    """Finish a concurrent detach that was interrupted, also one begun by another tool."""

    verb, past, done = "finish detaching", "finished detaching", "DetachFinalized"


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachPartition(TableAction):
    """Write the marker into the comment of an expired partition, then detach it."""

    verb, past, done = "detach", "detached", "PartitionDetached"
    range: BoundedRange
    bounds: Bounds
    concurrently: bool
    """False where a DEFAULT partition leaves only the blocking form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmDetached(TableAction):
    """Write into the marker since when a table is detached: the detach was interrupted before that."""

    verb, past, done, noun = "confirm as detached", "confirmed as detached", "DetachConfirmed", "table"
    marker: Marker


@dataclass(frozen=True, slots=True, kw_only=True)
class DropDetached(LongTableAction):
    """Drop a detached table whose grace is over."""

    verb, past, done, noun = "drop", "dropped", "PartitionDropped", "table"
    range: BoundedRange
    marker: Marker
    case: DropCase = field(compare=False, repr=False)
    """What allowed it: `drop_preconditions` are asked again under the lock, with what is so by then."""
    archive: str = ""
    """Name of the PartitionArchive that is equal to it."""
    fingerprint: Fingerprint | None = None
    """What that one holds: the table's is taken again under the lock. None only where no archive is wanted."""
    ties: tuple[Tie, ...] = ()
    """What the plan names: nothing else goes with the table."""
    large_objects: OnLargeObjects = OnLargeObjects.REFUSE
    """Whether rows that point to large objects keep an archived table."""

    @property
    def title(self) -> str:
        """With its archive, where the rows are now."""
        return f"{self.name} (PartitionArchive {self.archive})" if self.archive else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class VacuumPartition(LongTableAction):
    """VACUUM (ANALYZE, FREEZE) a partition whose range has passed."""

    verb, past, done = "vacuum", "vacuumed", "PartitionVacuumed"
    closed: datetime
    """Since when its range counts as passed: aware."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReindexPartition(LongTableAction):
    """Rebuild the indexes of a partition whose range has passed, concurrently."""

    verb, past, done = "reindex", "reindexed", "PartitionReindexed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitLegacy(LongTableAction):
    """Move the rows of the youngest interval of the table that was converted into a partition of their own."""

    verb, past, done = "split", "split", "PartitionSplit"
    range: BoundedRange
    """The interval."""
    whole: Bounds
    """Those of the partition before."""
    into: DrainIntoPartition
    """What leaves, and what it moves into: the end of the interval, or what is left of it there."""
    codec: Codec = field(repr=False)
    """Of the key."""
    grows: Partition | None = None
    """The partition of the interval, where a part of its rows has left already."""
    part: bool = False
    """Whether something of the interval stays for the next time."""
    last: bool = False
    """Whether no more than one interval is left of the partition afterwards, which stays as it is."""

    @property
    def rest(self) -> Bounds:
        """Those of the partition afterwards."""
        return Bounds(self.whole.lower, self.into.bounds.lower)

    @property
    def title(self) -> str:
        since = f" (from {self.into.bounds.lower} on)" if self.part else ""
        return f"{self.into.name}{since} off {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzeParent(Action):
    """Renew the statistics of the parent, which autovacuum never does."""

    verb, past, done, noun = "analyze", "analyzed", "ParentAnalyzed", "table"

    @property
    def long(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one action: ``error`` is None when it succeeded."""

    action: Action
    error: PartwardenError | None = None
    seconds: float = field(default=0.0, compare=False)
    """How long it took; of those that were done in one go, how long all of them took."""
