"""Status of a PartitionArchive: the status so far, and the state of its Job -> the new status. Pure.

What was proven stays in the status whatever comes after it. The conditions follow kstatus, as those of a policy do.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from .. import __version__
from ..api.archive import HOLD
from ..archive.job_order import Report, Task
from ..errors import ContentsChanged, PartwardenError, UserError
from ..planner.calendar import iso
from ..planner.drop_preconditions import Kept
from ..status.conditions import FALSE, TRUE, ConditionState, condition
from ..status.details import cut, human
from .job_status import BLOCKED, JobView

READY, RECONCILING, STALLED = "Ready", "Reconciling", "Stalled"
ARCHIVED, VERIFIED, EXPIRED = "Archived", "Verified", "Expired"
PROVEN, ANNOUNCED = "Proven", "Announced"
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=1)
"""Between a Job that failed and the next, doubled each time."""

PHASES = {Task.ARCHIVE: "Archiving", Task.CHECK: "Checking", Task.VERIFY: "Verifying", Task.EXPIRE: "Expiring"}
DUMPED = 100
"""``progress`` of a Job that has the dump, and proves it."""
STATES = {**{each: each for each in PHASES.values()}, "Archiving": "Dumping", "Checking": "Verifying"}
FAILURE = ("lastError", "attempts", "nextAttempt")
"""What a Job that succeeds removes."""
AGAIN = "reads the archive again"
PROGRESS = ("phase", "phaseSince", "progress")
"""What the end of a Job removes."""

Status = dict[str, Any]


def is_proven(status: Mapping[str, Any]) -> bool:
    """Whether an archive was read back and found equal to the table. Later checks of it do not count here."""
    return bool(status.get("manifestSha256"))


def waits(status: Mapping[str, Any], generation: int, now: datetime, reason: str, message: str) -> Status:
    """No Job runs yet, and one will."""
    return _with(status, generation, now, ConditionState(FALSE, reason, message), RECONCILING)


def aims(
    status: Mapping[str, Any], oid: int, bounds: tuple[str | None, str | None] | None, server: str = "", size: int = 0
) -> Status:
    """Pin the archive to its table: from now on it is of no other, whatever that is called, and of no other ``server``.

    Bounds that are known already stay: once a table is detached, only its mark says them. ``size``: of the
    table in bytes, 0 where it is not known.
    """
    lower, upper = bounds or (None, None)
    pinned = {"from": lower, "to": upper, **{key: status[key] for key in ("from", "to") if key in status}, "oid": oid}
    pinned |= {"server": server or None, "tableBytes": size or None}
    return {**status, **{key: value for key, value in pinned.items() if value is not None}}


def runs(
    status: Mapping[str, Any], generation: int, now: datetime, task: Task, seen: JobView, dumped: int | None = None
) -> Status:
    """A Job is under way: its phase, since when, and what it waits for. Nothing else changes until it has ended, but
    for the percentage that is ``dumped``; None where there is nothing new of that."""
    size = f" of {human(status['tableBytes'])}" if status.get("tableBytes") else ""
    verb = {Task.ARCHIVE: f"archives the partition{size}", Task.EXPIRE: "deletes the archive"}.get(task, AGAIN)
    said = ConditionState(FALSE, seen.reason or "JobRunning", seen.message or f"Job {seen.name} {verb}")
    lasts = (status.get("job"), status.get("phase")) == (seen.name, PHASES[task]) and "phaseSince" in status
    since = status["phaseSince"] if lasts else iso(now.replace(microsecond=0))
    found = _with({**status, "job": seen.name}, generation, now, said, RECONCILING)
    percent = status.get("progress") if dumped is None and lasts else dumped
    progress = {} if percent is None else {"progress": percent}
    return _staged({**found, "phase": PHASES[task], "phaseSince": since, **progress})


def proved(
    status: Mapping[str, Any], generation: int, now: datetime, report: Report, job: str, took: float | None = None
) -> Status:
    """The Job that archives reported success: the archive was read back before it said so. ``took``: its seconds."""
    found = {**forgiven(status), **_facts(report), "job": job, "lastVerified": _read_at(status, report, now)}
    if took is not None:
        found["seconds"] = max(0, round(took))
    message = f"{report.rows} rows, {human(report.bytes)}, read back and equal to the table: {report.location}"
    return _with(found, generation, now, ConditionState(TRUE, PROVEN, message), READY)


def checked(status: Mapping[str, Any], generation: int, now: datetime, report: Report, token: str, job: str) -> Status:
    """The Job that checks came to a result: the archive is as it was proven, or ``report`` says what is wrong."""
    taken = report.fingerprint.model_dump(by_alias=True) if report.fingerprint else None
    check = {"token": token, "job": job, "ok": report.ok, "reason": report.reason, "message": cut(report.message)}
    check |= {"fingerprint": taken, "oid": report.oid, "completed": iso(report.completed or now)}
    found: Status = {**status, "check": {key: value for key, value in check.items() if value not in (None, "")}}
    # What was read before says nothing beside it.
    found.pop("verification", None)
    if report.ok:
        found["lastVerified"] = _read_at(status, report, now)
        as_it_was = ConditionState(TRUE, PROVEN, f"read again, and as it was: {report.location}")
        return _with({**forgiven(found), "job": job}, generation, now, as_it_was, READY)
    found |= counted(status, job, report.completed or now, now)
    return _with(found, generation, now, ConditionState(FALSE, report.reason, report.message), STALLED)


def verified(status: Mapping[str, Any], generation: int, now: datetime, report: Report, job: str) -> Status:
    """The Job that reads an archive by schedule came to a result. It is not tried again soon: no table waits for it."""
    at = _read_at(status, report, now)
    said = {"job": job, "ok": report.ok, "reason": report.reason, "message": cut(report.message), "completed": at}
    found: Status = {**forgiven(status), "verification": {key: each for key, each in said.items() if each != ""}}
    found["job"] = job
    if report.ok:
        as_it_was = ConditionState(TRUE, PROVEN, f"read again, and as it was: {report.location}")
        return _with({**found, "lastVerified": at}, generation, now, as_it_was, READY)
    return _with(found, generation, now, ConditionState(FALSE, report.reason, report.message), STALLED)


def _read_at(status: Mapping[str, Any], report: Report, now: datetime) -> str | None:
    """When the archive was read, by the operator's clock as far as others differ: by that moment it is read again, soon
    for ever where it is years ago, and never where it is years to come."""
    begun = min(moment(status.get("phaseSince")) or now, now)
    return iso(min(max(report.completed or now, begun), now).replace(microsecond=0))


def announced(
    status: Mapping[str, Any], generation: int, now: datetime, at: datetime | None, why: Kept | None = None
) -> Status:
    """Its objects are to be deleted at that moment; None: they are not, whatever was announced. ``why``: not yet."""
    begun = "begun" in (status.get("expiry") or {})
    found = {key: value for key, value in status.items() if key != "expiresAt" and (begun or key != "expiry")}
    if at is not None:
        found["expiresAt"] = iso(at.replace(microsecond=0))
    if why is not None:
        found["expiry"] = {"reason": why.reason, "message": cut(why.message)}
    return _as_it_is(found, generation, now)


def expires(status: Mapping[str, Any], now: datetime, job: str) -> Status:
    """A Job is to be made that deletes: from now on the archive counts as none."""
    expiry = status.get("expiry") or {}
    begun = expiry.get("begun") or iso(now.replace(microsecond=0))
    attempts = {key: expiry[key] for key in ("attempts",) if key in expiry}
    return {**status, "expiry": {**attempts, "begun": begun, "job": job}}


def kept(
    status: Mapping[str, Any], generation: int, now: datetime, why: tuple[str, str], pause: timedelta, job: str = ""
) -> Status:
    """Its objects could not be deleted, or must not be. ``job``: the one that failed, where one has."""
    expiry = {**(status.get("expiry") or {}), "reason": why[0], "message": cut(why[1])}
    expiry["nextAttempt"] = iso((now + pause).replace(microsecond=0))
    if job:
        expiry |= {"job": job, "attempts": int(expiry.get("attempts") or 0) + 1}
    return _as_it_is({**status, "expiry": expiry}, generation, now)


def expired(status: Mapping[str, Any], generation: int, now: datetime, job: str, kept: str = "") -> Status:
    """The archive's objects are deleted. All that was proven of it stays as a record. ``kept``: what is left there."""
    left = {key: value for key, value in forgiven(status).items() if key not in ("expiry", "expiresAt")}
    at = iso(now.replace(microsecond=0))
    if kept:
        left["expiry"] = {"message": cut(kept)}
    said = ConditionState(TRUE, EXPIRED, f"deleted at {at} from {status.get('location')}: this is the record of it")
    return _with({**left, "expired": at, "job": job}, generation, now, said, READY)


def _as_it_is(status: Status, generation: int, now: datetime) -> Status:
    """With conditions that say what they said, where nothing was found out about the archive itself."""
    wrong = trouble(status)
    if wrong is None:
        return _with(status, generation, now, ConditionState(TRUE, PROVEN, str(status.get("location", ""))), READY)
    return _with(status, generation, now, ConditionState(FALSE, *wrong), STALLED)


def failed(
    status: Mapping[str, Any],
    generation: int,
    now: datetime,
    error: PartwardenError | tuple[str, str],
    *,
    job: str = "",
    ended: datetime | None = None,
) -> Status:
    """It could not be begun, or its Job failed. ``job``: the one that failed, which is then counted, and the next is
    made later, by the time that has passed since it ``ended``."""
    reason, message = (error.reason, str(error)) if isinstance(error, PartwardenError) else error
    found = {**status, "lastError": {"reason": reason, "message": cut(message)}}
    if job:
        found |= counted(status, job, ended or now, now)
    ends = STALLED if isinstance(error, UserError) else RECONCILING
    return _with(found, generation, now, ConditionState(FALSE, reason, message), ends)


def dropped(status: Mapping[str, Any], now: datetime, approval: str | None) -> Status:
    """The table was dropped at ``now``, as ``approval`` allowed. None: it was only seen to be gone.

    What is known of that stays, but for what was only seen, by another operator, right after a drop.
    """
    known, at = status.get("dropped"), {"at": iso(now.replace(microsecond=0))}
    if known and (approval is None or not known.get("observed")):
        return dict(status)
    how = {"observed": True} if approval is None else {"approval": approval, "operator": __version__}
    return {**status, "dropped": at | how}


def trouble(status: Mapping[str, Any]) -> tuple[str, str] | None:
    """Reason and message of what is wrong: what a Job waits for that a user must correct, what the last check found, or
    why the last attempt failed. None where nothing is known to be wrong."""
    if "expired" in status:
        return None
    found, error = reading(status), status.get("lastError")
    ready: Mapping[str, Any] = next((each for each in status.get("conditions") or [] if each.get("type") == READY), {})
    if ready.get("reason") in BLOCKED:
        return str(ready["reason"]), str(ready.get("message", ""))
    if found and found.get("ok") is not True:
        return str(found.get("reason") or "CheckFailed"), str(found.get("message", ""))
    return (str(error.get("reason")), str(error.get("message"))) if error else None


def reading(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The last reading that says how the archive is; empty where there was none.

    One by schedule is later than the check beside it, which removes it. It reads the archive alone: that a table held
    something else, only a check takes back.
    """
    check, verification = (status.get(each) or {} for each in ("check", "verification"))
    if not verification:
        return check
    changed = check and check.get("ok") is not True and check.get("reason") == ContentsChanged.__name__
    return check if changed and verification.get("ok") is True else verification


def state(status: Mapping[str, Any]) -> str:
    """One of `metrics.ARCHIVE_STATES`."""
    return "Failing" if trouble(status) else "Proven" if is_proven(status) else "Working"


def pause(status: Mapping[str, Any], now: datetime) -> float:
    """Seconds until the next Job may be made; 0 at once. ``now`` is aware."""
    following = moment(status.get("nextAttempt"))
    if following is None:
        return 0.0
    # A clock that was set back must not make the pause longer than the longest.
    return min(max(0.0, (following - now).total_seconds()), LONGEST_PAUSE.total_seconds())


def moment(text: object) -> datetime | None:
    """An aware moment that a status holds; None where another wrote there what is none."""
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
        return found.astimezone(UTC) if found is not None and found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def counted(status: Mapping[str, Any], job: str, ended: datetime, now: datetime) -> Status:
    """That the Job failed, and when the next may be made. ``ended`` may be what others wrote: the pause begins now at
    the latest."""
    count = int(status.get("attempts") or 0) + 1
    following = min(ended, now) + min(FIRST_PAUSE * 2 ** min(count - 1, 10), LONGEST_PAUSE)
    return {"attempts": count, "job": job, "nextAttempt": iso(following.replace(microsecond=0))}


def forgiven(status: Mapping[str, Any]) -> Status:
    """Without the failures of earlier Jobs."""
    return {key: value for key, value in status.items() if key not in FAILURE}


def _facts(report: Report) -> Status:
    left_out = {"ok", "reason", "message", "server", "started", "completed"}
    facts = report.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=left_out)
    moments = {"started": report.started, "completed": report.completed}
    times = {name: iso(at) for name, at in moments.items() if at is not None}
    return {**facts, **times, "size": human(report.bytes)}


def _with(status: Mapping[str, Any], generation: int, now: datetime, said: ConditionState, which: str) -> Status:
    earlier = {each["type"]: each for each in status.get("conditions") or []}
    proven, check, gone = is_proven(status), reading(status), "expired" in status
    good = proven and check.get("ok", True) and not gone
    archived = verified = ConditionState(FALSE, said.reason, said.message)
    if gone:
        archived = verified = ConditionState(FALSE, EXPIRED, said.message)
    elif proven:
        archived = ConditionState(TRUE, PROVEN, str(status.get("location", "")))
        verified = ConditionState(FALSE, check.get("reason") or "CheckFailed", check.get("message", ""))
    states = {
        READY: said if which is READY or not good else ConditionState(TRUE, PROVEN, archived.message),
        **{
            kind: ConditionState(TRUE, said.reason, said.message)
            if which == kind
            else ConditionState(FALSE, said.reason)
            for kind in (RECONCILING, STALLED)
        },
        ARCHIVED: archived,
        VERIFIED: ConditionState(TRUE, PROVEN) if good else verified,
        **expiry_conditions(status),
    }
    conditions = [condition(kind, each, earlier.get(kind), generation, now) for kind, each in states.items()]
    lasting = {key: value for key, value in status.items() if key not in PROGRESS}
    return _staged({**lasting, "observedGeneration": generation, "conditions": conditions})


def expiry_conditions(status: Mapping[str, Any]) -> dict[str, ConditionState]:
    """The condition of the deletion, from when it is due."""
    expiry, at = status.get("expiry") or {}, status.get("expiresAt")
    if "expired" in status:
        left = f"; {expiry['message']}" if "message" in expiry else ""
        return {EXPIRED: ConditionState(TRUE, EXPIRED, f"deleted at {status['expired']}{left}")}
    if "reason" in expiry:
        return {EXPIRED: ConditionState(FALSE, str(expiry["reason"]), str(expiry.get("message", "")))}
    if at is None:
        return {}
    said = f"deleted for good at {at}, unless annotation {HOLD} of this object, or of its policy, keeps it"
    return {EXPIRED: ConditionState(FALSE, ANNOUNCED, said)}


def _staged(status: Status) -> Status:
    """With its ``state``. Of a Job that runs, why it cannot go on counts, and why one before it failed does not."""
    wrong = trouble(status)
    if "expired" in status:
        return {**status, "state": EXPIRED}
    if "phase" in status and (wrong is None or wrong[0] not in BLOCKED):
        state, percent = STATES[status["phase"]], status.get("progress")
        if percent == DUMPED:
            state = STATES[PHASES[Task.CHECK]]
        return {**status, "state": f"{state} {percent}%" if percent and percent != DUMPED else state}
    return {**status, "state": "Failed" if wrong else "Verified" if is_proven(status) else "Queued"}
