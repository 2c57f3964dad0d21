"""Which partitions are to be made: the current one, those ahead, those of ``ensure``, and what fills holes.

Every existing partition counts as coverage, whoever made it, so nothing that is planned here overlaps anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from .actions import Action, CreateDefault, CreatePartition, DrainIntoPartition
from .default_rows import count_of
from .errors import DefaultHasRows, NameTaken, TooManyPartitions, UserError
from .fields import parse_day
from .findings import Finding
from .interval import Range, iso, merge, subtract
from .inventory import Inventory, Parent, Partition, RelationKind
from .lifecycle import Drain
from .naming import default_name, partition_name
from .returning import attachments, left_outside, returning
from .situation import Situation

MAX_CREATE = 1000
"""Most partitions that one plan creates in the past: more is a finding, since it is more likely a mistake."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """``cells`` are those that must exist; ``missing`` what of them no partition holds yet, ascending within each."""

    cells: tuple[Range, ...]
    missing: tuple[Range, ...]
    actions: tuple[Action, ...]
    findings: tuple[Finding, ...]


def wanted(situation: Situation) -> Wanted:
    """The current partition comes first, then the future, then dates of ``ensure``, then holes.

    What fails later never keeps an earlier one from existing.
    """
    cells, too_old = _cells(situation)
    pieces = [
        (piece, why)
        for cell, why in cells
        for piece in _pieces(situation, cell, situation.coverage)
        if not situation.has_expired(piece)
    ]
    back = returning(situation, [piece for piece, _ in pieces])
    returned = [each.marker.range for each in back.tables]
    holes, too_many = _holes(situation, merge([*situation.coverage, *returned, *(cell for cell, _ in cells)]))
    # Where the current cell is partly covered, the piece that holds now goes before its siblings (stable sort).
    urgent = sorted(pieces, key=lambda each: not each[0].contains(situation.moment))
    actions, unnamed = _name(situation, [each for each in [*urgent, *holes] if each[0] not in returned])
    # After what is made: whatever is wrong with an old table shall keep nothing from existing.
    attached, unbound = attachments(
        situation, back.tables, dict(pieces), attach_lock(situation.inventory, situation.parent)
    )
    # Last: beside a DEFAULT partition everything else takes stronger locks.
    catch_all, impossible = _default(situation)
    return Wanted(
        cells=tuple(cell for cell, _ in cells),
        missing=tuple(piece for piece, _ in pieces),
        actions=(*actions, *attached, *catch_all),
        findings=(*too_old, *too_many, *unnamed, *unbound, *impossible, *left_outside(back.shut_out)),
    )


def _cells(situation: Situation) -> tuple[list[tuple[Range, str]], list[Finding]]:
    """The cells that must exist, most urgent first, each once, with the reason; and what is too old to be made."""
    spec, grid, cell = situation.spec, situation.grid, situation.current
    cells = {cell: f"current {spec.interval}"}
    too_old: list[Finding] = []
    for number in range(1, spec.premake + 1):
        assert cell.upper is not None
        cell = grid.cell(cell.upper)
        cells[cell] = f"{number} of {spec.premake} ahead (spec.premake)"
    for text in spec.ensure:
        cell = grid.cell(grid.moment(parse_day(text)))
        if situation.has_expired(cell):
            too_old.append(_is_too_old(situation, text))
        else:
            cells.setdefault(cell, f"holds {text} (spec.ensure)")
    return list(cells.items()), too_old


def _is_too_old(situation: Situation, day: str) -> Finding:
    assert situation.spec.retention is not None
    message = (
        f"spec.ensure names {day}, but the {situation.spec.interval} that holds it is older than "
        f"{situation.spec.retention.keep_for} (spec.retention.keepFor): no partition is made for it, and one that "
        "exists expires"
    )
    return Finding("EnsureExpired", str(situation.spec.table), message)


def _pieces(situation: Situation, gap: Range, coverage: Sequence[Range]) -> Iterator[Range]:
    """``gap`` less ``coverage``, cut at the boundaries of the grid, ascending."""
    for free in subtract(gap, coverage):
        assert free.lower is not None
        assert free.upper is not None
        for cell in situation.grid.cells(free.lower, free.upper):
            assert cell.lower is not None
            assert cell.upper is not None
            yield Range(max(cell.lower, free.lower), min(cell.upper, free.upper))


def _holes(situation: Situation, coverage: Sequence[Range]) -> tuple[list[tuple[Range, str]], list[Finding]]:
    """What lies uncovered before the current cell: since ``startFrom``, else since the oldest existing partition."""
    spec, grid, current = situation.spec, situation.grid, situation.current
    if spec.start_from is not None:
        start = grid.cell(grid.moment(parse_day(spec.start_from))).lower
        why = f"since {spec.start_from} (spec.startFrom)"
    else:
        start, why = coverage[0].upper, "hole between existing partitions"
    if start is not None and situation.cutoff is not None and situation.cutoff > start:
        # What has expired is not made: it would be detached again.
        start = grid.cell(situation.cutoff).lower
    if start is None or current.lower is None or start >= current.lower:
        return [], []
    young = (
        each for each in _pieces(situation, Range(start, current.lower), coverage) if not situation.has_expired(each)
    )
    found = list(islice(young, MAX_CREATE + 1))
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


def _name(situation: Situation, pieces: list[tuple[Range, str]]) -> tuple[list[Action], list[Finding]]:
    """Pieces become actions where they can be named; where they cannot, findings."""
    spec, parent, inventory = situation.spec, situation.parent, situation.inventory
    attached = {each.name: each for each in inventory.partitions if each.schema == parent.schema}
    lock = attach_lock(inventory, parent)
    actions: list[Action] = []
    findings: list[Finding] = []
    for piece, why in pieces:
        assert piece.lower is not None
        assert piece.upper is not None
        try:
            name = partition_name(spec.table.name, spec.name_format, situation.grid, piece)
            _check_free(name, piece, inventory, attached)
            bounds = situation.edges.bounds(piece.lower, piece.upper)
            rows = _rows_to_drain(situation, name, piece)
        except UserError as error:
            findings.append(Finding.of(f"[{iso(piece.lower)}, {iso(piece.upper)})", error))
            continue
        create = CreatePartition(schema=parent.schema, name=name, range=piece, bounds=bounds, reason=why, lock=lock)
        actions.append(_drain(situation, create, rows) if rows else create)
    return actions, findings


def _drain(situation: Situation, create: CreatePartition, rows: int) -> DrainIntoPartition:
    return DrainIntoPartition(
        schema=create.schema,
        name=create.name,
        range=create.range,
        bounds=create.bounds,
        reason=f"{create.reason}, and {count_of(rows)} of DEFAULT belong there",
        lock=f"ACCESS EXCLUSIVE on {situation.parent} and {situation.inventory.default}",
        rows=rows,
        max_rows=situation.spec.default_partition.drain_max_rows,
    )


def _rows_to_drain(situation: Situation, name: str, piece: Range) -> int:
    """How many rows of DEFAULT are to move into the new partition. Raises `DefaultHasRows` where they may not."""
    default, rows = situation.inventory.default, situation.inventory.default_rows
    count = rows.within(piece) if rows is not None else 0
    if default is None or rows is None or not count:
        return 0
    policy = situation.spec.default_partition
    found = (
        f"partition {situation.parent.schema}.{name} cannot be created: {count_of(count, rows.whole)} of its range lie "
        f"in the DEFAULT partition {default}"
    )
    if default.kind is not RelationKind.TABLE:
        raise DefaultHasRows(
            f"{found}, which is a {default.kind}, and only those of a plain table are moved; move them out of it"
        )
    if policy.drain is Drain.NEVER:
        raise DefaultHasRows(f"{found}; move them out of it, or set spec.defaultPartition.drain to Auto")
    if count > policy.drain_max_rows:
        raise DefaultHasRows(
            f"{found}, more than {policy.drain_max_rows:,} (spec.defaultPartition.drainMaxRows); raise that if writers "
            "may wait longer, or move them out of it"
        )
    return count


def _default(situation: Situation) -> tuple[list[Action], list[Finding]]:
    """The DEFAULT partition, where it is wanted and there is none."""
    spec, parent, inventory = situation.spec, situation.parent, situation.inventory
    if not spec.default_partition.ensure or inventory.default is not None:
        return [], []
    try:
        name = default_name(spec.table.name)
        if name in inventory.taken or any(
            (each.schema, each.name) == (parent.schema, name) for each in inventory.partitions
        ):
            raise NameTaken(
                f"the DEFAULT partition of {parent} (spec.defaultPartition.ensure) would be called "
                f"{parent.schema}.{name}, but a relation or type of that name exists: rename it"
            )
    except UserError as error:
        return [], [Finding.of(str(spec.table), error)]
    return [
        CreateDefault(
            schema=parent.schema,
            name=name,
            reason="spec.defaultPartition.ensure",
            lock=attach_lock(inventory, parent),
        )
    ], []


def _check_free(name: str, piece: Range, inventory: Inventory, attached: dict[str, Partition]) -> None:
    other = attached.get(name)
    if other is None and name not in inventory.taken:
        return
    assert inventory.parent is not None
    full = f"{inventory.parent.schema}.{name}"
    would = f"the partition for [{iso(piece.lower)}, {iso(piece.upper)}) would be called {full}"
    if other is not None:
        raise NameTaken(
            f"{would}, but a partition of that name holds {other.bounds}: rename it, or choose another spec.nameFormat"
        )
    raise NameTaken(
        f"{would}, but a relation or type of that name exists and is not a partition of {inventory.parent}: attach it "
        "for that range, rename it, or choose another spec.nameFormat"
    )


def attach_lock(inventory: Inventory, parent: Parent) -> str:
    """ATTACH locks the parent mildly, but a DEFAULT partition exclusively, since its rows are checked.

    What foreign keys join it with is locked against writers, since the keys of the new partition are triggers there.
    """
    if (default := inventory.default) is not None:
        return f"ACCESS EXCLUSIVE on {default}"
    if parent.related:
        return f"SHARE ROW EXCLUSIVE on {', '.join(parent.related)}"
    return f"SHARE UPDATE EXCLUSIVE on {parent}"
