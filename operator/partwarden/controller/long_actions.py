"""Actions that may take hours: how many there are at once, and how their policy is reconciled meanwhile.

A run that begins one is a reconcile like any other at first, and most end as such: to compare a small table takes
milliseconds. One that goes on for `SET_ASIDE` seconds is set aside: its thread and its worker process go on, another
thread takes their place, and the policy is reconciled beside it, which creates partitions and does all else that is
short. Before its table is observed at the end the run takes the policy back, so that its status has one writer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from datetime import datetime
from typing import NamedTuple

from ..api.types import ObjectKey
from ..planner.recheck import Step
from .workqueue import WorkQueue

log = logging.getLogger(__name__)

WOKEN = 3
"""Policies that are enqueued when one may begin."""
SET_ASIDE = 2.0
"""Seconds after which an action counts as one that takes long, and the status says so."""


def long_limit(workers: int) -> int:
    """How many long actions there may be at once beside so many workers."""
    return max(1, workers // 2)


class Running(NamedTuple):
    """What a run that was set aside does now, and since when."""

    step: Step
    since: datetime


class _Waiting(NamedTuple):
    key: ObjectKey
    database: Hashable


class LongActions:
    """One at a time of a database, a share of a namespace, and a limit in all. Safe for threads."""

    def __init__(
        self,
        queue: WorkQueue,
        set_aside: Callable[[threading.Thread], None],
        clock: Callable[[], datetime],
        limit: int,
        share: int,
        seconds: float = SET_ASIDE,
    ) -> None:
        """``queue``: of policies. ``set_aside`` gets each thread that needs a substitute, see `runtime.Workers`.
        ``limit``: how many at once, and ``share`` of one namespace. ``seconds``: see `SET_ASIDE`."""
        self.queue, self.set_aside, self.clock, self.seconds = queue, set_aside, clock, seconds
        self._limit, self._share = limit, share
        self._lock = threading.Lock()
        self._begun: dict[Hashable, ObjectKey] = {}
        """Databases with the policy that may do what takes long there."""
        self._waiting: list[_Waiting] = []
        self._aside: dict[ObjectKey, Running] = {}

    def running(self, key: ObjectKey) -> Running | None:
        """What is done for the policy by a run that was set aside, None without one."""
        with self._lock:
            return self._aside.get(key)

    def note(self, key: ObjectKey, running: Running | None) -> None:
        """What such a run does from now on; None: it is one no more."""
        with self._lock:
            if running is None:
                self._aside.pop(key, None)
            else:
                self._aside[key] = running

    def acquire(self, database: Hashable, key: ObjectKey) -> bool:
        """Whether the policy may do what takes long, until `release`. If not, it is enqueued when it may."""
        with self._lock:
            self._waiting = [each for each in self._waiting if each.key != key]
            if self._fits(database, key):
                self._begun[database] = key
                return True
            self._waiting.append(_Waiting(key, database))
            return False

    def release(self, database: Hashable) -> None:
        """The policy that had acquired it is done: those that have waited the longest for that are enqueued, more than
        one, since one may want it no longer."""
        with self._lock:
            del self._begun[database]
            following = [each.key for each in self._waiting if self._fits(each.database, each.key)][:WOKEN]
        for key in following:
            self.queue.enqueue(key)

    def forget(self, key: ObjectKey) -> None:
        """The policy is deleted or suspended: it waits for nothing."""
        with self._lock:
            self._waiting = [each for each in self._waiting if each.key != key]

    def _fits(self, database: Hashable, key: ObjectKey) -> bool:
        of_namespace = sum(each[0] == key[0] for each in self._begun.values())
        return database not in self._begun and of_namespace < self._share and len(self._begun) < self._limit


class LongRun:
    """One reconcile, as far as it does what takes long. Called by its own thread, and by that of its timer."""

    def __init__(self, actions: LongActions, database: Hashable, key: ObjectKey) -> None:
        self._actions, self._database, self._key = actions, database, key
        self._thread = threading.current_thread()
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._acquired = False
        self.aside = self.was_aside = False
        """Whether it was set aside, and has not taken the policy back; whether it was at any time."""

    def may_begin(self) -> bool:
        """Whether another action that may take long may be begun: in a run that has begun one, any. It ends by itself
        after one that succeeded and took long, see `engine.execute`."""
        self._acquired = self._acquired or self._actions.acquire(self._database, self._key)
        return self._acquired

    def begins(self, step: Step | None) -> None:
        """What is done from now on; None: what does not take long."""
        self._cancel()
        if step is None:
            return
        running = Running(step, self._actions.clock())
        if self.aside:
            self._actions.note(self._key, running)
        else:
            self._timer = threading.Timer(self._actions.seconds, self._set_aside, (running,))
            self._timer.daemon = True
            self._timer.start()

    def take_back(self) -> None:
        """From now on no other run of the policy goes on, and its status is this run's to write."""
        self._cancel()
        if self.aside:
            self._actions.queue.take_back(self._key)
            self._actions.note(self._key, None)
            self.aside = False

    def close(self) -> None:
        """The work on the database has ended."""
        self.take_back()
        if self._acquired:
            self._acquired = False
            self._actions.release(self._database)

    def _cancel(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _set_aside(self, running: Running) -> None:
        with self._lock:
            if self._timer is None or self._timer is not threading.current_thread():
                return
            self._timer = None
            action, table, size = running.step
            about = {"policy": "/".join(self._key), "reason": "LongAction", "partition": table}
            try:
                self._actions.set_aside(self._thread)
            except RuntimeError as error:
                log.warning("%s of %s takes long, and keeps its worker: %s", action, table, error, extra=about)
                return
            self._actions.note(self._key, running)
            self._actions.queue.set_aside(self._key)
            self.aside = self.was_aside = True
        log.info("%s of %s (%d bytes) takes long; the policy is reconciled beside it", action, table, size, extra=about)
