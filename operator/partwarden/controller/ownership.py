"""Which archives are this operator's, where several share a fleet by a label selector each.

An archive follows its policy, whatever its own labels are. One that names none, or whose policy is gone, goes by its
own. So of operators whose selectors select each object once, exactly one works on it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..api.types import ObjectKey
from ..kube.cache import Store, StoredArchive, StoredPolicy
from ..kube.selector import EVERYTHING, Selector

# Which policy has which table: of several that mean one table, the oldest works and the others say so.
#


class TableIdentity(NamedTuple):
    """One table of the world, by whatever names and addresses policies reach it."""

    server: str
    """`partwarden.inventory.Server.identity`."""
    oid: int


Age = tuple[str, ObjectKey]
"""Creation time, then namespace and name: the smallest wins."""


class TableOwnership:
    """Claims of policies on tables, safe for threads. ``wake`` is called with each policy whose turn it may now be."""

    def __init__(self, enqueue: Callable[[ObjectKey], None]) -> None:
        self._lock = threading.Lock()
        self._wake = enqueue
        self._held: dict[ObjectKey, tuple[TableIdentity, Age]] = {}

    def claim(self, key: ObjectKey, table: TableIdentity, age: Age) -> ObjectKey | None:
        """Say that the policy means the table. Returns the policy that has it instead, None when this one has.

        A claim on another table is given up. An elder that comes later takes over: the younger one is woken.
        """
        with self._lock:
            before = self._held.get(key)
            left = self._others(key, before[0]) if before and before[0] != table else []
            self._held[key] = (table, age)
            rivals = self._others(key, table)
            winner = min([(age, key), *((self._held[each][1], each) for each in rivals)])[1]
            took_over = winner == key and (before is None or before[0] != table)
        self._wake_all([*left, *(rivals if took_over else [])])
        return None if winner == key else winner

    def release(self, key: ObjectKey) -> None:
        """The policy is deleted, suspended, or means something else: whoever waited for its table is woken."""
        with self._lock:
            before = self._held.pop(key, None)
            left = self._others(key, before[0]) if before else []
        self._wake_all(left)

    def _others(self, key: ObjectKey, table: TableIdentity) -> list[ObjectKey]:
        return [each for each, (held, _) in self._held.items() if each != key and held == table]

    def _wake_all(self, keys: Iterable[ObjectKey]) -> None:
        for key in keys:
            self._wake(key)


def _nowhere(_: ObjectKey) -> bool:
    return False


class Shard:
    """Safe for threads. Without a selector everything is this operator's, and nothing is asked."""

    def __init__(
        self, policies: Store, selector: Selector = EVERYTHING, exists: Callable[[ObjectKey], bool] = _nowhere
    ) -> None:
        """``policies``: those that match. ``exists``: asks the API server for any; raises `ClusterUnavailable`."""
        self._policies, self._selector, self._exists = policies, selector, exists
        self._known: dict[ObjectKey, bool] = {}

    def policy(self, archive: StoredArchive) -> StoredPolicy | None:
        """The policy that it names, where this operator serves it."""
        return self._policies.get(archive.policy) if archive.policy else None

    def claims(self, archive: StoredArchive) -> bool:
        """Whether it is this operator's to work on. Asks where only that tells: raises `ClusterUnavailable`."""
        decided = self.decided(archive)
        if decided is not None:
            return decided
        assert archive.policy is not None
        # One that exists and matches comes into the store any moment, and brings its archives.
        self._known[archive.policy] = exists = self._exists(archive.policy)
        return not exists

    def has(self, archive: StoredArchive | None) -> bool:
        """The same by what is known by now. None: an archive that is gone, and is nobody's."""
        if not self._selector or archive is None:
            return not self._selector
        decided = self.decided(archive)
        return decided if decided is not None else not self._known.get(archive.policy or ("", ""), True)

    def decided(self, archive: StoredArchive) -> bool | None:
        """The same without asking; None where it has to be asked whether its policy exists elsewhere."""
        if not self._selector or self.policy(archive):
            return True
        if not self._selector.matches(archive.labels):
            return False
        return True if archive.policy is None else None

    def refresh(self, archives: Iterable[StoredArchive]) -> list[ObjectKey]:
        """Ask anew which policies exist elsewhere. Returns the archives that are this operator's only since now.

        Raises `ClusterUnavailable`.
        """
        unclear = [each for each in archives if self.decided(each) is None]
        ours = {each.key for each in unclear if self.has(each)}
        self._known = {key: self._exists(key) for key in {each.policy for each in unclear if each.policy}}
        return [each.key for each in unclear if each.key not in ours and self.has(each)]
