"""Namespaces with their own operator: apply and read their policies, Secrets and Events."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import kubernetes.client as api
import kubernetes.config
import psycopg
import yaml
from kubernetes.client.exceptions import ApiException

from lab.cluster import Cluster
from lab.kubectl import Kubectl
from lab.operator import PATIENCE, Operator, account_kubeconfig, until
from lab.postgres import Database

ROOT = Path(__file__).parents[2]
CRD, RIGHTS = ROOT / "crds" / "partitionpolicies.yaml", ROOT / "examples" / "rbac.yaml"
RESOURCES = tuple(f"crd/partition{kind}.partwarden.dev" for kind in ("policies", "archives", "restores"))
GROUP, VERSION, PLURAL = "partwarden.dev", "v1alpha1", "partitionpolicies"
EVENT_PATIENCE = 10.0
ROLE = "partwarden"
"""The ClusterRole in examples/rbac.yaml."""

RUN = """
CREATE TABLE public.run (id bigint NOT NULL, submitted_at timestamptz NOT NULL) PARTITION BY RANGE (submitted_at);
"""


def partitions(database: Database, table: str = "public.run") -> list[str]:
    """The names of a table's partitions, from the catalog, sorted."""
    found = "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = %s::regclass"
    return sorted(str(row[0]) for row in database.query(found, table))


def conditions(status: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The conditions by type."""
    return {each["type"]: each for each in status.get("conditions", [])}


def is_unseen(found: Mapping[str, Any]) -> bool:
    """Whether no operator has written a status: then the status is the API server's default."""
    return bool(found["status"] == {"observedGeneration": -1})


def kstatus(policy: Mapping[str, Any]) -> str:
    """The kstatus of an object: Current, InProgress or Failed."""
    found = {kind: each["status"] for kind, each in conditions(policy.get("status", {})).items()}
    observed = policy.get("status", {}).get("observedGeneration")
    if observed is not None and observed != policy["metadata"]["generation"]:
        return "InProgress"
    if found.get("Reconciling") == "True":
        return "InProgress"
    if found.get("Stalled") == "True":
        return "Failed"
    return "Current" if found.get("Ready", "True") == "True" else "InProgress"


def keys_of(dsn: str) -> dict[str, str]:
    """A Secret's data by single keys, for a connection string."""
    return {key: str(value) for key, value in psycopg.conninfo.conninfo_to_dict(dsn).items() if value is not None}


@contextmanager
def installed(kubectl: Kubectl) -> Iterator[Kubectl]:
    """The CustomResourceDefinitions and the ClusterRole, as a user installs them; objects that existed before stay."""
    wanted = (*RESOURCES, f"clusterrole/{ROLE}")
    ours = [name for name in wanted if not kubectl("get", name, "--ignore-not-found", "--output", "name")]
    kubectl("apply", "--server-side", "--filename", str(CRD.parent))
    kubectl.apply(*[each for each in yaml.safe_load_all(RIGHTS.read_text()) if each["kind"] == "ClusterRole"])
    kubectl("wait", "--for=condition=Established", *RESOURCES, "--timeout=60s")
    yield kubectl
    if ours:
        kubectl("delete", *ours, "--ignore-not-found")


class Site:
    """Some namespaces; the first is the default of every method. ``kubectl`` is the cluster's administrator."""

    def __init__(self, cluster: Cluster, kubectl: Kubectl, folder: Path, count: int = 1) -> None:
        stem = f"site-{secrets.token_hex(3)}"
        self.namespaces = tuple(f"{stem}-{number}" for number in range(count))
        self.cluster, self.kubectl, self.folder = cluster, kubectl, folder
        configuration = api.Configuration()
        kubernetes.config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
        self._api = api.ApiClient(configuration)
        self._objects, self._core = api.CustomObjectsApi(self._api), api.CoreV1Api(self._api)

    @contextmanager
    def open(self, role: str | None = ROLE) -> Iterator[Site]:
        """Create the namespaces, and the service account ``operator`` with a ClusterRole in each; delete them after."""
        try:
            for namespace in self.namespaces:
                self.kubectl("create", "namespace", namespace)
            self.kubectl("create", "serviceaccount", "operator", "--namespace", self.namespace)
            for namespace in self.namespaces if role else ():
                self.bind(namespace, role or "")
            yield self
        finally:
            self.kubectl("delete", "namespace", *self.namespaces, "--wait=false", "--ignore-not-found")
            self._api.rest_client.close()

    def bind(self, namespace: str, role: str) -> None:
        """Bind the ClusterRole to the operator in the namespace."""
        subject = f"--serviceaccount={self.namespace}:operator"
        self.kubectl("create", "rolebinding", role, f"--clusterrole={role}", subject, "--namespace", namespace)

    @property
    def namespace(self) -> str:
        """The first."""
        return self.namespaces[0]

    def operator(self, **settings: str) -> Operator:
        """An operator, not started, that serves these namespaces with the rights of their service account.

        Two Jobs may run in each of them at the same time, unless ``settings`` say otherwise.
        """
        path = self.folder / f"kubeconfig-{secrets.token_hex(3)}"
        account_kubeconfig(self.kubectl, self.namespace, "operator", path)
        served = {"NAMESPACES": ",".join(self.namespaces), "JOBS": str(2 * len(self.namespaces)), **settings}
        return Operator(path, self.folder, self.cluster.environment(), **served)

    def secret(self, name: str, data: Mapping[str, str], namespace: str = "") -> None:
        """Create a Secret, or replace its data."""
        metadata = {"name": name, "namespace": namespace or self.namespace}
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        self.kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": encoded})

    def manifest(self, name: str, spec: Mapping[str, Any], namespace: str = "") -> dict[str, Any]:
        """A policy for public.run with the Secret of the policy's name, overridden by ``spec``."""
        whole = {"database": {"secretRef": {"name": name}}, "table": {"name": "run"}, "resync": "10s", **spec}
        metadata = {"name": name, "namespace": namespace or self.namespace}
        return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "PartitionPolicy", "metadata": metadata, "spec": whole}

    def apply(self, name: str, spec: Mapping[str, Any] | None = None, namespace: str = "") -> None:
        """`kubectl apply` of `manifest`."""
        self.kubectl.apply(self.manifest(name, spec or {}, namespace))

    def watch_over(self, database: Database, name: str = "run", **spec: Any) -> None:
        """Apply a policy with its own Secret for a database, as its superuser."""
        self.secret(name, {"uri": database.dsn})
        self.apply(name, spec)

    def delete(self, name: str, namespace: str = "", *options: str) -> None:
        """`kubectl delete` of a policy, which waits until it is deleted."""
        self.kubectl("delete", "partitionpolicy", name, "--namespace", namespace or self.namespace, *options)

    def policy(self, name: str = "run", namespace: str = "") -> dict[str, Any]:
        """The object from the API server."""
        found: Any = self._objects.get_namespaced_custom_object(
            GROUP, VERSION, namespace or self.namespace, PLURAL, name
        )
        return dict(found)

    def exists(self, name: str, namespace: str = "") -> bool:
        """Whether there is such a policy."""
        try:
            return bool(self.policy(name, namespace))
        except ApiException as error:
            if error.status == 404:
                return False
            raise

    def wait(
        self, name: str = "run", namespace: str = "", *, reason: str = "", patience: float = PATIENCE, **wanted: str
    ) -> dict[str, Any]:
        """The policy, once its newest generation was observed and conditions are as wanted, such as Ready="True"."""

        def met() -> dict[str, Any] | None:
            policy = self.policy(name, namespace)
            status = policy.get("status", {})
            found = conditions(status)
            right = all(found.get(kind, {}).get("status") == value for kind, value in wanted.items())
            named = reason in ("", found.get("Ready", {}).get("reason"))
            observed = status.get("observedGeneration") == policy["metadata"]["generation"]
            last.update(policy)
            return policy if observed and right and named else None

        last: dict[str, Any] = {}
        try:
            return until(f"policy {name} is {wanted} {reason}", met, patience)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {conditions(last.get('status', {})).get('Ready')}") from None

    def events(self, name: str = "run", namespace: str = "") -> list[str]:
        """``type reason`` of the Events on the policy, oldest first."""
        return [f"{each.type} {each.reason}" for each in self.event_objects(name, namespace)]

    def expect_events(self, expected: list[str], name: str = "run", namespace: str = "") -> None:
        """Wait for exactly these Events: each is recorded just after the status is written."""
        seen: list[str] = []

        def same() -> bool:
            seen[:] = self.events(name, namespace)
            return seen == expected

        with suppress(AssertionError):
            until("the Events", same, EVENT_PATIENCE)
        assert seen == expected, f"the Events are {seen}, not {expected}"

    def event_objects(self, name: str = "run", namespace: str = "") -> list[Any]:
        """The Events on the policy, oldest first."""
        found = self._core.list_namespaced_event(
            namespace or self.namespace,
            field_selector=f"involvedObject.kind=PartitionPolicy,involvedObject.name={name}",
        )
        return sorted(found.items, key=lambda each: int(each.metadata.resource_version))
