"""``partwarden plan -f edited.yaml POLICY``: what an edit of a policy changes from now on.

For programs::

    {
      "policy", "table", "now",
      "fields": [{"field", "before", "after"}],            what differs in the specs
      "expiring": {"partitions", "bytes", "names"},        what has expired by the edited policy only
      "staying": {"partitions", "bytes", "names"},         what has expired by the policy as it is only
      "added": [step], "removed": [step],                  steps as in the document of plan, in one of the plans only
      "moved": [{"before": step, "after": step}]           at another time, or waiting for something else
    }
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..api.policy import PartitionPolicySpec, TableSpec
from ..errors import InvalidSpec, PartwardenError
from ..planner.calendar import iso
from ..planner.difference import Difference, compare
from ..planner.drop_preconditions import Archives
from ..planner.findings import join_names
from ..planner.inventory import Partition
from ..planner.schedule import PlannedStep
from ..postgres.connection import session
from ..postgres.conninfo import ConnectionInfo
from ..postgres.engine import observe_and_plan
from ..status.details import human
from . import formats, manifest, policies, steps
from .manifest import Manifest
from .policies import Object, Policies

SAME, DIFFERS = 0, 2


@dataclass(frozen=True, slots=True)
class Side:
    """One of two policies, and what is known of archives and approvals for it."""

    spec: TableSpec
    held: frozenset[str]
    archives: Archives


def of_file(policy: Manifest) -> Side:
    """A policy without a cluster."""
    return Side(policy.spec, policy.held, policy.archives)


def of_cluster(cluster: Policies, filename: str) -> tuple[str, Side, Side]:
    """The name of the live policy, the policy, and as the file edits it: an annotation that the file leaves out stays.

    Raises `PartwardenError`.
    """
    live = cluster.one()
    name, annotations = policies.name(live), live["metadata"].get("annotations") or {}
    sides = [
        manifest.load(json.dumps(live), name),
        manifest.load(manifest.read(filename), filename, beneath=annotations),
    ]
    before, after = (Side(each.spec, each.held, _archives(cluster, live, each)) for each in sides)
    return name, before, after


def _archives(cluster: Policies, live: Object, policy: Manifest) -> Archives:
    """What the operator knows of the policy's archives. Without the right to list them, nothing is proven."""
    # Here, for a database needs no Kubernetes client, which takes long to load.
    from ..controller.archive_requests import ArchiveRequests
    from ..kube.cache import ArchiveCache, parse_archive, parse_policy

    cache = ArchiveCache()
    assert isinstance(policy.spec, PartitionPolicySpec)
    try:
        for each in cluster.archives():
            cache.put(parse_archive(each))
    except PartwardenError as error:
        formats.names([f"warning: no archive is known here: {error}"], err=True)
    stored = parse_policy({**live, "metadata": {**live["metadata"], "annotations": policy.annotations}})
    return ArchiveRequests(cache, cluster.client, lambda _: None).known(stored, policy.spec)


def show(name: str, before: Side, after: Side, info: ConnectionInfo, now: datetime | None, output: str) -> int:
    """Plan both over the same table, and print what differs. Raises `PartwardenError`."""
    if before.spec.table != after.spec.table:
        raise InvalidSpec(f"cannot compare: {name} is of table {before.spec.table}, the edit of {after.spec.table}")
    with session(info) as connection:
        inventory, old = observe_and_plan(connection, before.spec, now, before.held, before.archives)
        # At the same moment, by the clock of the server.
        moment = now or inventory.now
        _, new = observe_and_plan(connection, after.spec, moment, after.held, after.archives)
    found = compare((before.spec, after.spec), (old, new), inventory)
    table, lines = str(old.parent), [f"{name}, table {old.parent}; now is {iso(moment)}", *_lines(found)]
    document = {"policy": name, "table": table, "now": iso(moment), **_document(found)}
    changed = (*found.added, *found.removed, *(after for _, after in found.moved))
    formats.show(output, document, dict.fromkeys(map(str, changed)), lines)
    if output in ("text", "wide"):
        _print(found, output == "wide", steps.dates(after.spec.timezone, changed))
    return DIFFERS if found.differs else SAME


def _lines(found: Difference) -> Iterator[str]:
    for path, before, after in found.fields:
        yield f"{path}: {_text(before)} -> {_text(after)}"
    for word, partitions in (("more", found.expiring), ("fewer", found.staying)):
        if partitions:
            count = f"{len(partitions):,} partition{'' if len(partitions) == 1 else 's'} {word}"
            size, names = human(sum(each.bytes for each in partitions)), join_names([each.name for each in partitions])
            yield f"expired: {count} ({size}): {names}"
    if not found.differs:
        yield "Nothing is done otherwise from now on."


def _text(value: Any) -> str:
    text = "(left out)" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:199]}…"


def _print(found: Difference, wide: bool, dates: formats.Dates) -> None:
    for heading, some in (
        ("Only with the edit", found.added),
        ("No more with the edit", found.removed),
        ("At another time, or waiting for something else", tuple(after for _, after in found.moved)),
    ):
        steps.print_coming(some, wide, dates, heading)


def _document(found: Difference) -> dict[str, Any]:
    return {
        "fields": [{"field": path, "before": before, "after": after} for path, before, after in found.fields],
        "expiring": _partitions(found.expiring),
        "staying": _partitions(found.staying),
        "added": _steps(found.added),
        "removed": _steps(found.removed),
        "moved": [{"before": steps.document(before), "after": steps.document(after)} for before, after in found.moved],
    }


def _partitions(some: Sequence[Partition]) -> dict[str, Any]:
    return {"partitions": len(some), "bytes": sum(each.bytes for each in some), "names": [str(each) for each in some]}


def _steps(some: Sequence[PlannedStep]) -> list[dict[str, Any]]:
    return [steps.document(each) for each in some]
