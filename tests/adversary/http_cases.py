"""What a client does that may connect to the operator's HTTP port."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import ExitStack, suppress
from itertools import repeat

from adversary.cases import Case
from adversary.stage import Stage

CASES: list[Case] = []
GET = b"GET /metrics HTTP/1.1\r\n\r\n"


def case(does: str, says: str, sent: bytes, *, clients: int = 1, endless: bytes = b"", pause: float = 0.0) -> None:
    """``sent``, then ``endless`` again and again with a ``pause`` of seconds between."""

    def attack(stage: Stage) -> Generator[None]:
        ended = threading.Event()

        def speak() -> None:
            answer = b""
            with socket.create_connection(("127.0.0.1", stage.port), 30) as client:
                with suppress(OSError):
                    client.sendall(sent)
                    for each in repeat(endless) if endless else ():
                        if ended.wait(pause):
                            return
                        client.sendall(each)
                with suppress(OSError):
                    answer = client.recv(4096)
                stage.answers.append(answer.decode("latin-1") or "ended without an answer")
                ended.wait()

        with ExitStack() as stack:
            stack.callback(ended.set)
            for _ in range(clients):
                thread = threading.Thread(target=speak)
                thread.start()
                stack.callback(thread.join)
            # In reverse: the threads are waited for once they are to end.
            stack.callback(ended.set)
            yield

    CASES.append(Case(f"client {does}", "", says, attack))


case("opens 200 connections and says nothing", "16 connections are open: the oldest was ended", b"", clients=200)
case(
    "sends a header byte by byte",
    "ended without an answer",
    b"GET / HTTP/1.1\r\nX: ",
    clients=8,
    endless=b"x",
    pause=0.1,
)
case("sends a header of 1 MiB", "headers of more than 16,384 bytes", b"GET / HTTP/1.1\r\nX: ", endless=b"x" * 65536)
case(
    "sends a body without end",
    "405 Method Not Allowed",
    b"POST /metrics HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n",
)
case("sends 1,000 requests at once", "200 OK", GET * 1000)
case("asks for metrics in 100 connections", "200 OK", GET, clients=100)
case("sends garbage", "405 Method Not Allowed", bytes(range(256)) * 8 + b"\r\n\r\n")
case(
    "sends the beginning of TLS",
    "ended without an answer",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500,
)
