"""The values of stored generated columns, which ``pg_dump`` leaves out: an object of their own beside the dump.

A line for each row, in the order of the rows of the dump, in COPY's text format; compressed by gzip.
"""

from __future__ import annotations

import queue
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from types import TracebackType

from ..errors import ArchiveDamaged, ProofFailed
from .manifest import GeneratedData
from .storage import Digest, Store

PIECE = 1 << 20
"""Bytes that are handed on at once."""
GZIP = 31
"""Of zlib: the largest window, and the header and trailer of gzip."""
QUICKLY = 1


class GeneratedWriter(AbstractContextManager["GeneratedWriter"]):
    """Write the object while its lines come. Left by an error, no object is there."""

    def __init__(self, store: Store, key: str, expected: int = 0) -> None:
        """``expected``: about how many bytes it will have at most."""
        self._written, self._content = Digest(), Digest()
        self._pieces: queue.Queue[bytes | BaseException | None] = queue.Queue(maxsize=8)
        self._held: list[bytes] = []
        self._size = 0
        self._pool = ThreadPoolExecutor(1, "partwarden-generated")
        self._put: Future[None] = self._pool.submit(lambda: store.put(key, self._compressed(), expected))

    def write(self, line: bytes) -> None:
        """Add a line, with its end. Raises what storage raised."""
        self._held.append(line)
        self._size += len(line)
        if self._size >= PIECE:
            self._hand_on()

    def finish(self, columns: Sequence[str]) -> GeneratedData:
        """The object is there, whole and durable. Raises what storage raises."""
        self._hand_on()
        self._give(None)
        self._put.result()
        return GeneratedData(
            columns=tuple(columns),
            bytes=self._written.size,
            sha256=self._written.sha256,
            copy_sha256=self._content.sha256,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            with suppress(BaseException):
                self._give(error)
        self._pool.shutdown()

    def _hand_on(self) -> None:
        piece = b"".join(self._held)
        self._held, self._size = [], 0
        if piece:
            self._content.update(piece)
            self._give(piece)

    def _give(self, piece: bytes | BaseException | None) -> None:
        """Wait until there is room, but not for a thread that has ended."""
        while True:
            try:
                self._pieces.put(piece, timeout=1.0)
                return
            except queue.Full:
                if self._put.done():
                    self._put.result()
                    return

    def _compressed(self) -> Iterator[bytes]:
        packer = zlib.compressobj(QUICKLY, zlib.DEFLATED, GZIP)
        while (piece := self._pieces.get()) is not None:
            if isinstance(piece, BaseException):
                # Storage removes what it has of an object whose bytes end so.
                raise piece
            if packed := packer.compress(piece):
                self._written.update(packed)
                yield packed
        packed = packer.flush()
        self._written.update(packed)
        yield packed


def lines(chunks: Iterable[bytes], data: GeneratedData, rows: int) -> Iterator[bytes]:
    """The object's lines, without their ends.

    At the end raises `ArchiveDamaged` where the object is not what was written, and `ProofFailed` where it does not
    hold the values that were archived.
    """
    written, content, held = Digest(), Digest(), b""
    try:
        for piece in _unpacked(chunks, written):
            content.update_rows(piece)
            *whole, held = (held + piece).split(b"\n")
            yield from whole
    except zlib.error as error:
        raise ArchiveDamaged(f"the generated values are no gzip: {error}") from None
    if (written.size, written.sha256) != (data.bytes, data.sha256):
        raise ArchiveDamaged(
            f"the generated values have {written.size} bytes and the sha256 {written.sha256}, but {data.bytes} and "
            f"{data.sha256} were written"
        )
    if held or (content.lines, content.sha256) != (rows, data.copy_sha256):
        raise ProofFailed(
            f"the generated values were read back: {content.lines} lines of the digest {content.sha256}, archived were "
            f"{rows} of {data.copy_sha256}"
        )


def _unpacked(chunks: Iterable[bytes], written: Digest) -> Iterator[bytes]:
    """Piece by piece, however much a chunk unpacks to."""
    unpacker = zlib.decompressobj(GZIP)
    for chunk in chunks:
        written.update(chunk)
        rest = chunk
        while rest and not unpacker.eof:
            yield unpacker.decompress(rest, PIECE)
            rest = unpacker.unconsumed_tail
    while not unpacker.eof and (piece := unpacker.decompress(unpacker.unconsumed_tail, PIECE)):
        yield piece
    if not unpacker.eof:
        raise zlib.error("it breaks off")


def beside(
    rows: Iterable[bytes], values: Iterator[bytes], data: GeneratedData, names: Sequence[str]
) -> Iterator[bytes]:
    """The rows with the values of these columns behind them. Both in COPY's text format, in the same order.

    Raises `ProofFailed` where there are more rows than values, or columns that the object has not.
    """
    if missing := [name for name in names if name not in data.columns]:
        raise ProofFailed(f"the archive holds no values of the generated column {missing[0]!r}")
    places, held = [data.columns.index(name) for name in names], b""
    for chunk in rows:
        *whole, held = (held + chunk).split(b"\n")
        yield b"".join(_joined(row, values, places) for row in whole)
    # Read to the end, where it is proven.
    for _ in values:
        raise ProofFailed("the archive holds more generated values than rows")


def _joined(row: bytes, values: Iterator[bytes], places: Sequence[int]) -> bytes:
    line = next(values, None)
    if line is None:
        raise ProofFailed("the archive holds fewer generated values than rows")
    parts = line.split(b"\t")
    if len(parts) <= max(places):
        raise ProofFailed("a line of the generated values has too few columns")
    return b"\t".join([row, *(parts[place] for place in places)]) + b"\n"
