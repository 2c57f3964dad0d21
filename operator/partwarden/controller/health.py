"""The operator's HTTP port: ``/metrics``, ``/healthz`` and ``/readyz``, and nothing secret.

A database or an API server that does not answer is no reason to end the process: a restart would not help. Unhealthy is
what a restart heals: a queue without workers, a worker beyond its own deadline, an event loop or lists that hang.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from ..errors import StartupError
from ..kube.lease import LeaderElection
from .workqueue import Backlog

log = logging.getLogger(__name__)

UNSERVED = 60.0
"""Seconds for which a due key may wait although a worker is free."""
BEAT = 60.0
"""Seconds for which the event loop may be silent; it beats every second."""
LIST_TIME = 120.0
"""Seconds that a list may take, beside the time between two of them."""
CONNECTIONS = 16
"""At a time. One more ends that which has been open the longest, so that a probe is always answered."""
HEADER_BYTES = 16 * 1024
REQUEST_SECONDS = 10.0
"""From the connection to the last byte of the answer, however slowly the client writes and reads."""
NOTED_SECONDS = 60.0
"""Between two lines of the log about clients that were cut off for the same reason: they decide how often that is."""
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of Prometheus' text format, which every version of it reads."""
SCRAPE_SECONDS = 1.0
"""For which the page of metrics is given out again: clients in a row cost no more than one each second."""


@dataclass(frozen=True, slots=True)
class WorkerPoolStats:
    """A queue with its workers. ``ended``: how many threads of ``count`` have ended."""

    backlog: Backlog
    count: int
    ended: int


def stuck(name: str, pool: WorkerPoolStats) -> str:
    """What is wrong with a queue, "" when nothing is."""
    backlog = pool.backlog
    if pool.ended:
        return f"{pool.ended} of {pool.count} workers of the queue of {name} have ended"
    if len(backlog.busy) < pool.count and backlog.unserved > UNSERVED:
        return f"the first in the queue of {name} has been due for {backlog.unserved:.0f} s, and a worker is free"
    if backlog.late:
        key, seconds = max(backlog.late, key=lambda each: each[1])
        return f"a worker of the queue of {name} has {'/'.join(key)} for {seconds:.0f} s longer than it stated"
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
        self._stopping = False

    def beat(self) -> None:
        """The event loop runs. To be called every second."""
        with self._lock:
            self._beat = self._clock()

    def listed(self) -> None:
        """A list has come, or failed."""
        with self._lock:
            self._listed = self._clock()

    def stopping(self) -> None:
        """The process ends: it is no longer ready."""
        with self._lock:
            self._stopping = True

    def unhealthy(self) -> list[str]:
        """Why the process should be restarted, a sentence each; empty when it need not."""
        with self._lock:
            if self._stopping:
                return []
            now, reasons = self._clock(), []
            if self._beat is not None and now - self._beat > BEAT:
                reasons.append(f"the event loop has been silent for {now - self._beat:.0f} s")
            if self._listed is not None and now - self._listed > 2 * self._relist + LIST_TIME:
                reasons.append(f"no list has come or failed for {now - self._listed:.0f} s")
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
    """Serves on a thread of its own from `start` to `stop`.

    Any pod of the cluster may connect. A server such as waitress limits a client's silence, not a request's time, and
    accepts no further connection while as many as it allows are open: so one client could keep probes away.
    """

    def __init__(self, listen: str, registry: CollectorRegistry, health: Health) -> None:
        """``listen``: as in the settings. Raises `StartupError` where nothing can listen there."""
        host, _, port = listen.rpartition(":")
        self._registry, self._health = registry, health
        try:
            self._socket = _listen(host.strip("[]"), int(port))
        except OSError as error:
            raise StartupError(f"PARTWARDEN_LISTEN={listen!r}: cannot listen there: {error.strerror}") from None
        self._loop, self._stopped = asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)
        self._open: dict[asyncio.Task[Any], None] = {}
        """One for each connection, the oldest first."""
        self._page: asyncio.Task[bytes] | None = None
        self._scraped = 0.0
        self._noted: dict[str, float] = {}

    @property
    def port(self) -> int:
        """The port, also where 0 was asked for."""
        port: int = self._socket.getsockname()[1]
        return port

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(REQUEST_SECONDS)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        # So many are accepted before the oldest are ended; more may wait in the kernel.
        server = await asyncio.start_server(self._connected, sock=self._socket, limit=HEADER_BYTES, backlog=CONNECTIONS)
        self._socket.listen(128)
        await self._stopped.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= CONNECTIONS:
            self._note(writer, f"{CONNECTIONS} connections are open: the oldest was ended for one more")
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.cancel()
        self._open[task] = None
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                writer.write(await self._answer(await reader.readuntil(b"\r\n\r\n")))
                writer.close()
                await writer.wait_closed()
        except TimeoutError:
            self._note(writer, f"a request took longer than {REQUEST_SECONDS:.0f} s, and was ended")
        except asyncio.LimitOverrunError:
            self._note(writer, f"a request had headers of more than {HEADER_BYTES:,} bytes, and was ended")
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has ended it
        except Exception:
            log.exception("a request was not answered")
        finally:
            self._open.pop(task, None)
            writer.transport.abort()

    def _note(self, writer: asyncio.StreamWriter, what: str) -> None:
        now = time.monotonic()
        if now >= self._noted.get(what, now):
            self._noted[what] = now + NOTED_SECONDS
            peer = writer.get_extra_info("peername") or ("a client that is gone",)
            log.warning("%s; the client is %s", what, peer[0])

    async def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        path, _, query = rest.partition(" ")[0].partition("?")
        kind = "text/plain; charset=utf-8"
        if method not in ("GET", "HEAD"):
            status, body = "405 Method Not Allowed", b"only GET and HEAD\n"
        elif path == "/metrics":
            status, kind, body = "200 OK", METRICS_TYPE, await self._scrape()
        elif path in ("/healthz", "/readyz"):
            wrong = self._wrong(path, query)
            status = "503 Service Unavailable" if wrong else "200 OK"
            body = "".join(f"{line}\n" for line in wrong or ["ok"]).encode()
        else:
            status, body = "404 Not Found", b"there are /metrics, /healthz and /readyz\n"
        fields = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return f"HTTP/1.1 {status}\r\n{fields}".encode() + (b"" if method == "HEAD" else body)

    def _wrong(self, path: str, query: str) -> list[str]:
        if path == "/readyz":
            # A replica that stands by is as it should be: a Deployment counts it as ready.
            return self._health.unfit() if query == "standby" else self._health.unready()
        if wrong := self._health.unhealthy():
            log.error("not healthy: %s", "; ".join(wrong))
        return wrong

    async def _scrape(self) -> bytes:
        """Once for all clients that ask meanwhile. A large fleet takes long: probes do not wait for the thread."""
        if self._page is None or (self._page.done() and time.monotonic() > self._scraped + SCRAPE_SECONDS):
            self._scraped = time.monotonic()
            self._page = asyncio.create_task(asyncio.to_thread(generate_latest, self._registry))
        # It goes on where the client that began it is gone.
        return await asyncio.shield(self._page)


def _listen(host: str, port: int) -> socket.socket:
    """Without a host on all addresses, IPv4 and IPv6 where the system has both: a pod's probes come from its node, and
    Prometheus from anywhere."""
    both = host == "::" or (not host and socket.has_dualstack_ipv6())
    made = socket.socket(socket.AF_INET6 if both or ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        made.bind((host, port))
        made.listen()
    except OSError:
        made.close()
        raise
    return made
