"""The rights that the operator needs, and no more: asked for before it serves, and given by the chart's roles."""

from __future__ import annotations

from collections.abc import Iterator

from . import archive_policy
from .cluster import Right
from .policy import GROUP, PLURAL
from .settings import Settings

RIGHTS = (
    ("list", PLURAL, GROUP),
    ("watch", PLURAL, GROUP),
    ("patch", f"{PLURAL}/status", GROUP),
    *((verb, archive_policy.PLURAL, GROUP) for verb in ("get", "list", "watch", "create")),
    ("patch", f"{archive_policy.PLURAL}/status", GROUP),
    *((verb, "jobs", "batch") for verb in ("get", "list", "watch", "create")),
    ("list", "pods", ""),
    ("get", "pods/log", ""),
    ("create", "events", ""),
)


def wanted(settings: Settings) -> Iterator[Right]:
    """All of them, with these settings."""
    for namespace in settings.namespaces or (None,):
        for right in RIGHTS:
            yield Right(*right, namespace)
        for name in settings.secrets or (None,):
            yield Right("get", "secrets", "", namespace, name)
    if settings.lease:
        where, _, lease = settings.lease.partition("/")
        for verb, name in (("create", None), ("get", lease), ("update", lease)):
            yield Right(verb, "leases", "coordination.k8s.io", where, name)
