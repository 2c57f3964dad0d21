"""The Kubernetes API as archives need it: PartitionArchives, Jobs, and the pods of Jobs.

Jobs and pods come as the API's JSON. Every method raises the errors of `Cluster.call`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..api.archive import ARCHIVE_KIND, ARCHIVE_PLURAL, SELECTOR
from ..api.policy import API_VERSION, GROUP, VERSION
from ..api.policy import PLURAL as POLICIES
from ..api.types import ObjectKey
from ..errors import InvalidSpec
from .cache import StoredArchive, is_gone, parse_archive
from .client import Cluster, Conflict, Invalid, NotFound

ARCHIVES = (GROUP, VERSION, ARCHIVE_PLURAL)
JOBS = ("batch", "v1", "jobs")
JOB_OF_POD = "batch.kubernetes.io/controller-uid"


class ArchivesInCluster:
    """Safe for threads, as the `Cluster` is."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def archive(self, key: ObjectKey) -> StoredArchive | None:
        """Read a PartitionArchive as it is now. None where there is none, or it is being deleted."""
        body = self._get(ARCHIVES, key)
        return None if body is None or is_gone(body) else parse_archive(body)

    def archives(self, namespace: str | None, selector: str = "") -> Iterator[dict[str, Any]]:
        """List every PartitionArchive of a namespace, or of all, whose labels match, as JSON."""
        return self._cluster.objects(ARCHIVE_PLURAL, namespace, selector)

    def is_selected(self, key: ObjectKey, selector: str) -> bool:
        """Whether the PartitionArchive exists, and its labels match."""
        return self._cluster.selected(ARCHIVE_PLURAL, key, selector) is not None

    def policy_exists(self, key: ObjectKey) -> bool:
        """Whether the PartitionPolicy exists, whichever operator serves it, and is not being deleted."""
        namespace, name = key
        listed: Any = self._cluster.call(
            f"list {POLICIES} {namespace}/{name}",
            self._cluster.custom.list_namespaced_custom_object,
            *(GROUP, VERSION, namespace, POLICIES),
            # By the right to list: there is none to get.
            field_selector=f"metadata.name={name}",
        )
        return any(not is_gone(body) for body in listed["items"])

    def create_archive(self, key: ObjectKey, spec: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
        """Create a PartitionArchive. Returns False where one of that name exists, whatever it says."""
        namespace, name = key
        metadata = {"namespace": namespace, "name": name, "labels": dict(labels)}
        body = {"apiVersion": API_VERSION, "kind": ARCHIVE_KIND, "metadata": metadata, "spec": dict(spec)}
        return self._create(ARCHIVES, body)

    def job(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Read a Job as it is now, None where there is none."""
        return self._get(JOBS, (namespace, name))

    def jobs(self, namespace: str | None) -> list[dict[str, Any]]:
        """List every Job that this program made, in a namespace or in all."""
        custom, (group, version, plural) = self._cluster.custom, JOBS
        listed: Any
        if namespace is None:
            listed = self._cluster.call(
                "list Jobs", custom.list_cluster_custom_object, group, version, plural, label_selector=SELECTOR
            )
        else:
            listed = self._cluster.call(
                f"list Jobs in {namespace}",
                custom.list_namespaced_custom_object,
                *(group, version, namespace, plural),
                label_selector=SELECTOR,
            )
        return [*listed["items"]]

    def create_job(self, body: Mapping[str, Any]) -> bool:
        """Create a Job. Returns False where one of that name exists: it is for the same.

        Raises `InvalidSpec` where the API server finds a field of it wrong.
        """
        try:
            return self._create(JOBS, body)
        except Invalid as error:
            raise InvalidSpec(f"{error}: see retention.job of the policy, and PARTWARDEN_JOB_IMAGE") from None

    def pods(self, job: Mapping[str, Any]) -> list[dict[str, Any]]:
        """List the pods of this very Job, not those of an earlier one of its name."""
        namespace, uid = job["metadata"]["namespace"], job["metadata"]["uid"]
        listed = self._cluster.call(
            f"list the pods of Job {namespace}/{job['metadata']['name']}",
            self._cluster.core.list_namespaced_pod,
            namespace,
            label_selector=f"{JOB_OF_POD}={uid}",
        )
        plain: dict[str, Any] = self._cluster.plain(listed)
        return list(plain.get("items") or [])

    def _get(self, resource: tuple[str, str, str], key: ObjectKey) -> dict[str, Any] | None:
        (group, version, plural), (namespace, name) = resource, key
        get = self._cluster.custom.get_namespaced_custom_object
        what = f"read {_noun(plural)} {namespace}/{name}"
        try:
            body: Any = self._cluster.call(what, get, group, version, namespace, plural, name)
        except NotFound:
            return None
        return dict(body)

    def _create(self, resource: tuple[str, str, str], body: Mapping[str, Any]) -> bool:
        group, version, plural = resource
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        create = self._cluster.custom.create_namespaced_custom_object
        what = f"create {_noun(plural)} {namespace}/{name}"
        try:
            self._cluster.call(what, create, group, version, namespace, plural, dict(body))
        except Conflict:
            return False
        return True


def _noun(plural: str) -> str:
    return "Job" if plural == "jobs" else plural
