"""What keeps partitions in good order once they are there: statistics, VACUUM, REINDEX, and what is worth a warning."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from .actions import Action, AnalyzeParent
from .closing import closing
from .findings import Finding, quoted
from .interval import iso
from .inventory import Inventory
from .retiring import Retired
from .situation import Situation
from .thresholds import oversized, thresholds_finding
from .wear import Pruning
from .window import is_open, next_opening

SHARE = 0.1
ROWS = 1000
"""Statistics of the parent are stale when it is believed to hold so much, and so many rows, more or less than its
partitions. Below that the planner hardly decides otherwise."""
ANALYZE_PAUSE = timedelta(minutes=15)
"""ANALYZE of the parent analyzes its partitions, too, up to version 17, and after the parent itself. A partition must
have been analyzed so much later to be a reason to do it again: longer than it may take, so that no loop comes of it."""
NAMED = 5


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


def upkeep(situation: Situation, retired: Retired) -> Upkeep:
    """Decided last, and done last: creating and retiring come before. Outside of the window nothing is to be done."""
    spec, now = situation.spec.maintenance, situation.now
    large = oversized(situation)
    found = closing(situation, retired.expired)
    drifted = spec.analyze_parent and _has_drifted(situation.inventory)
    due = (*_analyze(situation, drifted), *found.actions)
    kept = Upkeep(
        actions=due,
        findings=(*thresholds_finding(situation, large), *_pruning(situation), *found.findings),
        oversized=frozenset(each.oid for each in large),
        closed=found.closed,
        drifted=drifted,
        boundary=found.boundary,
    )
    if is_open(spec.window, situation.zone, now):
        return kept
    assert spec.window is not None
    opening = next_opening(spec.window, situation.zone, now) if due else None
    boundaries = [each for each in (found.boundary, opening) if each is not None]
    return replace(kept, actions=(), boundary=min(boundaries, default=None))


def _has_drifted(inventory: Inventory) -> bool:
    """Judged by what every look reads: only then are the times of the last ANALYZE asked for."""
    assert inventory.parent is not None
    known = [each.rows for each in inventory.partitions if each.rows is not None]
    believed, actual = inventory.parent.rows or 0, sum(known)
    return bool(known) and abs(actual - believed) > max(ROWS, SHARE * max(actual, believed))


def _analyze(situation: Situation, drifted: bool) -> list[Action]:
    """Once for each time that the partitions have told of another number of rows, and never in a loop."""
    statistics = situation.inventory.wear.statistics
    if not drifted or statistics is None or not statistics.counted or statistics.partitions is None:
        return []
    if statistics.parent is not None and statistics.partitions < statistics.parent + ANALYZE_PAUSE:
        return []
    parent = situation.parent
    return [
        AnalyzeParent(
            schema=parent.schema,
            name=parent.name,
            reason="its partitions have changed, and autovacuum never analyzes it (spec.maintenance.analyzeParent)",
            lock=f"SHARE UPDATE EXCLUSIVE on {parent}",
        )
    ]


def _pruning(situation: Situation) -> list[Finding]:
    found, parent = situation.inventory.wear.pruning, situation.parent
    if found is None:
        return []
    findings = []
    if not found.enabled or found.disabled_for:
        findings.append(Finding("PruningDisabled", str(parent), _disabled(situation, found)))
    if found.needless:
        names = ", ".join(found.needless[:NAMED])
        more = f" and {len(found.needless) - NAMED} more" if len(found.needless) > NAMED else ""
        message = (
            f"a query for {quoted(situation.key)} from {iso(situation.current.lower)} to "
            f"{iso(situation.current.upper)} also scans {names}{more}, which hold no such row: ask EXPLAIN why; row "
            "security, a view or a rule can hide the key from the planner"
        )
        findings.append(Finding("PruningIncomplete", str(parent), message))
    return findings


def _disabled(situation: Situation, found: Pruning) -> str:
    server = situation.inventory.server
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
