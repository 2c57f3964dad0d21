"""What the API server shows -> which policies, archives and restores must be reconciled.

A watch is quick but may fall silent or miss a deletion; a full list now and then puts that right. Both end here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..api.archive import ARCHIVE_PLURAL, SELECTOR
from ..api.types import ObjectKey
from ..kube.cache import (
    ArchiveCache,
    Store,
    StoredArchive,
    StoredPolicy,
    is_gone,
    parse_archive,
    parse_policy,
    vanished,
)
from ..kube.client import JOBS, Cluster
from .archive_status import trouble
from .job_slots import JobSlots
from .ownership import TableOwnership
from .shard import Shard
from .workqueue import WorkQueue


class PolicyEventHandler:
    """Keep the cache of policies as the API server is; enqueue what changed. Safe for threads."""

    def __init__(
        self,
        store: Store,
        ownership: TableOwnership,
        queue: WorkQueue,
        moved: Callable[[ObjectKey, bool], None] = lambda key, here: None,
    ) -> None:
        """``moved`` gets each policy that this operator serves from now on, or no longer."""
        self._store, self._ownership, self._queue, self._moved = store, ownership, queue, moved

    def on_policy(self, event: Any) -> None:
        """Take in an event of the watch of PartitionPolicies."""
        (self.deleted if event["type"] == "DELETED" else self.seen)(event["object"])

    def seen(self, body: Mapping[str, Any]) -> None:
        """The policy exists, and the selector selects it. It is enqueued when its spec, a hold or an approval is news;
        other metadata and the status enqueue nothing."""
        self._take_in(parse_policy(body), is_gone(body))

    def _take_in(self, policy: StoredPolicy, gone: bool) -> None:
        if gone:
            self._remove(policy, policy.version)
            return
        update = self._store.put(policy)
        before = update.before if update else policy
        if before is not None and before.edition == policy.edition:
            return
        if before is None:
            self._moved(policy.key, True)
        elif _policy_aim(before) != _policy_aim(policy):
            self._ownership.release(policy.key)
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
        """All policies that the selector selects, with those that the store held before the list was asked for.

        Raises what ``bodies`` raises: nothing is taken in then.
        """
        # Kept as they are stored: a fleet's bodies as they come are many times larger.
        listed = [(parse_policy(body), is_gone(body)) for body in bodies]
        # The older policy of a table is taken from the queue first, and claims it before a younger one begins.
        for policy, gone in sorted(listed, key=lambda each: each[0].age):
            self._take_in(policy, gone)
        for policy in vanished(before, (policy for policy, _ in listed)):
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


class ArchiveEventHandler:
    """Keep the cache of archives and the slots of Jobs as the API server is; enqueue what changed. Safe for threads."""

    def __init__(
        self,
        cluster: Cluster,
        cache: ArchiveCache,
        slots: JobSlots,
        shard: Shard,
        queue: WorkQueue,
        policies: WorkQueue,
        namespaces: Iterable[str] = (),
        proven: Callable[[StoredArchive], None] = lambda archive: None,
    ) -> None:
        """``queue``: of archives; ``policies``: of policies; ``namespaces``: that are listed, all where empty;
        ``proven`` gets each archive whose result has changed."""
        self._proven = proven
        self._cluster, self._cache, self._slots, self._shard = cluster, cache, slots, shard
        self._queue, self._policies = queue, policies
        self._scopes = tuple(namespaces) or (None,)

    def list(self) -> None:
        """Ask for all archives and all Jobs, in case a watch fell silent. Raises `ClusterUnavailable`.

        Those of other operators, too: an archive follows its policy, which may become this operator's.
        """
        before = self._cache.all()
        self.listed(before, self._objects(ARCHIVE_PLURAL))
        held = self._slots.held()
        self._slots.listed(held, self._objects(JOBS, SELECTOR))
        if selector := self._shard.selector:
            selected = map(parse_archive, self._objects(ARCHIVE_PLURAL, selector))
            for key in self._shard.refresh(self._cache.all(), {archive.key: archive.labels for archive in selected}):
                self._queue.enqueue(key)

    def _objects(self, plural: str, selector: str = "") -> Iterator[dict[str, Any]]:
        return (body for scope in self._scopes for body in self._cluster.objects(plural, scope, selector))

    def on_archive(self, event: Any) -> None:
        """Take in an event of the watch of PartitionArchives."""
        (self.deleted if event["type"] == "DELETED" else self.seen)(event["object"])

    def on_job(self, event: Any) -> None:
        """Take in an event of the watch of Jobs."""
        self.job_seen(event["object"], gone=event["type"] == "DELETED")

    def seen(self, body: Mapping[str, Any]) -> None:
        """The archive exists: enqueue it when its spec or labels changed, and its policy when its result did."""
        self._take_in(parse_archive(body), is_gone(body))

    def _take_in(self, archive: StoredArchive, gone: bool) -> None:
        if gone:
            self._remove(archive, archive.version)
            return
        update = self._cache.put(archive)
        if update is None:
            return
        before = update.before
        if before is None or _archive_aim(before) != _archive_aim(archive):
            self._queue.enqueue(archive.key)
        if before is None or before.uid != archive.uid or _result(before) != _result(archive):
            self._enqueue_policy(archive)
            self._proven(archive)

    def deleted(self, body: Mapping[str, Any]) -> None:
        """The archive exists no longer. Its Job is deleted with it; at its destination everything stays."""
        archive = parse_archive(body)
        self._remove(archive, archive.version)

    def listed(self, before: Iterable[StoredArchive], bodies: Iterable[Mapping[str, Any]]) -> None:
        """Take in all archives that there are, with those that the cache held before the list was asked for."""
        # Kept as they are cached: bodies as they come are many times larger.
        found = [(parse_archive(body), is_gone(body)) for body in bodies]
        for archive, gone in found:
            self._take_in(archive, gone)
        for archive in vanished(before, (archive for archive, _ in found)):
            self._remove(archive, archive.version)
        self._cache.settle()

    def job_seen(self, body: Mapping[str, Any], gone: bool = False) -> None:
        """A Job was made, changed or deleted: count its slot, and enqueue its archive."""
        if archive := self._slots.saw(body, deleted=gone):
            self._queue.enqueue(archive)

    def _remove(self, archive: StoredArchive, version: int) -> None:
        if self._cache.remove(archive.key, archive.uid, version):
            self._queue.enqueue(archive.key)
            self._enqueue_policy(archive)

    def _enqueue_policy(self, archive: StoredArchive) -> None:
        if archive.policy:
            self._policies.enqueue(archive.policy)


def _archive_aim(archive: StoredArchive) -> tuple[Any, ...]:
    """What decides what is to be done for it, and by which operator."""
    return archive.uid, archive.generation, archive.labels, archive.held


def _result(archive: StoredArchive) -> tuple[Any, ...]:
    """What a policy decides by."""
    status = archive.status
    proven = status.get("manifestSha256"), status.get("check"), status.get("oid"), status.get("lastVerified")
    return *proven, trouble(status), archive.expired
