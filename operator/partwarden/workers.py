"""A bounded number of threads that take policies from the work queue, and the one that lists them now and then."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from .workqueue import Key, WorkQueue

log = logging.getLogger(__name__)

AFTER_CRASH = 60.0
"""Seconds until a policy is looked at again after an error that not even the reconciler foresaw."""


class Workers:
    """Threads that call ``work`` with each key; it returns the seconds until the next time, None for never."""

    def __init__(self, queue: WorkQueue, work: Callable[[Key], float | None], count: int) -> None:
        self._queue, self._work = queue, work
        self._threads = [
            threading.Thread(target=self._run, name=f"worker-{number}", daemon=True) for number in range(count)
        ]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    @property
    def count(self) -> int:
        """How many threads there are to be."""
        return len(self._threads)

    @property
    def ended(self) -> int:
        """How many of them have begun and are no more."""
        return sum(thread.ident is not None and not thread.is_alive() for thread in self._threads)

    def wait(self, seconds: float) -> bool:
        """After the queue was closed: whether all have finished within so many seconds."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while (key := self._queue.take()) is not None:
            after: float | None = AFTER_CRASH
            try:
                after = self._work(key)
            except Exception:
                log.exception("unexpected error", extra={"policy": "/".join(key)})
            finally:
                self._queue.done(key, after)


class Every:
    """A thread that calls ``work`` every so many seconds until it is stopped. Errors are the callee's to catch."""

    def __init__(self, name: str, seconds: float, work: Callable[[], None]) -> None:
        self._seconds, self._work = seconds, work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the first call comes after the first pause."""
        self._thread.start()

    def stop(self) -> None:
        """No further call."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self._work()
