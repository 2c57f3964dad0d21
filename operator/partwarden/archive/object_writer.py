"""An object that is written while its bytes come: in a thread of its own, with a few pieces in memory."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Self

from .storage import Store

PIECE = 1 << 20
"""Bytes that are handed to the destination at once."""
WAITING = 4
"""Pieces that may wait for it."""


class ObjectWriter:
    """A context manager, left after `end`, or by an error: then no object is there."""

    def __init__(
        self, store: Store, key: str, expected: int = 0, pack: Callable[[Iterator[bytes]], Iterable[bytes]] = iter
    ) -> None:
        """``expected``: about how many bytes it will have at most. ``pack`` makes of the pieces what is written, in the
        thread that writes it."""
        self._held = bytearray()
        self._pieces: queue.Queue[bytes | BaseException | None] = queue.Queue(maxsize=WAITING)
        self._pool = ThreadPoolExecutor(1, "partwarden-object")
        self._put: Future[None] = self._pool.submit(store.put, key, pack(self._given()), expected)

    def write(self, content: bytes) -> int:
        """Add bytes, and return how many. Raises what storage raised."""
        self._held += content
        if len(self._held) >= PIECE:
            self._hand_on()
        return len(content)

    def end(self) -> None:
        """The object is there, whole and durable. Raises what storage raises."""
        self._hand_on()
        self._give(None)
        self._put.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            with suppress(BaseException):
                self._give(error)
        self._pool.shutdown()

    def _hand_on(self) -> None:
        piece, self._held = bytes(self._held), bytearray()
        self._give(piece)

    def _give(self, piece: bytes | BaseException | None) -> None:
        """Wait until there is room, but not for a thread that has ended."""
        while True:
            if self._put.done():
                return self._put.result()
            with suppress(queue.Full):
                return self._pieces.put(piece, timeout=1.0)

    def _given(self) -> Iterator[bytes]:
        while (piece := self._pieces.get()) is not None:
            if isinstance(piece, BaseException):
                # Storage removes what it has of an object whose bytes end so.
                raise piece
            yield piece
