"""``drop`` on a policy: the annotation by which a person lets the operator drop what has expired. Pure.

The operator goes on to demand all the rest: the grace, a proven archive that is equal to the table, no hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from . import hold, periods, policy_views
from .details import human
from .errors import InvalidSpec
from .interval import Grid, load_zone
from .lifecycle import Approval, OnExpire
from .policy import PartitionPolicySpec
from .status import State

Partition = dict[str, Any]
"""As a status lists it."""


def find(policy: Mapping[str, Any], spec: PartitionPolicySpec, what: str) -> Partition:
    """The partition with that name or in that period, if an approval of it means anything. Raises `InvalidSpec`."""
    listed = policy_views.partitions(policy)
    named = [each for each in listed if what == each["name"]]
    chosen = named or [each for each in listed if _is_within(each, spec, what)]
    name = policy_views.name(policy)
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
    period = periods.known(what)
    if period is None or "from" not in each or "to" not in each:
        return False
    aware = each["from"].endswith("Z")
    grid = Grid(spec.interval, load_zone(spec.timezone) if aware else None)
    first, beyond = (grid.moment(periods.midnight(day)) for day in (period.first, period.beyond))
    return bool(first <= _moment(each["from"]) and _moment(each["to"]) <= beyond)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _why_not(policy: Mapping[str, Any], spec: PartitionPolicySpec, each: Partition) -> str | None:
    retention = spec.retention
    if retention is None:
        return "the policy has no spec.retention, so the operator never drops anything of it"
    if retention.on_expire is not OnExpire.DROP:
        return "spec.retention.onExpire is not Drop, so what has expired is kept as a table of its own"
    held = hold.parse(policy["metadata"].get("annotations"))
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
    lines = [f"{each['name']}, {ends}: {estimate}, {size}, {each['state']}, of {policy_views.name(policy)}"]
    if archive is not None:
        where = policy_views.status(archive).get("location", "nowhere yet")
        lines.append(f"archive {archive['metadata']['name']}: {policy_views.archive_state(archive)}, {where}")
    elif (policy["spec"].get("retention") or {}).get("archive"):
        lines.append("not archived yet: the operator archives and proves it before it drops anything")
    return lines


def change(policy: Mapping[str, Any], each: Partition) -> dict[str, Any] | None:
    """What to merge into the policy; None where the annotation names it already.

    The table is named with its OID, and its bare name, which would approve a later table as well, is taken out. A
    status of an older operator says no OID: the bare name then has to do.
    """
    text = (policy["metadata"].get("annotations") or {}).get(hold.APPROVAL, "")
    name = f"{each['name']}@{each['oid']}" if "oid" in each else each["name"]
    if name in hold.parse({hold.APPROVAL: text}, hold.APPROVAL):
        return None
    others = [entry for part in text.split(",") if (entry := part.strip()) and entry != each["name"]]
    return {"metadata": {"annotations": {hold.APPROVAL: ", ".join([*others, name])}}}
