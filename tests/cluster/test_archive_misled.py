"""What an operator takes for true and is not: its clock, what it saw before another wrote, a Secret that was rotated.

None of it makes an archive, or takes away the proof of one.
"""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from psycopg.conninfo import conninfo_to_dict

from lab.archives import PARTITION, Archives, oid, proof
from lab.postgres import Database
from lab.site import Site, conditions, keys_of
from lab.tended import NAME, Hands, Meanwhile
from partwarden.archive.jobspec import WRONG


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


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_is_wrong_by_a_day_delays_the_next_attempt_by_an_hour_at_most(hands: Hands, days: int) -> None:
    job = hands.begin()
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


def test_a_secret_that_is_rotated_between_archive_and_check_takes_no_proof_away(
    hands: Hands, pg_database: Database
) -> None:
    role = pg_database.new_role("SUPERUSER")
    stale = keys_of(role.dsn)
    hands.archives.site.secret("run", stale)
    hands.proven()
    pg_database.execute(f"ALTER ROLE {role.name} PASSWORD 'another'")
    hands.restart()
    hands.check("before-drop")
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
    hands.later()
    status = hands.end(proof(oid(pg_database)))
    assert status["check"]["ok"] is True
    assert "lastError" not in status


def test_an_operator_that_looked_before_takes_no_proof_back(
    hands: Hands, archives: Archives, pg_database: Database
) -> None:
    """Two operators: one saw the Job run, and writes that down after the other has written the proof."""
    slow = Hands(archives, pg_database, Meanwhile)
    job = hands.begin()
    archives.play(job, {"waiting": {"reason": "ImagePullBackOff"}})
    assert isinstance(slow.cluster, Meanwhile)
    slow.cluster.what = lambda: hands.end(proof(oid(pg_database)))
    assert slow.tend()
    assert slow.cluster.what is None
    assert hands.status()["manifestSha256"]
    assert slow.tend() is None
    assert conditions(hands.status())["Verified"]["status"] == "True"
