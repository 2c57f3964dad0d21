"""Plan maintenance: VACUUM and REINDEX of closed partitions, ANALYZE of the parent, what leaves the table that was
converted; warn of size and of pruning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ..api.retention import OnClose
from ..errors import NotOwner, StatementRejected
from .actions import Action, AnalyzeParent, ReindexPartition, VacuumPartition
from .calendar import BoundedRange, is_open, iso, next_opening
from .context import PlanContext
from .findings import Finding, join_names, quoted
from .inventory import ClosedPartition, Inventory, Partition, Pruning, RelationKind
from .retirement import Retired
from .splitting import LATE, split

NAMED = 5
TOO_LARGE = "PartitionTooLarge"
SHARE = 0.1
ROWS = 1000
"""Statistics of the parent are stale when it is believed to hold so much, and so many rows, more or less than its
partitions. Below that the planner hardly decides otherwise."""
ANALYZE_PAUSE = timedelta(minutes=15)
"""ANALYZE of the parent analyzes its partitions, too, up to version 17, and after the parent itself. A partition must
have been analyzed so much later to be a reason to do it again: longer than it may take, so that no loop comes of it."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """``oversized``: OIDs of partitions over ``thresholds.partitionSize``; ``closed``: of those whose range has passed.

    ``deferred``: what is to be done once the window opens, at ``opens``. ``drifted``: whether the parent's statistics
    no longer tell how many rows it holds. ``boundary``: when upkeep will begin although nothing changes. Moments are
    aware.
    """

    actions: tuple[Action, ...] = ()
    deferred: tuple[Action, ...] = ()
    opens: datetime | None = None
    findings: tuple[Finding, ...] = ()
    oversized: frozenset[int] = frozenset()
    closed: frozenset[int] = frozenset()
    drifted: bool = False
    boundary: datetime | None = None


def upkeep(context: PlanContext, retired: Retired) -> Upkeep:
    """Decided last, and done last: creating and retiring come before. Outside of the window it is deferred."""
    window = context.spec.maintenance.window
    large = _oversized(context)
    closing, splitting = _close(context, retired.expired), split(context, retired.expired)
    drifted = context.spec.maintenance.analyze_parent and _has_drifted(context.inventory)
    due = (*_analyze(context, drifted), *closing.actions, *splitting.actions)
    opens = None
    if due and window is not None and not is_open(window, context.zone, context.now):
        opens = next_opening(window, context.zone, context.now)
    return replace(
        closing,
        actions=() if opens else due,
        deferred=due if opens else (),
        opens=opens,
        findings=(*_thresholds(context, large), *_pruning(context), *closing.findings, *splitting.findings),
        oversized=frozenset(each.oid for each in large),
        drifted=drifted,
        boundary=min(filter(None, (closing.boundary, splitting.boundary, opens)), default=None),
    )


def _oversized(context: PlanContext) -> list[Partition]:
    """Every partition over the limit, whatever its kind, the largest first.

    Two of which neither has twice the other's size, about, are ordered by name: sizes change all the time, and what is
    said of them should not.
    """
    limit = context.spec.thresholds.partition_bytes
    if limit is None:
        return []
    large = [each for each in context.inventory.partitions if each.bytes > limit]
    return sorted(large, key=lambda each: (-_doublings(each.bytes, limit), each.schema, each.name))


def _thresholds(context: PlanContext, large: list[Partition]) -> Iterator[Finding]:
    """One notice that names the largest, with roundly how many times the limit they have reached."""
    limit = context.spec.thresholds.partition_bytes
    if not large or limit is None:
        return
    times = [(each, 1 << _doublings(each.bytes, limit)) for each in large]
    named = join_names(
        [f"{each} ({'over that' if count == 1 else f'over {count} times that'})" for each, count in times]
    )
    message = (
        f"larger than {context.spec.thresholds.partition_size} (spec.thresholds.partitionSize): {named}; "
        "choose a shorter spec.interval for those to come, or raise the limit"
    )
    yield Finding(TOO_LARGE, str(context.spec.table), message)


def _doublings(size: int, limit: int) -> int:
    return (size // limit).bit_length() - 1


def _close(context: PlanContext, expired: frozenset[int]) -> Upkeep:
    """Newest first: the youngest rows are read most, and old ones may have been vacuumed by other means.

    What ``maintenance.onClose`` does not ask for, what has expired, and what is held, unmanaged, foreign or
    partitioned itself is left alone.
    """
    if context.spec.maintenance.on_close is OnClose.NONE:
        return Upkeep()
    mine = [
        (each, cell, context.instant(cell.upper) + LATE)
        for each, piece in context.ranged
        if each.kind is RelationKind.TABLE and not each.detach_pending and (cell := context.cell_of(piece))
        if each.oid not in expired and not context.is_held(each)
    ]
    passed = sorted((each for each in mine if each[2] <= context.now), key=lambda each: each[2], reverse=True)
    facts = {each.oid: each for each in context.inventory.facts.closed}
    known = [(each, facts[each.oid]) for each, _, _ in passed if each.oid in facts]
    return Upkeep(
        closed=frozenset(each.oid for each, _, _ in passed),
        actions=tuple(
            action
            for each, cell, since in passed
            if (fact := facts.get(each.oid)) and fact.may_own and not fact.no_room
            for action in _actions(context, each, cell, since, fact)
        ),
        findings=tuple(_findings(context, known)),
        boundary=min((since for _, _, since in mine if since > context.now), default=None),
    )


def _vacuum_due(fact: ClosedPartition) -> bool:
    return not fact.empty and not fact.frozen and fact.mark.vacuumed is None


def _reindex_due(context: PlanContext, fact: ClosedPartition) -> bool:
    wanted = context.spec.maintenance.on_close is OnClose.VACUUM_AND_REINDEX
    return wanted and not fact.empty and fact.indexed and fact.mark.reindexed is None


def _actions(
    context: PlanContext, each: Partition, cell: BoundedRange, since: datetime, fact: ClosedPartition
) -> Iterator[Action]:
    """VACUUM first: what it has taken out of the table need not be indexed again."""
    why = f"its range has passed (spec.maintenance.onClose: {context.spec.maintenance.on_close})"
    lock = f"SHARE UPDATE EXCLUSIVE on {each}"
    if _vacuum_due(fact):
        yield VacuumPartition(
            schema=each.schema, name=each.name, oid=each.oid, range=cell, reason=why, lock=lock, closed=since
        )
    if _reindex_due(context, fact):
        yield ReindexPartition(schema=each.schema, name=each.name, oid=each.oid, range=cell, reason=why, lock=lock)


def _findings(context: PlanContext, known: list[tuple[Partition, ClosedPartition]]) -> Iterator[Finding]:
    user, subject = context.inventory.server.user, str(context.spec.table)
    due = [(each, fact) for each, fact in known if _vacuum_due(fact) or _reindex_due(context, fact)]
    if foreign := [(each, fact) for each, fact in due if not fact.may_own]:
        each, fact = foreign[0]
        error = NotOwner(
            f"role {user!r} is not the owner of partition {each}, which is {fact.owner!r}{_more(len(foreign) - 1)}: "
            f"only the owner may do what spec.maintenance.onClose asks; ALTER TABLE {quoted(each.schema)}."
            f"{quoted(each.name)} OWNER TO {quoted(context.parent.owner)}, or GRANT {quoted(fact.owner)} TO "
            f"{quoted(user)}"
        )
        yield Finding.of(subject, error)
    if full := [str(each) for each, fact in due if fact.no_room]:
        crowded = StatementRejected(
            f"cannot do what spec.maintenance.onClose asks with {', '.join(full[:NAMED])}{_more(len(full) - NAMED)}: "
            "the comment is too long to note there that it was done; shorten it to 63 KiB"
        )
        yield Finding.of(subject, crowded)
    if slow := _named([(each, [" and ".join(fact.mark.gave_up)]) for each, fact in known if fact.mark.gave_up]):
        message = (
            f"did not end in time, and is not tried again: {slow}; do it by hand, then take gaveUp out of the "
            "partition's comment"
        )
        yield Finding("UpkeepGaveUp", subject, message)
    wanted = context.spec.maintenance.on_close is OnClose.VACUUM_AND_REINDEX
    if skipped := _named([(each, fact.exclusive) for each, fact in known if wanted and not fact.empty]):
        message = (
            f"not rebuilt, since REINDEX CONCURRENTLY skips indexes of EXCLUDE and WITHOUT OVERLAPS: {skipped}; where "
            "they have grown, REINDEX INDEX by hand, which keeps writers out"
        )
        yield Finding("IndexNotRebuilt", subject, message)
    if broken := _named([(each, fact.invalid) for each, fact in known]):
        message = (
            f"invalid, so that every write keeps them and no query uses them: {broken}; REINDEX INDEX or DROP INDEX "
            "them"
        )
        yield Finding("InvalidIndex", subject, message)


def _named(found: list[tuple[Partition, Sequence[str]]]) -> str:
    """``a, b of public.run_2024, c of public.run_2023, and of 3 more``: those of which there is something to name."""
    some = [f"{', '.join(names[:NAMED])} of {each}" for each, names in found if names]
    return ", ".join(some[:NAMED]) + _more(len(some) - NAMED)


def _more(count: int) -> str:
    return f", and of {count} more" if count > 0 else ""


def _has_drifted(inventory: Inventory) -> bool:
    """Judged by what every observation reads: only then the times of the last ANALYZE are read."""
    assert inventory.parent is not None
    known = [each.rows for each in inventory.partitions if each.rows is not None]
    believed, actual = inventory.parent.rows or 0, sum(known)
    return bool(known) and abs(actual - believed) > max(ROWS, SHARE * max(actual, believed))


def _analyze(context: PlanContext, drifted: bool) -> list[Action]:
    """Once for each time that the partitions show another number of rows, and never in a loop."""
    statistics = context.inventory.facts.statistics
    if not drifted or statistics is None or not statistics.counted or statistics.partitions is None:
        return []
    if statistics.parent is not None and statistics.partitions < statistics.parent + ANALYZE_PAUSE:
        return []
    parent, lock = context.parent, f"SHARE UPDATE EXCLUSIVE on {context.parent}"
    why = "its partitions have changed, and autovacuum never analyzes it (spec.maintenance.analyzeParent)"
    return [AnalyzeParent(schema=parent.schema, name=parent.name, reason=why, lock=lock)]


def _pruning(context: PlanContext) -> Iterator[Finding]:
    found, parent = context.inventory.facts.pruning, context.parent
    if found is None:
        return
    if not found.enabled or found.disabled_for:
        yield Finding("PruningDisabled", str(parent), _disabled(context, found))
    if found.needless:
        message = (
            f"a query for {quoted(context.key)} from {iso(context.current.lower)} to "
            f"{iso(context.current.upper)} also scans {join_names(found.needless)}, which hold no such row: "
            "ask EXPLAIN why; row security, a view or a rule can hide the key from the planner"
        )
        yield Finding("PruningIncomplete", str(parent), message)


def _disabled(context: PlanContext, found: Pruning) -> str:
    server, others = context.inventory.server, ", ".join(found.disabled_for[:NAMED])
    if found.enabled:
        return (
            f"enable_partition_pruning is off for {others}: every query reads all partitions there; ALTER ROLE or "
            "ALTER DATABASE … RESET enable_partition_pruning"
        )
    more = f"; it is set so for {others}" if others else ""
    return (
        f"enable_partition_pruning is off for role {server.user!r} in database {server.database!r}: every query reads "
        f"all partitions{more}; set it to on, or RESET it, where it is set: postgresql.conf, ALTER SYSTEM, ALTER "
        "DATABASE or ALTER ROLE"
    )
