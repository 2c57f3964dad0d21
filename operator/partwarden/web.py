"""The HTTP port of the operator: ``/metrics``, ``/healthz`` and ``/readyz``, nothing else, and nothing secret."""

from __future__ import annotations

import errno
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from .settings import StartupError

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
