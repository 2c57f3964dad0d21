"""When each policy is worked on next: a queue of keys with due times.

A key is in the queue at most once, and with one worker at most. What arrives while it is worked on makes it due again
afterwards. `Schedule` is pure: times are arguments, seconds of any clock that never goes back. `WorkQueue` puts
threads around it.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

Key = tuple[str, str]
"""Namespace and name of a policy."""


class Entry(NamedTuple):
    """A due time in the heap; stale when the schedule no longer holds this due time for the key."""

    due: float
    number: int
    key: Key


class Backlog(NamedTuple):
    """How a queue stands: keys that are ``due`` and with no worker, for how many seconds the first of them has been
    ``waiting``, and for how many each worker has been ``busy`` with its key."""

    due: int
    waiting: float
    busy: tuple[float, ...]


class Schedule:
    """Keys and when they are due. Equal due times come in the order in which they were asked for."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._busy: set[Key] = set()
        self._heap: list[Entry] = []
        self._count = 0

    def wake(self, key: Key, due: float) -> None:
        """Make the key due at ``due``, or leave it where it was due earlier already."""
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        self._count += 1
        if key not in self._busy:
            heapq.heappush(self._heap, Entry(due, self._count, key))

    def pop(self, now: float) -> Key | None:
        """The key that has been due the longest, now with a worker until `done`; None when none is due."""
        self._drop_stale()
        if not self._heap or self._heap[0].due > now:
            return None
        key = heapq.heappop(self._heap).key
        del self._due[key]
        self._busy.add(key)
        return key

    def done(self, key: Key, next_due: float | None = None) -> None:
        """The worker has finished. The key is due at ``next_due``, or earlier where it was woken meanwhile."""
        self._busy.discard(key)
        woken = self._due.pop(key, None)
        due = min((each for each in (woken, next_due) if each is not None), default=None)
        if due is not None:
            self.wake(key, due)

    def next_due(self) -> float | None:
        """When `pop` will next have something, if nothing is woken before; None for never."""
        self._drop_stale()
        return self._heap[0].due if self._heap else None

    def overdue(self, now: float) -> list[float]:
        """For how long each key has been due that no worker has."""
        return [now - due for key, due in self._due.items() if due <= now and key not in self._busy]

    def _drop_stale(self) -> None:
        while self._heap and (self._heap[0].key in self._busy or self._due.get(self._heap[0].key) != self._heap[0].due):
            heapq.heappop(self._heap)


class WorkQueue:
    """A schedule that worker threads wait on. All delays are seconds from now."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._schedule = Schedule()
        self._clock = clock
        self._changed = threading.Condition()
        self._taken: dict[Key, float] = {}
        self._closed = False

    def wake(self, key: Key, after: float = 0.0) -> None:
        """Work on the key ``after`` so many seconds at the latest."""
        with self._changed:
            self._schedule.wake(key, self._clock() + after)
            self._changed.notify()

    def take(self) -> Key | None:
        """Wait for a key that is due. None when the queue was closed."""
        with self._changed:
            while not self._closed:
                key = self._schedule.pop(self._clock())
                due = self._schedule.next_due()
                if key is not None:
                    if due is not None:  # somebody else must wait for that one now
                        self._changed.notify()
                    self._taken[key] = self._clock()
                    return key
                self._changed.wait(None if due is None else max(0.0, due - self._clock()))
            return None

    def done(self, key: Key, after: float | None) -> None:
        """The worker has finished with the key; it is due again ``after`` so many seconds, None: when it is woken."""
        with self._changed:
            self._taken.pop(key, None)
            self._schedule.done(key, None if after is None else self._clock() + after)
            self._changed.notify()

    def backlog(self) -> Backlog:
        """How it stands now."""
        with self._changed:
            now = self._clock()
            waiting = self._schedule.overdue(now)
            return Backlog(len(waiting), max(waiting, default=0.0), tuple(now - at for at in self._taken.values()))

    def close(self) -> None:
        """Give out no more keys."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
