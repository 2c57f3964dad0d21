"""The Job that archives or checks one partition: its manifest, what it is resolved from, and how many run at once.

A Job's name follows from what it is for: creating it a second time fails, because it exists.
https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..api.archive import ARCHIVE_KIND, CONTAINER, MANAGED, PartitionArchiveSpec
from ..api.database import Database
from ..api.destination import Destination
from ..api.policy import API_VERSION, PartitionPolicySpec
from ..api.retention import JobSettings, KeyEncoding, OnLargeObjects
from ..api.types import ObjectKey
from ..api.validation import check
from ..archive.manifest import (
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
from .settings import Settings

ARCHIVE_LABEL = "partwarden.dev/archive-uid"
GROUP_ID = 65532
"""Of the image's user; a volume is made writable for it."""
KEEP_ENDED_JOB = 3 * 86400
"""Seconds that a Job that ended stays with its log. Its result is in the status long before; were it not, the next Job
finds the archive at its destination, proves it and reports the same."""
TERMINATION_GRACE = 20
"""Seconds between SIGTERM and SIGKILL."""
TMP_SIZE = "16Mi"
"""Of memory as /tmp, for a CA that came by a Secret: nothing grows with the table."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a PartitionArchive asks for, completed by its policy. ``oid``: of the table, where it is known."""

    database: Database
    """As Jobs connect to it."""
    schema: str
    name: str
    oid: int | None
    destination: Destination
    settings: JobSettings
    encoding: KeyEncoding = KeyEncoding.NATIVE
    """Of the partition key."""
    large_objects: OnLargeObjects = OnLargeObjects.REFUSE


def resolve_job_request(data: object, policy: object | None) -> JobRequest:
    """``data``: the spec of a stored PartitionArchive; ``policy``: that of its policy, None where there is none.

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
    return JobRequest(
        database=database.for_jobs,
        schema=spec.schema_ or (found.table.schema_ if found else "public"),
        name=spec.partition,
        oid=spec.oid,
        destination=spec.destination,
        settings=spec.job or JobSettings(),
        encoding=found.key_encoding if found else KeyEncoding.NATIVE,
        large_objects=spec.large_objects or (retention.large_objects if retention else OnLargeObjects.REFUSE),
    )


class JobSlots:
    """At most so many Jobs at once, safe for threads. Jobs about to be created count, too."""

    def __init__(self, count: int, counts: Callable[[ObjectKey | None], bool] = lambda owner: True) -> None:
        """``counts``: whether a Job is this operator's now, by the archive that it is for."""
        self._lock = threading.Lock()
        self._count, self._counts = count, counts
        self._running: dict[ObjectKey, ObjectKey | None] = {}

    def take(self, job: ObjectKey, owner: ObjectKey | None = None) -> bool:
        """Whether the Job may be created, for the archive ``owner``. One that runs already may."""
        with self._lock:
            if job not in self._running and sum(map(self._counts, self._running.values())) >= self._count:
                return False
            self._running[job] = owner
            return True

    def saw(self, job: ObjectKey, running: bool, owner: ObjectKey | None = None) -> None:
        """The Job runs, or has ended or was deleted."""
        with self._lock:
            if running:
                self._running[job] = owner
            else:
                self._running.pop(job, None)

    def running(self) -> frozenset[ObjectKey]:
        """The Jobs that hold a slot now, of whatever operator they are."""
        with self._lock:
            return frozenset(self._running)

    def listed(self, before: frozenset[ObjectKey], jobs: Mapping[ObjectKey, ObjectKey | None]) -> None:
        """``jobs`` run, each with its owner, as a full list shows. Others that held a slot ``before`` it was asked for
        are gone."""
        with self._lock:
            for gone in before - jobs.keys():
                self._running.pop(gone, None)
            self._running |= jobs


class Owner(NamedTuple):
    """The PartitionArchive that the Job is for: deleting it deletes the Job."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Runtime:
    """What only the operator's settings say: a policy must not run any image as any service account."""

    image: str
    service_account: str = ""
    pull_secrets: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    deadline: int = 86400
    """Seconds that all attempts of a Job may take together."""
    retries: int = 3

    @classmethod
    def of(cls, settings: Settings) -> Runtime:
        """The runtime that the settings name."""
        return cls(
            image=settings.job_image,
            service_account=settings.job_service_account,
            pull_secrets=settings.job_pull_secrets,
            env=settings.job_env,
            deadline=settings.job_deadline,
            retries=settings.job_retries,
        )


def name(owner: Owner, task: Task, serial: str) -> str:
    """The Job's name, at most 63 bytes. ``serial`` tells the Jobs of one archive and task apart."""
    digest = hashlib.sha256("\0".join((owner.uid, task, serial)).encode()).hexdigest()[:10]
    stem = re.sub(r"[^a-z0-9-]", "-", owner.name)[:40].strip("-")
    return f"{stem or 'archive'}-{task.lower()}-{digest}"


def belongs(job: Mapping[str, Any], owner: Owner) -> bool:
    """Whether the Job was made for this very PartitionArchive, and did not just get its name."""
    return any(each.get("uid") == owner.uid for each in job["metadata"].get("ownerReferences") or [])


def manifest(
    owner: Owner,
    order: JobSpec,
    serial: str,
    *,
    runtime: Runtime,
    database_secret: str | None,
    settings: JobSettings | None = None,
) -> dict[str, Any]:
    """The Job. It is one pod at a time, and never two: a pod is replaced once it has ended, not while it is ending.

    ``settings``: what the policy may say of its Jobs.
    """
    wanted: dict[str, Any] = (settings or JobSettings()).model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude_defaults=True
    )
    # The operator's own labels last: a label of the user's must not hide the Job from it.
    labels = {**wanted.pop("labels", {}), **MANAGED, ARCHIVE_LABEL: owner.uid}
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
            "ttlSecondsAfterFinished": KEEP_ENDED_JOB,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    # What the program itself calls wrong does not get better by trying it again.
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [WRONG]},
                    },
                    # A node that is drained, or a pod that must make room, says nothing about the archive.
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": {"metadata": {"labels": labels}, "spec": _pod(order, runtime, wanted, database_secret)},
        },
    }


def _pod(order: JobSpec, runtime: Runtime, wanted: dict[str, Any], database_secret: str | None) -> dict[str, Any]:
    """``wanted``: resources, nodeSelector and tolerations of the policy, where it names them."""
    claim = order.destination.pvc
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - a mount of the pod's own
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": TMP_SIZE}}]
    security: dict[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if claim is not None:
        mounts.append({"name": "archives", "mountPath": order.mount})
        volumes.append({"name": "archives", "persistentVolumeClaim": {"claimName": claim.claim_name}})
        security |= {"fsGroup": GROUP_ID, "fsGroupChangePolicy": "OnRootMismatch"}
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": runtime.image,
        "args": ["job", "--report", "/dev/termination-log"],
        "env": _environment(order, runtime, database_secret),
        "volumeMounts": mounts,
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if "resources" in wanted:
        container["resources"] = wanted["resources"]
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": TERMINATION_GRACE,
        "securityContext": security,
        "volumes": volumes,
        "containers": [container],
    }
    pod |= {key: wanted[key] for key in ("nodeSelector", "tolerations") if key in wanted}
    if runtime.service_account:
        pod["serviceAccountName"] = runtime.service_account
    if runtime.pull_secrets:
        pod["imagePullSecrets"] = [{"name": each} for each in runtime.pull_secrets]
    return pod


def _environment(order: JobSpec, runtime: Runtime, database_secret: str | None) -> list[dict[str, Any]]:
    environment: list[dict[str, Any]] = [{"name": key, "value": value} for key, value in sorted(runtime.env.items())]
    # kubelet would put other variables in place of what a name in it spells as $(…), and reads $$ as $.
    text = order.model_dump_json(by_alias=True, exclude_none=True).replace("$", "$$")
    environment.append({"name": VARIABLE, "value": text})
    if database_secret:
        environment += _from_secret(DATABASE_PREFIX, DATABASE_KEYS, database_secret)
    if order.destination.secret_name:
        environment += _from_secret(STORAGE_PREFIX, STORAGE_KEYS, order.destination.secret_name)
    return environment


def _from_secret(prefix: str, keys: Sequence[str], secret: str) -> list[dict[str, Any]]:
    """Each key on its own, as a Secret may have any of them. Keys that differ in signs only must not collide."""
    return [
        {
            "name": prefix + re.sub(r"[^A-Za-z0-9]", "_", key),
            "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": True}},
        }
        for key in keys
    ]
