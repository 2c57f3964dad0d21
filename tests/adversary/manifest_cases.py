"""Objects that the adversary makes in its own namespace: policies, archives and Jobs, and what it writes of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from adversary.cases import Case
from adversary.stage import Stage
from lab.operator import until
from lab.site import GROUP, PLURAL, VERSION
from partwarden.api.archive import ARCHIVE_KIND, ARCHIVE_PLURAL, CONTAINER, MANAGED
from partwarden.api.policy import ANNOTATION, API_VERSION, APPROVAL
from partwarden.api.restore import RESTORE_KIND, RESTORE_PLURAL
from partwarden.archive.job_order import Report
from partwarden.kube.client import JOB_OF_POD, MOST_PODS

CASES: list[Case] = []
NO_SECRET = "SecretNotFound"
MANY, JOBS = 2000, 20
NOWHERE = {"partwarden.dev/no-such-node": "true"}
LONG = "\x1b[2J\n" * 200
"""1,000 characters."""
CONDITION = {"status": "True", "reason": "X" * 128, "message": LONG, "lastTransitionTime": "9999-12-31T23:59:59Z"}
FORGED: dict[str, Any] = {
    "observedGeneration": 1 << 62,
    "conditions": [{**CONDITION, "type": f"{kind}"} for kind in ("Ready", "Stalled", "Reconciling", *range(13))],
    "partitions": [{"name": LONG, "bytes": 1 << 62, "state": "Past"}] * 200,
}
CHECK = {
    "token": "x" * 256,
    "job": "x" * 63,
    "ok": False,
    "reason": "X",
    "message": LONG,
    "completed": "9999-12-31T23:59:59Z",
}
ARCHIVED: dict[str, Any] = {
    "conditions": FORGED["conditions"],
    "attempts": 1 << 31,
    "nextAttempt": "0001-01-01T00:00:00Z",
    "oid": 1,
    "server": LONG,
    "location": LONG,
    "check": CHECK,
}


PROOF = Report(ok=True, location="s3://archives/forged", sha256="a" * 64, manifest_sha256="b" * 64, rows=1)


def case(does: str, reason: str, says: str) -> Callable[[Callable[[Stage], Generator[None]]], None]:
    """Add what is decorated."""

    def add(attack: Callable[[Stage], Generator[None]]) -> None:
        CASES.append(Case(does, reason, says, attack))

    return add


def annotated(does: str, reason: str, says: str, annotations: Mapping[str, str], spec: dict[str, Any]) -> None:
    """A policy of the database that is there, with these annotations."""

    def attack(stage: Stage) -> Generator[None]:
        name = stage.name()
        stage.secret(name, {"uri": stage.own.dsn})
        stage.policy(name, spec, annotations=dict(annotations))
        yield

    CASES.append(Case(does, reason, says, attack))


KEEP: dict[str, Any] = {"mode": "Plan", "retention": {"keepFor": "1y"}}
BOUNDS: dict[str, Any] = {
    "mode": "Plan",
    "interval": "Hour",
    "premake": 1000,
    "ensure": [f"{2000 + n // 12}-{n % 12 + 1:02}-01" for n in range(100)],
    "startFrom": "1900-01-01",
    "nameFormat": "{table}{year}{month}{day}{hour}" + "x" * 160,
    "retention": {"keepFor": "9999y"},
}
annotated("policy has every field at its bound", "NameTooLong|TooManyPartitions", "", {}, BOUNDS)
annotated("policy holds 3,000 names", "AnnotationTooLong", "held", {ANNOTATION: "run," * 3000}, KEEP)
annotated(
    "policy has annotations of 250 KiB",
    "AnnotationTooLong",
    "",
    {ANNOTATION: "x" * 120_000, APPROVAL: "y" * 130_000},
    KEEP,
)
annotated("policy holds names that steer a terminal", "PlanPending", "spec.mode is Plan", {ANNOTATION: LONG}, KEEP)


@case("namespace has 2,000 policies at once", NO_SECRET, "create it")
def _many(stage: Stage) -> Generator[None]:
    names = [stage.name() for _ in range(MANY)]
    with ThreadPoolExecutor(8) as pool:
        making = [pool.submit(stage.policy, name) for name in names]
        yield
        for each in making:
            each.result()


@case("policy is edited without end", NO_SECRET, "create it")
def _edited(stage: Stage) -> Generator[None]:
    name, ended = stage.name(), threading.Event()
    stage.policy(name)

    def edit() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            stage.edit(name, {"premake": number % 100})

    with ThreadPoolExecutor(2) as pool:
        editing = [pool.submit(edit) for _ in range(2)]
        try:
            yield
        finally:
            ended.set()
        for each in editing:
            each.result()


@case("status of a policy is forged at its bounds", NO_SECRET, "create it")
def _forged_status(stage: Stage) -> Generator[None]:
    name = stage.name()
    stage.policy(name)
    stage.custom.patch_namespaced_custom_object_status(
        GROUP, VERSION, stage.adversary, PLURAL, name, {"status": FORGED}
    )
    stage.edit(name, {"premake": 3})
    yield


def archive(stage: Stage, **labels: str) -> str:
    """A PartitionArchive of the database that is there. Returns its UID."""
    name = stage.name()
    stage.secret(name, {"uri": stage.own.dsn})
    spec = {
        "database": {"secretRef": {"name": name}},
        "partition": "run_2019",
        "destination": {"s3": {"url": "s3://archives/runs", "secretRef": {"name": "storage"}}},
        "job": {"nodeSelector": NOWHERE},
    }
    metadata = {"name": name, "labels": labels}
    body = {"apiVersion": API_VERSION, "kind": ARCHIVE_KIND, "metadata": metadata, "spec": spec}
    made: Any = stage.custom.create_namespaced_custom_object(GROUP, VERSION, stage.adversary, ARCHIVE_PLURAL, body)
    stage.archive = name
    return str(made["metadata"]["uid"])


def job(stage: Stage, owner: str, suspended: bool) -> str:
    """A Job that looks like one of the operator's. Returns its name."""
    reference = {
        "apiVersion": API_VERSION,
        "kind": ARCHIVE_KIND,
        "controller": True,
        "name": stage.archive,
        "uid": owner,
    }
    containers = [{"name": "archive", "image": "partwarden.invalid/none"}]
    pod = {"restartPolicy": "Never", "containers": containers, "nodeSelector": NOWHERE}
    metadata = {"name": (name := stage.name()), "labels": MANAGED, "ownerReferences": [reference] if owner else []}
    body: Any = {"metadata": metadata, "spec": {"suspend": suspended, "template": {"spec": pod}}}
    stage.batch.create_namespaced_job(stage.adversary, body)
    return name


@case("Jobs bear the operator's labels, suspended and running, of no archive", "JobCreated", "created Job")
def _jobs_of_none(stage: Stage) -> Generator[None]:
    for number in range(JOBS):
        job(stage, "", suspended=number % 2 == 0)
    archive(stage)
    yield


@case("Jobs are forged for an archive of the namespace", "JobCreated|Queued", "Job")
def _jobs_of_one(stage: Stage) -> Generator[None]:
    owner = archive(stage)
    for number in range(JOBS):
        job(stage, owner, suspended=number % 2 == 0)
    yield


def made_jobs(stage: Stage) -> Any:
    """The Jobs that the operator has made for the adversary's last archive."""
    found: Any = stage.batch.list_namespaced_job(stage.adversary).items
    return [each for each in found if each.metadata.name.startswith(f"{stage.archive}-")]


def forge(stage: Stage, status: Mapping[str, Any]) -> None:
    """Write the status of the adversary's last archive."""
    named = (GROUP, VERSION, stage.adversary, ARCHIVE_PLURAL, stage.archive)
    stage.custom.patch_namespaced_custom_object_status(*named, {"status": status})


@case("status of an archive is forged at its bounds", "ClusterUnavailable|", "status.conditions: Too many")
def _full_status(stage: Stage) -> Generator[None]:
    archive(stage)
    forge(stage, ARCHIVED)
    yield


@case("status of an archive is forged with moments that are none", "JobCreated", "created Job")
def _strange_status(stage: Stage) -> Generator[None]:
    archive(stage)
    forge(stage, {"nextAttempt": LONG, "phaseSince": LONG, "attempts": 1 << 62, "check": {**CHECK, "completed": LONG}})
    yield


@case("Job is suspended since the last moment that there is", "Queued", "as many Jobs run as PARTWARDEN_JOBS allows")
def _last_moment(stage: Stage) -> Generator[None]:
    name = job(stage, archive(stage), suspended=True)
    stopped = {"type": "Suspended", "status": "True", "lastTransitionTime": "9999-12-31T23:59:59Z"}
    body: Any = {"status": {"conditions": [stopped]}}
    stage.batch.patch_namespaced_job_status(name, stage.adversary, body)
    # Whether another archive may have a slot is decided by the Jobs of all.
    archive(stage)
    yield


@case("Job is suspended since before the first year", "JobCreated|Queued", "Job")
def _first_moment(stage: Stage) -> Generator[None]:
    name = job(stage, archive(stage), suspended=True)
    stopped = {"type": "Suspended", "status": "True", "lastTransitionTime": "0000-01-01T00:00:00Z"}
    body: Any = {"status": {"conditions": [stopped]}}
    # The API server takes it, and gives it out again: this client would not read it.
    stage.batch.patch_namespaced_job_status(name, stage.adversary, body, _preload_content=False)
    archive(stage)
    yield


@case("pods with reports of their own bear the label of a Job", "JobCreated", "created Job")
def _pods(stage: Stage) -> Generator[None]:
    archive(stage)
    until("its Job is there", lambda: made_jobs(stage))
    uid = made_jobs(stage)[0].metadata.uid
    containers = [{"name": CONTAINER, "image": "partwarden.invalid/none"}]
    # A pod without an owner would be the Job's: its controller takes in those that it selects, and deletes most.
    found: Any = stage.custom.get_namespaced_custom_object(
        GROUP, VERSION, stage.adversary, ARCHIVE_PLURAL, stage.archive
    )
    named = {"name": stage.archive, "uid": found["metadata"]["uid"], "controller": True}
    common = {
        "labels": {JOB_OF_POD: uid},
        "annotations": {"x": "x" * 200_000},
        "ownerReferences": [{"apiVersion": API_VERSION, "kind": ARCHIVE_KIND, **named}],
    }
    for _ in range(2 * MOST_PODS):
        metadata = {"name": (name := stage.name()), **common}
        body: Any = {"metadata": metadata, "spec": {"containers": containers, "nodeSelector": NOWHERE}}
        stage.core.create_namespaced_pod(stage.adversary, body)
        ended = {"exitCode": 0, "message": PROOF.model_dump_json(by_alias=True)}
        said: Any = {"name": CONTAINER, "image": "i", "imageID": "", "ready": False, "restartCount": 0}
        body = {"status": {"phase": "Succeeded", "containerStatuses": [{**said, "state": {"terminated": ended}}]}}
        stage.core.patch_namespaced_pod_status(name, stage.adversary, body)
    yield
    found = stage.custom.get_namespaced_custom_object(GROUP, VERSION, stage.adversary, ARCHIVE_PLURAL, stage.archive)
    assert "manifestSha256" not in found["status"]


@case("archive bears labels of no server, table or round", "JobCreated", "created Job")
def _labels(stage: Stage) -> Generator[None]:
    archive(stage, **{"partwarden.dev/server": "x" * 63, "partwarden.dev/oid": "9" * 63, "partwarden.dev/round": "9"})
    yield


RESTORE: dict[str, Any] = {"policy": {"name": "none"}, "database": {"secretRef": {"name": "none"}}, "as": {"name": "x"}}


def restore(stage: Stage, spec: Mapping[str, Any], **metadata: Any) -> str:
    """A PartitionRestore. Returns its name."""
    name = stage.name()
    body = {
        "apiVersion": API_VERSION,
        "kind": RESTORE_KIND,
        "metadata": {"name": name, **metadata},
        "spec": {**RESTORE, **spec},
    }
    stage.custom.create_namespaced_custom_object(GROUP, VERSION, stage.adversary, RESTORE_PLURAL, body)
    return name


def changed(stage: Stage, name: str, change: Mapping[str, Any]) -> None:
    """Change a PartitionRestore, or its status."""
    named = (GROUP, VERSION, stage.adversary, RESTORE_PLURAL, name, dict(change))
    if "status" in change:
        stage.custom.patch_namespaced_custom_object_status(*named)
    else:
        stage.custom.patch_namespaced_custom_object(*named)


@case("namespace has 1,000 restores at once", "InvalidSpec", "does not exist in this namespace")
def _restores(stage: Stage) -> Generator[None]:
    specs: list[dict[str, Any]] = [{"archive": {"name": "none"}}, {"period": "1000..8999"}] * (MANY // 4)
    with ThreadPoolExecutor(8) as pool:
        making = [pool.submit(restore, stage, spec) for spec in specs]
        yield
        for each in making:
            each.result()


@case("status of a restore is forged with names that are none", "InvalidSpec", "PartitionArchive '.' does not exist")
def _strange_names(stage: Stage) -> Generator[None]:
    stage.policy("none")
    stage.secret("none", {"uri": stage.own.dsn})
    for name in ("..", "../../x/partitionarchives/y", ""):
        changed(stage, restore(stage, {"period": "2019"}), {"status": {"archive": name, "attempts": 1 << 62}})
    parts = [{"archive": ".", "state": LONG[:32]}, {"archive": "..", "state": "", "oid": -1, "expiry": {"job": "."}}]
    changed(stage, restore(stage, {"period": "2019"}), {"status": {"archives": parts, "archive": "two"}})
    dropping = {"oid": 1, "expiry": {"job": "../x"}, "completed": "9999-12-31T23:59:59Z", "expiresAt": LONG}
    changed(stage, restore(stage, {"period": "2019", "expireAfter": "1h"}), {"status": dropping})
    yield


@case("restores are deleted, and stay by a finalizer", "InvalidSpec", "does not exist in this namespace")
def _finalizers(stage: Stage) -> Generator[None]:
    spec = {"archive": {"name": "none"}}
    names = [restore(stage, spec, finalizers=["adversary.invalid/keep"]) for _ in range(20)]
    for each in names:
        stage.custom.delete_namespaced_custom_object(GROUP, VERSION, stage.adversary, RESTORE_PLURAL, each)
    restore(stage, spec)
    try:
        yield
    finally:
        for each in names:
            changed(stage, each, {"metadata": {"finalizers": None}})
