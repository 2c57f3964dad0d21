"""How long until a policy is looked at again: after a success, an outage, a user's mistake.

Pauses after failures double and are reset by a success, by an edit, and when a failure is of the other kind.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from zlib import crc32

from .errors import Outage, PartwardenError
from .workqueue import Key

OUTAGE_FIRST, OUTAGE_MOST = 1.0, 60.0
MISTAKE_FIRST = 15.0
SOONEST = 0.05
"""Seconds. A boundary is never waited for by looking in a loop."""
TOO_SOON = 0.1
"""Part of the resync: a turn that is closer than this is the one that has just been."""


class Result(Enum):
    """What one look came to, as far as the next one is concerned."""

    FINE = auto()
    UNFINISHED = auto()
    """Nothing failed that was foreseen, and work is left: what was detached is to be dropped, or nobody knows why."""
    OUTAGE = auto()
    MISTAKE = auto()


def result(errors: Sequence[PartwardenError], reconciling: bool) -> Result:
    """An outage is tried again soon, also where a mistake is reported with it."""
    if not errors:
        return Result.UNFINISHED if reconciling else Result.FINE
    return Result.OUTAGE if reconciling or any(isinstance(each, Outage) for each in errors) else Result.MISTAKE


@dataclass(frozen=True, slots=True)
class _Failures:
    spec: object
    result: Result
    count: int


class Pace:
    """Counts failures in a row for each policy. Safe for threads. ``clock``: seconds, never going back."""

    def __init__(
        self, random_: Callable[[], float] = random.random, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._random, self._clock = random_, clock
        self._lock = threading.Lock()
        self._failures: dict[Key, _Failures] = {}

    def after(
        self,
        key: Key,
        spec: object,
        found: Result,
        resync: float,
        boundary: float | None = None,
        together: Hashable = None,
    ) -> float:
        """Seconds until the next look.

        ``spec`` identifies what was worked on: another one starts afresh. ``resync`` is the pause after a success and
        the longest after a mistake; ``boundary`` says in how many seconds the calendar changes the plan. What is fine
        and has ``together``, a database, and ``resync`` in common is looked at together, so that one connection serves
        all.
        """
        with self._lock:
            last = self._failures.pop(key, None)
            count = last.count + 1 if last and (last.spec, last.result) == (spec, found) else 1
            if found is not Result.FINE:
                self._failures[key] = _Failures(spec, found, count)
        if found is Result.FINE and together is not None:
            pause = self._next_turn(resync, together)
        else:
            pause = self._spread(_pause(found, count, resync))
        return pause if boundary is None else min(pause, max(boundary, SOONEST))

    def forget(self, key: Key) -> None:
        """The policy is gone."""
        with self._lock:
            self._failures.pop(key, None)

    def _next_turn(self, resync: float, together: Hashable) -> float:
        """Turns come every ``resync`` seconds, and at another moment for each database. The first may come sooner."""
        offset = crc32(repr(together).encode()) / 2**32 * resync
        pause = resync - (self._clock() - offset) % resync
        return pause if pause > resync * TOO_SOON else pause + resync

    def _spread(self, seconds: float) -> float:
        """The same within a tenth, so that what failed or began together does not come again together."""
        return seconds * (0.9 + 0.2 * self._random())


def _pause(found: Result, count: int, resync: float) -> float:
    doubled = 2.0 ** min(count - 1, 20)
    match found:
        case Result.OUTAGE | Result.UNFINISHED:
            return min(OUTAGE_FIRST * doubled, OUTAGE_MOST, resync)
        case Result.MISTAKE:
            return min(MISTAKE_FIRST * doubled, resync)
    return resync
