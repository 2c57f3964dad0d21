"""Which detached tables become partitions again: those that the policy keeps longer by now."""

from __future__ import annotations

from collections.abc import Sequence

from .calendar import BoundedRange, iso
from .context import PlanContext
from .findings import Finding
from .inventory import Detached


def returning(context: PlanContext, pieces: Sequence[BoundedRange]) -> tuple[list[Detached], list[Finding]]:
    """The tables that can be attached, and what of the others should be, but something is in the way.

    ``pieces`` are ranges that must exist and do not. Nothing returns where the policy has no ``retention``. A table
    returns for exactly the range that it had, be it a piece or where nothing is wanted at all: its rows are kept by
    the policy as it reads now. It takes a part of a piece only where that has passed, as after a change to a longer
    interval; the rest is made around it. Of any other piece it takes none, for it might fail to return, and what must
    exist would be missing. Of several tables for one range the one that was detached last returns.
    """
    back: list[Detached] = []
    shut_out: list[Finding] = []
    if context.cutoff is None:
        return back, shut_out
    firm = [piece for piece in pieces if piece.upper > context.moment]
    for each in sorted(context.detached, key=lambda each: (each.marker.since, each.oid), reverse=True):
        held = each.marker.range
        if context.has_expired(held) or context.is_held(each):
            continue
        others = [*context.coverage, *(other.marker.range for other in back)]
        free = held in pieces or not any(held.overlaps(piece) for piece in firm)
        if free and not any(held.overlaps(other) for other in others):
            back.append(each)
            continue
        message = (
            f"detached table {each} holds what is not older than spec.retention.keepFor any more, from "
            f"{iso(held.lower)} to {iso(held.upper)}, but something else holds or shall hold a part of that: it stays "
            "a table of its own; move its rows into the partitions, then drop it"
        )
        shut_out.append(Finding("CannotReturn", str(each), message))
    return back, shut_out
