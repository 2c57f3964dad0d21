"""What the maintenance planner decides from: closed partitions, statistics of the parent, pruning. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .marker import ClosedMark


@dataclass(frozen=True, slots=True)
class ClosedPartition:
    """One partition whose range has passed."""

    oid: int
    owner: str
    may_own: bool
    """Whether the connected role has the rights of the owner."""
    empty: bool
    """Whether its file is; a partition without rows that has pages is not empty."""
    frozen: bool
    """Whether all its pages are known to be frozen, which servers before 18 do not tell."""
    indexed: bool
    """Whether it has an index that REINDEX CONCURRENTLY rebuilds."""
    invalid: tuple[str, ...]
    """Its invalid indexes, by name."""
    mark: ClosedMark
    no_room: bool = False
    """Whether its comment is too long to write down there what was done."""
    exclusive: tuple[str, ...] = ()
    """Indexes that REINDEX CONCURRENTLY skips: those of EXCLUDE, and of keys WITHOUT OVERLAPS."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """When ANALYZE last ran, aware: None for never, or where the server has lost its counters."""

    parent: datetime | None
    partitions: datetime | None
    """The latest of all."""
    counted: bool
    """Whether the server counts at all (``track_counts``)."""


@dataclass(frozen=True, slots=True)
class Pruning:
    """How a query for the current interval, through the parent, would be executed."""

    enabled: bool
    """``enable_partition_pruning`` as the connected role has it from the server, the database and itself."""
    disabled_for: tuple[str, ...] = ()
    """For whom else it is off, such as ``role "report"``."""
    needless: tuple[str, ...] = ()
    """Relations that would be scanned although they cannot hold such a row."""


@dataclass(frozen=True, slots=True)
class MaintenanceFacts:
    """None, and nothing, where it was not read."""

    closed: tuple[ClosedPartition, ...] = ()
    statistics: Statistics | None = None
    pruning: Pruning | None = None
