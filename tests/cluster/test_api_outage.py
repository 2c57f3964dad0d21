"""The API server goes away and comes back: the operator goes on, says so without a traceback, and catches up."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
import yaml

from lab.archives import IMAGE, PARTITION, Archives, oid, proof
from lab.operator import Operator, until
from lab.postgres import Database
from lab.site import RUN, Site, partitions

YEAR = datetime.now(UTC).year


class Way:
    """The operator's way to the API server, which can be closed and opened again at the same port."""

    def __init__(self, host: str, port: int) -> None:
        self._target, self.port = (host, port), 0
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.unblock()

    def unblock(self) -> None:
        """Let connections through."""
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=100)
        self.port = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def block(self) -> None:
        """End every connection, and refuse new ones."""
        for each in [self._listener, *self._open]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()
        self._open.clear()
        self._threads.clear()

    def _start(self, run: object, *arguments: socket.socket) -> None:
        assert callable(run)
        self._threads.append(threading.Thread(target=run, args=arguments))
        self._threads[-1].start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near = listener.accept()[0]
                far = socket.create_connection(self._target, timeout=10)
                self._open += [near, far]
                self._start(self._forward, near, far)

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        with near, far, suppress(OSError):
            while True:
                for ready in select.select([near, far], [], [])[0]:
                    if not (data := ready.recv(65536)):
                        return
                    (far if ready is near else near).sendall(data)


@pytest.fixture
def way(site: Site) -> Iterator[Way]:
    """To the API server of the cluster."""
    found = urlsplit(_server(yaml.safe_load(site.cluster.kubeconfig.read_text())))
    assert found.hostname
    made = Way(found.hostname, found.port or 443)
    yield made
    made.block()


def _server(config: dict[str, list[dict[str, dict[str, str]]]]) -> str:
    return config["clusters"][0]["cluster"]["server"]


@pytest.fixture
def operator(site: Site, way: Way) -> Iterator[Operator]:
    """An operator that takes that way."""
    made = site.operator(JOB_IMAGE=IMAGE)
    config = yaml.safe_load(made.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{way.port}"
    made.kubeconfig.write_text(yaml.safe_dump(config))
    with made.serving() as running:
        yield running


def test_an_outage_of_the_api_server_is_survived(
    site: Site, way: Way, operator: Operator, pg_database: Database
) -> None:
    pg_database.execute(RUN)
    site.watch_over(pg_database, premake=0)
    site.watch_over(pg_database, "other", table={"name": "none"})
    site.wait(Ready="True")
    site.wait("other", Stalled="True")
    way.block()
    site.watch_over(pg_database, premake=1)
    site.delete("other")
    until("the outage is noticed", lambda: operator.says("the Kubernetes API at", f"{site.namespace}/run"))
    assert partitions(pg_database) == [f"run_{YEAR}"]
    way.unblock()
    site.wait(Ready="True")
    assert partitions(pg_database) == [f"run_{YEAR}", f"run_{YEAR + 1}"]
    site.told(["Normal PartitionCreated"] * 2)
    assert operator.stop()[0] == 0
    assert "Traceback" not in operator.log.read_text()


def test_a_job_that_ends_while_the_api_server_is_away_is_heard_of_afterwards(
    site: Site, way: Way, operator: Operator, pg_database: Database
) -> None:
    pg_database.execute(PARTITION)
    site.secret("run", {"uri": pg_database.dsn})
    archives = Archives(site)
    archives.apply("by-hand")
    job = archives.job("by-hand")
    archives.wait("by-hand", Reconciling="True")
    way.block()
    archives.end(job, proof(oid(pg_database)), 0)
    archives.ended(job)
    way.unblock()
    archives.wait("by-hand", "Proven", Verified="True")
    assert [each["metadata"]["name"] for each in archives.jobs()] == [job]
    assert operator.stop()[0] == 0
    assert "Traceback" not in operator.log.read_text()
