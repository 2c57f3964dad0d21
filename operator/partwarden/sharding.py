"""Which archives are this operator's, where several share a fleet by a label selector each.

An archive follows its policy, whatever its own labels are. One that names none, or whose policy is gone, goes by its
own. So of operators whose selectors select each object once, exactly one works on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .archive_store import StoredArchive
from .selector import EVERYTHING, Selector
from .store import Store, StoredPolicy
from .workqueue import Key


def _nowhere(_: Key) -> bool:
    return False


class Shard:
    """Safe for threads. Without a selector everything is this operator's, and nothing is asked."""

    def __init__(
        self, policies: Store, selector: Selector = EVERYTHING, exists: Callable[[Key], bool] = _nowhere
    ) -> None:
        """``policies``: those that match. ``exists``: asks the API server for any; raises `ClusterUnavailable`."""
        self._policies, self._selector, self._exists = policies, selector, exists
        self._known: dict[Key, bool] = {}

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

    def refresh(self, archives: Iterable[StoredArchive]) -> list[Key]:
        """Ask anew which policies exist elsewhere. Returns the archives that are this operator's only since now.

        Raises `ClusterUnavailable`.
        """
        unclear = [each for each in archives if self.decided(each) is None]
        ours = {each.key for each in unclear if self.has(each)}
        self._known = {key: self._exists(key) for key in {each.policy for each in unclear if each.policy}}
        return [each.key for each in unclear if each.key not in ours and self.has(each)]
