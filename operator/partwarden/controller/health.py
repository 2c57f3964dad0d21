"""Whether the operator gets anywhere: what ``/healthz`` and ``/readyz`` answer.

A database or an API server that does not answer is no reason to end a process: it would be none the better for it. What
counts is what a restart heals: a queue that nobody serves, a thread or an event loop that hangs, a watch that is mute.
"""

from __future__ import annotations

import errno
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from ..errors import StartupError
from .workqueue import Backlog

# The HTTP port of the operator: ``/metrics``, ``/healthz`` and ``/readyz``, nothing else, and nothing secret.
#

log = logging.getLogger(__name__)

SILENCE = 10.0
"""Seconds that a client may be silent."""
TEXT = "text/plain; charset=utf-8"
Check = Callable[[], list[str]]
"""What is wrong, a sentence each."""


class Web:
    """Serves on a thread of its own from `start` to `stop`."""

    def __init__(self, listen: str, registry: CollectorRegistry, healthy: Check, ready: Check, fit: Check) -> None:
        """``listen``: as in the settings; ``fit``: for ``/readyz?standby``.

        Raises `StartupError` where nothing can listen there.
        """
        host, _, port = listen.rpartition(":")
        self._metrics = make_wsgi_app(registry)
        self._fit = fit
        self._checks = {"/healthz": healthy, "/readyz": ready}
        try:
            self._server = _bound(host.strip("[]"), int(port), self._answer)
        except OSError as error:
            raise StartupError(f"PARTWARDEN_LISTEN={listen!r}: nothing can listen there: {error.strerror}") from None
        self._thread = threading.Thread(target=self._server.serve_forever, name="web", daemon=True)

    @property
    def port(self) -> int:
        """The port, also where 0 was asked for."""
        return self._server.server_port

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            return _said(respond, "405 Method Not Allowed", ["only GET and HEAD"])
        if path == "/metrics":
            found: Iterable[bytes] = self._metrics(environ, respond)
            return found
        if check := self._checks.get(path):
            # A replica that stands by is as it should be, which whoever counts replicas wants to know.
            wrong = self._fit() if path == "/readyz" and environ.get("QUERY_STRING") == "standby" else check()
            if wrong and path == "/healthz":
                log.error("not healthy: %s", "; ".join(wrong))
            return _said(respond, "503 Service Unavailable" if wrong else "200 OK", wrong or ["ok"])
        return _said(respond, "404 Not Found", ["there are /metrics, /healthz and /readyz"])


def _said(respond: Callable[..., Any], status: str, lines: list[str]) -> list[bytes]:
    respond(status, [("Content-Type", TEXT)])
    return ["".join(f"{line}\n" for line in lines).encode()]


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Dual(_Server):
    """Both families where the system has both."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(self.server_address[0] != "::"))
        super().server_bind()


class _Handler(WSGIRequestHandler):
    timeout = SILENCE

    def log_message(self, format: str, *arguments: object) -> None:
        """Scrapes and probes are no news."""


def _bound(host: str, port: int, answer: Callable[..., Any]) -> WSGIServer:
    if host:
        kind: type[_Server] = _Dual if ":" in host else _Server
        return make_server(host, port, answer, kind, _Handler)
    try:
        return make_server("::", port, answer, _Dual, _Handler)
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
    # A pod's probes come from its node, and Prometheus from anywhere.
    return make_server("0.0.0.0", port, answer, _Server, _Handler)  # noqa: S104


UNSERVED = 60.0
"""Seconds for which what is due may wait although a worker is free."""
HANGS = 6 * 3600.0
"""Seconds for which all workers may be at one thing each: a table of a billion rows is read in less than one hour."""
BEAT = 60.0
"""Seconds for which the event loop may be silent; it beats every second."""
SLACK = 120.0
"""Seconds that a list may take, beside the time between two of them."""
MISSED = 2
"""Lists in a row that showed what the watch had not."""


@dataclass(frozen=True, slots=True)
class WorkerPoolStats:
    """A queue with its workers. ``ended``: how many threads of ``count`` are no more."""

    backlog: Backlog
    count: int
    ended: int


def stuck(name: str, crew: WorkerPoolStats) -> str:
    """What is wrong with a queue, "" when nothing is."""
    if crew.ended:
        return f"{crew.ended} of {crew.count} workers of the queue of {name} have ended"
    busy = crew.backlog.busy
    if len(busy) < crew.count and crew.backlog.waiting > UNSERVED:
        return f"the first in the queue of {name} has been due for {crew.backlog.waiting:.0f} s, and a worker is free"
    if len(busy) >= crew.count and min(busy) > HANGS:
        return f"all workers of the queue of {name} have been at one thing for {min(busy):.0f} s or longer"
    return ""


class Health:
    """Safe for threads. ``clock``: seconds, never going back."""

    def __init__(
        self,
        crews: Mapping[str, Callable[[], WorkerPoolStats]],
        relist: float,
        others: Callable[[], str] = str,
        stands_by: Callable[[], bool] = bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``relist``: seconds between two lists. ``others``: who leads instead, in words; ``stands_by``: whether this
        process could take over."""
        self._others, self._stands_by = others, stands_by
        self._crews, self._relist, self._clock = crews, relist, clock
        self._lock = threading.Lock()
        self._beat: float | None = None
        self._listed: float | None = None
        self._missed = 0
        self._stopping = False

    def beat(self) -> None:
        """The event loop runs: to be said every second."""
        with self._lock:
            self._beat = self._clock()

    def listed(self) -> None:
        """A list was asked for, and came or failed."""
        with self._lock:
            self._listed = self._clock()

    def missed(self, missed: bool) -> None:
        """Whether a list showed what the watch had not shown by then."""
        with self._lock:
            self._missed = self._missed + 1 if missed else 0

    def stopping(self) -> None:
        """The process was told to end: it is ready no more."""
        with self._lock:
            self._stopping = True

    def unhealthy(self) -> list[str]:
        """Why the process should be ended and begun anew, a sentence each; empty when all is well."""
        with self._lock:
            now, found = self._clock(), []
            if self._beat is not None and now - self._beat > BEAT and not self._stopping:
                found.append(f"the event loop has been silent for {now - self._beat:.0f} s")
            if self._listed is not None and now - self._listed > 2 * self._relist + SLACK and not self._stopping:
                found.append(f"no list has come or failed for {now - self._listed:.0f} s")
            if self._missed >= MISSED:
                found.append(f"the watch is mute: {self._missed} lists in a row showed what it had not")
            stopping = self._stopping
        if stopping:
            return found
        return found + [words for name, look in self._crews.items() if (words := stuck(name, look()))]

    def unready(self) -> list[str]:
        """Why the operator does not serve now; empty when it does."""
        with self._lock:
            if self._stopping:
                return ["it was told to stop"]
            if others := self._others():
                return [others]
            return [] if self._beat is not None and self._listed is not None else ["the first list has not come yet"]

    def unfit(self) -> list[str]:
        """Why the process neither serves nor could take over at once; empty when it serves or stands by."""
        with self._lock:
            if self._stands_by() and not self._stopping:
                return []
        return self.unready()
