"""What the API server shows of policies, archives and Jobs -> what is kept in memory, and which keys are enqueued."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..api.archive import ARCHIVE_KIND, MANAGED
from ..api.types import ObjectKey
from ..kube.cache import (
    ArchiveStore,
    Store,
    StoredArchive,
    StoredPolicy,
    is_gone,
    parse_archive,
    parse_policy,
    vanished,
)
from .archive_job import JobSlots
from .archive_status import trouble
from .ownership import TableOwnership
from .workqueue import WorkQueue


class PolicyEventHandler:
    """Keeps the store of policies as the API server is, and enqueues what changed. Safe for threads.

    A watch is quick but may fall silent or miss a deletion; a full list now and then puts that right. Both end here.
    """

    def __init__(
        self,
        store: Store,
        ownership: TableOwnership,
        queue: WorkQueue,
        moved: Callable[[ObjectKey, bool], None] = lambda key, here: None,
    ) -> None:
        """``moved`` gets each policy that this operator serves from now on, or no longer."""
        self._store, self._ownership, self._queue, self._moved = store, ownership, queue, moved

    def seen(self, body: Mapping[str, Any]) -> None:
        """The policy exists, and the selector selects it. It is enqueued when its spec, a hold or an approval is news;
        other metadata and the status enqueue nothing."""
        policy = parse_policy(body)
        if is_gone(body):
            self._remove(policy, policy.version)
            return
        before = self._store.get(policy.key)
        if self._store.put(policy):
            if before is not None and _policy_aim(before) != _policy_aim(policy):
                self._ownership.release(policy.key)
            if before is None:
                self._moved(policy.key, True)
            self._queue.enqueue(policy.key)

    def deleted(self, body: Mapping[str, Any]) -> None:
        """The policy exists no longer, or the selector does not select it any more. Its database and its status
        stay as they are."""
        policy = parse_policy(body)
        self._remove(policy, policy.version)

    def gone(self, policy: StoredPolicy) -> None:
        """A write has shown that it exists no longer, whatever was seen of it last."""
        self._remove(policy, None)

    def listed(self, before: Iterable[StoredPolicy], bodies: Iterable[Mapping[str, Any]]) -> None:
        """All policies that the selector selects, with those that the store held before the list was asked for."""
        # The older policy of a table is taken from the queue first, and claims it before a younger one begins.
        listed = sorted(bodies, key=lambda body: str(body["metadata"]["creationTimestamp"]))
        for body in listed:
            self.seen(body)
        for policy in vanished(before, map(parse_policy, listed)):
            self._remove(policy, policy.version)
        self._store.settle()

    def _remove(self, policy: StoredPolicy, version: int | None) -> None:
        if self._store.remove(policy.key, policy.uid, version):
            self._ownership.release(policy.key)
            self._moved(policy.key, False)
            self._queue.enqueue(policy.key)  # once more, to forget what was remembered of it


def _policy_aim(policy: StoredPolicy) -> tuple[Any, Any, str]:
    """What decides which table the policy means."""
    return policy.spec.get("database"), policy.spec.get("table"), policy.uid


ENDED = ("Complete", "Failed")


class ArchiveEventHandler:
    """Keeps the store and the slots as the API server is, and wakes what changed. Safe for threads."""

    def __init__(self, store: ArchiveStore, slots: JobSlots, queue: WorkQueue, policies: WorkQueue) -> None:
        """``queue``: of archives; ``policies``: that of their policies."""
        self._store, self._slots, self._queue, self._policies = store, slots, queue, policies

    def seen(self, body: Mapping[str, Any]) -> None:
        """The archive exists. What its spec says, or what became of it, is news to itself or to its policy."""
        archive = parse_archive(body)
        if is_gone(body):
            self._gone(archive)
            return
        before = self._store.put(archive)
        if before is archive:
            return
        if before is None or _archive_aim(before) != _archive_aim(archive):
            self._queue.enqueue(archive.key)
        if before is None or before.uid != archive.uid or _result(before) != _result(archive):
            self._tell(archive)

    def deleted(self, body: Mapping[str, Any]) -> None:
        """The archive exists no longer. Its Job is deleted with it; at its destination everything stays."""
        self._gone(parse_archive(body))

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
            self._queue.enqueue(owner)

    def jobs_listed(self, before: frozenset[ObjectKey], bodies: Iterable[Mapping[str, Any]]) -> None:
        """All Jobs that there are, with those that held a slot before the list was asked for."""
        self._slots.listed(before, {_key(each): _owner(each) for each in bodies if is_ours(each) and is_running(each)})

    def _gone(self, archive: StoredArchive) -> None:
        if self._store.remove(archive.key, archive.uid):
            self._queue.enqueue(archive.key)
            self._tell(archive)

    def _tell(self, archive: StoredArchive) -> None:
        if archive.policy:
            self._policies.enqueue(archive.policy)


def is_ours(body: Mapping[str, Any]) -> bool:
    """Whether this program made the Job."""
    labels = body["metadata"].get("labels") or {}
    return bool(labels.items() >= MANAGED.items())


def is_running(body: Mapping[str, Any]) -> bool:
    """Whether the Job may have a pod at work, now or later."""
    conditions = (body.get("status") or {}).get("conditions") or []
    return not any(each.get("type") in ENDED and each.get("status") == "True" for each in conditions)


def _archive_aim(archive: StoredArchive) -> tuple[Any, ...]:
    """What decides what is to be done for it, and by whom."""
    return archive.uid, archive.generation, archive.labels


def _result(archive: StoredArchive) -> tuple[Any, ...]:
    """What a policy decides by."""
    status = archive.status
    return status.get("manifestSha256"), status.get("check"), status.get("oid"), trouble(status)


def _key(body: Mapping[str, Any]) -> ObjectKey:
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _owner(body: Mapping[str, Any]) -> ObjectKey | None:
    for each in body["metadata"].get("ownerReferences") or []:
        if each.get("kind") == ARCHIVE_KIND:
            return body["metadata"]["namespace"], each["name"]
    return None
