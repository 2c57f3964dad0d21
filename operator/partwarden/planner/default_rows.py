"""Rows of the DEFAULT partition by interval, and the moments between which they are counted.

They are counted between moments of which the key's literals are taken, as for the bounds of partitions: so the count
agrees with the calendar of the policy whatever the key's encoding. Coarse moments first, all boundaries of the grid
then only where rows are: a table that holds an hour of 1970 and one of 2026 is cut into few pieces, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from ..api.period import written
from ..errors import KeyOutOfRange, PartwardenError
from .calendar import SHORTEST, BoundedRange, Grid, Range
from .keys import Codec

MAX_PIECES = 20_000
"""Most pieces to count in at once: several for each span, so that cutting comes to an end."""
MAX_SPANS = 4000
"""Most pieces to cut further; rows of others count as lying elsewhere."""

DENSE = range(1900, 2101)


@dataclass(frozen=True, slots=True)
class DefaultRows:
    """Rows of the DEFAULT partition by where they belong, as counted at one moment.

    ``groups``: pieces of the calendar that hold some, ascending, none reaching over a boundary of the grid or into what
    another partition holds. ``elsewhere``: rows whose key is NULL, infinite or beyond the calendar.
    """

    groups: tuple[tuple[BoundedRange, int], ...] = ()
    elsewhere: int = 0
    whole: bool = True
    """False where there are more rows than are read: every number is at least so many then."""
    planned: tuple[tuple[Range, int], ...] = ()
    """Where not ``whole``, or of UUIDs: what the ranges of planned partitions hold, counted each by its very bounds."""
    error: PartwardenError | None = None
    """Why nothing could be counted."""

    @property
    def total(self) -> int:
        """All that were counted."""
        return sum(rows for _, rows in self.groups) + self.elsewhere

    def within(self, piece: Range) -> int:
        """How many belong in the piece, which lies in one cell of the grid and in no partition."""
        if known := [rows for held, rows in self.planned if held == piece]:
            return known[0]
        return sum(rows for held, rows in self.groups if held.overlaps(piece))


@dataclass(frozen=True, slots=True)
class Cut:
    """Where to count between: ``moments``, ascending, with the key's literals. ``final``: no finer cut is needed."""

    moments: tuple[datetime, ...]
    literals: tuple[str, ...]
    final: bool

    def groups(self, counts: Iterable[tuple[int, int]]) -> list[tuple[BoundedRange, int]]:
        """What lies between two moments. ``counts``: numbers as ``width_bucket`` gives them, with their rows."""
        last = len(self.moments)
        inner = sorted((number, rows) for number, rows in counts if 0 < number < last)
        return [(BoundedRange(self.moments[number - 1], self.moments[number]), rows) for number, rows in inner]


def first_cut(codec: Codec) -> Cut:
    """Years where most tables have their rows, decades elsewhere."""
    years = [year for year in range(codec.floor.year, codec.ceiling.year + 1) if year in DENSE or year % 10 == 0]
    return _cut(codec, {codec.floor.replace(year=year) for year in years}, final=False)


def finer_cut(grid: Grid, codec: Codec, coverage: Sequence[Range], spans: Sequence[BoundedRange]) -> Cut:
    """All boundaries of the grid, and of ``coverage``, within the spans; something between where they are too many."""
    moments: set[datetime] = set()
    ends = [(each.lower, each.upper) for each in spans[:MAX_SPANS]]
    steps = [(lower, upper, (upper - lower) / SHORTEST[grid.interval]) for lower, upper in ends]
    if sum(count + 3 for *_, count in steps) > MAX_PIECES:
        share = MAX_PIECES // len(steps)
        for lower, upper, _ in steps:
            between = [(lower + (upper - lower) * n / share).replace(microsecond=0) for n in range(share)]
            moments |= {lower, upper, *(grid.cell(each).lower for each in between)}
        return _cut(codec, moments, final=False)
    bounds = {bound for each in coverage for bound in (each.lower, each.upper) if bound is not None}
    for lower, upper, _ in steps:
        for cell in grid.cells(lower, upper):
            moments |= {cell.lower, cell.upper}
        moments |= {bound for bound in bounds if lower <= bound <= upper}
    return _cut(codec, moments, final=True)


def within_cells(grid: Grid, groups: Sequence[tuple[BoundedRange, int]]) -> tuple[tuple[BoundedRange, int], ...]:
    """Those groups of a final cut that lie in one cell each: what lies between two spans does not."""
    return tuple((piece, rows) for piece, rows in groups if piece.upper <= grid.cell(piece.lower).upper)


def count_of(rows: int, whole: bool = True) -> str:
    """``1,204 rows``, or ``at least`` so many."""
    return f"{'' if whole else 'at least '}{rows:,} row{'' if rows == 1 else 's'}"


def label(grid: Grid, piece: BoundedRange) -> str:
    """The interval that holds the piece, as spec.ensure names it: ``2019``, ``2019-Q1``, ``2019-W05`` and so on."""
    local = grid.local(grid.cell(piece.lower).lower)
    return written(grid.interval, local) + (" (again)" if local.fold else "")


def _cut(codec: Codec, moments: Iterable[datetime], *, final: bool) -> Cut:
    found: list[tuple[datetime, str]] = []
    for moment in sorted(moments):
        try:
            found.append((moment, codec.literal(moment)))
        except KeyOutOfRange:
            continue  # the key cannot be so early or late, and neither can a row
    kept = found[:1] + [after for before, after in pairwise(found) if before[1] != after[1]]
    return Cut(tuple(moment for moment, _ in kept), tuple(text for _, text in kept), final)
