"""``create`` and ``auto`` on a policy: what is wanted is written into it, or said, and the operator does it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from . import outputs, periods, policy_views, render
from .errors import InvalidSpec
from .interval import Grid, Interval, iso, load_zone
from .policy import PartitionPolicySpec
from .reaching import Policies
from .where import Target

POLL = 0.5
"""Seconds between two looks at what the operator has made of it."""
KEEPERS = {
    "argocd.argoproj.io/tracking-id": "ArgoCD",
    "argocd.argoproj.io/instance": "ArgoCD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
    "config.k8s.io/owning-inventory": "kpt",
    "meta.helm.sh/release-name": "Helm",
}
"""Annotations and labels of those who write a policy from somewhere else, and would undo an edit."""
MANAGERS = {"argocd": "ArgoCD", "kustomize-controller": "Flux", "helm-controller": "Flux", "helm": "Helm"}


def keeper(policy: Mapping[str, Any]) -> str:
    """Who keeps the policy as it is written elsewhere; "" for nobody who is known."""
    meta = policy["metadata"]
    marks = {**(meta.get("labels") or {}), **(meta.get("annotations") or {})}
    by_mark = [who for mark, who in KEEPERS.items() if mark in marks]
    fields = [each.get("manager", "") for each in meta.get("managedFields") or []]
    by_field = [who for manager, who in MANAGERS.items() if any(each.startswith(manager) for each in fields)]
    return next(iter([*by_mark, *by_field]), "")


def create(target: Target, period: periods.Period, timeout: float, output: str) -> int:
    """Put the days of the period into spec.ensure, and wait until the operator has said what came of it."""
    policies = Policies(target.where)
    policy = policies.one(target.policy)
    spec = policies.spec(policy)
    known = [str(day) for day in spec.ensure]
    cells = _cells(spec, known)
    days = [day for day in periods.days(period, spec.interval) if _cell(spec, day) not in cells]
    edited = policies.edit(policy, {"spec": {"ensure": [*known, *days]}}) if days else policy
    found = _settled(policies, edited, timeout)
    ready = policy_views.conditions(policy_views.status(found)).get("Ready", {})
    there = policy_views.is_current(found) and ready.get("status") == "True"
    told = _told(policy, days, found, ready)
    if outputs.is_data(output):
        named = {"policy": policy_views.name(policy), "ensure": [*known, *days], "added": days, "ready": there}
        outputs.data({**named, "message": ready.get("message")}, output)
    elif output == "name":
        outputs.names(days)
    else:
        for line in told:
            click.echo(render.printable(line))
    return 0 if there or not timeout else 1


def _told(policy: Mapping[str, Any], days: list[str], found: Mapping[str, Any], ready: Mapping[str, Any]) -> list[str]:
    name = policy_views.name(policy)
    lines = (
        [f"added to spec.ensure of {name}: {', '.join(days)}"] if days else [f"spec.ensure of {name} has it already"]
    )
    if days and (who := keeper(policy)):
        quoted = ", ".join(f'"{day}"' for day in found.get("spec", {}).get("ensure", days))
        lines.append(
            f"{who} keeps this policy and will undo that: put this line into the manifest that it is made from:"
        )
        lines.append(f"  ensure: [{quoted}]")
    if found.get("spec", {}).get("suspend"):
        lines.append("spec.suspend is true: the operator does nothing until that is taken out")
    if policy_views.is_current(found) and ready:
        word = "Ready" if ready["status"] == "True" else "not Ready"
        lines.append(f"{word}, {ready['reason']}: {ready['message']}")
    else:
        lines.append(
            f"the operator has not said anything yet: kubectl describe partitionpolicy {found['metadata']['name']}"
        )
    return lines


def _settled(policies: Policies, policy: dict[str, Any], timeout: float) -> dict[str, Any]:
    """The policy once the operator has seen it as it is and has ended working on it, or time is up."""
    deadline = time.monotonic() + timeout
    while not _is_settled(policy) and time.monotonic() < deadline:
        time.sleep(POLL)
        policy = policies.again(policy)
    return policy


def _is_settled(policy: Mapping[str, Any]) -> bool:
    found = policy_views.conditions(policy_views.status(policy))
    return policy_views.is_current(policy) and found.get("Reconciling", {}).get("status") != "True"


def _cell(spec: PartitionPolicySpec, day: str) -> object:
    return Grid(spec.interval, None).cell(periods.midnight(day))


def _cells(spec: PartitionPolicySpec, days: list[str]) -> list[object]:
    if spec.interval is Interval.HOUR:
        return []
    return [_cell(spec, day) for day in days]


def auto(target: Target, ahead: int, output: str) -> int:
    """Says what spec.premake keeps ahead, beside what was asked for."""
    policies = Policies(target.where)
    policy = policies.one(target.policy)
    spec = policies.spec(policy)
    summary = policy_views.status(policy).get("summary") or {}
    enough = spec.premake >= ahead
    if outputs.is_data(output):
        about = {"policy": policy_views.name(policy), "premake": spec.premake, "asked": ahead, "enough": enough}
        outputs.data({**about, "coveredUntil": summary.get("coveredUntil"), "until": _until(spec, ahead)}, output)
    elif output == "name":
        outputs.names([policy_views.name(policy)])
    else:
        name, each = policy_views.name(policy), str(spec.interval)
        lines = [
            f"{name} has premake: {spec.premake}: the operator keeps the current {each} and {spec.premake} after it"
        ]
        lines.append(f"covered until {summary.get('coveredUntil') or 'nobody knows yet'}")
        if enough:
            lines.append(f"{ahead} ahead is what it does always, so there is nothing to do")
        else:
            who = keeper(policy)
            where = f"the manifest that {who} makes it from" if who else "the policy"
            lines.append(f"for {ahead} ahead, until {_until(spec, ahead)} today, put this line into {where}:")
            lines.append(f"  premake: {ahead}")
        for line in lines:
            click.echo(render.printable(line))
    return 0 if enough else 1


def _until(spec: PartitionPolicySpec, ahead: int) -> str:
    """The end of the last partition, if so many were ahead now."""
    grid = Grid(spec.interval, load_zone(spec.timezone))
    cell = grid.cell(datetime.now(UTC))
    for _ in range(ahead):
        assert cell.upper is not None
        cell = grid.cell(cell.upper)
    if cell.upper is None:
        raise InvalidSpec(f"{ahead} ahead lie beyond what PostgreSQL can hold")
    return iso(cell.upper) or ""
