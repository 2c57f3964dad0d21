"""An HTTP server in front of another, which answers some requests itself and hands on the rest, changed or as they are.

with Front(s3.host, s3.port) as front:
    front.rules.append(rule)     # rule(request) -> Answer, or None to hand on what is left of the request
    front.port
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TIMEOUT = 30.0
"""Seconds for one answer of the server behind."""
OWN = ("connection", "content-length", "date", "server", "transfer-encoding")
"""Headers of an answer that the front gives itself."""


@dataclass
class Request:
    """One request. A rule may change it: ``target`` is the path and the query as they were sent."""

    method: str
    target: str
    headers: dict[str, str]
    """By names in lower case."""
    content: bytes

    @property
    def path(self) -> str:
        """Decoded."""
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        """The last value of each name."""
        pairs = parse_qs(urlsplit(self.target).query, keep_blank_values=True)
        return {name: values[-1] for name, values in pairs.items()}


@dataclass(frozen=True)
class Answer:
    """What a client is answered."""

    status: int
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Rule = Callable[[Request], Answer | None]


class Front:
    """Listens on 127.0.0.1:`port`. Of the rules the first counts that answers; without one the server behind does."""

    def __init__(self, host: str, port: int) -> None:
        self._behind = (host, port)
        self.rules: list[Rule] = []

        class Handler(_Handler):
            front = self

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._serving = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._serving.start()

    @property
    def endpoint(self) -> str:
        """The URL that clients are given."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, request: Request) -> Answer:
        """What the server behind answers. Raises OSError."""
        connection = HTTPConnection(*self._behind, timeout=TIMEOUT)
        try:
            connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name, value in {**request.headers, "content-length": str(len(request.content))}.items():
                connection.putheader(name, value)
            connection.endheaders(request.content)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read(), dict(answer.headers))
        finally:
            connection.close()

    def answer(self, request: Request) -> Answer:
        """By a rule, or by the server behind."""
        for rule in list(self.rules):
            if (found := rule(request)) is not None:
                return found
        return self.ask(request)

    def __enter__(self) -> Front:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End it; doing it again does nothing."""
        self._server.shutdown()
        self._serving.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what tests are about."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    front: Front

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        content = self.rfile.read(int(headers.get("content-length", 0)))
        try:
            answer = self.front.answer(Request(self.command, self.path, headers, content))
        except OSError:
            # As the network does where the server behind is gone.
            self.close_connection = True
            return
        length = str(len(answer.content))
        if self.command == "HEAD":
            length = next((value for name, value in answer.headers.items() if name.lower() == "content-length"), "0")
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in OWN:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""
