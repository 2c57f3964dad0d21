"""The Kubernetes API as archives need it: PartitionArchives, Jobs, and what the pods of Jobs left behind.

What is read comes as the API's JSON. Errors are those of `partwarden.cluster`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..api.archive import ARCHIVE_KIND, ARCHIVE_PLURAL, SELECTOR
from ..api.policy import API_VERSION, GROUP, VERSION
from ..api.policy import PLURAL as POLICIES
from ..api.types import ObjectKey
from ..errors import InvalidSpec
from .client import Cluster, Conflict, Invalid, NotFound

BATCH = ("batch", "v1")
JOB_OF_POD = "batch.kubernetes.io/controller-uid"


class ArchivesInCluster:
    """Safe for threads, as the `Cluster` is."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def archive(self, key: ObjectKey) -> dict[str, Any] | None:
        """A PartitionArchive as it is now, None where there is none."""
        namespace, name = key
        return self._get(f"read {ARCHIVE_PLURAL} {namespace}/{name}", GROUP, VERSION, namespace, ARCHIVE_PLURAL, name)

    def archives(self, namespace: str | None) -> Iterator[dict[str, Any]]:
        """Every PartitionArchive of a namespace, or of all."""
        return self._cluster.objects(ARCHIVE_PLURAL, namespace)

    def policy_exists(self, key: ObjectKey) -> bool:
        """Whether there is such a PartitionPolicy, whoever serves it, that is not being deleted."""
        namespace, name = key
        found: Any = self._cluster.call(
            f"look for {POLICIES} {namespace}/{name}",
            self._cluster.custom.list_namespaced_custom_object,
            *(GROUP, VERSION, namespace, POLICIES),
            # By the right to list: there is none to get.
            field_selector=f"metadata.name={name}",
        )
        return any("deletionTimestamp" not in each["metadata"] for each in found["items"])

    def create_archive(self, key: ObjectKey, spec: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
        """Make a PartitionArchive. Returns False where one of that name exists, whatever it says."""
        namespace, name = key
        body = {
            "apiVersion": API_VERSION,
            "kind": ARCHIVE_KIND,
            "metadata": {"namespace": namespace, "name": name, "labels": dict(labels)},
            "spec": dict(spec),
        }
        return self._create(
            f"create {ARCHIVE_PLURAL} {namespace}/{name}", GROUP, VERSION, namespace, ARCHIVE_PLURAL, body
        )

    def job(self, namespace: str, name: str) -> dict[str, Any] | None:
        """A Job as it is now, None where there is none."""
        return self._get(f"read Job {namespace}/{name}", *BATCH, namespace, "jobs", name)

    def jobs(self, namespace: str | None) -> list[dict[str, Any]]:
        """Every Job that this program made, in a namespace or in all."""
        what, custom = "list Jobs", self._cluster.custom
        found: Any
        if namespace is None:
            found = self._cluster.call(what, custom.list_cluster_custom_object, *BATCH, "jobs", label_selector=SELECTOR)
        else:
            found = self._cluster.call(
                what, custom.list_namespaced_custom_object, *BATCH, namespace, "jobs", label_selector=SELECTOR
            )
        return list(found["items"])

    def create_job(self, body: Mapping[str, Any]) -> bool:
        """Make a Job. Returns False where one of that name exists: it is for the same. Raises `InvalidSpec`, too."""
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        try:
            return self._create(f"create Job {namespace}/{name}", *BATCH, namespace, "jobs", body)
        except Invalid as error:
            raise InvalidSpec(f"{error}: see retention.job of the policy, and PARTWARDEN_JOB_IMAGE") from None

    def pods(self, job: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The pods of this very Job, not those of an earlier one of its name."""
        namespace, uid = job["metadata"]["namespace"], job["metadata"]["uid"]
        found = self._cluster.call(
            f"list the pods of Job {namespace}/{job['metadata']['name']}",
            self._cluster.core.list_namespaced_pod,
            namespace,
            label_selector=f"{JOB_OF_POD}={uid}",
        )
        plain: dict[str, Any] = self._cluster.plain(found)
        return list(plain.get("items") or [])

    def _get(self, what: str, *where: str) -> dict[str, Any] | None:
        try:
            found: Any = self._cluster.call(what, self._cluster.custom.get_namespaced_custom_object, *where)
        except NotFound:
            return None
        return dict(found)

    def _create(
        self, what: str, group: str, version: str, namespace: str, plural: str, body: Mapping[str, Any]
    ) -> bool:
        try:
            self._cluster.call(
                what,
                self._cluster.custom.create_namespaced_custom_object,
                *(group, version, namespace, plural, dict(body)),
            )
        except Conflict:
            return False
        return True
