"""The Lease in the cluster."""

from __future__ import annotations

from datetime import UTC, datetime

import kubernetes.client as api

from .cluster import CONFLICT, NOT_FOUND, Cluster, status_of
from .errors import ClusterUnavailable
from .lease import DURATION, Held

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
        except ClusterUnavailable as error:
            if status_of(error) == NOT_FOUND:
                return None
            raise

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
        except ClusterUnavailable as error:
            if status_of(error) in (CONFLICT, NOT_FOUND):
                return None
            raise

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
