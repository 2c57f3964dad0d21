"""Outage of the API server: the operator continues, logs it without a traceback, and catches up."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from lab.archives import IMAGE, PARTITION, Archives, oid, proof
from lab.leases import allow
from lab.monitoring import fetch
from lab.operator import Operator, until
from lab.postgres import Database, free_port
from lab.proxy import Proxy
from lab.site import RUN, Site, partitions

YEAR = datetime.now(UTC).year


@pytest.fixture
def proxy(site: Site) -> Iterator[Proxy]:
    """To the API server of the cluster."""
    found = urlsplit(_server(yaml.safe_load(site.cluster.kubeconfig.read_text())))
    assert found.hostname
    with Proxy(found.hostname, found.port or 443) as made:
        yield made


def _server(config: dict[str, list[dict[str, dict[str, str]]]]) -> str:
    return config["clusters"][0]["cluster"]["server"]


@pytest.fixture
def operator(site: Site, proxy: Proxy) -> Iterator[Operator]:
    """An operator that takes that way."""
    with through(site.operator(JOB_IMAGE=IMAGE), proxy).serving() as running:
        yield running


def through(made: Operator, proxy: Proxy) -> Operator:
    """The same, which reaches the API server that way."""
    config = yaml.safe_load(made.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
    made.kubeconfig.write_text(yaml.safe_dump(config))
    return made


def test_an_outage_of_the_api_server_is_survived(
    site: Site, proxy: Proxy, operator: Operator, pg_database: Database
) -> None:
    pg_database.execute(RUN)
    site.watch_over(pg_database, premake=0)
    site.watch_over(pg_database, "other", table={"name": "none"})
    site.wait(Ready="True")
    site.wait("other", Stalled="True")
    # Recorded after the status: an outage right then loses it.
    site.expect_events(["Normal PartitionCreated"])
    proxy.block()
    site.watch_over(pg_database, premake=1)
    site.delete("other")
    until("the outage is noticed", lambda: operator.says("the Kubernetes API at", f"{site.namespace}/run"))
    assert partitions(pg_database) == [f"run_{YEAR}"]
    proxy.unblock()
    site.wait(Ready="True")
    assert partitions(pg_database) == [f"run_{YEAR}", f"run_{YEAR + 1}"]
    site.expect_events(["Normal PartitionCreated"] * 2)
    assert operator.stop()[0] == 0
    assert "Traceback" not in operator.log.read_text()


def test_with_a_lease_an_outage_ends_the_leader_and_the_next_waits_for_its_end(site: Site, proxy: Proxy) -> None:
    lease, port = allow(site), free_port()

    def operator() -> Operator:
        return through(site.operator(LEASE=lease, LISTEN=f"127.0.0.1:{port}"), proxy)

    with operator().serving() as leader:
        proxy.block()
        assert leader.wait() == 1
        assert leader.says("the Lease was lost")
        assert "Traceback" not in leader.log.read_text()
    with operator().start() as following:
        until("the outage is logged", lambda: following.says("next attempt in"))
        assert fetch(port, "/healthz") == (200, "ok\n")
        assert fetch(port, "/readyz?standby")[0] == 503
        proxy.unblock()
        until("it serves", lambda: following.says("serves"))
        until("it is ready", lambda: fetch(port, "/readyz") == (200, "ok\n"))
        assert following.stop()[0] == 0


HELD_UP = """
import pathlib, sys, time
from partwarden.cli import program
from partwarden.controller import informers
first, go = informers.Lister.first, pathlib.Path(sys.argv.pop(1))
def late(self):
    go.with_name("reached").touch()
    while not go.exists():
        time.sleep(0.05)
    first(self)
informers.Lister.first = late
program()
"""


def test_the_lease_is_lost_and_given_back_also_before_the_first_list(site: Site, proxy: Proxy, tmp_path: Path) -> None:
    held_up = through(site.operator(LEASE=allow(site), LISTEN=""), proxy)
    held_up.program = [sys.executable, "-c", HELD_UP, str(tmp_path / "go")]
    with held_up.start() as leader:
        until("it leads", (tmp_path / "reached").exists)
        proxy.block()
        (tmp_path / "go").touch()
        until("the outage is logged", lambda: leader.says("next attempt in"))
        assert leader.wait() == 1
        assert leader.says("the Lease was lost")
        assert not leader.says("serves")
        assert "Traceback" not in leader.log.read_text()
    proxy.unblock()
    with held_up.start() as leader:
        until("it serves", lambda: leader.says("serves"))


def test_a_job_that_ends_during_an_api_outage_is_noticed_afterwards(
    site: Site, proxy: Proxy, operator: Operator, pg_database: Database
) -> None:
    pg_database.execute(PARTITION)
    site.secret("run", {"uri": pg_database.dsn})
    archives = Archives(site)
    archives.apply("by-hand")
    job = archives.job("by-hand")
    archives.wait("by-hand", Reconciling="True")
    proxy.block()
    archives.end(job, proof(oid(pg_database)), 0)
    archives.ended(job)
    proxy.unblock()
    archives.wait("by-hand", "Proven", Verified="True")
    assert [each["metadata"]["name"] for each in archives.jobs()] == [job]
    assert operator.stop()[0] == 0
    assert "Traceback" not in operator.log.read_text()
