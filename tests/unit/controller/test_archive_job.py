"""The Job that archives a partition: what it is made of, and what is read of it afterwards."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from partwarden.api.archive import CONTAINER, MANAGED
from partwarden.api.destination import Destination
from partwarden.api.retention import JobSettings
from partwarden.archive.manifest import DATABASE_KEYS, STORAGE_KEYS, WRONG, JobSpec, Report, TableName, Task
from partwarden.controller.archive_job import GROUP_ID, Owner, Runtime, manifest, name
from partwarden.controller.job_status import (
    CLAIM_NOT_FOUND,
    NO_POD,
    NO_REPORT,
    POD_ENDING,
    WITHOUT_POD,
    Phase,
    view,
)

OWNER = Owner("orchestrator", "run-run-2020", "5f0f4f0e-0000-4000-8000-000000000001")
S3 = {"s3": {"url": "s3://archives/runs", "secretRef": {"name": "storage"}}}
PVC = {"pvc": {"claimName": "archives", "path": "runs"}}
AT = "2026-01-01T00:00:00Z"


def order(destination: dict[str, Any], task: Task = Task.ARCHIVE) -> JobSpec:
    return JobSpec(
        task=task,
        id="run-run-2020-0123456789",
        partition=TableName(schema_="public", name="run_2020", oid=16402),
        destination=Destination.model_validate(destination),
    )


def made(destination: dict[str, Any], settings: JobSettings | None = None, **runtime: Any) -> dict[str, Any]:
    given = Runtime(image="partwarden:1", **runtime)
    return manifest(OWNER, order(destination), "1", runtime=given, database_secret="db", settings=settings)


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


def test_no_name_in_the_order_is_taken_for_a_variable_by_kubelet() -> None:
    asked = order(PVC).model_copy(update={"partition": TableName(schema_="$(HOME)", name="$$x$", oid=1)})
    job = manifest(OWNER, asked, "1", runtime=Runtime(image="partwarden:1"), database_secret=None, settings=None)
    (text,) = [each["value"] for each in container(job)["env"] if each["name"] == "PARTWARDEN_ORDER"]
    assert "$" not in text.replace("$$", "")
    # As kubelet reads it: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#environment-variables
    assert JobSpec.model_validate_json(text.replace("$$", "$")) == asked


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
    job = made(S3, settings, service_account="archiver", pull_secrets=("registry",), env={"HTTPS_PROXY": "http://p:1"})
    pod = job["spec"]["template"]
    assert pod["metadata"]["labels"]["team"] == "a"
    assert pod["metadata"]["labels"].items() >= MANAGED.items()
    assert pod["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert pod["spec"]["tolerations"] == [{"key": "batch", "operator": "Exists"}]
    assert pod["spec"]["serviceAccountName"] == "archiver"
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert container(job)["resources"] == {"limits": {"memory": "256Mi"}}
    assert {"name": "HTTPS_PROXY", "value": "http://p:1"} in container(job)["env"]


def job(*conditions: dict[str, Any]) -> dict[str, Any]:
    said = [{"status": "True", "lastTransitionTime": AT, **each} for each in conditions]
    return {"metadata": {"name": "job", "uid": "1"}, "status": {"conditions": said}}


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
        ([pod(OOM)], "OOMKilled", "more memory than its limit"),
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
    assert (found.phase, found.reason, found.started) == (Phase.RUNNING, "ImagePullBackOff", False)
    assert "'partwarden:1'" in found.message
    assert "10s" not in found.message
    # Kubelet says the two in turns: the status says one of them, and is not written again and again.
    assert view(job(), [pod({"waiting": {"reason": "ErrImagePull"}})]) == found
    pending = pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no"}])
    assert view(job(), [pending]).reason == "Unschedulable"
    assert view(job(), [pod({"running": {}})]) == view(job(), [pod({"running": {}})])
    assert view(job(), [pod({"running": {}})]).started


def test_a_claim_that_does_not_exist_is_named_as_that() -> None:
    said = '0/3 nodes are available: persistentvolumeclaim "archives" not found. preemption: no'
    found = view(job(), [pod(conditions=[{"type": "PodScheduled", "status": "False", "message": said}])])
    assert found.reason == CLAIM_NOT_FOUND
    assert "'archives'" in found.message


def test_a_job_that_gets_no_pod_is_reported_after_a_while() -> None:
    made, begun = job(), datetime.fromisoformat(AT)
    made["metadata"]["creationTimestamp"] = AT
    assert view(made, [], begun).reason == ""
    assert view(made, [], begun + WITHOUT_POD).reason == NO_POD
    assert view(made, [pod({"running": {}})], begun + WITHOUT_POD).reason == ""


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
