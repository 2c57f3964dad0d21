"""Status and Events of a PartitionRestore: the status so far, and the state of its Job -> the new status. Pure.

The conditions follow kstatus, as those of an archive do.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from ..api.restore import MOST_LEFT_OFF
from ..archive.job_order import Report
from ..errors import PartwardenError, UserError, printable
from ..planner.calendar import iso
from ..status.conditions import FALSE, TRUE, ConditionState, condition
from ..status.details import cut
from ..status.events import EventType, Notice, short
from . import restore_expiry
from .archive_status import READY, RECONCILING, STALLED, Status, counted, forgiven, trouble
from .job_status import BLOCKED, JobView
from .restore_parts import FAILED, RESTORED, RESTORING, WAITING, is_restored, next_part, parts, with_part

LONGEST = 512
"""Characters of a table with its schema, and of what was left off."""


def waits(status: Status, generation: int, now: datetime, reason: str, message: str) -> Status:
    """No Job runs yet, and one will."""
    return _with(status, generation, now, ConditionState(FALSE, reason, message), WAITING)


def aims(status: Status, place: int, archive: str | None, location: str) -> Status:
    """Pin that part of the restore to its archive: what is tried again is the same."""
    pinned = {**parts(status)[place], **({"archive": archive} if archive else {}), "location": location}
    return with_part(status, place, pinned)


def runs(status: Status, generation: int, now: datetime, seen: JobView) -> Status:
    """A Job is under way, and what it waits for. Nothing else changes until it has ended."""
    said = ConditionState(FALSE, seen.reason or "JobRunning", seen.message or f"Job {seen.name} restores the archive")
    state = FAILED if seen.reason in BLOCKED else RESTORING
    return _with({**status, "job": seen.name}, generation, now, said, state)


def restored(status: Status, generation: int, now: datetime, report: Report, seen: JobView) -> Status:
    """The Job reported the table of the part that was next, which it had made and compared with the archive."""
    made, place = report.restored, next_part(status)
    assert made is not None
    assert place is not None
    facts = {
        "manifestSha256": report.manifest_sha256 or None,
        "table": printable(f"{made.schema_}.{made.name}")[:LONGEST],
        "oid": report.oid,
        "rows": report.rows,
        "attachedTo": printable(made.attached_to)[:LONGEST] or None,
        "leftOff": [printable(each)[:LONGEST] for each in made.left_off[:MOST_LEFT_OFF]] or None,
        "leftOffCount": made.left_off_count or None,
        "server": report.server or None,
        "completed": iso(_made_at(report, seen, now)),
    }
    known = {key: value for key, value in facts.items() if value is not None}
    found = with_part(forgiven(status), place, {**parts(status)[place], **known}) | {"job": seen.name}
    if seen.took is not None:
        found["seconds"] = int(found.get("seconds") or 0) + max(0, round(seen.took))
    count, done = len(parts(found)), sum(bool(each.get("oid")) for each in parts(found))
    if done < count:
        message = f"{done} of {count} archives are restored, the last one as {facts['table']}"
        begun = _with(found, generation, now, ConditionState(FALSE, RESTORING, message), RESTORING)
        following = next_part(begun)
        assert following is not None
        return with_part(begun, following, {**parts(begun)[following], "state": WAITING})
    where = f"a partition of {made.attached_to}" if made.attached_to else "a table of its own"
    message = f"{facts['table']}, {where}: {report.rows} rows, equal to the archive"
    if count > 1:
        message = f"{count} tables, each {where}: {found['rows']} rows, equal to the archives; see status.archives"
    if left_off := found.get("leftOffCount"):
        at = "leftOff of each of status.archives" if count > 1 else "status.leftOff"
        message += f"; {left_off} properties of columns are left off: see {at}"
    return _with(found, generation, now, ConditionState(TRUE, RESTORED, message), RESTORED)


def _made_at(report: Report, seen: JobView, now: datetime) -> datetime:
    """When the table was there: while its Job was, by the clock of the cluster. Those of a pod and of the operator may
    be wrong by weeks, and ``expireAfter`` counts from that moment."""
    ended = seen.ended or now
    begun = ended - timedelta(seconds=seen.took or 0)
    return max(min(report.completed or now, ended), begun).replace(microsecond=0)


def failed(
    status: Status,
    generation: int,
    now: datetime,
    error: PartwardenError | tuple[str, str],
    *,
    job: str = "",
    ended: datetime | None = None,
) -> Status:
    """It could not be begun, or its Job failed: see `archive_status.failed`."""
    reason, message = (error.reason, str(error)) if isinstance(error, PartwardenError) else error
    found = {**status, "lastError": {"reason": reason, "message": cut(message)}}
    if job:
        found |= counted(status, job, ended or now, now)
    stalled = isinstance(error, UserError)
    return _with(found, generation, now, ConditionState(FALSE, reason, message), FAILED, stalled)


def changed(previous: Status, status: Status) -> list[Notice]:
    """The Events of a change of status: ``Restored``, and a warning where something else than before is wrong."""
    notices, wrong = [], trouble(status)
    if is_restored(status) and not is_restored(previous):
        ready = next(each for each in status["conditions"] if each["type"] == READY)
        notices.append(Notice(EventType.NORMAL, RESTORED, short(ready["message"])))
    notices += restore_expiry.changed(previous, status)
    if wrong is not None and wrong != trouble(previous):
        notices.append(Notice(EventType.WARNING, wrong[0], short(wrong[1])))
    return notices


def _with(
    status: Status, generation: int, now: datetime, said: ConditionState, state: str, stalled: bool = False
) -> Status:
    earlier = {each["type"]: each for each in status.get("conditions") or []}
    if "archives" in status and (place := next_part(status)) is not None:
        status = with_part(status, place, {**parts(status)[place], "state": state})
    done = state == RESTORED
    states = {
        READY: said,
        RECONCILING: _whether(not done and not stalled, said),
        STALLED: _whether(stalled, said),
        RESTORED: said,
    }
    conditions = [condition(kind, each, earlier.get(kind), generation, now) for kind, each in states.items()]
    return {**status, "observedGeneration": generation, "conditions": conditions, "state": state}


def _whether(holds: bool, said: ConditionState) -> ConditionState:
    return ConditionState(TRUE, said.reason, said.message) if holds else ConditionState(FALSE, said.reason)
