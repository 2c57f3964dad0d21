"""When each object is worked on: a queue of keys with due times, its workers, and the pauses after failures.

Every object is identified by its key, and is handled sequentially: a key is in the queue at most once, and with one
worker at most. What arrives while it is worked on makes it due again afterwards. Namespaces take turns, and none has
more than its share of the workers: what holds up one of them leaves workers for the others.
"""

from __future__ import annotations

import heapq
import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from enum import StrEnum
from typing import NamedTuple

from ..api.types import ObjectKey
from ..errors import PartwardenError, TransientError

log = logging.getLogger(__name__)

TRANSIENT_FIRST, TRANSIENT_MOST = 1.0, 60.0
USER_ERROR_FIRST = 15.0
"""Seconds of the first pauses, and the longest; after a user's mistake the longest is the resync."""
SOONEST = 0.05
"""Seconds. A boundary of the calendar is never waited for in a busy loop."""
DEADLINE = 900.0
"""Seconds that a worker has for a key where it states no other deadline."""


class Entry(NamedTuple):
    """A due time in the heap; stale when the schedule no longer holds this due time for the key."""

    due: float
    number: int
    key: ObjectKey


class Backlog(NamedTuple):
    """How a queue stands."""

    due: int
    """Keys that are due and with no worker."""
    waiting: float
    """Seconds for which the first of them has been due."""
    busy: tuple[float, ...]
    """Seconds for which each worker has been at its key."""
    unserved: float = 0.0
    """Seconds for which the first that a free worker might take, within its namespace's share, has been due."""
    late: tuple[tuple[ObjectKey, float], ...] = ()
    """Keys whose worker is beyond the deadline that it stated, and by how many seconds."""


class Schedule:
    """Keys and when they are due. Pure: times are arguments, seconds of any clock that never goes back.

    Of what is due namespaces take turns, and within each its databases; of one database the key comes first that was
    due first, and of equal due times the one that was enqueued first. A new key comes behind those that wait, so that
    each has its turn.
    """

    def __init__(self, share: int | None = None, database: Callable[[ObjectKey], Hashable] = lambda key: None) -> None:
        """``share``: how many keys of one namespace may be with workers, any number where None."""
        self._share, self._database = share, database
        self._due: dict[ObjectKey, float] = {}
        self._busy: set[ObjectKey] = set()
        self._heap: list[Entry] = []
        """Keys that were not yet due when `pop` was last called."""
        self._count = 0
        self._ready: dict[str, dict[Hashable, deque[ObjectKey]]] = {}
        """The other keys by namespace and database, each in the order of turns."""
        self._is_ready: set[ObjectKey] = set()

    def enqueue(self, key: ObjectKey, due: float) -> None:
        """Schedule the key at ``due`` unless it is scheduled earlier already."""
        if key in self._is_ready or (key in self._due and self._due[key] <= due):
            return
        self._due[key] = due
        self._count += 1
        if key not in self._busy:
            heapq.heappush(self._heap, Entry(due, self._count, key))

    def pop(self, now: float, after: ObjectKey | None = None) -> ObjectKey | None:
        """The key whose turn it is, now with a worker until `done`; None when none is due that may have one.

        ``after``: where no other namespace waits, another key of that one's database has the turn.
        """
        self._drop_stale()
        while self._heap and self._heap[0].due <= now:
            key = heapq.heappop(self._heap).key
            self._is_ready.add(key)
            self._ready.setdefault(key[0], {}).setdefault(self._database(key), deque()).append(key)
            self._drop_stale()
        if (namespace := self._next_namespace()) is None:
            return None
        # Taken out and put back: the next turns are those of the other namespaces, and of its other databases.
        databases = self._ready.pop(namespace)
        database = next(iter(databases))
        if after is not None and after[0] == namespace and not self._ready:
            same = self._database(after)
            database = same if same in databases else database
        keys = databases.pop(database)
        key = keys.popleft()
        if keys:
            databases[database] = keys
        if databases:
            self._ready[namespace] = databases
        self._is_ready.remove(key)
        del self._due[key]
        self._busy.add(key)
        return key

    def done(self, key: ObjectKey, next_due: float | None = None) -> None:
        """The worker has finished. The key is due at ``next_due``, or earlier where it was enqueued meanwhile."""
        self._busy.discard(key)
        enqueued = self._due.pop(key, None)
        due = min((moment for moment in (enqueued, next_due) if moment is not None), default=None)
        if due is not None:
            self.enqueue(key, due)

    def take(self, key: ObjectKey) -> None:
        """The key, with no worker, is with one from now on, as after `pop`. Is it due, it is so again after `done`."""
        if key in self._is_ready:
            self._is_ready.remove(key)
            databases = self._ready[key[0]]
            database, keys = next((each, keys) for each, keys in databases.items() if key in keys)
            keys.remove(key)
            if not keys:
                del databases[database]
            if not databases:
                del self._ready[key[0]]
        self._busy.add(key)

    def is_busy(self, key: ObjectKey) -> bool:
        """Whether a worker has it."""
        return key in self._busy

    def next_due(self) -> float | None:
        """When `pop` will next have something, if no worker finishes and nothing is enqueued before; None for never."""
        self._drop_stale()
        if (namespace := self._next_namespace()) is not None:
            return self._due[next(iter(self._ready[namespace].values()))[0]]
        return self._heap[0].due if self._heap else None

    def overdue(self, now: float) -> list[tuple[float, bool]]:
        """For how long each key has been due that no worker has, and whether its namespace's share is used up."""
        waiting = [(now - due, key) for key, due in self._due.items() if due <= now and key not in self._busy]
        return [(seconds, not self._has_share(key[0])) for seconds, key in waiting]

    def _next_namespace(self) -> str | None:
        # Few are passed over: each of those has its whole share of the workers.
        return next(filter(self._has_share, self._ready), None)

    def _has_share(self, namespace: str) -> bool:
        return self._share is None or sum(key[0] == namespace for key in self._busy) < self._share

    def _drop_stale(self) -> None:
        while self._heap and (
            (key := self._heap[0].key) in self._busy or key in self._is_ready or self._due.get(key) != self._heap[0].due
        ):
            heapq.heappop(self._heap)


class Taken(NamedTuple):
    """When a worker took a key, and by when it will have finished."""

    at: float
    deadline: float


class WorkQueue:
    """A schedule that worker threads wait on. All delays are seconds from now."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        share: int | None = None,
        database: Callable[[ObjectKey], Hashable] = lambda key: None,
    ) -> None:
        """``share`` and ``database``: see `Schedule`."""
        self._schedule = Schedule(share, database)
        self._clock = clock
        self._changed = threading.Condition()
        self._taken: dict[ObjectKey, Taken] = {}
        self._aside: dict[ObjectKey, Taken] = {}
        """Keys of which a run goes on beside the queue."""
        self._alarm = math.inf
        """The earliest moment at which a waiting worker wakes by itself, as far as is known: never too early."""
        self._closed = False

    def enqueue(self, key: ObjectKey, after: float = 0.0) -> None:
        """Work on the key ``after`` so many seconds at the latest."""
        with self._changed:
            self._schedule.enqueue(key, self._clock() + after)
            self._wake()

    def take(self, after: ObjectKey | None = None) -> ObjectKey | None:
        """Wait for a key that is due. None when the queue was closed. ``after``: see `Schedule.pop`."""
        with self._changed:
            while not self._closed:
                now = self._clock()
                key = self._schedule.pop(now, after)
                due = self._schedule.next_due()
                if key is not None:
                    # Another worker must wait for that one now, unless one does already.
                    if due is not None and due < self._alarm:
                        self._wake()
                    self._taken[key] = Taken(now, now + DEADLINE)
                    return key
                self._alarm = math.inf if due is None else min(self._alarm, due)
                self._changed.wait(None if due is None else max(0.0, due - self._clock()))
                self._alarm = math.inf
            return None

    def deadline(self, key: ObjectKey, seconds: float, *, aside: bool = False) -> None:
        """State, while a worker has the key, that it will be done in so many seconds, or state another by then.

        Beyond it the worker counts as stuck, and the process as unhealthy: to be called before what takes long.
        ``aside``: of the run that goes on beside the queue.
        """
        with self._changed:
            of = self._aside if aside else self._taken
            if taken := of.get(key):
                of[key] = taken._replace(deadline=self._clock() + seconds)

    def set_aside(self, key: ObjectKey) -> None:
        """What a worker does with the key goes on beside the queue: the key is due, and others may take it."""
        with self._changed:
            self._aside[key] = self._taken.pop(key)
            self._schedule.done(key, self._clock())
            self._changed.notify_all()

    def take_back(self, key: ObjectKey) -> None:
        """Wait until no other worker has a key that was set aside: until `done` it is with none but the caller."""
        with self._changed:
            while self._schedule.is_busy(key):
                self._changed.wait()
            self._schedule.take(key)
            self._taken[key] = self._aside.pop(key)

    def done(self, key: ObjectKey, after: float | None, *, returns: bool = False) -> None:
        """The worker has finished with the key; due again ``after`` so many seconds, None: when it is enqueued.

        ``returns``: it calls `take` next, and so finds what it has made possible by itself: no other is woken, which
        would go for that as well.
        """
        with self._changed:
            self._taken.pop(key, None)
            self._schedule.done(key, None if after is None else self._clock() + after)
            if key in self._aside:
                self._changed.notify_all()
            elif not returns:
                self._wake()

    def _wake(self) -> None:
        """Wake a worker, where one waits: beside it those may wait that take a key back, and take no other."""
        self._changed.notify(1 + len(self._aside))

    def backlog(self) -> Backlog:
        """How it stands now."""
        with self._changed:
            now, taken = self._clock(), [*self._taken.items()]
            aside = [*self._aside.items()]
            overdue = self._schedule.overdue(now)
        return Backlog(
            due=len(overdue),
            waiting=max((seconds for seconds, _ in overdue), default=0.0),
            busy=tuple(now - each.at for _, each in taken),
            unserved=max((seconds for seconds, shut in overdue if not shut), default=0.0),
            late=tuple((key, now - each.deadline) for key, each in taken + aside if now > each.deadline),
        )

    def close(self) -> None:
        """Give out no more keys."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Result(StrEnum):
    """What one reconcile has come to, as far as the next one is concerned."""

    CONVERGED = "Converged"
    IN_PROGRESS = "InProgress"
    """No error of `partwarden.errors`, and work is left: detached tables are to be dropped, or a bug was met."""
    TRANSIENT = "Transient"
    USER_ERROR = "UserError"


def result(errors: Sequence[PartwardenError], reconciling: bool) -> Result:
    """An outage is tried again soon, also where a mistake is reported with it."""
    if not errors:
        return Result.IN_PROGRESS if reconciling else Result.CONVERGED
    passes = reconciling or any(isinstance(error, TransientError) for error in errors)
    return Result.TRANSIENT if passes else Result.USER_ERROR


class Failures(NamedTuple):
    """A row of failures: of what edition, of which kind, and how many."""

    edition: object
    result: Result
    row: int


class Backoff:
    """How long until a policy is reconciled again. Safe for threads.

    Pauses after failures double. A success starts them afresh, and so do an edit and a failure of another kind.
    """

    def __init__(self, random_: Callable[[], float] = random.random) -> None:
        self._random = random_
        self._lock = threading.Lock()
        self._failures: dict[ObjectKey, Failures] = {}

    def after(
        self, key: ObjectKey, edition: object, result: Result, resync: float, boundary: float | None = None
    ) -> float:
        """Seconds until the next reconcile.

        ``edition`` identifies what was worked on. ``resync`` is the pause after a success and the longest after a
        mistake; ``boundary`` says in how many seconds the calendar changes the plan.
        """
        with self._lock:
            last = self._failures.pop(key, None)
            count = last.row + 1 if last and last[:2] == (edition, result) else 1
            if result is not Result.CONVERGED:
                self._failures[key] = Failures(edition, result, count)
        doubled = 2.0 ** min(count - 1, 20)
        match result:
            case Result.TRANSIENT | Result.IN_PROGRESS:
                pause = min(TRANSIENT_FIRST * doubled, TRANSIENT_MOST, resync)
            case Result.USER_ERROR:
                pause = min(USER_ERROR_FIRST * doubled, resync)
            case Result.CONVERGED:
                pause = resync
        # What failed or began together does not come again together.
        pause *= 0.9 + 0.2 * self._random()
        return pause if boundary is None else min(pause, max(boundary, SOONEST))

    def forget(self, key: ObjectKey) -> None:
        """Start afresh: the policy is deleted, or its next reconcile is no repetition."""
        with self._lock:
            self._failures.pop(key, None)
