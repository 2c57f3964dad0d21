"""The mark in a table's COMMENT that says it was detached by Partwarden, beside the user's own text.

The one thing that Partwarden writes into a database to remember: a detached table has no bounds and no parent any more.
It stands on a line of its own, the last one of the comment::

    partwarden.dev/detached {"oid": 16402, "parent": 16388, "table": "public.run", "from": "2018-01-01T00:00:00Z",
                             "to": "2019-01-01T00:00:00Z", "phase": "Detached", "since": "2026-01-01T00:00:10Z"}
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from .interval import Range, iso

LABEL = "partwarden.dev/detached"


class Phase(StrEnum):
    """How far the detach is known to have come."""

    DETACHING = "Detaching"
    """Written before the detach: the table may be attached still."""
    DETACHED = "Detached"
    """Written after it: ``since`` is no earlier than the detach."""
    RESTORED = "Restored"
    """Attached from an archive, not detached at all: retention leaves it alone, as a partition and as a table."""


@dataclass(frozen=True, slots=True)
class Marker:
    """``oid`` is that of the marked table itself: a copy of the comment on another table means nothing."""

    oid: int
    parent: int
    table: str
    """The parent's name at that time, for people."""
    range: Range
    phase: Phase
    since: datetime
    """Aware, UTC, by the server's clock."""


def read(comment: str | None) -> tuple[str, Marker | None]:
    """The user's own text, and the mark. A line that bears the label but cannot be read is the user's text."""
    text = comment or ""
    before, _, last = text.rpartition("\n")
    if not last.startswith(LABEL + " "):
        return text, None
    try:
        held = json.loads(last.removeprefix(LABEL))
        marker = Marker(
            oid=int(held["oid"]),
            parent=int(held["parent"]),
            table=str(held["table"]),
            range=Range(datetime.fromisoformat(held["from"]), datetime.fromisoformat(held["to"])),
            phase=Phase(held["phase"]),
            since=datetime.fromisoformat(held["since"]).astimezone(UTC),
        )
    except (ValueError, KeyError, TypeError):
        return text, None
    return before, marker


def write(text: str, marker: Marker | None) -> str | None:
    """The comment that `read` reads so; None where there is nothing to say."""
    if marker is None:
        return text or None
    held = {
        "oid": marker.oid,
        "parent": marker.parent,
        "table": marker.table,
        "from": iso(marker.range.lower),
        "to": iso(marker.range.upper),
        "phase": marker.phase,
        "since": iso(marker.since),
    }
    line = f"{LABEL} {json.dumps(held, ensure_ascii=False)}"
    return f"{text}\n{line}" if text else line
