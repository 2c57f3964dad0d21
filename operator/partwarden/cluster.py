"""The Kubernetes API as the operator uses it: policies, their status, Secrets, Events, its own rights.

Beside `partwarden.cluster_login` the only importer of the official client. One `Cluster` may be used by many threads.
Every call has a time limit and is repeated where it could not be sent; what still fails is raised as an error of
`partwarden.errors`.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import kubernetes.client as api
import urllib3
from kubernetes.client.exceptions import ApiException

from .cluster_login import Credentials, configure, credentials
from .errors import ClusterUnavailable, InsufficientPrivilege, SecretNotFound
from .policy import API_VERSION, GROUP, KIND, PLURAL, VERSION
from .settings import Settings
from .store import StoredPolicy
from .transitions import Notice

MANAGER = "partwarden"
TIMEOUT = (5.0, 20.0)
"""Seconds to connect, and to wait for an answer."""
PAGE = 200
"""Policies in one answer of a list."""
SERVER_SIDE_APPLY = "application/apply-patch+yaml"

NOT_FOUND, FORBIDDEN, CONFLICT = 404, 403, 409

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on one resource, of one namespace or, None, of all."""

    verb: str
    resource: str
    group: str
    namespace: str | None

    def __str__(self) -> str:
        full = f"{self.resource}.{self.group}" if self.group else self.resource
        where = "in all namespaces" if self.namespace is None else f"in namespace {self.namespace}"
        return f"{self.verb} {full} {where}"


class Cluster:
    """One API server, one identity. Raises `StartupError` when there is no usable configuration."""

    def __init__(self, settings: Settings) -> None:
        self._configuration = configure(settings)
        self._configuration.retries = urllib3.Retry(total=2, status=0, redirect=0, backoff_factor=0.2)
        self._configuration.connection_pool_maxsize = settings.workers + 2
        self._api = api.ApiClient(self._configuration)
        self._api.user_agent = MANAGER
        self._core = api.CoreV1Api(self._api)
        self._objects = api.CustomObjectsApi(self._api)

    def credentials(self) -> Credentials:
        """The same way to the same server for another client; a token as it is now."""
        return credentials(self._configuration)

    def serves_policies(self) -> bool:
        """Whether the CustomResourceDefinition is installed, with the version that this program speaks."""
        try:
            found = self._call("list what it serves", self._objects.get_api_resources, GROUP, VERSION)
        except ClusterUnavailable as error:
            if _status(error) == NOT_FOUND:
                return False
            raise
        return any(each.name == PLURAL for each in found.resources)

    def may(self, right: Right) -> bool:
        """Whether this identity has the right."""
        resource, _, subresource = right.resource.partition("/")
        attributes = api.V1ResourceAttributes(
            verb=right.verb,
            group=right.group,
            resource=resource,
            subresource=subresource or None,
            namespace=right.namespace,
        )
        review = api.V1SelfSubjectAccessReview(spec=api.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes))
        ask = api.AuthorizationV1Api(self._api).create_self_subject_access_review
        answer = self._call("say what the operator may do", ask, review)
        return bool(answer.status and answer.status.allowed)

    def policies(self, namespace: str | None) -> Iterator[dict[str, Any]]:
        """Every PartitionPolicy of a namespace, or of all, as the API server holds it."""
        following: str | None = None
        while following is None or following:
            options: dict[str, Any] = {"limit": PAGE} | ({"_continue": following} if following else {})
            page: Any
            if namespace is None:
                page = self._call(
                    "list policies", self._objects.list_cluster_custom_object, GROUP, VERSION, PLURAL, **options
                )
            else:
                page = self._call(
                    f"list policies in {namespace}",
                    self._objects.list_namespaced_custom_object,
                    *(GROUP, VERSION, namespace, PLURAL),
                    **options,
                )
            yield from page["items"]
            following = page["metadata"].get("continue") or ""

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        """The Secret's values that are text. Raises `SecretNotFound`, `InsufficientPrivilege`, `ClusterUnavailable`."""
        try:
            found = self._call(f"read Secret {namespace}/{name}", self._core.read_namespaced_secret, name, namespace)
        except ClusterUnavailable as error:
            if _status(error) == NOT_FOUND:
                raise SecretNotFound(
                    f"Secret {name!r} does not exist in namespace {namespace!r}: create it, or correct "
                    "spec.database.secretRef.name"
                ) from None
            if _status(error) == FORBIDDEN:
                raise InsufficientPrivilege(
                    f"the operator may not read Secret {name!r} in namespace {namespace!r}: grant its service account "
                    "the verb get on secrets there"
                ) from None
            raise
        return dict(_texts(found.data or {}))

    def write_status(self, policy: StoredPolicy, status: Mapping[str, Any]) -> int | None:
        """Make the policy's status equal to ``status``. Returns the new resource version, None when the policy is gone.

        Server-side apply: what this program wrote before and leaves out now is removed, what others wrote stays.
        """
        namespace, name = policy.key
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"namespace": namespace, "name": name, "uid": policy.uid},
            "status": dict(status),
        }
        written: Any
        try:
            written = self._call(
                f"take the status of {policy}",
                self._objects.patch_namespaced_custom_object_status,
                *(GROUP, VERSION, namespace, PLURAL, name, body),
                field_manager=MANAGER,
                force=True,
                _content_type=SERVER_SIDE_APPLY,
            )
        except ClusterUnavailable as error:
            if _status(error) in (NOT_FOUND, CONFLICT):  # deleted, or made anew with another uid
                return None
            raise
        return int(written["metadata"]["resourceVersion"])

    def record(self, policy: StoredPolicy, notice: Notice, now: datetime) -> None:
        """Record an Event on the policy. ``now`` is aware."""
        namespace, name = policy.key
        event = api.CoreV1Event(
            metadata=api.V1ObjectMeta(name=f"{name[:230]}.{secrets.token_hex(8)}", namespace=namespace),
            involved_object=api.V1ObjectReference(
                api_version=API_VERSION, kind=KIND, namespace=namespace, name=name, uid=policy.uid
            ),
            type=str(notice.type),
            reason=notice.reason,
            message=notice.message,
            first_timestamp=now,
            last_timestamp=now,
            count=1,
            source=api.V1EventSource(component=MANAGER),
            reporting_component=f"{GROUP}/{MANAGER}",
        )
        self._call(f"record an Event on {policy}", self._core.create_namespaced_event, namespace, event)

    def _call(self, what: str, call: Callable[..., T], *arguments: Any, **options: Any) -> T:
        try:
            return call(*arguments, _request_timeout=TIMEOUT, **options)
        except ApiException as error:
            raise ClusterUnavailable(f"the Kubernetes API would not {what}: {_reason(error)}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            cause = getattr(error, "reason", None) or error
            raise ClusterUnavailable(
                f"the Kubernetes API at {self._configuration.host} did not {what}: {cause}"
            ) from None


def _status(error: ClusterUnavailable) -> int | None:
    """The HTTP status that the API server answered with, if it did."""
    cause = error.__cause__
    return cause.status if isinstance(cause, ApiException) else None


def _reason(error: ApiException) -> str:
    """The API server's own words, in one line."""
    try:
        message = json.loads(error.body or "")["message"]
    except (ValueError, KeyError, TypeError):
        message = error.reason
    return f"{' '.join(str(message).split())} ({error.status})"


def _texts(data: Mapping[str, str | bytes]) -> Iterator[tuple[str, str]]:
    for key, value in data.items():
        try:
            yield key, base64.b64decode(value).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue
