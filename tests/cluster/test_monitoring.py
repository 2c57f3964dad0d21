"""Metrics for Prometheus, and liveness and readiness for kubelet's probes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import UTC, datetime

import psutil
import pytest

from lab.monitoring import Numbers, fetch, scrape
from lab.operator import Operator, until
from lab.postgres import Database, free_port
from lab.site import RUN, Site
from partwarden.controller.event_handlers import ArchiveEventHandler, PolicyEventHandler
from partwarden.controller.health import Health, WorkerPoolStats
from partwarden.controller.informers import Lister
from partwarden.controller.job_slots import JobSlots
from partwarden.controller.ownership import TableOwnership
from partwarden.controller.restore_events import RestoreEventHandler
from partwarden.controller.runtime import Runtime
from partwarden.controller.settings import Settings
from partwarden.controller.shard import Shard
from partwarden.controller.workqueue import Backlog, WorkQueue
from partwarden.kube.cache import ArchiveCache, RestoreCache
from partwarden.kube.client import Cluster
from partwarden.kube.config import configure


def test_the_metrics_count_the_policies_of_a_fleet(site: Site, pg_database: Database) -> None:
    pg_database.execute(f"{RUN} CREATE TABLE rest PARTITION OF run DEFAULT; INSERT INTO run VALUES (1, '1999-01-01Z')")
    good, bad, port = (site.namespace, "run"), (site.namespace, "bad"), free_port()
    site.watch_over(pg_database, premake=2)
    site.watch_over(pg_database, "bad", table={"name": "none"})
    before = datetime.now(UTC).timestamp()
    with site.operator(LISTEN=f"127.0.0.1:{port}").serving() as operator:
        site.wait(Ready="True")
        site.wait("bad", Stalled="True")
        # Two years ahead of the one that now is in.
        until("the status was seen", lambda: scrape(port)("policy_runway_days").get(good) in (730, 731))
        numbers = until("both were reconciled", lambda: numbers_of_both(port, good, bad))
        assert numbers("policy_partitions") == {good: 4}
        assert numbers("policy_managed_partitions") == {good: 3}
        assert numbers("policy_default_rows") == {good: 1}
        assert numbers("policy_pending_actions") == {good: 0}
        assert numbers("policy_bytes")[good] > 0
        conditions = {key: value for key, value in numbers("policy_condition").items() if key[0] == "Ready"}
        assert conditions == {("Ready", *good): 1, ("Ready", *bad): 0}
        assert numbers("policy_condition")["DefaultPartitionEmpty", *good] == 0
        successes = numbers("policy_last_success_timestamp_seconds")
        assert list(successes) == [good]
        assert before <= successes[good] <= datetime.now(UTC).timestamp()
        reconciles = numbers("reconciles_total")
        assert reconciles["Converged",] >= 1
        assert reconciles["UserError",] >= 1
        assert numbers("reconcile_duration_seconds_count")[()] == sum(reconciles.values())
        idle = {(queue,): 0 for queue in ("archives", "policies", "restores")}
        until("nothing is due", lambda: scrape(port)("queue_depth") == idle)
        assert list(numbers("build_info").values()) == [1]
        assert numbers("archive_jobs_total")["Failed", "Archive"] == 0
        site.delete("bad")
        until("it is forgotten", lambda: not {key for key in scrape(port)("policy_suspended") if key == bad})
        assert fetch(port, "/healthz") == (200, "ok\n")
        assert fetch(port, "/readyz") == (200, "ok\n")
        assert fetch(port, "/") == (404, "there are /metrics, /healthz and /readyz\n")
        password = pg_database.server.password
        assert password not in fetch(port, "/metrics")[1]
        assert password not in operator.log.read_text()
        assert operator.stop()[0] == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def numbers_of_both(port: int, good: tuple[str, str], bad: tuple[str, str]) -> Callable[[str], Numbers] | None:
    """Once the scrape knows that the bad one is not ready, and has counted the results of both: a reconcile is counted
    after its status is written."""
    found = scrape(port)
    counted = {("Converged",), ("UserError",)} <= {key for key, count in found("reconciles_total").items() if count}
    known = found("policy_condition").get(("Ready", *bad)) == 0 and counted
    return found if known and good in found("policy_last_success_timestamp_seconds") else None


def test_nothing_listens_unless_it_is_asked_for(operator: Operator) -> None:
    assert operator.process
    # Its connections to the API server aside, there is no socket.
    found = psutil.Process(operator.process.pid).net_connections("inet")
    assert [each for each in found if each.status == psutil.CONN_LISTEN] == []


def test_a_port_that_is_taken_is_one_line(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        operator = site.operator(LISTEN=address)
        assert operator.start().wait() == 1
    (line,) = operator.lines()
    assert line["message"] == f"PARTWARDEN_LISTEN='{address}': cannot listen there: Address already in use"


@pytest.mark.parametrize("listen", ["", ":0", "[::1]:0", "127.0.0.1:0"])
def test_the_listen_address_may_be_set(listen: str) -> None:
    assert Settings(listen=listen).listen == listen


def test_lists_alone_find_what_no_watch_shows(site: Site) -> None:
    """All parts are the operator's own, but no watch delivers events."""
    settings = Settings(kubeconfig=site.operator().kubeconfig, namespaces=tuple(site.namespaces))
    runtime = Runtime(Cluster(configure(settings.kubeconfig)), settings)
    store, queue = runtime.policies, runtime.policy_queue
    shard = Shard(store)
    cache, waiting = ArchiveCache(), WorkQueue()
    slots = JobSlots(settings, cache, shard, waiting.enqueue)
    archives = ArchiveEventHandler(runtime.cluster, cache, slots, shard, waiting, queue, settings.namespaces)
    health = Health({"policies": lambda: WorkerPoolStats(Backlog(0, 0.0, ()), 1, 0)}, settings.relist)
    kept = RestoreCache()
    restores = RestoreEventHandler(
        *(runtime.cluster, kept, JobSlots(settings, kept, shard, waiting.enqueue), shard, waiting, settings.namespaces)
    )
    policies = PolicyEventHandler(store, TableOwnership(queue.enqueue), queue)
    lister = Lister(runtime, policies, archives, restores, health)

    def due() -> set[str]:
        found = set()
        while queue.backlog().due:
            key = queue.take()
            assert key
            queue.done(key, None)
            found.add(key[1])
        return found

    site.apply("one")
    lister.first()
    assert due() == {"one"}
    site.apply("two")
    lister.again()
    assert due() == {"two"}
    site.apply("one", {"suspend": True})
    site.delete("two")
    lister.again()
    assert due() == {"one", "two"}
    assert [policy.key[1] for policy in store.all()] == ["one"]
    lister.again()
    assert due() == set()
    assert health.unhealthy() == []
