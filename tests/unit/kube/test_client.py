"""Each refusal of the API server is an error of its own class; its reason in conditions stays ClusterUnavailable."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import urllib3
from kubernetes.client import Configuration
from kubernetes.client.exceptions import ApiException

from partwarden.api.types import OBJECT_NAME
from partwarden.errors import ClusterUnavailable, InsufficientPrivilege, SecretNotFound
from partwarden.kube.cache import parse_policy
from partwarden.kube.client import (
    MOST_PODS,
    WRITES,
    ApiError,
    Cluster,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    TooManyRequests,
)
from partwarden.status.events import EventType, Notice
from support.cluster import ApiServer, controlled_by

CLUSTER = Cluster(Configuration(host="https://api.example:6443"))


def refuse(status: int, message: str = "no\nsuch  thing") -> Callable[..., Any]:
    def method(*arguments: Any, **options: Any) -> Any:
        error = ApiException(status=status, reason="refused")
        error.body = json.dumps({"message": message})
        raise error

    return method


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (422, Invalid),
        (429, TooManyRequests),
        (401, ApiError),
        (500, ApiError),
    ],
)
def test_a_status_is_a_class(status: int, kind: type[ApiError]) -> None:
    with pytest.raises(ApiError) as caught:
        CLUSTER.call("read Job one/run", refuse(status))
    assert type(caught.value) is kind
    assert caught.value.reason == "ClusterUnavailable"
    assert str(caught.value) == f"the Kubernetes API would not read Job one/run: no such thing ({status})"


def test_no_answer_is_no_refusal() -> None:
    def method(**options: Any) -> Any:
        raise urllib3.exceptions.HTTPError("connection refused")

    with pytest.raises(ClusterUnavailable, match=r"https://api\.example:6443 did not read it: connection refused") as e:
        CLUSTER.call("read it", method)
    assert not isinstance(e.value, ApiError)


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (404, SecretNotFound, "Secret 'db' does not exist in namespace 'one': create it, or correct"),
        (403, InsufficientPrivilege, "grant its service account the verb get on secrets there"),
        (500, ClusterUnavailable, r"would not read Secret one/db"),
    ],
)
def test_a_secret_that_cannot_be_read(
    status: int, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CLUSTER.core, "read_namespaced_secret", refuse(status))
    with pytest.raises(kind, match=message):
        CLUSTER.secret("one", "db")


META = {"namespace": "one", "name": "run", "uid": "4711", "resourceVersion": "1", "creationTimestamp": ""}
POLICY = parse_policy({"metadata": META})


class Server:
    """Has the policy with one uid, or None, and answers the first writes of its status with so many conflicts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, uid: str | None, conflicts: int) -> None:
        self.uid, self.conflicts, self.writes = uid, conflicts, 0
        monkeypatch.setattr(CLUSTER.custom, "patch_namespaced_custom_object_status", self.patch)
        monkeypatch.setattr(CLUSTER.custom, "list_namespaced_custom_object", self.list)

    def patch(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        self.writes += 1
        if self.writes <= self.conflicts:
            refuse(409)()
        return {"metadata": META, "status": arguments[-1]["status"]}

    def list(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        return {"items": [{"metadata": META | {"uid": self.uid}}] if self.uid else []}


@pytest.mark.parametrize("version", [None, 1])
def test_a_status_of_an_object_that_is_deleted_is_not_written(
    version: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CLUSTER.custom, "patch_namespaced_custom_object_status", refuse(404))
    assert CLUSTER.write_status(POLICY, {}, version) is None


@pytest.mark.parametrize("uid", [None, "another"])
def test_a_status_of_an_object_that_was_made_anew_is_not_written(
    uid: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(monkeypatch, uid, conflicts=99)
    assert CLUSTER.write_status(POLICY, {}) is None
    assert server.writes == 1


def test_a_status_that_is_for_one_version_only_is_not_written_over_another(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, "4711", conflicts=1)
    assert CLUSTER.write_status(POLICY, {}, 1) is None
    assert server.writes == 1


def test_a_conflict_with_another_writer_is_no_deletion_and_the_status_is_written_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server(monkeypatch, "4711", conflicts=WRITES - 1)
    written = CLUSTER.write_status(POLICY, {"observedGeneration": 1})
    assert written is not None
    assert written["status"] == {"observedGeneration": 1}
    assert server.writes == WRITES


def test_a_conflict_that_lasts_is_an_error_and_no_deletion(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, "4711", conflicts=99)
    with pytest.raises(Conflict):
        CLUSTER.write_status(POLICY, {})
    assert server.writes == WRITES


def test_what_is_not_served_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CLUSTER.custom, "get_api_resources", refuse(404))
    assert not CLUSTER.serves("partitionpolicies")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../../other/partitionarchives/run", "run/status", "run?limit=1", "Run", "r\n"]
)
def test_what_is_no_name_is_no_object(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names may come out of statuses, which others can write: none leads to another object, or to a list of all."""
    monkeypatch.setattr(CLUSTER.custom, "get_namespaced_custom_object", lambda *_, **__: {"kind": "List", "items": []})
    assert CLUSTER.get("partitionarchives", ("one", name)) is None
    assert CLUSTER.get("partitionarchives", ("one", "run.2019-a")) is not None


def test_a_pod_is_of_the_job_that_is_its_controller_whatever_its_labels_say() -> None:
    server = ApiServer()
    job = server.put("jobs", {"metadata": {"namespace": "one", "name": "j"}})
    own = controlled_by(job)
    others: list[dict[str, Any]] = [{}, {"ownerReferences": [{"uid": "another", "controller": True}]}]
    others.append({"ownerReferences": [{"uid": job["metadata"]["uid"]}]})
    for number, metadata in enumerate([own, *others]):
        meta = {"namespace": "one", "name": f"p{number}", "labels": own["labels"], **metadata}
        server.put("pods", {"metadata": meta})
    assert [each["metadata"]["name"] for each in server.cluster().pods(job)] == ["p0"]


def test_of_pods_with_the_label_of_a_job_few_are_read() -> None:
    server = ApiServer()
    job = server.put("jobs", {"metadata": {"namespace": "one", "name": "j"}})
    for number in range(2 * MOST_PODS):
        server.put("pods", {"metadata": {"namespace": "one", "name": f"p{number}", **controlled_by(job)}})
    assert len(server.cluster().pods(job)) == MOST_PODS


def test_an_event_of_an_object_with_a_long_name_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[str] = []
    monkeypatch.setattr(
        CLUSTER.core, "create_namespaced_event", lambda namespace, event, **_: named.append(event.metadata.name)
    )
    for name in ("a" * 253, "a" * 229 + ".b", "a" * 229 + "-b", "a" * 228 + "-.b"[:1] + "-b"):
        CLUSTER.record(
            parse_policy({"metadata": META | {"name": name}}),
            Notice(EventType.NORMAL, "Restored", "run"),
            datetime.now(UTC),
        )
    assert all(re.fullmatch(OBJECT_NAME, each) and len(each) <= 253 for each in named)
    assert len(named) == 4
