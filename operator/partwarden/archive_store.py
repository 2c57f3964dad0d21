"""The PartitionArchives as the API server last showed them, which Jobs run, and which checks are wanted. In memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .archive_policy import KIND, PLURAL
from .workqueue import Key


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
    return StoredArchive(
        key=(meta["namespace"], meta["name"]),
        uid=meta["uid"],
        generation=meta.get("generation", 0),
        version=int(meta["resourceVersion"]),
        spec=body.get("spec") or {},
        status_json=_written(body.get("status") or {}),
    )


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

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._count = count
        self._running: set[Key] = set()

    def take(self, job: Key) -> bool:
        """Whether the Job may be made. One that runs already may."""
        with self._lock:
            if job not in self._running and len(self._running) >= self._count:
                return False
            self._running.add(job)
            return True

    def saw(self, job: Key, running: bool) -> None:
        """The Job runs, or has ended or gone."""
        with self._lock:
            (self._running.add if running else self._running.discard)(job)

    def running(self) -> frozenset[Key]:
        """Those that hold a slot now."""
        with self._lock:
            return frozenset(self._running)

    def listed(self, before: Iterable[Key], jobs: Iterable[Key]) -> None:
        """``jobs`` run, as a full list shows. Others that held a slot ``before`` it was asked for are gone."""
        with self._lock:
            found = set(jobs)
            self._running -= set(before) - found
            self._running |= found
