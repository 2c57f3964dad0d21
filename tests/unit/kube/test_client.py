"""Each refusal of the API server is an error of its own class; its reason in conditions stays ClusterUnavailable."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import urllib3
from kubernetes.client import Configuration
from kubernetes.client.exceptions import ApiException

from partwarden.errors import ClusterUnavailable, InsufficientPrivilege, SecretNotFound
from partwarden.kube.cache import parse_policy
from partwarden.kube.client import (
    ApiError,
    Cluster,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    TooManyRequests,
)

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


@pytest.mark.parametrize("status", [404, 409])
def test_a_status_of_an_object_that_is_deleted_or_changed_is_not_written(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = parse_policy(
        {
            "metadata": {
                "namespace": "one",
                "name": "run",
                "uid": "4711",
                "resourceVersion": "1",
                "creationTimestamp": "",
            }
        }
    )
    monkeypatch.setattr(CLUSTER.custom, "patch_namespaced_custom_object_status", refuse(status))
    assert CLUSTER.write_status(policy, {}) is None


def test_what_is_not_served_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CLUSTER.custom, "get_api_resources", refuse(404))
    assert not CLUSTER.serves("partitionpolicies")
