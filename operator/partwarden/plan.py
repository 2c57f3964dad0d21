"""Decide: (policy, inventory, now) -> plan. Pure, and the only place that decides.

The same plan is printed by ``partwarden plan``, executed by ``partwarden apply`` and by the operator, and turned into
status. Nothing is resumed: after an interruption the world is read and planned again. Every prefix of a plan leaves a
valid database, because each action adds one partition that overlaps nothing, and none depends on another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from .errors import NameTaken, PartwardenError, TooManyPartitions, UserError
from .fields import parse_day
from .findings import Finding, off_grid, pending_detaches, why_blocked
from .interval import Grid, Range, iso, load_zone, merge, subtract
from .inventory import Inventory, KeyType, Parent, Partition
from .naming import partition_name
from .policy import TableSpec
from .table import check_table

MAX_CREATE = 1000
"""Most partitions that one plan creates in the past: more is a finding, since it is more likely a mistake."""


@dataclass(frozen=True, slots=True)
class CreatePartition:
    """Make an empty table like the parent and attach it for ``range``."""

    schema: str
    name: str
    range: Range
    key_type: KeyType
    reason: str
    lock: str
    """The heaviest lock taken on something that others use, and on what."""

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one action: ``error`` is None when it succeeded."""

    action: CreatePartition
    error: PartwardenError | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in order, and what to say.

    Moments are in the key's domain (see `interval`) but for ``next_boundary``, which is aware.
    """

    parent: Parent
    key: str
    key_type: KeyType
    actions: tuple[CreatePartition, ...]
    findings: tuple[Finding, ...]
    current: Range
    """The cell of the grid that holds now, whether or not a partition does."""
    missing: tuple[Range, ...]
    """What of the current, the future and the ensured cells no partition holds yet, ascending within each."""
    covered_until: datetime | None
    """End (exclusive) of the unbroken coverage that begins now: None when now is not covered."""
    covered_for_ever: bool
    """Whether that coverage ends at MAXVALUE; ``covered_until`` is None then, too."""
    next_boundary: datetime
    """When the plan will differ although nothing changes."""
    managed: frozenset[int]
    """OIDs of the partitions whose bounds are exactly one cell of the grid."""
    blocked: bool
    """Whether no action can succeed until a finding is mended: none is tried then."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the actions want to give."""
        return tuple(action.name for action in self.actions)


def make_plan(spec: TableSpec, inventory: Inventory, now: datetime) -> Plan:
    """Decide what to create, in which order, and what a person should know. ``now`` is aware.

    The current partition comes first, then the future, then dates of ``ensure``, then holes: what fails later never
    keeps an earlier one from existing. Every existing partition counts as coverage, so nothing overlaps. Raises a
    `UserError` when the table cannot be managed at all.
    """
    parent, key, key_type = check_table(spec, inventory)
    zone = load_zone(spec.timezone)
    aware = key_type is KeyType.TIMESTAMPTZ
    grid = Grid(spec.interval, zone if aware else None)
    moment = now if aware else now.astimezone(zone).replace(tzinfo=None, fold=0)
    ranged = [(each, each.range) for each in inventory.partitions if each.range is not None]
    coverage = merge(held for _, held in ranged)
    current = grid.cell(moment)
    wanted = list(_wanted(spec, grid, current))
    pieces = [(piece, why) for cell, why in wanted for piece in _pieces(grid, cell, coverage)]
    missing = tuple(piece for piece, _ in pieces)
    findings = why_blocked(spec, inventory, parent)
    blocked = bool(findings)
    holes, too_many = _holes(spec, grid, current, merge([*coverage, *(cell for cell, _ in wanted)]))
    findings += too_many
    actions, unnamed = _name(spec, grid, inventory, key_type, [*_current_first(pieces, moment), *holes])
    usable = merge(held for each, held in ranged if not each.detach_pending)
    here = next((held for held in usable if held.contains(moment)), None)
    managed = frozenset(each.oid for each, held in ranged if _is_cell(grid, held))
    findings += unnamed + pending_detaches(inventory, [cell for cell, _ in wanted]) + off_grid(spec, inventory, managed)
    return Plan(
        parent=parent,
        key=key,
        key_type=key_type,
        actions=tuple(actions),
        findings=tuple(findings),
        current=current,
        missing=missing,
        covered_until=here.upper if here else None,
        covered_for_ever=here is not None and here.upper is None,
        next_boundary=_next_boundary(Grid(spec.interval, zone), now),
        managed=managed,
        blocked=blocked,
    )


def _next_boundary(clock: Grid, now: datetime) -> datetime:
    """By instants for naive keys too: a clock set back over midnight shows a boundary twice, and the first is past."""
    upper = clock.cell(now.astimezone(UTC)).upper
    assert upper is not None
    return upper


def _wanted(spec: TableSpec, grid: Grid, current: Range) -> Iterator[tuple[Range, str]]:
    """The cells that must exist, most urgent first, each once, with the reason."""
    seen = {current}
    yield current, f"current {spec.interval}"
    cell = current
    for number in range(1, spec.premake + 1):
        assert cell.upper is not None
        cell = grid.cell(cell.upper)
        seen.add(cell)
        yield cell, f"{number} of {spec.premake} ahead (spec.premake)"
    for text in spec.ensure:
        cell = grid.cell(grid.moment(parse_day(text)))
        if cell not in seen:
            seen.add(cell)
            yield cell, f"holds {text} (spec.ensure)"


def _pieces(grid: Grid, gap: Range, coverage: list[Range]) -> Iterator[Range]:
    """``gap`` less ``coverage``, cut at the boundaries of the grid, ascending."""
    for free in subtract(gap, coverage):
        assert free.lower is not None
        assert free.upper is not None
        for cell in grid.cells(free.lower, free.upper):
            assert cell.lower is not None
            assert cell.upper is not None
            yield Range(max(cell.lower, free.lower), min(cell.upper, free.upper))


def _current_first(pieces: list[tuple[Range, str]], moment: datetime) -> list[tuple[Range, str]]:
    """Where the current cell is partly covered, the piece that holds now goes before its siblings (stable sort)."""
    return sorted(pieces, key=lambda each: not each[0].contains(moment))


def _holes(
    spec: TableSpec, grid: Grid, current: Range, coverage: list[Range]
) -> tuple[list[tuple[Range, str]], list[Finding]]:
    """What lies uncovered before the current cell: since ``startFrom``, else since the oldest existing partition."""
    if spec.start_from is not None:
        start = grid.cell(grid.moment(parse_day(spec.start_from))).lower
        why = f"since {spec.start_from} (spec.startFrom)"
    else:
        start, why = coverage[0].upper, "hole between existing partitions"
    if start is None or current.lower is None or start >= current.lower:
        return [], []
    found = list(islice(_pieces(grid, Range(start, current.lower), coverage), MAX_CREATE + 1))
    if len(found) <= MAX_CREATE:
        return [(piece, why) for piece in found], []
    return [], [
        Finding.of(
            str(spec.table),
            TooManyPartitions(
                f"more than {MAX_CREATE} partitions are missing between {iso(start)} and {iso(current.lower)}: none of "
                f"them is created; set spec.startFrom to the date from which partitions shall exist"
            ),
        )
    ]


def _name(
    spec: TableSpec, grid: Grid, inventory: Inventory, key_type: KeyType, pieces: list[tuple[Range, str]]
) -> tuple[list[CreatePartition], list[Finding]]:
    """Pieces become actions where they can be named; where they cannot, findings."""
    assert inventory.parent is not None
    schema = inventory.parent.schema
    attached = {each.name: each for each in inventory.partitions if each.schema == schema}
    lock = _heaviest_lock(inventory, inventory.parent)
    actions: list[CreatePartition] = []
    findings: list[Finding] = []
    for piece, why in pieces:
        try:
            name = partition_name(spec.table.name, spec.name_format, grid, piece)
            _check_free(name, piece, inventory, attached)
        except UserError as error:
            findings.append(Finding.of(f"[{iso(piece.lower)}, {iso(piece.upper)})", error))
        else:
            actions.append(CreatePartition(schema, name, piece, key_type, why, lock))
    return actions, findings


def _check_free(name: str, piece: Range, inventory: Inventory, attached: dict[str, Partition]) -> None:
    assert inventory.parent is not None
    full = f"{inventory.parent.schema}.{name}"
    wanted = f"[{iso(piece.lower)}, {iso(piece.upper)})"
    if (other := attached.get(name)) is not None:
        raise NameTaken(
            f"the partition for {wanted} would be called {full}, but a partition of that name holds {other.bounds}: "
            "rename it, or choose another spec.nameFormat"
        )
    if name in inventory.taken:
        raise NameTaken(
            f"the partition for {wanted} would be called {full}, but a relation or type of that name exists and is not "
            f"a partition of {inventory.parent}: attach it for that range, rename it, or choose another spec.nameFormat"
        )


def _heaviest_lock(inventory: Inventory, parent: Parent) -> str:
    """ATTACH locks the parent mildly, but a DEFAULT partition exclusively, since its rows are checked.

    What foreign keys join it with is locked against writers, since the keys of the new partition are triggers there.
    """
    if (default := inventory.default) is not None:
        return f"ACCESS EXCLUSIVE on {default}"
    if parent.related:
        return f"SHARE ROW EXCLUSIVE on {', '.join(parent.related)}"
    return f"SHARE UPDATE EXCLUSIVE on {parent}"


def _is_cell(grid: Grid, held: Range) -> bool:
    return held.lower is not None and held.upper is not None and grid.cell(held.lower) == held
