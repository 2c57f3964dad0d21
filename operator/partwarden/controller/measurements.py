"""What the cluster shows of a policy's archives, for its forecast: what each took, and the claim that they fill."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from kubernetes.utils.quantity import parse_quantity

from ..api.policy import PartitionPolicySpec
from ..api.types import ObjectKey
from ..errors import ClusterUnavailable
from ..kube.cache import ArchiveCache, Store, StoredPolicy
from ..kube.client import Cluster
from ..planner.forecast import NOTHING, Claim, Measured
from .archive_requests import ArchiveRequests

log = logging.getLogger(__name__)

KEPT = 3600.0
"""Seconds for which a claim is taken to have the capacity that it had, or to be out of reach."""


class Measurements:
    """Safe for threads: what two ask at the same time is asked twice."""

    def __init__(
        self,
        cluster: Cluster,
        policies: Store,
        archives: ArchiveCache,
        requests: ArchiveRequests,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock``: in seconds."""
        self._cluster, self._policies, self._archives, self._requests = cluster, policies, archives, requests
        self._clock, self._capacities = clock, dict[ObjectKey, tuple[float, int | None]]()

    def of(self, policy: StoredPolicy, spec: PartitionPolicySpec) -> Measured:
        """What is known of the archives of the policy, as it reads now."""
        destination = spec.retention.archive if spec.retention else None
        if destination is None:
            return NOTHING
        own = tuple(archive.past for archive, _ in self._requests.own(policy, spec) if archive.past)
        return Measured(own, self._claim(policy, destination.pvc.claim_name) if destination.pvc else None)

    def _claim(self, policy: StoredPolicy, name: str) -> Claim | None:
        namespace = policy.key[0]
        there = [
            archive.past
            for archive in self._archives.all()
            if archive.past and archive.key[0] == namespace and _claim_name(archive.spec.get("destination")) == name
        ]
        # Where nothing was archived yet, nothing says how fast it fills: the claim is not asked for.
        capacity = self._capacity((namespace, name)) if there else None
        if capacity is None:
            return None
        others = [
            other.archived_daily
            for other in self._policies.all()
            if other.key[0] == namespace and other.key != policy.key and not other.suspended
            if _claim_name((other.spec.get("retention") or {}).get("archive")) == name
        ]
        since = max(archive.completed for archive in there)
        return Claim(capacity, sum(archive.bytes for archive in there), since, sum(others))

    def _capacity(self, key: ObjectKey) -> int | None:
        """Bytes; None where the claim is not bound, or may not be read: a forecast can do without."""
        now, known = self._clock(), self._capacities.get(key)
        if known is None or now - known[0] >= KEPT:
            known = self._capacities[key] = now, self._read(key)
        return known[1]

    def _read(self, key: ObjectKey) -> int | None:
        namespace, name = key
        read = self._cluster.core.read_namespaced_persistent_volume_claim
        try:
            found = self._cluster.call(f"read PersistentVolumeClaim {namespace}/{name}", read, name, namespace)
            stated = (found.status.capacity if found.status else None) or {}
            number = parse_quantity(str(stated.get("storage"))[:40])  # type: ignore[no-untyped-call]
            return int(number) if 0 < number < 1 << 63 else None
        except (ClusterUnavailable, ValueError, ArithmeticError) as error:
            log.debug("the capacity of PersistentVolumeClaim %s/%s is not known: %s", namespace, name, error)
            return None


def _claim_name(destination: object) -> object:
    """Of a destination as it is written; None where it is no claim."""
    pvc = destination.get("pvc") if isinstance(destination, Mapping) else None
    return pvc.get("claimName") if isinstance(pvc, Mapping) else None
