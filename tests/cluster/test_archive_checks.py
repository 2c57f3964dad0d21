"""An archive that was proven is read again when that is asked for, and what is found then is what the status says."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from lab.archives import PARTITION, Archives, oid, proof
from lab.postgres import Database
from lab.site import Site, conditions
from lab.tended import Hands
from partwarden.archive.jobspec import WRONG, Task

DAMAGED = {"ok": False, "reason": "ArchiveDamaged", "message": "data.dump has another sha256"}


@pytest.fixture
def hands(site: Site, pg_database: Database) -> Hands:
    """A table with two partitions, reached by the Secret ``run``; no operator runs."""
    pg_database.execute(PARTITION)
    site.secret("run", {"uri": pg_database.dsn})
    return Hands(Archives(site), pg_database)


def verified(status: dict[str, Any]) -> str:
    found = conditions(status)["Verified"]
    return f"{found['status']} {found['reason']}"


def test_a_job_that_somebody_else_gave_that_name_proves_nothing(hands: Hands) -> None:
    hands.archives.apply("by-hand")
    hands.tend()
    (made,) = hands.archives.jobs()
    name = made["metadata"]["name"]
    hands.archives.kubectl("delete", "job", name)
    template = made["spec"]["template"]["spec"]
    stranger = {"metadata": {"name": name}, "spec": {"template": {"spec": template}}}
    hands.archives.kubectl.apply({"apiVersion": "batch/v1", "kind": "Job", **stranger})
    hands.archives.job("by-hand")
    hands.archives.end(name, proof(oid(hands.database)), 0)
    hands.archives.ended(name)
    hands.tend()
    assert hands.status()["lastError"]["reason"] == "NameTaken"
    assert verified(hands.status()) == "False NameTaken"
    hands.archives.kubectl("delete", "job", name)
    hands.tend()
    hands.end(proof(oid(hands.database)))
    assert verified(hands.status()) == "True Proven"


def test_each_check_is_a_job_of_its_own_that_is_told_what_was_proven(hands: Hands) -> None:
    hands.proven()
    assert hands.tend() is None
    hands.check("after-detach")
    hands.tend()
    (order,) = [each for each in hands.orders() if each.task is Task.CHECK]
    before = hands.status()
    assert (order.id, order.location) == (before["id"], before["location"])
    assert (order.sha256, order.manifest_sha256) == (before["sha256"], before["manifestSha256"])
    assert order.partition.oid == before["oid"]

    status = hands.end(proof(oid(hands.database)))
    assert verified(status) == "True Proven"
    assert status["check"]["token"] == "after-detach"
    assert status["check"]["fingerprint"] == status["fingerprint"]
    assert hands.tend() is None
    hands.check("before-drop")
    hands.tend()
    assert [each.task for each in hands.orders()].count(Task.CHECK) == 2
    hands.end(proof(oid(hands.database)))
    # The first token again is a check again: what was read back then says nothing of now.
    hands.check("after-detach")
    hands.tend()
    assert [each.task for each in hands.orders()].count(Task.CHECK) == 3


def test_damage_is_told_and_looked_at_again_later(hands: Hands) -> None:
    hands.proven()
    hands.check("before-drop")
    hands.tend()
    status = hands.end(DAMAGED, WRONG)
    assert verified(status) == "False ArchiveDamaged"
    assert status["check"]["ok"] is False
    assert status["manifestSha256"] == "b" * 64
    count = len(hands.orders())
    assert hands.tend() is not None
    assert len(hands.orders()) == count

    hands.now = datetime.fromisoformat(status["nextAttempt"])
    hands.tend()
    assert len(hands.orders()) == count + 1
    assert verified(hands.status()) == "False ArchiveDamaged"
    assert verified(hands.end(proof(oid(hands.database)))) == "True Proven"


@pytest.mark.parametrize("changes", [{"sha256": "d" * 64}, {"manifestSha256": "d" * 64}, {"oid": 1}])
def test_a_check_of_something_else_is_no_check(hands: Hands, changes: dict[str, object]) -> None:
    hands.proven()
    hands.check("before-drop")
    hands.tend()
    status = hands.end(proof(oid(hands.database), **changes))
    assert "check" not in status
    assert status["lastError"]["reason"] == "NoReport"
