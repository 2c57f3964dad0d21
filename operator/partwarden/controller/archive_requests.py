"""PartitionArchives as planner input, and planner requests as PartitionArchives.

Nothing is remembered that the cluster does not show, but for wanted checks, which every plan asks for again, and for
doubts: without them a table is compared once more.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from ..api import approval
from ..api.archive import (
    ARCHIVE_KIND,
    ARCHIVE_PLURAL,
    MANAGED,
    OID_LABEL,
    POLICY_LABEL,
    ROUND_LABEL,
    SERVER_LABEL,
    TABLE_LABEL,
    Fingerprint,
    PartitionArchiveSpec,
    PolicyRef,
)
from ..api.policy import API_VERSION, PartitionPolicySpec
from ..api.types import ObjectKey
from ..api.validation import check
from ..errors import ClusterUnavailable, NameTaken
from ..kube.cache import ArchiveCache, Binding, StoredArchive, StoredPolicy, parse_archive
from ..kube.client import WRITES, Cluster
from ..planner.archive_gate import ArchiveRequest, CheckRequest, Request
from ..planner.drop_preconditions import Archives, ArchiveState, CheckState, server_label
from .archive_status import dropped, is_proven, moment, trouble

log = logging.getLogger(__name__)

STEM = 200
"""Characters of a name before its digest."""
LABEL = 63
"""Characters that the value of a label may have."""


class ArchiveRequests:
    """Safe for threads, as long as one policy is with one thread at a time."""

    def __init__(
        self,
        cache: ArchiveCache,
        cluster: Cluster,
        enqueue: Callable[[ObjectKey], None],
        selector: str = "",
    ) -> None:
        """``enqueue``: has an archive reconciled. ``selector``: of the policies that are served."""
        self._cache, self._cluster, self._enqueue, self._selector = cache, cluster, enqueue, selector
        self._checks: dict[ObjectKey, str] = {}
        self._doubts: dict[ObjectKey, str] = {}
        self._routes: dict[ObjectKey, tuple[Hashable, ...]] = {}

    def known(self, policy: StoredPolicy, spec: PartitionPolicySpec) -> Archives:
        """The archives that this policy asked for, as it reads now.

        Those with another database or another destination are none of its: what is proven there is proven elsewhere.
        The same Secret may lead to another server by now: of which server each is, its state says.
        """
        found: dict[int, list[ArchiveState]] = {}
        for archive, binding in self.own(policy, spec):
            status = archive.status
            # Only the operator writes a status: once that names a server, an edited label counts no more.
            if "server" in status and server_label(str(status["server"])) != binding.server:
                continue
            # What is deleted, or is being deleted, proves nothing.
            if archive.expired:
                continue
            state = _state(archive, binding, status, self._doubts.get(archive.key, ""))
            found.setdefault(binding.oid, []).append(state)
        states = {oid: tuple(sorted(some, key=lambda each: (each.round, each.name))) for oid, some in found.items()}
        plan = approval.read(policy.plan_approved, policy.status, policy.generation)
        return Archives(states, policy.approved, plan)

    def ask(
        self,
        policy: StoredPolicy,
        spec: PartitionPolicySpec,
        server: str,
        requests: Iterable[Request],
        address: Hashable = None,
    ) -> None:
        """Create the archives and want the checks that the plan asks for, and no others.

        ``server``: the `inventory.Server.identity` that the plan was made on; ``address``: by which it was reached.
        Raises `ClusterUnavailable`, and `NameTaken` where another PartitionArchive of a name exists.
        """
        wanted = list(requests)
        checks = {(policy.key[0], each.archive): each for each in wanted if isinstance(each, CheckRequest)}
        archiving = spec.retention.archive if spec.retention else None
        route = (address, spec.database.archive, archiving)
        scheduled = archiving is not None and (archiving.verify_every or archiving.keep_for) is not None
        rerouted = self._routes[policy.key] != route if policy.key in self._routes else scheduled
        self._routes[policy.key] = route
        if rerouted:
            # Jobs have another way to the database now, and no archive waits for its next attempt; or archives are read
            # again, or kept, for another time.
            for archive in self._cache.indexed(policy.key):
                self._enqueue(archive.key)
        for archive, _ in self.own(policy, spec):
            if archive.key not in checks:
                self._checks.pop(archive.key, None)
        for key, each in checks.items():
            if each.void:
                self.doubt(policy, each.archive)
            if self._checks.get(key) != each.token:
                self.want_check(key, each.token)
                self._enqueue(key)
        for request in wanted:
            if isinstance(request, ArchiveRequest):
                self._create(policy, spec, server, request)

    def wanted_check(self, archive: ObjectKey) -> str | None:
        """The token of the check that was asked for last: another token, another check. After a restart it is asked
        for again."""
        return self._checks.get(archive)

    def want_check(self, archive: ObjectKey, token: str) -> None:
        """Have the archive read again."""
        self._checks[archive] = token

    def forget(self, archive: ObjectKey) -> None:
        """The archive was deleted."""
        self._checks.pop(archive, None)
        self._doubts.pop(archive, None)

    def moved(self, policy: ObjectKey, here: bool) -> None:
        """The policy is served here from now on, or no more, and with it its archives: each is reconciled."""
        # Without a selector all archives are this operator's whatever becomes of policies.
        for archive in self._cache.indexed(policy) if self._selector else ():
            if here:
                # From an earlier time here, and out of date.
                self._checks.pop(archive.key, None)
            self._enqueue(archive.key)

    def doubt(self, policy: StoredPolicy, name: str) -> None:
        """The last check of the archive of that name counts no more."""
        key = (policy.key[0], name)
        if (archive := self._cache.get(key)) is not None:
            token = str((archive.status.get("check") or {}).get("token", ""))
            self._doubts[key] = hashlib.sha256(token.encode()).hexdigest()[:10]

    def record_drop(
        self, policy: StoredPolicy, oid: int, name: str, now: datetime, approval: str | None = None
    ) -> None:
        """Write into the status of the policy's archive of that ``name`` that its table was dropped, see
        `archive_status.dropped`. Where that cannot be written now, the next reconcile does: it sees the table gone."""
        key = (policy.key[0], name)
        known = self._cache.get(key)
        if known is None or known.policy != policy.key or known.binding is None or known.binding.oid != oid:
            return
        try:
            for _ in range(WRITES):
                archive = self._cluster.archive(key)
                if archive is None or archive.uid != known.uid:
                    return
                if (status := dropped(archive.status, now, approval)) == archive.status:
                    return
                # Only while it is as it was read: the other reconciler may be writing, too.
                if (written := self._cluster.write_status(archive, status, archive.version)) is not None:
                    self._cache.put(parse_archive(written))
                    return
            log.warning(
                "cannot record in %s that its table is gone: its status was changed at each attempt",
                known,
                extra={"reason": "Conflict"},
            )
        except ClusterUnavailable as error:
            log.warning("%s", error, extra={"archive": str(known), "reason": error.reason})

    def record_missing(
        self, policy: StoredPolicy, spec: PartitionPolicySpec, server: str, oids: Iterable[int], now: datetime
    ) -> None:
        """The same of tables that were seen to be gone on the server with that `inventory.Server.identity`."""
        archives = self.known(policy, spec).on(server)
        for oid in oids:
            state = archives.latest(oid)
            if state is not None and state.proves(oid):
                self.record_drop(policy, oid, state.name, now)

    def own(self, policy: StoredPolicy, spec: PartitionPolicySpec) -> Iterator[tuple[StoredArchive, Binding]]:
        """The policy's archives, of whatever server, each with the table that it is of."""
        place = spec.retention.archive.place if spec.retention and spec.retention.archive else None
        for archive in self._cache.indexed(policy.key) if place else ():
            of = archive.binding
            same = of is not None and of.database is not None and of.database.identity == spec.database.identity
            if of is not None and same and of.destination == place:
                yield archive, of

    def _create(self, policy: StoredPolicy, spec: PartitionPolicySpec, server: str, wanted: ArchiveRequest) -> None:
        assert spec.retention is not None
        assert spec.retention.archive is not None
        asked = PartitionArchiveSpec(
            policy=PolicyRef(name=policy.key[1]),
            # Beside the policy, which it outlives.
            database=spec.database,
            schema_=wanted.schema,
            partition=wanted.name,
            oid=wanted.oid,
            destination=spec.retention.archive.place,
            job=spec.retention.job,
        )
        key, labels = (policy.key[0], name(policy, spec, server, wanted)), _labels(policy, server, wanted)
        # Once the policy is gone, those of the selector decide which operator goes on with it.
        of_table = {TABLE_LABEL: label(str(spec.table))}
        all_labels = MANAGED | deciding_labels(self._selector, policy.labels) | of_table | labels
        body = {
            "apiVersion": API_VERSION,
            "kind": ARCHIVE_KIND,
            "metadata": {"namespace": key[0], "name": key[1], "labels": all_labels},
            "spec": asked.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True),
        }
        if self._cluster.create(ARCHIVE_PLURAL, body):
            return
        there = self._cluster.archive(key)
        if there is None:
            return
        made, _ = check(PartitionArchiveSpec, there.spec, "spec")
        # How its Jobs run may have changed since; what it is of may not.
        same = made is not None and _subject(made) == _subject(asked) and there.labels.items() >= labels.items()
        if not same:
            raise NameTaken(
                f"cannot create {ARCHIVE_KIND} {key[1]} for partition {wanted.schema}.{wanted.name}: one of that name "
                "is of something else, or its labels were changed: delete it"
            )
        if there.expired:
            raise NameTaken(
                f"cannot create {ARCHIVE_KIND} {key[1]} for partition {wanted.schema}.{wanted.name}: the one of that "
                "name is the record of an archive that was deleted; delete that record"
            )


def name(policy: StoredPolicy, spec: PartitionPolicySpec, server: str, wanted: ArchiveRequest) -> str:
    """The archive's name: always the same for one table of one server, one destination and one round."""
    assert spec.retention is not None
    assert spec.retention.archive is not None
    identity = (spec.database.identity, spec.retention.archive.place)
    where = [each.model_dump_json(by_alias=True, exclude_none=True) for each in identity]
    parts = (policy.key[1], *where, server, str(wanted.oid), str(wanted.round))
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]
    text = re.sub(r"[^a-z0-9]+", "-", f"{policy.key[1]}-{wanted.name}".lower())
    return f"{text[:STEM].strip('-')}-{digest}"


def _labels(policy: StoredPolicy, server: str, wanted: ArchiveRequest) -> dict[str, str]:
    return {
        POLICY_LABEL: label(policy.key[1]),
        SERVER_LABEL: server_label(server),
        OID_LABEL: str(wanted.oid),
        ROUND_LABEL: str(wanted.round),
    }


def label(text: str) -> str:
    """The text as the value of a label, with a digest where it is longer, or has characters that a label may not."""
    if len(text) <= LABEL and re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?", text):
        return text
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", text[:50]).lstrip("_.-")
    return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:10]}".lstrip("-")


def _subject(spec: PartitionArchiveSpec) -> tuple[Any, ...]:
    return spec.policy, spec.database and spec.database.identity, spec.oid, spec.destination


def _state(archive: StoredArchive, binding: Binding, status: Mapping[str, Any], doubt: str) -> ArchiveState:
    check_status, taken = status.get("check"), status.get("fingerprint")
    if (found := status.get("verification")) and found.get("ok") is not True:
        # What was found out by schedule keeps a drop from being done, until a check finds the archive whole.
        check_status = {**found, "token": f"verify/{found.get('job', '')}"}
    return ArchiveState(
        name=archive.key[1],
        round=binding.round,
        server=binding.server,
        oid=status.get("oid"),
        proven=is_proven(status) and "server" in status,
        fingerprint=Fingerprint.model_validate(taken) if taken else None,
        location=str(status.get("location") or ""),
        check=_check(check_status) if check_status else None,
        error=trouble(status),
        doubt=doubt,
        dropped="dropped" in status,
    )


def _check(found: dict[str, Any]) -> CheckState:
    return CheckState(
        token=str(found.get("token") or ""),
        # Anything but a plain true is no success.
        ok=found.get("ok") is True,
        reason=str(found.get("reason") or "CheckFailed"),
        message=str(found.get("message") or "it was read again, and is not as it was proven"),
        completed=moment(found.get("completed")),
    )


def deciding_labels(selector: str, labels: Mapping[str, str]) -> dict[str, str]:
    """Those of the labels that the selector names: an object that has them and no others is selected just as well."""
    words = set(re.split(r"[\s,=!()<>]+", selector))
    return {name: value for name, value in labels.items() if name in words}
