"""Partitions whose range has passed: what is done to each once, and what keeps it from being done."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from .actions import Action, ReindexPartition, VacuumPartition
from .errors import NotOwner, StatementRejected
from .findings import Finding, quoted
from .interval import Grid, Range
from .inventory import Partition, RelationKind
from .lifecycle import OnClose
from .situation import Situation
from .wear import Closed

LATE = timedelta(hours=1)
"""A range counts as passed so long after its end: rows of its last minutes may come late."""
NAMED = 5


@dataclass(frozen=True, slots=True)
class Closing:
    """``closed``: OIDs of the partitions it concerns. ``boundary``: when one more will be among them, aware."""

    closed: frozenset[int] = frozenset()
    actions: tuple[Action, ...] = ()
    findings: tuple[Finding, ...] = ()
    boundary: datetime | None = None


def closing(situation: Situation, expired: frozenset[int]) -> Closing:
    """Newest first: the youngest rows are read most, and old ones may have been kept well by somebody else.

    What ``maintenance.onClose`` does not ask for, what has expired, and what is held, unmanaged, foreign or
    partitioned itself is left alone.
    """
    if situation.spec.maintenance.on_close is OnClose.NONE:
        return Closing()
    mine = [(each, piece, _closing_time(situation, piece)) for each, piece in situation.ranged if _concerns(each)]
    mine = [
        found
        for found in mine
        if situation.is_cell(found[1]) and found[0].oid not in expired and not situation.is_held(found[0])
    ]
    passed = sorted((each for each in mine if each[2] <= situation.now), key=lambda each: each[2], reverse=True)
    facts = {each.oid: each for each in situation.inventory.wear.closed}
    known = [(each, piece, since, facts[each.oid]) for each, piece, since in passed if each.oid in facts]
    return Closing(
        closed=frozenset(each.oid for each, _, _ in passed),
        actions=tuple(
            action
            for each, piece, since, fact in known
            if fact.may_own and not fact.no_room
            for action in _actions(situation, each, piece, since, fact)
        ),
        findings=tuple(_findings(situation, [(each, fact) for each, _, _, fact in known])),
        boundary=min((since for _, _, since in mine if since > situation.now), default=None),
    )


def _concerns(each: Partition) -> bool:
    return each.kind is RelationKind.TABLE and not each.detach_pending


def _closing_time(situation: Situation, piece: Range) -> datetime:
    """`LATE` after the range's end. Without an end it never comes: far away."""
    if piece.upper is None:
        return situation.now + timedelta(days=365)
    if situation.codec.aware:
        return piece.upper + LATE
    return Grid(situation.spec.interval, situation.zone).moment(piece.upper) + LATE


def _vacuum_due(fact: Closed) -> bool:
    return not fact.empty and not fact.frozen and fact.mark.vacuumed is None


def _reindex_due(situation: Situation, fact: Closed) -> bool:
    wanted = situation.spec.maintenance.on_close is OnClose.VACUUM_AND_REINDEX
    return wanted and not fact.empty and fact.indexed and fact.mark.reindexed is None


def _actions(situation: Situation, each: Partition, piece: Range, since: datetime, fact: Closed) -> list[Action]:
    """VACUUM first: what it has taken out of the table need not be indexed again."""
    why = f"its range has passed (spec.maintenance.onClose: {situation.spec.maintenance.on_close})"
    lock = f"SHARE UPDATE EXCLUSIVE on {each}"
    actions: list[Action] = []
    if _vacuum_due(fact):
        actions.append(
            VacuumPartition(
                schema=each.schema, name=each.name, range=piece, reason=why, lock=lock, oid=each.oid, closed=since
            )
        )
    if _reindex_due(situation, fact):
        actions.append(
            ReindexPartition(schema=each.schema, name=each.name, range=piece, reason=why, lock=lock, oid=each.oid)
        )
    return actions


def _findings(situation: Situation, known: list[tuple[Partition, Closed]]) -> list[Finding]:
    findings, user, subject = [], situation.inventory.server.user, str(situation.spec.table)
    foreign = [
        (each, fact)
        for each, fact in known
        if not fact.may_own and (_vacuum_due(fact) or _reindex_due(situation, fact))
    ]
    if foreign:
        each, fact = foreign[0]
        error = NotOwner(
            f"role {user!r} is not the owner of partition {each}, which is {fact.owner!r}{_more(len(foreign) - 1)}: "
            f"only the owner may do what spec.maintenance.onClose asks; ALTER TABLE {quoted(each.schema)}."
            f"{quoted(each.name)} OWNER TO {quoted(situation.parent.owner)}, or GRANT {quoted(fact.owner)} TO "
            f"{quoted(user)}"
        )
        findings.append(Finding.of(subject, error))
    if full := [
        str(each) for each, fact in known if fact.no_room and (_vacuum_due(fact) or _reindex_due(situation, fact))
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
    if broken := [(each, fact) for each, fact in known if fact.invalid]:
        what = ", ".join(f"{', '.join(fact.invalid[:NAMED])} of {each}" for each, fact in broken[:NAMED])
        message = (
            f"invalid, so that every write keeps them and no query uses them: {what}{_more(len(broken) - NAMED)}; "
            "REINDEX INDEX or DROP INDEX what somebody left there"
        )
        findings.append(Finding("InvalidIndex", subject, message))
    return findings


def _more(count: int) -> str:
    return f", and of {count} more" if count > 0 else ""
