"""What every part of a plan is decided from: the policy, what exists, the moment, and the calendar that follows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from . import archives as known
from . import hold
from .bounds import Edges
from .expiry import cutoff
from .interval import Grid, Range, load_zone, merge
from .inventory import Detached, Inventory, Parent, Partition
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
    cutoff: datetime | None
    """What lies wholly before it has expired, see `expiry.cutoff`; None where the policy has no ``retention``."""
    detached: tuple[Detached, ...]
    """Tables that were detached by us, but for those whose mark names a range that no partition can have."""
    archives: known.Archives
    """Those of this server and database."""

    @classmethod
    def of(
        cls,
        spec: TableSpec,
        inventory: Inventory,
        now: datetime,
        held: frozenset[str],
        archives: known.Archives = known.UNKNOWN,
    ) -> Situation:
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
            cutoff=_cutoff(spec, now, zone, codec),
            detached=tuple(each for each in inventory.detached if _is_possible(each.marker.range, codec)),
            archives=archives.on(inventory.server.identity),
        )

    def is_cell(self, piece: Range) -> bool:
        """Whether the range is exactly one interval."""
        return piece.lower is not None and piece.upper is not None and self.grid.cell(piece.lower) == piece

    def cutoff_at(self, now: datetime) -> datetime | None:
        """What `cutoff` will be at another moment, which is aware."""
        return _cutoff(self.spec, now, self.zone, self.codec)

    def has_expired(self, piece: Range) -> bool:
        """Whether the whole range is older than ``retention.keepFor``; never where there is none, or it has no end."""
        return self.cutoff is not None and piece.upper is not None and piece.upper <= self.cutoff

    def is_held(self, table: Partition | Detached) -> bool:
        """Whether a hold names it."""
        return not self.held.isdisjoint(hold.names(table.schema, table.name, table.oid))


def _cutoff(spec: TableSpec, now: datetime, zone: ZoneInfo, codec: Codec) -> datetime | None:
    if spec.retention is None:
        return None
    return cutoff(spec.retention.keep_for, now, Grid(spec.interval, zone), codec)


def _is_possible(piece: Range, codec: Codec) -> bool:
    """A comment is text that anybody may edit."""
    lower, upper = piece.lower, piece.upper
    if lower is None or upper is None or {lower.tzinfo is not None, upper.tzinfo is not None} != {codec.aware}:
        return False
    return lower < upper
