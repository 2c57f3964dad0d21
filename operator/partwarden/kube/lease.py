"""Leader election: one of several operators leads, the others stand by.

Safety does not depend on it: a table is changed under an advisory lock of its database, and what two operators both see
to is done once. The Lease keeps them from writing the same statuses in turns. The client library's own election is not
used: it cannot be stopped, never releases the Lease, and measures by a clock that may be set.
https://kubernetes.io/docs/concepts/architecture/leases/
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

import kubernetes.client as api

from ..errors import ClusterUnavailable
from .client import Cluster, Conflict, NotFound

log = logging.getLogger(__name__)

DURATION = 12
"""Seconds after which others may take a Lease that they have not seen renewed."""
PATIENCE = 8.0
"""Seconds after its last renewal at which the leader stops: before another operator may begin, whatever its clock."""
PAUSE = 2.0
"""Seconds between two attempts, to renew it or to acquire it."""
TIMEOUT = (1.0, 2.0)
"""Seconds to connect, and to wait for an answer: an attempt may not take as long as the Lease lasts."""


class LeaderElection:
    """Whether this process leads. Without a ``name`` (namespace/name of the Lease) it leads always."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        namespace, _, own = name.partition("/")
        identity = f"{socket.gethostname()}_{secrets.token_hex(4)}"
        self._lease = Lease(LeaseInCluster(cluster, (namespace, own)), identity) if name else None
        self._stopped = threading.Event()
        self._leads = threading.Event()

    def wait(self, stopped: threading.Event) -> bool:
        """Wait until it leads. Returns False when ``stopped`` is set before."""
        if self._lease:
            if not self._lease.acquire(stopped):
                return False
            threading.Thread(target=self._lease.keep, args=(self._stopped,), name="lease", daemon=True).start()
        self._leads.set()
        return True

    @property
    def lost(self) -> bool:
        """Whether it leads no longer: what it does must end before others begin."""
        return self._lease is not None and self._leads.is_set() and self._lease.lost

    def stands_by(self) -> bool:
        """Whether it knows which operator leads, and could take over."""
        return self._lease is not None and self._lease.known and not self._leads.is_set()

    def others(self) -> str:
        """A sentence that names the leader; "" where this process leads."""
        if self._leads.is_set() or self._lease is None:
            return ""
        holder = self._lease.holder
        return f"it stands by: {holder} leads" if holder else "it stands by: no operator is known to lead"

    def end(self) -> None:
        """Nothing is done any more: release the Lease, so that an operator that stands by may begin."""
        self._stopped.set()
        if self._lease and self._leads.is_set():
            self._lease.release()


@dataclass(frozen=True, slots=True)
class Held:
    """A Lease as the API server has it. ``holder`` is "" where it was released; ``version``: its resourceVersion."""

    holder: str
    acquired: datetime
    renewed: datetime
    transitions: int = 0
    version: str = ""


class LeaseInCluster:
    """The Lease of that namespace and name. Safe for threads; raises `ClusterUnavailable`."""

    def __init__(self, cluster: Cluster, key: tuple[str, str]) -> None:
        self._cluster, self._key = cluster, key
        self._api = api.CoordinationV1Api(cluster.core.api_client)

    def read(self) -> Held | None:
        """None when there is none yet."""
        namespace, name = self._key
        try:
            return _held(self._call("read the Lease", self._api.read_namespaced_lease, name, namespace))
        except NotFound:
            return None

    def write(self, held: Held) -> Held | None:
        """Make it so, if it is still of that version, or there is none where that is "". Returns None where not."""
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
            return _held(self._call("create the Lease", self._api.create_namespaced_lease, namespace, body))
        except (Conflict, NotFound):
            return None

    def _call(self, what: str, call: Callable[..., api.V1Lease], *arguments: object) -> api.V1Lease:
        return self._cluster.call(what, call, *arguments, timeout=TIMEOUT)


class Lease:
    """This process's part in the election. Safe for threads. ``clock``: seconds, never going back."""

    def __init__(self, leases: LeaseInCluster, identity: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._leases, self._identity, self._clock = leases, identity, clock
        self._lock = threading.Lock()
        self._seen: Held | None = None
        self._known, self._since = False, 0.0
        self._renewed: float | None = None

    @property
    def holder(self) -> str:
        """The identity that held it when it was last read; "" where none did."""
        with self._lock:
            return self._seen.holder if self._seen else ""

    @property
    def known(self) -> bool:
        """Whether it was ever read."""
        with self._lock:
            return self._known

    @property
    def lost(self) -> bool:
        """Whether it was acquired, and is certain no longer."""
        with self._lock:
            return self._renewed is not None and self._is_over()

    def acquire(self, stopped: threading.Event) -> bool:
        """Wait until it is acquired. Returns False when ``stopped`` is set before."""
        logged: str | None = None
        while not stopped.is_set():
            try:
                if self.attempt():
                    return True
                if logged != self.holder:
                    logged = self.holder
                    log.info("standing by: %s leads", logged or "no operator yet")
            except ClusterUnavailable as error:
                log.warning("%s", error)
            stopped.wait(PAUSE)
        return False

    def keep(self, stopped: threading.Event) -> None:
        """Renew it until ``stopped`` is set, or another operator has it."""
        while not stopped.wait(PAUSE) and not self.lost:
            try:
                if not self.attempt() and self.holder != self._identity:
                    with self._lock:
                        self._renewed = float("-inf")
            except ClusterUnavailable as error:
                log.warning("the Lease was not renewed: %s", error)
            except Exception:
                # Until `PATIENCE` has passed there are further attempts.
                log.exception("the Lease was not renewed")

    def release(self) -> None:
        """Release it, if it is still held: the next leader need not wait. What fails is only logged."""
        with self._lock:
            held, over = self._seen, self._is_over()
        if held is None or over or held.holder != self._identity:
            return
        try:
            self._leases.write(replace(held, holder="", renewed=datetime.now(UTC)))
        except ClusterUnavailable as error:
            log.warning("the Lease was not released: %s", error)

    def attempt(self) -> bool:
        """Acquire or renew it. Returns whether it is held for `PATIENCE` seconds from the moment before the call.

        To renew it is one request: it is written over the version of the last one. Where that fails it is read, and
        written once more if it is still this process's: another writer may have set a label of it.
        """
        began, now = self._clock(), datetime.now(UTC)
        with self._lock:
            held = self._seen
        written = None
        if held is not None and held.holder == self._identity:
            written = self._leases.write(replace(held, renewed=now))
        if written is None:
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
        """Whether it is this process's or free, or was not renewed for long enough while this process watched."""
        with self._lock:
            self._known = True
            if held != self._seen:
                self._seen, self._since = held, self._clock()
            free = held is None or held.holder in ("", self._identity)
            return free or self._clock() > self._since + DURATION

    def _is_over(self) -> bool:
        return self._renewed is None or self._clock() > self._renewed + PATIENCE


def _micro(moment: datetime) -> datetime:
    """The API server takes no MicroTime without a fraction, and the client writes none where it is zero."""
    return moment.replace(microsecond=moment.microsecond or 1)


def _held(lease: api.V1Lease) -> Held:
    """A time that another writer left out counts as long past."""
    spec, past = lease.spec or api.V1LeaseSpec(), datetime(1970, 1, 1, tzinfo=UTC)
    return Held(
        holder=spec.holder_identity or "",
        acquired=spec.acquire_time or past,
        renewed=spec.renew_time or past,
        transitions=spec.lease_transitions or 0,
        version=str(lease.metadata.resource_version) if lease.metadata else "",
    )
