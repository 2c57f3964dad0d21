"""The partition key: its values <-> moments, bounds <-> ranges, and ranges -> names of partitions.

A UUIDv7 begins with 48 bits of Unix milliseconds (RFC 9562, section 5.7); what follows is version, variant and chance.
So the smallest key of a millisecond has nothing but zeros there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from ..api.retention import KeyEncoding
from ..api.types import Interval
from ..errors import KeyOutOfRange, NameTooLong
from .calendar import BoundedRange, Grid, Range, iso


class KeyType(StrEnum):
    """The types of a partition key that can be managed, by their SQL names."""

    DATE = "date"
    TIMESTAMP = "timestamp without time zone"
    TIMESTAMPTZ = "timestamp with time zone"
    UUID = "uuid"
    BIGINT = "bigint"
    INTEGER = "integer"


YEARS = range(1973, 2100)
"""Years in which bounds are expected: their numbers in one unit are other numbers than in any other unit."""
FIRST, LAST = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (YEARS.start, YEARS.stop))
HIGHEST = frozenset({2**31 - 1, 2**63 - 1})
"""Bounds that mean "no end", as 0 and what is below it mean "no beginning": they fit every unit."""
NUMBER = re.compile(r"\('?(-?\d+)'?\)")


@dataclass(frozen=True, slots=True)
class Unit:
    """What the numbers of a key may count: ``per_second`` since 1970, or so many ``digits`` of a date.

    ``name`` is for a message; ``encoding`` None where Partwarden does not manage keys of this unit.
    """

    name: str
    encoding: KeyEncoding | None = None
    per_second: float = 0
    digits: int = 0

    def fits(self, value: int) -> bool:
        """Whether it is of one of the `YEARS`."""
        if self.per_second:
            return FIRST * self.per_second <= value <= LAST * self.per_second
        text = str(value)
        with suppress(ValueError):
            year = date(int(text[:4]), int(text[4:6] or 1), int(text[6:8] or 1)).year
            return len(text) == self.digits and year in YEARS
        return False


UNITS = (
    Unit("seconds since 1970", KeyEncoding.EPOCH_SECONDS, per_second=1),
    Unit("milliseconds since 1970", KeyEncoding.EPOCH_MILLISECONDS, per_second=10**3),
    Unit("microseconds since 1970", per_second=10**6),
    Unit("nanoseconds since 1970", per_second=10**9),
    Unit("dates written as YYYYMMDD", digits=8),
    Unit("months written as YYYYMM", digits=6),
    Unit("years", digits=4),
)


DAYS = Unit("days since 1970", per_second=1 / 86_400)
"""Small numbers, which may be anything beside others: it counts only where all are such, see `likely`."""


def numbers(bounds: Iterable[str]) -> list[int]:
    """The whole numbers in PostgreSQL's texts of bounds that tell a unit: neither MINVALUE nor 0, nor the highest."""
    found = [int(each) for text in bounds for each in NUMBER.findall(text)]
    return [each for each in found if each > 0 and each not in HIGHEST]


def fitting(values: Iterable[int]) -> Unit | None:
    """The unit that all of them fit; None where there are no values, or none fits."""
    known = list(values)
    return next((unit for unit in UNITS if known and all(unit.fits(each) for each in known)), None)


def likely(values: Iterable[int]) -> Unit | None:
    """The same, of all numbers that a table has."""
    known = list(values)
    return fitting(known) or (DAYS if known and all(map(DAYS.fits, known)) else None)


# Bounds, as PostgreSQL writes them under ``DateStyle ISO`` and ``TimeZone UTC``.
BEGIN, BETWEEN, END = "FOR VALUES FROM (", ") TO (", ")"


def parse_bounds(text: str, codec: Codec) -> Range | None:
    """``FOR VALUES FROM (…) TO (…)`` as a range in the key's domain; ``DEFAULT`` as None. Raises ValueError.

    A range whose ends lie within one millisecond of a UUID may be empty.
    """
    if text == "DEFAULT":
        return None
    floor, ceiling = codec.floor, codec.ceiling
    ends = {"MINVALUE": floor, "MAXVALUE": ceiling}
    lower, upper = (ends.get(value) or codec.moment(value) for value in literals(text))
    return Range(
        None if lower <= floor else min(lower, ceiling),
        None if upper >= ceiling else max(upper, floor),
    )


def literals(text: str) -> Bounds:
    """The two values in ``FOR VALUES FROM (…) TO (…)``. Raises ValueError."""
    lower, _, upper = text.removeprefix(BEGIN).removesuffix(END).rpartition(BETWEEN)
    if not (lower and upper and text.startswith(BEGIN) and text.endswith(END)):
        raise ValueError(f"not the bounds of a RANGE partition: {text}")
    return Bounds(lower.strip("'"), upper.strip("'"))


@dataclass(frozen=True, slots=True)
class Edges:
    """What to write as bounds of a new partition, so that it meets its neighbours to the last bit.

    Only a UUID says more than its moment. A partition made by hand may have anything behind the milliseconds of its
    bounds: a neighbour that wrote zeros there would overlap it, or leave a gap.
    """

    codec: Codec
    lowers: dict[datetime, str] = field(default_factory=dict)
    """Where existing partitions begin, and the lowest literal that stands there."""
    uppers: dict[datetime, str] = field(default_factory=dict)
    """Where they end, and the highest literal that stands there."""

    @classmethod
    def of(cls, codec: Codec, partitions: Iterable[tuple[Range, str]]) -> Edges:
        """Those of partitions: their ranges in the key's domain, with the texts of their bounds."""
        edges = cls(codec)
        if codec.encoding is not KeyEncoding.UUID_V7:
            return edges
        for held, text in partitions:
            lower, upper = literals(text)
            # The texts of two UUIDs are ordered as they are.
            if held.lower is not None:
                edges.lowers[held.lower] = min(lower, edges.lowers.get(held.lower, lower))
            if held.upper is not None:
                edges.uppers[held.upper] = max(upper, edges.uppers.get(held.upper, upper))
        return edges

    def bounds(self, lower: datetime, upper: datetime) -> Bounds:
        """Those of a partition for ``[lower, upper)``, of which nothing is held yet. Raises `KeyOutOfRange`."""
        return Bounds(
            self.uppers.get(lower) or self.codec.literal(lower),
            self.lowers.get(upper) or self.codec.literal(upper),
        )


FLOOR, CEILING = datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 1, 1, tzinfo=UTC)
"""The calendar here has the years 1 to 9999. What lies outside counts as unbounded."""

TYPES: Mapping[KeyEncoding, tuple[KeyType, ...]] = {
    KeyEncoding.NATIVE: (KeyType.DATE, KeyType.TIMESTAMP, KeyType.TIMESTAMPTZ),
    KeyEncoding.UUID_V7: (KeyType.UUID,),
    KeyEncoding.EPOCH_SECONDS: (KeyType.BIGINT, KeyType.INTEGER),
    KeyEncoding.EPOCH_MILLISECONDS: (KeyType.BIGINT,),
}
"""Columns that can hold each encoding. An integer of milliseconds would end in January 1970."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TICKS: Mapping[KeyEncoding, timedelta] = {
    KeyEncoding.UUID_V7: timedelta(milliseconds=1),
    KeyEncoding.EPOCH_SECONDS: timedelta(seconds=1),
    KeyEncoding.EPOCH_MILLISECONDS: timedelta(milliseconds=1),
}
LIMITS: Mapping[KeyType, tuple[int, int]] = {
    KeyType.UUID: (0, 2**48 - 1),
    KeyType.INTEGER: (-(2**31), 2**31 - 1),
    KeyType.BIGINT: (-(2**63), 2**63 - 1),
}
"""Ticks that fit, both included."""

CHANCE = 80
"""Bits of a UUIDv7 behind its milliseconds."""
LOWEST_VALID = 0x7000_8000_0000_0000_0000
"""The lowest that a UUIDv7 has there: version 7, variant 2. Some write this into bounds, some zeros: it is the same."""


class Bounds(NamedTuple):
    """The bounds of a partition as PostgreSQL takes them: texts of literals, lower included, upper excluded."""

    lower: str
    upper: str


@dataclass(frozen=True, slots=True)
class Codec:
    """One type of key in one encoding; `TYPES` says which go together."""

    type: KeyType
    encoding: KeyEncoding = KeyEncoding.NATIVE

    @classmethod
    def find(cls, type_name: str, encoding: KeyEncoding) -> Codec | None:
        """That of a column, its type as ``format_type`` spells it; None where it cannot hold the encoding."""
        return next((cls(each, encoding) for each in TYPES[encoding] if each == type_name), None)

    @property
    def aware(self) -> bool:
        """Whether moments of this key are aware and in UTC; those of ``timestamp`` and ``date`` are naive."""
        return self.type not in (KeyType.TIMESTAMP, KeyType.DATE)

    @property
    def floor(self) -> datetime:
        """`FLOOR` in the key's domain."""
        return FLOOR if self.aware else FLOOR.replace(tzinfo=None)

    @property
    def ceiling(self) -> datetime:
        """`CEILING` in the key's domain."""
        return CEILING if self.aware else CEILING.replace(tzinfo=None)

    def literal(self, moment: datetime) -> str:
        """The smallest value of the key at or after ``moment``, as the text of a literal. Raises `KeyOutOfRange`."""
        if self.encoding is KeyEncoding.NATIVE:
            text = iso(moment)
            assert text is not None
            return text
        ticks = -((EPOCH - moment) // TICKS[self.encoding])
        lowest, highest = LIMITS[self.type]
        if lowest <= ticks <= highest:
            return self._text(ticks)
        first, last = (iso(self.moment(self._text(end))) for end in (lowest, highest))
        raise KeyOutOfRange(
            f"a key of type {self.type} in {self.encoding} cannot be {iso(moment)}, it reaches from {first} to {last}: "
            "leave out dates beyond that in spec.startFrom and spec.ensure, and make the last partition by hand, TO "
            "(MAXVALUE)"
        )

    def _text(self, ticks: int) -> str:
        return str(UUID(int=ticks << CHANCE)) if self.encoding is KeyEncoding.UUID_V7 else str(ticks)

    def moment(self, value: str) -> datetime:
        """The moment of a value as PostgreSQL writes it; `floor` or `ceiling` for what lies outside the calendar.

        Where some keys of a UUID's millisecond are lower than it, it lies some microseconds later, so that it is never
        taken for a boundary of the calendar. Raises ValueError.
        """
        if self.encoding is KeyEncoding.NATIVE:
            return self._native(value)
        tick, late = TICKS[self.encoding], timedelta(0)
        if self.encoding is KeyEncoding.UUID_V7:
            ticks, rest = divmod(int(value.replace("-", ""), 16), 1 << CHANCE)
            if rest > LOWEST_VALID:
                late = timedelta(microseconds=1 + (rest * 999 >> CHANCE))
        else:
            ticks = int(value)
        if ticks <= (FLOOR - EPOCH) // tick:
            return FLOOR
        return CEILING if ticks >= (CEILING - EPOCH) // tick else EPOCH + ticks * tick + late

    def _native(self, value: str) -> datetime:
        if value[4:5] == "-" and not value.endswith(" BC"):
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC) if self.aware else moment
        if value == "-infinity" or value.endswith(" BC"):
            return self.floor
        if value == "infinity" or re.match(r"\d{5,}-", value):
            return self.ceiling
        raise ValueError(f"not a {self.type}: {value}")


# Names are for people: nothing is ever decided by reading one.
MAX_BYTES = 63
"""NAMEDATALEN - 1: PostgreSQL cuts longer names silently, and cut names collide."""

DEFAULT_FORMATS = {
    Interval.YEAR: "{table}_{year}",
    Interval.QUARTER: "{table}_{year}_q{quarter}",
    Interval.MONTH: "{table}_{year}_{month}",
    Interval.WEEK: "{table}_{isoyear}_w{week}",
    Interval.DAY: "{table}_{year}_{month}_{day}",
    Interval.HOUR: "{table}_{year}_{month}_{day}_{hour}",
}


def partition_name(table: str, name_format: str | None, grid: Grid, wanted: BoundedRange) -> str:
    """The name of a new partition that holds ``wanted``, a cell of ``grid`` or a piece of one.

    A piece carries its lower bound's wall-clock time as a suffix, so that it never takes the name of the whole.
    Raises `NameTooLong`.
    """
    cell = grid.cell(wanted.lower)
    pattern = name_format or DEFAULT_FORMATS[grid.interval]
    name = pattern.format_map({"table": table, **fields(grid.local(cell.lower))})
    if cell != wanted:
        name += "_" + _stamp(grid.local(wanted.lower))
    size = len(name.encode())
    if size > MAX_BYTES:
        raise NameTooLong(
            f"partition name {name!r} has {size} bytes, PostgreSQL keeps {MAX_BYTES}: "
            f"shorten spec.nameFormat ({pattern!r}) by {size - MAX_BYTES} bytes, or leave {{table}} out of it"
        )
    return name


def default_name(table: str) -> str:
    """The name of a new DEFAULT partition. Raises `NameTooLong`."""
    name = f"{table}_default"
    if (size := len(name.encode())) > MAX_BYTES:
        raise NameTooLong(
            f"the DEFAULT partition would be called {name!r}, which has {size} bytes, PostgreSQL keeps {MAX_BYTES}: "
            "make it by hand, or set spec.defaultPartition.ensure to false"
        )
    return name


def fields(local: datetime) -> dict[str, str]:
    """What the placeholders of a pattern stand for, of the partition that begins at this naive wall-clock time."""
    iso = local.isocalendar()
    # The second pass of an hour that the clock repeats is another partition: 02 and 02b.
    again = "b" if local.fold else ""
    return {
        "year": f"{local.year:04}",
        "quarter": str((local.month + 2) // 3),
        "month": f"{local.month:02}",
        "isoyear": f"{iso.year:04}",
        "week": f"{iso.week:02}",
        "day": f"{local.day:02}",
        "hour": f"{local.hour:02}{again}",
    }


def _stamp(local: datetime) -> str:
    text = local.strftime("%Y%m%d")
    if local.time().replace(fold=0) != datetime.min.time():
        text += local.strftime("t%H%M%S")
    if local.microsecond:
        text += f"{local.microsecond:06}"
    return text + ("b" if local.fold else "")
