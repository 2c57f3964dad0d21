"""What every part of a plan is decided from: the policy, what exists, the moment, and the calendar that follows."""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from .. import errors
from ..api import policy
from ..api.policy import TableSpec
from ..api.retention import KeyEncoding, Retention
from ..api.types import Interval, parse_age
from . import keys
from .calendar import HOUR, BoundedRange, Grid, Range, load_zone, merge
from .drop_preconditions import UNKNOWN, Archives
from .inventory import Detached, Inventory, Parent, Partition, RelationKind, Strategy
from .keys import TYPES, Codec, Edges, KeyType, Unit

MIN_VERSION = 140000
"""PostgreSQL 14, the oldest release with DETACH CONCURRENTLY."""
NEW_TABLE = (
    "make a new table PARTITION BY RANGE on one column that says when, and move the rows: PostgreSQL cannot change the "
    "partition key of a table"
)
"""The way out where a key cannot be managed."""
YEARS = f"{keys.YEARS.start} to {keys.YEARS.stop - 1}"


def check_table(spec: TableSpec, inventory: Inventory) -> tuple[Parent, str, Codec]:
    """The table, its key column and how that says when. Raises a `UserError` that names what cannot be managed."""
    server, parent = inventory.server, inventory.parent
    if server.version < MIN_VERSION:
        raise errors.ServerTooOld(f"the server is PostgreSQL {server.version_text}; Partwarden needs 14 or newer")
    if parent is None:
        raise errors.TableNotFound(
            f"table {spec.table} does not exist in database {server.database!r}, or role {server.user!r} may not see "
            "its schema: create it, or correct spec.table (names are matched exactly, upper and lower case differ)"
            f"{inventory.similar}"
        )
    if parent.kind is not RelationKind.PARTITIONED or parent.strategy is None:
        raise errors.NotPartitioned(
            f"{parent} is not a partitioned table (kind: {parent.kind}); it must be made with PARTITION BY RANGE"
        )
    if parent.strategy is not Strategy.RANGE:
        raise errors.UnsupportedStrategy(
            f"{parent} is partitioned by {parent.strategy}; only RANGE can be managed: where its partitions are "
            f"partitioned by RANGE themselves, make a policy for each of them (spec.table.name), else {NEW_TABLE}"
        )
    column, type_name = _single_column(parent)
    if spec.key is not None and spec.key != column:
        raise errors.WrongKey(
            f"spec.key is {spec.key!r}, but {parent} is partitioned by {column!r}: correct spec.key or leave it out"
        )
    codec = _codec(spec, inventory, parent, column, type_name)
    if codec.type is KeyType.DATE and spec.interval is Interval.HOUR:
        raise errors.IntervalTooFine(f"spec.interval is Hour, but {parent} is partitioned by {column!r} of type date")
    _check_unit(parent, column, codec, inventory)
    return parent, column, codec


def _check_unit(parent: Parent, column: str, codec: Codec, inventory: Inventory) -> None:
    """Refuse a key whose numbers are of another unit, judged by the bounds that exist, where all of them are.

    What was made beside them would never hold a row: no moment of our time in one unit is one in another.
    """
    values = keys.numbers(each.bounds for each in inventory.partitions)
    mine = next((unit for unit in keys.UNITS if unit.encoding is codec.encoding), None)
    if mine is None or not values or any(mine.fits(each) for each in values):
        return
    likely = keys.fitting(values)
    ends = [end for each in inventory.partitions if each.range for end in (each.range.lower, each.range.upper) if end]
    if likely is None and not all(end >= codec.ceiling for end in ends):
        return
    shown = next(each for each in inventory.partitions if keys.numbers([each.bounds]))
    raise errors.InvalidSpec(
        f"spec.keyEncoding is {codec.encoding}, but no bound of {parent}'s partitions, such as {shown.name} "
        f"{shown.bounds}, is a number of {mine.name} in the years {YEARS}; {_likely(column, codec.type, likely)}"
    )


def _likely(column: str, type_name: str, unit: Unit | None) -> str:
    """What the numbers seem to be, and the way out."""
    if unit is None:
        return f"in which unit {column!r} says when cannot be seen: only seconds and milliseconds can be managed"
    if unit.encoding is None or type_name not in TYPES[unit.encoding]:
        return f"the values of {column!r} look like {unit.name}, which cannot be managed"
    return f"the values of {column!r} look like {unit.name}: set spec.keyEncoding to {unit.encoding}"


def _codec(spec: TableSpec, inventory: Inventory, parent: Parent, column: str, type_name: str) -> Codec:
    if codec := Codec.find(type_name, spec.key_encoding):
        return codec
    found = f"{parent} is partitioned by {column!r} of type {type_name}"
    fitting = [encoding for encoding, types in TYPES.items() if type_name in types]
    if not fitting:
        raise errors.UnsupportedKeyType(
            f"{found}; only date, timestamp, timestamp with time zone, uuid, bigint and integer can be managed"
        )
    # An encoding is named only where every bound that exists fits it.
    values = keys.numbers(inventory.unread)
    if KeyEncoding.NATIVE in fitting:
        advice = "leave spec.keyEncoding out, or set it to Native"
    elif not values or KeyEncoding.UUID_V7 in fitting:
        advice = f"set spec.keyEncoding to {' or '.join(fitting)}, whichever its values are"
    else:
        advice = _likely(column, type_name, keys.fitting(values))
    needs = " or ".join(TYPES[spec.key_encoding])
    raise errors.UnsupportedKeyType(
        f"{found}, but spec.keyEncoding is {spec.key_encoding}, which needs {needs}: {advice}"
    )


def _single_column(parent: Parent) -> tuple[str, str]:
    if len(parent.key) > 1:
        raise errors.UnsupportedKey(
            f"{parent} is partitioned by {len(parent.key)} columns or expressions; only a single column can be "
            f"managed: {NEW_TABLE}"
        )
    (part,) = parent.key
    if part.column is None:
        raise errors.UnsupportedKey(
            f"{parent} is partitioned by an expression; only a plain column can be managed: {NEW_TABLE}"
        )
    return part.column, part.type


@dataclass(frozen=True, slots=True)
class PlanContext:
    """Moments and ranges are in the key's domain (see `calendar`) but for ``now``, which is aware and in UTC."""

    spec: TableSpec
    inventory: Inventory
    now: datetime
    held: frozenset[str]
    """Names of partitions and tables that nothing may be done to, see `policy.holds`."""
    parent: Parent
    key: str
    codec: Codec
    zone: ZoneInfo
    grid: Grid
    moment: datetime
    """``now`` in the key's domain."""
    current: BoundedRange
    """The cell of the grid that holds now, whether or not a partition does."""
    ranged: tuple[tuple[Partition, Range], ...]
    """The partitions that have bounds: all but DEFAULT."""
    coverage: tuple[Range, ...]
    """What they hold, merged and ascending."""
    edges: Edges
    """What to write as the bounds of new partitions."""
    cutoff: datetime | None
    """What lies wholly before it has expired, see `cutoff`; None where the policy has no ``retention``."""
    detached: tuple[Detached, ...]
    """Tables that were detached by us, but for those whose mark names a range that no partition can have."""
    archives: Archives
    """Those of this server and database."""

    @classmethod
    def of(
        cls,
        spec: TableSpec,
        inventory: Inventory,
        now: datetime,
        held: frozenset[str],
        archives: Archives = UNKNOWN,
    ) -> PlanContext:
        """Raises a `UserError` when the table cannot be managed at all."""
        parent, key, codec = check_table(spec, inventory)
        zone, grid = load_zone(spec.timezone), Grid.of(spec, aware=codec.aware)
        moment = now.astimezone(UTC) if codec.aware else now.astimezone(zone).replace(tzinfo=None, fold=0)
        ranged = tuple((each, each.range) for each in inventory.partitions if each.range is not None)
        return cls(
            spec=spec,
            inventory=inventory,
            now=now.astimezone(UTC),
            # Also where only a spec was handed in, as by a command without a manifest.
            held=held | policy.holds(None, spec.holds),
            parent=parent,
            key=key,
            codec=codec,
            zone=zone,
            grid=grid,
            moment=moment,
            current=grid.cell(moment),
            ranged=ranged,
            coverage=tuple(merge(piece for _, piece in ranged)),
            edges=Edges.of(codec, ((piece, each.bounds) for each, piece in ranged)),
            cutoff=cutoff(spec.retention.keep_for, now, Grid.of(spec), codec) if spec.retention else None,
            detached=tuple(each for each in inventory.detached if _is_possible(each.marker.range, codec)),
            archives=archives.on(inventory.server.identity),
        )

    @property
    def retention(self) -> Retention:
        """The policy's, once it is known to have one."""
        assert self.spec.retention is not None
        return self.spec.retention

    @property
    def clock(self) -> Grid:
        """The boundaries by the policy's zone, whatever the key."""
        return Grid(self.spec.interval, self.zone)

    def instant(self, bound: datetime) -> datetime:
        """When a bound in the key's domain comes, aware: by the policy's zone where the key has none."""
        return bound if self.codec.aware else self.clock.moment(bound)

    def cell_of(self, piece: Range) -> BoundedRange | None:
        """The range where it is exactly one interval, else None."""
        cell = self.grid.cell(piece.lower) if piece.lower is not None else None
        return cell if cell == piece else None

    def cutoff_at(self, now: datetime) -> datetime:
        """What `cutoff` will be at another moment, which is aware."""
        return cutoff(self.retention.keep_for, now, self.clock, self.codec)

    def has_expired(self, piece: Range) -> bool:
        """Whether the whole range is older than ``retention.keepFor``; never where there is none, or it has no end."""
        return piece.is_before(self.cutoff)

    def may_expire(self, piece: Range) -> BoundedRange | None:
        """The range where retention takes it once it `has_expired`; None for one that stays whatever its age."""
        return self.cell_of(piece)

    def is_held(self, table: Partition | Detached) -> bool:
        """Whether a hold names it."""
        return policy.is_held(self.held, table.names)


def _is_possible(piece: BoundedRange, codec: Codec) -> bool:
    """A comment is text that anyone may edit."""
    lower, upper = piece.lower, piece.upper
    return {lower.tzinfo is not None, upper.tzinfo is not None} == {codec.aware} and lower < upper


DAYS = {"d": 1, "w": 7}
MONTHS = {"mo": 1, "y": 12}


def cutoff(keep_for: str, now: datetime, clock: Grid, codec: Codec) -> datetime:
    """What lies wholly before this moment, in the key's domain, has expired. ``now`` is aware.

    It is never later than now less ``keep_for``, and never goes back as time goes on: nothing younger expires, and what
    has expired is not young again unless the policy is edited.

    ``clock`` has the policy's zone whatever the key. Hours are counted by instants, all else by the wall clock: a day
    that the month does not have becomes the month's last, a time that the clock skips the instant at which it skips,
    one that comes twice the first of the two. Whole seconds, rounded down. Where the calendar ends, `Codec.floor`.
    """
    count, unit = parse_age(keep_for)
    second = now.astimezone(UTC).replace(microsecond=0)
    try:
        if unit == "h":
            past = second - count * HOUR
            found = past if codec.aware else clock.steady(past)
        else:
            local = _back(clock.steady(second), count, unit)
            found = clock.moment(local) if codec.aware else local
    except (OverflowError, ValueError):
        return codec.floor
    return max(found, codec.floor)


def _back(local: datetime, count: int, unit: str) -> datetime:
    """``local`` less a number of days, weeks, months or years. Raises ValueError or OverflowError before year 1."""
    if unit in DAYS:
        return local - timedelta(days=count * DAYS[unit])
    year, month = divmod(local.year * 12 + local.month - 1 - count * MONTHS[unit], 12)
    if year < 1:
        raise ValueError("before the year 1")
    longest, last = monthrange(local.year, local.month)[1], monthrange(year, month + 1)[1]
    if longest > last and local.day >= last:
        # Several days of this month share the last one of that month: it begins for all of them, or the cutoff would
        # go back at each midnight between them.
        return datetime.combine(datetime(year, month + 1, last), time.min)  # noqa: DTZ001 - a wall clock has no zone
    return local.replace(year=year, month=month + 1)
