"""What every part of a plan is decided from: the policy, what exists, the moment, and the calendar that follows."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from .. import errors
from ..api import policy
from ..api.policy import TableSpec
from ..api.retention import KeyEncoding, Retention, Unaligned
from ..api.types import Interval, parse_age
from . import keys
from .calendar import HOUR, SHORTEST, BoundedRange, Grid, Range, load_zone, merge
from .drop_preconditions import UNKNOWN, Archives
from .findings import join_names
from .inventory import Detached, Inventory, Parent, Partition, RelationKind, Strategy
from .keys import TYPES, Codec, Edges, KeyType, Unit

MIN_VERSION = 140000
"""PostgreSQL 14, the oldest release with DETACH CONCURRENTLY."""
NEW_TABLE = (
    "make a new table PARTITION BY RANGE on one column that says when, and move the rows: PostgreSQL cannot change the "
    "partition key of a table"
)
"""The way out where a key cannot be managed."""
NEWEST, FEWEST = 12, 3
"""Partitions with both bounds that show an interval: the newest, at most and at least so many."""
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
        way = "make it with PARTITION BY RANGE"
        if parent.kind is RelationKind.TABLE:
            way = f"set spec.convert.mode: Attach, or {way}"
        if spec.converts:
            way = "the operator converts it, and so does partwarden convert"
        raise errors.NotPartitioned(f"{parent} is not a partitioned table (kind: {parent.kind}); {way}")
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
    """Refuse a key whose numbers are of another unit, judged by the bounds that exist: all of them, or some.

    What was made beside them would never hold a row: no moment of our time in one unit is one in another. Some of
    another unit would be taken for partitions of another time, and expire.
    """
    values = keys.numbers(each.bounds for each in inventory.partitions)
    mine = next((unit for unit in keys.UNITS if unit.encoding is codec.encoding), None)
    if mine is None or not values:
        return
    if any(mine.fits(each) for each in values):
        _check_mixed(parent, mine, codec, inventory)
        return
    likely = keys.likely(values)
    ends = [end for each in inventory.partitions if each.range for end in (each.range.lower, each.range.upper) if end]
    if likely is None and not all(end >= codec.ceiling for end in ends):
        return
    shown = next(each for each in inventory.partitions if keys.numbers([each.bounds]))
    raise errors.InvalidSpec(
        f"spec.keyEncoding is {codec.encoding}, but no bound of {parent}'s partitions, such as {shown.name} "
        f"{shown.bounds}, is a number of {mine.name} in the years {YEARS}; {_likely(column, codec.type, likely)}"
    )


def _check_mixed(parent: Parent, mine: Unit, codec: Codec, inventory: Inventory) -> None:
    """Refuse a bound that another unit fits, and not ours. What has no end may end at any number, and never expires."""
    for each in inventory.partitions:
        if each.range is None or (each.range.upper is None and each.range.lower != codec.ceiling):
            continue
        strange = (value for value in keys.numbers([each.bounds]) if not mine.fits(value))
        if other := next((unit for value in strange if (unit := keys.fitting([value]))), None):
            raise errors.InvalidSpec(
                f"spec.keyEncoding is {codec.encoding}, and others of {parent}'s partitions have bounds in "
                f"{mine.name}, but {each.name} {each.bounds} looks like {other.name}: of one table all keys must be of "
                "one unit; correct spec.keyEncoding, or detach by hand the partitions that are of another unit"
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
        advice = _likely(column, type_name, keys.likely(values))
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


def _check_interval(spec: TableSpec, parent: Parent, ranged: Iterable[tuple[Partition, Range]]) -> None:
    """Refuse the default interval where the newest partitions are all as long as one and the same other.

    Of whatever zone: a day of another zone is a day. What is of several lengths, or too few, shows none. Raises
    `IntervalMismatch`.
    """
    if spec.says_interval:
        return
    bounded = ((held.lower, held, each.name) for each, piece in ranged if (held := piece.bounded))
    newest = sorted(bounded, key=lambda each: each[0], reverse=True)[:NEWEST]
    for interval in Interval:
        # The longest month is 1.107 times the shortest, and a clock that is set takes an hour of a day, or gives one.
        longer = [(held.upper - at) / SHORTEST[interval] for at, held, _ in newest]
        if len(newest) < FEWEST or interval is spec.interval or any(not 0.95 < each < 1.12 for each in longer):
            continue
        raise errors.IntervalMismatch(
            f"cannot tell the interval of {parent}: spec.interval is left out, which means {spec.interval}, but its "
            f"{len(newest)} newest partitions are each one {interval} long: "
            f"{join_names([name for *_, name in newest], 3)}; write spec.interval: {interval} to go on with those, or "
            f"spec.interval: {spec.interval} to change to that one"
        )


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
        _check_interval(spec, parent, ranged)
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

    def has_expired(self, piece: Range) -> bool:
        """Whether the whole range is older than ``retention.keepFor``; never where there is none, or it has no end."""
        return piece.is_before(self.cutoff)

    def may_expire(self, piece: Range) -> BoundedRange | None:
        """The range where retention takes it once it `has_expired`; None for one that stays whatever its age.

        It has both bounds, and a moment between them: an unbounded one may hold rows of any time.

        Off the grid nothing expires with ``unaligned: Keep``, nor a number or UUID whose bounds are not `_is_dated`:
        only the bounds show that the key says when. Serial ids, milliseconds taken for seconds and random UUIDs are
        moments as well, mostly long past, and their rows are young; their bounds come on full quarters of an hour by
        chance only. Boundaries of any interval do always, in every zone that there is since 1973.
        """
        held = piece.bounded
        if held is None or held.lower >= held.upper:
            return None
        sure = self.codec.encoding is KeyEncoding.NATIVE or (_is_dated(held.lower) and _is_dated(held.upper))
        return held if (sure and self.retention.unaligned is Unaligned.EXPIRE) or self.cell_of(held) else None

    def is_held(self, table: Partition | Detached) -> bool:
        """Whether a hold names it."""
        return policy.is_held(self.held, table.names)


def _is_dated(bound: datetime) -> bool:
    """Whether it is on a full quarter of an hour, to the millisecond, of one of the `keys.YEARS`."""
    quarter = bound.minute % 15 == 0 and bound.second == 0 and bound.microsecond < 1000
    return quarter and bound.year in keys.YEARS


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
