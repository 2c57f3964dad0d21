"""The operator's HTTP port: ``/metrics``, ``/healthz`` and ``/readyz``, and nothing secret.

A database or an API server that does not answer is no reason to end the process: a restart would not help. Unhealthy is
what a restart heals: a queue without workers, a thread or an event loop that hangs, a watch that is mute.
"""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from ..errors import StartupError
from ..kube.lease import LeaderElection
from .workqueue import Backlog

log = logging.getLogger(__name__)

UNSERVED = 60.0
"""Seconds for which a due key may wait although a worker is free."""
HANGS = 6 * 3600.0
"""Seconds for which all workers may be at one key each: a table of a billion rows is read in less than one hour."""
BEAT = 60.0
"""Seconds for which the event loop may be silent; it beats every second."""
LIST_TIME = 120.0
"""Seconds that a list may take, beside the time between two of them."""
MISSED = 2
"""Lists in a row that showed what the watch had not."""


@dataclass(frozen=True, slots=True)
class WorkerPoolStats:
    """A queue with its workers. ``ended``: how many threads of ``count`` have ended."""

    backlog: Backlog
    count: int
    ended: int


def stuck(name: str, pool: WorkerPoolStats) -> str:
    """What is wrong with a queue, "" when nothing is."""
    if pool.ended:
        return f"{pool.ended} of {pool.count} workers of the queue of {name} have ended"
    busy = pool.backlog.busy
    if len(busy) < pool.count and pool.backlog.waiting > UNSERVED:
        return f"the first in the queue of {name} has been due for {pool.backlog.waiting:.0f} s, and a worker is free"
    if len(busy) >= pool.count and min(busy) > HANGS:
        return f"all workers of the queue of {name} have worked on one key for {min(busy):.0f} s or longer"
    return ""


class Health:
    """Safe for threads. ``clock``: seconds, never going back."""

    def __init__(
        self,
        pools: Mapping[str, Callable[[], WorkerPoolStats]],
        relist: float,
        leader: LeaderElection | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``relist``: seconds between two lists."""
        self._pools, self._relist, self._leader, self._clock = pools, relist, leader, clock
        self._lock = threading.Lock()
        self._beat: float | None = None
        self._listed: float | None = None
        self._missed = 0
        self._stopping = False

    def beat(self) -> None:
        """The event loop runs. To be called every second."""
        with self._lock:
            self._beat = self._clock()

    def listed(self) -> None:
        """A list has come, or failed."""
        with self._lock:
            self._listed = self._clock()

    def missed(self, missed: bool) -> None:
        """Whether a list showed what the watch had not shown by then."""
        with self._lock:
            self._missed = self._missed + 1 if missed else 0

    def stopping(self) -> None:
        """The process ends: it is no longer ready."""
        with self._lock:
            self._stopping = True

    def unhealthy(self) -> list[str]:
        """Why the process should be restarted, a sentence each; empty when it need not."""
        with self._lock:
            now, reasons = self._clock(), []
            if self._beat is not None and now - self._beat > BEAT and not self._stopping:
                reasons.append(f"the event loop has been silent for {now - self._beat:.0f} s")
            if self._listed is not None and now - self._listed > 2 * self._relist + LIST_TIME and not self._stopping:
                reasons.append(f"no list has come or failed for {now - self._listed:.0f} s")
            if self._missed >= MISSED:
                reasons.append(f"the watch is mute: {self._missed} lists in a row showed what it had not")
            stopping = self._stopping
        if stopping:
            return reasons
        return reasons + [reason for name, stats in self._pools.items() if (reason := stuck(name, stats()))]

    def unready(self) -> list[str]:
        """Why the operator does not serve now; empty when it does."""
        with self._lock:
            if self._stopping:
                return ["the operator is stopping"]
            if self._leader and (others := self._leader.others()):
                return [others]
            return [] if self._beat is not None and self._listed is not None else ["the first list has not come yet"]

    def unfit(self) -> list[str]:
        """Why the process neither serves nor could take over at once; empty when it serves or stands by."""
        with self._lock:
            if self._leader and self._leader.stands_by() and not self._stopping:
                return []
        return self.unready()


class Web:
    """Serves on a thread of its own from `start` to `stop`."""

    def __init__(self, listen: str, registry: CollectorRegistry, health: Health) -> None:
        """``listen``: as in the settings. Raises `StartupError` where nothing can listen there."""
        host, _, port = listen.rpartition(":")
        self._metrics, self._health = make_wsgi_app(registry), health
        try:
            self._server = _Server(host.strip("[]"), int(port), self._answer)
        except OSError as error:
            raise StartupError(f"PARTWARDEN_LISTEN={listen!r}: cannot listen there: {error.strerror}") from None
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
        path, query = environ.get("PATH_INFO", ""), environ.get("QUERY_STRING")
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            return _text(respond, "405 Method Not Allowed", ["only GET and HEAD"])
        if path == "/metrics":
            metrics: Iterable[bytes] = self._metrics(environ, respond)
            return metrics
        if path == "/healthz":
            wrong = self._health.unhealthy()
            if wrong:
                log.error("not healthy: %s", "; ".join(wrong))
        elif path == "/readyz":
            # A replica that stands by is as it should be: a Deployment counts it as ready.
            wrong = self._health.unfit() if query == "standby" else self._health.unready()
        else:
            return _text(respond, "404 Not Found", ["there are /metrics, /healthz and /readyz"])
        return _text(respond, "503 Service Unavailable" if wrong else "200 OK", wrong or ["ok"])


def _text(respond: Callable[..., Any], status: str, lines: list[str]) -> list[bytes]:
    respond(status, [("Content-Type", "text/plain; charset=utf-8")])
    return ["".join(f"{line}\n" for line in lines).encode()]


class _Handler(WSGIRequestHandler):
    timeout = 10.0
    """Seconds that a client may be silent."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Log no scrapes and probes."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """Without a host it listens on all addresses, IPv4 and IPv6 where the system has both: a pod's probes come from its
    node, and Prometheus from anywhere."""

    daemon_threads = True

    def __init__(self, host: str, port: int, answer: Callable[..., Any]) -> None:
        self._both = host == "::" or (not host and socket.has_dualstack_ipv6())
        self.address_family = socket.AF_INET6 if self._both or ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)
        self.set_app(answer)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not self._both)
        super().server_bind()
