"""What goes wrong around an archive's Job: nothing is lost, the status says why, and it heals when the cause is gone.

The ends of pods are told as kubelet tells them; everything else is the API server's and its controllers' own.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from lab.archives import PARTITION, Archives, oid, proof
from lab.jobs import pods_of
from lab.operator import until
from lab.postgres import Database
from lab.site import Site, conditions
from lab.tended import NAME, Hands
from partwarden.controller.job_status import CLAIM_NOT_FOUND, NO_POD, POD_ENDING

EVICTED: dict[str, Any] = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
GONE: dict[str, Any] = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}


@pytest.fixture
def archives(site: Site, pg_database: Database) -> Archives:
    """A table with two partitions, reached by the Secret ``run``; no operator runs."""
    pg_database.execute(PARTITION)
    site.secret("run", {"uri": pg_database.dsn})
    return Archives(site)


@pytest.fixture
def hands(archives: Archives, pg_database: Database) -> Hands:
    """Of an operator whose Jobs are given one pod."""
    return Hands(archives, pg_database, job_retries=0)


def other_pod(hands: Hands, job: str, than: str) -> None:
    """Waits until the Job has another pod at work."""

    def names() -> list[str]:
        return [each["metadata"]["name"] for each in hands.archives.unfinished(job)]

    until("another pod", lambda: names() not in ([], [than]))


def test_a_server_newer_than_the_images_pg_dump_gets_no_job(archives: Archives, pg_database: Database) -> None:
    newest = pg_database.server.major
    older = Hands(archives, pg_database, job_client=newest - 1)
    archives.apply(NAME)
    older.tend()
    reason, message = older.ready()
    assert reason == "ClientTooOld"
    assert message.startswith(f"pg_dump {newest - 1} is older than the server, {newest}.")
    assert older.archives.jobs() == []
    as_new = Hands(archives, pg_database, job_client=newest)
    as_new.tend()
    assert as_new.archives.job(NAME)


def test_too_little_memory_is_told_and_the_next_job_may_have_enough(hands: Hands) -> None:
    job = hands.begin()
    hands.archives.end(job, None, 137, "OOMKilled")
    hands.archives.ended(job)
    hands.tend()
    status = hands.status()
    assert status["lastError"]["reason"] == "OOMKilled"
    assert "raise retention.job.resources.limits.memory" in status["lastError"]["message"]
    assert conditions(status)["Archived"]["status"] == "False"
    hands.later()
    assert hands.end(proof(oid(hands.database)))["manifestSha256"]
    assert hands.archives.events(NAME) == ["Warning OOMKilled", "Normal Archived"]


def test_a_pod_that_must_make_room_is_replaced_and_is_no_failure(hands: Hands) -> None:
    job = hands.begin()
    evicted = hands.archives.play(
        job, None, phase="Failed", reason="Evicted", message="low on memory", conditions=[EVICTED]
    )
    other_pod(hands, job, evicted)
    hands.tend()
    assert hands.ready()[0] != "Evicted"
    assert "attempts" not in hands.status()
    assert hands.end(proof(oid(hands.database)))["job"] == job


def test_a_node_that_is_gone_is_told_and_another_pod_comes_only_after_the_first(hands: Hands) -> None:
    job = hands.begin()
    (pod,) = hands.archives.unfinished(job)
    name, kubectl = pod["metadata"]["name"], hands.archives.kubectl
    # A node that nobody has heard of: no kubelet is there to end the pod.
    target = {"apiVersion": "v1", "kind": "Node", "name": f"gone-{name}"}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods/{name}/binding"
    kubectl("create", "--raw", path, "--filename", "-", given=json.dumps(binding))
    hands.archives.play(job, {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, phase="Running")
    kubectl("delete", "pod", name, "--wait=false")
    hands.tend()
    reason, message = hands.ready()
    assert reason == POD_ENDING
    assert "delete that Node" in message
    assert len(pods_of(kubectl, job)) == 1
    hands.archives.play(job, None, phase="Failed", conditions=[GONE])
    other_pod(hands, job, name)
    assert hands.end(proof(oid(hands.database)))["job"] == job
    assert "attempts" not in hands.status()


def test_an_image_that_is_missing_is_told_once_and_heals_without_another_job(hands: Hands) -> None:
    job = hands.begin()
    hands.archives.play(job, {"waiting": {"reason": "ErrImagePull", "message": "not found, try 1"}})
    assert hands.tend()
    reason, message = hands.ready()
    assert reason == "ImagePullBackOff"
    assert "image" in message
    version = hands.archives.get(NAME)["metadata"]["resourceVersion"]
    hands.archives.play(job, {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off 20s"}})
    hands.tend()
    assert hands.archives.get(NAME)["metadata"]["resourceVersion"] == version
    assert hands.end(proof(oid(hands.database)))["job"] == job
    assert hands.archives.events(NAME) == ["Warning ImagePullBackOff", "Normal Archived"]


def test_a_claim_that_is_missing_is_told_by_its_name(hands: Hands) -> None:
    job = hands.begin()
    said = '0/1 nodes are available: persistentvolumeclaim "archives" not found. not found'
    unfit = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
    hands.archives.play(job, None, conditions=[unfit])
    hands.tend()
    reason, message = hands.ready()
    assert reason == CLAIM_NOT_FOUND
    assert "PersistentVolumeClaim 'archives'" in message


def test_a_job_that_may_have_no_pod_is_told_and_goes_on_when_it_may(hands: Hands) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    hands.archives.kubectl.apply(quota)
    usage = "--output=jsonpath={.status.hard.pods}"
    until("the quota counts", lambda: hands.archives.kubectl("get", "resourcequota", "none", usage))
    hands.archives.apply(NAME)
    hands.tend()
    hands.tend()
    assert hands.ready()[0] == "JobRunning"
    hands.now += timedelta(minutes=1)
    hands.tend()
    reason, message = hands.ready()
    assert reason == NO_POD
    assert "a quota" in message
    hands.archives.kubectl("delete", "resourcequota", "none")
    assert hands.end(proof(oid(hands.database)))["manifestSha256"]


def test_a_check_that_takes_too_long_is_ended_told_and_made_again(hands: Hands) -> None:
    hands.proven()
    hands.check("before-drop")
    hands.tend()
    job = hands.archives.job(NAME)
    patch = json.dumps({"spec": {"activeDeadlineSeconds": 1}})
    hands.archives.kubectl("patch", "job", job, "--type=merge", "--patch", patch)
    hands.archives.ended(job)
    hands.tend()
    status = hands.status()
    assert status["lastError"]["reason"] == "DeadlineExceeded"
    assert conditions(status)["Verified"]["status"] == "True"
    assert "check" not in status
    hands.later()
    assert hands.end(proof(oid(hands.database)))["check"]["ok"] is True


@pytest.mark.parametrize("lost", ["pod", "job"])
def test_a_report_that_is_lost_is_made_again_by_the_next_job(hands: Hands, lost: str) -> None:
    """The archive is there by then: the program finds it, and proves it again instead of making another."""
    job = hands.begin()
    hands.archives.end(job, proof(oid(hands.database)), 0)
    hands.archives.ended(job)
    first = hands.orders()
    if lost == "pod":
        hands.archives.kubectl("delete", "pod", "--selector", f"batch.kubernetes.io/job-name={job}")
        hands.tend()
        assert hands.status()["lastError"]["reason"] == "NoReport"
        assert conditions(hands.status())["Verified"]["status"] == "False"
        hands.later()
    else:
        hands.archives.kubectl("delete", "job", job)
        hands.tend()
    assert hands.orders()[-1] == first[0]
    assert hands.end(proof(oid(hands.database)))["manifestSha256"]
