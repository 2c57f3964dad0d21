"""Failures around an archive's Job: nothing is lost, the status names the cause, and its end heals the archive.

The ends of pods are written as kubelet writes them; everything else is the API server's and its controllers' own.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from lab.archives import Archives, oid, proof
from lab.jobs import pods_of
from lab.operator import until
from lab.postgres import Database
from lab.reconciled_archive import NAME, ReconciledArchive
from lab.site import conditions
from partwarden.controller.job_status import CLAIM_NOT_FOUND, NO_POD, POD_ENDING

EVICTED: dict[str, Any] = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
GONE: dict[str, Any] = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}


def other_pod(by_hand: ReconciledArchive, job: str, than: str) -> None:
    """Wait until the Job has another running pod."""

    def names() -> list[str]:
        return [each["metadata"]["name"] for each in by_hand.archives.unfinished(job)]

    until("another pod", lambda: names() not in ([], [than]))


def test_a_server_newer_than_the_images_pg_dump_gets_no_job(archives: Archives, pg_database: Database) -> None:
    newest = pg_database.server.major
    older = ReconciledArchive(archives, pg_database, job_client=newest - 1)
    archives.apply(NAME)
    older.reconcile()
    reason, message = older.ready()
    assert reason == "ClientTooOld"
    assert message.startswith(f"pg_dump {newest - 1} is older than the server, {newest}.")
    assert older.archives.jobs() == []
    as_new = ReconciledArchive(archives, pg_database, job_client=newest)
    as_new.reconcile()
    assert as_new.archives.job(NAME)


def test_an_out_of_memory_kill_is_reported_and_the_next_job_may_have_enough(by_hand: ReconciledArchive) -> None:
    job = by_hand.begin()
    by_hand.archives.end(job, None, 137, "OOMKilled")
    by_hand.archives.ended(job)
    by_hand.reconcile()
    status = by_hand.status()
    assert status["lastError"]["reason"] == "OOMKilled"
    assert "raise retention.job.resources.limits.memory" in status["lastError"]["message"]
    assert conditions(status)["Archived"]["status"] == "False"
    by_hand.later()
    assert by_hand.end(proof(oid(by_hand.database)))["manifestSha256"]
    assert by_hand.archives.events(NAME) == ["Warning OOMKilled", "Normal Archived"]


def test_a_preempted_pod_is_replaced_and_is_not_a_failure(by_hand: ReconciledArchive) -> None:
    job = by_hand.begin()
    evicted = by_hand.archives.play(
        job, None, phase="Failed", reason="Evicted", message="low on memory", conditions=[EVICTED]
    )
    other_pod(by_hand, job, evicted)
    by_hand.reconcile()
    assert by_hand.ready()[0] != "Evicted"
    assert "attempts" not in by_hand.status()
    assert by_hand.end(proof(oid(by_hand.database)))["job"] == job


def test_a_lost_node_is_reported_and_the_next_pod_starts_only_after_the_first_ended(by_hand: ReconciledArchive) -> None:
    job = by_hand.begin()
    (pod,) = by_hand.archives.unfinished(job)
    name, kubectl = pod["metadata"]["name"], by_hand.archives.kubectl
    # A node without kubelet: nothing ends the pod.
    target = {"apiVersion": "v1", "kind": "Node", "name": f"gone-{name}"}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods/{name}/binding"
    kubectl("create", "--raw", path, "--filename", "-", given=json.dumps(binding))
    by_hand.archives.play(job, {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, phase="Running")
    kubectl("delete", "pod", name, "--wait=false")
    by_hand.reconcile()
    reason, message = by_hand.ready()
    assert reason == POD_ENDING
    assert "delete that Node" in message
    assert len(pods_of(kubectl, job)) == 1
    by_hand.archives.play(job, None, phase="Failed", conditions=[GONE])
    other_pod(by_hand, job, name)
    assert by_hand.end(proof(oid(by_hand.database)))["job"] == job
    assert "attempts" not in by_hand.status()


def test_a_missing_image_is_reported_once_and_heals_without_another_job(by_hand: ReconciledArchive) -> None:
    job = by_hand.begin()
    by_hand.archives.play(job, {"waiting": {"reason": "ErrImagePull", "message": "not found, try 1"}})
    assert by_hand.reconcile()
    reason, message = by_hand.ready()
    assert reason == "ImagePullBackOff"
    assert "image" in message
    version = by_hand.archives.get(NAME)["metadata"]["resourceVersion"]
    by_hand.archives.play(job, {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off 20s"}})
    by_hand.reconcile()
    assert by_hand.archives.get(NAME)["metadata"]["resourceVersion"] == version
    assert by_hand.end(proof(oid(by_hand.database)))["job"] == job
    assert by_hand.archives.events(NAME) == ["Warning ImagePullBackOff", "Normal Archived"]


def test_a_missing_claim_is_reported_by_name(by_hand: ReconciledArchive) -> None:
    job = by_hand.begin()
    said = '0/1 nodes are available: persistentvolumeclaim "archives" not found. not found'
    unfit = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
    by_hand.archives.play(job, None, conditions=[unfit])
    by_hand.reconcile()
    reason, message = by_hand.ready()
    assert reason == CLAIM_NOT_FOUND
    assert "PersistentVolumeClaim 'archives'" in message


def test_a_job_whose_pod_is_forbidden_is_reported_and_continues_once_allowed(by_hand: ReconciledArchive) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    by_hand.archives.kubectl.apply(quota)
    usage = "--output=jsonpath={.status.hard.pods}"
    until("the quota counts", lambda: by_hand.archives.kubectl("get", "resourcequota", "none", usage))
    by_hand.archives.apply(NAME)
    by_hand.reconcile()
    by_hand.reconcile()
    assert by_hand.ready()[0] == "JobRunning"
    by_hand.now += timedelta(minutes=1)
    by_hand.reconcile()
    reason, message = by_hand.ready()
    assert reason == NO_POD
    assert "a quota" in message
    by_hand.archives.kubectl("delete", "resourcequota", "none")
    assert by_hand.end(proof(oid(by_hand.database)))["manifestSha256"]


def test_a_check_that_exceeds_its_deadline_is_ended_reported_and_repeated(by_hand: ReconciledArchive) -> None:
    by_hand.proven()
    by_hand.check("before-drop")
    by_hand.reconcile()
    job = by_hand.archives.job(NAME)
    patch = json.dumps({"spec": {"activeDeadlineSeconds": 1}})
    by_hand.archives.kubectl("patch", "job", job, "--type=merge", "--patch", patch)
    by_hand.archives.ended(job)
    by_hand.reconcile()
    status = by_hand.status()
    assert status["lastError"]["reason"] == "DeadlineExceeded"
    assert conditions(status)["Verified"]["status"] == "True"
    assert "check" not in status
    by_hand.later()
    assert by_hand.end(proof(oid(by_hand.database)))["check"]["ok"] is True


@pytest.mark.parametrize("lost", ["pod", "job"])
def test_a_lost_report_is_written_again_by_the_next_job(by_hand: ReconciledArchive, lost: str) -> None:
    """The archive exists by then: the program finds it, and proves it again instead of making another."""
    job = by_hand.begin()
    by_hand.archives.end(job, proof(oid(by_hand.database)), 0)
    by_hand.archives.ended(job)
    first = by_hand.orders()
    if lost == "pod":
        by_hand.archives.kubectl("delete", "pod", "--selector", f"batch.kubernetes.io/job-name={job}")
        by_hand.reconcile()
        assert by_hand.status()["lastError"]["reason"] == "NoReport"
        assert conditions(by_hand.status())["Verified"]["status"] == "False"
        by_hand.later()
    else:
        by_hand.archives.kubectl("delete", "job", job)
        by_hand.reconcile()
    assert by_hand.orders()[-1] == first[0]
    assert by_hand.end(proof(oid(by_hand.database)))["manifestSha256"]
