"""The Kubernetes API as the operator uses it: its own kinds, Jobs and their pods, Secrets, Events, its own rights.

Objects come as the API's JSON. One `Cluster` may be used by many threads. Every call has a time limit and is repeated
where it could not be sent; what still fails is raised as `ClusterUnavailable`, of which a refusal is a subclass by its
HTTP status.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, TypeVar

import kubernetes.client as api
import urllib3
from kubernetes.client.exceptions import ApiException

from ..api.archive import ARCHIVE_PLURAL
from ..api.policy import API_VERSION, GROUP, PLURAL, VERSION
from ..api.restore import RESTORE_PLURAL
from ..api.types import OBJECT_NAME, ObjectKey
from ..errors import ClusterUnavailable, InsufficientPrivilege, SecretNotFound
from ..status.events import Notice
from .cache import StoredArchive, StoredObject, StoredRestore, is_gone, parse_archive, parse_restore
from .config import credentials
from .secrets import decoded

MANAGER = "partwarden"
TIMEOUT = (5.0, 20.0)
"""Seconds to connect, and to wait for an answer."""
TIMEOUT_LOCKED = (2.0, 5.0)
"""The same while a table is locked meanwhile."""
WRITES = 3
"""Attempts to write a status while others write to the same object."""
PAGE = 200
"""Objects in one answer of a list."""
SERVER_SIDE_APPLY = "application/apply-patch+yaml"
MOST_PODS = 50
"""Of one Job. It has one for each attempt, and for each that the end of a node took; others may bear their label."""
JOBS = "jobs"
JOB_OF_POD = "batch.kubernetes.io/controller-uid"

T = TypeVar("T")


class ApiError(ClusterUnavailable):
    """The API server answered, and refused. In conditions its reason is that of `ClusterUnavailable`."""

    @property
    def reason(self) -> str:
        return ClusterUnavailable.__name__


class BadRequest(ApiError):
    """400: the request itself is wrong, such as a text that is no label selector."""


class NotFound(ApiError):
    """404: the object, or its kind, does not exist."""


class Forbidden(ApiError):
    """403: this identity lacks the right, or an admission check refused the object."""


class Conflict(ApiError):
    """409: an object of that name exists, or it was changed since the version that was given."""


class Invalid(ApiError):
    """422: a field of the object is not valid."""


class TooManyRequests(ApiError):
    """429: the API server asks to be called later."""


BY_STATUS: Mapping[int | None, type[ApiError]] = {
    400: BadRequest,
    404: NotFound,
    403: Forbidden,
    409: Conflict,
    422: Invalid,
    429: TooManyRequests,
}


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on one resource, of one namespace or, None, of all."""

    verb: str
    resource: str
    group: str
    namespace: str | None
    name: str | None = None
    """Of one object only."""

    def __str__(self) -> str:
        full = f"{self.resource}.{self.group}" if self.group else self.resource
        full += f"/{self.name}" if self.name else ""
        where = "in all namespaces" if self.namespace is None else f"in namespace {self.namespace}"
        return f"{self.verb} {full} {where}"


class Cluster:
    """One API server, one identity."""

    def __init__(self, configuration: api.Configuration, *, connections: int = 10, selector: str = "") -> None:
        """At most ``connections`` at a time; policies are listed by the label ``selector``."""
        self._configuration = configuration
        retries = urllib3.Retry(total=2, status=0, redirect=0, backoff_factor=0.2, respect_retry_after_header=False)
        self._configuration.retries = retries
        self._configuration.connection_pool_maxsize = connections
        self._selector = selector
        self._api = api.ApiClient(self._configuration)
        self._api.user_agent = MANAGER
        self.core = api.CoreV1Api(self._api)
        self.custom = api.CustomObjectsApi(self._api)

    def credentials(self) -> dict[str, Any]:
        """As `config.credentials`."""
        return credentials(self._configuration)

    def serves(self, plural: str) -> bool:
        """Whether the CustomResourceDefinition is installed, with the version that this program speaks."""
        try:
            found = self.call("list what it serves", self.custom.get_api_resources, GROUP, VERSION)
        except NotFound:
            return False
        return any(each.name == plural for each in found.resources)

    def may(self, right: Right) -> bool:
        """Whether this identity has the right."""
        resource, _, subresource = right.resource.partition("/")
        attributes = api.V1ResourceAttributes(
            **(asdict(right) | {"resource": resource, "subresource": subresource or None})
        )
        review = api.V1SelfSubjectAccessReview(spec=api.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes))
        ask = api.AuthorizationV1Api(self._api).create_self_subject_access_review
        answer = self.call("say what the operator may do", ask, review)
        return bool(answer.status and answer.status.allowed)

    def policies(self, namespace: str | None) -> Iterator[dict[str, Any]]:
        """Every PartitionPolicy that the settings select, of a namespace or of all."""
        return self.objects(PLURAL, namespace, self._selector)

    def policy(self, key: ObjectKey) -> dict[str, Any] | None:
        """A PartitionPolicy as it is now; None where there is none that the settings select."""
        return self.selected(PLURAL, key, self._selector)

    def exists(self, policy: ObjectKey) -> bool:
        """Whether the PartitionPolicy exists, whichever operator serves it, and is not being deleted."""
        found = self.selected(PLURAL, policy)
        return found is not None and not is_gone(found)

    def archive(self, key: ObjectKey) -> StoredArchive | None:
        """A PartitionArchive as it is now; None where there is none, or it is being deleted."""
        body = self.get(ARCHIVE_PLURAL, key)
        return None if body is None or is_gone(body) else parse_archive(body)

    def restore(self, key: ObjectKey) -> StoredRestore | None:
        """A PartitionRestore as it is now; None where there is none, or it is being deleted."""
        body = self.get(RESTORE_PLURAL, key)
        return None if body is None or is_gone(body) else parse_restore(body)

    def pods(self, job: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The pods of this very Job, not those of an earlier one of its name, nor what bears their label only: of
        `MOST_PODS` that bear it."""
        namespace, uid = job["metadata"]["namespace"], job["metadata"]["uid"]
        what = f"list the pods of Job {namespace}/{job['metadata']['name']}"
        options: dict[str, Any] = {"label_selector": f"{JOB_OF_POD}={uid}", "limit": MOST_PODS}
        listed = self.call(what, self._read, self.core.list_namespaced_pod, namespace, **options)
        return [
            pod
            for pod in listed.get("items") or []
            if (uid, True) in ((o["uid"], o.get("controller")) for o in pod["metadata"].get("ownerReferences") or ())
        ]

    def objects(self, plural: str, namespace: str | None, selector: str = "") -> Iterator[dict[str, Any]]:
        """Every custom resource of a kind, or Job, of a namespace or of all, whose labels match: any where empty."""
        what = f"list {plural} in {namespace}" if namespace else f"list {plural}"
        following: str | None = None
        while following is None or following:
            options: dict[str, Any] = {"limit": PAGE} | ({"_continue": following} if following else {})
            page = self._list(what, plural, namespace, selector, **options)
            yield from page["items"]
            following = page["metadata"].get("continue") or ""

    def selected(self, plural: str, key: ObjectKey, selector: str = "") -> dict[str, Any] | None:
        """One custom resource as it is now; None where there is none whose labels match.

        Raises `BadRequest` where the text is no label selector.
        """
        namespace, name = key
        # By the right to list: there is none to get policies, and only a list has a selector.
        options: dict[str, Any] = {"field_selector": f"metadata.name={name}", "timeout": TIMEOUT_LOCKED}
        found = self._list(f"read {plural} {namespace}/{name}", plural, namespace, selector, **options)
        return next(iter(found["items"]), None)

    def get(self, plural: str, key: ObjectKey) -> dict[str, Any] | None:
        """One custom resource, or Job, as it is now; None where there is none, and where no object can have that name:
        it may be out of a status that another wrote, and "." would be the list of all."""
        namespace, name = key
        if not re.fullmatch(OBJECT_NAME, name):
            return None
        get = self.custom.get_namespaced_custom_object
        what = f"read {plural} {namespace}/{name}"
        try:
            body: Any = self.call(what, get, *_version_of(plural), namespace, plural, name)
        except NotFound:
            return None
        return dict(body)

    def create(self, plural: str, body: Mapping[str, Any]) -> bool:
        """Create a custom resource, or a Job. Returns False where one of that name exists, whatever it says."""
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        create = self.custom.create_namespaced_custom_object
        what = f"create {plural} {namespace}/{name}"
        try:
            self.call(what, create, *_version_of(plural), namespace, plural, dict(body))
        except Conflict:
            return False
        return True

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        """The Secret's values that are text. Raises `SecretNotFound`, `InsufficientPrivilege`, `ClusterUnavailable`."""
        try:
            what = f"read Secret {namespace}/{name}"
            found = self.call(what, self._read, self.core.read_namespaced_secret, name, namespace)
        except NotFound:
            raise SecretNotFound(
                f"Secret {name!r} does not exist in namespace {namespace!r}: create it, or correct "
                "spec.database.secretRef.name"
            ) from None
        except Forbidden:
            raise InsufficientPrivilege(
                f"the operator may not read Secret {name!r} in namespace {namespace!r}: grant its service account "
                "the verb get on secrets there"
            ) from None
        return decoded(found.get("data") or {})

    def _read(self, method: Callable[..., Any], *arguments: str, **options: Any) -> dict[str, Any]:
        """As JSON: a thousand policies read a Secret each at a start, and the client's own objects cost more than the
        rest."""
        found: dict[str, Any] = json.loads(method(*arguments, _preload_content=False, **options).data)
        return found

    def write_status(
        self, subject: StoredObject, status: Mapping[str, Any], version: int | None = None
    ) -> dict[str, Any] | None:
        """Make the object's status equal to ``status``. Returns the object as it is then, None when it is gone.

        With ``version`` only while that is its resource version: None, too, where it was written to since. Without, a
        conflict with another writer is written over `WRITES` times at most, while the object is the same: then raises
        `Conflict`. Server-side apply: what this program wrote before and leaves out now is removed, what others wrote
        stays.
        """
        namespace, name = subject.key
        metadata = {"namespace": namespace, "name": name, "uid": subject.uid}
        body = {
            "apiVersion": API_VERSION,
            "kind": subject.kind,
            "metadata": metadata | ({} if version is None else {"resourceVersion": str(version)}),
            "status": dict(status),
        }
        attempts = 0
        while True:
            try:
                written: Any = self.call(
                    f"take the status of {subject}",
                    self.custom.patch_namespaced_custom_object_status,
                    *(GROUP, VERSION, namespace, subject.plural, name, body),
                    field_manager=MANAGER,
                    force=True,
                    _content_type=SERVER_SIDE_APPLY,
                )
                return dict(written)
            except NotFound:
                return None
            except Conflict:
                # Written to since that version; or made anew with another uid; or others wrote at the same moment.
                now = self.selected(subject.plural, subject.key, "") if version is None else None
                if now is None or now["metadata"]["uid"] != subject.uid:
                    return None
                attempts += 1
                if attempts == WRITES:
                    raise

    def record(self, subject: StoredObject, notice: Notice, now: datetime) -> None:
        """Record an Event on the object. ``now`` is aware."""
        namespace, name = subject.key
        event = api.CoreV1Event(
            # Where a long name is cut, it must not end in what no part of a name ends in.
            metadata=api.V1ObjectMeta(name=f"{name[:230].rstrip('.-')}.{secrets.token_hex(8)}", namespace=namespace),
            involved_object=api.V1ObjectReference(
                api_version=API_VERSION, kind=subject.kind, namespace=namespace, name=name, uid=subject.uid
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
        self.call(f"record an Event on {subject}", self.core.create_namespaced_event, namespace, event)

    def _list(self, what: str, plural: str, namespace: str | None, selector: str, **options: Any) -> Any:
        options |= {"label_selector": selector} if selector else {}
        if namespace is None:
            return self.call(what, self.custom.list_cluster_custom_object, *_version_of(plural), plural, **options)
        listed = self.custom.list_namespaced_custom_object
        return self.call(what, listed, *_version_of(plural), namespace, plural, **options)

    def call(
        self, what: str, call: Callable[..., T], *arguments: Any, timeout: tuple[float, float] = TIMEOUT, **options: Any
    ) -> T:
        """Call a method of the client and return what it returns. ``what`` it does is for the message.

        Raises a subclass of `ApiError` where the API server refuses, `ClusterUnavailable` where it does not answer.
        """
        try:
            return call(*arguments, _request_timeout=timeout, **options)
        except ApiException as error:
            kind = BY_STATUS.get(error.status, ApiError)
            raise kind(f"the Kubernetes API would not {what}: {_reason(error)}") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            cause = getattr(error, "reason", None) or error
            raise ClusterUnavailable(
                f"the Kubernetes API at {self._configuration.host} did not {what}: {cause}"
            ) from None


def _version_of(plural: str) -> tuple[str, str]:
    return ("batch", "v1") if plural == JOBS else (GROUP, VERSION)


def _reason(error: ApiException) -> str:
    """The API server's own words, in one line."""
    try:
        message = json.loads(error.body or "")["message"]
    except (ValueError, KeyError, TypeError):
        message = error.reason
    return f"{' '.join(str(message).split())} ({error.status})"
