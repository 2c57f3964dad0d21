"""What the API server shows: watches, which kopf keeps, and a full list now and then, which finds what they missed.

The only module that imports kopf. Only its plain watch events are used: it writes nothing to any object, neither
finalizers nor annotations, and posts no Events.
"""

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
from .event_handlers import ArchiveEventHandler, PolicyEventHandler
from .health import Health
from .runtime import Runtime

log = logging.getLogger(__name__)

PATIENCE = (1, 2) + (5,) * 5000
"""Seconds between kopf's attempts while the API server does not answer: hours of them, then the process ends."""
GRACE = 10.0
"""Seconds that the watch is given to show what a list showed."""

Handler = Callable[[Any], None]
"""Gets an event: its ``type``, DELETED where the object was deleted or is not selected any more, and the ``object``."""


class Watches:
    """Of policies that the settings select, of archives, and of the Jobs that this program made."""

    def __init__(self, runtime: Runtime, on_policy: Handler, on_archive: Handler, on_job: Handler) -> None:
        self._cluster, self._settings = runtime.cluster, runtime.settings
        self._registry = kopf.OperatorRegistry()
        kopf.on.login(registry=self._registry)(self._login)
        kopf.on.event(GROUP, VERSION, PLURAL, registry=self._registry)(_coroutine(on_policy))
        kopf.on.event(GROUP, VERSION, archive.ARCHIVE_PLURAL, registry=self._registry)(_coroutine(on_archive))
        kopf.on.event("batch", "v1", "jobs", registry=self._registry)(_coroutine(on_job))

    async def begin(self, stopped: asyncio.Event) -> Collection[asyncio.Task[object]]:
        """The tasks for `run`, which end when ``stopped`` is set."""
        namespaces = self._settings.namespaces
        scope: dict[str, Any] = {"namespaces": namespaces} if namespaces else {"clusterwide": True}
        # For peering, which is off. Without one kopf asks for the name of the user, and in a container there is none.
        scope["identity"] = "partwarden"
        return await kopf.spawn_tasks(
            registry=self._registry, settings=self._kopf_settings(), standalone=True, stop_flag=stopped, **scope
        )

    async def run(self, tasks: Collection[asyncio.Task[object]]) -> None:
        """Until they end."""
        await kopf.run_tasks(tasks)

    async def _login(self, **_: object) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(**self._cluster.credentials())

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
            settings.watching.label_selectors[GROUP, PLURAL] = self._settings.selector
        settings.networking.request_timeout = 60
        settings.networking.connect_timeout = 10
        settings.networking.error_backoffs = PATIENCE
        settings.queueing.exit_timeout = 0.5
        return settings


def _coroutine(handler: Handler) -> Callable[..., Any]:
    async def handle(event: Any, **_: object) -> None:
        handler(event)

    return handle


class Lister:
    """The full list of policies, archives and Jobs, and whether the watch is mute. Safe for threads."""

    def __init__(
        self, runtime: Runtime, handler: PolicyEventHandler, archives: ArchiveEventHandler, health: Health
    ) -> None:
        self._cluster, self._policies = runtime.cluster, runtime.policies
        self._handler, self._archives, self._health = handler, archives, health
        self._scopes = runtime.settings.namespaces or (None,)
        self._lock = threading.Lock()
        self._watched: dict[ObjectKey, int] = {}
        """The version of each policy that the watch has shown last."""
        self._stopped = threading.Event()

    def on_policy(self, event: Any) -> None:
        """An event of the watch of policies."""
        body, deleted = event["object"], event["type"] == "DELETED"
        self.shown(body, deleted)
        (self._handler.deleted if deleted else self._handler.seen)(body)

    def shown(self, body: Mapping[str, Any], deleted: bool) -> None:
        """Note that the watch has shown a policy, or its deletion."""
        key, version = _identity(body)
        with self._lock:
            if deleted:
                self._watched.pop(key, None)
            else:
                self._watched[key] = version

    def first(self) -> None:
        """The list that everything begins with. Raises `ClusterUnavailable`."""
        self._list()

    def again(self) -> None:
        """A later one. What fails is logged, and tried again the next time."""
        try:
            if news := self._list():
                self._stopped.wait(GRACE)
                self._health.missed(self._is_mute(news))
        except ClusterUnavailable as error:
            self._health.listed()
            log.warning("%s", error)

    def stop(self) -> None:
        """Wait for nothing any more."""
        self._stopped.set()

    def _list(self) -> list[tuple[ObjectKey, int]]:
        """Returns what was news: policies and their versions."""
        before = self._policies.all()
        bodies = [body for namespace in self._scopes for body in self._cluster.policies(namespace)]
        known = {policy.key: policy.version for policy in before}
        news = [(key, version) for key, version in map(_identity, bodies) if known.get(key, 0) < version]
        self._handler.listed(before, bodies)
        self._archives.list()
        self._health.listed()
        return news

    def _is_mute(self, news: Iterable[tuple[ObjectKey, int]]) -> bool:
        """Whether the watch has not shown some of it by now. What has been deleted meanwhile does not count."""
        with self._lock:
            late = [key for key, version in news if self._policies.get(key) and self._watched.get(key, 0) < version]
        if not late or self._stopped.is_set():
            return False
        log.warning("a list showed %d policies that the watch had not, such as %s", len(late), "/".join(late[0]))
        return True


def _identity(body: Mapping[str, Any]) -> tuple[ObjectKey, int]:
    meta = body["metadata"]
    return (meta["namespace"], meta["name"]), int(meta["resourceVersion"])
