"""Many policies, few connections: no database is flooded, and a silent one delays no other policy."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest

from lab.operator import Operator, until
from lab.postgres import Database, Server
from lab.site import RUN, Site, conditions, is_unseen, partitions


class Silent:
    """A port that accepts connections and never sends a byte."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._taken: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._taken.append(self._listener.accept()[0])

    def close(self) -> None:
        """Take no more, and let go of all."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in self._taken:
            connection.close()


@contextmanager
def counted(operator: Operator, port: int) -> Iterator[Callable[[], int]]:
    """How many connections to a port the operator and its worker processes had open at once, at most, so far.

    Seen from the operator's side: a backend of PostgreSQL outlives its connection by a moment.
    """
    assert operator.process is not None
    process, done, most = psutil.Process(operator.process.pid), threading.Event(), 0

    def watch() -> None:
        nonlocal most
        while not done.wait(0.01):
            found = []
            # Those of its worker processes; one that ends meanwhile has none.
            for each in (process, *process.children(recursive=True)):
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    found += [held for held in each.net_connections("tcp") if held.status == psutil.CONN_ESTABLISHED]
            most = max(most, len([held for held in found if held.raddr[1:] == (port,)]))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield lambda: most
    finally:
        done.set()
        watching.join()


@pytest.fixture
def silent() -> Iterator[Silent]:
    made = Silent()
    yield made
    made.close()


@pytest.fixture
def database(pg_database: Database) -> Database:
    pg_database.execute(RUN)
    return pg_database


def test_a_silent_database_starves_no_other_policy(silent: Silent, site: Site, database: Database) -> None:
    with site.operator(WORKERS="4", CONNECT_TIMEOUT="2").serving() as operator, counted(operator, silent.port) as most:
        site.secret("silent", {"uri": f"postgresql://nobody:nothing@127.0.0.1:{silent.port}/none"})
        spec = {"database": {"secretRef": {"name": "silent"}}, "table": {"name": "other"}}
        site.kubectl.apply(*[site.manifest(f"silent-{number}", spec) for number in range(8)])
        until("they are being tried", lambda: most() >= 2)
        for premake in (1, 2, 3):
            site.watch_over(database, premake=premake)
            site.wait(Ready="True", patience=5)
        found = site.wait("silent-0", reason="DatabaseUnreachable", Reconciling="True", Stalled="False")
        assert f"127.0.0.1:{silent.port}" in conditions(found["status"])["Ready"]["message"]
        until("every one was tried", lambda: all(site.policy(f"silent-{n}").get("status") for n in range(8)))
        assert most() == 2


def test_one_database_has_two_connections_at_most(site: Site, operator: Operator, pg: Server) -> None:
    names = [f"t{number:02}" for number in range(30)]
    with pg.new_database() as database, counted(operator, pg.port) as most:
        database.execute(";".join(f"CREATE TABLE {name} (at date) PARTITION BY RANGE (at)" for name in names))
        site.secret("db", {"uri": database.dsn})
        spec = {"database": {"secretRef": {"name": "db"}}, "interval": "Month", "premake": 11}
        site.kubectl.apply(*[site.manifest(name, {**spec, "table": {"name": name}}) for name in names])
        for name in names:
            site.wait(name, Ready="True")
        assert 1 <= most() <= 2
        assert all(len(partitions(database, name)) == 12 for name in names)


def test_a_younger_policy_does_not_wait_long_for_an_older_one_whose_database_is_unreachable(
    silent: Silent, site: Site, database: Database
) -> None:
    site.secret("older", {"uri": f"postgresql://nobody:nothing@127.0.0.1:{silent.port}/none"})
    site.apply("older")
    site.watch_over(database, "younger")
    with site.operator(CONNECT_TIMEOUT="60").serving():
        site.wait("younger", Ready="True", patience=10)
        assert is_unseen(site.policy("older"))
