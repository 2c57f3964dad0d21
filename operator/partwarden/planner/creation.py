"""Plan the partitions to create: the current one, those ahead, those of ``ensure``, holes, and tables that return.

Every existing partition counts as coverage, managed or not, so nothing that is planned here overlaps anything.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from ..api.period import MAX_ENSURED, parse_period
from ..api.retention import Drain
from ..api.types import parse_day
from ..errors import DefaultHasRows, NameTaken, TooManyPartitions, UserError
from .actions import Action, AttachDetached, CreateDefault, CreatePartition, DrainIntoPartition
from .calendar import SHORTEST, BoundedRange, Range, iso, merge, subtract
from .context import PlanContext
from .default_rows import count_of
from .findings import Finding, join_names
from .inventory import Detached, Partition, RelationKind
from .keys import default_name, partition_name
from .returning import returning

MAX_CREATE = 1000
"""Most partitions that one plan creates in the past: more is a finding, since it is more likely a mistake."""

SECOND = timedelta(seconds=1)
LONGEST = 1.2
"""How many times as long as its shortest the longest interval is, but for a day that a zone repeats."""
AROUND = timedelta(days=8)
"""How far a partition by week or less, made for a period, reaches beyond that after the policy has changed: the week
six days, and the same date begins in two time zones less than two days apart."""
Reasoned = tuple[BoundedRange, str]
"""A range that is wanted, and why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """``cells`` are those that must exist; ``missing`` what of them no partition holds yet, ascending within each."""

    cells: tuple[BoundedRange, ...]
    missing: tuple[BoundedRange, ...]
    actions: tuple[Action, ...]
    findings: tuple[Finding, ...]


def wanted(context: PlanContext) -> Wanted:
    """The current partition comes first, then the future, then periods of ``ensure``, then holes.

    What fails later never keeps an earlier one from existing.
    """
    cells, too_old = _cells(context)
    pieces = _uncovered(context, cells, context.coverage)
    back, shut_out = returning(context, [piece for piece, _ in pieces])
    returned = [each.marker.range for each in back]
    existing = [*(piece for _, piece in context.ranged), *returned]
    holes, too_many = _holes(context, existing, merge([*existing, *(cell for cell, _ in cells)]))
    # Where the current cell is partly covered, the piece that holds now goes before its siblings (stable sort).
    free = _uncovered(context, cells, merge([*context.coverage, *returned])) if returned else pieces
    urgent = sorted(free, key=lambda each: not each[0].contains(context.moment))
    siblings = {each.name: each for each in context.inventory.partitions if each.schema == context.parent.schema}
    actions, unnamed = _create(context, siblings, [*urgent, *holes])
    # After what is made: whatever is wrong with an old table shall keep nothing from existing.
    attached, unbound = _attach(context, back, dict(pieces))
    # Last: beside a DEFAULT partition everything else takes stronger locks.
    catch_all, impossible = _default(context, siblings)
    return Wanted(
        cells=tuple(cell for cell, _ in cells),
        missing=tuple(piece for piece, _ in pieces),
        actions=(*actions, *attached, *catch_all),
        findings=(*too_old, *too_many, *unnamed, *unbound, *impossible, *shut_out),
    )


def _cells(context: PlanContext) -> tuple[list[Reasoned], list[Finding]]:
    """The cells that must exist, most urgent first, each once; and what is too old to be made."""
    spec, grid, cell = context.spec, context.grid, context.current
    cells = {cell: f"current {spec.interval}"}
    for number in range(1, spec.premake + 1):
        cell = grid.cell(cell.upper)
        cells[cell] = f"{number} of {spec.premake} ahead (spec.premake)"
    ensured, findings = _ensured(context)
    return [*cells.items(), *((cell, why) for cell, why in ensured.items() if cell not in cells)], findings


def _ensured(context: PlanContext) -> tuple[dict[BoundedRange, str], list[Finding]]:
    """The cells of ``spec.ensure`` that have not expired; one finding for all entries that have, and one for each that
    asks for too many."""
    grid, subject = context.grid, str(context.spec.table)
    cells: dict[BoundedRange, str] = {}
    held: list[Range] = []
    expired, findings = [], []
    for number, entry in enumerate(context.spec.ensure):
        period = parse_period(entry)
        first, beyond = grid.moment(period.first), grid.moment(period.beyond)
        if context.has_expired(grid.cell(beyond - SECOND)):
            expired.append(entry)
            continue
        young = BoundedRange(first if context.cutoff is None else max(first, context.cutoff), beyond)
        room = MAX_ENSURED - len(cells)
        free = sum((each.upper - each.lower for each in subtract(young, held)), timedelta())
        # What is too long by far is not cut into cells first: a hundred such entries would take many seconds.
        fits = free <= (room + 1) * LONGEST * SHORTEST[grid.interval]
        new = (cell for cell in grid.cells(young.lower, beyond) if cell not in cells)
        found = list(islice(new, room + 1)) if fits else []
        if not fits or len(found) > room:
            findings.append(Finding.of(subject, _too_many(context, number, bool(cells))))
        else:
            cells |= dict.fromkeys(found, f"for {entry} (spec.ensure)")
            held = merge([*held, *found])
    if expired:
        message = (
            f"spec.ensure names what is older than {context.retention.keep_for} (spec.retention.keepFor): "
            f"{join_names(expired)}; no partition is made for it, and one that exists expires: take it out of "
            "spec.ensure, or raise spec.retention.keepFor"
        )
        findings.append(Finding("EnsureExpired", subject, message))
    return cells, findings


def _too_many(context: PlanContext, number: int, others: bool) -> TooManyPartitions:
    spec = context.spec
    return TooManyPartitions(
        f"cannot create the partitions of spec.ensure[{number}], {spec.ensure[number]}: "
        f"{'with those of the other entries they are' if others else 'they are'} more than {MAX_ENSURED:,} by "
        f"{spec.interval}; name less, or set spec.startFrom if all since then shall exist"
    )


def _uncovered(context: PlanContext, cells: Sequence[Reasoned], coverage: Sequence[Range]) -> list[Reasoned]:
    """What of the cells that must exist is not covered, and has not expired."""
    found = ((piece, why) for cell, why in cells for piece in _pieces(context, cell, coverage))
    return [each for each in found if not context.has_expired(each[0])]


def _pieces(context: PlanContext, gap: BoundedRange, coverage: Sequence[Range]) -> Iterator[BoundedRange]:
    """``gap`` less ``coverage``, cut at the boundaries of the grid, ascending."""
    for free in subtract(gap, coverage):
        for cell in context.grid.cells(free.lower, free.upper):
            yield BoundedRange(max(cell.lower, free.lower), min(cell.upper, free.upper))


def _holes(
    context: PlanContext, existing: Sequence[Range], coverage: Sequence[Range]
) -> tuple[list[Reasoned], list[Finding]]:
    """What lies uncovered before the current cell: since ``startFrom``, else since the oldest existing partition that
    ``ensure`` does not ask for."""
    spec, grid, current = context.spec, context.grid, context.current
    oldest = _oldest(context, existing)
    start = next((each.upper for each in coverage if oldest and each.overlaps(oldest)), None)
    why = "hole between existing partitions"
    if spec.start_from is not None:
        start = grid.cell(grid.moment(parse_day(spec.start_from))).lower
        why = f"since {spec.start_from} (spec.startFrom)"
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
    error = TooManyPartitions(
        f"more than {MAX_CREATE} partitions are missing between {iso(start)} and {iso(current.lower)}: none of them is "
        "created; set spec.startFrom to the date from which partitions shall exist"
    )
    return [], [Finding.of(str(spec.table), error)]


def _oldest(context: PlanContext, existing: Sequence[Range]) -> Range | None:
    """The oldest of what is there without ``spec.ensure``.

    A partition that ``ensure`` asks for may lie alone, far in the past: nothing between it and the others is wanted.
    That holds after a change of ``interval`` or ``timezone`` too, where what was made for a period is no cell any more:
    what is none, and reaches beyond a period, was there without it.
    """
    periods = [parse_period(each) for each in context.spec.ensure]
    ends = [(context.grid.moment(each.first), context.grid.moment(each.beyond)) for each in periods]
    asked = merge(BoundedRange(*each) for each in ends)
    near = merge(BoundedRange(lower - AROUND, upper + AROUND) for lower, upper in ends)

    def is_asked(piece: Range) -> bool:
        if (held := piece.bounded) is None:
            return False
        is_cell = context.cell_of(held) is not None
        ranges = asked if is_cell else near
        # The last that begins before its end: no earlier one reaches as far.
        at = bisect_left(ranges, held.upper, key=lambda each: each.lower or context.codec.floor) - 1
        return at >= 0 and (ranges[at].overlaps(held) if is_cell else not subtract(held, ranges[at : at + 1]))

    own = (piece for piece in existing if not is_asked(piece))
    return min(own, key=lambda each: each.lower or context.codec.floor, default=None)


def _attach(
    context: PlanContext, tables: Sequence[Detached], reasons: Mapping[BoundedRange, str]
) -> tuple[list[Action], list[Finding]]:
    """Attach ``tables`` again. ``reasons`` has those ranges that are wanted for another reason."""
    actions: list[Action] = []
    findings: list[Finding] = []
    for each in tables:
        held = each.marker.range
        try:
            bounds = context.edges.bounds(held.lower, held.upper)
        except UserError as error:
            findings.append(Finding.of(str(each), error))
            continue
        why = reasons.get(held, f"not older than {context.retention.keep_for} (spec.retention.keepFor)")
        lock = _attach_lock(context)
        actions.append(
            AttachDetached(
                schema=each.schema, name=each.name, oid=each.oid, range=held, bounds=bounds, reason=why, lock=lock
            )
        )
    return actions, findings


def _create(
    context: PlanContext, siblings: Mapping[str, Partition], pieces: Sequence[Reasoned]
) -> tuple[list[Action], list[Finding]]:
    """Pieces become actions where they can be named; where they cannot, findings."""
    actions: list[Action] = []
    findings: list[Finding] = []
    for piece, why in pieces:
        try:
            actions.append(_create_one(context, siblings, piece, why))
        except UserError as error:
            findings.append(Finding.of(f"[{iso(piece.lower)}, {iso(piece.upper)})", error))
    return actions, findings


def _create_one(context: PlanContext, siblings: Mapping[str, Partition], piece: BoundedRange, why: str) -> Action:
    spec, schema = context.spec, context.parent.schema
    name = partition_name(spec.table.name, spec.name_format, context.grid, piece)
    check_free(context, siblings, name, piece)
    bounds = context.edges.bounds(piece.lower, piece.upper)
    if not (rows := _rows_to_drain(context, name, piece)):
        lock = _attach_lock(context)
        return CreatePartition(schema=schema, name=name, range=piece, bounds=bounds, reason=why, lock=lock)
    return DrainIntoPartition(
        schema=schema,
        name=name,
        range=piece,
        bounds=bounds,
        reason=f"{why}, and {count_of(rows)} of DEFAULT belong there",
        lock=f"ACCESS EXCLUSIVE on {context.parent} and {context.inventory.default}",
        rows=rows,
        max_rows=spec.default_partition.drain_max_rows,
    )


def _rows_to_drain(context: PlanContext, name: str, piece: BoundedRange) -> int:
    """How many rows of DEFAULT are to move into the new partition. Raises `DefaultHasRows` where they may not."""
    default, rows = context.inventory.default, context.inventory.default_rows
    count = rows.within(piece) if rows is not None else 0
    if default is None or rows is None or not count:
        return 0
    policy = context.spec.default_partition
    found = (
        f"cannot create partition {context.parent.schema}.{name}: {count_of(count, rows.whole)} of its range lie in "
        f"the DEFAULT partition {default}"
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


def _default(context: PlanContext, siblings: Mapping[str, Partition]) -> tuple[list[Action], list[Finding]]:
    """The DEFAULT partition, where it is wanted and there is none."""
    spec, parent, inventory = context.spec, context.parent, context.inventory
    if not spec.default_partition.ensure or inventory.default is not None:
        return [], []
    try:
        name = default_name(spec.table.name)
        if name in inventory.taken or name in siblings:
            raise NameTaken(
                f"the DEFAULT partition of {parent} (spec.defaultPartition.ensure) would be called "
                f"{parent.schema}.{name}, but a relation or type of that name exists: rename it"
            )
    except UserError as error:
        return [], [Finding.of(str(spec.table), error)]
    lock, why = _attach_lock(context), "spec.defaultPartition.ensure"
    return [CreateDefault(schema=parent.schema, name=name, reason=why, lock=lock)], []


def check_free(context: PlanContext, siblings: Mapping[str, Partition], name: str, piece: Range) -> None:
    """Raises `NameTaken` where a partition for the piece cannot be called so. ``siblings``: partitions by name."""
    parent, other = context.parent, siblings.get(name)
    would = f"the partition for [{iso(piece.lower)}, {iso(piece.upper)}) would be called {parent.schema}.{name}"
    if other is not None:
        raise NameTaken(
            f"{would}, but a partition of that name holds {other.bounds}: rename it, or choose another spec.nameFormat"
        )
    if name in context.inventory.taken:
        raise NameTaken(
            f"{would}, but a relation or type of that name exists and is not a partition of {parent}: attach it for "
            "that range, rename it, or choose another spec.nameFormat"
        )


def _attach_lock(context: PlanContext) -> str:
    """ATTACH locks the parent mildly, but a DEFAULT partition exclusively, since its rows are checked.

    What foreign keys join it with is locked against writers, since the keys of the new partition are triggers there.
    """
    if (default := context.inventory.default) is not None:
        return f"ACCESS EXCLUSIVE on {default}"
    if context.parent.related:
        return f"SHARE ROW EXCLUSIVE on {', '.join(context.parent.related)}"
    return f"SHARE UPDATE EXCLUSIVE on {context.parent}"
