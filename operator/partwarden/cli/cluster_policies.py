"""Policies in a cluster for the command line: read and edited with the rights of the user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..api import archive
from ..api.policy import GROUP, PLURAL, VERSION, Database, PartitionPolicySpec
from ..api.validation import check, parse_spec
from ..errors import InsufficientPrivilege, InvalidSpec, StartupError
from ..kube.client import Cluster, Conflict, NotFound
from ..kube.config import own
from ..postgres.conninfo import ConnectionInfo, resolve
from .options import Where

MERGE = "application/merge-patch+json"


class Policies:
    """Every method raises `ClusterUnavailable` where the API server refuses or does not answer."""

    def __init__(self, where: Where) -> None:
        """Raises `InvalidSpec` where there is no way to a cluster."""
        try:
            configuration, namespace = own(where.kubeconfig, where.context)
        except StartupError as error:
            raise InvalidSpec(f"{error}; or give --dsn for a database without a cluster") from None
        self.namespace = where.namespace or namespace
        self._everywhere = where.everywhere
        self._cluster = Cluster(configuration)

    def all(self) -> list[dict[str, Any]]:
        """Those of the namespace, or of all, by namespace and name. Raises `InvalidSpec` where there is none."""
        found = self._listed(PLURAL)
        if not found:
            where = "any namespace" if self._everywhere else f"namespace {self.namespace!r}"
            raise InvalidSpec(f"there is no PartitionPolicy in {where}: name another by -n, or give -A")
        return found

    def one(self, name: str | None) -> dict[str, Any]:
        """The policy of that name, or the only one where ``name`` is None. Raises `InvalidSpec`."""
        if name is None:
            found = self.all()
            if len(found) > 1:
                known = ", ".join(each["metadata"]["name"] for each in found[:10])
                raise InvalidSpec(
                    f"there are {len(found)} policies in namespace {self.namespace!r}: name one ({known})"
                )
            return found[0]
        if self._everywhere:
            raise InvalidSpec("-A goes with no name: give the namespace of the policy by -n")
        return self._read(self.namespace, name)

    def again(self, policy: Mapping[str, Any]) -> dict[str, Any]:
        """The same policy as it is now. Raises `InvalidSpec` where it is gone."""
        meta = policy["metadata"]
        return self._read(meta["namespace"], meta["name"])

    def archives(self) -> list[dict[str, Any]]:
        """The PartitionArchives of the namespace, or of all, the oldest first."""
        return self._listed(archive.ARCHIVE_PLURAL)

    def archive(self, name: str) -> dict[str, Any] | None:
        """The PartitionArchive of that name in the namespace, as it is now; None where there is none."""
        read, plural = self._cluster.custom.get_namespaced_custom_object, archive.ARCHIVE_PLURAL
        try:
            answer: Any = self._cluster.call(
                f"read {plural} {self.namespace}/{name}", read, GROUP, VERSION, self.namespace, plural, name
            )
        except NotFound:
            return None
        return dict(answer)

    def edit(self, policy: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
        """Merge ``change`` into the policy; the policy as it is then.

        Raises `InvalidSpec` where it was edited since it was read.
        """
        meta = policy["metadata"]
        body = {**change, "metadata": {**change.get("metadata", {}), "resourceVersion": meta["resourceVersion"]}}
        patch = self._cluster.custom.patch_namespaced_custom_object
        try:
            answer: Any = self._cluster.call(
                f"change PartitionPolicy {meta['namespace']}/{meta['name']}",
                patch,
                *(GROUP, VERSION, meta["namespace"], PLURAL, meta["name"], body),
                _content_type=MERGE,
                field_manager="partwarden-cli",
            )
        except Conflict:
            raise InvalidSpec(f"PartitionPolicy {meta['name']} was changed meanwhile: try again") from None
        return dict(answer)

    def connection(self, policy: Mapping[str, Any]) -> ConnectionInfo:
        """How the policy's database is reached: its Secret is read, too. Raises a `UserError` as the operator does."""
        meta = policy["metadata"]
        database, problems = check(Database, policy.get("spec", {}).get("database") or {})
        if database is None:
            raise InvalidSpec(f"PartitionPolicy {meta['name']}: spec.database: {problems[0]}")
        secret = database.secret_ref
        try:
            values = self._cluster.secret(meta["namespace"], secret.name) if secret else None
        except InsufficientPrivilege:
            name = f"{meta['namespace']}/{secret.name if secret else ''}"
            raise InsufficientPrivilege(
                f"you may not read Secret {name}, by which the policy's database is reached: give --dsn instead"
            ) from None
        return resolve(database, values, secret.name if secret else None)

    def spec(self, policy: Mapping[str, Any]) -> PartitionPolicySpec:
        """What the policy says. Raises `InvalidSpec`."""
        return parse_spec(policy.get("spec"))

    def _read(self, namespace: str, name: str) -> dict[str, Any]:
        read = self._cluster.custom.get_namespaced_custom_object
        try:
            answer: Any = self._cluster.call(
                f"read PartitionPolicy {namespace}/{name}", read, GROUP, VERSION, namespace, PLURAL, name
            )
        except NotFound:
            raise self._unknown(namespace, name) from None
        return dict(answer)

    def _listed(self, plural: str) -> list[dict[str, Any]]:
        return list(self._cluster.objects(plural, None if self._everywhere else self.namespace))

    def _unknown(self, namespace: str, name: str) -> InvalidSpec:
        known = [each["metadata"]["name"] for each in self._cluster.policies(namespace)]
        listed = f"there are {', '.join(known[:10])}" if known else "there is none at all"
        return InvalidSpec(f"there is no PartitionPolicy {name!r} in namespace {namespace!r}: {listed}")
