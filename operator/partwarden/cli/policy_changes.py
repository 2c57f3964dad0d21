"""``create`` and ``auto`` on a policy: what is wanted is written into it, or said, and the operator does it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from ..api.policy import APPROVAL, PartitionPolicySpec, parse
from ..api.retention import Approval, OnExpire
from ..api.status import State
from ..api.types import Interval
from ..errors import InvalidSpec
from ..planner.calendar import Grid, iso
from ..status.details import human
from . import formats, options, policy_view, render
from .cluster_policies import Policies
from .options import Target

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


def create(target: Target, period: options.Period, timeout: float, output: str) -> int:
    """Put the days of the period into spec.ensure, and wait until the operator has said what came of it."""
    policies = Policies(target.where)
    policy = policies.one(target.policy)
    spec = policies.spec(policy)
    known = [str(day) for day in spec.ensure]
    cells = _cells(spec, known)
    days = [day for day in options.days(period, spec.interval) if _cell(spec, day) not in cells]
    edited = policies.edit(policy, {"spec": {"ensure": [*known, *days]}}) if days else policy
    found = _settled(policies, edited, timeout)
    ready = policy_view.conditions(policy_view.status(found)).get("Ready", {})
    there = policy_view.is_current(found) and ready.get("status") == "True"
    told = _told(policy, days, found, ready)
    if formats.is_data(output):
        named = {"policy": policy_view.name(policy), "ensure": [*known, *days], "added": days, "ready": there}
        formats.data({**named, "message": ready.get("message")}, output)
    elif output == "name":
        formats.names(days)
    else:
        for line in told:
            click.echo(render.printable(line))
    return 0 if there or not timeout else 1


def _told(policy: Mapping[str, Any], days: list[str], found: Mapping[str, Any], ready: Mapping[str, Any]) -> list[str]:
    name = policy_view.name(policy)
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
    if policy_view.is_current(found) and ready:
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
    found = policy_view.conditions(policy_view.status(policy))
    return policy_view.is_current(policy) and found.get("Reconciling", {}).get("status") != "True"


def _cell(spec: PartitionPolicySpec, day: str) -> object:
    return Grid(spec.interval, None).cell(options.midnight(day))


def _cells(spec: PartitionPolicySpec, days: list[str]) -> list[object]:
    if spec.interval is Interval.HOUR:
        return []
    return [_cell(spec, day) for day in days]


def auto(target: Target, ahead: int, output: str) -> int:
    """Says what spec.premake keeps ahead, beside what was asked for."""
    policies = Policies(target.where)
    policy = policies.one(target.policy)
    spec = policies.spec(policy)
    summary = policy_view.status(policy).get("summary") or {}
    enough = spec.premake >= ahead
    if formats.is_data(output):
        about = {"policy": policy_view.name(policy), "premake": spec.premake, "asked": ahead, "enough": enough}
        formats.data({**about, "coveredUntil": summary.get("coveredUntil"), "until": _until(spec, ahead)}, output)
    elif output == "name":
        formats.names([policy_view.name(policy)])
    else:
        name, each = policy_view.name(policy), str(spec.interval)
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
    grid = Grid.of(spec)
    cell = grid.cell(datetime.now(UTC))
    for _ in range(ahead):
        cell = grid.cell(cell.upper)
    if cell.upper is None:
        raise InvalidSpec(f"{ahead} ahead lie beyond what PostgreSQL can hold")
    return iso(cell.upper) or ""


# ``drop`` on a policy: the annotation by which a person lets the operator drop what has expired. Pure.
#
# The operator goes on to demand all the rest: the grace, a proven archive that is equal to the table, no hold.
#

Partition = dict[str, Any]
"""As a status lists it."""


def find(policy: Mapping[str, Any], spec: PartitionPolicySpec, what: str) -> Partition:
    """The partition with that name or in that period, if an approval of it means anything. Raises `InvalidSpec`."""
    listed = policy_view.partitions(policy)
    named = [each for each in listed if what == each["name"]]
    chosen = named or [each for each in listed if _is_within(each, spec, what)]
    name = policy_view.name(policy)
    if len(chosen) != 1:
        known = ", ".join(each["name"] for each in chosen[:12])
        raise InvalidSpec(
            f"{len(chosen)} partitions of {name} lie in {what}: name one of them ({known})"
            if chosen
            else f"the status of {name} lists no partition called {what!r}, or in it: `partwarden list` shows them"
        )
    if why := _why_not(policy, spec, chosen[0]):
        raise InvalidSpec(f"{chosen[0]['name']} of {name} is not to be approved: {why}")
    return chosen[0]


def _is_within(each: Partition, spec: PartitionPolicySpec, what: str) -> bool:
    period = options.known(what)
    if period is None or "from" not in each or "to" not in each:
        return False
    aware = each["from"].endswith("Z")
    grid = Grid.of(spec, aware=aware)
    first, beyond = (grid.moment(options.midnight(day)) for day in (period.first, period.beyond))
    return bool(first <= _moment(each["from"]) and _moment(each["to"]) <= beyond)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _why_not(policy: Mapping[str, Any], spec: PartitionPolicySpec, each: Partition) -> str | None:
    retention = spec.retention
    if retention is None:
        return "the policy has no spec.retention, so the operator never drops anything of it"
    if retention.on_expire is not OnExpire.DROP:
        return "spec.retention.onExpire is not Drop, so what has expired is kept as a table of its own"
    held = parse(policy["metadata"].get("annotations"))
    if {each["name"], f"{each['name']}@{each.get('oid')}"} & held or each["state"] == State.HELD:
        return "the annotation partwarden.dev/hold names it: take it out there first"
    if each["state"] not in (State.EXPIRED, State.DETACHED):
        return (
            f"it is {each['state']}: only what is older than spec.retention.keepFor ({retention.keep_for}) is dropped"
        )
    if retention.approval is not Approval.MANUAL:
        return "spec.retention.approval is not Manual: the operator drops it without asking, once the grace is over"
    return None


def shown(policy: Mapping[str, Any], each: Partition, archive: Mapping[str, Any] | None) -> list[str]:
    """What there is, for whoever is asked."""
    estimate = f"about {each['rows']:,} rows" if "rows" in each else "rows not counted yet"
    ends = f"[{each.get('from', 'MINVALUE')}, {each.get('to', 'MAXVALUE')})"
    size = human(each["bytes"])
    lines = [f"{each['name']}, {ends}: {estimate}, {size}, {each['state']}, of {policy_view.name(policy)}"]
    if archive is not None:
        where = policy_view.status(archive).get("location", "nowhere yet")
        lines.append(f"archive {archive['metadata']['name']}: {policy_view.archive_state(archive)}, {where}")
    elif (policy["spec"].get("retention") or {}).get("archive"):
        lines.append("not archived yet: the operator archives and proves it before it drops anything")
    return lines


def change(policy: Mapping[str, Any], each: Partition) -> dict[str, Any] | None:
    """What to merge into the policy; None where the annotation names it already.

    The table is named with its OID, and its bare name, which would approve a later table as well, is taken out. A
    status of an older operator says no OID: the bare name then has to do.
    """
    text = (policy["metadata"].get("annotations") or {}).get(APPROVAL, "")
    name = f"{each['name']}@{each['oid']}" if "oid" in each else each["name"]
    if name in parse({APPROVAL: text}, APPROVAL):
        return None
    others = [entry for part in text.split(",") if (entry := part.strip()) and entry != each["name"]]
    return {"metadata": {"annotations": {APPROVAL: ", ".join([*others, name])}}}
