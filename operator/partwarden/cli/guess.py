"""What policy a table seems to be kept by: partitions as they are -> the fields that leave nothing to be done. Pure.

Bounds decide. Names say only how new ones are to be called; where they follow no pattern, that is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from zoneinfo import available_timezones

from ..api.policy import PLACEHOLDERS, UNIQUE, Table, TableSpec
from ..api.retention import KeyEncoding
from ..api.types import Interval, is_zone
from ..planner.calendar import Grid, Range, load_zone, merge, subtract
from ..planner.inventory import Inventory, Partition
from ..planner.keys import TYPES
from ..planner.naming import DEFAULT_FORMATS, fields, partition_name

RECENT = 12
"""How many of the newest partitions tell the interval: older ones may be of another, before it was changed."""
NAMED = 4
"""How many of those tell how they are named."""
OURS = range(1990, 2150)
"""Years of bounds that are read by the right encoding."""
SHOWN = 6
"""How many zones a comment names."""
READINGS = 5000
"""So many ways to read a name are tried: one of nothing but digits has more than anybody waits for."""
RARE = ("quarter", "isoyear", "week")
"""Placeholders that are tried last: the other ones mean the same digits more often."""
MOST = 1000
"""What spec.premake may be at most."""


@dataclass(frozen=True, slots=True)
class Guess:
    """Fields of a policy, and what they go by: ``because`` by the field's name in YAML, for people."""

    encoding: KeyEncoding
    interval: Interval
    timezone: str
    premake: int
    start_from: str | None
    name_format: str | None
    because: Mapping[str, str]


def spec(table: Table, found: Guess) -> TableSpec:
    """A policy with these fields."""
    return TableSpec.model_validate(
        {
            "table": table.model_dump(by_alias=True),
            "keyEncoding": found.encoding,
            "interval": found.interval,
            "timezone": found.timezone,
            "premake": found.premake,
            "startFrom": found.start_from,
            "nameFormat": found.name_format,
        }
    )


def encodings(type_name: str) -> list[KeyEncoding]:
    """Those that a column of the type can hold, as ``format_type`` spells it."""
    return [encoding for encoding, types in TYPES.items() if type_name in types]


def best_encoding(seen: Mapping[KeyEncoding, Inventory]) -> KeyEncoding:
    """By which most bounds are of our time; the first where none tells."""

    def ours(encoding: KeyEncoding) -> int:
        ends = [end for each in _bounded(seen[encoding]) for end in each if end is not None]
        return sum(end.year in OURS for end in ends)

    return max(seen, key=ours)


def guess(encoding: KeyEncoding, inventory: Inventory, aware: bool, zone: str) -> Guess:
    """``inventory`` was read by that encoding; ``aware``: whether the key's moments are; ``zone``: of the server."""
    ranges = sorted(_ranges(inventory), key=lambda each: _end(each.lower))[-RECENT:]
    because: dict[str, str] = {}
    found = _grid(ranges, aware, zone)
    if found is None:
        interval, name = _nearest(ranges), zone
        because["interval"] = _off_the_grid(ranges, interval)
    else:
        interval, name, count, alike = found
        because["interval"] = f"{count} of the {len(ranges)} newest partitions with bounds are exactly that"
    if not aware:
        because["timezone"] = "the server's; the key has none, and the current partition is that of this zone's clock"
    elif found is not None and name != "UTC":
        others = [each for each in alike if each != name]
        because["timezone"] = "the server's, and the bounds'" if name == zone else _also(others)
    grid = Grid(interval, load_zone(name) if aware else None)
    now = inventory.now if aware else inventory.now.astimezone(load_zone(name)).replace(tzinfo=None)
    ahead, start = _ahead(grid, now, inventory), _start(grid, now, inventory)
    because["premake"] = f"so many are there after the current one{'' if ahead else ': 2 is what most want'}"
    if start is not None:
        because["startFrom"] = "holes before it stay"
    pattern = _name_format(inventory, grid)
    if pattern is None and found is not None:
        because["nameFormat"] = f"names follow no pattern; new ones are {DEFAULT_FORMATS[interval]}"
    shown = None if pattern == DEFAULT_FORMATS[interval] else pattern
    return Guess(encoding, interval, name, ahead, start, shown, because)


def _bounded(inventory: Inventory) -> Iterator[tuple[datetime | None, datetime | None]]:
    return ((each.range.lower, each.range.upper) for each in inventory.partitions if each.range)


def _ranges(inventory: Inventory) -> list[Range]:
    return [Range(lower, upper) for lower, upper in _bounded(inventory) if lower is not None and upper is not None]


def _end(moment: datetime | None) -> datetime:
    assert moment is not None
    return moment


def _grid(ranges: Sequence[Range], aware: bool, zone: str) -> tuple[Interval, str, int, list[str]] | None:
    """Interval, zone, how many of the ranges are its cells, and the zones of which they are as well.

    The likeliest zones are tried first, and the others only where neither fits.
    """
    if not ranges:
        return None
    for zones in ([zone],) if not aware else (["UTC", zone], sorted(filter(is_zone, available_timezones()))):
        likely = [each for each in Interval if _may_be(each, ranges)]
        counts = {
            (interval, name): _cells(Grid(interval, load_zone(name) if aware else None), ranges)
            for interval in likely
            for name in dict.fromkeys(zones)
        }
        best = max(counts, key=lambda each: counts[each], default=None)
        if best is not None and counts[best]:
            alike = [name for (interval, name), count in counts.items() if (interval, count) == (best[0], counts[best])]
            return *best, counts[best], alike
    return None


def _nearest(ranges: Sequence[Range]) -> Interval:
    """The interval that is about as long as most of the ranges; Year where there are none."""
    likely = [next(each for each in Interval if _is_as_long(each, found)) for found in ranges]
    return max(likely, key=likely.count, default=Interval.YEAR)


def _is_as_long(interval: Interval, found: Range) -> bool:
    length = _end(found.upper) - _end(found.lower)
    return length < LONGEST[interval] or interval is Interval.YEAR


def _off_the_grid(ranges: Sequence[Range], interval: Interval) -> str:
    if not ranges:
        return "no partition has both bounds: say what it is to be"
    return (
        f"no partition is exactly an interval, and most are about as long as a {interval}: say what it is to be. Those "
        "that are there stay Unmanaged, which no retention detaches or drops"
    )


def _also(others: Sequence[str]) -> str:
    if not others:
        return "the bounds are of this zone's clock, and of no other's"
    step = max(1, len(others) // SHOWN)
    named = ", ".join(others[::step][:SHOWN])
    return f"the bounds are of this zone's clock, and of {len(others)} others', such as {named}: say which is meant"


LONGEST = {
    Interval.HOUR: timedelta(hours=3),
    Interval.DAY: timedelta(days=2),
    Interval.WEEK: timedelta(days=9),
    Interval.MONTH: timedelta(days=33),
    Interval.QUARTER: timedelta(days=95),
    Interval.YEAR: timedelta(days=368),
}


def _may_be(interval: Interval, ranges: Sequence[Range]) -> bool:
    """Told by length alone, which spares the search of all zones most of its work."""
    return any(
        LONGEST[interval] / 8 < each.upper - each.lower < LONGEST[interval]
        for each in ranges
        if each.lower is not None and each.upper is not None
    )


def _cells(grid: Grid, ranges: Iterable[Range]) -> int:
    return sum(each.lower is not None and grid.cell(each.lower) == each for each in ranges)


def _coverage(inventory: Inventory) -> list[Range]:
    return merge(each.range for each in inventory.partitions if each.range)


def _ahead(grid: Grid, now: datetime, inventory: Inventory) -> int:
    """Whole cells after the current one that are covered without a hole; at most as many as there are partitions."""
    coverage, count, cell = _coverage(inventory), 0, grid.cell(now)
    while count < min(MOST, len(inventory.partitions)):
        cell = grid.cell(cell.upper)
        if subtract(cell, coverage):
            break
        count += 1
    return count


def _start(grid: Grid, now: datetime, inventory: Inventory) -> str | None:
    """The first day of the unbroken coverage that holds now, where something lies before it; None for no hole."""
    coverage = _coverage(inventory)
    holding = [each for each in coverage if each.contains(now)]
    lower = holding[0].lower if holding else grid.cell(now).lower
    if lower is None or not [each for each in coverage if each.lower is None or each.lower < lower]:
        return None
    cell = grid.cell(lower)
    if cell.lower != lower:
        cell = grid.cell(cell.upper)
    return grid.local(cell.lower).date().isoformat()


def _name_format(inventory: Inventory, grid: Grid) -> str | None:
    """The pattern by which all of the newest whole cells are named; None where there is none."""
    assert inventory.parent is not None
    named = [
        each
        for each in inventory.partitions
        if each.range and each.range.lower is not None and grid.cell(each.range.lower) == each.range
    ]
    newest = sorted(named, key=_lower)[-NAMED:]
    if not newest:
        return None
    table = inventory.parent.name
    for pattern in _patterns(newest[-1], table, grid):
        held = {name for name in PLACEHOLDERS if f"{{{name}}}" in pattern}
        if any(names <= held for names in UNIQUE[grid.interval]) and all(
            partition_name(table, pattern, grid, grid.cell(_lower(each))) == each.name for each in newest
        ):
            return pattern
    return None


def _lower(partition: Partition) -> datetime:
    assert partition.range is not None
    assert partition.range.lower is not None
    return partition.range.lower


def _patterns(partition: Partition, table: str, grid: Grid) -> Iterator[str]:
    """All ways to read the name, those with most placeholders first where two begin alike."""
    known = fields(grid.local(_lower(partition)))
    name = partition.name
    prefix = "{table}" if name.startswith(table) else ""
    if "{" in name or "}" in name:
        return
    yield DEFAULT_FORMATS[grid.interval]
    ordered = dict(sorted(known.items(), key=lambda each: each[0] in RARE))
    read = _read(name[len(table) :] if prefix else name, ordered)
    yield from (prefix + rest for rest in islice(read, READINGS))


def _read(text: str, known: Mapping[str, str]) -> Iterator[str]:
    if not text:
        yield ""
        return
    for field, value in known.items():
        if text.startswith(value):
            # None stands twice in a name: 0101 is a month and a day.
            others = {each: known[each] for each in known if each != field}
            yield from (f"{{{field}}}{rest}" for rest in _read(text[len(value) :], others))
    yield from (text[0] + rest for rest in _read(text[1:], known))
