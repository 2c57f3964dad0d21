"""What the status of a PartitionRestore says of expireAfter: when its tables go, that they went, or why they stay.

Pure.

What was restored stays in the status whatever comes after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from ..errors import TransientError, from_report
from ..planner.calendar import iso
from ..status.conditions import FALSE, TRUE, ConditionState, condition
from ..status.details import cut
from ..status.events import EventType, Notice, short
from .archive_status import READY, RECONCILING, STALLED, Status
from .restore_parts import DROPPED, DROPPING, KEPT, RESTORED, part_state, parts, with_part

EXPIRED = "Expired"
SCHEDULED = "Scheduled"
AS_BEFORE = (READY, RECONCILING, STALLED, RESTORED)
"""Conditions that say what they said."""
FIRST_PAUSE, LONGEST_PAUSE = timedelta(days=1), timedelta(days=30)
"""Between two attempts that found that a table must stay, doubled each time: each may read all of it."""
PASSING = timedelta(hours=1)
"""After what may pass."""


def scheduled(status: Status, generation: int, now: datetime, at: datetime | None) -> Status:
    """The tables go at that moment; None: they stay. What was found out for another moment is forgotten."""
    found = {key: value for key, value in status.items() if key != "expiresAt"}
    for place, part in enumerate(parts(status)):
        found = with_part(found, place, {key: value for key, value in part.items() if key != "expiry"})
    if at is not None:
        found["expiresAt"] = iso(at)
    return as_it_is(found, generation, now)


def drops(status: Status, generation: int, now: datetime, place: int, job: str) -> Status:
    """A Job is to be made that drops the table of that part."""
    part = parts(status)[place]
    attempts = {key: value for key, value in (part.get("expiry") or {}).items() if key == "attempts"}
    return as_it_is(with_part(status, place, {**part, "expiry": {**attempts, "job": job}}), generation, now)


def kept(
    status: Status, generation: int, now: datetime, places: Iterable[int], why: tuple[str, str], *, tried: bool = False
) -> Status:
    """The tables of these parts stay, for this reason. ``tried``: a Job, or what it needs, was asked, and is to be
    asked again only after a pause."""
    found = status
    for place in places:
        part = parts(found)[place]
        expiry: Status = {"reason": why[0], "message": cut(why[1])}
        attempts = int((part.get("expiry") or {}).get("attempts") or 0)
        if tried:
            attempts += 1
            passing = isinstance(from_report(*why), TransientError)
            pause = PASSING if passing else min(FIRST_PAUSE * 2 ** min(attempts - 1, 10), LONGEST_PAUSE)
            expiry["nextAttempt"] = iso((now + pause).replace(microsecond=0))
        found = with_part(found, place, {**part, "expiry": {**expiry, **({"attempts": attempts} if attempts else {})}})
    return as_it_is(found, generation, now)


def dropped(status: Status, generation: int, now: datetime, place: int) -> Status:
    """A Job has dropped the table of that part, or found that it is gone."""
    part = {key: value for key, value in parts(status)[place].items() if key != "expiry"}
    at = iso(now.replace(microsecond=0))
    return as_it_is(with_part(status, place, {**part, "dropped": at}), generation, now)


def as_it_is(status: Status, generation: int, now: datetime) -> Status:
    """With the conditions and the state that follow from its parts, all of which are restored."""
    earlier = {each["type"]: each for each in status.get("conditions") or []}
    said = {
        kind: ConditionState(TRUE if each["status"] == TRUE else FALSE, each["reason"], each.get("message", ""))
        for kind, each in earlier.items()
        if kind in AS_BEFORE
    }
    state, expired = _summary(status)
    if state == DROPPED:
        said[READY] = ConditionState(TRUE, DROPPED, expired.message if expired else "")
    if expired is not None:
        said[EXPIRED] = expired
    conditions = [condition(kind, each, earlier.get(kind), generation, now) for kind, each in said.items()]
    return {**status, "observedGeneration": generation, "conditions": conditions, "state": state}


def _summary(status: Mapping[str, Any]) -> tuple[str, ConditionState | None]:
    """The state of all parts in one word, and the condition `EXPIRED`; None where nothing is to be said."""
    found = parts(status)
    states = [part_state(each) for each in found]
    table = str(status.get("table", ""))
    if set(states) == {DROPPED}:
        gone = f"{table}: dropped, or found to be gone, at {max(str(each['dropped']) for each in found)}; "
        return DROPPED, ConditionState(TRUE, DROPPED, f"{gone}the archive was read back, and restores all of it")
    if DROPPING in states:
        return DROPPING, ConditionState(FALSE, DROPPING, f"a Job drops {found[states.index(DROPPING)].get('table')}")
    if KEPT in states:
        expiry = found[states.index(KEPT)]["expiry"]
        more = f"; so do {states.count(KEPT) - 1} more: see status.archives" if states.count(KEPT) > 1 else ""
        return KEPT, ConditionState(FALSE, str(expiry["reason"]), f"{expiry.get('message', '')}{more}")
    if "expiresAt" not in status:
        return RESTORED, None
    when = f"{table}: dropped at {status['expiresAt']}, if nothing in it changed by then; a hold keeps it"
    return RESTORED, ConditionState(FALSE, SCHEDULED, when)


def changed(previous: Mapping[str, Any], status: Mapping[str, Any]) -> list[Notice]:
    """The Events of a change of the condition: that the tables went, or why one stays."""
    before, after = (_condition(each) for each in (previous, status))
    if after is None or (before and all(before.get(key) == after.get(key) for key in ("status", "reason", "message"))):
        return []
    if after["status"] == TRUE:
        return [Notice(EventType.NORMAL, DROPPED, short(after.get("message", "")))]
    if after["reason"] in (SCHEDULED, DROPPING):
        return []
    return [Notice(EventType.WARNING, after["reason"], short(after.get("message", "")))]


def _condition(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((each for each in status.get("conditions") or [] if each.get("type") == EXPIRED), None)
