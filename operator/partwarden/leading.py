"""Whether this process leads: it waits for the Lease, keeps it, and gives it back."""

from __future__ import annotations

import secrets
import socket
import threading

from .cluster import Cluster
from .cluster_lease import LeaseInCluster
from .lease import Lease


class Leadership:
    """Of one process. Without a ``name`` (namespace/name of the Lease) it leads always."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        namespace, _, own = name.partition("/")
        identity = f"{socket.gethostname()}_{secrets.token_hex(4)}"
        self._lease = Lease(LeaseInCluster(cluster, (namespace, own)), identity) if name else None
        self._stopped = threading.Event()
        self._leads = threading.Event()

    def wait(self, stopped: threading.Event) -> bool:
        """Until it leads. False when ``stopped`` is set before."""
        if self._lease and not self._lease.acquire(stopped):
            return False
        if self._lease:
            threading.Thread(target=self._lease.keep, args=(self._stopped,), name="lease", daemon=True).start()
        self._leads.set()
        return True

    @property
    def lost(self) -> bool:
        """Whether it leads no more: what it does must end before others begin."""
        return self._lease is not None and self._leads.is_set() and self._lease.lost

    def stands_by(self) -> bool:
        """Whether it knows who leads, and could take over."""
        return self._lease is not None and self._lease.known and not self._leads.is_set()

    def others(self) -> str:
        """Who leads instead, in words; "" where this process does."""
        if self._leads.is_set() or self._lease is None:
            return ""
        holder = self._lease.holder
        return f"it stands by: {holder} leads" if holder else "it stands by: nobody is known to lead"

    def end(self) -> None:
        """Nothing is done any more: whoever stands by may begin."""
        self._stopped.set()
        if self._lease and self._leads.is_set():
            self._lease.release()
