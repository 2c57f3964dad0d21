"""A TCP proxy that can close, cut, silence or hold up the connections to a server, as networks do."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from types import TracebackType

PIECE = 65536


class Toward(Enum):
    """Where bytes go."""

    SERVER = "server"
    CLIENT = "client"


@dataclass
class _Loss:
    toward: Toward
    left: int
    """Bytes that still get through, of all connections together."""
    hang: bool
    struck: threading.Event


class Proxy:
    """Forwards `listen`:`port` to a server; can be closed and opened again at the same port."""

    def __init__(self, host: str, port: int, listen: str = "127.0.0.1") -> None:
        self._target, self._listen, self.port = (host, port), listen, 0
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._loss: _Loss | None = None
        self._most = 0
        self._flows = threading.Event()
        self.unblock()

    def unblock(self) -> None:
        """Let connections through."""
        self._flows.set()
        self._listener = socket.create_server((self._listen, self.port), backlog=100)
        self.port = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, args=(self._listener,))
        self._accepting.start()

    def block(self) -> None:
        """End every connection, and refuse new ones; doing it again does nothing."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        # After its end there are no new connections.
        self._accepting.join()
        self._listener.close()
        self._flows.set()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._open.clear()
        self._threads.clear()

    def cut(self, toward: Toward, after: int) -> threading.Event:
        """From now on let `after` bytes through in this direction; a connection that brings another one is ended.

        The event is set when that has happened. It goes on until `heal`.
        """
        return self._lose(toward, after, hang=False)

    def swallow(self, toward: Toward, after: int) -> threading.Event:
        """The same, but further bytes are lost and the connection stays open, as if the other end were silent."""
        return self._lose(toward, after, hang=True)

    def hold(self, after: int) -> None:
        """From now on take `after` bytes of each connection from the server and no more: it waits with the rest, as
        behind a network that is slow. Nothing is lost. It goes on until `release`."""
        self._most = after
        self._flows.clear()

    def release(self) -> None:
        """Let everything through that was held."""
        self._flows.set()

    def heal(self) -> None:
        """Lose nothing of new connections any more; those from which something was swallowed stay silent."""
        with self._lock:
            self._loss = None

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.block()

    def _lose(self, toward: Toward, after: int, *, hang: bool) -> threading.Event:
        with self._lock:
            self._loss = _Loss(toward, after, hang, threading.Event())
            return self._loss.struck

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near = listener.accept()[0]
                try:
                    far = socket.create_connection(self._target, timeout=10)
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                self._open += [near, far]
                self._threads.append(threading.Thread(target=self._forward, args=(near, far)))
                self._threads[-1].start()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        silent: set[Toward] = set()
        taken = 0
        with near, far, suppress(OSError):
            while True:
                for ready in select.select([near, far], [], [])[0]:
                    if not (data := ready.recv(PIECE)):
                        return
                    taken += len(data) if ready is far else 0
                    if taken > self._most:
                        self._flows.wait()
                    other, toward = (far, Toward.SERVER) if ready is near else (near, Toward.CLIENT)
                    if not self._hand_on(data, other.sendall, toward, silent):
                        return

    def _hand_on(self, data: bytes, send: Callable[[bytes], None], toward: Toward, silent: set[Toward]) -> bool:
        """Whether the connection goes on; `silent` are its directions in which nothing is to arrive any more."""
        if toward in silent:
            return True
        kept, loss = self._through(data, toward)
        send(kept)
        if loss is None:
            return True
        silent.add(toward)
        loss.struck.set()
        return loss.hang

    def _through(self, data: bytes, toward: Toward) -> tuple[bytes, _Loss | None]:
        """What gets through, and by what the rest is lost."""
        with self._lock:
            loss = self._loss
            if loss is None or loss.toward is not toward:
                return data, None
            kept = data[: loss.left]
            loss.left -= len(kept)
            return kept, loss if len(kept) < len(data) else None
