"""The marks in a table's COMMENT, beside the user's own text: all that Partwarden writes into a database to remember.

A detached table has no bounds and no parent any more, so its mark has them. It is the last line of the comment::

    partwarden.dev/detached {"oid": 16402, "parent": 16388, "table": "public.run", "from": "2018-01-01T00:00:00Z",
                             "to": "2019-01-01T00:00:00Z", "phase": "Detached", "since": "2026-01-01T00:00:10Z"}

PostgreSQL keeps no time at which an index was built, and its counters of VACUUM are lost in a crash and unknown to a
server that takes over. So what is to be done once with a partition is written down where it was done. Without the line
it is done again::

    partwarden.dev/closed {"oid": 16402, "vacuumed": "2026-01-01T01:00:10Z", "reindexed": "2026-01-01T01:02:50Z"}

A table that was made for a PartitionRestore says for which, so that it is not made twice::

    partwarden.dev/restored {"oid": 16402, "uid": "0a4bd22c-…", "rows": 1200, "leftOff": 0, "shape": "9f86…"}

A plain table that was converted says what its way back needs and the catalog does not tell::

    partwarden.dev/converted {"oid": 16402, "parent": 16455, "keys": [["run_pkey", "run_pkey_wide"]], "nullable": false,
                              "validate": [["public", "log", "log_run_fkey"]], "undone": false, "left": []}

Anyone who may comment on the table may have written a line: nothing in it can raise, and one that bears a label but
cannot be read is the user's text. A mark names the OID of its own table: a copy on another table means nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from .calendar import BoundedRange, iso

LABEL, CLOSED_LABEL = "partwarden.dev/detached", "partwarden.dev/closed"
RESTORED_LABEL = "partwarden.dev/restored"
CONVERTED_LABEL = "partwarden.dev/converted"
WORK = ("vacuum", "reindex")
ROOM = 1024
"""Bytes that a comment must have left, so that what is done can be written down."""
LONGEST = 64 * 1024
"""Bytes of a comment that is read. A longer one is not transferred: it bears no mark, and is never written over."""
LONGEST_LINE = 8 * 1024
"""Characters of a line that may be a mark."""
MOST_OID = 2**32 - 1
EDGE = timedelta(days=2)
"""Moments so close to either end of the calendar are none: another time zone may put them beyond it."""
UNREADABLE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)
"""What reading a value of a mark may raise."""


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
    """``oid`` is that of the marked table itself."""

    oid: int
    parent: int
    table: str
    """The parent's name at that time, for people."""
    range: BoundedRange
    phase: Phase
    since: datetime
    """Aware, UTC, by the server's clock."""


@dataclass(frozen=True, slots=True)
class ClosedMark:
    """``oid`` is that of the marked table itself. Moments are aware, UTC, by the server's clock; None: not done."""

    oid: int
    vacuumed: datetime | None = None
    reindexed: datetime | None = None
    gave_up: tuple[str, ...] = ()
    """Of `WORK`, what did not end in time, and is not tried again."""


@dataclass(frozen=True, slots=True)
class RestoredMark:
    """``oid`` is that of the marked table itself, ``uid`` that of the PartitionRestore. ``left_off``: how many
    properties of the archived table it has not. ``shape``: an `archive.restored_shape.digest`, empty where none was
    taken."""

    oid: int
    uid: str
    rows: int
    left_off: int = 0
    shape: str = ""


@dataclass(frozen=True, slots=True)
class ConvertedMark:
    """``oid`` is that of the marked table itself, ``parent`` that of the parent it was given."""

    oid: int
    parent: int
    keys: tuple[tuple[str, str], ...] = ()
    """Of each key that was widened: the parent's constraint, and the constraint of the wider key on this table."""
    nullable: bool = False
    """Whether the key column of the plain table could be NULL and had to become NOT NULL."""
    validate: tuple[tuple[str, str, str], ...] = ()
    """Foreign keys (schema, table, name) that were made again NOT VALID and are to be validated."""
    undone: bool = False
    """Whether it is a plain table again: the mark stays until ``validate`` is done, and nothing is ``left``."""
    left: tuple[int, ...] = ()
    """OIDs of partitions that became its children by the way back, and are to be dropped."""
    split: bool = False
    """Whether its own primary key has given way to the wider one, so that partitions can be split off it: there is no
    way back then."""


def read(comment: str | None) -> tuple[str, Marker | None]:
    """The user's own text, and the mark of a detach."""
    text = comment or ""
    before, _, last = text.rpartition("\n")
    if (held := _values(last, LABEL)) is None:
        return text, None
    try:
        return before, Marker(
            oid=_oid(held["oid"]),
            parent=_oid(held["parent"]),
            table=_words(held["table"]),
            range=BoundedRange(_moment(held["from"]), _moment(held["to"])),
            phase=Phase(held["phase"]),
            since=_instant(held["since"]),
        )
    except UNREADABLE:
        return text, None


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


def read_closed(comment: str | None, oid: int) -> ClosedMark:
    """What the comment says of the table with that OID."""
    marks = (_closed(line, oid) for line in reversed((comment or "").split("\n")))
    return next((mark for mark in marks if mark is not None), ClosedMark(oid))


def write_closed(comment: str | None, mark: ClosedMark) -> str:
    """The comment with this mark instead of one of that table; everything else stays, the mark of a detach last."""
    text, detach = read(comment)
    kept = [line for line in text.split("\n") if _closed(line, mark.oid) is None] if text else []
    held = {
        "oid": mark.oid,
        "vacuumed": iso(mark.vacuumed),
        "reindexed": iso(mark.reindexed),
        "gaveUp": list(mark.gave_up),
    }
    line = f"{CLOSED_LABEL} {json.dumps({name: value for name, value in held.items() if value})}"
    return write("\n".join([*kept, line]), detach) or ""


def read_restored(comment: str | None, oid: int) -> RestoredMark | None:
    """For which PartitionRestore the table with that OID was made; None where it says none."""
    for line in reversed((comment or "").split("\n")):
        if (held := _values(line, RESTORED_LABEL)) is None:
            continue
        try:
            counts = _count(held["rows"]), _count(held["leftOff"])
            mark = RestoredMark(_oid(held["oid"]), _words(held["uid"]), *counts, _words(held.get("shape", "")))
        except UNREADABLE:
            continue
        if mark.oid == oid:
            return mark
    return None


def write_restored(comment: str | None, mark: RestoredMark) -> str:
    """The comment with this mark; everything else stays, the mark of a detach last."""
    text, detach = read(comment)
    held: dict[str, object] = {"oid": mark.oid, "uid": mark.uid, "rows": mark.rows, "leftOff": mark.left_off}
    held |= {"shape": mark.shape} if mark.shape else {}
    line = f"{RESTORED_LABEL} {json.dumps(held, ensure_ascii=False)}"
    return write("\n".join([text, line] if text else [line]), detach) or ""


def read_converted(comment: str | None, oid: int) -> ConvertedMark | None:
    """What the comment of the table with that OID says of its conversion; None where it says nothing."""
    marks = (_converted(line, oid) for line in reversed((comment or "").split("\n")))
    return next((mark for mark in marks if mark is not None), None)


def write_converted(comment: str | None, oid: int, mark: ConvertedMark | None) -> str | None:
    """The comment with this mark instead of one of the table with that OID, or without one; everything else stays.

    Raises `ValueError` where the mark is too long to be read again.
    """
    text, detach = read(comment)
    kept = [line for line in text.split("\n") if _converted(line, oid) is None] if text else []
    if mark is not None:
        line = f"{CONVERTED_LABEL} {json.dumps(asdict(mark), ensure_ascii=False)}"
        if _converted(line, oid) != mark:
            raise ValueError("too long to be read again")
        kept.append(line)
    return write("\n".join(kept), detach)


def _converted(line: str, oid: int) -> ConvertedMark | None:
    """The mark in the line, if it is of the table with that OID."""
    if (held := _values(line, CONVERTED_LABEL)) is None:
        return None
    try:
        keys = tuple((_words(constraint), _words(wide)) for constraint, wide in held["keys"])
        validate = tuple((_words(schema), _words(table), _words(name)) for schema, table, name in held["validate"])
        flags = held["nullable"], held["undone"], held.get("split", False)
        left = tuple(_oid(each) for each in held.get("left", []))
        oids = _oid(held["oid"]), _oid(held["parent"])
        mark = ConvertedMark(*oids, keys, flags[0], validate, flags[1], left=left, split=flags[2])
    except UNREADABLE:
        return None
    return mark if mark.oid == oid and all(type(flag) is bool for flag in flags) else None


def without_restored(comment: str | None) -> str:
    """The comment without any mark of a PartitionRestore."""
    lines = (comment or "").split("\n")
    return "\n".join(line for line in lines if _values(line, RESTORED_LABEL) is None)


def _closed(line: str, oid: int) -> ClosedMark | None:
    """The mark in the line, if it is of the table with that OID."""
    if (held := _values(line, CLOSED_LABEL)) is None:
        return None
    try:
        moments = (held.get("vacuumed"), held.get("reindexed"))
        vacuumed, reindexed = (None if moment is None else _instant(moment) for moment in moments)
        gave_up = held.get("gaveUp", [])
        if _oid(held["oid"]) != oid or not isinstance(gave_up, list) or not all(each in WORK for each in gave_up):
            return None
    except UNREADABLE:
        return None
    return ClosedMark(oid, vacuumed, reindexed, tuple(gave_up))


def _values(line: str, label: str) -> Mapping[str, Any] | None:
    """The values in a line that bears the label; None where it does not, or cannot be read."""
    if len(line) > LONGEST_LINE or not line.startswith(label + " "):
        return None
    try:
        held = json.loads(line.removeprefix(label), object_pairs_hook=_unique, parse_constant=_refuse)
    except UNREADABLE:
        return None
    return held if isinstance(held, dict) else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no value")


def _oid(value: object) -> int:
    """Raises `ValueError` for anything but an OID; ``true`` is none, nor is ``16402.0``."""
    if type(value) is not int or not 0 < value <= MOST_OID:
        raise ValueError("no OID")
    return value


def _count(value: object) -> int:
    """Raises `ValueError` for anything but a count."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("no count")
    return value


def _words(value: object) -> str:
    """Text that PostgreSQL can hold. Raises `ValueError`."""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("no text")
    value.encode()
    return value


def _moment(value: object) -> datetime:
    """With a zone or without, and safely within the calendar. Raises `ValueError`, and `OverflowError`."""
    if not isinstance(value, str):
        raise ValueError("no moment")
    found = datetime.fromisoformat(value)
    if not datetime.min + EDGE <= found.replace(tzinfo=None) <= datetime.max - EDGE:
        raise ValueError("beyond the calendar")
    return found


def _instant(value: object) -> datetime:
    """A moment with a zone, in UTC. Raises `ValueError`, and `OverflowError`."""
    if (found := _moment(value)).tzinfo is None:
        raise ValueError("no zone")
    return found.astimezone(UTC)
