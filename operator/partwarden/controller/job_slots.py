"""Slots: how many Jobs run at the same time, whose they are, and which archive is next.

Restores have slots of their own, as many, so that none waits for a backlog of archives: what is said here of archives
is said of them, too.

A Job holds a slot while it has not ended and its controller is, by UID, a PartitionArchive of this operator: whatever
else bears the labels of such Jobs, in whichever namespace, holds none. A Job of which no pod has run for
`job_status.PENDING_LONG` holds none either. One namespace has half of the slots at most, and one at least.

Archives without a slot wait in memory. When a slot is free, the one that is next is reconciled: of the namespace with
the fewest Jobs, of several that which was served longest ago, the oldest archive. So nothing is polled. Nor does it
cost more the more of them wait: of each namespace only the first is examined.

A Job that no table waits for (`archive_job.BESIDE`) comes after those that one waits for, until it has waited for
`PATIENT`; of those of one namespace the one that has waited longest is the first. Until then it never takes the last
slot that its namespace may have, or that there is, where there is more than one; and at all times those Jobs have half
of a namespace's slots at most, or the only one.
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from ..api.archive import ARCHIVE_KIND, MANAGED
from ..api.types import ObjectKey
from ..kube.cache import ObjectCache, StoredArchive, StoredOfPolicy, StoredRestore
from .archive_job import Owner, controller_of, is_beside
from .job_status import end_of, idle_since, is_pending_long
from .runtime import share, utc_now
from .settings import Settings
from .shard import Shard

MOST_PENDING = 4
"""Jobs of one namespace that have been pending for long, beside which no other is created: all may start at once."""
MOST_SEEN = 200
"""Jobs of one namespace that are kept beside those of the operator: more than any share, however many others make."""


PATIENT = timedelta(hours=12)
"""After which a Job that no table waits for has its turn like any other."""


Line = tuple[str, bool]
"""The archives of one namespace that wait, and for which of the two kinds of Jobs."""


class Waiting(NamedTuple):
    """An archive without a slot. ``age`` sorts the oldest first; ``beside``: as `archive_job.is_beside`."""

    age: tuple[str, ObjectKey]
    beside: bool
    since: datetime

    @property
    def line(self) -> Line:
        """Where it waits."""
        return self.age[1][0], self.beside

    @property
    def turn(self) -> tuple[Any, ...]:
        """Sorts those of one line."""
        return (self.since, self.age) if self.beside else self.age


class Slot(NamedTuple):
    """``idle``: since when no pod of the Job has run, None while one does."""

    owner: Owner
    idle: datetime | None = None


class JobSlots:
    """At most `Settings.jobs` Jobs at once, safe for threads. Jobs about to be created count, too."""

    def __init__(
        self,
        settings: Settings,
        archives: ObjectCache[StoredArchive] | ObjectCache[StoredRestore],
        shard: Shard,
        wake: Callable[[ObjectKey], None],
        clock: Callable[[], datetime] = utc_now,
        kind: str = ARCHIVE_KIND,
    ) -> None:
        """``wake`` has an archive reconciled that waits and is next. ``kind``: of the objects in ``archives``."""
        self._archives, self._shard, self._wake, self._clock = archives, shard, wake, clock
        self._kind = kind
        self._lock = threading.Lock()
        self._count = settings.jobs
        self._share = share(self._count, len(settings.namespaces))
        self._slots: defaultdict[str, dict[str, Slot]] = defaultdict(dict)
        """By namespace and name of the Job."""
        self._waiting: dict[ObjectKey, Waiting] = {}
        self._lines: dict[Line, list[Waiting]] = {}
        """The same in the order of their turns: a namespace may let any number wait, and of each only a few are
        examined."""
        self._served, self._numbers = Counter[str](), itertools.count(1)
        """The number of the last slot that each namespace was given."""

    @property
    def why_not(self) -> str:
        """What an archive waits for that is given no slot: the same text for as long as it waits."""
        return (
            f"as many Jobs run as PARTWARDEN_JOBS allows, {self._count} in all and {self._share} of one namespace, or "
            f"{MOST_PENDING} Jobs of this namespace are pending: its Job is created when a slot is free"
        )

    def take(self, job: ObjectKey, archive: StoredOfPolicy) -> bool:
        """Whether the Job may be created now, for that archive. If not, it waits until it is woken or `leave`s."""
        with self._lock:
            if job[1] in self._slots[job[0]]:
                return True
            beside, known = is_beside(job[1]), self._waiting.get(archive.key)
            since = known.since if known and known.beside == beside else self._clock()
            self._wait(archive.key, Waiting(archive.age, beside, since))
            following = self._next()
            if taken := archive.key in following:
                self._wait_no_more(archive.key)
                following.remove(archive.key)
                self._slots[job[0]][job[1]] = Slot(Owner(*archive.key, archive.uid, self._kind))
                self._served[archive.key[0]] = next(self._numbers)
        self._wake_all(following)
        return taken

    def leave(self, archive: ObjectKey) -> None:
        """The archive waits for no slot any more. It may be deleted, or another operator's, and its Job's slot free."""
        with self._lock:
            self._wait_no_more(archive)
            following = self._next()
        self._wake_all(following)

    def release(self, job: ObjectKey) -> None:
        """The Job has ended, was deleted, or was not created."""
        with self._lock:
            following = self._next() if self._slots[job[0]].pop(job[1], None) else []
        self._wake_all(following)

    def saw(
        self, job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]] = (), deleted: bool = False
    ) -> ObjectKey | None:
        """Take in a Job, with its pods where they are known. Returns the archive of this operator that it is for."""
        key, slot = self._read(job, pods)
        if slot is None:
            # Its labels or its owner may have been changed since it was given a slot.
            self.release(key)
            return None
        if deleted or end_of(job):
            self.release(key)
        else:
            with self._lock:
                self._keep(key, slot, followed=bool(pods))
                following = self._next() if is_pending_long(slot.idle, self._clock()) else []
            self._wake_all(following)
        return slot.owner.key if self._is_ours(slot.owner) else None

    def held(self) -> frozenset[ObjectKey]:
        """The Jobs that have not ended, of whichever operator they are."""
        with self._lock:
            return frozenset((namespace, name) for namespace, slots in self._slots.items() for name in slots)

    def listed(self, before: frozenset[ObjectKey], jobs: Iterable[Mapping[str, Any]]) -> None:
        """Take in a full list. Other Jobs that were `held` ``before`` it was asked for do not exist any more."""
        found = {key: slot for key, slot in (self._read(each) for each in jobs if not end_of(each)) if slot}
        with self._lock:
            for namespace, name in before - found.keys():
                self._slots[namespace].pop(name, None)
            for key, slot in found.items():
                self._keep(key, slot)
            following = self._next()
        self._wake_all(following)

    def _keep(self, job: ObjectKey, slot: Slot, followed: bool = False) -> None:
        slots = self._slots[job[0]]
        if followed or job[1] in slots or len(slots) < MOST_SEEN:
            slots[job[1]] = slot

    def _wake_all(self, archives: Iterable[ObjectKey]) -> None:
        for archive in archives:
            self._wake(archive)

    def _next(self) -> list[ObjectKey]:
        """The waiting archives for which there are slots now, in fair order."""
        if not self._waiting:
            return []
        now = self._clock()
        running, pending, beside = Counter[str](), Counter[str](), Counter[str]()
        for name, (owner, idle) in (each for slots in self._slots.values() for each in slots.items()):
            if self._is_ours(owner):
                held = pending if is_pending_long(idle, now) else running
                held[owner.namespace] += 1
                beside[owner.namespace] += held is running and is_beside(name)
        # What a namespace has beyond its share, because pending Jobs have begun to run, is not at others' cost.
        free = self._count - sum(min(each, self._share) for each in running.values())
        following, passed = list[ObjectKey](), Counter[Line]()

        def turn(line: Line) -> tuple[bool, int, int, tuple[str, ObjectKey]]:
            first = self._lines[line][passed[line]]
            return _yields(first, now), running[line[0]], self._served[line[0]], first.age

        while free > 0:
            left = [
                line
                for line, waiting in self._lines.items()
                if passed[line] < len(waiting) and running[line[0]] < self._share and pending[line[0]] < MOST_PENDING
                # Those behind the first have waited for less, and may not follow where that one may not.
                if self._may_follow(waiting[passed[line]], now, free, running[line[0]], beside[line[0]])
            ]
            if not left:
                break
            first = min(left, key=turn)
            following.append(self._lines[first][passed[first]].age[1])
            passed[first] += 1
            running[first[0]] += 1
            beside[first[0]] += first[1]
            free -= 1
        return following

    def _wait(self, archive: ObjectKey, waiting: Waiting) -> None:
        if self._waiting.get(archive) != waiting:
            self._wait_no_more(archive)
            self._waiting[archive] = waiting
            bisect.insort(self._lines.setdefault(waiting.line, []), waiting, key=lambda each: each.turn)

    def _wait_no_more(self, archive: ObjectKey) -> None:
        if (waiting := self._waiting.pop(archive, None)) is None:
            return
        line = self._lines[waiting.line]
        del line[bisect.bisect_left(line, waiting.turn, key=lambda each: each.turn)]
        if not line:
            del self._lines[waiting.line]

    def _may_follow(self, waiting: Waiting, now: datetime, free: int, running: int, beside: int) -> bool:
        """Whether one that no table waits for leaves enough to the others: ``running`` and ``beside`` are the Jobs of
        its namespace, the latter those like it."""
        if not waiting.beside:
            return True
        takes_last = (self._share > 1 and running + 1 >= self._share) or (self._count > 1 and free <= 1)
        return beside < max(1, self._share // 2) and not (takes_last and _yields(waiting, now))

    def _is_ours(self, owner: Owner) -> bool:
        archive = self._archives.get(owner.key)
        return archive is not None and archive.uid == owner.uid and self._shard.has(archive)

    def _read(self, job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]] = ()) -> tuple[ObjectKey, Slot | None]:
        """The Job's key, and the slot that it may hold: None where its labels or its controller are others."""
        meta, owner = job["metadata"], controller_of(job)
        made_here = owner is not None and owner.kind == self._kind
        made_here = made_here and (meta.get("labels") or {}).items() >= MANAGED.items()
        return (meta["namespace"], meta["name"]), Slot(owner, idle_since(job, pods)) if owner and made_here else None


def _yields(waiting: Waiting, now: datetime) -> bool:
    """Whether it comes after those that a table waits for."""
    # A difference, not a sum: it cannot overflow.
    return waiting.beside and now - waiting.since < PATIENT
