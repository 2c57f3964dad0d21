"""What the cluster shows of a policy's archives, for its forecast: what each took, and the claim that they fill."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from kubernetes.utils.quantity import parse_quantity

from ..api.policy import PartitionPolicySpec
from ..api.retention import Format
from ..api.types import ObjectKey
from ..errors import ClusterUnavailable
from ..kube.cache import ArchiveCache, Store, StoredPolicy
from ..kube.client import ApiError, Cluster
from ..planner.forecast import MOST_FAILING, NOTHING, Claim, Failing, Measured, PastArchive
from . import archive_schedule
from .archive_requests import ArchiveRequests
from .archive_status import moment, trouble

log = logging.getLogger(__name__)

KEPT = 3600.0
"""Seconds for which a claim is taken to have the capacity that it had, or to say none."""
AGAIN = 60.0
"""Seconds until a claim is asked for again that the API server did not answer for, and for which what fills one is
taken to be the same: to find that out, every archive is gone through."""


class Filling(NamedTuple):
    """The ``bytes`` of a claim's archives, ``since`` when none was added, and the bytes a day of each policy."""

    bytes: int
    since: datetime
    daily: Mapping[ObjectKey, int]


class Measurements:
    """Safe for threads: what two ask at the same time is asked twice."""

    def __init__(
        self,
        cluster: Cluster,
        policies: Store,
        archives: ArchiveCache,
        requests: ArchiveRequests,
        clock: Callable[[], float] = time.monotonic,
        parquet: bool = False,
    ) -> None:
        """``clock``: in seconds. ``parquet``: whether Jobs can make it."""
        self._cluster, self._policies, self._archives, self._requests = cluster, policies, archives, requests
        self._parquet = parquet
        self._clock, self._capacities = clock, dict[ObjectKey, tuple[float, int | None]]()
        """Until when each counts, and the bytes."""
        self._fillings: tuple[float, Mapping[ObjectKey, Filling]] = -math.inf, {}
        """Until when they count, and what fills each claim."""

    def of(self, policy: StoredPolicy, spec: PartitionPolicySpec) -> Measured:
        """What is known of the archives of the policy, as it reads now."""
        destination = spec.retention.archive if spec.retention else None
        if destination is None:
            return NOTHING
        proven = [archive for archive, _ in self._requests.own(policy, spec) if archive.past]
        kept = [(archive.key[1], archive.status) for archive in proven if not archive.expired]
        verified = [at for _, status in kept if (at := archive_schedule.last_verified(status))]
        expiring = [at for _, status in kept if (at := moment(status.get("expiresAt")))]
        oldest, every = min(verified, default=None), destination.verify_every
        return Measured(
            archives=tuple(archive.past for archive in proven if archive.past),
            claim=self._claim(policy, destination.pvc.claim_name) if destination.pvc else None,
            failing=tuple(sorted(_failing(kept))[:MOST_FAILING]),
            expiring=len(expiring),
            first_expiry=min(expiring, default=None),
            oldest_verified=oldest,
            verification_due=archive_schedule.later(oldest, every) if oldest and every else None,
            no_parquet=Format.PARQUET in destination.formats and not self._parquet,
        )

    def _claim(self, policy: StoredPolicy, name: str) -> Claim | None:
        claim, now = (policy.key[0], name), self._clock()
        until, fillings = self._fillings
        if now >= until:
            # All at once: there may be as many claims as policies.
            _, fillings = self._fillings = now + AGAIN, self._filled()
        filling = fillings.get(claim)
        # Where nothing was archived yet, nothing says how fast it fills: the claim is not asked for.
        capacity = self._capacity(claim) if filling else None
        if filling is None or capacity is None:
            return None
        others = sum(daily for key, daily in filling.daily.items() if key != policy.key)
        return Claim(capacity, filling.bytes, filling.since, others)

    def _filled(self) -> dict[ObjectKey, Filling]:
        """Every claim in which something was archived."""
        there = defaultdict[ObjectKey, list[PastArchive]](list)
        for archive in self._archives.all():
            name = _claim_name(archive.spec.get("destination"))
            if archive.past and not archive.expired and name:
                there[archive.key[0], name].append(archive.past)
        daily = defaultdict[ObjectKey, dict[ObjectKey, int]](dict)
        for each in self._policies.all():
            name = _claim_name((each.spec.get("retention") or {}).get("archive"))
            if name and not each.suspended:
                daily[each.key[0], name][each.key] = each.archived_daily
        return {
            claim: Filling(sum(each.bytes for each in found), max(each.completed for each in found), daily[claim])
            for claim, found in there.items()
        }

    def _capacity(self, key: ObjectKey) -> int | None:
        """Bytes; None where the claim is not bound, or may not be read: a forecast can do without."""
        now, known = self._clock(), self._capacities.get(key)
        if known is None or now >= known[0]:
            try:
                known = now + KEPT, self._read(*key)
            except ClusterUnavailable as error:
                log.debug("%s", error)
                known = now + AGAIN, known[1] if known else None
            self._capacities[key] = known
        return known[1]

    def _read(self, namespace: str, name: str) -> int | None:
        read = self._cluster.core.read_namespaced_persistent_volume_claim
        try:
            found = self._cluster.call(f"read PersistentVolumeClaim {namespace}/{name}", read, name, namespace)
            stated = (found.status.capacity if found.status else None) or {}
            number = parse_quantity(str(stated.get("storage"))[:40])  # type: ignore[no-untyped-call]
            return int(number) if 0 < number < 1 << 63 else None
        except (ApiError, ValueError, ArithmeticError) as error:
            log.debug("the capacity of PersistentVolumeClaim %s/%s is not known: %s", namespace, name, error)
            return None


def _failing(kept: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[Failing]:
    """Of those whose tables are dropped: what is wrong with others, their tables' steps say."""
    for name, status in kept:
        if "dropped" in status and (wrong := trouble(status)) is not None:
            yield Failing(name, *wrong)


def _claim_name(destination: object) -> str | None:
    """Of a destination as it is written; None where it is no claim."""
    pvc = destination.get("pvc") if isinstance(destination, Mapping) else None
    name = pvc.get("claimName") if isinstance(pvc, Mapping) else None
    return name if isinstance(name, str) else None
