"""Status and Events of a PartitionRestore: the status so far, and the state of its Job -> the new status. Pure.

The conditions follow kstatus, as those of an archive do.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from ..api.restore import MOST_LEFT_OFF
from ..archive.job_order import Report
from ..errors import PartwardenError, UserError, printable
from ..planner.calendar import iso
from ..status.conditions import FALSE, TRUE, ConditionState, condition
from ..status.details import cut
from ..status.events import EventType, Notice, short
from .archive_status import READY, RECONCILING, STALLED, Status, counted, forgiven, trouble
from .job_status import BLOCKED, JobView

RESTORED = "Restored"
"""A condition, its reason, and the state once the table was made."""
WAITING, RESTORING, FAILED = "Waiting", "Restoring", "Failed"
LONGEST = 512
"""Characters of a table with its schema, and of what was left off."""


def is_restored(status: Mapping[str, object]) -> bool:
    """Whether the table was made, for good: nothing is done for it any more."""
    return bool(status.get("oid"))


def waits(status: Status, generation: int, now: datetime, reason: str, message: str) -> Status:
    """No Job runs yet, and one will."""
    return _with(status, generation, now, ConditionState(FALSE, reason, message), WAITING)


def aims(status: Status, archive: str | None, location: str) -> Status:
    """Pin the restore to its archive: what is tried again is the same."""
    return {**status, **({"archive": archive} if archive else {}), "location": location}


def runs(status: Status, generation: int, now: datetime, seen: JobView) -> Status:
    """A Job is under way, and what it waits for. Nothing else changes until it has ended."""
    said = ConditionState(FALSE, seen.reason or "JobRunning", seen.message or f"Job {seen.name} restores the archive")
    state = FAILED if seen.reason in BLOCKED else RESTORING
    return _with({**status, "job": seen.name}, generation, now, said, state)


def restored(status: Status, generation: int, now: datetime, report: Report, job: str, took: float | None) -> Status:
    """The Job reported the table, which it had made and compared with the archive. ``took``: its seconds."""
    made = report.restored
    assert made is not None
    facts = {
        "table": printable(f"{made.schema_}.{made.name}")[:LONGEST],
        "oid": report.oid,
        "rows": report.rows,
        "attachedTo": printable(made.attached_to)[:LONGEST] or None,
        "leftOff": [printable(each)[:LONGEST] for each in made.left_off[:MOST_LEFT_OFF]] or None,
        "leftOffCount": made.left_off_count or None,
        "server": report.server or None,
        "completed": iso((report.completed or now).replace(microsecond=0)),
        "seconds": None if took is None else max(0, round(took)),
    }
    where = f"a partition of {made.attached_to}" if made.attached_to else "a table of its own"
    message = f"{facts['table']}, {where}: {report.rows} rows, equal to the archive"
    if made.left_off_count:
        message += f"; {made.left_off_count} properties of columns are left off: see status.leftOff"
    known = {key: value for key, value in facts.items() if value is not None}
    said = ConditionState(TRUE, RESTORED, message)
    return _with({**forgiven(status), **known, "job": job}, generation, now, said, RESTORED)


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
    if wrong is not None and wrong != trouble(previous):
        notices.append(Notice(EventType.WARNING, wrong[0], short(wrong[1])))
    return notices


def _with(
    status: Status, generation: int, now: datetime, said: ConditionState, state: str, stalled: bool = False
) -> Status:
    earlier = {each["type"]: each for each in status.get("conditions") or []}
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
