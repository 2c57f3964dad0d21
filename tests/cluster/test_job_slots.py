"""Slots of Jobs, shared by namespaces: which Jobs hold one, who is next, and what an archive costs that waits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from lab.archives import IMAGE, Archives, oid, proof
from lab.audit import requests
from lab.kubectl import Kubectl
from lab.operator import Operator, until
from lab.postgres import Database
from lab.reconciled_archive import NAME, ReconciledArchive
from lab.site import Site, conditions
from partwarden.api.archive import ARCHIVE_KIND, MANAGED
from partwarden.api.policy import API_VERSION
from partwarden.controller import job_reconciler
from partwarden.controller.job_status import JOB_PENDING, JOB_SUSPENDED, PENDING_LONG


@pytest.fixture
def others(archives: Archives, pg_database: Database) -> Archives:
    """The same table, reached from the second namespace."""
    site = archives.site
    second = Archives(site)
    second.kubectl = Kubectl(site.kubectl.kubeconfig, site.kubectl.environment, site.namespaces[1])
    site.secret("run", {"uri": pg_database.dsn}, site.namespaces[1])
    return second


@pytest.fixture
def operator(site: Site) -> Iterator[Operator]:
    """An operator with two slots, of which each namespace may have one. Only the first list happens during a test."""
    with site.operator(JOB_IMAGE=IMAGE, JOBS="2", RELIST="3600").serving() as running:
        yield running


def forged(number: int, **owner: Any) -> dict[str, Any]:
    """A suspended Job with the labels of the operator's."""
    references = [{"apiVersion": API_VERSION, "kind": ARCHIVE_KIND, "controller": True, **owner}] if owner else []
    pod = {"restartPolicy": "Never", "containers": [{"name": "archive", "image": IMAGE}]}
    meta = {"name": f"forged-{number}", "labels": MANAGED, "ownerReferences": references}
    spec = {"suspend": True, "template": {"spec": pod}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}


def waits(archives: Archives, *names: str) -> None:
    for name in names:
        archives.wait(name, "Queued", Reconciling="True")


def test_jobs_that_others_label_as_the_operators_take_no_slot(
    archives: Archives, others: Archives, operator: Operator
) -> None:
    for number in range(3):
        others.kubectl.apply(forged(number))
        others.kubectl.apply(forged(10 + number, name="by-hand", uid=f"of-no-archive-{number}"))
    archives.apply("by-hand")
    others.apply("by-hand")
    assert archives.job("by-hand")
    assert others.job("by-hand")


def test_jobs_that_a_namespace_makes_for_its_own_archive_take_nothing_from_another(
    archives: Archives, others: Archives, operator: Operator
) -> None:
    others.apply("by-hand", partition="run_2019")
    assert others.job("by-hand")
    uid = others.get("by-hand")["metadata"]["uid"]
    for number in range(3):
        others.kubectl.apply(forged(number, name="by-hand", uid=uid))
    archives.apply("by-hand")
    assert archives.job("by-hand")


def test_a_namespace_has_half_of_the_slots_and_its_oldest_archive_is_next(
    archives: Archives, others: Archives, operator: Operator, pg_database: Database
) -> None:
    archives.apply("z-first")
    job = archives.job("z-first")
    for name in ("y-second", "x-third"):
        archives.apply(name)
        waits(archives, name)
        time.sleep(1.1)  # creation times have seconds
    others.apply("by-hand")
    assert others.job("by-hand")
    waits(archives, "y-second", "x-third")
    archives.end(job, proof(oid(pg_database)), 0)
    assert archives.job("y-second")
    waits(archives, "x-third")


def test_archives_that_wait_ask_the_api_server_for_nothing(
    archives: Archives, operator: Operator, pg_database: Database
) -> None:
    archives.apply("first")
    job = archives.job("first")
    names = [f"waits-{number}" for number in range(10)]
    for name in names:
        archives.apply(name)
    waits(archives, *names)

    def asked() -> int:
        """How often the operator asked for one of them, or for a Job of theirs, or wrote their status."""
        found = requests(archives.site.cluster, archives.site.namespace, "operator")
        return sum(each.get("objectRef", {}).get("name", "").startswith("waits-") for each in found)

    time.sleep(3)
    before = asked()
    assert before >= 2 * len(names)
    time.sleep(2 * job_reconciler.POLL_JOB)
    assert asked() == before
    archives.end(job, proof(oid(pg_database)), 0)
    until("one of them has a Job", lambda: [each for each in names if archives.get(each)["status"].get("job")])


@pytest.mark.parametrize("suspended", [True, False])
def test_a_job_that_is_pending_for_long_is_reported_and_counts_again_once_it_runs(
    archives: Archives, pg_database: Database, suspended: bool
) -> None:
    by_hand = ReconciledArchive(archives, pg_database)
    job = by_hand.begin()
    if suspended:
        by_hand.archives.kubectl("patch", "job", job, "--type=merge", "--patch", '{"spec": {"suspend": true}}')
        until("it is suspended", lambda: "Suspended" in str(by_hand.archives.kubectl.get("job", job)["status"]))
        by_hand.reconcile()
        assert by_hand.ready()[0] == JOB_SUSPENDED
    by_hand.now += PENDING_LONG + timedelta(minutes=1)
    assert by_hand.reconcile() == job_reconciler.POLL_PENDING
    reason, message = by_hand.ready()
    assert reason == (JOB_SUSPENDED if suspended else JOB_PENDING)
    assert f"no pod of Job {job} has run since 20" in message
    assert by_hand.archives.events(NAME)[-1] == f"Warning {reason}"
    version = by_hand.archives.get(NAME)["metadata"]["resourceVersion"]
    by_hand.reconcile()
    assert by_hand.archives.get(NAME)["metadata"]["resourceVersion"] == version
    if suspended:
        by_hand.archives.kubectl("patch", "job", job, "--type=merge", "--patch", '{"spec": {"suspend": false}}')
        until("it has a pod again", lambda: by_hand.archives.unfinished(job))
    scheduled = [{"type": "PodScheduled", "status": "True"}]
    running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    by_hand.archives.play(job, running, phase="Running", conditions=scheduled)
    assert by_hand.reconcile() == job_reconciler.POLL_JOB
    assert by_hand.ready()[0] == "JobRunning"
    assert conditions(by_hand.end(proof(oid(pg_database))))["Verified"]["status"] == "True"
