"""The Job that archives or checks one partition, or restores one: its manifest, and what that is resolved from.

A Job's name follows from what it is for: creating it a second time fails, because it exists.
https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..api.archive import ARCHIVE_KIND, CONTAINER, MANAGED, PartitionArchiveSpec, PolicyRef
from ..api.database import Database
from ..api.job_settings import JobSettings
from ..api.policy import API_VERSION, GROUP, PartitionPolicySpec
from ..api.restore import RESTORE_KIND
from ..api.retention import Compression, Format, KeyEncoding, OnLargeObjects
from ..api.types import ObjectKey
from ..api.validation import check
from ..archive.job_order import (
    DATABASE_KEYS,
    DATABASE_PREFIX,
    STORAGE_KEYS,
    STORAGE_PREFIX,
    VARIABLE,
    WRONG,
    JobOrder,
    Task,
)
from ..errors import InvalidSpec
from .settings import Settings

ARCHIVE_LABEL, RESTORE_LABEL = "partwarden.dev/archive-uid", "partwarden.dev/restore-uid"
UID_LABELS = {ARCHIVE_KIND: ARCHIVE_LABEL, RESTORE_KIND: RESTORE_LABEL}
"""By the kind of a Job's owner."""
GROUP_ID = 65532
"""Of the image's user; a volume is made writable for it."""
KEEP_ENDED_JOB = 3 * 86400
"""Seconds that a Job that ended stays with its log. Its result is in the status long before; were it not, the next Job
finds the archive at its destination, proves it and reports the same."""
LONGEST_DELETION = 900
"""Seconds that a Job which deletes may take, from when the cluster takes it up. A pod that starts late, such as for
want of its image, must not delete what a hold, or an edit of the policy, keeps by then: the next Job asks for all anew.
"""
TERMINATION_GRACE = 20
"""Seconds between SIGTERM and SIGKILL."""
TMP_SIZE = "16Mi"
"""Of memory as /tmp, for a CA that came by a Secret: nothing grows with the table."""
POD_FAILURE_RULES = (
    # What the program itself calls wrong does not get better by trying it again.
    {"action": "FailJob", "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [WRONG]}},
    # A node that is drained, or a pod that must make room, says nothing about the archive.
    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
)


class JobRequest(NamedTuple):
    """What a PartitionArchive asks for, completed by its policy."""

    spec: PartitionArchiveSpec
    database: Database
    """As Jobs connect to it."""
    schema: str
    encoding: KeyEncoding
    """Of the partition key."""
    large_objects: OnLargeObjects
    compression: Compression
    compression_level: int | None
    formats: tuple[Format, ...]
    job: JobSettings | None
    """How its Jobs run."""


def resolve_job_request(data: object, policy: object | None, of_policy: bool = False) -> JobRequest:
    """``data``: the spec of a stored PartitionArchive; ``policy``: that of its policy, None where there is none.
    ``of_policy``: the operator made it for that one.

    Raises `InvalidSpec`.
    """
    spec, problems = check(PartitionArchiveSpec, data, "spec")
    if spec is None:
        raise InvalidSpec("; ".join(problems))
    found = check(PartitionPolicySpec, policy, "spec")[0] if policy is not None else None
    database = resolve_database(spec.database, spec.policy, found, ARCHIVE_KIND)
    retention = found.retention if found else None
    kept = retention.archive if retention else None
    compression = spec.compression or (kept.compression if kept else Compression.ZSTD)
    # A level is one of a method.
    level = kept.compression_level if kept and kept.compression is compression else None
    return JobRequest(
        spec=spec,
        database=database.for_jobs,
        schema=spec.schema_ or (found.table.schema_ if found else "public"),
        encoding=found.key_encoding if found else KeyEncoding.NATIVE,
        large_objects=spec.large_objects or (retention.large_objects if retention else OnLargeObjects.REFUSE),
        compression=compression,
        compression_level=spec.compression_level or level,
        # As the schema names them, however the user has sorted them.
        formats=tuple(each for each in Format if each in (spec.formats or (kept.formats if kept else [Format.DUMP]))),
        # As the policy reads now: the limits, or the nodes, of the day on which it was made may not do any more.
        job=retention.job if retention and (of_policy or spec.job is None) else spec.job,
    )


def resolve_database(
    own: Database | None, reference: PolicyRef | None, policy: PartitionPolicySpec | None, kind: str
) -> Database:
    """The database of an object of that ``kind``: its ``own``, else its policy's. Raises `InvalidSpec`."""
    database = own or (policy.database if policy else None)
    if database is None:
        assert reference is not None
        raise InvalidSpec(
            f"spec.policy.name: PartitionPolicy {reference.name!r} does not exist in this namespace, or is not "
            f"valid: create it, or make another {kind} with spec.database"
        )
    if policy is not None and policy.database.identity == database.identity:
        # The way to it may have changed since, and the object's spec never does.
        return policy.database
    return database


class Owner(NamedTuple):
    """The PartitionArchive or PartitionRestore that the Job is for: deleting it deletes the Job."""

    namespace: str
    name: str
    uid: str
    kind: str = ARCHIVE_KIND

    @property
    def key(self) -> ObjectKey:
        """Namespace and name."""
        return self.namespace, self.name


def name(owner: Owner, task: Task, serial: str) -> str:
    """The Job's name, at most 63 bytes. ``serial`` tells the Jobs of one archive and task apart."""
    digest = hashlib.sha256("\0".join((owner.uid, task, serial)).encode()).hexdigest()[:10]
    stem = re.sub(r"[^a-z0-9-]", "-", owner.name)[:40].strip("-")
    return f"{stem or 'archive'}-{task.lower()}-{digest}"


BESIDE = (Task.VERIFY, Task.EXPIRE, Task.DROP)
"""What time alone makes due, and no table waits for."""


def is_beside(job: str) -> bool:
    """Whether a Job of that `name` is for one of these tasks."""
    return job.split("-")[-2:-1] in [[task.lower()] for task in BESIDE]


def controller_of(job: Mapping[str, Any]) -> Owner | None:
    """The object that is the Job's controller, by its owner references."""
    meta = job["metadata"]
    for each in meta.get("ownerReferences") or []:
        group, _, _ = each.get("apiVersion", "").partition("/")
        if each.get("controller") and group == GROUP and each.get("kind") in UID_LABELS:
            return Owner(meta["namespace"], each["name"], each["uid"], each["kind"])
    return None


def manifest(
    owner: Owner,
    order: JobOrder,
    serial: str,
    *,
    settings: Settings,
    database_secret: str | None,
    wanted: JobSettings | None = None,
) -> dict[str, Any]:
    """The Job. It is one pod at a time, and never two: a pod is replaced once it has ended, not while it is ending.

    Image, account and environment are the operator's ``settings``: a policy must not run any image as any account.
    ``wanted``: what the policy may say of its Jobs.
    """
    # The operator's own labels last: a label of the user's must not hide the Job from it.
    labels = {**(wanted.labels if wanted else {}), **MANAGED, UID_LABELS[owner.kind]: owner.uid}
    reference = {"apiVersion": API_VERSION, "kind": owner.kind, "name": owner.name, "uid": owner.uid}
    longest = LONGEST_DELETION if order.task is Task.EXPIRE else settings.job_deadline
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name(owner, order.task, serial),
            "namespace": owner.namespace,
            "labels": labels,
            "ownerReferences": [{**reference, "controller": True, "blockOwnerDeletion": False}],
        },
        "spec": {
            "backoffLimit": settings.job_retries,
            "activeDeadlineSeconds": min(settings.job_deadline, longest),
            "ttlSecondsAfterFinished": KEEP_ENDED_JOB,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": [*POD_FAILURE_RULES]},
            "template": {
                "metadata": {"labels": labels},
                "spec": _pod(order, settings, wanted or JobSettings(), database_secret),
            },
        },
    }


def _pod(order: JobOrder, settings: Settings, wanted: JobSettings, database_secret: str | None) -> dict[str, Any]:
    claim = order.destination.pvc
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - a mount of the pod's own
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": TMP_SIZE}}]
    security: dict[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if claim is not None:
        mounts.append({"name": "archives", "mountPath": order.mount})
        volumes.append({"name": "archives", "persistentVolumeClaim": {"claimName": claim.claim_name}})
        security |= {"fsGroup": GROUP_ID, "fsGroupChangePolicy": "OnRootMismatch"}
    placement = wanted.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"labels"})
    container = {
        "name": CONTAINER,
        "image": settings.job_image,
        "args": [literal(each) for each in ("job", "--report", "/dev/termination-log")],
        "env": _environment(order, settings, database_secret),
        "volumeMounts": mounts,
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        **({"resources": placement.pop("resources")} if "resources" in placement else {}),
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": TERMINATION_GRACE,
        "securityContext": security,
        "volumes": volumes,
        "containers": [container],
        "serviceAccountName": settings.job_service_account,
        "imagePullSecrets": [{"name": each} for each in settings.job_pull_secrets],
        **placement,
    }
    return {key: value for key, value in pod.items() if value not in ("", [])}


def _environment(order: JobOrder, settings: Settings, database_secret: str | None) -> list[dict[str, Any]]:
    plain = {**settings.job_env, VARIABLE: order.model_dump_json(by_alias=True, exclude_none=True)}
    secrets = (
        (DATABASE_PREFIX, DATABASE_KEYS, database_secret),
        (STORAGE_PREFIX, STORAGE_KEYS, order.destination.secret_name),
    )
    return [
        *({"name": key, "value": literal(value)} for key, value in plain.items()),
        # Each key on its own, as a Secret may have any of them. Keys that differ in signs only must not collide.
        *(
            {
                "name": prefix + re.sub(r"[^A-Za-z0-9]", "_", key),
                "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": True}},
            }
            for prefix, keys, secret in secrets
            if secret
            for key in keys
        ),
    ]


def literal(text: str) -> str:
    """The text as kubelet must be given it: else ``$(NAME)`` in the name of a table becomes a variable's value, such as
    that of a password."""
    return text.replace("$", "$$")
