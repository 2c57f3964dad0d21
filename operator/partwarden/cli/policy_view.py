"""A policy in a cluster as the commands show it: its object, as the operator left it, and its PartitionArchives. Pure.

Statuses of other versions are read as well: unknown fields are ignored, and what cannot be read is left out and said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..api.policy import APPROVAL, parse
from ..api.status import FOR_EVER, Condition, ConditionType, PartitionPolicyStatus, PartitionStatus, State, Summary
from ..api.validation import sentence
from ..controller.archive_status import PROVEN, VERIFIED, is_proven
from .table_view import ArchiveView, Level, Problem, TableView, inserts

M = TypeVar("M", bound=BaseModel)
Object = Mapping[str, Any]
"""An object of the API server."""

LEVELS = {
    ConditionType.DATABASE_REACHABLE: Level.CRITICAL,
    ConditionType.PARTITIONS_AHEAD: Level.WARNING,
    ConditionType.DEFAULT_PARTITION_EMPTY: Level.WARNING,
    ConditionType.WITHIN_THRESHOLDS: Level.WARNING,
    ConditionType.ARCHIVES_HEALTHY: Level.WARNING,
}
"""How bad a condition is that is False."""
KEEPERS = {
    "argocd.argoproj.io/tracking-id": "ArgoCD",
    "argocd.argoproj.io/instance": "ArgoCD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
    "config.k8s.io/owning-inventory": "kpt",
    "meta.helm.sh/release-name": "Helm",
}
"""Annotations and labels of programs that write a policy from its source, and would undo an edit."""
MANAGERS = {"argocd": "ArgoCD", "kustomize-controller": "Flux", "helm-controller": "Flux", "helm": "Helm"}


def name(policy: Object) -> str:
    """``namespace/name``."""
    return f"{policy['metadata']['namespace']}/{policy['metadata']['name']}"


def status(found: Object) -> Mapping[str, Any]:
    """Of a policy or archive; empty where the operator has written none yet."""
    written = found.get("status")
    return written if isinstance(written, Mapping) else {}


def read_status(policy: Object) -> tuple[PartitionPolicyStatus, list[str]]:
    """The status without its plan and findings, and sentences on what this version cannot read of it."""
    written, unread = status(policy), list[str]()

    def read(model: type[M], value: Any, path: str) -> list[M]:
        try:
            return [model.model_validate(value, strict=False, extra="ignore", by_alias=True, by_name=False)]
        except ValidationError as error:
            unread.extend(sentence(each, model, path) for each in error.errors(include_url=False))
            return []

    def entries(model: type[M], field: str) -> list[M]:
        listed = enumerate(written.get(field) or [])
        return [entry for number, each in listed for entry in read(model, each, f"status.{field}[{number}]")]

    summary = read(Summary, written["summary"], "status.summary") if written.get("summary") else []
    whole = PartitionPolicyStatus(
        observed_generation=written.get("observedGeneration"),
        conditions=entries(Condition, "conditions"),
        summary=summary[0] if summary else None,
        partitions=entries(PartitionStatus, "partitions"),
    )
    return whole, unread


def conditions(found: PartitionPolicyStatus) -> dict[str, Condition]:
    """By type."""
    return {each.type: each for each in found.conditions}


def is_current(policy: Object) -> bool:
    """Whether the status speaks of the spec as it is now."""
    return bool(status(policy).get("observedGeneration") == policy["metadata"].get("generation"))


def view(policy: Object, now: datetime, archives: Sequence[Object] = ()) -> TableView:
    """``now`` is aware: the coverage that the status says is compared with it, for a stopped operator says nothing."""
    read, unread = read_status(policy)
    meta, spec = policy["metadata"], policy.get("spec") or {}
    table, summary = spec.get("table") or {}, read.summary
    heading = {
        "policy": {"namespace": meta["namespace"], "name": meta["name"]},
        "table": summary.table if summary else f"{table.get('schema', 'public')}.{table.get('name')}",
        "key": summary.key if summary else None,
        "interval": spec.get("interval", "Year"),
        "timezone": spec.get("timezone", "UTC"),
    }
    newest = {each.name: archive_of(policy, each.name, archives) for each in read.partitions}
    hidden = summary.partitions - summary.listed if summary else 0
    notes = [f"{hidden:,} more that the status does not list: see them by --dsn"] if hidden > 0 else []
    notes += [f"written by another version of the operator: {each}" for each in unread]
    problems = [*_problems(read, now), *((Level.WARNING, each) for each in notes[len(notes) - len(unread) :])]
    if read.summary is not None and not is_current(policy):
        problems.append((Level.WARNING, "the operator has not reconciled it since it was edited"))
    return TableView(
        name=name(policy),
        heading=heading,
        status=read,
        problems=sorted(problems, key=lambda each: -each[0]),
        in_default=_in_default(read),
        archives={
            partition: ArchiveView(archive_state(each), status(each).get("location"), each["metadata"]["name"])
            for partition, each in newest.items()
            if each
        },
        notes=tuple(notes),
    )


def _in_default(found: PartitionPolicyStatus) -> str:
    rows = found.summary.default_rows if found.summary else None
    condition = conditions(found).get(ConditionType.DEFAULT_PARTITION_EMPTY)
    where = f": {condition.message}" if condition and condition.status == "False" else ""
    return f"{rows:,} rows{where}" if rows else ""


def _problems(found: PartitionPolicyStatus, now: datetime) -> Iterator[Problem]:
    """The current partition before all."""
    said = conditions(found)
    ready, stalled = said.get("Ready"), "Stalled" in said and said["Stalled"].status == "True"
    why = f"{ready.reason}: {ready.message}" if ready else "it has no status yet: does an operator serve it?"
    if found.summary is None:
        yield Level.CRITICAL, f"the operator has not observed its table: {why}"
        return
    yield from _coverage(found.summary, found.partitions, now)
    wrong = {kind: said[kind] for kind in LEVELS if kind in said and said[kind].status == "False"}
    for kind, about in wrong.items():
        yield LEVELS[kind], f"{kind}=False, {about.reason}: {about.message}"
    is_said = ready is not None and ready.reason in {each.reason for each in wrong.values()}
    if stalled or ((ready is None or ready.status != "True") and not is_said):
        yield (Level.CRITICAL if stalled else Level.WARNING), f"{'stalled' if stalled else 'not Ready'}: {why}"


def _coverage(summary: Summary, partitions: list[PartitionStatus], now: datetime) -> Iterator[Problem]:
    until = summary.covered_until
    if until is None:
        yield Level.CRITICAL, f"no partition holds now: {inserts(partitions)}"
    elif until == FOR_EVER:
        return
    elif _moment(until, now) <= now:
        yield Level.CRITICAL, f"no partition holds now: they end at {until}, and none are added"
    # A runway of some hours is 0 days.
    elif (
        summary.runway_days == 0 and not summary.missing and not any(each.state is State.FUTURE for each in partitions)
    ):
        yield Level.WARNING, f"nothing follows the current partition: {inserts(partitions)} from {until} on"


def _moment(text: str, now: datetime) -> datetime:
    """A key without a time zone has moments without one: they are near enough in that of ``now``."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)


def archive_of(policy: Object, partition: str, archives: Iterable[Object]) -> Object | None:
    """The newest PartitionArchive of that partition which was made for the policy, proven or not; None: there is none.

    ``archives`` are ascending by age, the oldest first, or in no order.
    """
    schema = (policy["spec"].get("table") or {}).get("schema", "public")
    own = [each for each in archives if _is_of(each, policy, schema, partition)]
    return max(own, key=lambda each: each["metadata"]["creationTimestamp"], default=None)


def _is_of(archive: Object, policy: Object, schema: str, partition: str) -> bool:
    spec, meta, of = archive["spec"], archive["metadata"], policy["metadata"]
    if (meta["namespace"], (spec.get("policy") or {}).get("name")) != (of["namespace"], of["name"]):
        return False
    own = spec.get("schema", schema)
    # The status names a partition with its schema where that is not the table's.
    return bool(partition == (spec["partition"] if own == schema else f"{own}.{spec['partition']}"))


def archive_state(archive: Object | None) -> str:
    """``Proven``, or why not; "" for none."""
    if archive is None:
        return ""
    said = {each["type"]: each for each in status(archive).get("conditions") or []}
    if is_proven(status(archive)) and said.get(VERIFIED, {}).get("status") == "True":
        return PROVEN
    return str(said.get("Ready", {}).get("reason") or "Pending")


def keeper(policy: Object) -> str:
    """The program that writes the policy from its source; "" where none is known."""
    meta = policy["metadata"]
    marks = {**(meta.get("labels") or {}), **(meta.get("annotations") or {})}
    by_mark = [program for mark, program in KEEPERS.items() if mark in marks]
    fields = [each.get("manager", "") for each in meta.get("managedFields") or []]
    by_field = [program for manager, program in MANAGERS.items() if any(each.startswith(manager) for each in fields)]
    return next(iter([*by_mark, *by_field]), "")


def approve(policy: Object, partition: PartitionStatus) -> dict[str, Any] | None:
    """What to merge into the policy so that the operator may drop the table; None where it is approved already.

    The table is named with its OID, and its bare name, which would approve a later table as well, is taken out. A
    status of an older operator says no OID: the bare name then has to do.
    """
    text = (policy["metadata"].get("annotations") or {}).get(APPROVAL, "")
    entry = partition.name if partition.oid is None else f"{partition.name}@{partition.oid}"
    if entry in parse({APPROVAL: text}, APPROVAL):
        return None
    others = [other for part in text.split(",") if (other := part.strip()) and other != partition.name]
    return {"metadata": {"annotations": {APPROVAL: ", ".join([*others, entry])}}}
