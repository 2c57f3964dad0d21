"""The watches: kopf keeps them, and hands on what they show.

The only module that imports kopf. Only its plain watch events are used: it writes nothing to any object, neither
finalizers nor annotations, and posts no Events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any

import kopf

from . import job
from .cluster import Cluster
from .policy import GROUP, PLURAL, VERSION
from .settings import Settings

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
        settings.watching.label_selectors["batch/jobs"] = job.SELECTOR
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
