"""Plan what leaves the table that was converted: ``spec.convert.split``. One interval at a time, the youngest first.

The youngest first, since what is old may expire. With each interval that leaves, the end of what is left comes nearer
to the day on which it expires as a whole, and its rows need never be moved. Rows of late intervals lie at the end of
the file as a rule, where VACUUM can give back what they leave.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..api.conversion import Split
from ..errors import UserError
from .actions import Action, DrainIntoPartition, SplitLegacy
from .calendar import BoundedRange
from .context import PlanContext
from .creation import check_free
from .findings import Finding
from .inventory import Partition, RelationKind
from .keys import Bounds, literals, partition_name

LATE = timedelta(hours=1)
"""A range counts as passed so long after its end: rows of its last minutes may come late."""
SPLIT_OFF_GRID = "SplitOffGrid"


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
    if last.upper != held.upper:
        message = (
            f"nothing leaves {legacy} (spec.convert.split): its end is within an interval of {context.spec.interval}; "
            "set spec.interval and spec.timezone as they were when it was converted"
        )
        return Splitting(findings=(Finding(SPLIT_OFF_GRID, str(legacy), message),))
    since = context.instant(held.upper) + LATE
    if since > context.now:
        return Splitting(boundary=since)
    try:
        return Splitting(actions=(_action(context, legacy, last, most),))
    except UserError as error:
        return Splitting(findings=(Finding.of(str(legacy), error),))


def _action(context: PlanContext, legacy: Partition, piece: BoundedRange, most: int) -> SplitLegacy:
    """Raises `NameTaken`, and as `partition_name` and `Codec.literal`."""
    parent, whole = context.parent, literals(legacy.bounds)
    name = partition_name(context.spec.table.name, context.spec.name_format, context.grid, piece)
    siblings = {each.name: each for each in context.inventory.partitions if each.schema == parent.schema}
    check_free(context, siblings, name, piece)
    lock = f"ACCESS EXCLUSIVE on {parent} and {legacy}"
    why = f"its rows from {{}} on move into partition {parent.schema}.{name} (spec.convert.split)"
    bounds = Bounds(context.codec.literal(piece.lower), whole.upper)
    into = DrainIntoPartition(
        schema=parent.schema,
        name=name,
        range=piece,
        bounds=bounds,
        reason=why.format(bounds.lower),
        lock=lock,
        rows=0,
        max_rows=most,
    )
    return SplitLegacy(
        schema=legacy.schema,
        name=legacy.name,
        oid=legacy.oid,
        range=piece,
        reason=into.reason,
        lock=lock,
        whole=whole,
        into=into,
    )
