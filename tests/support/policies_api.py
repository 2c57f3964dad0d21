"""A fake of `kube.client.Cluster` as the policy reconciler uses it, and a fake of the plan executor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from partwarden.api.types import ObjectKey
from partwarden.controller.database_work import KeySearch
from partwarden.errors import ClusterUnavailable, PartwardenError, SecretNotFound
from partwarden.kube.cache import StoredPolicy
from partwarden.planner.actions import DropDetached, Outcome
from partwarden.planner.drop_preconditions import unmet
from partwarden.planner.inventory import Inventory
from partwarden.planner.plan import Plan, make_plan
from partwarden.planner.recheck import Step, Withdrawn
from partwarden.postgres.engine import Report
from partwarden.status.events import Notice
from support import values

SIZE = 1_234_567
"""Bytes of every table that is dropped."""
OUTAGE = ClusterUnavailable("the Kubernetes API did not answer")


@dataclass
class FakeCluster:
    """An API server with PartitionPolicies and Secrets in memory. ``down`` names methods that find no answer."""

    policies: dict[ObjectKey, dict[str, Any]] = field(default_factory=dict)
    secrets: dict[ObjectKey, dict[str, str]] = field(default_factory=dict)
    events: list[Notice] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    selects: Callable[[Mapping[str, str]], bool] = lambda labels: True
    writes: int = 0
    version: int = 0
    before_write: Callable[[], object] = lambda: None

    def apply(self, key: ObjectKey, spec: Mapping[str, Any], **meta: Any) -> dict[str, Any]:
        """Create or edit a policy. Returns it as the API server holds it."""
        old = self.policies.get(key)
        metadata: dict[str, Any] = {"creationTimestamp": "2026-01-01T00:00:00Z", "uid": f"uid of {key[1]}"}
        metadata |= {"generation": old["metadata"]["generation"] + 1 if old else 1} | meta
        body = {"metadata": metadata | {"namespace": key[0], "name": key[1]}, "spec": dict(spec)}
        return self._store(key, body | ({"status": old["status"]} if old and "status" in old else {}))

    def policy(self, key: ObjectKey) -> dict[str, Any] | None:
        self._answer("policy")
        body = self.policies.get(key)
        return body if body and self.selects(body["metadata"].get("labels") or {}) else None

    def secret(self, namespace: str, name: str) -> dict[str, str]:
        self._answer("secret")
        if (namespace, name) not in self.secrets:
            raise SecretNotFound(f"Secret {name!r} does not exist in namespace {namespace!r}")
        return self.secrets[namespace, name]

    def write_status(self, policy: StoredPolicy, status: Mapping[str, Any]) -> dict[str, Any] | None:
        self._answer("write_status")
        self.before_write()
        body = self.policies.get(policy.key)
        if body is None or body["metadata"]["uid"] != policy.uid:
            return None
        self.writes += 1
        return self._store(policy.key, body | {"status": dict(status)})

    def record(self, policy: StoredPolicy, notice: Notice, now: object) -> None:
        self._answer("record")
        self.events.append(notice)

    def _store(self, key: ObjectKey, body: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.policies[key] = body | {"metadata": body["metadata"] | {"resourceVersion": str(self.version)}}
        return self.policies[key]

    def _answer(self, method: str) -> None:
        if method in self.down:
            raise OUTAGE


class FakeLocks:
    """Advisory locks of the one server that there is, and what others were asked about them."""

    def __init__(self) -> None:
        self.held: tuple[int, ...] = ()
        self.looks: list[KeySearch] = []
        self.copies = set[str]()
        """Hosts that are physical copies of it."""
        self.error: PartwardenError | None = None

    @contextmanager
    def holding_keys(self, connection: object, keys: tuple[int, ...]) -> Iterator[None]:
        self.held = keys
        yield
        self.held = ()

    def look(self, search: KeySearch, supervisor: object, seconds: float) -> list[int]:
        self.looks.append(search)
        if self.error:
            raise self.error
        seen = search.connection.parameters["host"] not in self.copies and search.first == self.held[0]
        return [*self.held[1:]] if seen else []


class FakeExecutor:
    """One table in memory instead of `postgres.engine` and a connection: what it did, in order, is in ``steps``."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory, self.steps = inventory, list[str]()
        self.unreachable: PartwardenError | None = None
        self.fails: dict[str, PartwardenError] = {}
        """By the name of the partition or table."""
        self.breaks: Exception | None = None
        """Raised after the first action."""
        self.between: Callable[[], None] = lambda: None
        """Called after the table was observed."""
        self.meanwhile: Callable[[], None] = lambda: None
        """Called while an action runs that may take long."""

    @contextmanager
    def session(self, info: object, connect_timeout: int) -> Iterator[object]:
        if self.unreachable:
            raise self.unreachable
        self.steps.append("connect")
        yield object()
        self.steps.append("disconnect")

    def observe_and_plan(self, connection: object, spec: Any, held: Any, archives: Any) -> tuple[Inventory, Plan]:
        self.steps.append("observe and plan")
        planned = make_plan(spec, self.inventory, self.inventory.now, held, archives)
        self.between()
        return self.inventory, planned

    def maintain(
        self,
        connection: object,
        spec: Any,
        *,
        held: Any,
        archives: Any,
        observed: Any,
        outcomes: Any,
        recheck: Any,
        **_: Any,
    ) -> Report:
        before, stopped = observed[1], ""
        for action in before.actions:
            if stopped := recheck.why_stopped():
                break
            if isinstance(action, DropDetached):
                step = Step(type(action).__name__, str(action), SIZE)
                if recheck.must_wait(step):
                    continue
                recheck.begins(f"drop {action}", 60.0, step)
                self.meanwhile()
                try:
                    kept = unmet(recheck.renew(action.case))
                except Withdrawn as withdrawn:
                    stopped = str(withdrawn)
                    break
                if kept is not None:
                    stopped = kept.message
                    break
            error = self.fails.get(action.name)
            if error is None:
                self.inventory = values.after(self.inventory, [action])
            self.steps.append(f"{action.verb} {action.name}")
            outcomes.append(Outcome(action, error))
            if self.breaks:
                raise self.breaks
        recheck.finishes()
        after = make_plan(spec, self.inventory, self.inventory.now, held, archives)
        return Report(before, tuple(outcomes), self.inventory, after, 0, stopped)
