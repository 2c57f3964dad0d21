"""What the API server shows of archives and of their Jobs -> which of them, and which policies, must be looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .archive_conditions import trouble
from .archive_policy import KIND
from .archive_store import ArchiveStore, JobSlots, StoredArchive, parse
from .job import MANAGED
from .store import is_gone
from .workqueue import Key, WorkQueue

ENDED = ("Complete", "Failed")


class ArchiveIntake:
    """Keeps the store and the slots as the API server is, and wakes what changed. Safe for threads."""

    def __init__(self, store: ArchiveStore, slots: JobSlots, queue: WorkQueue, policies: WorkQueue) -> None:
        """``queue``: of archives; ``policies``: that of their policies."""
        self._store, self._slots, self._queue, self._policies = store, slots, queue, policies

    def seen(self, body: Mapping[str, Any]) -> None:
        """The archive exists. What its spec says, or what became of it, is news to itself or to its policy."""
        archive = parse(body)
        if is_gone(body):
            self._gone(archive)
            return
        before = self._store.put(archive)
        if before is archive:
            return
        if before is None or _aim(before) != _aim(archive):
            self._queue.wake(archive.key)
        if before is None or before.uid != archive.uid or _result(before) != _result(archive):
            self._tell(archive)

    def deleted(self, body: Mapping[str, Any]) -> None:
        """The archive exists no longer. Its Job is deleted with it; at its destination everything stays."""
        self._gone(parse(body))

    def listed(self, before: Iterable[StoredArchive], bodies: Iterable[Mapping[str, Any]]) -> None:
        """All archives that there are, with those that the store held before the list was asked for."""
        found = list(bodies)
        for body in found:
            self.seen(body)
        uids = {body["metadata"]["uid"] for body in found}
        for archive in before:
            if archive.uid not in uids:
                self._gone(archive)

    def job_seen(self, body: Mapping[str, Any], gone: bool = False) -> None:
        """A Job was made, changed or deleted: its archive has a look at it."""
        if not is_ours(body):
            return
        owner = _owner(body)
        self._slots.saw(_key(body), not gone and is_running(body), owner)
        if owner:
            self._queue.wake(owner)

    def jobs_listed(self, before: frozenset[Key], bodies: Iterable[Mapping[str, Any]]) -> None:
        """All Jobs that there are, with those that held a slot before the list was asked for."""
        self._slots.listed(before, {_key(each): _owner(each) for each in bodies if is_ours(each) and is_running(each)})

    def _gone(self, archive: StoredArchive) -> None:
        if self._store.remove(archive.key, archive.uid):
            self._queue.wake(archive.key)
            self._tell(archive)

    def _tell(self, archive: StoredArchive) -> None:
        if archive.policy:
            self._policies.wake(archive.policy)


def is_ours(body: Mapping[str, Any]) -> bool:
    """Whether this program made the Job."""
    labels = body["metadata"].get("labels") or {}
    return bool(labels.items() >= MANAGED.items())


def is_running(body: Mapping[str, Any]) -> bool:
    """Whether the Job may have a pod at work, now or later."""
    conditions = (body.get("status") or {}).get("conditions") or []
    return not any(each.get("type") in ENDED and each.get("status") == "True" for each in conditions)


def _aim(archive: StoredArchive) -> tuple[Any, ...]:
    """What decides what is to be done for it, and by whom."""
    return archive.uid, archive.generation, archive.labels


def _result(archive: StoredArchive) -> tuple[Any, ...]:
    """What a policy decides by."""
    status = archive.status
    return status.get("manifestSha256"), status.get("check"), status.get("oid"), trouble(status)


def _key(body: Mapping[str, Any]) -> Key:
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _owner(body: Mapping[str, Any]) -> Key | None:
    for each in body["metadata"].get("ownerReferences") or []:
        if each.get("kind") == KIND:
            return body["metadata"]["namespace"], each["name"]
    return None
