"""The full list now and then: it puts right what a watch has missed, and finds out whether the watch is mute."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import kopf

from ..api import archive
from ..api.policy import GROUP, PLURAL, VERSION
from ..api.types import ObjectKey
from ..errors import ClusterUnavailable
from ..kube.cache import Store
from ..kube.client import Cluster
from .event_handlers import ArchiveEventHandler, PolicyEventHandler
from .health import Health
from .settings import Settings

# The watches: kopf keeps them, and hands on what they show.
#
# The only module that imports kopf. Only its plain watch events are used: it writes nothing to any object, neither
# finalizers nor annotations, and posts no Events.
#

PATIENCE = (1, 2) + (5,) * 5000
"""Seconds between kopf's attempts while the API server does not answer: hours of them, then the process ends."""

Shown = Callable[[Any], None]
"""Is given an event: its ``type``, DELETED where the object is gone or matches no more, and the ``object``."""


class Watches:
    """Of policies that the settings select, of archives, and of the Jobs that this program made."""

    def __init__(self, cluster: Cluster, settings: Settings, shown: Mapping[str, Shown], on_job: Shown) -> None:
        """``shown``: for each kind of ours, by its plural, who is told."""
        self._cluster, self._settings = cluster, settings
        self._registry = kopf.OperatorRegistry()
        kopf.on.login(registry=self._registry)(self._login)
        for plural, tell in shown.items():
            kopf.on.event(GROUP, VERSION, plural, registry=self._registry)(_handing(tell))
        kopf.on.event("batch", "v1", "jobs", registry=self._registry)(_handing(on_job))

    async def begin(self, stopped: asyncio.Event) -> Collection[asyncio.Task[object]]:
        """What `run` is given; it ends when ``stopped`` is set."""
        namespaces = self._settings.namespaces
        scope: dict[str, Any] = {"namespaces": namespaces} if namespaces else {"clusterwide": True}
        # For peering, which is off. Without one kopf looks for the name of the user, and in a container there is none.
        scope["identity"] = "partwarden"
        return await kopf.spawn_tasks(
            registry=self._registry, settings=self._kopf_settings(), standalone=True, stop_flag=stopped, **scope
        )

    async def run(self, tasks: Collection[asyncio.Task[object]]) -> None:
        """Until they end."""
        await kopf.run_tasks(tasks)

    async def _login(self, **_: object) -> kopf.ConnectionInfo:
        found = self._cluster.credentials()
        return kopf.ConnectionInfo(
            server=found.server,
            ca_path=found.ca_path,
            insecure=found.insecure,
            certificate_path=found.certificate_path,
            private_key_path=found.private_key_path,
            username=found.username,
            password=found.password,
            scheme=found.scheme,
            token=found.token,
            proxy_url=found.proxy,
        )

    def _kopf_settings(self) -> kopf.OperatorSettings:
        """Watches that notice a dead connection, and nothing written to any object."""
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.watching.server_timeout = 300
        settings.watching.client_timeout = 330
        settings.watching.connect_timeout = 10
        settings.watching.label_selectors["batch/jobs"] = archive.SELECTOR
        if self._settings.selector:
            settings.watching.label_selectors[GROUP, PLURAL] = str(self._settings.selector)
        settings.networking.request_timeout = 60
        settings.networking.connect_timeout = 10
        settings.networking.error_backoffs = PATIENCE
        settings.queueing.exit_timeout = 0.5
        return settings


def _handing(tell: Shown) -> Callable[..., Any]:
    async def hand(event: Any, **_: object) -> None:
        tell(event)

    return hand


log = logging.getLogger(__name__)

GRACE = 10.0
"""Seconds that the watch is given to show what a list showed."""


class Lister:
    """Safe for threads."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        intake: PolicyEventHandler,
        archives: ArchiveEventHandler,
        health: Health,
        settings: Settings,
    ) -> None:
        self._cluster, self._store, self._intake, self._archives = cluster, store, intake, archives
        self._health, self._scopes = health, settings.namespaces or (None,)
        self._lock = threading.Lock()
        self._shown: dict[ObjectKey, int] = {}
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

    def _list(self) -> list[tuple[ObjectKey, int]]:
        """Returns what was news: policies and their versions."""
        before = self._store.all()
        bodies = [body for namespace in self._scopes for body in self._cluster.policies(namespace)]
        held = {each.key: each.version for each in before}
        news = [(key, version) for key, version in map(_identity, bodies) if held.get(key, 0) < version]
        self._intake.listed(before, bodies)
        self._archives.list()
        self._health.listed()
        return news

    def _unseen(self, news: Iterable[tuple[ObjectKey, int]]) -> bool:
        """Whether the watch has not shown some of it by now. What has been deleted meanwhile does not count."""
        with self._lock:
            late = [key for key, version in news if self._store.get(key) and self._shown.get(key, 0) < version]
        if late and not self._stopped.is_set():
            log.warning("a list showed %d policies that the watch had not, such as %s", len(late), "/".join(late[0]))
        return bool(late) and not self._stopped.is_set()


def _identity(body: Mapping[str, Any]) -> tuple[ObjectKey, int]:
    meta = body["metadata"]
    return (meta["namespace"], meta["name"]), int(meta["resourceVersion"])
