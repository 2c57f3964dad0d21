"""The mark in a partition's COMMENT that says what was done to it once its range had passed, beside the user's text.

PostgreSQL keeps no time at which an index was built, and its counters of VACUUM are lost in a crash and unknown to a
server that takes over. So what is to be done once is written down where it was done. A line of its own::

    partwarden.dev/closed {"oid": 16402, "vacuumed": "2026-01-01T01:00:10Z", "reindexed": "2026-01-01T01:02:50Z"}

Whoever wants it done again takes the line away.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from . import marker
from .interval import iso

LABEL = "partwarden.dev/closed"
WORK = ("vacuum", "reindex")
ROOM = 1024
"""Bytes that a comment must have left, so that what is done can be written down."""


@dataclass(frozen=True, slots=True)
class Upkept:
    """``oid`` is that of the marked table itself: a copy of the comment on another table means nothing.

    Moments are aware, UTC, by the server's clock; None where it was not done.
    """

    oid: int
    vacuumed: datetime | None = None
    reindexed: datetime | None = None
    gave_up: tuple[str, ...] = ()
    """Of ``vacuum`` and ``reindex``, what did not end in time, and is not tried again."""


def read(comment: str | None, oid: int) -> Upkept:
    """What the comment says of the table with that OID. A line that cannot be read is the user's text."""
    for line in reversed((comment or "").split("\n")):
        if (found := _parse(line, oid)) is not None:
            return found
    return Upkept(oid)


def write(comment: str | None, mark: Upkept) -> str:
    """The comment with this mark instead of one of that table; everything else stays, the mark of a detach last."""
    text, detach = marker.read(comment)
    kept = [line for line in text.split("\n") if _parse(line, mark.oid) is None] if text else []
    held = {
        "oid": mark.oid,
        "vacuumed": iso(mark.vacuumed),
        "reindexed": iso(mark.reindexed),
        "gaveUp": list(mark.gave_up),
    }
    line = f"{LABEL} {json.dumps({name: value for name, value in held.items() if value})}"
    return marker.write("\n".join([*kept, line]), detach) or ""


def _parse(line: str, oid: int) -> Upkept | None:
    """Anyone who may comment on the table may have written it: nothing in it can raise."""
    held = marker.values(line, LABEL)
    if held is None:
        return None
    try:
        mark = Upkept(
            oid=marker.oid(held["oid"]),
            vacuumed=_moment(held.get("vacuumed")),
            reindexed=_moment(held.get("reindexed")),
            gave_up=_gave_up(held.get("gaveUp", [])),
        )
    except marker.UNREADABLE:
        return None
    return mark if mark.oid == oid else None


def _moment(text: object) -> datetime | None:
    return None if text is None else marker.instant(text)


def _gave_up(found: object) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(each in WORK for each in found):
        raise ValueError("no list of what is done here")
    return tuple(found)
