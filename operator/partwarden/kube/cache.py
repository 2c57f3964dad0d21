"""PartitionPolicies, PartitionArchives and PartitionRestores as the API server last showed them, in memory, by key and
resourceVersion."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from ..api import approval, policy
from ..api.archive import ARCHIVE_KIND, ARCHIVE_PLURAL, HOLD, OID_LABEL, ROUND_LABEL, SERVER_LABEL, PartitionArchiveSpec
from ..api.database import Database
from ..api.destination import Destination
from ..api.policy import KIND, PLURAL
from ..api.restore import RESTORE_KIND, RESTORE_PLURAL
from ..api.types import ObjectKey
from ..api.validation import check
from ..planner.drop_preconditions import MOST_ROUNDS
from ..planner.forecast import PastArchive

FOLDER, POLICY = "a folder", "a policy"
"""What `StoredRestore.names`, beside keys: no namespace is called so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """What all kinds have in common. ``spec`` is as written, not yet validated."""

    kind: ClassVar[str]
    plural: ClassVar[str]

    key: ObjectKey
    uid: str
    generation: int
    version: int
    """Its resourceVersion."""
    spec: Mapping[str, Any]
    created: str = ""
    """RFC 3339, UTC: sorts as text."""
    status_json: bytes = b"{}"
    """Compact: a status may hold 200 partitions, and there may be thousands of policies."""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def age(self) -> tuple[str, ObjectKey]:
        """Sorts the oldest first; made in the same second, by namespace and name."""
        return self.created, self.key

    @property
    def status(self) -> dict[str, Any]:
        """The status as last seen or written."""
        status = json.loads(self.status_json)
        return status if isinstance(status, dict) else {}

    def __str__(self) -> str:
        return "/".join(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPolicy(StoredObject):
    """What is needed of one PartitionPolicy."""

    kind = KIND
    plural = PLURAL

    held: frozenset[str] = frozenset()
    """What the annotation `policy.ANNOTATION` or ``spec.holds`` names."""
    approved: frozenset[str] = frozenset()
    """What the annotation `policy.APPROVAL` names."""
    plan_approved: str = ""
    """The digest that the annotation `approval.APPROVE_PLAN` names."""
    archived_daily: int = 0
    """Bytes of archives a day, by the forecast in its status; 0 where that has none."""
    database: str = "null"
    """What its spec says of the database, as text: the same for policies of one database, unless Secrets differ."""

    @property
    def edition(self) -> tuple[str, int, frozenset[str], frozenset[str], str]:
        """Changes when the policy, a hold or an approval is edited, or it is made anew: metadata has no generation."""
        return self.uid, self.generation, self.held, self.approved, self.plan_approved

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


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredOfPolicy(StoredObject):
    """What belongs to a policy, or to none, and is immutable: the policy that it names never changes."""

    @property
    def policy(self) -> ObjectKey | None:
        """The policy that it names, in its own namespace."""
        return self._named("policy")

    def _named(self, field: str) -> ObjectKey | None:
        reference = self.spec.get(field)
        name = reference.get("name") if isinstance(reference, Mapping) else None
        return (self.key[0], str(name)) if name else None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredArchive(StoredOfPolicy):
    """What is needed of one PartitionArchive."""

    kind = ARCHIVE_KIND
    plural = ARCHIVE_PLURAL

    binding: Binding | None = None
    """None where a user made it, or its labels do not say what its spec says."""
    past: PastArchive | None = None
    """What it took, once it is proven."""
    held: bool = False
    """Whether a label or an annotation `archive.HOLD` is there, whatever it says."""
    expired: bool = False
    """Whether its objects were deleted, or are being deleted: it proves nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRestore(StoredOfPolicy):
    """What is needed of one PartitionRestore."""

    kind = RESTORE_KIND
    plural = RESTORE_PLURAL

    held: bool = False
    """As of an archive: its table is not dropped."""

    @property
    def archive(self) -> ObjectKey | None:
        """The PartitionArchive that its spec names, in its own namespace."""
        return self._named("archive")

    @property
    def names(self) -> Hashable:
        """Which archives it may be of: one by its key, those in a folder of that name, or those of a policy. A spec
        that says none of it, or more, is not valid, and is of none."""
        if self.archive is not None:
            return self.archive
        place = self.spec.get("location")
        folder = place.get("folder") if isinstance(place, Mapping) else None
        return (FOLDER, _last(str(folder))) if folder else (POLICY, self.policy)


def parse_policy(body: Mapping[str, Any]) -> StoredPolicy:
    """The policy in an object of the API server."""
    annotations, common = body["metadata"].get("annotations"), _common(body)
    return StoredPolicy(
        **common,
        held=policy.holds(annotations, common["spec"].get("holds")),
        approved=policy.parse(annotations, policy.APPROVAL),
        plan_approved=approval.parse(annotations),
        archived_daily=_archived_daily(body.get("status")),
        database=json.dumps(common["spec"].get("database"), sort_keys=True),
    )


def parse_archive(body: Mapping[str, Any]) -> StoredArchive:
    """The archive in an object of the API server."""
    common, status = _common(body), body.get("status") or {}
    return StoredArchive(
        **common,
        binding=_binding(common["spec"], common["labels"]),
        past=PastArchive.of(status),
        held=_is_held(body),
        expired="expired" in status or "begun" in (status.get("expiry") or {}),
    )


def parse_restore(body: Mapping[str, Any]) -> StoredRestore:
    """The restore in an object of the API server."""
    return StoredRestore(**_common(body), held=_is_held(body))


def is_gone(body: Mapping[str, Any]) -> bool:
    """Whether the object is being deleted and only waits for a finalizer."""
    return bool(body["metadata"].get("deletionTimestamp"))


def _common(body: Mapping[str, Any]) -> dict[str, Any]:
    meta = body["metadata"]
    return {
        "key": (meta["namespace"], meta["name"]),
        "uid": meta["uid"],
        "generation": meta.get("generation", 0),
        "version": int(meta["resourceVersion"]),
        "spec": body.get("spec") or {},
        "created": meta.get("creationTimestamp", ""),
        "status_json": json.dumps(body.get("status") or {}, separators=(",", ":"), ensure_ascii=False).encode(),
        "labels": meta.get("labels") or {},
    }


def _last(folder: str) -> str:
    return folder.strip("/").rpartition("/")[2]


def _is_held(body: Mapping[str, Any]) -> bool:
    return any(HOLD in (body["metadata"].get(each) or {}) for each in ("labels", "annotations"))


def _archived_daily(status: object) -> int:
    for name in ("summary", "forecast", "archiveBytesPerDay"):
        status = status.get(name) if isinstance(status, Mapping) else None
    return max(0, status) if isinstance(status, int) else 0


def _binding(spec: Mapping[str, Any], labels: Mapping[str, str]) -> Binding | None:
    server, rounds = labels.get(SERVER_LABEL), [str(number) for number in range(MOST_ROUNDS)]
    if not server or labels.get(ROUND_LABEL) not in rounds:
        return None
    made, _ = check(PartitionArchiveSpec, spec, "spec")
    # A spec cannot be edited, a label can.
    if made is None or made.oid is None or labels.get(OID_LABEL) != str(made.oid):
        return None
    return Binding(server, made.oid, int(labels[ROUND_LABEL]), made.database, made.destination)


T = TypeVar("T", bound=StoredObject)


class Update(NamedTuple, Generic[T]):
    """A newer version was taken in. ``before`` is None where the object was not known."""

    before: T | None
    after: T


class ObjectCache(Generic[T]):
    """Objects of one kind by key, safe for threads. A version older than the one held is ignored, whenever it comes."""

    def __init__(self, index: Callable[[T], Hashable] = lambda _: None) -> None:
        """``index``: what `indexed` finds objects by."""
        self._lock = threading.Lock()
        self._index = index
        self._objects: dict[ObjectKey, T] = {}
        self._by_index: defaultdict[Hashable, dict[ObjectKey, T]] = defaultdict(dict)
        self._removed: dict[ObjectKey, int] = {}

    def get(self, key: ObjectKey) -> T | None:
        """The object as last seen, None where there is none."""
        with self._lock:
            return self._objects.get(key)

    def all(self) -> list[T]:
        """Every object, in no order."""
        with self._lock:
            return list(self._objects.values())

    def indexed(self, value: Hashable) -> list[T]:
        """The objects with that value of the index, in no order. Costs what it returns."""
        with self._lock:
            return list(self._by_index.get(value, {}).values())

    def put(self, new: T) -> Update[T] | None:
        """Hold the object. Returns None where it is not newer than what is held, or was removed."""
        with self._lock:
            before = self._objects.get(new.key)
            if new.version <= max(before.version if before else 0, self._removed.get(new.key, 0)):
                return None
            if before is not None:
                self._drop(before)
            self._objects[new.key] = self._by_index[self._index(new)][new.key] = new
            return Update(before, new)

    def remove(self, key: ObjectKey, uid: str | None = None, version: int | None = None) -> bool:
        """Forget the object, if it is the one with ``uid`` or None is given. Returns whether it was held.

        ``version``: at which it was deleted, or no longer selected. A later version of it stays, and an earlier one
        that comes after that, as in a list that was asked for before, is ignored.
        """
        with self._lock:
            if version is not None:
                self._removed[key] = max(version, self._removed.get(key, 0))
            held = self._objects.get(key)
            if held is None or uid not in (None, held.uid) or (version is not None and held.version > version):
                return False
            self._drop(held)
            return True

    def settle(self) -> None:
        """A list has been taken in: nothing from before what was removed until now can come any more."""
        with self._lock:
            self._removed.clear()

    def _drop(self, held: T) -> None:
        del self._objects[held.key]
        value = self._index(held)
        del self._by_index[value][held.key]
        if not self._by_index[value]:
            del self._by_index[value]


class Store(ObjectCache[StoredPolicy]):
    """PartitionPolicies, indexed by the name of the table that each is for."""

    def __init__(self) -> None:
        super().__init__(lambda policy: policy.table)


class ArchiveCache(ObjectCache[StoredArchive]):
    """PartitionArchives, indexed by the policy that each was made for."""

    def __init__(self) -> None:
        super().__init__(lambda archive: archive.policy)


class RestoreCache(ObjectCache[StoredRestore]):
    """PartitionRestores, indexed by which archives each may be of."""

    def __init__(self) -> None:
        super().__init__(lambda restore: restore.names)

    def about(self, archive: StoredArchive) -> list[StoredRestore]:
        """Those that may be of the archive, in whatever namespace: none that names another, however many there are."""
        folder = _last(str(archive.status.get("location") or ""))
        wanted = archive.key, (FOLDER, folder), (POLICY, archive.policy)
        return [restore for names in wanted for restore in self.indexed(names)]


def vanished(before: Iterable[T], listed: Iterable[T]) -> list[T]:
    """The objects held before a list was asked for that the list does not show: their deletion was missed."""
    uids = {each.uid for each in listed}
    return [each for each in before if each.uid not in uids]
