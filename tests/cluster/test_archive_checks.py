"""A proven archive is checked again on request, and the status shows the result."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from lab.archives import PARTITION, Archives, oid, proof
from lab.postgres import Database
from lab.reconciled_archive import ReconciledArchive
from lab.site import Site, conditions
from partwarden.archive.job_order import WRONG, Task

DAMAGED = {"ok": False, "reason": "ArchiveDamaged", "message": "data.dump has another sha256"}


@pytest.fixture
def by_hand(site: Site, pg_database: Database) -> ReconciledArchive:
    """A table with two partitions, reached by the Secret ``run``; no operator runs."""
    pg_database.execute(PARTITION)
    site.secret("run", {"uri": pg_database.dsn})
    return ReconciledArchive(Archives(site), pg_database)


def verified(status: dict[str, Any]) -> str:
    found = conditions(status)["Verified"]
    return f"{found['status']} {found['reason']}"


def test_a_job_of_another_owner_under_that_name_proves_nothing(by_hand: ReconciledArchive) -> None:
    by_hand.archives.apply("by-hand")
    by_hand.reconcile()
    (made,) = by_hand.archives.jobs()
    name = made["metadata"]["name"]
    by_hand.archives.kubectl("delete", "job", name)
    template = made["spec"]["template"]["spec"]
    stranger = {"metadata": {"name": name}, "spec": {"template": {"spec": template}}}
    by_hand.archives.kubectl.apply({"apiVersion": "batch/v1", "kind": "Job", **stranger})
    by_hand.archives.job("by-hand")
    by_hand.archives.end(name, proof(oid(by_hand.database)), 0)
    by_hand.archives.ended(name)
    by_hand.reconcile()
    assert by_hand.status()["lastError"]["reason"] == "NameTaken"
    assert verified(by_hand.status()) == "False NameTaken"
    by_hand.archives.kubectl("delete", "job", name)
    by_hand.reconcile()
    by_hand.end(proof(oid(by_hand.database)))
    assert verified(by_hand.status()) == "True Proven"


def test_each_check_is_a_job_of_its_own_with_the_proven_digests(by_hand: ReconciledArchive) -> None:
    by_hand.proven()
    assert by_hand.reconcile() is None
    by_hand.check("after-detach")
    by_hand.reconcile()
    (order,) = [each for each in by_hand.orders() if each.task is Task.CHECK]
    before = by_hand.status()
    assert (order.id, order.location) == (before["id"], before["location"])
    assert (order.sha256, order.manifest_sha256) == (before["sha256"], before["manifestSha256"])
    assert order.partition.oid == before["oid"]

    status = by_hand.end(proof(oid(by_hand.database)))
    assert verified(status) == "True Proven"
    assert status["check"]["token"] == "after-detach"
    assert status["check"]["fingerprint"] == status["fingerprint"]
    assert by_hand.reconcile() is None
    by_hand.check("before-drop")
    by_hand.reconcile()
    assert [each.task for each in by_hand.orders()].count(Task.CHECK) == 2
    by_hand.end(proof(oid(by_hand.database)))
    # The first token requests another check: the old result says nothing about the present.
    by_hand.check("after-detach")
    by_hand.reconcile()
    assert [each.task for each in by_hand.orders()].count(Task.CHECK) == 3


def test_damage_is_reported_and_checked_again_later(by_hand: ReconciledArchive) -> None:
    by_hand.proven()
    by_hand.check("before-drop")
    by_hand.reconcile()
    status = by_hand.end(DAMAGED, WRONG)
    assert verified(status) == "False ArchiveDamaged"
    assert status["check"]["ok"] is False
    assert status["manifestSha256"] == "b" * 64
    count = len(by_hand.orders())
    assert by_hand.reconcile() is not None
    assert len(by_hand.orders()) == count

    by_hand.now = datetime.fromisoformat(status["nextAttempt"])
    by_hand.reconcile()
    assert len(by_hand.orders()) == count + 1
    assert verified(by_hand.status()) == "False ArchiveDamaged"
    assert verified(by_hand.end(proof(oid(by_hand.database)))) == "True Proven"


@pytest.mark.parametrize("changes", [{"sha256": "d" * 64}, {"manifestSha256": "d" * 64}, {"oid": 1}])
def test_a_report_about_another_archive_is_not_a_check(by_hand: ReconciledArchive, changes: dict[str, object]) -> None:
    by_hand.proven()
    by_hand.check("before-drop")
    by_hand.reconcile()
    status = by_hand.end(proof(oid(by_hand.database), **changes))
    assert "check" not in status
    assert status["lastError"]["reason"] == "NoReport"
