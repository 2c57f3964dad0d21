"""A Kubernetes API server in memory, behind the real `kube.client.Cluster`: the one fake of the middle layer's tests.

It keeps objects with uid and resourceVersion, refuses as the real one does (404, 409), and can be made to fail or to
kill its caller before or after each write.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from kubernetes.client import Configuration
from kubernetes.client.exceptions import ApiException

from partwarden.kube.client import JOB_OF_POD, Cluster

CREATED = "2026-01-01T00:00:00Z"


def refusal(status: int, message: str) -> ApiException:
    """What the client raises where the API server refuses."""
    error = ApiException(status=status, reason=message)
    error.body = json.dumps({"message": message})
    return error


def copied(body: dict[str, Any]) -> dict[str, Any]:
    """As the API server's answers are copies: faster than `copy.deepcopy`, and what is no JSON fails."""
    found: dict[str, Any] = json.loads(json.dumps(body))
    return found


class ApiServer:
    """Objects by plural, namespace and name. Each write is first given to ``before``, then done, then to ``after``."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.secrets: dict[tuple[str, str], dict[str, str]] = {}
        self.events: list[tuple[str, str]] = []
        """Reason and message, oldest first."""
        self.writes: list[str] = []
        self.before: Callable[[str], None] = lambda what: None
        self.after: Callable[[str], None] = lambda what: None
        self._version = 0

    def cluster(self, selector: str = "") -> Cluster:
        """The client of this server."""
        cluster = Cluster(Configuration(host="https://in-memory"), selector=selector)
        cluster.custom, cluster.core = _Custom(self), _Core(self)  # type: ignore[assignment]
        return cluster

    def put(self, plural: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make the object as a user does with kubectl, or change it."""
        meta = body["metadata"]
        key = (plural, meta["namespace"], meta["name"])
        self._version += 1
        known = self.objects.get(key, {}).get("metadata", {})
        made = {"uid": f"uid-{self._version}", "creationTimestamp": CREATED, "generation": 1}
        kept = {name: known.get(name, made[name]) for name in made}
        changed = copied(dict(body))
        changed["metadata"] = {**kept, **changed["metadata"], "resourceVersion": str(self._version)}
        self.objects[key] = changed
        return copied(changed)

    def get(self, plural: str, namespace: str, name: str) -> dict[str, Any]:
        """A copy of the object. Raises the client's error 404."""
        if (plural, namespace, name) not in self.objects:
            raise refusal(404, f'{plural} "{name}" not found')
        return copied(self.objects[plural, namespace, name])

    def list(self, plural: str, namespace: str | None = None) -> list[dict[str, Any]]:
        """Copies of the objects of a kind, in the order in which they were made."""
        return [
            copied(body)
            for (kind, where, _), body in self.objects.items()
            if kind == plural and namespace in (None, where)
        ]

    def write(self, what: str, change: Callable[[], Any]) -> Any:
        """Do the change, with what is to happen around it."""
        self.before(what)
        result = change()
        self.writes.append(what)
        self.after(what)
        return result


def controlled_by(job: Mapping[str, Any]) -> dict[str, Any]:
    """What the metadata of a pod says of its Job."""
    uid = job["metadata"]["uid"]
    return {"labels": {JOB_OF_POD: uid}, "ownerReferences": [{"uid": uid, "controller": True}]}


def _selected(body: Mapping[str, Any], label_selector: str = "", field_selector: str = "") -> bool:
    wanted = dict(each.split("=") for each in label_selector.split(",") if each)
    named = field_selector.removeprefix("metadata.name=")
    labels = body["metadata"].get("labels") or {}
    return labels.items() >= wanted.items() and named in ("", body["metadata"]["name"])


class _Custom:
    """Of `kubernetes.client.CustomObjectsApi` what `kube` calls."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    def get_namespaced_custom_object(
        self, group: str, version: str, namespace: str, plural: str, name: str, **options: Any
    ) -> Any:
        return self._server.get(plural, namespace, name)

    def list_cluster_custom_object(self, group: str, version: str, plural: str, **options: Any) -> Any:
        return self._listed(plural, None, **options)

    def list_namespaced_custom_object(
        self, group: str, version: str, namespace: str, plural: str, **options: Any
    ) -> Any:
        return self._listed(plural, namespace, **options)

    def create_namespaced_custom_object(
        self, group: str, version: str, namespace: str, plural: str, body: dict[str, Any], **options: Any
    ) -> Any:
        name = body["metadata"]["name"]

        def create() -> Any:
            if (plural, namespace, name) in self._server.objects:
                raise refusal(409, f'{plural} "{name}" already exists')
            return self._server.put(plural, body)

        return self._server.write(f"create {plural}", create)

    def patch_namespaced_custom_object_status(
        self, group: str, version: str, namespace: str, plural: str, name: str, body: dict[str, Any], **options: Any
    ) -> Any:
        """By server-side apply of one manager: the status becomes what is given."""

        def apply() -> Any:
            found = self._server.get(plural, namespace, name)
            for field in ("uid", "resourceVersion"):
                if body["metadata"].get(field, found["metadata"][field]) != found["metadata"][field]:
                    raise refusal(409, f"the {field} is another")
            return self._server.put(plural, {**found, "status": body["status"]})

        return self._server.write(f"status {plural}", apply)

    def _listed(self, plural: str, namespace: str | None, **options: Any) -> Any:
        wanted = {name: options[name] for name in ("label_selector", "field_selector") if name in options}
        bodies = [each for each in self._server.list(plural, namespace) if _selected(each, **wanted)]
        return {"items": bodies, "metadata": {}}


class _Core:
    """Of `kubernetes.client.CoreV1Api` what `kube` calls."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    def read_namespaced_secret(self, name: str, namespace: str, **options: Any) -> Any:
        if (namespace, name) not in self._server.secrets:
            raise refusal(404, f'secrets "{name}" not found')
        values = self._server.secrets[namespace, name].items()
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values}
        return SimpleNamespace(data=json.dumps({"data": data}).encode())

    def create_namespaced_event(self, namespace: str, event: Any, **options: Any) -> Any:
        self._server.write("event", lambda: self._server.events.append((event.reason, event.message)))

    def read_namespaced_persistent_volume_claim(self, name: str, namespace: str, **options: Any) -> Any:
        self._server.before(f"read persistentvolumeclaims {namespace}/{name}")
        status = self._server.get("persistentvolumeclaims", namespace, name).get("status")
        return SimpleNamespace(status=SimpleNamespace(capacity=status.get("capacity")) if status else None)

    def list_namespaced_pod(self, namespace: str, label_selector: str, limit: int, **options: Any) -> Any:
        pods = [each for each in self._server.list("pods", namespace) if _selected(each, label_selector)]
        return SimpleNamespace(data=json.dumps({"items": pods[:limit]}).encode())
