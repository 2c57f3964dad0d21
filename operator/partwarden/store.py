"""The policies as the API server last showed them, in memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from . import hold
from .policy import KIND, PLURAL
from .workqueue import Key


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """What is needed of one PartitionPolicy. ``spec`` is as written, not yet validated."""

    kind: ClassVar[str] = KIND
    plural: ClassVar[str] = PLURAL

    key: Key
    uid: str
    generation: int
    version: int
    created: str
    """RFC 3339, UTC: sorts as text."""
    spec: Mapping[str, Any]
    status_json: bytes
    """Compact: a status may hold 200 partitions, and there may be thousands of policies."""
    held: frozenset[str] = frozenset()
    """What the annotation of `partwarden.hold` names."""
    approved: frozenset[str] = frozenset()
    """What that of `hold.APPROVAL` names."""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> dict[str, Any]:
        """The status as last seen or written."""
        found = json.loads(self.status_json)
        return found if isinstance(found, dict) else {}

    @property
    def age(self) -> tuple[str, Key]:
        """Sorts the oldest first; made in the same second, by namespace and name."""
        return self.created, self.key

    @property
    def edition(self) -> tuple[str, int, frozenset[str], frozenset[str]]:
        """Changes when the policy, a hold or an approval is edited, or it is made anew: metadata has no generation."""
        return self.uid, self.generation, self.held, self.approved

    @property
    def suspended(self) -> bool:
        """Whether its spec says so."""
        return self.spec.get("suspend") is True

    @property
    def table(self) -> str | None:
        """The table that its spec names, with the schema; None where the spec is too wrong to say."""
        table = self.spec.get("table")
        name = table.get("name") if isinstance(table, Mapping) else None
        return f"{table.get('schema', 'public')}.{name}" if isinstance(table, Mapping) and name else None

    def __str__(self) -> str:
        return "/".join(self.key)


def parse(body: Mapping[str, Any]) -> StoredPolicy:
    """The policy in an object of the API server."""
    meta = body["metadata"]
    return StoredPolicy(
        key=(meta["namespace"], meta["name"]),
        uid=meta["uid"],
        generation=meta.get("generation", 0),
        version=int(meta["resourceVersion"]),
        created=meta["creationTimestamp"],
        spec=body.get("spec") or {},
        status_json=_compact(body.get("status") or {}),
        held=hold.parse(meta.get("annotations")),
        approved=hold.parse(meta.get("annotations"), hold.APPROVAL),
        labels=meta.get("labels") or {},
    )


def is_gone(body: Mapping[str, Any]) -> bool:
    """Whether the object is being deleted and only waits for somebody's finalizer."""
    return bool(body["metadata"].get("deletionTimestamp"))


class Store:
    """Policies by key, safe for threads. What is older than what is held is ignored, in whatever order it arrives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._policies: dict[Key, StoredPolicy] = {}
        self._removed: dict[Key, int] = {}

    def get(self, key: Key) -> StoredPolicy | None:
        """The policy as last seen, None when there is none."""
        with self._lock:
            return self._policies.get(key)

    def all(self) -> list[StoredPolicy]:
        """Every policy, in no order."""
        with self._lock:
            return list(self._policies.values())

    def put(self, policy: StoredPolicy) -> StoredPolicy | None:
        """Hold the policy. Returns it when it is news: unknown so far, made anew, or of another generation or hold."""
        with self._lock:
            held = self._policies.get(policy.key)
            if policy.version <= max(held.version if held else 0, self._removed.get(policy.key, 0)):
                return None
            self._policies[policy.key] = policy
            same = held is not None and held.edition == policy.edition
            return None if same else policy

    def remove(self, key: Key, uid: str | None = None, version: int | None = None) -> bool:
        """Forget the policy, if it is the one with ``uid`` or None is given. Returns whether it was held.

        ``version``: at which it was gone, or no longer ours. A later one of it stays, and an earlier one that comes
        after that, as in a list that was asked for before, is ignored.
        """
        with self._lock:
            if version is not None:
                self._removed[key] = max(version, self._removed.get(key, 0))
            held = self._policies.get(key)
            if held is None or uid not in (None, held.uid) or (version is not None and held.version > version):
                return False
            del self._policies[key]
            return True

    def settle(self) -> None:
        """A list has been taken in: nothing from before what was removed until now can come any more."""
        with self._lock:
            self._removed.clear()


def vanished(before: Iterable[StoredPolicy], listed: Iterable[StoredPolicy]) -> list[StoredPolicy]:
    """Those held before a list was asked for that the list does not show: their deletion was missed."""
    uids = {each.uid for each in listed}
    return [each for each in before if each.uid not in uids]


def _compact(status: Mapping[str, Any]) -> bytes:
    return json.dumps(status, separators=(",", ":"), ensure_ascii=False).encode()
