"""What the reconcilers of one operator process share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..kube.cache import Store
from ..kube.client import Cluster
from .settings import Settings
from .workqueue import WorkQueue


def utc_now() -> datetime:
    """The wall clock, aware: marks conditions and Events. No decision about a table depends on it."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Runtime:
    """Made once, by the manager. Every part is safe for threads."""

    cluster: Cluster
    settings: Settings
    clock: Callable[[], datetime] = utc_now
    policies: Store = field(default_factory=Store)
    policy_queue: WorkQueue = field(default_factory=WorkQueue)
