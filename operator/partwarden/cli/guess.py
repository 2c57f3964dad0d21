"""Guess the policy of a table from its partitions: the fields by which nothing is left to be done. Pure.

Bounds decide. Names say only how new ones are to be called; where they follow no pattern, that is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import available_timezones

from ..api.policy import PLACEHOLDERS, UNIQUE, Table, TableSpec
from ..api.retention import KeyEncoding
from ..api.types import Interval, is_zone
from ..planner.calendar import Grid, Range, load_zone, merge, subtract
from ..planner.inventory import Inventory
from ..planner.keys import DEFAULT_FORMATS, TYPES, fields

RECENT = 12
"""How many of the newest partitions decide the interval: older ones may be of another, before it was changed."""
NEWEST_NAMES = 4
"""How many of those decide the pattern of names."""
LIKELY_YEARS = range(1990, 2150)
"""Years of bounds that are read by the right encoding."""
MOST_ZONES = 6
"""How many zones a comment names."""
MOST_PREMAKE = 1000
"""What spec.premake may be at most."""
ORDERS = (
    ("year", "month", "day", "hour"),
    ("year", "month", "day"),
    ("year", "quarter"),
    ("isoyear", "week"),
    ("year", "month"),
    ("year",),
)
"""Placeholders in the orders in which names have them; what is in another order follows no pattern."""
LONGEST = {
    Interval.HOUR: timedelta(hours=3),
    Interval.DAY: timedelta(days=2),
    Interval.WEEK: timedelta(days=9),
    Interval.MONTH: timedelta(days=33),
    Interval.QUARTER: timedelta(days=95),
    Interval.YEAR: timedelta(days=368),
}
"""Ascending: what is shorter may be a cell of that interval."""

Bounds = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Guess:
    """Fields of a policy, and why: ``because`` by the field's name in YAML, for people."""

    encoding: KeyEncoding
    interval: Interval
    timezone: str
    premake: int
    start_from: str | None
    name_format: str | None
    because: Mapping[str, str]


def spec(table: Table, guess: Guess) -> TableSpec:
    """A policy with these fields."""
    return TableSpec.model_validate(
        {
            "table": table.model_dump(by_alias=True),
            "keyEncoding": guess.encoding,
            "interval": guess.interval,
            "timezone": guess.timezone,
            "premake": guess.premake,
            "startFrom": guess.start_from,
            "nameFormat": guess.name_format,
        }
    )


def encodings(type_name: str) -> list[KeyEncoding]:
    """Those that a column of the type can hold, as ``format_type`` spells it."""
    return [encoding for encoding, types in TYPES.items() if type_name in types]


def best_encoding(inventories: Mapping[KeyEncoding, Inventory]) -> KeyEncoding:
    """By which most bounds are of our time; the first where they are alike."""

    def likely(encoding: KeyEncoding) -> int:
        ranges = [each.range for each in inventories[encoding].partitions if each.range]
        ends = [end for each in ranges for end in (each.lower, each.upper) if end is not None]
        return sum(end.year in LIKELY_YEARS for end in ends)

    return max(inventories, key=likely)


def guess(encoding: KeyEncoding, inventory: Inventory, aware: bool, zone: str) -> Guess:
    """``inventory`` was read by that encoding; ``aware``: whether the key's moments are; ``zone``: of the server."""
    newest = sorted(_bounded(inventory))[-RECENT:]
    because: dict[str, str] = {}
    best = _find_grid([bounds for bounds, _ in newest], aware, zone)
    if best is None:
        interval, name = _nearest([bounds for bounds, _ in newest]), zone
        because["interval"] = _off_the_grid(len(newest), interval)
    else:
        interval, name, count, alike = best
        because["interval"] = f"{count} of the {len(newest)} newest partitions with bounds are exactly that"
        if aware and name != "UTC":
            others = [each for each in alike if each != name]
            because["timezone"] = "the server's, and the bounds'" if name == zone else _also(others)
    if not aware:
        because["timezone"] = "the server's; the key has none, and the current partition is that of this zone's clock"
    grid = Grid(interval, load_zone(name) if aware else None)
    now = inventory.now if aware else inventory.now.astimezone(load_zone(name)).replace(tzinfo=None)
    ahead, start = _ahead(grid, now, inventory), _start(grid, now, inventory)
    because["premake"] = f"so many are there after the current one{'' if ahead else ': 2 is what most want'}"
    if start is not None:
        because["startFrom"] = "holes before it stay"
    pattern = _name_format(inventory, grid)
    if pattern is None and best is not None:
        because["nameFormat"] = f"names follow no pattern; new ones are {DEFAULT_FORMATS[interval]}"
    shown = None if pattern == DEFAULT_FORMATS[interval] else pattern
    return Guess(encoding, interval, name, ahead, start, shown, because)


def _bounded(inventory: Inventory) -> Iterator[tuple[Bounds, str]]:
    """Both bounds and the name of each partition that has both."""
    for each in inventory.partitions:
        if each.range and each.range.lower is not None and each.range.upper is not None:
            yield (each.range.lower, each.range.upper), each.name


def _find_grid(ranges: Sequence[Bounds], aware: bool, zone: str) -> tuple[Interval, str, int, list[str]] | None:
    """Interval, zone, how many of the ranges are its cells, and the zones of which they are as well.

    The likeliest zones are tried first, and the others only where neither fits. An interval is tried only where a range
    is about as long, which spares the search of all zones most of its work.
    """
    likely = [
        interval for interval in Interval if any(LONGEST[interval] / 8 < b - a < LONGEST[interval] for a, b in ranges)
    ]
    for zones in (["UTC", zone], sorted(filter(is_zone, available_timezones()))) if aware else ([zone],):
        counts = {
            (interval, name): _count_cells(Grid(interval, load_zone(name) if aware else None), ranges)
            for interval in likely
            for name in dict.fromkeys(zones)
        }
        best = max(counts, key=lambda each: counts[each], default=None)
        if best is not None and counts[best]:
            alike = [name for (interval, name), count in counts.items() if (interval, count) == (best[0], counts[best])]
            return *best, counts[best], alike
    return None


def _count_cells(grid: Grid, ranges: Sequence[Bounds]) -> int:
    return sum(grid.cell(lower) == Range(lower, upper) for lower, upper in ranges)


def _nearest(ranges: Sequence[Bounds]) -> Interval:
    """The interval that is about as long as most of the ranges; Year where there are none."""
    lengths = [upper - lower for lower, upper in ranges]
    likely = [next((i for i, longest in LONGEST.items() if each < longest), Interval.YEAR) for each in lengths]
    return max(likely, key=likely.count, default=Interval.YEAR)


def _off_the_grid(count: int, interval: Interval) -> str:
    if not count:
        return "no partition has both bounds: say what it is to be"
    return (
        f"no partition is exactly an interval, and most are about as long as a {interval}: say what it is to be. Those "
        "that are there stay Unmanaged, which no retention detaches or drops"
    )


def _also(others: Sequence[str]) -> str:
    if not others:
        return "the bounds are of this zone's clock, and of no other's"
    step = max(1, len(others) // MOST_ZONES)
    named = ", ".join(others[::step][:MOST_ZONES])
    return f"the bounds are of this zone's clock, and of {len(others)} others', such as {named}: say which is meant"


def _coverage(inventory: Inventory) -> list[Range]:
    return merge(each.range for each in inventory.partitions if each.range)


def _ahead(grid: Grid, now: datetime, inventory: Inventory) -> int:
    """Whole cells after the current one that are covered without a hole; at most as many as there are partitions."""
    coverage, count, cell = _coverage(inventory), 0, grid.cell(now)
    while count < min(MOST_PREMAKE, len(inventory.partitions)):
        assert cell.upper is not None
        cell = grid.cell(cell.upper)
        if subtract(cell, coverage):
            break
        count += 1
    return count


def _start(grid: Grid, now: datetime, inventory: Inventory) -> str | None:
    """The first day of the unbroken coverage that holds now, where something lies before it; None for no hole."""
    coverage = _coverage(inventory)
    current = next((each for each in coverage if each.contains(now)), grid.cell(now))
    lower = current.lower
    if lower is None or not any(each.lower is None or each.lower < lower for each in coverage):
        return None
    cell = grid.cell(lower)
    first = lower if cell.lower == lower else cell.upper
    assert first is not None
    return grid.local(first).date().isoformat()


def _name_format(inventory: Inventory, grid: Grid) -> str | None:
    """The pattern by which all of the newest whole cells are named; None where there is none."""
    assert inventory.parent is not None
    table = inventory.parent.name
    whole = [(lower, name) for (lower, upper), name in _bounded(inventory) if grid.cell(lower) == Range(lower, upper)]
    newest = [(fields(grid.local(lower)), name) for lower, name in sorted(whole)[-NEWEST_NAMES:]]
    if not newest or any(brace in newest[-1][1] for brace in "{}"):
        return None
    for pattern in _patterns(*newest[-1], table, grid.interval):
        held = {each for each in PLACEHOLDERS if f"{{{each}}}" in pattern}
        tells_apart = any(placeholders <= held for placeholders in UNIQUE[grid.interval])
        if tells_apart and all(pattern.format_map({"table": table, **known}) == name for known, name in newest):
            return pattern
    return None


def _patterns(known: Mapping[str, str], name: str, table: str, interval: Interval) -> Iterator[str]:
    """How the name may have come about; ``known``: what the placeholders stand for."""
    yield DEFAULT_FORMATS[interval]
    prefix, rest = ("{table}", name[len(table) :]) if name.startswith(table) else ("", name)
    for order in ORDERS:
        values = "(.*?)".join(re.escape(known[each]) for each in order)
        if match := re.fullmatch(f"(.*?){values}(.*)", rest, re.DOTALL):
            *before, after = match.groups()
            yield prefix + "".join(f"{text}{{{each}}}" for text, each in zip(before, order, strict=True)) + after
