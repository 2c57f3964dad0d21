"""What the API server shows of the policies -> which of them must be worked on.

A watch is quick but may fall silent or miss a deletion; a full list now and then puts that right. Both end here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .claims import Claims
from .selector import EVERYTHING, Selector
from .store import Store, StoredPolicy, is_gone, parse, vanished
from .workqueue import Key, WorkQueue


class Intake:
    """Keeps the store as the API server is, and wakes what changed. Safe for threads."""

    def __init__(
        self,
        store: Store,
        claims: Claims,
        queue: WorkQueue,
        selector: Selector = EVERYTHING,
        moved: Callable[[Key, bool], None] = lambda key, here: None,
    ) -> None:
        """``selector``: of the policies that are served. ``moved`` is told of each that is from now on, or no more."""
        self._store, self._claims, self._queue = store, claims, queue
        self._selector, self._moved = selector, moved

    def seen(self, body: Mapping[str, Any]) -> None:
        """The policy exists. It is woken when its spec or its hold is news; other metadata and status wake nobody.

        One whose labels match no more is forgotten: what a write of its status returns may show that first.
        """
        policy = parse(body)
        if is_gone(body) or not self._selector.matches(policy.labels):
            self._remove(policy, policy.version)
            return
        before = self._store.get(policy.key)
        if self._store.put(policy):
            if before is not None and _aim(before) != _aim(policy):
                self._claims.release(policy.key)
            if before is None:
                self._moved(policy.key, True)
            self._queue.wake(policy.key)

    def deleted(self, body: Mapping[str, Any]) -> None:
        """The policy exists no longer, or matches no more. Nothing is done to its database, nor to its status."""
        policy = parse(body)
        self._remove(policy, policy.version)

    def gone(self, policy: StoredPolicy) -> None:
        """A write has shown that it exists no longer, whatever was seen of it last."""
        self._remove(policy, None)

    def listed(self, before: Iterable[StoredPolicy], bodies: Iterable[Mapping[str, Any]]) -> None:
        """All policies that match, with those that the store held before the list was asked for."""
        found = list(bodies)
        for body in found:
            self.seen(body)
        for policy in vanished(before, map(parse, found)):
            self._remove(policy, policy.version)
        self._store.settle()

    def _remove(self, policy: StoredPolicy, version: int | None) -> None:
        if self._store.remove(policy.key, policy.uid, version):
            self._claims.release(policy.key)
            self._moved(policy.key, False)
            self._queue.wake(policy.key)  # once more, to forget what was remembered of it


def _aim(policy: StoredPolicy) -> tuple[Any, Any, str]:
    """What decides which table the policy means."""
    return policy.spec.get("database"), policy.spec.get("table"), policy.uid
