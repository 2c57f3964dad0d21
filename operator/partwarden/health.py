"""Whether the operator gets anywhere: what ``/healthz`` and ``/readyz`` answer.

A database or an API server that does not answer is no reason to end a process: it would be none the better for it. What
counts is what a restart heals: a queue that nobody serves, a thread or an event loop that hangs, a watch that is mute.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .workqueue import Backlog

UNSERVED = 60.0
"""Seconds for which what is due may wait although a worker is free."""
HANGS = 6 * 3600.0
"""Seconds for which all workers may be at one thing each: a table of a billion rows is read in less than one hour."""
BEAT = 60.0
"""Seconds for which the event loop may be silent; it beats every second."""
SLACK = 120.0
"""Seconds that a list may take, beside the time between two of them."""
MISSED = 2
"""Lists in a row that showed what the watch had not."""


@dataclass(frozen=True, slots=True)
class Crew:
    """A queue with its workers. ``ended``: how many threads of ``count`` are no more."""

    backlog: Backlog
    count: int
    ended: int


def stuck(name: str, crew: Crew) -> str:
    """What is wrong with a queue, "" when nothing is."""
    if crew.ended:
        return f"{crew.ended} of {crew.count} workers of the queue of {name} have ended"
    busy = crew.backlog.busy
    if len(busy) < crew.count and crew.backlog.waiting > UNSERVED:
        return f"the first in the queue of {name} has been due for {crew.backlog.waiting:.0f} s, and a worker is free"
    if len(busy) >= crew.count and min(busy) > HANGS:
        return f"all workers of the queue of {name} have been at one thing for {min(busy):.0f} s or longer"
    return ""


class Health:
    """Safe for threads. ``clock``: seconds, never going back."""

    def __init__(
        self,
        crews: Mapping[str, Callable[[], Crew]],
        relist: float,
        others: Callable[[], str] = str,
        stands_by: Callable[[], bool] = bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``relist``: seconds between two lists. ``others``: who leads instead, in words; ``stands_by``: whether this
        process could take over."""
        self._others, self._stands_by = others, stands_by
        self._crews, self._relist, self._clock = crews, relist, clock
        self._lock = threading.Lock()
        self._beat: float | None = None
        self._listed: float | None = None
        self._missed = 0
        self._stopping = False

    def beat(self) -> None:
        """The event loop runs: to be said every second."""
        with self._lock:
            self._beat = self._clock()

    def listed(self) -> None:
        """A list was asked for, and came or failed."""
        with self._lock:
            self._listed = self._clock()

    def missed(self, missed: bool) -> None:
        """Whether a list showed what the watch had not shown by then."""
        with self._lock:
            self._missed = self._missed + 1 if missed else 0

    def stopping(self) -> None:
        """The process was told to end: it is ready no more."""
        with self._lock:
            self._stopping = True

    def unhealthy(self) -> list[str]:
        """Why the process should be ended and begun anew, a sentence each; empty when all is well."""
        with self._lock:
            now, found = self._clock(), []
            if self._beat is not None and now - self._beat > BEAT and not self._stopping:
                found.append(f"the event loop has been silent for {now - self._beat:.0f} s")
            if self._listed is not None and now - self._listed > 2 * self._relist + SLACK and not self._stopping:
                found.append(f"no list has come or failed for {now - self._listed:.0f} s")
            if self._missed >= MISSED:
                found.append(f"the watch is mute: {self._missed} lists in a row showed what it had not")
            stopping = self._stopping
        if stopping:
            return found
        return found + [words for name, look in self._crews.items() if (words := stuck(name, look()))]

    def unready(self) -> list[str]:
        """Why the operator does not serve now; empty when it does."""
        with self._lock:
            if self._stopping:
                return ["it was told to stop"]
            if others := self._others():
                return [others]
            return [] if self._beat is not None and self._listed is not None else ["the first list has not come yet"]

    def unfit(self) -> list[str]:
        """Why the process neither serves nor could take over at once; empty when it serves or stands by."""
        with self._lock:
            if self._stands_by() and not self._stopping:
                return []
        return self.unready()
