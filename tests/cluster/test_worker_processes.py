"""Databases are worked on by processes that can be ended: the policy says so, heals, and no other policy notices."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from lab.leftovers import runs
from lab.operator import Operator, until
from lab.postgres import Database
from lab.site import RUN, Site, conditions, partitions

OURS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'partwarden' AND datname = current_database()"
WAITING = f"{OURS} AND wait_event_type = 'Lock'"


@pytest.fixture
def database(pg_database: Database) -> Database:
    pg_database.execute(RUN)
    return pg_database


def workers(operator: Operator) -> list[psutil.Process]:
    """The operator's worker processes: children of its fork server."""
    assert operator.process is not None
    children = psutil.Process(operator.process.pid).children()
    return [worker for child in children for worker in child.children()]


@contextmanager
def mute_server() -> Iterator[str]:
    """A server that takes connections and says nothing: its connection string."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"postgresql://owner@127.0.0.1:{listener.getsockname()[1]}/orchestrator?sslmode=disable"


def message(policy: dict[str, object]) -> str:
    status = policy["status"]
    assert isinstance(status, dict)
    return str(conditions(status)["Ready"]["message"])


def test_a_server_that_says_nothing_holds_a_worker_until_its_deadline_and_no_other_policy(
    site: Site, database: Database
) -> None:
    settings = {"WORKERS": "2", "RECONCILE_TIMEOUT": "2", "CONNECT_TIMEOUT": "60"}
    with site.operator(**settings).serving(), mute_server() as uri:
        site.secret("mute", {"uri": uri})
        site.apply("mute")
        found = site.wait("mute", reason="DatabaseUnresponsive", Ready="False", Reconciling="True", Stalled="False")
        assert "while connecting to the database: the process was ended" in message(found)
        site.watch_over(database)
        site.wait(Ready="True", patience=10)
        site.expect_events(["Warning DatabaseUnresponsive"], "mute")


def test_a_worker_that_is_killed_leaves_nothing_half_done_and_is_replaced(site: Site, database: Database) -> None:
    with site.operator(LOCK_PATIENCE="600").serving() as running, database.connect() as holder:
        holder.execute("BEGIN; LOCK TABLE run IN SHARE MODE")
        site.watch_over(database)
        until("a statement waits", lambda: database.query(WAITING) == [(1,)])
        (worker,) = workers(running)
        worker.kill()
        found = site.wait(reason="WorkerFailed", Ready="False", Stalled="False")
        assert "the worker process ended with exit code -9 while create public.run_" in message(found)
        assert partitions(database) == []
        holder.rollback()
        site.wait(Ready="True")
        assert len(partitions(database)) == 3
        assert [each.pid for each in workers(running)] != [worker.pid]


def test_an_operator_that_is_killed_takes_its_workers_with_it(site: Site, database: Database) -> None:
    with site.operator(LOCK_PATIENCE="600").serving() as running, database.connect() as holder:
        holder.execute("BEGIN; LOCK TABLE run IN SHARE MODE")
        site.watch_over(database)
        until("a statement waits", lambda: database.query(WAITING) == [(1,)])
        ended = workers(running)
        running.stop(signal.SIGKILL)
        until("its workers end", lambda: not any(map(runs, ended)))
        until("and their sessions", lambda: database.query(OURS) == [(0,)])
        holder.rollback()
    assert partitions(database) == []
