"""Secrets that were read a moment ago: policies of one database that are reconciled together read theirs once."""

from __future__ import annotations

import base64
import binascii
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

FRESH = 1.0
"""Seconds for which values are used again. An edit is seen that much later: what failed because of the old values is
tried again no sooner."""


class _Read(NamedTuple):
    at: float
    values: Mapping[str, str]


class Secrets:
    """Reads Secrets, and remembers each for `FRESH` seconds; failures it does not remember. Safe for threads."""

    def __init__(
        self, read: Callable[[str, str], Mapping[str, str]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``read``: as `client.Cluster.secret`."""
        self._read, self._clock = read, clock
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], _Read] = {}

    def get(self, namespace: str, name: str) -> Mapping[str, str]:
        """The values of a Secret, `FRESH` seconds old at most. Raises as ``read``."""
        key = namespace, name
        with self._lock:
            self._forget()
            if known := self._known.get(key):
                return known.values
        # By the moment at which it was asked for: the API server's answer may be of that moment.
        asked = self._clock()
        values = self._read(namespace, name)
        with self._lock:
            # Behind those that were read earlier, so that the oldest stay in front.
            self._known.pop(key, None)
            self._known[key] = _Read(asked, values)
        return values

    def _forget(self) -> None:
        """Keep what was read earlier no longer in memory."""
        limit = self._clock() - FRESH
        for key in [key for key, read in self._known.items() if read.at <= limit]:
            del self._known[key]


def decoded(data: Mapping[str, str | bytes]) -> dict[str, str]:
    """The values that are text, of a Secret's data."""
    found: dict[str, str] = {}
    for key, value in data.items():
        with suppress(binascii.Error, UnicodeDecodeError):
            found[key] = base64.b64decode(value).decode()
    return found
