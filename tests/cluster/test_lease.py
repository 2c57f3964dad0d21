"""Leader election: one operator leads, standbys take over, and nothing is done twice in any case."""

from __future__ import annotations

import secrets
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from lab.leases import allow
from lab.monitoring import fetch
from lab.operator import Operator, until
from lab.postgres import Database, free_port
from lab.site import RUN, Site, partitions
from partwarden.kube.client import Cluster
from partwarden.kube.config import configure
from partwarden.kube.lease import DURATION, PATIENCE, Lease, LeaseInCluster

YEAR = datetime.now(UTC).year


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Candidates:
    """Of one Lease, each with a clock of its own, on the real API server."""

    def __init__(self, site: Site) -> None:
        allow(site)
        self.cluster = Cluster(configure(site.operator().kubeconfig))
        self.key = site.namespace, "leader"

    def make(self) -> tuple[Lease, Clock]:
        clock = Clock()
        return Lease(LeaseInCluster(self.cluster, self.key), secrets.token_hex(4), clock), clock


@pytest.fixture
def candidates(site: Site) -> Candidates:
    return Candidates(site)


def test_one_candidate_holds_and_renews_the_lease_and_the_other_waits(candidates: Candidates) -> None:
    (one, at_one), (two, at_two) = candidates.make(), candidates.make()
    assert one.attempt()
    for _ in range(4):
        assert not two.attempt()
        assert two.holder == one.holder != ""
        at_one.now += DURATION - 1
        at_two.now += DURATION - 1
        assert one.attempt()
        assert not one.lost


def test_a_holder_that_cannot_renew_loses_the_lease_and_knows_before(candidates: Candidates) -> None:
    (one, at_one), (two, at_two) = candidates.make(), candidates.make()
    assert one.attempt()
    assert not two.attempt()
    at_one.now += PATIENCE
    at_two.now += PATIENCE
    assert not one.lost
    at_one.now += 0.1
    at_two.now += 0.1
    assert one.lost
    assert not two.attempt()
    at_two.now += DURATION
    assert two.attempt()
    assert not one.attempt()
    assert one.holder == two.holder


def test_a_released_lease_is_free_at_once(candidates: Candidates) -> None:
    (one, _), (two, _) = candidates.make(), candidates.make()
    assert one.attempt()
    one.release()
    assert two.attempt()
    # A candidate never releases the lease of another.
    one.release()
    assert two.attempt()


def test_of_two_candidates_that_find_the_lease_free_one_acquires_it(candidates: Candidates) -> None:
    made = [candidates.make()[0] for _ in range(6)]
    for _ in range(3):
        with ThreadPoolExecutor(len(made)) as pool:
            had = list(pool.map(lambda each: each.attempt(), made))
        assert had.count(True) == 1
        for each in made:
            each.release()


def test_a_stopped_candidate_no_longer_waits_for_the_lease(candidates: Candidates) -> None:
    (one, _), (two, _) = candidates.make(), candidates.make()
    assert one.attempt()
    stopped = threading.Event()
    stopped.set()
    assert not two.acquire(stopped)


def _pair(site: Site) -> tuple[Operator, Operator, int]:
    """A leader, a standby, and the port of the standby's endpoints."""
    lease, port = allow(site), free_port()
    leader = site.operator(LEASE=lease).serving()
    follower = site.operator(LEASE=lease, LISTEN=f"127.0.0.1:{port}").start()
    until("it stands by", lambda: follower.says("standing by"))
    return leader, follower, port


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_standby_takes_over_when_the_leader_ends(site: Site, pg_database: Database, number: signal.Signals) -> None:
    pg_database.execute(RUN)
    leader, follower, port = _pair(site)
    with leader, follower:
        site.watch_over(pg_database, premake=0)
        site.wait(Ready="True")
        assert fetch(port, "/readyz?standby") == (200, "ok\n")
        status, words = fetch(port, "/readyz")
        assert (status, words.split(":")[0]) == (503, "it stands by")
        assert fetch(port, "/healthz") == (200, "ok\n")
        leader.stop(number)
        site.apply("run", {"premake": 1})
        until("the other has done it", lambda: len(partitions(pg_database)) == 2)
        site.wait(Ready="True")
        assert fetch(port, "/readyz") == (200, "ok\n")
        site.expect_events(["Normal PartitionCreated"] * 2)
        assert follower.stop()[0] == 0


def test_a_standby_ends_at_once(site: Site) -> None:
    leader, follower, _ = _pair(site)
    with leader, follower:
        assert follower.stop()[0] == 0
        assert follower.says("stopped")
        assert not leader.says("the Lease was lost")


def test_a_leader_that_loses_the_lease_ends_and_says_so(site: Site) -> None:
    lease = allow(site)
    with site.operator(LEASE=lease).serving() as leader:
        stolen = '{"spec": {"holderIdentity": "another"}}'
        site.kubectl("patch", "lease", "leader", "--namespace", site.namespace, "--type=merge", "--patch", stolen)
        assert leader.wait() == 1
        assert leader.says("the Lease was lost: another operator may lead now, so this one ends")
        assert "Traceback" not in leader.log.read_text()


def test_two_operators_that_both_believe_to_lead_do_nothing_twice(site: Site, pg_database: Database) -> None:
    pg_database.execute(RUN)
    both = site.operator().serving(), site.operator().serving()
    with both[0], both[1]:
        site.watch_over(pg_database, premake=25)
        site.wait(Ready="True")
        until("both have reconciled", lambda: all(each.attempts(f"{site.namespace}/run") for each in both))
    assert partitions(pg_database) == [f"run_{YEAR + number}" for number in range(26)]
    made = [line for each in both for line in each.lines() if line.get("reason") == "PartitionCreated"]
    names = [line["partition"] for line in made]
    assert len(names) == len(set(names)) == 26
    assert all(line["seconds"] > 0 and line["policy"] == f"{site.namespace}/run" for line in made)


def test_missing_rights_to_the_lease_are_named_at_startup(site: Site) -> None:
    operator = site.operator(LEASE=f"{site.namespace}/leader")
    assert operator.start().wait() == 1
    (line,) = operator.lines()
    for verb in ("create leases", "get leases", "update leases"):
        assert verb in line["message"]
