"""Plan maintenance: VACUUM and REINDEX of closed partitions, ANALYZE of the parent; warn of size and of pruning."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ..api.retention import OnClose
from ..errors import NotOwner, StatementRejected
from .actions import Action, AnalyzeParent, ReindexPartition, VacuumPartition
from .calendar import Range, is_open, iso, next_opening
from .context import PlanContext
from .findings import Finding, join_names, quoted
from .inventory import ClosedPartition, Inventory, Partition, Pruning, RelationKind
from .retirement import Retired

NAMED = 5
TOO_LARGE = "PartitionTooLarge"


def oversized(context: PlanContext) -> list[Partition]:
    """Every partition over the limit, whatever its kind, the largest first.

    Two of which neither has twice the other's size, about, are ordered by name: sizes change all the time, and what is
    said of them should not.
    """
    limit = context.spec.thresholds.partition_bytes
    if limit is None:
        return []
    large = [each for each in context.inventory.partitions if each.bytes > limit]
    return sorted(large, key=lambda each: (-_doublings(each.bytes, limit), each.schema, each.name))


def thresholds_finding(context: PlanContext, large: list[Partition]) -> list[Finding]:
    """One notice that names the largest, with roundly how many times the limit they have reached."""
    limit = context.spec.thresholds.partition_bytes
    if not large or limit is None:
        return []
    named = join_names([f"{each} ({_times(each.bytes, limit)})" for each in large])
    message = (
        f"larger than {context.spec.thresholds.partition_size} (spec.thresholds.partitionSize): {named}; "
        "choose a shorter spec.interval for those to come, or raise the limit"
    )
    return [Finding(TOO_LARGE, str(context.spec.table), message)]


def _doublings(size: int, limit: int) -> int:
    return (size // limit).bit_length() - 1


def _times(size: int, limit: int) -> str:
    doublings = _doublings(size, limit)
    return f"over {1 << doublings} times that" if doublings else "over that"


LATE = timedelta(hours=1)
"""A range counts as passed so long after its end: rows of its last minutes may come late."""


@dataclass(frozen=True, slots=True)
class Closing:
    """``closed``: OIDs of the partitions it concerns. ``boundary``: when one more will be among them, aware."""

    closed: frozenset[int] = frozenset()
    actions: tuple[Action, ...] = ()
    findings: tuple[Finding, ...] = ()
    boundary: datetime | None = None


def closing(context: PlanContext, expired: frozenset[int]) -> Closing:
    """Newest first: the youngest rows are read most, and old ones may have been vacuumed by other means.

    What ``maintenance.onClose`` does not ask for, what has expired, and what is held, unmanaged, foreign or
    partitioned itself is left alone.
    """
    if context.spec.maintenance.on_close is OnClose.NONE:
        return Closing()
    mine = [(each, piece, _closing_time(context, piece)) for each, piece in context.ranged if _concerns(each)]
    mine = [
        found
        for found in mine
        if context.is_cell(found[1]) and found[0].oid not in expired and not context.is_held(found[0])
    ]
    passed = sorted((each for each in mine if each[2] <= context.now), key=lambda each: each[2], reverse=True)
    facts = {each.oid: each for each in context.inventory.facts.closed}
    known = [(each, piece, since, facts[each.oid]) for each, piece, since in passed if each.oid in facts]
    return Closing(
        closed=frozenset(each.oid for each, _, _ in passed),
        actions=tuple(
            action
            for each, piece, since, fact in known
            if fact.may_own and not fact.no_room
            for action in _actions(context, each, piece, since, fact)
        ),
        findings=tuple(_findings(context, [(each, fact) for each, _, _, fact in known])),
        boundary=min((since for _, _, since in mine if since > context.now), default=None),
    )


def _concerns(each: Partition) -> bool:
    return each.kind is RelationKind.TABLE and not each.detach_pending


def _closing_time(context: PlanContext, piece: Range) -> datetime:
    """`LATE` after the range's end. Without an end it never comes: far away."""
    if piece.upper is None:
        return context.now + timedelta(days=365)
    if context.codec.aware:
        return piece.upper + LATE
    return context.clock.moment(piece.upper) + LATE


def _vacuum_due(fact: ClosedPartition) -> bool:
    return not fact.empty and not fact.frozen and fact.mark.vacuumed is None


def _reindex_due(context: PlanContext, fact: ClosedPartition) -> bool:
    wanted = context.spec.maintenance.on_close is OnClose.VACUUM_AND_REINDEX
    return wanted and not fact.empty and fact.indexed and fact.mark.reindexed is None


def _actions(
    context: PlanContext, each: Partition, piece: Range, since: datetime, fact: ClosedPartition
) -> list[Action]:
    """VACUUM first: what it has taken out of the table need not be indexed again."""
    why = f"its range has passed (spec.maintenance.onClose: {context.spec.maintenance.on_close})"
    lock = f"SHARE UPDATE EXCLUSIVE on {each}"
    actions: list[Action] = []
    if _vacuum_due(fact):
        actions.append(
            VacuumPartition(
                schema=each.schema, name=each.name, range=piece, reason=why, lock=lock, oid=each.oid, closed=since
            )
        )
    if _reindex_due(context, fact):
        actions.append(
            ReindexPartition(schema=each.schema, name=each.name, range=piece, reason=why, lock=lock, oid=each.oid)
        )
    return actions


def _findings(context: PlanContext, known: list[tuple[Partition, ClosedPartition]]) -> list[Finding]:
    findings, user, subject = [], context.inventory.server.user, str(context.spec.table)
    foreign = [
        (each, fact) for each, fact in known if not fact.may_own and (_vacuum_due(fact) or _reindex_due(context, fact))
    ]
    if foreign:
        each, fact = foreign[0]
        error = NotOwner(
            f"role {user!r} is not the owner of partition {each}, which is {fact.owner!r}{_more(len(foreign) - 1)}: "
            f"only the owner may do what spec.maintenance.onClose asks; ALTER TABLE {quoted(each.schema)}."
            f"{quoted(each.name)} OWNER TO {quoted(context.parent.owner)}, or GRANT {quoted(fact.owner)} TO "
            f"{quoted(user)}"
        )
        findings.append(Finding.of(subject, error))
    if full := [
        str(each) for each, fact in known if fact.no_room and (_vacuum_due(fact) or _reindex_due(context, fact))
    ]:
        crowded = StatementRejected(
            f"cannot do what spec.maintenance.onClose asks with {', '.join(full[:NAMED])}{_more(len(full) - NAMED)}: "
            "the comment is too long to note there that it was done; shorten it to 63 KiB"
        )
        findings.append(Finding.of(subject, crowded))
    if slow := [(each, fact) for each, fact in known if fact.mark.gave_up]:
        what = ", ".join(f"{' and '.join(fact.mark.gave_up)} of {each}" for each, fact in slow[:NAMED])
        message = (
            f"did not end in time, and is not tried again: {what}{_more(len(slow) - NAMED)}; do it by hand, then take "
            "gaveUp out of the partition's comment"
        )
        findings.append(Finding("UpkeepGaveUp", subject, message))
    wanted = context.spec.maintenance.on_close is OnClose.VACUUM_AND_REINDEX
    if skipped := [(each, fact) for each, fact in known if wanted and fact.exclusive and not fact.empty]:
        what = ", ".join(f"{', '.join(fact.exclusive[:NAMED])} of {each}" for each, fact in skipped[:NAMED])
        message = (
            f"not rebuilt, since REINDEX CONCURRENTLY skips indexes of EXCLUDE and WITHOUT OVERLAPS: {what}"
            f"{_more(len(skipped) - NAMED)}; where they have grown, REINDEX INDEX by hand, which keeps writers out"
        )
        findings.append(Finding("IndexNotRebuilt", subject, message))
    if broken := [(each, fact) for each, fact in known if fact.invalid]:
        what = ", ".join(f"{', '.join(fact.invalid[:NAMED])} of {each}" for each, fact in broken[:NAMED])
        message = (
            f"invalid, so that every write keeps them and no query uses them: {what}{_more(len(broken) - NAMED)}; "
            "REINDEX INDEX or DROP INDEX them"
        )
        findings.append(Finding("InvalidIndex", subject, message))
    return findings


def _more(count: int) -> str:
    return f", and of {count} more" if count > 0 else ""


SHARE = 0.1
ROWS = 1000
"""Statistics of the parent are stale when it is believed to hold so much, and so many rows, more or less than its
partitions. Below that the planner hardly decides otherwise."""
ANALYZE_PAUSE = timedelta(minutes=15)
"""ANALYZE of the parent analyzes its partitions, too, up to version 17, and after the parent itself. A partition must
have been analyzed so much later to be a reason to do it again: longer than it may take, so that no loop comes of it."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """``oversized``: OIDs of partitions over ``thresholds.partitionSize``.

    ``closed``: OIDs of the partitions that `partwarden.closing` concerns. ``drifted``: whether the parent's statistics
    no longer tell how many rows it holds. ``boundary``: when upkeep will begin although nothing changes, aware.
    """

    actions: tuple[Action, ...] = ()
    findings: tuple[Finding, ...] = ()
    oversized: frozenset[int] = frozenset()
    closed: frozenset[int] = frozenset()
    drifted: bool = False
    boundary: datetime | None = None


def upkeep(context: PlanContext, retired: Retired) -> Upkeep:
    """Decided last, and done last: creating and retiring come before. Outside of the window nothing is to be done."""
    spec, now = context.spec.maintenance, context.now
    large = oversized(context)
    found = closing(context, retired.expired)
    drifted = spec.analyze_parent and _has_drifted(context.inventory)
    due = (*_analyze(context, drifted), *found.actions)
    kept = Upkeep(
        actions=due,
        findings=(*thresholds_finding(context, large), *_pruning(context), *found.findings),
        oversized=frozenset(each.oid for each in large),
        closed=found.closed,
        drifted=drifted,
        boundary=found.boundary,
    )
    if is_open(spec.window, context.zone, now):
        return kept
    assert spec.window is not None
    opening = next_opening(spec.window, context.zone, now) if due else None
    boundaries = [each for each in (found.boundary, opening) if each is not None]
    return replace(kept, actions=(), boundary=min(boundaries, default=None))


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
    parent = context.parent
    return [
        AnalyzeParent(
            schema=parent.schema,
            name=parent.name,
            reason="its partitions have changed, and autovacuum never analyzes it (spec.maintenance.analyzeParent)",
            lock=f"SHARE UPDATE EXCLUSIVE on {parent}",
        )
    ]


def _pruning(context: PlanContext) -> list[Finding]:
    found, parent = context.inventory.facts.pruning, context.parent
    if found is None:
        return []
    findings = []
    if not found.enabled or found.disabled_for:
        findings.append(Finding("PruningDisabled", str(parent), _disabled(context, found)))
    if found.needless:
        message = (
            f"a query for {quoted(context.key)} from {iso(context.current.lower)} to "
            f"{iso(context.current.upper)} also scans {join_names(found.needless)}, which hold no such row: "
            "ask EXPLAIN why; row security, a view or a rule can hide the key from the planner"
        )
        findings.append(Finding("PruningIncomplete", str(parent), message))
    return findings


def _disabled(context: PlanContext, found: Pruning) -> str:
    server = context.inventory.server
    what = "every query reads all partitions"
    if not found.enabled:
        ours = f"enable_partition_pruning is off for role {server.user!r} in database {server.database!r}: {what}"
        others = f"; it is set so for {', '.join(found.disabled_for[:NAMED])}" if found.disabled_for else ""
        return (
            f"{ours}{others}; set it to on, or RESET it, where it is set: postgresql.conf, ALTER SYSTEM, ALTER "
            "DATABASE or ALTER ROLE"
        )
    return (
        f"enable_partition_pruning is off for {', '.join(found.disabled_for[:NAMED])}: {what} there; ALTER ROLE or "
        "ALTER DATABASE … RESET enable_partition_pruning"
    )
