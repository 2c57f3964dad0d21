"""False assumptions of an operator: a wrong clock, an outdated view of a status, a rotated Secret.

None of it makes an archive, or takes away the proof of one.
"""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from psycopg.conninfo import conninfo_to_dict

from lab.archives import Archives, oid, proof
from lab.postgres import Database
from lab.reconciled_archive import NAME, Meanwhile, ReconciledArchive
from lab.site import conditions, keys_of
from partwarden.archive.job_order import WRONG


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_is_wrong_by_a_day_delays_the_next_attempt_by_an_hour_at_most(
    by_hand: ReconciledArchive, days: int
) -> None:
    job = by_hand.begin()
    by_hand.now += timedelta(days=days)
    by_hand.archives.end(job, None, 137, "OOMKilled")
    by_hand.archives.ended(job)
    by_hand.reconcile()
    pause = by_hand.reconcile()
    assert pause is not None
    assert pause <= 3600
    if days < 0:
        by_hand.now += timedelta(days=1, minutes=2)
        by_hand.reconcile()
    assert by_hand.archives.job(NAME, job)


def test_a_secret_that_is_rotated_between_archive_and_check_takes_no_proof_away(
    by_hand: ReconciledArchive, pg_database: Database
) -> None:
    role = pg_database.new_role("SUPERUSER")
    stale = keys_of(role.dsn)
    by_hand.archives.site.secret("run", stale)
    by_hand.proven()
    pg_database.execute(f"ALTER ROLE {role.name} PASSWORD 'another'")
    by_hand.restart()
    by_hand.check("before-drop")
    by_hand.reconcile()
    status = by_hand.status()
    assert status["lastError"]["reason"] == "AuthenticationFailed"
    assert str(conninfo_to_dict(role.dsn)["password"]) not in json.dumps(status)
    assert conditions(status)["Verified"]["status"] == "True"
    by_hand.archives.site.secret("run", {**stale, "password": "another"})
    by_hand.reconcile()
    # A pod with the old Secret reports the same, which says nothing about the archive.
    denied = {"ok": False, "reason": "AuthenticationFailed", "message": "password authentication failed"}
    status = by_hand.end(denied, WRONG)
    assert conditions(status)["Verified"]["status"] == "True"
    assert "check" not in status
    by_hand.later()
    status = by_hand.end(proof(oid(pg_database)))
    assert status["check"]["ok"] is True
    assert "lastError" not in status


def test_an_operator_with_an_older_view_takes_no_proof_back(
    by_hand: ReconciledArchive, archives: Archives, pg_database: Database
) -> None:
    """Two operators: one saw the Job run, and writes that down after the other has written the proof."""
    slow = ReconciledArchive(archives, pg_database, Meanwhile)
    job = by_hand.begin()
    archives.play(job, {"waiting": {"reason": "ImagePullBackOff"}})
    assert isinstance(slow.cluster, Meanwhile)
    slow.cluster.what = lambda: by_hand.end(proof(oid(pg_database)))
    assert slow.reconcile()
    assert slow.cluster.what is None
    assert by_hand.status()["manifestSha256"]
    assert slow.reconcile() is None
    assert conditions(by_hand.status())["Verified"]["status"] == "True"
