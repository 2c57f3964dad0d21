"""Plan what leaves the table that was converted: ``spec.convert.split``. One interval at a time, the youngest first.

The youngest first, since what is old may expire. With each interval that leaves, the end of what is left comes nearer
to the day on which it expires as a whole, and its rows need never be moved. Rows of late intervals lie at the end of
the file as a rule, where VACUUM can give back what they leave.

An interval of more rows than may leave at once leaves in parts, the youngest first as well. The bounds of both
partitions say how far that has come: the one grows downwards as the other shrinks, until it has its interval.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ..api.conversion import Split
from ..errors import UserError
from .actions import Action, DrainIntoPartition, SplitLegacy
from .calendar import BoundedRange, iso
from .context import PlanContext
from .creation import check_free
from .findings import Finding
from .inventory import Partition, RelationKind
from .keys import Bounds, KeyType, literals, partition_name

LATE = timedelta(hours=1)
"""A range counts as passed so long after its end: rows of its last minutes may come late."""
SPLIT_OFF_GRID = "SplitOffGrid"
STEPS = tuple(timedelta(microseconds=each) for each in (15 * 60 * 10**6, 60 * 10**6, 10**6, 10**3, 1))
"""Where an interval is divided, the coarsest first. Of what is on no quarter of an hour, `PlanContext.may_expire` may
doubt that it says when, until the interval has left."""


@dataclass(frozen=True, slots=True)
class Splitting:
    """``boundary``: when the next interval may leave although nothing changes, aware."""

    actions: tuple[Action, ...] = ()
    findings: tuple[Finding, ...] = ()
    boundary: datetime | None = None


def split(context: PlanContext, expired: Collection[int]) -> Splitting:
    """What leaves next. Nothing once one interval is left, which is a partition like any other then; nor of what has
    expired, is held, or has foreign keys left to be validated.
    """
    convert = context.spec.convert
    if convert is None or not context.spec.converts or convert.split is not Split.BACKGROUND:
        return Splitting()
    for each, piece in context.ranged:
        held = piece.bounded
        if each.converted is None or held is None or each.kind is not RelationKind.TABLE or each.detach_pending:
            continue
        if each.oid in expired or context.is_held(each) or each.converted.validate or each.converted.undone:
            continue
        return _split(context, each, held, convert.split_max_rows)
    return Splitting()


def _split(context: PlanContext, legacy: Partition, held: BoundedRange, most: int) -> Splitting:
    last = context.grid.cell(held.upper - timedelta(microseconds=1))
    if last.lower <= held.lower:
        return Splitting()
    grows = _begun(context, BoundedRange(held.upper, last.upper))
    if grows is not None and (context.is_held(grows) or grows.detach_pending or grows.marker is not None):
        return Splitting()
    if grows is None and last.upper != held.upper:
        message = (
            f"nothing leaves {legacy} (spec.convert.split): its end is within an interval of {context.spec.interval}; "
            "set spec.interval and spec.timezone as they were when it was converted"
        )
        return Splitting(findings=(Finding(SPLIT_OFF_GRID, str(legacy), message),))
    since = context.instant(held.upper) + LATE
    if since > context.now:
        return Splitting(boundary=since)
    try:
        return Splitting(actions=(_action(context, legacy, last, most, grows),))
    except UserError as error:
        return Splitting(findings=(Finding.of(str(legacy), error),))


def _begun(context: PlanContext, rest: BoundedRange) -> Partition | None:
    """The partition that has the end of an interval already, which begins in the table that was converted."""
    found = (each for each, piece in context.ranged if piece == rest and each.schema == context.parent.schema)
    return next((each for each in found if rest.lower < rest.upper and each.kind is RelationKind.TABLE), None)


def _action(
    context: PlanContext, legacy: Partition, cell: BoundedRange, most: int, grows: Partition | None
) -> SplitLegacy:
    """Raises `NameTaken`, and as `partition_name` and `Codec.literal`."""
    parent, whole, codec = context.parent, literals(legacy.bounds), context.codec
    held = legacy.range.bounded if legacy.range else None
    assert held is not None
    lock = f"ACCESS EXCLUSIVE on {parent} and {legacy}"
    bounds, left = Bounds(codec.literal(cell.lower), whole.upper), cell
    if grows is None:
        name = partition_name(context.spec.table.name, context.spec.name_format, context.grid, cell)
        siblings = {each.name: each for each in context.inventory.partitions if each.schema == parent.schema}
        check_free(context, siblings, name, cell)
        why = f"its rows from {bounds.lower} on move into partition {parent.schema}.{name} (spec.convert.split)"
    else:
        name, left = grows.name, BoundedRange(cell.lower, held.upper)
        lock = f"ACCESS EXCLUSIVE on {parent}, {legacy} and {grows}"
        why = (
            f"its rows from {bounds.lower} to {iso(held.upper)} move into partition {grows}, which has those that are "
            "later (spec.convert.split)"
        )
    into = DrainIntoPartition(
        schema=parent.schema, name=name, range=left, bounds=bounds, reason=why, lock=lock, rows=0, max_rows=most
    )
    return SplitLegacy(
        schema=legacy.schema,
        name=legacy.name,
        oid=legacy.oid,
        range=cell,
        reason=why,
        lock=lock,
        whole=whole,
        into=into,
        codec=codec,
        grows=grows,
        last=context.grid.cell(cell.lower - timedelta(microseconds=1)).lower <= held.lower,
    )


def cut(action: SplitLegacy, stays: str, digits: int = -1) -> SplitLegacy | None:
    """The action for what is later than the key ``stays``, in PostgreSQL's words, which stays with all before it. None
    where there is no moment between that key and the end of what would leave.

    ``digits``: how many the type of the key keeps of a second, as ``timestamp(3)`` does; negative where it keeps all.
    """
    codec, into, cell = action.codec, action.into, action.into.range.bounded
    assert cell is not None
    last, kept = codec.moment(stays), 10 ** (6 - digits) if digits >= 0 else 1
    # A date is no moment of a day.
    for step in (timedelta(days=1),) if codec.type is KeyType.DATE else STEPS:
        begin = last - (last - codec.floor) % step + step
        literal = codec.literal(begin)
        # Keys that count seconds know nothing between two of them; PostgreSQL rounds bounds as it does keys.
        if begin < cell.upper and codec.moment(literal) == begin and begin.microsecond % kept == 0:
            part = replace(into, range=BoundedRange(begin, cell.upper), bounds=Bounds(literal, into.bounds.upper))
            return replace(action, into=part, part=True)
    return None
