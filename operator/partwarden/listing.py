"""The full list now and then: it puts right what a watch has missed, and finds out whether the watch is mute."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from .archive_service import ArchiveService
from .cluster import Cluster
from .errors import ClusterUnavailable
from .health import Health
from .intake import Intake
from .settings import Settings
from .store import Store
from .workqueue import Key

log = logging.getLogger(__name__)

GRACE = 10.0
"""Seconds that the watch is given to show what a list showed."""


class Lister:
    """Safe for threads."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        intake: Intake,
        archives: ArchiveService,
        health: Health,
        settings: Settings,
    ) -> None:
        self._cluster, self._store, self._intake, self._archives = cluster, store, intake, archives
        self._health, self._scopes = health, settings.namespaces or (None,)
        self._lock = threading.Lock()
        self._shown: dict[Key, int] = {}
        self._stopped = threading.Event()

    def shown(self, body: Mapping[str, Any], gone: bool) -> None:
        """The watch has shown a policy, or that it is ``gone``."""
        key, version = _identity(body)
        with self._lock:
            if gone:
                self._shown.pop(key, None)
            else:
                self._shown[key] = version

    def first(self) -> None:
        """The list that everything begins with. Raises `ClusterUnavailable`."""
        self._list()

    def again(self) -> None:
        """A later one. What fails is logged, and tried again the next time."""
        try:
            news = self._list()
            if news:
                self._stopped.wait(GRACE)
                self._health.missed(self._unseen(news))
        except ClusterUnavailable as error:
            self._health.listed()
            log.warning("%s", error)

    def stop(self) -> None:
        """Wait for nothing any more."""
        self._stopped.set()

    def _list(self) -> list[tuple[Key, int]]:
        """Returns what was news: policies and their versions."""
        before = self._store.all()
        bodies = [body for namespace in self._scopes for body in self._cluster.policies(namespace)]
        held = {each.key: each.version for each in before}
        news = [(key, version) for key, version in map(_identity, bodies) if held.get(key, 0) < version]
        self._intake.listed(before, bodies)
        self._archives.list()
        self._health.listed()
        return news

    def _unseen(self, news: Iterable[tuple[Key, int]]) -> bool:
        """Whether the watch has not shown some of it by now. What has been deleted meanwhile does not count."""
        with self._lock:
            late = [key for key, version in news if self._store.get(key) and self._shown.get(key, 0) < version]
        if late and not self._stopped.is_set():
            log.warning("a list showed %d policies that the watch had not, such as %s", len(late), "/".join(late[0]))
        return bool(late) and not self._stopped.is_set()


def _identity(body: Mapping[str, Any]) -> tuple[Key, int]:
    meta = body["metadata"]
    return (meta["namespace"], meta["name"]), int(meta["resourceVersion"])
