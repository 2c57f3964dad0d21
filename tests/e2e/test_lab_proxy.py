"""What other tests take for granted of the lab's TCP proxy."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from lab.proxy import PIECE, Proxy, Toward

PATIENCE = 20.0


@pytest.fixture
def far() -> Iterator[socket.socket]:
    """Listens."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(PATIENCE)
        yield made


@pytest.fixture
def proxy(far: socket.socket) -> Iterator[Proxy]:
    """To it."""
    with Proxy("127.0.0.1", far.getsockname()[1]) as made:
        yield made


def pair(proxy: Proxy, far: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Both ends of a new connection."""
    client = socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE)
    server = far.accept()[0]
    server.settimeout(PATIENCE)
    return client, server


def rest(end: socket.socket) -> bytes:
    """The bytes that arrive until the connection ends."""
    return b"".join(iter(lambda: end.recv(100), b""))


def filled(end: socket.socket) -> int:
    """The bytes that this end sends until it would have to wait."""
    sent = 0
    end.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            sent += end.send(b"x" * PIECE)
    return sent


def test_a_cut_ends_this_connection_and_the_next_until_it_is_healed(proxy: Proxy, far: socket.socket) -> None:
    client, server = pair(proxy, far)
    struck = proxy.cut(Toward.SERVER, after=10)
    with client, server:
        client.sendall(b"0123456")
        assert server.recv(7, socket.MSG_WAITALL) == b"0123456"
        assert not struck.is_set()
        client.sendall(b"789too much")
        assert rest(server) == b"789"
        assert rest(client) == b""
        assert struck.is_set()
    client, server = pair(proxy, far)
    with client, server:
        client.sendall(b"x")
        assert rest(server) == b""
    proxy.heal()
    client, server = pair(proxy, far)
    with client, server:
        client.sendall(b"whole")
        assert server.recv(5, socket.MSG_WAITALL) == b"whole"


def test_dropped_bytes_do_not_arrive_and_the_other_direction_continues(proxy: Proxy, far: socket.socket) -> None:
    client, server = pair(proxy, far)
    struck = proxy.swallow(Toward.CLIENT, after=4)
    with client, server:
        server.sendall(b"answer")
        assert client.recv(4, socket.MSG_WAITALL) == b"answ"
        assert struck.wait(PATIENCE)
        client.sendall(b"still there")
        assert server.recv(11, socket.MSG_WAITALL) == b"still there"
        proxy.heal()
        server.sendall(b"never")
        server.shutdown(socket.SHUT_WR)
        assert rest(client) == b""


def test_what_is_held_waits_at_the_server_and_arrives_whole_once_it_is_released(
    proxy: Proxy, far: socket.socket
) -> None:
    client, server = pair(proxy, far)
    proxy.hold(after=PIECE)
    with client, server:
        sent, arrived = filled(server), 0
        client.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                arrived += len(client.recv(PIECE))
        assert arrived <= PIECE
        client.settimeout(PATIENCE)
        proxy.release()
        while arrived < sent:
            arrived += len(client.recv(PIECE))
        assert arrived == sent


def test_a_closed_way_ends_connections_and_opens_at_the_same_port(proxy: Proxy, far: socket.socket) -> None:
    client, server = pair(proxy, far)
    port = proxy.port
    with client, server:
        proxy.block()
        assert rest(client) == rest(server) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    proxy.unblock()
    assert proxy.port == port
    client, server = pair(proxy, far)
    client.close()
    server.close()
