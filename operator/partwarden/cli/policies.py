"""Policies in a cluster: read and edited with the rights of the user, and shown as the operator left them.

Statuses of other versions are read as well: unknown fields are ignored, and what cannot be read is left out and said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..api.archive import ARCHIVE_PLURAL
from ..api.database import Database
from ..api.policy import GROUP, PLURAL, VERSION, holds
from ..api.status import (
    Condition,
    ConditionType,
    FindingStatus,
    PartitionPolicyStatus,
    PartitionStatus,
    PlannedAction,
    Summary,
)
from ..api.validation import check, parse_spec, sentence
from ..controller.archive_status import PROVEN, VERIFIED, is_proven
from ..errors import InsufficientPrivilege, InvalidSpec, StartupError, did_you_mean
from ..postgres.connection import Session, session
from ..postgres.conninfo import ConnectionInfo, from_dsn, resolve
from .options import Target
from .problems import conditions, problems_of
from .tables import ArchiveView, Level, ObservedTable, TableView, observe, observe_all

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
Object = Mapping[str, Any]
"""An object of the API server."""


class Policies:
    """Every method raises `ClusterUnavailable` where the API server refuses or does not answer."""

    def __init__(self, target: Target) -> None:
        """Raises `InvalidSpec` where there is no way to a cluster."""
        # Here and below, for a database needs no Kubernetes client, which takes long to load.
        from ..kube import client, config

        try:
            configuration, namespace = config.own(target.kubeconfig, target.context)
        except StartupError as error:
            raise InvalidSpec(f"{error}; or give --dsn for a database without a cluster") from None
        self.namespace = target.namespace or namespace
        self._target = target
        self.client = self._cluster = client.Cluster(configuration)

    def chosen(self, ways: str = "-n or -A") -> list[Object]:
        """The policy that is named, else all of the namespace, or of all, by namespace and name.

        Raises `InvalidSpec` where there is none; ``ways``: the options by which others may be found.
        """
        if self._target.policy is not None:
            if self._target.everywhere:
                raise InvalidSpec("-A goes with no name: give the namespace of the policy by -n")
            return [self.read(self.namespace, self._target.policy)]
        found = self._listed(PLURAL)
        if not found:
            where = "any namespace" if self._target.everywhere else f"namespace {self.namespace!r}; use {ways}"
            raise InvalidSpec(f"there is no PartitionPolicy in {where}")
        return found

    def one(self) -> Object:
        """The policy that is named, or the only one of the namespace. Raises `InvalidSpec`."""
        return self.only(self.chosen("-n"))

    def only(self, found: Sequence[Object]) -> Object:
        """The one of these. Raises `InvalidSpec` where there are several."""
        if len(found) > 1:
            known = ", ".join(each["metadata"]["name"] for each in found[:10])
            raise InvalidSpec(f"there are {len(found)} policies in namespace {self.namespace!r}: name one ({known})")
        return found[0]

    def read(self, namespace: str, name: str) -> Object:
        """The policy as it is now. Raises `InvalidSpec` where there is none."""
        if (found := self._cluster.get(PLURAL, (namespace, name))) is None:
            known = [each["metadata"]["name"] for each in self._cluster.policies(namespace)]
            listed = f"there are {', '.join(known[:10])}" if known else "there is none at all; use -n"
            meant = did_you_mean(name, known)
            raise InvalidSpec(f"there is no PartitionPolicy {name!r} in namespace {namespace!r}: {listed}{meant}")
        return found

    def archives(self) -> list[Object]:
        """The PartitionArchives of the namespace, or of all."""
        return self._listed(ARCHIVE_PLURAL)

    def archive(self, name: str) -> Object | None:
        """The PartitionArchive of that name in the namespace, as it is now; None where there is none."""
        return self._cluster.get(ARCHIVE_PLURAL, (self.namespace, name))

    def edit(self, policy: Object, change: Mapping[str, Any]) -> Object:
        """Merge ``change`` into the policy; the policy as it is then.

        Raises `InvalidSpec` where it was edited since it was read.
        """
        return self.edit_anew(policy, lambda _: change, attempts=1)

    def edit_anew(
        self, policy: Object, change: Callable[[Object], Mapping[str, Any] | None], attempts: int = 25
    ) -> Object:
        """Merge what ``change`` makes of the policy into it, None for nothing; the policy as it is then.

        Where it was edited since it was read, ``change`` is asked again about the policy as it is then. Each edit of
        another writer costs one attempt at most. Raises `InvalidSpec` after the last attempt.
        """
        from ..kube.client import Conflict

        for attempt in range(attempts):
            if attempt:
                policy = self.read(policy["metadata"]["namespace"], policy["metadata"]["name"])
            if (edit := change(policy)) is None:
                return policy
            with suppress(Conflict):
                return self._merge(policy, edit)
        raise InvalidSpec(f"PartitionPolicy {policy['metadata']['name']} was changed meanwhile: try again")

    def _merge(self, policy: Object, change: Mapping[str, Any]) -> Object:
        """Raises `Conflict` where it was edited since it was read."""
        meta = policy["metadata"]
        body = {**change, "metadata": {**change.get("metadata", {}), "resourceVersion": meta["resourceVersion"]}}
        answer: Any = self._cluster.call(
            f"change PartitionPolicy {name(policy)}",
            self._cluster.custom.patch_namespaced_custom_object,
            *(GROUP, VERSION, meta["namespace"], PLURAL, meta["name"], body),
            _content_type="application/merge-patch+json",
            field_manager="partwarden-cli",
        )
        return dict(answer)

    def connection(self, policy: Object) -> ConnectionInfo:
        """How the policy's database is reached: its Secret is read, too. Raises a `UserError` as the operator does."""
        namespace = policy["metadata"]["namespace"]
        database, problems = check(Database, policy.get("spec", {}).get("database") or {})
        if database is None:
            raise InvalidSpec(f"PartitionPolicy {policy['metadata']['name']}: spec.database: {problems[0]}")
        if database.secret_ref is None:
            return resolve(database, None, None)
        secret = database.secret_ref.name
        try:
            values = self._cluster.secret(namespace, secret)
        except InsufficientPrivilege:
            raise InsufficientPrivilege(
                f"you may not read Secret {namespace}/{secret}, by which the policy's database is reached: "
                "give --dsn instead"
            ) from None
        return resolve(database, values, secret)

    def _listed(self, plural: str) -> list[Object]:
        return list(self._cluster.objects(plural, None if self._target.everywhere else self.namespace))


def observe_target(
    target: Target,
    work: Callable[[Session, list[ObservedTable]], list[T]],
    *,
    detached: bool = False,
    only_one: bool = False,
) -> list[T]:
    """What ``work`` makes of a connection, and the tables of the database; or of each policy's database, and its table.

    ``detached``: tables of a database that were detached are seen also without retention. A policy's database is
    reached by its Secret; ``only_one``: there must be one policy. Raises `PartwardenError`.
    """
    if target.dsn is not None:
        with session(from_dsn(target.dsn)) as connection:
            return work(connection, observe_all(connection, target, detached))
    policies, made = Policies(target), list[T]()
    for policy in [policies.one()] if only_one else policies.chosen():
        with session(policies.connection(policy)) as connection:
            made += work(connection, [observe(connection, parse_spec(policy.get("spec")))])
    return made


# Policies as they are shown. Pure.


def name(policy: Object) -> str:
    """``namespace/name``."""
    return f"{policy['metadata']['namespace']}/{policy['metadata']['name']}"


def status(found: Object) -> Mapping[str, Any]:
    """Of a policy or archive; empty where the operator has written none yet."""
    written = found.get("status")
    return written if isinstance(written, Mapping) else {}


def read_status(policy: Object) -> tuple[PartitionPolicyStatus, list[str]]:
    """The status, and sentences on what this version cannot read of it."""
    written, unread = status(policy), list[str]()

    def read(model: type[M], value: Any, path: str) -> list[M]:
        try:
            return [model.model_validate(value, strict=False, extra="ignore", by_alias=True, by_name=False)]
        except ValidationError as error:
            unread.extend(sentence(each, model, path) for each in error.errors(include_url=False))
            return []

    def entries(model: type[M], field: str) -> list[M]:
        listed = written.get(field) or []
        if not isinstance(listed, list):
            unread.append(f"status.{field}: must be a list")
            return []
        return [entry for number, each in enumerate(listed) for entry in read(model, each, f"status.{field}[{number}]")]

    summary = read(Summary, written["summary"], "status.summary") if written.get("summary") else []
    generation = written.get("observedGeneration")
    # Not checked again: another version may write more entries than this one.
    whole = PartitionPolicyStatus.model_construct(
        observed_generation=generation if type(generation) is int else None,
        conditions=entries(Condition, "conditions"),
        summary=summary[0] if summary else None,
        partitions=entries(PartitionStatus, "partitions"),
        plan=entries(PlannedAction, "plan"),
        findings=entries(FindingStatus, "findings"),
    )
    return whole, unread


def is_current(policy: Object) -> bool:
    """Whether the status speaks of the spec as it is now."""
    return bool(status(policy).get("observedGeneration") == policy["metadata"].get("generation"))


def view(policy: Object, now: datetime, archives: Iterable[Object] = ()) -> TableView:
    """``now`` is aware: the coverage that the status says is compared with it, for a stopped operator says nothing."""
    read, unread = read_status(policy)
    meta, spec = policy["metadata"], policy.get("spec") or {}
    table, summary = spec.get("table") or {}, read.summary
    hidden = summary.partitions - summary.listed if summary else 0
    unlisted = [f"{hidden:,} more that the status does not list: see them by --dsn"] if hidden > 0 else []
    foreign = [f"written by another version of the operator: {each}" for each in unread]
    problems = [*problems_of(read, now), *((Level.WARNING, each) for each in foreign)]
    if summary is not None and not is_current(policy):
        problems.append((Level.WARNING, "the operator has not reconciled it since it was edited"))
    return TableView(
        name=name(policy),
        heading={
            "policy": {"namespace": meta["namespace"], "name": meta["name"]},
            "table": summary.table if summary else f"{table.get('schema', 'public')}.{table.get('name')}",
            "key": summary.key if summary else None,
            "interval": spec.get("interval", "Year"),
            "timezone": spec.get("timezone", "UTC"),
        },
        status=read,
        problems=sorted(problems, key=lambda each: -each[0]),
        in_default=_in_default(read),
        archives={
            partition: ArchiveView(archive_state(each), status(each).get("location"), each["metadata"]["name"])
            for partition, each in newest_archives(policy, archives).items()
        },
        notes=(*unlisted, *foreign),
        held=holds(meta.get("annotations"), spec.get("holds")),
    )


def _in_default(found: PartitionPolicyStatus) -> str:
    rows = found.summary.default_rows if found.summary else None
    condition = conditions(found).get(ConditionType.DEFAULT_PARTITION_EMPTY)
    where = f": {condition.message}" if condition and condition.status == "False" else ""
    return f"{rows:,} rows{where}" if rows else ""


def newest_archives(policy: Object, archives: Iterable[Object]) -> dict[str, Object]:
    """The newest PartitionArchive that was made for the policy, proven or not, by the name that the status gives its
    partition."""
    of, table = policy["metadata"], (policy.get("spec") or {}).get("table") or {}
    schema, newest = table.get("schema", "public"), dict[str, Object]()
    for each in sorted(archives, key=lambda each: each["metadata"]["creationTimestamp"], reverse=True):
        spec = each["spec"]
        made_for = each["metadata"]["namespace"], (spec.get("policy") or {}).get("name")
        if made_for == (of["namespace"], of["name"]):
            own, partition = spec.get("schema", schema), spec["partition"]
            # With its schema where that is not the table's.
            newest.setdefault(partition if own == schema else f"{own}.{partition}", each)
    return newest


def archive_state(archive: Object) -> str:
    """``Proven``, or why not."""
    said = {each["type"]: each for each in status(archive).get("conditions") or []}
    if is_proven(status(archive)) and said.get(VERIFIED, {}).get("status") == "True":
        return PROVEN
    return str(said.get("Ready", {}).get("reason") or "Pending")
