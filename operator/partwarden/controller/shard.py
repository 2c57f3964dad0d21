"""Which archives and restores are one operator's, of several that share a fleet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

from ..api.types import ObjectKey
from ..kube.cache import Store, StoredOfPolicy, StoredPolicy

MOST_ASKED = 10
"""Policies of one namespace that are asked for one by one."""


class Shard:
    """Which archives, or restores, are this operator's, where several share a fleet by selectors. Safe for threads.

    An archive follows its policy, whatever its own labels are. One that names none, or whose policy was deleted, goes
    by its own. So of operators whose selectors select each object once, exactly one works on it. Only the API server
    reads selectors: what it answered is remembered until the next list. Without a selector every archive is this
    operator's.
    """

    def __init__(
        self,
        policies: Store,
        selector: str = "",
        exists: Callable[[ObjectKey], bool] = lambda key: False,
        selects: Callable[[ObjectKey], bool] = lambda key: False,
        existing: Callable[[str], Collection[ObjectKey]] = lambda namespace: (),
    ) -> None:
        """``policies``: those that the selector selects. ``exists`` asks the API server for any policy, ``selects``
        whether the selector selects an archive, and ``existing`` for the policies of a namespace, of whatever operator;
        all raise `ClusterUnavailable`."""
        self.selector = selector
        self._policies, self._exists, self._selects, self._existing = policies, exists, selects, existing
        self._elsewhere: dict[ObjectKey, bool] = {}
        """Policies that are not this operator's, and whether they exist."""
        self._selected: dict[ObjectKey, tuple[Mapping[str, str], bool]] = {}
        """Whether the selector selects an archive, with the labels for which that was asked."""

    def policy(self, archive: StoredOfPolicy) -> StoredPolicy | None:
        """The policy that it names, where this operator serves it."""
        return self._policies.get(archive.policy) if archive.policy else None

    def claims(self, archive: StoredOfPolicy) -> bool:
        """Whether it is this operator's to work on. Asks where only that tells: raises `ClusterUnavailable`."""
        if self.decided(archive) is None and self._matches(archive) is None:
            self._selected[archive.key] = archive.labels, self._selects(archive.key)
        decided = self.decided(archive)
        if decided is not None or archive.policy is None:
            return bool(decided)
        # One that exists and is selected comes into the store any moment, and brings its archives.
        self._elsewhere[archive.policy] = exists = self._exists(archive.policy)
        return not exists

    def has(self, archive: StoredOfPolicy | None) -> bool:
        """The same by what is known by now. None: an archive that was deleted, and belongs to no shard."""
        if not self.selector or archive is None:
            return not self.selector
        decided = self.decided(archive)
        if decided is not None or archive.policy is None:
            return bool(decided)
        return self._matches(archive) is True and not self._elsewhere.get(archive.policy, True)

    def decided(self, archive: StoredOfPolicy) -> bool | None:
        """The same by what is certain; None where the API server has to be asked."""
        if not self.selector or self.policy(archive):
            return True
        matches = self._matches(archive)
        return None if matches and archive.policy else matches

    def refresh(
        self, archives: Iterable[StoredOfPolicy], selected: Mapping[ObjectKey, Mapping[str, str]]
    ) -> list[ObjectKey]:
        """After a list of all archives and then one of the ``selected``, with their labels: ask anew which policies
        exist elsewhere. Returns the archives that are this operator's only since now. Raises `ClusterUnavailable`."""
        listed = list(archives)
        before = {archive.key for archive in listed if self.has(archive)}
        others = {archive.key: (archive.labels, False) for archive in listed}
        self._selected = others | {key: (labels, True) for key, labels in selected.items()}
        unclear = defaultdict[str, set[ObjectKey]](set)
        for archive in listed:
            if archive.policy and self.decided(archive) is None:
                unclear[archive.key[0]].add(archive.policy)
        elsewhere: dict[ObjectKey, bool] = {}
        for namespace, keys in unclear.items():
            # A namespace may have thousands that name as many policies: one request each would take minutes.
            there = self._existing(namespace) if len(keys) > MOST_ASKED else [*filter(self._exists, keys)]
            elsewhere |= {key: key in there for key in keys}
        self._elsewhere = elsewhere
        return [archive.key for archive in listed if archive.key not in before and self.has(archive)]

    def _matches(self, archive: StoredOfPolicy) -> bool | None:
        labels, selected = self._selected.get(archive.key, (None, False))
        return selected if labels == archive.labels else None
