"""What goes wrong around an archive's Job: nothing is lost, the status says why, and it heals when the cause is gone.

The ends of pods are told as kubelet tells them; everything else is the API server's and its controllers' own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from lab.archives import PARTITION, Archives, oid, proof
from lab.jobs import pods_of
from lab.operator import until
from lab.postgres import Database
from lab.site import Site, conditions, keys_of
from lab.tended import NAME, Hands
from partwarden.cluster import Cluster
from partwarden.job_view import CLAIM_NOT_FOUND, NO_POD, POD_ENDING
from partwarden.order import WRONG, Task
from partwarden.settings import Settings

EVICTED: dict[str, Any] = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
GONE: dict[str, Any] = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}


@pytest.fixture
def archives(site: Site, pg_database: Database) -> Archives:
    """A table with two partitions, reached by the Secret ``run``; no operator runs."""
    pg_database.execute(PARTITION)
    site.secret("run", {"uri": pg_database.dsn})
    return Archives(site)


@pytest.fixture
def hands(archives: Archives, pg_database: Database) -> Iterator[Hands]:
    """Of an operator whose Jobs are given one pod."""
    made = Hands(archives, pg_database, job_retries=0)
    yield made
    made.tender.stop()


def begun(hands: Hands) -> str:
    """An archive whose Job has a pod."""
    hands.archives.apply(NAME)
    hands.tend()
    return hands.archives.job(NAME)


def other_pod(hands: Hands, job: str, than: str) -> None:
    """Waits until the Job has another pod at work."""

    def names() -> list[str]:
        return [each["metadata"]["name"] for each in hands.archives.unfinished(job)]

    until("another pod", lambda: names() not in ([], [than]))


def later(hands: Hands) -> None:
    """At the time of the next attempt."""
    hands.now = datetime.fromisoformat(hands.status()["nextAttempt"])
    hands.tend()


def test_too_little_memory_is_told_and_the_next_job_may_have_enough(hands: Hands) -> None:
    job = begun(hands)
    hands.archives.end(job, None, 137, "OOMKilled")
    hands.archives.ended(job)
    hands.tend()
    status = hands.status()
    assert status["lastError"]["reason"] == "OOMKilled"
    assert "raise retention.job.resources.limits.memory" in status["lastError"]["message"]
    assert conditions(status)["Archived"]["status"] == "False"
    later(hands)
    assert hands.end(proof(oid(hands.database)))["manifestSha256"]
    assert hands.archives.events(NAME) == ["Warning OOMKilled", "Normal Archived"]


def test_a_pod_that_must_make_room_is_replaced_and_is_no_failure(hands: Hands) -> None:
    job = begun(hands)
    evicted = hands.archives.play(
        job, None, phase="Failed", reason="Evicted", message="low on memory", conditions=[EVICTED]
    )
    other_pod(hands, job, evicted)
    hands.tend()
    assert hands.ready()[0] != "Evicted"
    assert "attempts" not in hands.status()
    assert hands.end(proof(oid(hands.database)))["job"] == job


def test_a_node_that_is_gone_is_told_and_another_pod_comes_only_after_the_first(hands: Hands) -> None:
    job = begun(hands)
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
    job = begun(hands)
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
    job = begun(hands)
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
    hands.store.want_check(hands.key, "before-drop")
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
    later(hands)
    assert hands.end(proof(oid(hands.database)))["check"]["ok"] is True


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_is_wrong_by_a_day_delays_the_next_attempt_by_an_hour_at_most(hands: Hands, days: int) -> None:
    job = begun(hands)
    hands.now += timedelta(days=days)
    hands.archives.end(job, None, 137, "OOMKilled")
    hands.archives.ended(job)
    hands.tend()
    pause = hands.tend()
    assert pause is not None
    assert pause <= 3600
    if days < 0:
        hands.now += timedelta(days=1, minutes=2)
        hands.tend()
    assert hands.archives.job(NAME, job)


@pytest.mark.parametrize("lost", ["pod", "job"])
def test_a_report_that_is_lost_is_made_again_by_the_next_job(hands: Hands, lost: str) -> None:
    """The archive is there by then: the program finds it, and proves it again instead of making another."""
    job = begun(hands)
    hands.archives.end(job, proof(oid(hands.database)), 0)
    hands.archives.ended(job)
    first = hands.orders()
    if lost == "pod":
        hands.archives.kubectl("delete", "pod", "--selector", f"batch.kubernetes.io/job-name={job}")
        hands.tend()
        assert hands.status()["lastError"]["reason"] == "NoReport"
        assert conditions(hands.status())["Verified"]["status"] == "False"
        later(hands)
    else:
        hands.archives.kubectl("delete", "job", job)
        hands.tend()
    assert hands.orders()[-1] == first[0]
    assert hands.end(proof(oid(hands.database)))["manifestSha256"]


def test_a_secret_that_is_rotated_between_archive_and_check_takes_no_proof_away(
    hands: Hands, pg_database: Database
) -> None:
    role = pg_database.new_role("SUPERUSER")
    stale = keys_of(role.dsn)
    hands.archives.site.secret("run", stale)
    hands.proven()
    pg_database.execute(f"ALTER ROLE {role.name} PASSWORD 'another'")
    hands.tender.stop()
    hands.restart()
    hands.store.want_check(hands.key, "before-drop")
    hands.tend()
    status = hands.status()
    assert status["lastError"]["reason"] == "AuthenticationFailed"
    assert str(conninfo_to_dict(role.dsn)["password"]) not in json.dumps(status)
    assert conditions(status)["Verified"]["status"] == "True"
    hands.archives.site.secret("run", {**stale, "password": "another"})
    hands.tend()
    # A pod that was given the old one says the same, which is nothing that was found out about the archive.
    denied = {"ok": False, "reason": "AuthenticationFailed", "message": "password authentication failed"}
    status = hands.end(denied, WRONG)
    assert conditions(status)["Verified"]["status"] == "True"
    assert "check" not in status
    later(hands)
    status = hands.end(proof(oid(pg_database)))
    assert status["check"]["ok"] is True
    assert "lastError" not in status


class Meanwhile(Cluster):
    """Something happens once, right before a status is written."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.what: Any = None

    def write_status(self, *arguments: Any) -> int | None:
        if (what := self.what) is not None:
            self.what = None
            what()
        return super().write_status(*arguments)


def test_an_operator_that_looked_before_takes_no_proof_back(
    hands: Hands, archives: Archives, pg_database: Database
) -> None:
    """Two operators: one saw the Job run, and writes that down after the other has written the proof."""
    slow = Hands(archives, pg_database, Meanwhile)
    job = begun(hands)
    archives.play(job, {"waiting": {"reason": "ImagePullBackOff"}})
    assert isinstance(slow.cluster, Meanwhile)
    slow.cluster.what = lambda: hands.end(proof(oid(pg_database)))
    assert slow.tend()
    assert slow.cluster.what is None
    assert hands.status()["manifestSha256"]
    assert slow.tend() is None
    assert conditions(hands.status())["Verified"]["status"] == "True"
    slow.tender.stop()


class Killed(BaseException):
    """As SIGKILL, but for the process."""


class Mortal(Cluster):
    """Its operator is killed right after everything that it changes in the cluster."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.done: list[str] = []

    def call(self, what: str, *arguments: Any, **options: Any) -> Any:
        found = super().call(what, *arguments, **options)
        if what.startswith(("create", "take", "record")):
            self.done.append(" ".join(what.split()[:2]))
            raise Killed
        return found


def test_an_operator_that_is_killed_after_everything_it_does_makes_one_job_for_each_step(
    archives: Archives, pg_database: Database
) -> None:
    hands = Hands(archives, pg_database, Mortal)

    def live(wanted: str | None = None) -> bool:
        """One life; whether it came to an end by itself."""
        hands.restart()
        if wanted:
            hands.store.want_check(hands.key, wanted)
        try:
            hands.tend()
        except Killed:
            return False
        finally:
            hands.tender.stop()
        return True

    def ends(wanted: str | None = None) -> None:
        job = archives.job(NAME)
        while not live(wanted):
            pass
        archives.end(job, proof(oid(pg_database)), 0)
        archives.ended(job)
        while not live(wanted):
            pass

    archives.apply(NAME)
    while not live():
        pass
    ends()
    assert conditions(hands.status())["Verified"]["status"] == "True"
    while not live("before-drop"):
        pass
    ends("before-drop")
    assert hands.status()["check"]["token"] == "before-drop"
    assert [each.task for each in hands.orders()] == [Task.ARCHIVE, Task.CHECK]
    assert isinstance(hands.cluster, Mortal)
    assert hands.cluster.done.count("create Job") == 2
