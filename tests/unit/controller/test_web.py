"""The HTTP port answers probes and scrapes, whatever other clients do to it."""

from __future__ import annotations

import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest
from prometheus_client import CollectorRegistry, Gauge

from partwarden.controller import health as module
from partwarden.controller.health import CONNECTIONS, HEADER_BYTES, Health, Web, WorkerPoolStats
from partwarden.controller.workqueue import Backlog
from partwarden.errors import StartupError

GET = "GET {} HTTP/1.1\r\nHost: operator\r\nAccept: application/openmetrics-text\r\n\r\n"


class Pool:
    ended = 0

    def __call__(self) -> WorkerPoolStats:
        return WorkerPoolStats(Backlog(0, 0.0, ()), 2, self.ended)


class Fixture:
    def __init__(self, listen: str = "127.0.0.1:0") -> None:
        self.pool, self.registry = Pool(), CollectorRegistry()
        Gauge("something", "A number.", registry=self.registry).set(7)
        self.health = Health({"policies": self.pool}, 300.0)
        self.web = Web(listen, self.registry, self.health)

    def connect(self, host: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection((host, self.web.port), timeout=10)

    def ask(self, request: str, host: str = "127.0.0.1") -> tuple[str, str, str]:
        """The first line, the headers and the body of the answer."""
        with self.connect(host) as client:
            client.sendall(request.encode())
            head, _, body = _rest(client).decode().partition("\r\n\r\n")
        first, _, headers = head.partition("\r\n")
        return first, headers, body

    def get(self, path: str) -> tuple[int, str]:
        first, _, body = self.ask(GET.format(path))
        return int(first.split()[1]), body


def _rest(client: socket.socket) -> bytes:
    """What comes until the connection ends, however it ends."""
    found = b""
    with suppress(ConnectionError):
        while more := client.recv(65536):
            found += more
    return found


@pytest.fixture
def made() -> Iterator[Fixture]:
    made = Fixture()
    made.web.start()
    yield made
    made.web.stop()


def test_the_three_paths(made: Fixture) -> None:
    assert made.get("/healthz") == (200, "ok\n")
    assert made.get("/readyz") == (503, "the first list has not come yet\n")
    assert made.get("/readyz?standby") == (503, "the first list has not come yet\n")
    made.health.beat()
    made.health.listed()
    assert made.get("/readyz") == (200, "ok\n")
    assert made.get("/metrics?name=x")[1].splitlines()[-1] == "something 7.0"
    assert made.get("/") == (404, "there are /metrics, /healthz and /readyz\n")


def test_what_is_wrong_is_said_and_logged(made: Fixture, caplog: pytest.LogCaptureFixture) -> None:
    made.pool.ended = 1
    assert made.get("/healthz") == (503, "1 of 2 workers of the queue of policies have ended\n")
    assert "not healthy: 1 of 2 workers" in caplog.text


def test_the_answer_is_one_that_prometheus_takes(made: Fixture) -> None:
    first, headers, body = made.ask(GET.format("/metrics"))
    assert first == "HTTP/1.1 200 OK"
    assert headers.splitlines()[0] == "Content-Type: text/plain; version=0.0.4; charset=utf-8"
    assert f"Content-Length: {len(body)}" in headers
    assert "Connection: close" in headers


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        ("HEAD /healthz HTTP/1.1\r\n\r\n", "200 OK", ""),
        ("GET /healthz HTTP/1.0\r\n\r\n", "200 OK", "ok\n"),
        ("POST /healthz HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405 Method Not Allowed", "only GET and HEAD\n"),
        ("\r\n\r\n", "405 Method Not Allowed", "only GET and HEAD\n"),
        ("GET\r\n\r\n", "404 Not Found", "there are /metrics, /healthz and /readyz\n"),
        ("GET /\x00\xff HTTP/1.1\r\n\r\n", "404 Not Found", "there are /metrics, /healthz and /readyz\n"),
    ],
)
def test_other_requests(made: Fixture, request_: str, status: str, body: str) -> None:
    first, _, found = made.ask(request_)
    assert (first, found) == (f"HTTP/1.1 {status}", body)


@pytest.mark.slow
def test_a_probe_is_answered_at_once_while_many_clients_hold_connections(made: Fixture) -> None:
    with ExitStack() as stack:
        for _ in range(300):
            client = stack.enter_context(closing(made.connect()))
            with suppress(ConnectionError):
                client.sendall(b"GET /hea")
        began = time.monotonic()
        assert made.get("/healthz") == (200, "ok\n")
        assert time.monotonic() - began < 2
        # The oldest were ended for it.
        assert len(made.web._open) <= CONNECTIONS


def _seconds_until_ended(made: Fixture, sent: bytes, pause: float) -> float:
    """For how long a client may send that again and again."""
    began = time.monotonic()
    with made.connect() as client, suppress(ConnectionError):
        while time.monotonic() < began + 9:
            client.sendall(sent)
            time.sleep(pause)
    return time.monotonic() - began


@pytest.mark.slow
def test_a_request_that_comes_byte_by_byte_has_one_deadline_in_all(
    made: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.5)
    assert _seconds_until_ended(made, b"x", 0.02) < 5


@pytest.mark.slow
def test_an_answer_that_is_not_read_has_the_same_deadline(made: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(module, "generate_latest", lambda registry: b"#" * 32 * 2**20)
    with made.connect() as client:
        client.sendall(GET.format("/metrics").encode())
        began = time.monotonic()
        while not made.web._open and time.monotonic() < began + 5:
            time.sleep(0.01)
        while made.web._open and time.monotonic() < began + 10:
            time.sleep(0.01)
        assert time.monotonic() - began < 5
        assert len(_rest(client)) < 32 * 2**20


def test_headers_without_end_are_not_kept(made: Fixture) -> None:
    assert _seconds_until_ended(made, b"X: " + b"x" * HEADER_BYTES, 0.001) < 5


def test_clients_that_are_cut_off_are_logged_once_for_each_reason(
    made: Fixture, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        _seconds_until_ended(made, b"X: " + b"x" * HEADER_BYTES, 0.001)
    assert caplog.text.count("had headers of more than 16,384 bytes, and was ended; the client is 127.0.0.1") == 1
    assert made.get("/healthz") == (200, "ok\n")


@pytest.mark.slow
def test_many_clients_take_little_memory(made: Fixture) -> None:
    tracemalloc.start()
    try:
        with ExitStack() as stack:
            for _ in range(200):
                client = stack.enter_context(closing(made.connect()))
                client.setblocking(False)
                with suppress(BlockingIOError, ConnectionError):
                    client.send(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 2**20)
            assert made.get("/healthz") == (200, "ok\n")
            assert tracemalloc.get_traced_memory()[1] < 2 * CONNECTIONS * 2**20
    finally:
        tracemalloc.stop()


def test_scrapes_in_a_row_cost_one(made: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = list[object]()

    def page(registry: object) -> bytes:
        pages.append(registry)
        return b"page\n"

    monkeypatch.setattr(module, "SCRAPE_SECONDS", 60.0)
    monkeypatch.setattr(module, "generate_latest", page)
    assert [made.get("/metrics") for _ in range(20)] == [(200, "page\n")] * 20
    assert pages == [made.registry]


def test_clients_that_leave_do_not_begin_scrapes_beside_the_one_that_runs(
    made: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages, go = list[object](), threading.Event()

    def render(registry: object) -> bytes:
        pages.append(registry)
        assert go.wait(20)
        return b"page\n"

    monkeypatch.setattr(module, "generate_latest", render)
    for _ in range(2 * CONNECTIONS):
        with made.connect() as client:
            client.sendall(GET.format("/metrics").encode())
    assert made.get("/healthz") == (200, "ok\n")
    found = len(pages)
    go.set()
    assert made.get("/metrics") == (200, "page\n")
    assert found == 1


def test_a_scrape_that_takes_long_keeps_no_probe_waiting(made: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = threading.Event(), threading.Event()

    def slowly(registry: object) -> bytes:
        begun.set()
        assert go.wait(20)
        return b"page\n"

    monkeypatch.setattr(module, "generate_latest", slowly)
    with made.connect() as client:
        client.sendall(GET.format("/metrics").encode())
        assert begun.wait(10)
        began = time.monotonic()
        assert made.get("/healthz") == (200, "ok\n")
        assert time.monotonic() - began < 1.5
        go.set()
        assert _rest(client).endswith(b"page\n")


def test_an_error_in_a_scrape_is_logged_and_ends_nothing_else(
    made: Fixture, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(registry: object) -> bytes:
        raise KeyError("unforeseen")

    monkeypatch.setattr(module, "generate_latest", fail)
    assert made.ask(GET.format("/metrics"))[0] == ""
    assert "a request was not answered" in caplog.text
    assert "unforeseen" in caplog.text
    assert made.get("/healthz") == (200, "ok\n")


@pytest.mark.parametrize(
    ("listen", "hosts"), [(":0", ["127.0.0.1", "::1"]), ("[::1]:0", ["::1"]), ("127.0.0.1:0", ["127.0.0.1"])]
)
def test_it_listens_where_it_is_told_to(listen: str, hosts: list[str]) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    made = Fixture(listen)
    port = made.web.port
    made.web.start()
    try:
        for host in hosts:
            assert made.ask(GET.format("/healthz"), host)[0] == "HTTP/1.1 200 OK"
    finally:
        made.web.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((hosts[0], port))


def test_a_port_that_is_taken_is_named(made: Fixture) -> None:
    with pytest.raises(StartupError, match="cannot listen there: Address already in use"):
        Fixture(f"127.0.0.1:{made.web.port}")
