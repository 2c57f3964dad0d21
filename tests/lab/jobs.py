"""Archive Jobs in a namespace: wait until the operator would read a given state from them."""

from __future__ import annotations

from typing import Any

from lab.kubectl import Kubectl
from lab.operator import until
from partwarden.controller.job_status import JobView, Phase, view

PATIENCE = 120.0
CLAIM = "archives"
"""The PersistentVolumeClaim that tests archive to."""


def seen(kubectl: Kubectl, name: str) -> JobView:
    """The operator's present view of a Job."""
    return view(kubectl.get("job", name), pods_of(kubectl, name))


def pods_of(kubectl: Kubectl, name: str) -> list[dict[str, Any]]:
    """The pods of a Job."""
    return list(kubectl.get("pods", "--selector", f"batch.kubernetes.io/job-name={name}")["items"])


def ended(kubectl: Kubectl, name: str) -> JobView:
    """The same, once the Job has ended."""
    found: list[JobView] = []

    def over() -> bool:
        found[:] = [seen(kubectl, name)]
        return found[0].phase is not Phase.RUNNING

    try:
        until(f"job {name} has ended", over, PATIENCE)
    except AssertionError as error:
        raise AssertionError(f"{error}; it is {found}\n{kubectl('describe', 'pods')}") from None
    return found[0]


def waiting(kubectl: Kubectl, name: str) -> JobView:
    """The same, once it names what it waits for."""

    def reported() -> JobView | None:
        found = seen(kubectl, name)
        return found if found.reason else None

    return until(f"job {name} says what it waits for", reported, PATIENCE)
