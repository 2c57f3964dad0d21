"""Writes the status of a PartitionArchive, and records Events of what has changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from . import archive_events
from .archive_store import StoredArchive, parse
from .cluster import Cluster
from .errors import ClusterUnavailable

log = logging.getLogger(__name__)


class Teller:
    """Safe for threads, as the `Cluster` is."""

    def __init__(self, cluster: Cluster, clock: Callable[[], datetime]) -> None:
        self._cluster, self._clock = cluster, clock

    def tell(self, archive: StoredArchive, status: Mapping[str, Any]) -> StoredArchive | None:
        """Make that its status, if it is still as it was read. Returns the archive as it is then.

        None where it is gone, or somebody else has written to it: what another operator saw meanwhile, such as a
        proof, is never taken back by one that had looked before. Raises `ClusterUnavailable`.
        """
        before = archive.status
        if status == before:
            return archive
        written = self._cluster.write_status(archive, status, archive.version)
        if written is None:
            return None
        for notice in archive_events.changed(before, status):
            try:
                self._cluster.record(archive, notice, self._clock())
            except ClusterUnavailable as error:
                log.warning("%s", error, extra={"archive": str(archive), "reason": error.reason})
        return parse(written)
