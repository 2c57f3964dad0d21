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
from .inventory import Tie
from .keys import Bounds
from .marker import Marker


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """``schema`` and ``name`` are those of the partition, or table, that it is about."""

    verb: ClassVar[str]
    past: ClassVar[str]
    """For people: ``create`` and ``created``."""
    noun: ClassVar[str] = "partition"
    done: ClassVar[str]
    """The reason of the Event."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePartition(Action):
    """Make an empty table like the parent and attach it for ``range``."""

    verb, past = "create", "created"
    done = "PartitionCreated"

    range: Range
    bounds: Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainIntoPartition(CreatePartition):
    """The same, and rows of the DEFAULT partition that belong in ``range`` move into it."""

    verb, past = "create and fill", "created, and filled from DEFAULT,"
    done = "PartitionDrained"

    rows: int
    """As counted when it was planned."""
    max_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateDefault(Action):
    """Make an empty table like the parent and attach it as its DEFAULT partition."""

    verb, past = "create", "created"
    done = "DefaultPartitionCreated"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachDetached(Action):
    """Attach a detached table again. ``oid`` is the table's."""

    verb, past = "attach again", "attached again"
    done = "PartitionAttached"

    range: BoundedRange
    bounds: Bounds
    oid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalizeDetach(Action):
    """Finish a concurrent detach that was interrupted, also one begun by another tool."""

    verb, past = "finish detaching", "finished detaching"
    done = "DetachFinalized"

    oid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachPartition(Action):
    """Write the marker into the comment of an expired partition, then detach it."""

    verb, past = "detach", "detached"
    done = "PartitionDetached"

    range: BoundedRange
    bounds: Bounds
    oid: int
    concurrently: bool
    """False where a DEFAULT partition leaves only the blocking form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmDetached(Action):
    """Write into the marker since when a table is detached: the detach was interrupted before that."""

    verb, past = "confirm as detached", "confirmed as detached"
    noun = "table"
    done = "DetachConfirmed"

    oid: int
    marker: Marker


@dataclass(frozen=True, slots=True, kw_only=True)
class DropDetached(Action):
    """Drop a detached table whose grace is over."""

    verb, past = "drop", "dropped"
    noun = "table"
    done = "PartitionDropped"

    range: BoundedRange
    oid: int
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
class VacuumPartition(Action):
    """VACUUM (ANALYZE, FREEZE) a partition whose range has passed."""

    verb, past = "vacuum", "vacuumed"
    done = "PartitionVacuumed"

    oid: int
    closed: datetime
    """Since when its range counts as passed: aware."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReindexPartition(Action):
    """Rebuild the indexes of a partition whose range has passed, concurrently."""

    verb, past = "reindex", "reindexed"
    done = "PartitionReindexed"

    oid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzeParent(Action):
    """Renew the statistics of the parent, which autovacuum never does."""

    verb, past = "analyze", "analyzed"
    noun = "table"
    done = "ParentAnalyzed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one action: ``error`` is None when it succeeded."""

    action: Action
    error: PartwardenError | None = None
    seconds: float = field(default=0.0, compare=False)
    """How long it took; of those that were done in one go, how long all of them took."""
