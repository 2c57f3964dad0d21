"""What the API server shows: watches, which kopf keeps and renews, and a full list now and then as a safety net.

The only module that imports kopf. Only its plain watch events are used: it writes nothing to any object, neither
finalizers nor annotations, and posts no Events.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any

import kopf

from ..api import archive
from ..api.policy import GROUP, PLURAL, VERSION
from ..api.restore import RESTORE_PLURAL
from ..errors import ClusterUnavailable
from .event_handlers import ArchiveEventHandler, PolicyEventHandler
from .health import Health
from .restore_events import RestoreEventHandler
from .runtime import Runtime

log = logging.getLogger(__name__)

PATIENCE = (1, 2) + (5,) * 5000
"""Seconds between kopf's attempts while the API server does not answer: hours of them, then the process ends."""
Handler = Callable[[Any], None]
"""Gets an event: its ``type``, DELETED where the object was deleted or is not selected any more, and the ``object``."""


class Watches:
    """Of policies that the settings select, of archives, of restores, and of the Jobs that this program made."""

    def __init__(
        self, runtime: Runtime, on_policy: Handler, on_archive: Handler, on_restore: Handler, on_job: Handler
    ) -> None:
        self._cluster, self._settings = runtime.cluster, runtime.settings
        self._registry = kopf.OperatorRegistry()
        kopf.on.login(registry=self._registry)(self._login)
        kopf.on.event(GROUP, VERSION, PLURAL, registry=self._registry)(_coroutine(on_policy))
        kopf.on.event(GROUP, VERSION, archive.ARCHIVE_PLURAL, registry=self._registry)(_coroutine(on_archive))
        kopf.on.event(GROUP, VERSION, RESTORE_PLURAL, registry=self._registry)(_coroutine(on_restore))
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
        settings.persistence.diffbase_storage = NoDifferences()
        return settings


class NoDifferences(kopf.DiffBaseStorage):
    """What kopf compares objects with: nothing. It would copy each object of each event, for handlers of changes, of
    which there are none here."""

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        """The same for all objects."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Nothing is stored."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing is stored."""


def _coroutine(handler: Handler) -> Callable[..., Any]:
    async def handle(event: Any, **_: object) -> None:
        handler(event)

    return handle


class Lister:
    """Lists all policies, archives, restores and Jobs: a watch misses what is deleted while it connects anew."""

    def __init__(
        self,
        runtime: Runtime,
        handler: PolicyEventHandler,
        archives: ArchiveEventHandler,
        restores: RestoreEventHandler,
        health: Health,
    ) -> None:
        self._cluster, self._policies = runtime.cluster, runtime.policies
        self._handler, self._archives, self._restores, self._health = handler, archives, restores, health
        self._scopes = runtime.settings.namespaces or (None,)

    def first(self) -> None:
        """The list that everything begins with. Raises `ClusterUnavailable`."""
        before = self._policies.all()
        self._handler.listed(before, (body for each in self._scopes for body in self._cluster.policies(each)))
        self._archives.list()
        self._restores.list()
        self._health.listed()

    def again(self) -> None:
        """A later one. An API server that does not answer is logged, and asked again the next time."""
        try:
            self.first()
        except ClusterUnavailable as error:
            self._health.listed()
            log.warning("%s", error)
