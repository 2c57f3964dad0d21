"""A PostgreSQL server that lies, as a process of its own: each lie has a port on 127.0.0.1.

What is said is data: see `Lie`, which needs no server behind it, and `Rewrite`, which changes what a real one answers.
https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial

KIB, MIB = 1 << 10, 1 << 20
SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
INT4, INT8, TEXT, BOOL, JSON, FLOAT8, TIMESTAMP = 23, 20, 25, 16, 114, 701, 1114
"""OIDs of types."""


def message(kind: str, body: bytes = b"", length: int | None = None) -> bytes:
    """``length``: another than it has."""
    return kind.encode() + struct.pack("!i", len(body) + 4 if length is None else length) + body


def authentication(code: int, more: bytes = b"") -> bytes:
    return message("R", struct.pack("!i", code) + more)


def parameter(name: str, value: str) -> bytes:
    return message("S", name.encode() + b"\0" + value.encode() + b"\0")


def fields(code: str, words: bytes) -> bytes:
    """Of an error or a notice."""
    return b"SERROR\0VERROR\0C" + code.encode() + b"\0M" + words + b"\0\0"


def error(words: str, code: str = "XX000") -> bytes:
    return message("E", fields(code, words.encode()))


def described(*names: str, count: int | None = None, type_: int = TEXT) -> bytes:
    """The columns of rows. ``count``: another number of them than it has."""
    each = b"".join(name.encode() + b"\0" + struct.pack("!ihihih", 0, 0, type_, -1, -1, 0) for name in names)
    return message("T", struct.pack("!h", len(names) if count is None else count) + each)


def row(*values: bytes | None, count: int | None = None) -> bytes:
    found = b"".join(struct.pack("!i", -1) if each is None else struct.pack("!i", len(each)) + each for each in values)
    return message("D", struct.pack("!h", len(values) if count is None else count) + found)


def ready(status: str = "I") -> bytes:
    return message("Z", status.encode())


def done(tag: str = "SELECT 1") -> bytes:
    return message("C", tag.encode() + b"\0")


WELCOME = authentication(0) + parameter("client_encoding", "UTF8") + message("K", struct.pack("!ii", 4711, 1))


class When(Enum):
    """What the client has said before the lie."""

    CONNECTED = auto()
    STARTUP = auto()
    SCRAM = auto()
    """The client's first message; NONCE in what is said stands for its nonce. What is said is text of SCRAM."""
    QUERY = auto()
    """The login has succeeded, and this is the answer to each query."""
    SECOND = auto()
    """The same, but the first query of the session is answered as it should be."""


@dataclass(frozen=True)
class Lie:
    """``says``, then ``repeats`` for ``times`` times, without end if None; then nothing more, or the end.

    ``pause``: seconds after each byte of ``says`` and each repetition.
    """

    when: When
    says: bytes = b""
    repeats: bytes = b""
    times: int | None = None
    pause: float = 0.0
    ends: bool = False
    version: str = "18.0"


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, said: bytes) -> None:
        self.writer.write(said)
        await self.writer.drain()

    async def begin(self) -> None:
        """Read up to the startup message. One that asks to cancel a query gets no answer: EOFError is raised."""
        code = SSL_REQUEST
        while code in (SSL_REQUEST, GSS_REQUEST):
            length, code = struct.unpack("!ii", await self.reader.readexactly(8))
            await self.reader.readexactly(length - 8)
            if code in (SSL_REQUEST, GSS_REQUEST):
                await self.send(b"N")
        if code == CANCEL_REQUEST:
            await self.reader.read()
            raise EOFError

    async def receive(self) -> bytes:
        """The body of the next message."""
        _, length = struct.unpack("!ci", await self.reader.readexactly(5))
        return await self.reader.readexactly(length - 4)

    async def hear(self, lie: Lie) -> None:
        said = lie.says
        if lie.when is not When.CONNECTED:
            await self.begin()
        if lie.when is When.SCRAM:
            await self.send(authentication(10, b"SCRAM-SHA-256\0\0"))
            said = authentication(11, said.replace(b"NONCE", (await self.receive()).partition(b"r=")[2]))
        if lie.when in (When.QUERY, When.SECOND):
            await self.send(WELCOME + parameter("server_version", lie.version) + ready())
            await self.receive()
        if lie.when is When.SECOND:
            # One row: it is no pooler.
            await self.send(described("set_config") + row(b"0") + done() + ready())
            await self.receive()
        while True:
            await self._say(lie, said)
            if lie.ends:
                return
            # Each query is answered in the same way, and what precedes a login is not repeated.
            await (self.receive() if lie.when in (When.QUERY, When.SECOND) else self.reader.read())

    async def _say(self, lie: Lie, said: bytes) -> None:
        for piece in [said[at : at + 1] for at in range(len(said))] if lie.pause else [said]:
            await self.send(piece)
            await asyncio.sleep(lie.pause)
        left = lie.times if lie.repeats else 0
        while left is None or left > 0:
            await self.send(lie.repeats)
            left = None if left is None else left - 1
            if lie.pause:
                await asyncio.sleep(lie.pause)


@dataclass(frozen=True)
class Rewrite:
    """Answers of a real server, with another ``value`` in each row that has the ``column``, declared as of ``type_``.

    ``times``: how often such a row comes.
    """

    column: str
    value: bytes | None = None
    type_: int | None = None
    times: int = 1

    async def between(self, client: Client, upstream: Client) -> None:
        """Pass on what both say until one of them ends."""
        asking = asyncio.create_task(_pass_on(client.reader, upstream.writer))
        try:
            place: int | None = None
            while True:
                kind, length = struct.unpack("!ci", await upstream.reader.readexactly(5))
                body = await upstream.reader.readexactly(length - 4)
                if kind == b"T":
                    place, body = self._describe(body)
                many = self.times if kind == b"D" and place is not None else 1
                if kind == b"D" and place is not None:
                    body = self._change(body, place)
                said = message(kind.decode(), body)
                for sent in range(0, many, 1000):
                    await client.send(said * min(1000, many - sent))
        finally:
            asking.cancel()

    def _describe(self, body: bytes) -> tuple[int | None, bytes]:
        (count,), at, place, changed = struct.unpack_from("!h", body), 2, None, bytearray(body)
        for number in range(count):
            end = body.index(b"\0", at)
            if body[at:end].decode() == self.column:
                place = number
                if self.type_ is not None:
                    struct.pack_into("!i", changed, end + 7, self.type_)
            at = end + 19
        return place, bytes(changed)

    def _change(self, body: bytes, place: int) -> bytes:
        (count,), at, values = struct.unpack_from("!h", body), 2, list[bytes | None]()
        for _ in range(count):
            (length,) = struct.unpack_from("!i", body, at)
            values.append(None if length < 0 else body[at + 4 : at + 4 + length])
            at += 4 + max(length, 0)
        values[place] = self.value
        return row(*values)[5:]


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while said := await reader.read(64 * KIB):
            writer.write(said)
            await writer.drain()
        writer.close()


async def _serve(lie: Lie | Rewrite, real: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    client = Client(reader, writer)
    with suppress(OSError, EOFError, struct.error):
        if isinstance(lie, Lie):
            await client.hear(lie)
        else:
            upstream = Client(*await asyncio.open_connection("127.0.0.1", real))
            try:
                await lie.between(client, upstream)
            finally:
                upstream.writer.transport.abort()
    writer.transport.abort()


async def _serve_all(lies: Mapping[str, Lie | Rewrite], real: int) -> None:
    ports = {}
    for name, lie in lies.items():
        server = await asyncio.start_server(partial(_serve, lie, real), "127.0.0.1", 0)
        ports[name] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    # It ends with the process that began it.
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)


def main() -> None:
    """Read the lies and the port of a real server from the standard input, and lie until that ends."""
    asyncio.run(_serve_all(*pickle.load(sys.stdin.buffer)))  # noqa: S301 - of the test that began it


@contextmanager
def lying(lies: Mapping[str, Lie | Rewrite], real: int) -> Iterator[dict[str, int]]:
    """The port of each lie. ``real``: the port of a real server, for what is rewritten."""
    program = [sys.executable, "-c", "from adversary import hostile_server; hostile_server.main()"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pickle.dump((lies, real), process.stdin)
        process.stdin.flush()
        yield json.loads(process.stdout.readline())
        process.stdin.close()
