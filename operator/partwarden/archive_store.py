"""The PartitionArchives as the API server last showed them, which Jobs run, and which checks are wanted. In memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .archive_policy import KIND, OID_LABEL, PLURAL, ROUND_LABEL, SERVER_LABEL, PartitionArchiveSpec
from .archives import MOST_ROUNDS
from .database import Database
from .destination import Destination
from .validation import check
from .workqueue import Key


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

    kind: ClassVar[str] = KIND
    plural: ClassVar[str] = PLURAL

    key: Key
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
    def policy(self) -> Key | None:
        """The policy that it was made for, in its own namespace."""
        reference = self.spec.get("policy")
        name = reference.get("name") if isinstance(reference, Mapping) else None
        return (self.key[0], str(name)) if name else None

    def __str__(self) -> str:
        return "/".join(self.key)


def parse(body: Mapping[str, Any]) -> StoredArchive:
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
        self._archives: dict[Key, StoredArchive] = {}
        self._wanted: dict[Key, str] = {}

    def get(self, key: Key) -> StoredArchive | None:
        """The archive as last seen."""
        with self._lock:
            return self._archives.get(key)

    def all(self) -> list[StoredArchive]:
        """Every archive, in no order."""
        with self._lock:
            return list(self._archives.values())

    def of(self, policy: Key) -> list[StoredArchive]:
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

    def remove(self, key: Key, uid: str | None = None) -> bool:
        """Forget the archive, if it is the one with ``uid`` or None is given. Returns whether it was held."""
        with self._lock:
            held = self._archives.get(key)
            if held is None or uid not in (None, held.uid):
                return False
            del self._archives[key]
            self._wanted.pop(key, None)
            return True

    def want_check(self, key: Key, token: str) -> bool:
        """Ask that the archive be read again. ``token``: tells this check from earlier ones; the same as long as that
        one will do. Returns whether it is news."""
        with self._lock:
            news = self._wanted.get(key) != token
            self._wanted[key] = token
            return news

    def forget_check(self, key: Key) -> None:
        """Nobody asks any more that the archive be read again."""
        with self._lock:
            self._wanted.pop(key, None)

    def wanted_check(self, key: Key) -> str | None:
        """The token of the check that was asked for last. After a restart it is asked for again."""
        with self._lock:
            return self._wanted.get(key)


class JobSlots:
    """At most so many Jobs at once. What runs is told by those who see Jobs; what is about to be made counts too."""

    def __init__(self, count: int, counts: Callable[[Key | None], bool] = lambda owner: True) -> None:
        """``counts``: whether a Job is one of ours now, by the archive that it is for."""
        self._lock = threading.Lock()
        self._count, self._counts = count, counts
        self._running: dict[Key, Key | None] = {}

    def take(self, job: Key, owner: Key | None = None) -> bool:
        """Whether the Job may be made, for the archive ``owner``. One that runs already may."""
        with self._lock:
            if job not in self._running and sum(map(self._counts, self._running.values())) >= self._count:
                return False
            self._running[job] = owner
            return True

    def saw(self, job: Key, running: bool, owner: Key | None = None) -> None:
        """The Job runs, or has ended or gone."""
        with self._lock:
            if running:
                self._running[job] = owner
            else:
                self._running.pop(job, None)

    def running(self) -> frozenset[Key]:
        """Those that hold a slot now, of whoever they are."""
        with self._lock:
            return frozenset(self._running)

    def listed(self, before: frozenset[Key], jobs: Mapping[Key, Key | None]) -> None:
        """``jobs`` run, each with its owner, as a full list shows. Others that held a slot ``before`` it was asked for
        are gone."""
        with self._lock:
            for gone in before - jobs.keys():
                self._running.pop(gone, None)
            self._running |= jobs
