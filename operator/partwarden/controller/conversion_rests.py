"""How long a conversion rests whose run has read a whole table, and come to nothing.

An error that does not heal must not cost a scan of a terabyte every few minutes. So after a run that has read the table
for long, and wasted that, its status is kept, and the table is read again only after `LASTING` times as long, or
`PASSING` times where the error is expected to pass; at most after `LONGEST`. Meanwhile each reconcile asks the catalog
alone. An edit of the policy, and an approval, end the rest. It is kept in memory: a new operator reads the table once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from ..api.types import ObjectKey
from ..kube.cache import StoredPolicy
from ..status.conditions import PolicyStatusUpdate
from ..status.conversion import resting
from .database_work import WorkReport

COSTLY = 15.0
"""Seconds of reading that may be wasted at each try."""
LASTING, PASSING = 20.0, 3.0
"""How many times as long as it has read the conversion rests: the table is read for 5 or 25 percent of the time."""
LONGEST = 86_400.0
"""Seconds after which it is tried again at the latest."""


class _Rest(NamedTuple):
    edition: object
    until: float
    update: PolicyStatusUpdate


class ConversionRests:
    """Which policies rest. Safe for threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: seconds that never go back."""
        self._clock, self._lock = clock, threading.Lock()
        self._rests: dict[ObjectKey, _Rest] = {}

    def of(self, policy: StoredPolicy) -> PolicyStatusUpdate | None:
        """What the status of the policy stays while it rests; None where it does not."""
        with self._lock:
            rest = self._rests.get(policy.key)
            if rest is not None and rest.edition == policy.edition and self._clock() < rest.until:
                return rest.update
            self._rests.pop(policy.key, None)
            return None

    def remaining(self, key: ObjectKey) -> float | None:
        """Seconds until the rest ends; None without one."""
        with self._lock:
            rest = self._rests.get(key)
        left = 0.0 if rest is None else rest.until - self._clock()
        return left if left > 0 else None

    def note(self, policy: StoredPolicy, report: WorkReport, now: datetime) -> PolicyStatusUpdate:
        """The status of the report, and from when on it rests where it has wasted much.

        Before a CHECK that stands comes to refuse rows it is tried twice at least: see `WorkReport.boundary`.
        """
        update = report.update
        if report.wasted < COSTLY:
            return update
        seconds = min(report.wasted * (PASSING if update.reconciling else LASTING), LONGEST)
        if report.boundary is not None:
            seconds = min(seconds, max(report.boundary / 2, 0.0))
        update = resting(update, timedelta(seconds=report.wasted), now, now + timedelta(seconds=seconds))
        with self._lock:
            self._rests[policy.key] = _Rest(policy.edition, self._clock() + seconds, update)
        return update

    def forget(self, key: ObjectKey) -> None:
        """The policy is deleted."""
        with self._lock:
            self._rests.pop(key, None)
