"""The Job that archives or checks one partition: what it is told and how it may run -> its manifest. Pure.

Its name follows from what it is for: whoever makes it a second time is told that it exists.
https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..api.archive import ARCHIVE_KIND, CONTAINER, MANAGED, PartitionArchiveSpec
from ..api.database import Database
from ..api.destination import Destination
from ..api.policy import API_VERSION, PartitionPolicySpec
from ..api.retention import JobSettings, KeyEncoding, OnLargeObjects
from ..api.types import ObjectKey
from ..api.validation import check
from ..archive.jobspec import (
    DATABASE_KEYS,
    DATABASE_PREFIX,
    STORAGE_KEYS,
    STORAGE_PREFIX,
    VARIABLE,
    WRONG,
    JobSpec,
    Task,
)
from ..errors import InvalidSpec


class JobSlots:
    """At most so many Jobs at once. What runs is told by those who see Jobs; what is about to be made counts too."""

    def __init__(self, count: int, counts: Callable[[ObjectKey | None], bool] = lambda owner: True) -> None:
        """``counts``: whether a Job is one of ours now, by the archive that it is for."""
        self._lock = threading.Lock()
        self._count, self._counts = count, counts
        self._running: dict[ObjectKey, ObjectKey | None] = {}

    def take(self, job: ObjectKey, owner: ObjectKey | None = None) -> bool:
        """Whether the Job may be made, for the archive ``owner``. One that runs already may."""
        with self._lock:
            if job not in self._running and sum(map(self._counts, self._running.values())) >= self._count:
                return False
            self._running[job] = owner
            return True

    def saw(self, job: ObjectKey, running: bool, owner: ObjectKey | None = None) -> None:
        """The Job runs, or has ended or gone."""
        with self._lock:
            if running:
                self._running[job] = owner
            else:
                self._running.pop(job, None)

    def running(self) -> frozenset[ObjectKey]:
        """Those that hold a slot now, of whoever they are."""
        with self._lock:
            return frozenset(self._running)

    def listed(self, before: frozenset[ObjectKey], jobs: Mapping[ObjectKey, ObjectKey | None]) -> None:
        """``jobs`` run, each with its owner, as a full list shows. Others that held a slot ``before`` it was asked for
        are gone."""
        with self._lock:
            for gone in before - jobs.keys():
                self._running.pop(gone, None)
            self._running |= jobs


# What a PartitionArchive asks for, completed by the policy that it names.
#


@dataclass(frozen=True, slots=True)
class ArchiveWish:
    """``oid``: of the table, where it is known; ``encoding``: of its partition key."""

    database: Database
    """As Jobs connect to it."""
    schema: str
    name: str
    oid: int | None
    destination: Destination
    job: Wishes
    encoding: KeyEncoding = KeyEncoding.NATIVE
    large_objects: OnLargeObjects = OnLargeObjects.REFUSE


def resolve_job_request(data: object, policy: object | None) -> ArchiveWish:
    """``data``: the spec of a stored PartitionArchive; ``policy``: that of the policy, None where there is none.

    Raises `InvalidSpec`.
    """
    spec, problems = check(PartitionArchiveSpec, data, "spec")
    if spec is None:
        raise InvalidSpec("; ".join(problems))
    found = check(PartitionPolicySpec, policy, "spec")[0] if policy is not None else None
    database = spec.database or (found.database if found else None)
    if database is None:
        assert spec.policy is not None
        raise InvalidSpec(
            f"spec.policy.name: PartitionPolicy {spec.policy.name!r} does not exist in this namespace, or is not "
            "valid: create it, or make another PartitionArchive with spec.database"
        )
    if found is not None and found.database.identity == database.identity:
        # The way to it may have changed since, and an archive's spec never does.
        database = found.database
    retention = found.retention if found else None
    return ArchiveWish(
        database=database.for_jobs,
        schema=spec.schema_ or (found.table.schema_ if found else "public"),
        name=spec.partition,
        oid=spec.oid,
        destination=spec.destination,
        job=wishes(spec.job),
        encoding=found.key_encoding if found else KeyEncoding.NATIVE,
        large_objects=spec.large_objects or (retention.large_objects if retention else OnLargeObjects.REFUSE),
    )


def wishes(settings: JobSettings | None) -> Wishes:
    """As a Job takes them."""
    if settings is None:
        return Wishes()
    said: dict[str, Any] = settings.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return Wishes(
        resources=said.get("resources", {}),
        node_selector=said.get("nodeSelector", {}),
        tolerations=said.get("tolerations", []),
        labels=said.get("labels", {}),
    )


ARCHIVE_LABEL = "partwarden.dev/archive-uid"
GROUP_ID = 65532
"""Of the image's user; a volume is made writable for it."""
KEPT = 3 * 86400
"""Seconds that a Job that ended stays there with its log. What came of it is in the status long before; were it not,
the next Job finds the archive at its destination, proves it and reports the same."""
GRACE = 20
"""Seconds between SIGTERM and SIGKILL."""
SCRATCH = "16Mi"
"""Of memory as /tmp, for a CA that came by a Secret: nothing grows with the table."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The PartitionArchive that the Job is for. Whoever deletes it deletes the Job."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Runtime:
    """What only the operator's settings say: who may write a policy must not thereby run any image as any account."""

    image: str
    service_account: str = ""
    pull_secrets: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    deadline: int = 86400
    """Seconds that all attempts of a Job may take together."""
    retries: int = 3


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a policy may say of its Jobs, as Kubernetes spells it."""

    resources: Mapping[str, Any] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


def name(owner: Owner, task: Task, serial: str) -> str:
    """The Job's name, at most 63 bytes. ``serial`` tells the Jobs of one archive and task apart."""
    digest = hashlib.sha256("\0".join((owner.uid, task, serial)).encode()).hexdigest()[:10]
    stem = re.sub(r"[^a-z0-9-]", "-", owner.name)[:40].strip("-")
    return f"{stem or 'archive'}-{task.lower()}-{digest}"


def belongs(job: Mapping[str, Any], owner: Owner) -> bool:
    """Whether the Job was made for this very PartitionArchive, and not by somebody who gave it its name."""
    return any(each.get("uid") == owner.uid for each in job["metadata"].get("ownerReferences") or [])


def manifest(
    owner: Owner,
    order: JobSpec,
    serial: str,
    *,
    runtime: Runtime,
    database_secret: str | None,
    wishes: Wishes | None = None,
) -> dict[str, Any]:
    """The Job. It is one pod at a time, and never two: a pod is replaced once it has ended, not while it is ending."""
    wishes = wishes or Wishes()
    # Ours last: a label of the user's must not hide the Job from the operator.
    labels = {**wishes.labels, **MANAGED, ARCHIVE_LABEL: owner.uid}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name(owner, order.task, serial),
            "namespace": owner.namespace,
            "labels": labels,
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": ARCHIVE_KIND,
                    "name": owner.name,
                    "uid": owner.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": {
            "backoffLimit": runtime.retries,
            "activeDeadlineSeconds": runtime.deadline,
            "ttlSecondsAfterFinished": KEPT,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _rules()},
            "template": {
                "metadata": {"labels": labels},
                "spec": _pod(order, runtime, wishes, database_secret),
            },
        },
    }


def _rules() -> list[dict[str, Any]]:
    return [
        # What the program itself calls wrong does not get better by trying it again.
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [WRONG]},
        },
        # A node that is drained, or a pod that must make room, says nothing about the archive.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]


def _pod(order: JobSpec, runtime: Runtime, wishes: Wishes, database_secret: str | None) -> dict[str, Any]:
    claim = order.destination.pvc
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - a mount of the pod's own
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": SCRATCH}}]
    security: dict[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if claim is not None:
        mounts.append({"name": "archives", "mountPath": order.mount})
        volumes.append({"name": "archives", "persistentVolumeClaim": {"claimName": claim.claim_name}})
        security |= {"fsGroup": GROUP_ID, "fsGroupChangePolicy": "OnRootMismatch"}
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE,
        "securityContext": security,
        "volumes": volumes,
        "containers": [_container(order, runtime, wishes, database_secret, mounts)],
    }
    if runtime.service_account:
        pod["serviceAccountName"] = runtime.service_account
    if runtime.pull_secrets:
        pod["imagePullSecrets"] = [{"name": each} for each in runtime.pull_secrets]
    if wishes.node_selector:
        pod["nodeSelector"] = dict(wishes.node_selector)
    if wishes.tolerations:
        pod["tolerations"] = [dict(each) for each in wishes.tolerations]
    return pod


def _container(
    order: JobSpec, runtime: Runtime, wishes: Wishes, database_secret: str | None, mounts: list[dict[str, str]]
) -> dict[str, Any]:
    environment: list[dict[str, Any]] = [{"name": key, "value": value} for key, value in sorted(runtime.env.items())]
    environment.append({"name": VARIABLE, "value": order.model_dump_json(by_alias=True, exclude_none=True)})
    if database_secret:
        environment += _from_secret(DATABASE_PREFIX, DATABASE_KEYS, database_secret)
    if order.destination.secret_name:
        environment += _from_secret(STORAGE_PREFIX, STORAGE_KEYS, order.destination.secret_name)
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": runtime.image,
        "args": ["job", "--report", "/dev/termination-log"],
        "env": environment,
        "volumeMounts": mounts,
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if wishes.resources:
        container["resources"] = dict(wishes.resources)
    return container


def _from_secret(prefix: str, keys: Sequence[str], secret: str) -> list[dict[str, Any]]:
    """Each key on its own, as a Secret may have any of them. Keys that differ in signs only must not collide."""
    return [
        {
            "name": prefix + re.sub(r"[^A-Za-z0-9]", "_", key),
            "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": True}},
        }
        for key in keys
    ]
