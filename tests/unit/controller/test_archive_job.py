"""The Job that archives a partition: what it is made of, and what is read of it afterwards."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from partwarden.api.archive import CONTAINER, MANAGED
from partwarden.api.destination import Destination
from partwarden.api.job_settings import JobSettings
from partwarden.archive.job_order import DATABASE_KEYS, STORAGE_KEYS, WRONG, JobSpec, Report, Task
from partwarden.archive.manifest import TableName
from partwarden.controller.archive_job import GROUP_ID, Owner, controller_of, literal, manifest, name
from partwarden.controller.job_status import (
    CLAIM_NOT_FOUND,
    JOB_PENDING,
    JOB_SUSPENDED,
    NO_POD,
    NO_REPORT,
    PENDING_LONG,
    POD_ENDING,
    WITHOUT_POD,
    Phase,
    idle_since,
    view,
)
from partwarden.controller.settings import Settings

OWNER = Owner("orchestrator", "run-run-2020", "5f0f4f0e-0000-4000-8000-000000000001")
S3 = {"s3": {"url": "s3://archives/runs", "secretRef": {"name": "storage"}}}
PVC = {"pvc": {"claimName": "archives", "path": "runs"}}
AT = "2026-01-01T00:00:00Z"
BEGUN = datetime.fromisoformat(AT)


def order(destination: dict[str, Any], task: Task = Task.ARCHIVE) -> JobSpec:
    return JobSpec(
        task=task,
        id="run-run-2020-0123456789",
        partition=TableName(schema_="public", name="run_2020", oid=16402),
        destination=Destination.model_validate(destination),
    )


def made(destination: dict[str, Any], wanted: JobSettings | None = None, **settings: Any) -> dict[str, Any]:
    given = Settings(job_image="partwarden:1", **settings)
    return manifest(OWNER, order(destination), "1", settings=given, database_secret="db", wanted=wanted)


def container(job: dict[str, Any]) -> dict[str, Any]:
    (only,) = job["spec"]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def test_the_name_is_the_same_for_the_same_and_another_for_anything_else() -> None:
    assert name(OWNER, Task.ARCHIVE, "1") == name(OWNER, Task.ARCHIVE, "1")
    anew = Owner(OWNER.namespace, OWNER.name, "5f0f4f0e-0000-4000-8000-000000000002")
    names = {
        name(OWNER, Task.ARCHIVE, "1"),
        name(OWNER, Task.ARCHIVE, "2"),
        name(OWNER, Task.CHECK, "1"),
        name(anew, Task.ARCHIVE, "1"),
    }
    assert len(names) == 4


@pytest.mark.parametrize("of", ["a" * 253, "run.2020", "x" * 39 + "." + "y", "1"])
def test_the_name_is_one_that_kubernetes_takes_as_a_label_too(of: str) -> None:
    found = name(Owner("ns", of, "uid"), Task.ARCHIVE, "1")
    assert len(found) <= 63
    assert all(char.isalnum() or char == "-" for char in found)
    assert found[0].isalnum()
    assert found[-1].isalnum()


def test_no_pod_of_it_runs_beside_another_or_with_a_token() -> None:
    spec = made(S3)["spec"]
    assert (spec["parallelism"], spec["completions"], spec["podReplacementPolicy"]) == (1, 1, "Failed")
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod


def test_a_wrong_configuration_fails_at_once_and_a_drained_node_does_not_count() -> None:
    wrong, drained = made(S3)["spec"]["podFailurePolicy"]["rules"]
    assert (wrong["action"], wrong["onExitCodes"]["values"]) == ("FailJob", [WRONG])
    assert (drained["action"], drained["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")


def test_every_key_of_a_secret_is_a_variable_of_its_own_and_none_must_be_there() -> None:
    variables = container(made(S3))["env"]
    names = [each["name"] for each in variables]
    assert len(set(names)) == len(names)
    from_secret = [each["valueFrom"]["secretKeyRef"] for each in variables if "valueFrom" in each]
    assert {each["key"] for each in from_secret if each["name"] == "db"} == set(DATABASE_KEYS)
    assert {each["key"] for each in from_secret if each["name"] == "storage"} == set(STORAGE_KEYS)
    assert all(each["optional"] for each in from_secret)


def test_the_order_comes_back_as_it_was_sent() -> None:
    (text,) = [each["value"] for each in container(made(PVC))["env"] if each["name"] == "PARTWARDEN_ORDER"]
    assert JobSpec.model_validate_json(text) == order(PVC)


def expanded(text: str, variables: dict[str, str]) -> str:
    """As kubelet does it: $$ is a dollar, $(NAME) the value of a variable where there is one."""
    return re.sub(
        r"\$\$|\$\(([^)]*)\)", lambda found: "$" if found[0] == "$$" else variables.get(found[1], found[0]), text
    )


def test_no_name_and_no_setting_becomes_the_value_of_a_variable() -> None:
    trap = "run$(PARTWARDEN_DB_password)$$(x)$"
    wanted = order(PVC).model_copy(update={"partition": TableName(schema_="public", name=trap, oid=16402)})
    settings = Settings(job_image="partwarden:1", job_env={"PROXY": trap})
    built = container(manifest(OWNER, wanted, "1", settings=settings, database_secret="db"))
    variables = {"PARTWARDEN_DB_password": "secret", "x": "secret"}
    found = {each["name"]: expanded(each["value"], variables) for each in built["env"] if "value" in each}
    assert found["PROXY"] == trap
    assert JobSpec.model_validate_json(found["PARTWARDEN_ORDER"]) == wanted
    assert [expanded(each, variables) for each in built["args"]] == ["job", "--report", "/dev/termination-log"]
    assert literal(trap).count("$") == 2 * trap.count("$")


def test_a_claim_is_mounted_and_writable_for_the_images_user_and_nothing_else_is() -> None:
    on_claim, on_s3 = (made(each)["spec"]["template"]["spec"] for each in (PVC, S3))
    assert {"name": "archives", "persistentVolumeClaim": {"claimName": "archives"}} in on_claim["volumes"]
    assert on_claim["securityContext"]["fsGroup"] == GROUP_ID
    assert [each["name"] for each in on_s3["volumes"]] == ["tmp"]
    assert "fsGroup" not in on_s3["securityContext"]
    assert container(made(PVC))["securityContext"]["readOnlyRootFilesystem"] is True


def test_a_policy_has_its_say_in_where_and_how_large_and_in_nothing_else() -> None:
    settings = JobSettings.model_validate(
        {
            "resources": {"limits": {"memory": "256Mi"}},
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "batch", "operator": "Exists"}],
            "labels": {"team": "a", "app.kubernetes.io/managed-by": "another"},
        }
    )
    env = {"HTTPS_PROXY": "http://p:1"}
    job = made(S3, settings, job_service_account="archiver", job_pull_secrets=("registry",), job_env=env)
    pod = job["spec"]["template"]
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["metadata"]["labels"].items() >= MANAGED.items()
    assert pod["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert pod["spec"]["tolerations"] == [{"key": "batch", "operator": "Exists"}]
    assert pod["spec"]["serviceAccountName"] == "archiver"
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert container(job)["resources"] == {"limits": {"memory": "256Mi"}}
    assert {"name": "HTTPS_PROXY", "value": "http://p:1"} in container(job)["env"]


def job(*conditions: dict[str, Any]) -> dict[str, Any]:
    said = [{"status": "True", "lastTransitionTime": AT, **each} for each in conditions]
    return {"metadata": {"name": "job", "uid": "1", "creationTimestamp": AT}, "status": {"conditions": said}}


def pod(state: dict[str, Any] | None = None, at: str = AT, **status: Any) -> dict[str, Any]:
    states = [{"name": CONTAINER, "state": state}] if state else []
    spec = {"containers": [{"name": CONTAINER, "image": "partwarden:1"}]}
    metadata = {"name": f"pod-{at[:4]}", "creationTimestamp": at}
    return {"metadata": metadata, "spec": spec, "status": {"containerStatuses": states, **status}}


def left(report: Report, code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": report.model_dump_json(by_alias=True)}}


DONE = Report(ok=True, id="1", rows=3, sha256="ab")
DENIED = Report(ok=False, reason="DestinationDenied", message="may not write")


def test_what_the_last_pod_reports_counts() -> None:
    pods = [pod(left(DONE, 0), "2026-01-02T00:00:00Z"), pod(left(DENIED, 1), AT)]
    found = view(job({"type": "Complete"}), pods)
    assert (found.phase, found.report, found.reason) == (Phase.COMPLETE, DONE, "")


def test_a_job_that_completed_without_a_report_proves_nothing() -> None:
    for pods in ([], [pod({"terminated": {"exitCode": 0, "message": '{"ok": tr'}})], [pod(left(DENIED, 0))]):
        found = view(job({"type": "Complete"}), pods)
        assert (found.phase, found.report, found.reason) == (Phase.FAILED, None, NO_REPORT)


OOM = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}


@pytest.mark.parametrize(
    ("pods", "reason", "says"),
    [
        ([pod(left(DENIED, WRONG))], "DestinationDenied", "may not write"),
        ([pod(OOM)], "OOMKilled", "a PartitionRestore that has spec.job"),
        ([pod(reason="Evicted", message="low on resource: memory")], "Evicted", "low on resource: memory"),
        ([pod({"terminated": {"exitCode": 139}})], "JobFailed", "exit code 139, and left no report: too often"),
        ([], "JobFailed", "its pods are gone: too often"),
    ],
)
def test_the_cause_of_a_failure_is_named(pods: list[dict[str, Any]], reason: str, says: str) -> None:
    found = view(job({"type": "Failed", "reason": "BackoffLimitExceeded", "message": "too often"}), pods)
    assert (found.phase, found.reason) == (Phase.FAILED, reason)
    assert says in found.message


def test_what_a_pod_waits_for_is_named_while_the_job_runs() -> None:
    missing = pod({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off 10s"}})
    found = view(job(), [missing])
    assert (found.phase, found.reason, found.idle) == (Phase.RUNNING, "ImagePullBackOff", BEGUN)
    assert "'partwarden:1'" in found.message
    assert "10s" not in found.message
    # Kubelet says the two in turns: the status says one of them, and is not written again and again.
    assert view(job(), [pod({"waiting": {"reason": "ErrImagePull"}})]) == found
    pending = pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no"}])
    assert view(job(), [pending]).reason == "Unschedulable"
    assert view(job(), [pod({"running": {}})]) == view(job(), [pod({"running": {}})])
    assert view(job(), [pod({"running": {}})]).idle is None


def test_a_claim_that_does_not_exist_is_named_as_that() -> None:
    said = '0/3 nodes are available: persistentvolumeclaim "archives" not found. preemption: no'
    found = view(job(), [pod(conditions=[{"type": "PodScheduled", "status": "False", "message": said}])])
    assert found.reason == CLAIM_NOT_FOUND
    assert "'archives'" in found.message


def test_a_job_that_gets_no_pod_is_reported_after_a_while() -> None:
    made = job()
    assert view(made, [], BEGUN).reason == ""
    assert view(made, [], BEGUN + WITHOUT_POD).reason == NO_POD
    assert view(made, [pod({"running": {}})], BEGUN + WITHOUT_POD).reason == ""


LATE = BEGUN + PENDING_LONG
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes fit"}


@pytest.mark.parametrize(
    ("pods", "reason", "says"),
    [
        ([], NO_POD, "has no pod: its Events say why"),
        ([pod(conditions=[UNSCHEDULABLE])], JOB_PENDING, "waits for a node: 0/3 nodes fit"),
        ([pod({"waiting": {"reason": "ImagePullBackOff"}})], "ImagePullBackOff", "image 'partwarden:1'"),
        ([pod({"waiting": {"reason": "ContainerCreating"}})], JOB_PENDING, "its pod is ContainerCreating"),
        ([pod()], JOB_PENDING, "its pod is Pending"),
    ],
)
def test_a_job_that_is_pending_for_long_says_since_when_and_why(
    pods: list[dict[str, Any]], reason: str, says: str
) -> None:
    assert view(job(), pods, LATE - timedelta(seconds=1)).message.startswith("no pod of Job") is False
    found = view(job(), pods, LATE)
    assert (found.phase, found.reason, found.idle) == (Phase.RUNNING, reason, BEGUN)
    assert found.message.startswith(f"no pod of Job job has run since {AT}, so it does not count as running: ")
    assert says in found.message
    assert view(job(), pods, LATE + timedelta(hours=1)) == found


def test_a_suspended_job_is_named_at_once_and_since_when_after_a_while() -> None:
    since = BEGUN + timedelta(hours=1)
    suspended = {**job({"type": "Suspended", "lastTransitionTime": since.isoformat()}), "spec": {"suspend": True}}
    found = view(suspended, [], since)
    assert (found.reason, found.idle) == (JOB_SUSPENDED, since)
    assert found.message == "Job job is suspended: set its spec.suspend to false"
    late = view(suspended, [], since + PENDING_LONG)
    assert late.reason == JOB_SUSPENDED
    assert "since 2026-01-01T01:00:00Z" in late.message
    assert idle_since({**job(), "spec": {"suspend": True}}) == BEGUN


@pytest.mark.parametrize(
    ("status", "idle"),
    [
        ({}, BEGUN),
        ({"active": 1, "ready": 0}, BEGUN),
        ({"active": 1, "ready": 0, "startTime": "2026-01-01T00:01:00Z"}, BEGUN + timedelta(minutes=1)),
        ({"active": 1, "ready": 1}, None),
        ({"active": 1}, None),
        # Its next pod may have been made long after it.
        ({"active": 1, "ready": 0, "failed": 1}, None),
    ],
)
def test_a_job_alone_says_since_when_it_is_pending_until_a_pod_has_failed(
    status: dict[str, Any], idle: datetime | None
) -> None:
    assert idle_since({**job(), "status": status}) == idle


def test_a_job_whose_pod_has_run_is_not_pending() -> None:
    first, second = pod(left(DENIED, 1)), pod(conditions=[UNSCHEDULABLE], at="2026-01-02T00:00:00Z")
    assert view(job(), [first], LATE).idle is None
    assert view(job(), [second, first], LATE).idle == BEGUN + timedelta(days=1)
    assert view(job(), [pod(phase="Failed", reason="Evicted")], LATE).idle is None


def test_a_controller_is_an_archive_of_this_program_and_no_other_owner() -> None:
    of = {"apiVersion": "partwarden.dev/v1alpha1", "kind": "PartitionArchive", "name": "a", "uid": "1"}
    others = [
        of,
        {**of, "controller": False},
        {**of, "controller": True, "apiVersion": "example.com/v1"},
        {**of, "controller": True, "kind": "PartitionPolicy"},
        {**of, "controller": True, "apiVersion": "v1"},
    ]
    for references in ([], others):
        assert controller_of({"metadata": {"namespace": "ns", "ownerReferences": references}}) is None
    meta = {"namespace": "ns", "ownerReferences": [*others, {**of, "controller": True}]}
    assert controller_of({"metadata": meta}) == Owner("ns", "a", "1")
    assert controller_of(made(S3)) == OWNER


def test_a_pod_whose_end_is_waited_for_is_named_until_it_has_ended() -> None:
    ending = pod({"running": {}})
    ending["metadata"]["deletionTimestamp"] = AT
    assert view(job(), [ending]).reason == POD_ENDING
    gone = pod(left(DENIED, 1))
    gone["metadata"]["deletionTimestamp"] = AT
    assert view(job(), [gone]).reason == "DestinationDenied"


def test_a_time_limit_has_a_reason_of_its_own() -> None:
    found = view(job({"type": "Failed", "reason": "DeadlineExceeded"}), [])
    assert found.reason == "DeadlineExceeded"
    assert found.ended is not None
    assert found.ended.isoformat() == "2026-01-01T00:00:00+00:00"


def test_nothing_of_a_manifest_is_more_than_json() -> None:
    assert json.loads(json.dumps(made(PVC))) == made(PVC)
