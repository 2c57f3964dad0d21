"""The state of a Job: the Job and its pods, as the API server shows them -> one value. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from ..api.archive import CONTAINER
from ..archive.manifest import Report

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
BLOCKED = STUCK | {CLAIM_NOT_FOUND, NO_POD}
"""What a running Job waits for that does not pass by itself."""
WITHOUT_POD = timedelta(seconds=30)
"""How long a Job may have no pod."""
NO_CLAIM = re.compile(r'persistentvolumeclaim "([^"]+)" not found')


class Phase(StrEnum):
    """The phase of a Job."""

    RUNNING = "Running"
    COMPLETE = "Complete"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class JobView:
    """``report`` is that of the youngest pod that left one. ``reason`` and ``message`` say what went wrong, or what a
    running Job waits for; both are empty where all is well. ``ended`` is aware, None while it runs."""

    name: str
    phase: Phase
    report: Report | None = None
    reason: str = ""
    message: str = ""
    ended: datetime | None = None
    started: bool = False
    """Whether a container of it runs or has run."""
    took: float | None = None
    """Seconds from when it was made to its end."""


def view(job: Mapping[str, Any], pods: Iterable[Mapping[str, Any]], now: datetime | None = None) -> JobView:
    """The Job, and those of its pods that are still there, as dictionaries of the API's JSON.

    ``now`` is aware; without it a Job that has no pod is never called late.
    """
    meta, status = job["metadata"], job.get("status") or {}
    ordered = sorted(pods, key=lambda each: str(each["metadata"].get("creationTimestamp", "")))
    reports = [found for pod in ordered if (found := _report(pod)) is not None]
    report = reports[-1] if reports else None
    started = any(_state(pod).keys() & {"running", "terminated"} for pod in ordered)
    ended = {each["type"]: each for each in status.get("conditions") or [] if each.get("status") == "True"}
    if "Complete" in ended:
        at = _moment(ended["Complete"])
        if report is not None and report.ok:
            return JobView(meta["name"], Phase.COMPLETE, report, ended=at, started=started, took=_took(meta, at))
        said = "the Job completed, but its pod, which holds the report, is gone"
        return JobView(meta["name"], Phase.FAILED, None, NO_REPORT, said, at, started, _took(meta, at))
    if "Failed" in ended:
        reason, message = _failure(ended["Failed"], report, ordered)
        at = _moment(ended["Failed"])
        return JobView(meta["name"], Phase.FAILED, report, reason, message, at, started, _took(meta, at))
    # Why an earlier pod ended is shown while nothing newer is known.
    reason, message = _waiting(ordered[-1]) if ordered else _without_pod(meta, now)
    if not reason and report is not None and not report.ok:
        reason, message = report.reason, report.message
    return JobView(meta["name"], Phase.RUNNING, report, reason, message, started=started)


def _took(meta: Mapping[str, Any], ended: datetime | None) -> float | None:
    made = meta.get("creationTimestamp")
    return (ended - datetime.fromisoformat(made)).total_seconds() if ended and isinstance(made, str) else None


def _failure(condition: Mapping[str, Any], report: Report | None, pods: list[Mapping[str, Any]]) -> tuple[str, str]:
    """What ended the pod from outside, else its own report, else what its pod or the Job says."""
    if condition.get("reason") == "DeadlineExceeded":
        return "DeadlineExceeded", "the Job took longer than PARTWARDEN_JOB_DEADLINE allows, and was ended"
    last = _end(pods[-1]) if pods else ("", "")
    if last[0]:
        return last
    if report is not None and not report.ok:
        return report.reason or "JobFailed", report.message or "the Job failed without saying why: see its pod's log"
    waits = _waiting(pods[-1]) if pods else ("", "")
    if waits[0] and waits[0] != POD_ENDING:
        return waits
    code = _state(pods[-1]).get("terminated", {}).get("exitCode") if pods else None
    said = condition.get("message") or "it does not say why"
    ended = f"its last pod ended with exit code {code}, and left no report" if code is not None else "its pods are gone"
    return "JobFailed", f"the Job failed, {ended}: {said}"


def _end(pod: Mapping[str, Any]) -> tuple[str, str]:
    """Reason and message where the pod was ended from outside."""
    status, name = pod.get("status") or {}, pod["metadata"]["name"]
    terminated = _state(pod).get("terminated") or {}
    if terminated.get("reason") == "OOMKilled":
        return "OOMKilled", f"pod {name} needed more memory than its limit: raise retention.job.resources.limits.memory"
    if status.get("reason"):  # Evicted, NodeLost, Shutdown
        return str(status["reason"]), f"pod {name} was ended: {status.get('message') or status['reason']}"
    return "", ""


def _waiting(pod: Mapping[str, Any]) -> tuple[str, str]:
    """What a pod that has not started waits for, where a user must do something."""
    name = pod["metadata"]["name"]
    waiting = _state(pod).get("waiting") or {}
    if waiting.get("reason") in STUCK:
        # What kubelet adds changes from one attempt to the next: the image's name is what helps.
        image = next((each.get("image", "") for each in pod.get("spec", {}).get("containers", [])), "")
        said = f"pod {name} cannot start its container of image {image!r}: see its Events"
        # Kubelet says the two in turns, for as long as it lasts.
        return str(waiting["reason"]).replace("ErrImagePull", "ImagePullBackOff"), said
    if pod["metadata"].get("deletionTimestamp") and not _state(pod).get("terminated"):
        return POD_ENDING, (
            f"pod {name} is being ended, and another begins once it has: where its node is gone for good, delete that "
            "Node"
        )
    for each in (pod.get("status") or {}).get("conditions") or []:
        if each.get("type") == "PodScheduled" and each.get("status") == "False":
            message = str(each.get("message", ""))
            if missing := NO_CLAIM.search(message):
                return CLAIM_NOT_FOUND, (
                    f"PersistentVolumeClaim {missing[1]!r}, which pod {name} needs, does not exist: make it, or "
                    "correct claimName"
                )
            return str(each.get("reason") or "Unschedulable"), f"pod {name} waits for a node: {message}"
    return "", ""


def _without_pod(meta: Mapping[str, Any], now: datetime | None) -> tuple[str, str]:
    """Reason and message for a Job that has no pod."""
    made = meta.get("creationTimestamp")
    if now is None or not isinstance(made, str) or now < datetime.fromisoformat(made) + WITHOUT_POD:
        return "", ""
    return NO_POD, (
        f"Job {meta['name']} has no pod: its Events say why, often a quota, or a service account that does not exist "
        "(PARTWARDEN_JOB_SERVICE_ACCOUNT)"
    )


def _state(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    for each in (pod.get("status") or {}).get("containerStatuses") or []:
        if each.get("name") == CONTAINER:
            return {key: value for key, value in (each.get("state") or {}).items() if value is not None}
    return {}


def _report(pod: Mapping[str, Any]) -> Report | None:
    """What the pod left as its termination message, None where that is something else, or cut off."""
    message = (_state(pod).get("terminated") or {}).get("message")
    if not message:
        return None
    try:
        return Report.model_validate_json(message)
    except ValidationError:
        return None


def _moment(condition: Mapping[str, Any]) -> datetime | None:
    text = condition.get("lastTransitionTime")
    return datetime.fromisoformat(text) if isinstance(text, str) else None
