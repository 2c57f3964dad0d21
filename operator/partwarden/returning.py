"""Which detached tables become partitions again: those that are no longer old enough to be gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .actions import AttachDetached
from .errors import UserError
from .findings import Finding
from .interval import Range, iso
from .inventory import Detached
from .situation import Situation


@dataclass(frozen=True, slots=True)
class Returning:
    """``tables`` can be attached, their ranges overlap nothing; ``shut_out`` should be, but something is in the way."""

    tables: tuple[Detached, ...] = ()
    shut_out: tuple[Detached, ...] = ()


def returning(situation: Situation, pieces: Sequence[Range]) -> Returning:
    """``pieces`` are ranges that must exist and do not. Nothing returns where the policy has no ``retention``.

    A table returns for exactly the range that it had, be it a piece or where nothing is wanted at all: its rows are
    kept by the policy as it reads now. It never takes a part of a piece, for it might fail to return, and what must
    exist would be missing. Of several tables for one range the one that was detached last returns.
    """
    if situation.cutoff is None:
        return Returning()
    back: list[Detached] = []
    shut_out: list[Detached] = []
    for each in sorted(situation.detached, key=lambda each: (each.marker.since, each.oid), reverse=True):
        held = each.marker.range
        if situation.has_expired(held) or situation.is_held(each):
            continue
        others = [*situation.coverage, *(other.marker.range for other in back)]
        free = held in pieces or not any(held.overlaps(piece) for piece in pieces)
        if free and not any(held.overlaps(other) for other in others):
            back.append(each)
        else:
            shut_out.append(each)
    return Returning(tuple(back), tuple(shut_out))


def attachments(
    situation: Situation, tables: Sequence[Detached], reasons: Mapping[Range, str], lock: str
) -> tuple[list[AttachDetached], list[Finding]]:
    """The actions that attach ``tables`` again. ``reasons`` has those ranges that are wanted for another reason."""
    actions: list[AttachDetached] = []
    findings: list[Finding] = []
    keep_for = situation.spec.retention.keep_for if situation.spec.retention else None
    for each in tables:
        held = each.marker.range
        assert held.lower is not None
        assert held.upper is not None
        try:
            bounds = situation.edges.bounds(held.lower, held.upper)
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
