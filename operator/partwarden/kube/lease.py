"""One of several operators leads, and the others stand by: https://kubernetes.io/docs/concepts/architecture/leases/

Safety does not hang on it: a table is changed under an advisory lock of its database, and what two operators both see
to is done once. The Lease keeps them from writing the same statuses in turns. The client library's own election is not
used: it cannot be stopped, gives nothing back at its end, and measures by a clock that may be set.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

import kubernetes.client as api

from ..errors import ClusterUnavailable
from .client import Cluster, Conflict, NotFound

log = logging.getLogger(__name__)

DURATION = 12
"""Seconds after which others may take a Lease that they have not seen renewed."""
PATIENCE = 8.0
"""Seconds after its last renewal at which the leader stops: before anybody else may begin, whatever his clock says."""
PAUSE = 2.0
"""Seconds between two attempts, to renew it or to have it."""


@dataclass(frozen=True, slots=True)
class Held:
    """A Lease as the API server has it. ``holder`` is "" where it was given back; ``version``: of the object."""

    holder: str
    acquired: datetime
    renewed: datetime
    transitions: int = 0
    version: str = ""


class Leases(Protocol):
    """The Lease in the cluster. Each raises `ClusterUnavailable`."""

    def read(self) -> Held | None:
        """None when there is none yet."""

    def write(self, held: Held) -> Held | None:
        """Make it so, if it is still of that version, or there is none where that is "". None where it is not."""


class Lease:
    """Safe for threads. ``clock``: seconds, never going back."""

    def __init__(self, leases: Leases, identity: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._leases, self._identity, self._clock = leases, identity, clock
        self._lock = threading.Lock()
        self._seen: Held | None = None
        self._known, self._since = False, 0.0
        self._renewed: float | None = None

    @property
    def holder(self) -> str:
        """Who led when it was last looked at; "" for nobody."""
        with self._lock:
            return self._seen.holder if self._seen else ""

    @property
    def known(self) -> bool:
        """Whether it was ever looked at."""
        with self._lock:
            return self._known

    @property
    def lost(self) -> bool:
        """Whether it was had, and is to be had for certain no more."""
        with self._lock:
            return self._renewed is not None and self._clock() > self._renewed + PATIENCE

    def acquire(self, stopped: threading.Event) -> bool:
        """Wait until it is had. False when ``stopped`` is set before."""
        told: str | None = None
        while not stopped.is_set():
            try:
                if self.attempt():
                    return True
                if told != self.holder:
                    told = self.holder
                    log.info("standing by: %s leads", told or "nobody yet")
            except ClusterUnavailable as error:
                log.warning("%s", error)
            stopped.wait(PAUSE)
        return False

    def keep(self, stopped: threading.Event) -> None:
        """Renew it until ``stopped`` is set, or somebody else has it."""
        while not stopped.wait(PAUSE) and not self.lost:
            try:
                if not self.attempt():
                    self._give_up()
            except ClusterUnavailable as error:
                log.warning("the Lease was not renewed: %s", error)

    def release(self) -> None:
        """Give it back, if it is had still: the next need not wait. What fails is only logged."""
        with self._lock:
            held, had = self._seen, self._renewed is not None and not self._is_over()
        if held is None or not had or held.holder != self._identity:
            return
        try:
            self._leases.write(replace(held, holder="", renewed=datetime.now(UTC)))
        except ClusterUnavailable as error:
            log.warning("the Lease was not given back: %s", error)

    def attempt(self) -> bool:
        """Whether it is had for `PATIENCE` seconds from the moment before this was asked."""
        began, now = self._clock(), datetime.now(UTC)
        held = self._leases.read()
        if not self._may_take(held):
            return False
        if held is None or held.holder != self._identity:
            count = held.transitions + 1 if held else 0
            wanted = Held(self._identity, now, now, count, held.version if held else "")
        else:
            wanted = replace(held, renewed=now)
        written = self._leases.write(wanted)
        if written is None:
            return False
        with self._lock:
            self._seen, self._since, self._renewed = written, began, began
        return True

    def _may_take(self, held: Held | None) -> bool:
        """Whether it is ours, nobody's, or was not renewed for long enough while this process looked on."""
        with self._lock:
            self._known = True
            if held != self._seen:
                self._seen, self._since = held, self._clock()
            ours = held is not None and held.holder == self._identity
            return held is None or not held.holder or ours or self._clock() > self._since + DURATION

    def _give_up(self) -> None:
        with self._lock:
            self._renewed = float("-inf")

    def _is_over(self) -> bool:
        return self._renewed is None or self._clock() > self._renewed + PATIENCE


# The Lease in the cluster.
#

TIMEOUT = (1.0, 2.0)
"""Seconds to connect, and to wait for an answer: an attempt may not take as long as the Lease lasts."""


class LeaseInCluster:
    """Safe for threads. ``key``: namespace and name."""

    def __init__(self, cluster: Cluster, key: tuple[str, str]) -> None:
        self._cluster, self._key = cluster, key
        self._api = api.CoordinationV1Api(cluster.core.api_client)

    def read(self) -> Held | None:
        """As `lease.Leases` says."""
        namespace, name = self._key
        try:
            return _held(self._call("read the Lease", self._api.read_namespaced_lease, name, namespace))
        except NotFound:
            return None

    def write(self, held: Held) -> Held | None:
        """As `lease.Leases` says."""
        namespace, name = self._key
        spec = api.V1LeaseSpec(
            holder_identity=held.holder,
            lease_duration_seconds=DURATION,
            acquire_time=_micro(held.acquired),
            renew_time=_micro(held.renewed),
            lease_transitions=held.transitions,
        )
        meta = api.V1ObjectMeta(name=name, namespace=namespace, resource_version=held.version or None)
        body = api.V1Lease(metadata=meta, spec=spec)
        try:
            if held.version:
                return _held(self._call("renew the Lease", self._api.replace_namespaced_lease, name, namespace, body))
            return _held(self._call("make the Lease", self._api.create_namespaced_lease, namespace, body))
        except (Conflict, NotFound):
            return None

    def _call(self, what: str, call: object, *arguments: object) -> api.V1Lease:
        return self._cluster.call(what, call, *arguments, timeout=TIMEOUT)  # type: ignore[arg-type]


def _micro(moment: datetime) -> datetime:
    """The API server takes no MicroTime without a fraction, and the client writes none where it is zero."""
    return moment.replace(microsecond=moment.microsecond or 1)


def _held(lease: api.V1Lease) -> Held:
    """What somebody else left out counts as long past."""
    spec, past = lease.spec or api.V1LeaseSpec(), datetime(1970, 1, 1, tzinfo=UTC)
    return Held(
        holder=spec.holder_identity or "",
        acquired=spec.acquire_time or past,
        renewed=spec.renew_time or past,
        transitions=spec.lease_transitions or 0,
        version=str(lease.metadata.resource_version) if lease.metadata else "",
    )


# Whether this process leads: it waits for the Lease, keeps it, and gives it back.
#


class LeaderElection:
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
