"""What the API server shows of PartitionRestores and their Jobs -> which restores must be reconciled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..api.archive import SELECTOR
from ..api.restore import RESTORE_PLURAL
from ..kube.cache import RestoreCache, StoredArchive, StoredRestore, is_gone, parse_restore, vanished
from ..kube.client import JOBS, Cluster
from .job_slots import JobSlots
from .shard import Shard
from .workqueue import WorkQueue


class RestoreEventHandler:
    """Keep the cache of restores and the slots of their Jobs as the API server is; enqueue what changed. Safe for
    threads."""

    def __init__(
        self,
        cluster: Cluster,
        cache: RestoreCache,
        slots: JobSlots,
        shard: Shard,
        queue: WorkQueue,
        namespaces: Iterable[str] = (),
    ) -> None:
        """``namespaces``: that are listed, all where empty."""
        self._cluster, self._cache, self._slots, self._shard, self._queue = cluster, cache, slots, shard, queue
        self._scopes = tuple(namespaces) or (None,)

    def list(self) -> None:
        """Ask for all restores and all Jobs, in case a watch fell silent. Raises `ClusterUnavailable`."""
        before = self._cache.all()
        # Kept as they are cached: bodies as they come are many times larger.
        found = [(parse_restore(body), is_gone(body)) for body in self._objects(RESTORE_PLURAL)]
        for restore, gone in found:
            self._take_in(restore, gone)
        for restore in vanished(before, (restore for restore, _ in found)):
            self._remove(restore)
        self._cache.settle()
        held = self._slots.held()
        self._slots.listed(held, self._objects(JOBS, SELECTOR))
        if selector := self._shard.selector:
            selected = map(parse_restore, self._objects(RESTORE_PLURAL, selector))
            labels = {restore.key: restore.labels for restore in selected}
            for key in self._shard.refresh(self._cache.all(), labels):
                self._queue.enqueue(key)

    def on_restore(self, event: Any) -> None:
        """Take in an event of the watch of PartitionRestores."""
        if event["type"] == "DELETED":
            self._remove(parse_restore(event["object"]))
        else:
            self.seen(event["object"])

    def on_job(self, event: Any) -> None:
        """Take in an event of the watch of Jobs: count its slot, and enqueue its restore."""
        if restore := self._slots.saw(event["object"], deleted=event["type"] == "DELETED"):
            self._queue.enqueue(restore)

    def seen(self, body: Mapping[str, Any]) -> None:
        """The restore exists: enqueue it when it is new, or its labels changed."""
        self._take_in(parse_restore(body), is_gone(body))

    def _take_in(self, restore: StoredRestore, gone: bool) -> None:
        if gone:
            self._remove(restore)
            return
        if (update := self._cache.put(restore)) is None:
            return
        if update.before is None or _aim(update.before) != _aim(restore):
            self._queue.enqueue(restore.key)

    def archive_changed(self, archive: StoredArchive) -> None:
        """The result of an archive has changed: what waits for its proof goes on."""
        for restore in self._cache.indexed(archive.key):
            self._queue.enqueue(restore.key)

    def _objects(self, plural: str, selector: str = "") -> Iterator[dict[str, Any]]:
        return (body for scope in self._scopes for body in self._cluster.objects(plural, scope, selector))

    def _remove(self, restore: StoredRestore) -> None:
        """Its Job is deleted with it, by the API server; its table stays."""
        if self._cache.remove(restore.key, restore.uid, restore.version):
            self._queue.enqueue(restore.key)


def _aim(restore: StoredRestore) -> tuple[Any, ...]:
    """What decides what is to be done for it, and by which operator."""
    return restore.uid, restore.generation, restore.labels, restore.held
