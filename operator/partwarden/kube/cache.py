"""The PartitionArchives as the API server last showed them, which Jobs run, and which checks are wanted. In memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..api import policy
from ..api.archive import ARCHIVE_KIND, ARCHIVE_PLURAL, OID_LABEL, ROUND_LABEL, SERVER_LABEL, PartitionArchiveSpec
from ..api.database import Database
from ..api.destination import Destination
from ..api.policy import KIND, PLURAL
from ..api.types import ObjectKey
from ..api.validation import check
from ..planner.archives import MOST_ROUNDS

# The policies as the API server last showed them, in memory.
#


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """What is needed of one PartitionPolicy. ``spec`` is as written, not yet validated."""

    kind: ClassVar[str] = KIND
    plural: ClassVar[str] = PLURAL

    key: ObjectKey
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
    def age(self) -> tuple[str, ObjectKey]:
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


def parse_policy(body: Mapping[str, Any]) -> StoredPolicy:
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
        held=policy.parse(meta.get("annotations")),
        approved=policy.parse(meta.get("annotations"), policy.APPROVAL),
        labels=meta.get("labels") or {},
    )


def is_gone(body: Mapping[str, Any]) -> bool:
    """Whether the object is being deleted and only waits for somebody's finalizer."""
    return bool(body["metadata"].get("deletionTimestamp"))


class Store:
    """Policies by key, safe for threads. What is older than what is held is ignored, in whatever order it arrives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._policies: dict[ObjectKey, StoredPolicy] = {}
        self._removed: dict[ObjectKey, int] = {}

    def get(self, key: ObjectKey) -> StoredPolicy | None:
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

    def remove(self, key: ObjectKey, uid: str | None = None, version: int | None = None) -> bool:
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


@dataclass(frozen=True, slots=True)
class Binding:
    """Which table an archive is of that the operator made for a policy, where it goes, and which of its archives it is.

    ``server`` is an `archives.server_label`.
    """

    server: str
    oid: int
    round: int
    database: Database | None
    destination: Destination


@dataclass(frozen=True, slots=True)
class StoredArchive:
    """What is needed of one PartitionArchive. ``spec`` is as written, not yet validated."""

    kind: ClassVar[str] = ARCHIVE_KIND
    plural: ClassVar[str] = ARCHIVE_PLURAL

    key: ObjectKey
    uid: str
    generation: int
    version: int
    spec: Mapping[str, Any]
    status_json: bytes
    labels: Mapping[str, str] = field(default_factory=dict)
    binding: Binding | None = None
    """None where a user made it, or its labels do not say what its spec says."""

    @property
    def status(self) -> dict[str, Any]:
        """The status as last seen."""
        found = json.loads(self.status_json)
        return found if isinstance(found, dict) else {}

    @property
    def policy(self) -> ObjectKey | None:
        """The policy that it was made for, in its own namespace."""
        reference = self.spec.get("policy")
        name = reference.get("name") if isinstance(reference, Mapping) else None
        return (self.key[0], str(name)) if name else None

    def __str__(self) -> str:
        return "/".join(self.key)


def parse_archive(body: Mapping[str, Any]) -> StoredArchive:
    """The archive in an object of the API server."""
    meta = body["metadata"]
    spec, labels = body.get("spec") or {}, meta.get("labels") or {}
    return StoredArchive(
        key=(meta["namespace"], meta["name"]),
        uid=meta["uid"],
        generation=meta.get("generation", 0),
        version=int(meta["resourceVersion"]),
        spec=spec,
        status_json=_written(body.get("status") or {}),
        labels=labels,
        binding=_binding(spec, labels),
    )


def _binding(spec: Mapping[str, Any], labels: Mapping[str, str]) -> Binding | None:
    server, rounds = labels.get(SERVER_LABEL), [str(number) for number in range(MOST_ROUNDS)]
    if not server or labels.get(ROUND_LABEL) not in rounds:
        return None
    made, _ = check(PartitionArchiveSpec, spec, "spec")
    # A spec cannot be edited, a label can.
    if made is None or made.oid is None or labels.get(OID_LABEL) != str(made.oid):
        return None
    return Binding(server, made.oid, int(labels[ROUND_LABEL]), made.database, made.destination)


def _written(status: Mapping[str, Any]) -> bytes:
    return json.dumps(status, separators=(",", ":"), ensure_ascii=False).encode()


class ArchiveStore:
    """Archives by key, safe for threads. What is older than what is held is ignored, in whatever order it arrives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._archives: dict[ObjectKey, StoredArchive] = {}
        self._wanted: dict[ObjectKey, str] = {}

    def get(self, key: ObjectKey) -> StoredArchive | None:
        """The archive as last seen."""
        with self._lock:
            return self._archives.get(key)

    def all(self) -> list[StoredArchive]:
        """Every archive, in no order."""
        with self._lock:
            return list(self._archives.values())

    def of(self, policy: ObjectKey) -> list[StoredArchive]:
        """Those in the policy's namespace, made for it or by hand: what they are of, their status says."""
        with self._lock:
            return [each for each in self._archives.values() if each.key[0] == policy[0]]

    def put(self, archive: StoredArchive) -> StoredArchive | None:
        """Hold the archive. Returns what was held before, the archive itself where it is no news."""
        with self._lock:
            held = self._archives.get(archive.key)
            if held is not None and archive.version <= held.version:
                return archive
            self._archives[archive.key] = archive
            return held

    def remove(self, key: ObjectKey, uid: str | None = None) -> bool:
        """Forget the archive, if it is the one with ``uid`` or None is given. Returns whether it was held."""
        with self._lock:
            held = self._archives.get(key)
            if held is None or uid not in (None, held.uid):
                return False
            del self._archives[key]
            self._wanted.pop(key, None)
            return True

    def want_check(self, key: ObjectKey, token: str) -> bool:
        """Ask that the archive be read again. ``token``: tells this check from earlier ones; the same as long as that
        one will do. Returns whether it is news."""
        with self._lock:
            news = self._wanted.get(key) != token
            self._wanted[key] = token
            return news

    def forget_check(self, key: ObjectKey) -> None:
        """Nobody asks any more that the archive be read again."""
        with self._lock:
            self._wanted.pop(key, None)

    def wanted_check(self, key: ObjectKey) -> str | None:
        """The token of the check that was asked for last. After a restart it is asked for again."""
        with self._lock:
            return self._wanted.get(key)
