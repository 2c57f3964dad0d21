"""What policies the tables of a database seem to be kept by: the fields by which nothing is left to be done.

Bounds decide. Names say only how new ones are to be called; where they follow no pattern, that is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from zoneinfo import available_timezones

import psycopg
from psycopg import sql

from ..api.policy import UNIQUE, Table, TableSpec
from ..api.retention import KeyEncoding
from ..api.types import Interval, is_zone
from ..errors import InsufficientPrivilege, PartwardenError, TableNotFound, UnknownTimeZone
from ..planner.calendar import BoundedRange, Grid, Range, load_zone, merge, subtract
from ..planner.context import check_table
from ..planner.inventory import Inventory
from ..planner.keys import DEFAULT_FORMATS, TYPES, fields
from ..postgres import catalog
from ..postgres.catalog import newest
from ..postgres.connection import Session, pinned, run
from ..postgres.table_state import similar_tables
from ..postgres.transaction import read_only, reading_rows

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


@dataclass(frozen=True, slots=True)
class Guess:
    """A policy, and why its fields are so: ``because`` by the field's name in YAML, for people."""

    spec: TableSpec
    because: Mapping[str, str]


def guess(table: Table, encoding: KeyEncoding, inventory: Inventory, aware: bool, zone: str) -> Guess:
    """``inventory`` was read by that encoding; ``aware``: whether the key's moments are; ``zone``: of the server."""
    recent = [cell for cell, _ in _bounded(inventory)][-RECENT:]
    because: dict[str, str] = {}
    best = _find_grid(recent, aware, zone)
    if best is None:
        interval, name = _nearest(recent), zone
        because["interval"] = _off_the_grid(len(recent), interval)
    else:
        interval, name, count, alike = best
        because["interval"] = f"{count} of the {len(recent)} newest partitions with bounds are exactly that"
        if aware and name != "UTC":
            others = [each for each in alike if each != name]
            because["timezone"] = "the server's, and the bounds'" if name == zone else _also(others)
    if not aware:
        because["timezone"] = "the server's; the key has none, and the current partition is that of this zone's clock"
    grid = Grid(interval, load_zone(name) if aware else None)
    now = inventory.now if aware else inventory.now.astimezone(load_zone(name)).replace(tzinfo=None)
    coverage = merge(each.range for each in inventory.partitions if each.range)
    ahead = _ahead(grid, now, coverage, min(MOST_PREMAKE, len(inventory.partitions)))
    start = _start(grid, now, coverage)
    because["premake"] = f"so many are there after the current one{'' if ahead else ': 2 is what most want'}"
    if start is not None:
        because["startFrom"] = "holes before it stay"
    pattern = _name_format(table.name, inventory, grid)
    if pattern is None and best is not None:
        because["nameFormat"] = f"names follow no pattern; new ones are {DEFAULT_FORMATS[interval]}"
    spec = TableSpec(
        table=table,
        key_encoding=encoding,
        interval=interval,
        timezone=name,
        premake=ahead,
        start_from=start,
        name_format=None if pattern == DEFAULT_FORMATS[interval] else pattern,
    )
    return Guess(spec, because)


def _bounded(inventory: Inventory) -> list[tuple[BoundedRange, str]]:
    """The range and the name of each partition that has both bounds, ascending."""
    ranges = ((each.range.bounded, each.name) for each in inventory.partitions if each.range)
    return sorted(((piece, name) for piece, name in ranges if piece), key=lambda each: (each[0].lower, each[0].upper))


def _find_grid(ranges: Sequence[BoundedRange], aware: bool, zone: str) -> tuple[Interval, str, int, list[str]] | None:
    """Interval, zone, how many of the ranges are its cells, and the zones of which they are as well.

    The likeliest zones are tried first, and the others only where neither fits. An interval is tried only where a range
    is about as long, which spares the search of all zones most of its work.
    """
    lengths = [each.upper - each.lower for each in ranges]
    likely = [
        interval for interval, longest in LONGEST.items() if any(longest / 8 < each < longest for each in lengths)
    ]
    for zones in (["UTC", zone], sorted(filter(is_zone, available_timezones()))) if aware else ([zone],):
        counts = {}
        for interval in likely:
            for name in zones:
                grid = Grid(interval, load_zone(name) if aware else None)
                counts[interval, name] = sum(grid.cell(each.lower) == each for each in ranges)
        best = max(counts, key=lambda each: counts[each], default=None)
        if best is not None and counts[best]:
            alike = [name for (interval, name), count in counts.items() if (interval, count) == (best[0], counts[best])]
            return *best, counts[best], alike
    return None


def _nearest(ranges: Sequence[BoundedRange]) -> Interval:
    """The interval that is about as long as most of the ranges; Year where there are none."""
    lengths = [each.upper - each.lower for each in ranges]
    likely = [next((i for i, longest in LONGEST.items() if each < longest), Interval.YEAR) for each in lengths]
    return max(likely, key=likely.count, default=Interval.YEAR)


def _off_the_grid(count: int, interval: Interval) -> str:
    if not count:
        return "no partition has both bounds: say what it is to be"
    return (
        f"no partition is exactly an interval, and most are about as long as a {interval}: say what it is to be. Those "
        "that are there are Unmanaged until they expire: retention judges them by their bounds"
    )


def _also(others: Sequence[str]) -> str:
    if not others:
        return "the bounds are of this zone's clock, and of no other's"
    step = max(1, len(others) // MOST_ZONES)
    named = ", ".join(others[::step][:MOST_ZONES])
    return f"the bounds are of this zone's clock, and of {len(others)} others', such as {named}: say which is meant"


def _ahead(grid: Grid, now: datetime, coverage: Sequence[Range], most: int) -> int:
    """Whole cells after the current one that are covered without a hole; at most ``most``."""
    count, cell = 0, grid.cell(now)
    while count < most and not subtract(cell := grid.cell(cell.upper), coverage):
        count += 1
    return count


def _start(grid: Grid, now: datetime, coverage: Sequence[Range]) -> str | None:
    """The first day of the unbroken coverage that holds now, where something lies before it; None for no hole."""
    lower = next((each for each in coverage if each.contains(now)), grid.cell(now)).lower
    if lower is None or not any(each.lower is None or each.lower < lower for each in coverage):
        return None
    cell = grid.cell(lower)
    return grid.local(lower if cell.lower == lower else cell.upper).date().isoformat()


def _name_format(table: str, inventory: Inventory, grid: Grid) -> str | None:
    """The pattern by which all of the newest whole cells are named; None where there is none."""
    whole = [(piece.lower, name) for piece, name in _bounded(inventory) if grid.cell(piece.lower) == piece]
    recent = [(fields(grid.local(lower)), name) for lower, name in whole[-NEWEST_NAMES:]]
    if not recent or any(brace in recent[-1][1] for brace in "{}"):
        return None
    known, name = recent[-1]
    prefix, rest = ("{table}", name[len(table) :]) if name.startswith(table) else ("", name)
    patterns = [DEFAULT_FORMATS[grid.interval]]
    for order in ORDERS:
        values = "(.*?)".join(re.escape(known[each]) for each in order)
        match = re.fullmatch(f"(.*?){values}(.*)", rest, re.DOTALL)
        if match and any(placeholders <= {*order} for placeholders in UNIQUE[grid.interval]):
            *before, after = match.groups()
            parts = [f"{text}{{{each}}}" for text, each in zip(before, order, strict=True)]
            patterns.append(prefix + "".join(parts) + after)
    for pattern in patterns:
        if all(pattern.format_map({"table": table, **each}) == name for each, name in recent):
            return pattern
    return None


# What the database says of its tables.

ROOTS = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'p' AND NOT c.relispartition AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND ({name}::text IS NULL OR (n.nspname, c.relname) = ({schema}::text, {name}::text))
ORDER BY n.nspname, c.relname
"""
# To read a table runs functions of its owner, as in the constants of an index, and everyone may call a table so: a
# superuser reads none but that of a superuser, or of the extension. It is read as its owner.
PARTMAN = """
SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'part_config' AND c.relkind = 'r'
  AND (current_setting('is_superuser') = 'off' OR (SELECT rolsuper FROM pg_roles WHERE oid = c.relowner)
       OR EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
                    AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'pg_partman'))
  AND 3 = (SELECT count(*) FROM pg_attribute a
           WHERE a.attrelid = c.oid AND a.attname IN ('parent_table', 'premake', 'retention'))
"""

# Not that of this transaction, which is pinned.
ZONE = "SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'"
KEPT = """
SELECT parent_table, premake::text, retention, coalesce(to_jsonb(c) ->> 'automatic_maintenance', 'on') <> 'off'
FROM {}.part_config c
"""

# What only a partition has, as of a template of pg_partman, no new one will have.
OWN_INDEXES = """
SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = {newest} AND i.indisunique
  AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid)
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Partman:
    """What pg_partman's part_config says of a table. ``automatic``: whether its maintenance keeps it by itself."""

    premake: str
    retention: str | None
    automatic: bool


@dataclass(frozen=True, slots=True)
class Found:
    """One table: what it seems to be kept by, or ``error``, why it cannot be managed."""

    table: Table
    key: str = ""
    """The column of the partition key."""
    guess: Guess | None = None
    error: PartwardenError | None = None
    partman: Partman | None = None
    """Its row in the configuration of pg_partman."""
    own_indexes: tuple[str, ...] = ()
    """Unique indexes of the newest partition alone."""


def read_tables(connection: Session, only: Table | None = None) -> list[Found]:
    """Read all tables that are partitioned and no partitions themselves, by schema and name, or the one asked for.

    Raises `TableNotFound` where that is none of them, and psycopg's errors.
    """
    name, schema = (only.name, only.schema_) if only else (None, None)
    _, roots, places, ((zone,),) = run(
        connection, pinned("500ms", "30s"), sql.SQL(ROOTS).format(name=name, schema=schema), PARTMAN, ZONE
    )
    zone = _known(zone)
    if only and not roots:
        raise TableNotFound(
            f"there is no partitioned table {only} in database {connection.info.dbname!r}, or role "
            f"{connection.info.user!r} may not see it: correct --table (names are matched exactly)"
            f"{similar_tables(connection, only.schema_, only.name)}"
        )
    kept = _partman(connection, [place for (place,) in places])
    tables = [_read(connection, Table(schema_=schema, name=name), zone) for schema, name in roots]
    return [replace(each, partman=kept.get(str(each.table))) for each in tables]


def _known(zone: str) -> str:
    """The server may know zones by names that are not in the database of IANA."""
    try:
        load_zone(zone)
    except UnknownTimeZone:
        return "UTC"
    return zone


def _partman(connection: Session, places: list[str]) -> dict[str, Partman]:
    """By the table's name as pg_partman spells it. What may not be read is not asked for again."""
    kept: dict[str, Partman] = {}
    for place in places:
        try:
            with reading_rows(connection, place, "part_config", lock_timeout="500ms", statement_timeout="10s"):
                (rows,) = run(connection, sql.SQL(KEPT).format(sql.Identifier(place)))
        except (psycopg.errors.InsufficientPrivilege, InsufficientPrivilege):
            continue
        kept |= {name: Partman(*fields) for name, *fields in rows}
    return kept


def _read(connection: Session, table: Table, zone: str) -> Found:
    spec = TableSpec(table=table)
    first = catalog.observe(connection, spec)
    key = first.parent.key[0].type if first.parent and len(first.parent.key) == 1 else ""
    seen = {
        each: catalog.observe(connection, spec.model_copy(update={"key_encoding": each}))
        for each, types in TYPES.items()
        if key in types
    }
    # By which most bounds are of our time.
    likely = {}
    for each, read in seen.items():
        ends = [end for part in read.partitions if part.range for end in (part.range.lower, part.range.upper)]
        likely[each] = sum(end is not None and end.year in LIKELY_YEARS for end in ends)
    encoding = max(likely, key=lambda each: likely[each], default=spec.key_encoding)
    inventory = seen.get(encoding, first)
    try:
        _, column, codec = check_table(spec.model_copy(update={"key_encoding": encoding}), inventory)
    except PartwardenError as error:
        return Found(table, error=error)
    (indexes,) = read_only(connection, sql.SQL(OWN_INDEXES).format(newest=newest(inventory)))
    guessed = guess(table, encoding, inventory, codec.aware, zone)
    return Found(table, column, guessed, own_indexes=tuple(name for (name,) in indexes))
