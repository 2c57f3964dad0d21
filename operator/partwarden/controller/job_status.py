"""The state of a Job: the Job and its pods, as the API server shows them -> one value. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from ..api.archive import CONTAINER
from ..archive.job_order import Report
from ..planner.calendar import iso

NO_REPORT = "NoReport"
"""A Job ended, and no report says with which result."""
STUCK = frozenset(
    {
        *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"),
        *("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
    }
)
"""What kubelet says of a container that will not start until a user changes something."""
CLAIM_NOT_FOUND, NO_POD, POD_ENDING = "ClaimNotFound", "NoPod", "PodEnding"
JOB_PENDING, JOB_SUSPENDED = "JobPending", "JobSuspended"
BLOCKED = STUCK | {CLAIM_NOT_FOUND, NO_POD, JOB_PENDING, JOB_SUSPENDED}
"""What a Job that has not ended waits for that does not pass by itself."""
WITHOUT_POD = timedelta(seconds=30)
"""How long a Job may have no pod."""
PENDING_LONG = timedelta(minutes=5)
"""How long no pod of a Job may have run before it holds no slot (`job_slots`) and its archive reports that."""
NO_CLAIM = re.compile(r'persistentvolumeclaim "([^"]+)" not found')


class Phase(StrEnum):
    """The phase of a Job."""

    RUNNING = "Running"
    """It has not ended."""
    COMPLETE = "Complete"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class JobView:
    """``report`` is that of the youngest pod that left one. ``reason`` and ``message`` say what went wrong, or what a
    Job that has not ended waits for; both are empty where all is well. Times are aware."""

    name: str
    phase: Phase
    report: Report | None = None
    reason: str = ""
    message: str = ""
    ended: datetime | None = None
    idle: datetime | None = None
    """`idle_since`, of a Job that has not ended."""
    took: float | None = None
    """Seconds from its creation to its end."""


def end_of(job: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The condition by which the Job is Complete or Failed, None where it has not ended."""
    conditions = _conditions(job, "True")
    return conditions.get("Complete") or conditions.get("Failed")


def idle_since(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]] = ()) -> datetime | None:
    """Since when no pod of a Job that has not ended has run, aware. None while one runs, or where that is unknown.

    ``pods``: its pods. Without them the moment is unknown once one has failed.
    """
    meta, status = job["metadata"], job.get("status") or {}
    created = _time(meta.get("creationTimestamp"))
    if (job.get("spec") or {}).get("suspend"):
        suspended = _conditions(job, "True").get("Suspended", {})
        return _time(suspended.get("lastTransitionTime")) or created
    if pods:
        # Whether another follows a pod that has ended is for the Job's controller to say, after a pause of minutes.
        youngest = _by_age(pods)[-1]
        pending = (youngest.get("status") or {}).get("phase", "Pending") == "Pending"
        started = not pending or _state(youngest).keys() & {"running", "terminated"}
        return None if started else _time(youngest["metadata"].get("creationTimestamp"))
    ready = status.get("ready", status.get("active"))
    return None if ready or status.get("failed") else _time(status.get("startTime")) or created


def is_pending_long(since: datetime | None, now: datetime) -> bool:
    """Whether a Job whose pods have not run ``since`` has waited for too long to hold a slot. Both are aware."""
    # A moment that another wrote may be the last that there is: nothing is added to it.
    return since is not None and now - since >= PENDING_LONG


def view(job: Mapping[str, Any], pods: Iterable[Mapping[str, Any]], now: datetime | None = None) -> JobView:
    """The Job, and those of its pods that still exist, as dictionaries of the API's JSON.

    ``now`` is aware; without it nothing is called late.
    """
    meta, end = job["metadata"], end_of(job)
    ordered = _by_age(pods)
    reports = [found for pod in ordered if (found := _report(pod)) is not None]
    report = reports[-1] if reports else None
    if end is None:
        return _unfinished(job, ordered, report, now)
    ended, created = _time(end.get("lastTransitionTime")), _time(meta.get("creationTimestamp"))
    took = (ended - created).total_seconds() if ended and created else None
    if end["type"] == "Failed":
        return JobView(meta["name"], Phase.FAILED, report, *_failure(end, report, ordered), ended, took=took)
    if report is not None and report.ok:
        return JobView(meta["name"], Phase.COMPLETE, report, ended=ended, took=took)
    said = "the Job completed, but its pod, which holds the report, is gone"
    return JobView(meta["name"], Phase.FAILED, None, NO_REPORT, said, ended, took=took)


def _unfinished(
    job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], report: Report | None, now: datetime | None
) -> JobView:
    name, idle = job["metadata"]["name"], idle_since(job, pods)
    if (job.get("spec") or {}).get("suspend"):
        reason, message = JOB_SUSPENDED, f"Job {name} is suspended: set its spec.suspend to false"
    elif pods:
        reason, message = _waiting(pods[-1])
    else:
        reason, message = _without_pod(job, now)
    if now is not None and idle is not None and is_pending_long(idle, now):
        if pods and not message:
            message = f"its pod is {_state(pods[-1]).get('waiting', {}).get('reason') or 'Pending'}: see its Events"
        reason = reason if reason in BLOCKED else JOB_PENDING
        message = f"no pod of Job {name} has run since {iso(idle)}, so it does not count as running: {message}"
    elif not reason and report is not None and not report.ok:
        # Why an earlier pod ended is shown while nothing newer is known.
        reason, message = report.reason, report.message
    return JobView(name, Phase.RUNNING, report, reason, message, idle=idle)


def _failure(end: Mapping[str, Any], report: Report | None, pods: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """What ended the pod from outside, else its own report, else what its pod or the Job says."""
    if end.get("reason") == "DeadlineExceeded":
        return "DeadlineExceeded", "the Job took longer than PARTWARDEN_JOB_DEADLINE allows, and was ended"
    last = _ended_from_outside(pods[-1]) if pods else None
    if last is not None:
        return last
    if report is not None and not report.ok:
        return report.reason or "JobFailed", report.message or "the Job failed without saying why: see its pod's log"
    reason, message = _waiting(pods[-1]) if pods else ("", "")
    if reason not in ("", POD_ENDING):
        return reason, message
    code = _state(pods[-1]).get("terminated", {}).get("exitCode") if pods else None
    ended = f"its last pod ended with exit code {code}, and left no report" if code is not None else "its pods are gone"
    return "JobFailed", f"the Job failed, {ended}: {end.get('message') or 'it does not say why'}"


def _ended_from_outside(pod: Mapping[str, Any]) -> tuple[str, str] | None:
    status, name = pod.get("status") or {}, pod["metadata"]["name"]
    if _state(pod).get("terminated", {}).get("reason") == "OOMKilled":
        return "OOMKilled", (
            f"pod {name} needed more memory than its limit: raise retention.job.resources.limits.memory of the policy; "
            "instead of a PartitionRestore that has spec.job make another, with more"
        )
    if status.get("reason"):  # Evicted, NodeLost, Shutdown
        return str(status["reason"]), f"pod {name} was ended: {status.get('message') or status['reason']}"
    return None


def _waiting(pod: Mapping[str, Any]) -> tuple[str, str]:
    """What a pod that has not started waits for, where a user must do something."""
    name, state = pod["metadata"]["name"], _state(pod)
    reason = state.get("waiting", {}).get("reason")
    if reason in STUCK:
        # What kubelet adds changes from one attempt to the next: the image's name is what helps.
        image = next((each.get("image", "") for each in pod.get("spec", {}).get("containers", [])), "")
        said = f"pod {name} cannot start its container of image {image!r}: see its Events"
        # Kubelet says the two in turns, for as long as it lasts.
        return str(reason).replace("ErrImagePull", "ImagePullBackOff"), said
    if pod["metadata"].get("deletionTimestamp") and not state.get("terminated"):
        return POD_ENDING, (
            f"pod {name} is being ended, and another begins once it has: where its node is gone for good, delete that "
            "Node"
        )
    unscheduled = _conditions(pod, "False").get("PodScheduled")
    if unscheduled is None:
        return "", ""
    message = str(unscheduled.get("message", ""))
    if missing := NO_CLAIM.search(message):
        return CLAIM_NOT_FOUND, (
            f"PersistentVolumeClaim {missing[1]!r}, which pod {name} needs, does not exist: create it, or correct "
            "claimName"
        )
    return str(unscheduled.get("reason") or "Unschedulable"), f"pod {name} waits for a node: {message}"


def _without_pod(job: Mapping[str, Any], now: datetime | None) -> tuple[str, str]:
    created = _time(job["metadata"].get("creationTimestamp"))
    if now is None or created is None or now - created < WITHOUT_POD:
        return "", ""
    return NO_POD, (
        f"Job {job['metadata']['name']} has no pod: its Events say why, often a quota, or a service account that does "
        "not exist (PARTWARDEN_JOB_SERVICE_ACCOUNT)"
    )


def _by_age(pods: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The youngest last."""
    return sorted(pods, key=lambda each: str(each["metadata"].get("creationTimestamp", "")))


def _conditions(body: Mapping[str, Any], status: str) -> dict[str, Mapping[str, Any]]:
    """Those of a Job or a pod with that status, by type."""
    found = (body.get("status") or {}).get("conditions") or []
    return {each["type"]: each for each in found if each.get("status") == status}


def _state(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    for each in (pod.get("status") or {}).get("containerStatuses") or []:
        if each.get("name") == CONTAINER:
            return {key: value for key, value in (each.get("state") or {}).items() if value is not None}
    return {}


def _report(pod: Mapping[str, Any]) -> Report | None:
    """What the pod left as its termination message, None where that is something else, or cut off."""
    message = _state(pod).get("terminated", {}).get("message")
    try:
        return Report.model_validate_json(message) if message else None
    except ValidationError:
        return None


def _time(text: object) -> datetime | None:
    """None, too, for a moment before the first year: the API server takes such a one."""
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
