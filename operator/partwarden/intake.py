"""What the API server shows of the policies -> which of them must be worked on.

A watch is quick but may fall silent or miss a deletion; a full list now and then puts that right. Both end here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .claims import Claims
from .store import Store, StoredPolicy, is_gone, parse, vanished
from .workqueue import WorkQueue


class Intake:
    """Keeps the store as the API server is, and wakes what changed. Safe for threads."""

    def __init__(self, store: Store, claims: Claims, queue: WorkQueue) -> None:
        self._store = store
        self._claims = claims
        self._queue = queue

    def seen(self, body: Mapping[str, Any]) -> None:
        """The policy exists. It is woken when its spec or its hold is news; other metadata and status wake nobody."""
        policy = parse(body)
        if is_gone(body):
            self._remove(policy)
            return
        before = self._store.get(policy.key)
        if self._store.put(policy):
            if before is not None and _aim(before) != _aim(policy):
                self._claims.release(policy.key)
            self._queue.wake(policy.key)

    def deleted(self, body: Mapping[str, Any]) -> None:
        """The policy exists no longer. Nothing is done to its database."""
        self._remove(parse(body))

    def listed(self, before: Iterable[StoredPolicy], bodies: Iterable[Mapping[str, Any]]) -> None:
        """All policies that there are, with those that the store held before the list was asked for."""
        found = list(bodies)
        for body in found:
            self.seen(body)
        for policy in vanished(before, map(parse, found)):
            self._remove(policy)

    def _remove(self, policy: StoredPolicy) -> None:
        if self._store.remove(policy.key, policy.uid):
            self._claims.release(policy.key)
            self._queue.wake(policy.key)  # once more, to forget what was remembered of it


def _aim(policy: StoredPolicy) -> tuple[Any, Any, str]:
    """What decides which table the policy means."""
    return policy.spec.get("database"), policy.spec.get("table"), policy.uid
