"""Words for the rows of a DEFAULT partition: by interval, and what to do about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta

from ..api.period import MAX_ENSURED, parse_period, shortest, written
from ..api.policy import TableSpec
from ..api.retention import Drain
from ..planner.calendar import BoundedRange, Grid, Range
from ..planner.default_rows import DefaultRows, count_of, label
from ..planner.findings import join_names

MAX_INTERVALS = 20
"""Most intervals with rows that a message names."""
YEAR = timedelta(days=365)


def describe(grid: Grid, rows: DefaultRows) -> str:
    """Rows of the default partition: ``2019 (1,204 rows), 2021 (1 row)``, in a bounded number of words."""
    cells = _by_cell(grid, rows)
    named = [f"{label(grid, cell)} ({count_of(count, rows.whole)})" for cell, count in cells[:MAX_INTERVALS]]
    if rest := cells[MAX_INTERVALS:]:
        named.append(f"{len(rest)} more intervals ({count_of(sum(count for _, count in rest), rows.whole)})")
    if rows.elsewhere:
        apart = "" if rows.whole else ", or in more intervals than are counted"
        named.append(f"{count_of(rows.elsewhere, rows.whole)} elsewhere (NULL, infinite, beyond the calendar{apart})")
    total = f", {count_of(rows.total, rows.whole)} in all" if len(named) > 1 else ""
    return ", ".join(named) + total


def way_out(spec: TableSpec, grid: Grid, rows: DefaultRows, covered: Sequence[Range]) -> str:
    """What to do about rows of the default partition; "" where none belongs in an interval. ``covered``: what
    partitions hold, and the current cell."""
    cells = [cell for cell, _ in _by_cell(grid, rows)]
    far = _far(cells, covered)
    advice = ""
    if near := periods(grid, [cell for cell in cells if cell not in far][:MAX_ENSURED]):
        named = ", ".join(f'"{each}"' for each in near[:MAX_INTERVALS]) + (", …" if len(near) > MAX_INTERVALS else "")
        where = f"add {named} to spec.ensure" if spec.ensure else f"set spec.ensure: [{named}]"
        drain = "" if spec.default_partition.drain is Drain.AUTO else ", and set spec.defaultPartition.drain to Auto"
        advice = f"; {where} to have partitions made for them{drain}, or move the rows elsewhere"
    if strays := periods(grid, [cell for cell in cells if cell in far]):
        named = join_names(strays)
        verb = "lies" if len(strays) == 1 else "lie"
        advice += (
            f"; {named} {verb} far from everything else, as wrong dates do: correct those rows, or add them to "
            "spec.ensure if they are right"
        )
    return advice


def periods(grid: Grid, cells: Iterable[BoundedRange]) -> list[str]:
    """The cells, which ascend, as entries of spec.ensure, as few and as short as may be."""
    runs: list[tuple[BoundedRange, BoundedRange]] = []
    for cell in cells:
        follows = runs and runs[-1][1].upper == cell.lower
        runs[-1:] = [(runs[-1][0], cell)] if follows else [*runs[-1:], (cell, cell)]
    named = [
        (written(grid.interval, grid.local(a.lower)), written(grid.interval, grid.local(b.lower))) for a, b in runs
    ]
    found = []
    for first, last in named:
        try:
            found.append(shortest(parse_period(first).first, parse_period(last).beyond))
        except ValueError:
            # Beyond the years that spec.ensure takes.
            found.append(first)
    return found


def _far(cells: Sequence[BoundedRange], covered: Sequence[Range]) -> set[BoundedRange]:
    """The cells between which, with others like them, and all that is covered lies a gap of more than ten times what
    is covered; a year at the least, and ten years at the most."""
    ends = [end for each in (*cells, *covered) for end in (each.lower, each.upper) if end is not None]
    lower, upper = min(ends), max(ends)
    held = [BoundedRange(each.lower or lower, each.upper or upper) for each in covered]
    length = max(each.upper for each in held) - min(each.lower for each in held)
    gap = min(10 * YEAR, max(YEAR, 10 * length))
    far: set[BoundedRange] = set()
    holding = set(held)
    group: list[BoundedRange] = []
    reach = lower
    for each in (*sorted({*cells, *held}, key=lambda each: each.lower), None):
        if each is None or each.lower - reach > gap:
            far.update(group if holding.isdisjoint(group) else ())
            group = []
        if each is not None:
            group.append(each)
            reach = max(reach, each.upper)
    return far


def _by_cell(grid: Grid, rows: DefaultRows) -> list[tuple[BoundedRange, int]]:
    cells: Counter[BoundedRange] = Counter()
    for piece, count in rows.groups:
        cells[grid.cell(piece.lower)] += count
    return list(cells.items())
