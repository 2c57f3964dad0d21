"""Plan the partitions to create: the current one, those ahead, those of ``ensure``, holes, and tables that return.

Every existing partition counts as coverage, managed or not, so nothing that is planned here overlaps anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from ..api.retention import Drain
from ..api.types import parse_day
from ..errors import DefaultHasRows, NameTaken, TooManyPartitions, UserError
from .actions import Action, AttachDetached, CreateDefault, CreatePartition, DrainIntoPartition
from .calendar import BoundedRange, Range, iso, merge, subtract
from .context import PlanContext
from .default_rows import count_of
from .findings import Finding
from .inventory import Detached, Inventory, Parent, Partition, RelationKind
from .keys import default_name, partition_name


@dataclass(frozen=True, slots=True)
class Returning:
    """``tables`` can be attached, their ranges overlap nothing; ``shut_out`` should be, but something is in the way."""

    tables: tuple[Detached, ...] = ()
    shut_out: tuple[Detached, ...] = ()


def returning(context: PlanContext, pieces: Sequence[Range]) -> Returning:
    """``pieces`` are ranges that must exist and do not. Nothing returns where the policy has no ``retention``.

    A table returns for exactly the range that it had, be it a piece or where nothing is wanted at all: its rows are
    kept by the policy as it reads now. It never takes a part of a piece, for it might fail to return, and what must
    exist would be missing. Of several tables for one range the one that was detached last returns.
    """
    if context.cutoff is None:
        return Returning()
    back: list[Detached] = []
    shut_out: list[Detached] = []
    for each in sorted(context.detached, key=lambda each: (each.marker.since, each.oid), reverse=True):
        held = each.marker.range
        if context.has_expired(held) or context.is_held(each):
            continue
        others = [*context.coverage, *(other.marker.range for other in back)]
        free = held in pieces or not any(held.overlaps(piece) for piece in pieces)
        if free and not any(held.overlaps(other) for other in others):
            back.append(each)
        else:
            shut_out.append(each)
    return Returning(tuple(back), tuple(shut_out))


def attachments(
    context: PlanContext, tables: Sequence[Detached], reasons: Mapping[BoundedRange, str], lock: str
) -> tuple[list[AttachDetached], list[Finding]]:
    """The actions that attach ``tables`` again. ``reasons`` has those ranges that are wanted for another reason."""
    actions: list[AttachDetached] = []
    findings: list[Finding] = []
    keep_for = context.spec.retention.keep_for if context.spec.retention else None
    for each in tables:
        held = each.marker.range
        try:
            bounds = context.edges.bounds(held.lower, held.upper)
        except UserError as error:
            findings.append(Finding.of(str(each), error))
            continue
        actions.append(
            AttachDetached(
                schema=each.schema,
                name=each.name,
                range=held,
                bounds=bounds,
                oid=each.oid,
                reason=reasons.get(held, f"not older than {keep_for} (spec.retention.keepFor)"),
                lock=lock,
            )
        )
    return actions, findings


def left_outside(tables: Sequence[Detached]) -> list[Finding]:
    """A notice for each table whose rows the policy keeps, and that cannot become a partition again."""
    return [
        Finding(
            "CannotReturn",
            str(each),
            f"detached table {each} holds what is not older than spec.retention.keepFor any more, from "
            f"{iso(each.marker.range.lower)} to {iso(each.marker.range.upper)}, but something else holds or shall hold "
            "a part of that: it stays a table of its own; move its rows into the partitions, then drop it",
        )
        for each in tables
    ]


MAX_CREATE = 1000
"""Most partitions that one plan creates in the past: more is a finding, since it is more likely a mistake."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """``cells`` are those that must exist; ``missing`` what of them no partition holds yet, ascending within each."""

    cells: tuple[BoundedRange, ...]
    missing: tuple[BoundedRange, ...]
    actions: tuple[Action, ...]
    findings: tuple[Finding, ...]


def wanted(context: PlanContext) -> Wanted:
    """The current partition comes first, then the future, then dates of ``ensure``, then holes.

    What fails later never keeps an earlier one from existing.
    """
    cells, too_old = _cells(context)
    pieces = [
        (piece, why)
        for cell, why in cells
        for piece in _pieces(context, cell, context.coverage)
        if not context.has_expired(piece)
    ]
    back = returning(context, [piece for piece, _ in pieces])
    returned = [each.marker.range for each in back.tables]
    holes, too_many = _holes(context, merge([*context.coverage, *returned, *(cell for cell, _ in cells)]))
    # Where the current cell is partly covered, the piece that holds now goes before its siblings (stable sort).
    urgent = sorted(pieces, key=lambda each: not each[0].contains(context.moment))
    actions, unnamed = _name(context, [each for each in [*urgent, *holes] if each[0] not in returned])
    # After what is made: whatever is wrong with an old table shall keep nothing from existing.
    attached, unbound = attachments(context, back.tables, dict(pieces), attach_lock(context.inventory, context.parent))
    # Last: beside a DEFAULT partition everything else takes stronger locks.
    catch_all, impossible = _default(context)
    return Wanted(
        cells=tuple(cell for cell, _ in cells),
        missing=tuple(piece for piece, _ in pieces),
        actions=(*actions, *attached, *catch_all),
        findings=(*too_old, *too_many, *unnamed, *unbound, *impossible, *left_outside(back.shut_out)),
    )


def _cells(context: PlanContext) -> tuple[list[tuple[BoundedRange, str]], list[Finding]]:
    """The cells that must exist, most urgent first, each once, with the reason; and what is too old to be made."""
    spec, grid, cell = context.spec, context.grid, context.current
    cells = {cell: f"current {spec.interval}"}
    too_old: list[Finding] = []
    for number in range(1, spec.premake + 1):
        cell = grid.cell(cell.upper)
        cells[cell] = f"{number} of {spec.premake} ahead (spec.premake)"
    for text in spec.ensure:
        cell = grid.cell(grid.moment(parse_day(text)))
        if context.has_expired(cell):
            too_old.append(_is_too_old(context, text))
        else:
            cells.setdefault(cell, f"holds {text} (spec.ensure)")
    return list(cells.items()), too_old


def _is_too_old(context: PlanContext, day: str) -> Finding:
    assert context.spec.retention is not None
    message = (
        f"spec.ensure names {day}, but the {context.spec.interval} that holds it is older than "
        f"{context.spec.retention.keep_for} (spec.retention.keepFor): no partition is made for it, and one that "
        "exists expires"
    )
    return Finding("EnsureExpired", str(context.spec.table), message)


def _pieces(context: PlanContext, gap: BoundedRange, coverage: Sequence[Range]) -> Iterator[BoundedRange]:
    """``gap`` less ``coverage``, cut at the boundaries of the grid, ascending."""
    for free in subtract(gap, coverage):
        for cell in context.grid.cells(free.lower, free.upper):
            yield BoundedRange(max(cell.lower, free.lower), min(cell.upper, free.upper))


def _holes(context: PlanContext, coverage: Sequence[Range]) -> tuple[list[tuple[BoundedRange, str]], list[Finding]]:
    """What lies uncovered before the current cell: since ``startFrom``, else since the oldest existing partition."""
    spec, grid, current = context.spec, context.grid, context.current
    start: datetime | None
    if spec.start_from is not None:
        start = grid.cell(grid.moment(parse_day(spec.start_from))).lower
        why = f"since {spec.start_from} (spec.startFrom)"
    else:
        start, why = coverage[0].upper, "hole between existing partitions"
    if start is not None and context.cutoff is not None and context.cutoff > start:
        # What has expired is not made: it would be detached again.
        start = grid.cell(context.cutoff).lower
    if start is None or start >= current.lower:
        return [], []
    past = BoundedRange(start, current.lower)
    young = (piece for piece in _pieces(context, past, coverage) if not context.has_expired(piece))
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


def _name(context: PlanContext, pieces: list[tuple[BoundedRange, str]]) -> tuple[list[Action], list[Finding]]:
    """Pieces become actions where they can be named; where they cannot, findings."""
    spec, parent, inventory = context.spec, context.parent, context.inventory
    attached = {each.name: each for each in inventory.partitions if each.schema == parent.schema}
    lock = attach_lock(inventory, parent)
    actions: list[Action] = []
    findings: list[Finding] = []
    for piece, why in pieces:
        try:
            name = partition_name(spec.table.name, spec.name_format, context.grid, piece)
            _check_free(name, piece, inventory, attached)
            bounds = context.edges.bounds(piece.lower, piece.upper)
            rows = _rows_to_drain(context, name, piece)
        except UserError as error:
            findings.append(Finding.of(f"[{iso(piece.lower)}, {iso(piece.upper)})", error))
            continue
        create = CreatePartition(schema=parent.schema, name=name, range=piece, bounds=bounds, reason=why, lock=lock)
        actions.append(_drain(context, create, rows) if rows else create)
    return actions, findings


def _drain(context: PlanContext, create: CreatePartition, rows: int) -> DrainIntoPartition:
    return DrainIntoPartition(
        schema=create.schema,
        name=create.name,
        range=create.range,
        bounds=create.bounds,
        reason=f"{create.reason}, and {count_of(rows)} of DEFAULT belong there",
        lock=f"ACCESS EXCLUSIVE on {context.parent} and {context.inventory.default}",
        rows=rows,
        max_rows=context.spec.default_partition.drain_max_rows,
    )


def _rows_to_drain(context: PlanContext, name: str, piece: BoundedRange) -> int:
    """How many rows of DEFAULT are to move into the new partition. Raises `DefaultHasRows` where they may not."""
    default, rows = context.inventory.default, context.inventory.default_rows
    count = rows.within(piece) if rows is not None else 0
    if default is None or rows is None or not count:
        return 0
    policy = context.spec.default_partition
    found = (
        f"partition {context.parent.schema}.{name} cannot be created: {count_of(count, rows.whole)} of its range lie "
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


def _default(context: PlanContext) -> tuple[list[Action], list[Finding]]:
    """The DEFAULT partition, where it is wanted and there is none."""
    spec, parent, inventory = context.spec, context.parent, context.inventory
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
