"""How a plain table is converted: in which range its rows lie, what is called how, and which steps there are.

The range begins with the interval of the oldest row and ends with the interval that will be current for long enough to
finish: while the CHECK stands alone, a write beyond it would fail. Nothing here asks a server.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..errors import NameTooLong, PartwardenError
from .calendar import DAY, HOUR, SHORTEST, BoundedRange, Grid, iso
from .conversion import Conversion, NewPartition
from .conversion_rules import CHECK, Change, Refusal, Wanted, changes, is_ours, refusals, widened
from .keys import MAX_BYTES, Codec, partition_name
from .plain_table import PlainTable, TiedKind

READ_RATE, BUILD_RATE = 100 << 20, 25 << 20
"""Bytes of the table that a server reads, and that it puts into an index, in a second: a slow disk's."""
CAREFUL = 4
"""By how much everything may take longer than estimated."""
MOST_AHEAD = 12
"""How many intervals the latest row may be ahead of now: all until then stays in one partition."""
REFERRING = (TiedKind.REFERENCE, TiedKind.SELF_REFERENCE)
FOR_SWAP = HOUR
"""How long the CHECK must hold where nothing is left to be done but the swap."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: ``lock`` on the table, who ``waits``, how many ``seconds`` it is expected to take, at the least."""

    text: str
    lock: str
    waits: str
    seconds: float
    done: bool = False


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """Either ``refusals`` or a ``conversion`` with its ``steps``, as of ``now``, in the key's domain.

    ``until``: from then on the CHECK alone would refuse rows that are written; the swap must be done before.
    ``has_check``: whether the CHECK that the table has is that of this conversion.
    """

    table: PlainTable
    refusals: tuple[Refusal, ...] = ()
    conversion: Conversion | None = None
    changes: tuple[Change, ...] = ()
    steps: tuple[Step, ...] = ()
    now: datetime = datetime.min
    until: datetime = datetime.min
    has_check: bool = False

    @property
    def holds_for(self) -> timedelta:
        """How long the CHECK refuses nothing that is written."""
        return self.until - self.now

    @property
    def names(self) -> list[str]:
        """Names that must be free, or an index of this conversion's."""
        if self.conversion is None:
            return []
        about = self.conversion
        return [about.legacy, *(each.name for each in about.ahead), *(each.index for each in about.widened)]


@dataclass(frozen=True, slots=True)
class _Frame:
    """The moments of a conversion, in the key's domain."""

    codec: Codec
    grid: Grid
    now: datetime
    lower: datetime
    upper: datetime
    ahead: timedelta
    """How far ahead of the clock rows are written."""
    has_check: bool


def plan_conversion(table: PlainTable, wanted: Wanted, taken: Collection[str] = ()) -> ConversionPlan:
    """What forbids it, or how it is done.

    The rows must have been read (`PlainTable.spread`) unless the catalog forbids it. ``taken``: names of other
    relations, of those that a first plan asks for. Raises `UnknownTimeZone`.
    """
    if found := refusals(table, wanted):
        return ConversionPlan(table, found)
    found = tuple(_rows(table))
    if found:
        return ConversionPlan(table, found)
    try:
        frame = _frame(table, wanted)
        if isinstance(frame, Refusal):
            return ConversionPlan(table, (frame,))
        conversion = _conversion(table, wanted, frame)
    except NameTooLong as error:
        return ConversionPlan(table, (Refusal(str(table), str(error), "by hand that is --name-format"),))
    except PartwardenError as error:
        return ConversionPlan(table, (Refusal(str(table), str(error), "then try again"),))
    if found := tuple(_collisions(table, conversion, taken)):
        return ConversionPlan(table, found)
    return ConversionPlan(
        table,
        conversion=conversion,
        changes=(*changes(table, wanted), Change(str(table), _edge(conversion))),
        steps=tuple(_steps(table, conversion, frame.has_check)),
        now=frame.now,
        until=frame.upper - frame.ahead,
        has_check=frame.has_check,
    )


def key_now(table: PlainTable, wanted: Wanted) -> tuple[Codec, Grid, datetime]:
    """How keys say when, the calendar, and the server's clock in the key's domain. Raises `UnknownTimeZone`.

    Only of a table that `refusals` has nothing against.
    """
    assert table.key is not None
    codec = Codec.find(table.key.type, wanted.spec.key_encoding)
    assert codec is not None
    local = Grid.of(wanted.spec).local(table.now)
    return codec, Grid.of(wanted.spec, aware=codec.aware), table.now if codec.aware else local


def _rows(table: PlainTable) -> Iterator[Refusal]:
    assert table.spread is not None
    assert table.key is not None
    spread, column = table.spread, f"column {table.key.name}"
    if spread.nulls:
        why = f"it is NULL in {_counted(spread.nulls)}, which no partition can hold"
        yield Refusal(column, why, "UPDATE or delete them")
    if spread.infinite:
        why = f"it is infinity or -infinity in {_counted(spread.infinite)}, which lie in no interval"
        yield Refusal(column, why, "UPDATE or delete them")


def _counted(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _frame(table: PlainTable, wanted: Wanted) -> _Frame | Refusal:
    """Between what the rows lie, and will lie until the conversion is done."""
    assert table.spread is not None
    codec, grid, now = key_now(table, wanted)
    spread = table.spread
    lowest, highest = (codec.moment(each) if each else now for each in (spread.lowest, spread.highest))
    if lowest <= codec.floor or highest >= codec.ceiling:
        years = f"{codec.floor.year} to {codec.ceiling.year - 1}"
        return Refusal(str(table), f"rows lie outside of the years {years}", "UPDATE or delete them")
    lead = max(highest - now, timedelta(0))
    if lead > MOST_AHEAD * SHORTEST[wanted.spec.interval]:
        return Refusal(
            str(table),
            f"{_counted(spread.ahead)} of column {table.key.name if table.key else ''} are later than now, up to "
            f"{iso(highest)}, more than {MOST_AHEAD} intervals: all until then would stay in one partition",
            "correct or delete them, or choose a longer interval",
        )
    lower = grid.cell(min(lowest, now)).lower
    kept = _leftover(table, codec, grid, lower, now + lead)
    lower, upper = kept or (lower, grid.cell(now + lead + _margin(table, wanted)).upper)
    return _Frame(codec, grid, now, lower, upper, lead, kept is not None)


def _margin(table: PlainTable, wanted: Wanted) -> timedelta:
    """Long enough to build, validate and swap, even if that takes longer than it should."""
    builds = len(widened(table, wanted)) * table.heap / BUILD_RATE
    longest = timedelta(seconds=CAREFUL * builds) + validation_time(table)
    return longest + (DAY if SHORTEST[wanted.spec.interval] >= DAY else 2 * HOUR)


def validation_time(table: PlainTable) -> timedelta:
    """How long a validation may take, even if it takes longer than it should."""
    return timedelta(seconds=CAREFUL * table.heap / READ_RATE)


def _leftover(
    table: PlainTable, codec: Codec, grid: Grid, lower: datetime, latest: datetime
) -> tuple[datetime, datetime] | None:
    """The range of a CHECK that is there, if it holds all rows, and long enough: else it is replaced by another."""
    left = table.leftover
    if left is None or left.lower is None or left.upper is None:
        return None
    with suppress(ValueError):
        begin, end = codec.moment(left.lower), codec.moment(left.upper)
        needed = FOR_SWAP if left.validated else FOR_SWAP + validation_time(table)
        on_grid = all(grid.cell(each).lower == each for each in (begin, end))
        if on_grid and begin <= lower and end >= latest + needed:
            return begin, end
    return None


def _conversion(table: PlainTable, wanted: Wanted, frame: _Frame) -> Conversion:
    """Raises `KeyOutOfRange` and `NameTooLong`."""
    spec, name, literal = wanted.spec, table.parent.name, frame.codec.literal
    assert table.key is not None
    current, grid = frame.grid.cell(frame.now), frame.grid
    for _ in range(spec.premake):
        current = grid.cell(current.upper)
    cells = [grid.cell(frame.upper), *grid.cells(grid.cell(frame.upper).upper, current.upper)]
    ahead = (
        NewPartition(
            name=partition_name(name, spec.name_format, grid, each),
            lower=literal(each.lower),
            upper=literal(each.upper),
        )
        for each in cells
    )
    return Conversion(
        schema=table.parent.schema,
        table=name,
        oid=table.parent.oid,
        key=table.key.name,
        legacy=wanted.legacy_name or _legacy_name(name, grid, frame.upper),
        check=CHECK,
        lower=literal(frame.lower),
        upper=literal(frame.upper),
        widened=widened(table, wanted),
        ahead=tuple(ahead),
    )


def _legacy_name(table: str, grid: Grid, upper: datetime) -> str:
    """``run_until_2026_12``, the last interval that it holds; a name that would be too long is cut in the table's."""
    last = grid.cell(upper - timedelta(microseconds=1))
    for length in range(len(table), 0, -1):
        with suppress(NameTooLong):
            return partition_name(f"{table[:length]}_until", None, grid, BoundedRange(last.lower, last.upper))
    raise NameTooLong(f"no name of at most {MAX_BYTES} bytes is left for the first partition; set legacyName")


def _collisions(table: PlainTable, conversion: Conversion, taken: Collection[str]) -> Iterator[Refusal]:
    if len(conversion.legacy.encode()) > MAX_BYTES:
        why = f"it has more than {MAX_BYTES} bytes, which PostgreSQL cuts"
        yield Refusal(f"name {conversion.legacy}", why, "shorten legacyName (--legacy-name)")
    mine = {each.name for each in table.indexes if is_ours(table, each)}
    others = {*taken, table.parent.name} - mine
    plan = ConversionPlan(table, conversion=conversion)
    for name in plan.names:
        if name in others or plan.names.count(name) > 1:
            way = "rename that one, or set legacyName (--legacy-name)" if name == conversion.legacy else "rename that"
            yield Refusal(f"name {name}", f"schema {table.parent.schema} has something of that name", way)


def _edge(conversion: Conversion) -> str:
    last = conversion.ahead[-1].upper
    return (
        f"its rows from {conversion.lower} to {conversion.upper} are partition {conversion.legacy}; rows before "
        f"{conversion.lower}, and from {last} on until more partitions are made, are refused from then on"
    )


def _steps(table: PlainTable, conversion: Conversion, has_check: bool) -> Iterator[Step]:
    read, build = table.heap / READ_RATE, table.heap / BUILD_RATE
    built = {each.name for each in table.indexes if is_ours(table, each) and each.valid}
    index = table.key_index
    how = f"by index {index.name}" if index else "by reading every row, since no index begins with it"
    yield Step(f"find the range of {conversion.key}, {how}", "ACCESS SHARE", "no session", 0.0 if index else read, True)
    for key in conversion.widened:
        text = f"CREATE UNIQUE INDEX CONCURRENTLY {key.index} ({', '.join(key.columns)})"
        yield Step(text, "SHARE UPDATE EXCLUSIVE", "no session", build, key.index in built)
    span = f"CHECK {conversion.key} from {conversion.lower} to {conversion.upper}"
    heavy = "readers and writers, while locks are asked for, 50 ms at most each time"
    yield Step(f"{span} NOT VALID", "ACCESS EXCLUSIVE", heavy, 0.0, has_check)
    validated = has_check and table.leftover is not None and table.leftover.validated
    yield Step("VALIDATE CONSTRAINT, which reads every row", "SHARE UPDATE EXCLUSIVE", "no session", read, validated)
    swap = f"rename to {conversion.legacy}, make the partitioned table, attach, and {len(conversion.ahead)} ahead"
    yield Step(swap, "ACCESS EXCLUSIVE", f"{heavy}, and until it is committed", 0.0)
    yield from _validations(table)


def _validations(table: PlainTable) -> Iterator[Step]:
    """Of the foreign keys that point to the table, once it is partitioned; those of other tables lock these as well."""
    keys = {each.name: each.kind for each in table.tied if each.kind in REFERRING and each.validated}
    if not keys:
        return
    text = f"VALIDATE CONSTRAINT {', '.join(keys)}: of the tables that refer to it each row is read"
    lock, waits = "ROW SHARE", "no session"
    if TiedKind.SELF_REFERENCE in keys.values():
        lock, waits = "SHARE ROW EXCLUSIVE", "writers, 50 ms at most each time, once it is validated"
    yield Step(text, lock, waits, table.referring / READ_RATE)
