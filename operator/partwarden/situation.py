"""What every part of a plan is decided from: the policy, what exists, the moment, and the calendar that follows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from .bounds import Edges
from .interval import Grid, Range, load_zone, merge
from .inventory import Inventory, Parent, Partition
from .keys import Codec
from .policy import TableSpec
from .table import check_table


@dataclass(frozen=True, slots=True)
class Situation:
    """Moments and ranges are in the key's domain (see `interval`) but for ``now``, which is aware and in UTC."""

    spec: TableSpec
    inventory: Inventory
    now: datetime
    held: frozenset[str]
    """Names of partitions and tables that nothing may be done to, as ``name`` or ``schema.name``."""
    parent: Parent
    key: str
    codec: Codec
    zone: ZoneInfo
    grid: Grid
    moment: datetime
    """``now`` in the key's domain."""
    current: Range
    """The cell of the grid that holds now, whether or not a partition does."""
    ranged: tuple[tuple[Partition, Range], ...]
    """The partitions that have bounds: all but DEFAULT."""
    coverage: tuple[Range, ...]
    """What they hold, merged and ascending."""
    edges: Edges
    """What to write as the bounds of new partitions."""

    @classmethod
    def of(cls, spec: TableSpec, inventory: Inventory, now: datetime, held: frozenset[str]) -> Situation:
        """Raises a `UserError` when the table cannot be managed at all."""
        parent, key, codec = check_table(spec, inventory)
        zone = load_zone(spec.timezone)
        grid = Grid(spec.interval, zone if codec.aware else None)
        moment = now.astimezone(UTC) if codec.aware else now.astimezone(zone).replace(tzinfo=None, fold=0)
        ranged = tuple((each, each.range) for each in inventory.partitions if each.range is not None)
        return cls(
            spec=spec,
            inventory=inventory,
            now=now.astimezone(UTC),
            held=held,
            parent=parent,
            key=key,
            codec=codec,
            zone=zone,
            grid=grid,
            moment=moment,
            current=grid.cell(moment),
            ranged=ranged,
            coverage=tuple(merge(piece for _, piece in ranged)),
            edges=Edges.of(codec, inventory.partitions),
        )

    def is_cell(self, piece: Range) -> bool:
        """Whether the range is exactly one interval."""
        return piece.lower is not None and piece.upper is not None and self.grid.cell(piece.lower) == piece
