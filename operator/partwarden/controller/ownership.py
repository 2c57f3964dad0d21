"""Who works on what: of several policies of one table the oldest, of several operators the one that selects it."""

from __future__ import annotations

import re
import threading
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ..api.types import ObjectKey
from ..kube.cache import Store, StoredArchive, StoredPolicy


class TableIdentity(NamedTuple):
    """One table of the world, by whatever names and addresses policies reach it."""

    server: str
    """`planner.inventory.Server.identity`."""
    oid: int


Age = tuple[str, ObjectKey]
"""Creation time, then namespace and name: the smallest is the oldest."""


class TableOwnership:
    """If several policies select one table, the oldest owns it; the others report PolicyConflict. Safe for threads."""

    def __init__(self, enqueue: Callable[[ObjectKey], None]) -> None:
        """``enqueue`` gets each policy that may own its table now, or does no longer."""
        self._lock = threading.Lock()
        self._enqueue = enqueue
        self._claims: dict[ObjectKey, tuple[TableIdentity, Age]] = {}
        self._by_table: defaultdict[TableIdentity, list[tuple[Age, ObjectKey]]] = defaultdict(list)
        """The same claims, the oldest first: it owns the table."""
        self._reconciled: set[ObjectKey] = set()

    def claim(self, key: ObjectKey, table: TableIdentity, age: Age) -> ObjectKey | None:
        """Claim the table for the policy, and give up its claim on another table.

        Returns the older policy that owns the table, None where this one does: then its owner until now is enqueued.
        """
        changed: list[ObjectKey] = []
        with self._lock:
            if self._claims.get(key) != (table, age):
                changed = self._leave(key)
                claims = self._by_table[table]
                insort(claims, (age, key))
                self._claims[key] = table, age
                if claims[0][1] == key:
                    changed += [other for _, other in claims[1:2]]
            owner = self._by_table[table][0][1]
        for other in changed:
            self._enqueue(other)
        return None if owner == key else owner

    def note(self, key: ObjectKey) -> None:
        """The policy has been reconciled once: what it claims is known from now on."""
        with self._lock:
            self._reconciled.add(key)

    def unknown(self, policy: StoredPolicy, policies: Store) -> ObjectKey | None:
        """An older policy, of a table of the same name, that has not been reconciled since this process began.

        It may own the table of ``policy`` without having claimed it yet.
        """
        rivals = [each for each in policies.indexed(policy.table) if each.age < policy.age and not each.suspended]
        with self._lock:
            return next((each.key for each in rivals if each.key not in self._reconciled), None)

    def older(self, key: ObjectKey) -> ObjectKey | None:
        """The oldest policy that claims the same table, None where that is this one."""
        with self._lock:
            claim = self._claims.get(key)
            owner = self._by_table[claim[0]][0][1] if claim else key
        return None if owner == key else owner

    def release(self, key: ObjectKey) -> None:
        """The policy is deleted, suspended, or names another table: if it owned its table, enqueue the others."""
        with self._lock:
            left = self._leave(key)
        for other in left:
            self._enqueue(other)

    def _leave(self, key: ObjectKey) -> list[ObjectKey]:
        """Take back the claim. Returns the other policies of the table where this one owned it."""
        if (claim := self._claims.pop(key, None)) is None:
            return []
        table, age = claim
        claims = self._by_table[table]
        position = bisect_left(claims, (age, key))
        del claims[position]
        if not claims:
            del self._by_table[table]
        return [other for _, other in claims] if position == 0 else []


def deciding_labels(selector: str, labels: Mapping[str, str]) -> dict[str, str]:
    """Those of the labels that the selector names: an object that has them and no others is selected just as well."""
    words = set(re.split(r"[\s,=!()<>]+", selector))
    return {name: value for name, value in labels.items() if name in words}


def _never(_: ObjectKey) -> bool:
    return False


class Shard:
    """Which archives are this operator's, where several share a fleet by a label selector each. Safe for threads.

    An archive follows its policy, whatever its own labels are. One that names none, or whose policy was deleted, goes
    by its own. So of operators whose selectors select each object once, exactly one works on it. Only the API server
    reads selectors: what it answered is remembered until the next list. Without a selector every archive is this
    operator's.
    """

    def __init__(
        self,
        policies: Store,
        selector: str = "",
        exists: Callable[[ObjectKey], bool] = _never,
        selects: Callable[[ObjectKey], bool] = _never,
    ) -> None:
        """``policies``: those that the selector selects. ``exists`` asks the API server for any policy, ``selects``
        whether the selector selects an archive; both raise `ClusterUnavailable`."""
        self.selector = selector
        self._policies, self._exists, self._selects = policies, exists, selects
        self._elsewhere: dict[ObjectKey, bool] = {}
        """Policies that are not this operator's, and whether they exist."""
        self._selected: dict[ObjectKey, tuple[Mapping[str, str], bool]] = {}
        """Whether the selector selects an archive, with the labels for which that was asked."""

    def policy(self, archive: StoredArchive) -> StoredPolicy | None:
        """The policy that it names, where this operator serves it."""
        return self._policies.get(archive.policy) if archive.policy else None

    def claims(self, archive: StoredArchive) -> bool:
        """Whether it is this operator's to work on. Asks where only that tells: raises `ClusterUnavailable`."""
        if self.decided(archive) is None and self._matches(archive) is None:
            self._selected[archive.key] = archive.labels, self._selects(archive.key)
        decided = self.decided(archive)
        if decided is not None or archive.policy is None:
            return bool(decided)
        # One that exists and is selected comes into the store any moment, and brings its archives.
        self._elsewhere[archive.policy] = exists = self._exists(archive.policy)
        return not exists

    def has(self, archive: StoredArchive | None) -> bool:
        """The same by what is known by now. None: an archive that was deleted, and belongs to no shard."""
        if not self.selector or archive is None:
            return not self.selector
        decided = self.decided(archive)
        if decided is not None or archive.policy is None:
            return bool(decided)
        return self._matches(archive) is True and not self._elsewhere.get(archive.policy, True)

    def decided(self, archive: StoredArchive) -> bool | None:
        """The same by what is certain; None where the API server has to be asked."""
        if not self.selector or self.policy(archive):
            return True
        matches = self._matches(archive)
        return None if matches and archive.policy else matches

    def refresh(
        self, archives: Iterable[StoredArchive], selected: Mapping[ObjectKey, Mapping[str, str]]
    ) -> list[ObjectKey]:
        """After a list of all archives and then one of the ``selected``, with their labels: ask anew which policies
        exist elsewhere. Returns the archives that are this operator's only since now. Raises `ClusterUnavailable`."""
        listed = list(archives)
        before = {archive.key for archive in listed if self.has(archive)}
        others = {archive.key: (archive.labels, False) for archive in listed}
        self._selected = others | {key: (labels, True) for key, labels in selected.items()}
        unclear = {archive.policy for archive in listed if archive.policy and self.decided(archive) is None}
        self._elsewhere = {key: self._exists(key) for key in unclear}
        return [archive.key for archive in listed if archive.key not in before and self.has(archive)]

    def _matches(self, archive: StoredArchive) -> bool | None:
        labels, selected = self._selected.get(archive.key, (None, False))
        return selected if labels == archive.labels else None
