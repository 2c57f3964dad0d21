"""The values of stored generated columns, which ``pg_dump`` leaves out: an object of their own beside the dump.

It has a line for each row, in the order of the rows of the dump, in COPY's text format; compressed by gzip.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence

from ..errors import ArchiveDamaged, ProofFailed
from . import archived_rows
from .archived_rows import Digest, valid_text
from .manifest import GeneratedData
from .object_writer import PIECE, ObjectWriter
from .storage import Store

GZIP, QUICKLY = 31, 1
"""Of zlib: the largest window, and the header and trailer of gzip; and its lowest level."""


class GeneratedWriter(ObjectWriter):
    """Write the object while its lines come."""

    def __init__(self, store: Store, key: str, expected: int = 0) -> None:
        """``expected``: about how many bytes it will have at most."""
        self._written, self._content = written, content = Digest(), Digest()
        super().__init__(store, key, expected, lambda pieces: written.through(_packed(content.through(pieces))))

    def finish(self, columns: Sequence[str]) -> GeneratedData:
        """The object is there, whole and durable. Raises what storage raises."""
        self.end()
        size, sha256, copied = self._written.size, self._written.sha256, self._content.sha256
        return GeneratedData(columns=tuple(columns), bytes=size, sha256=sha256, copy_sha256=copied)


def _packed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(QUICKLY, zlib.DEFLATED, GZIP)
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


class _Lines:
    """Puts lines together. Each piece is copied once, however long a line is."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []
        self.held = 0
        """Bytes of the line that has not ended."""

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that end in the piece, without their ends. Raises `ProofFailed`."""
        first, *others = piece.split(b"\n")
        self._begun.append(first)
        self.held += len(first)
        if self.held > (longest := archived_rows.LONGEST_LINE):
            raise ProofFailed(f"the archive holds a line of more than {longest:,} bytes: no table has such a row")
        if not others:
            return []
        *whole, last = others
        line = b"".join(self._begun)
        self._begun, self.held = [last], len(last)
        return [line, *whole]


def lines(chunks: Iterable[bytes], data: GeneratedData, rows: int) -> Iterator[bytes]:
    """The object's lines, without their ends. Raises as `proven`, and `ProofFailed` where the last has none."""
    reader = _Lines()
    for piece in proven(chunks, data, rows):
        yield from reader.feed(piece)
    if reader.held:
        raise ProofFailed("the last line of the generated values breaks off")


def proven(chunks: Iterable[bytes], data: GeneratedData, rows: int) -> Iterator[bytes]:
    """The object's text piece by piece, however long its lines are. At the end raises `ArchiveDamaged` where the object
    is not what was written, and `ProofFailed` where it does not hold the values that were archived."""
    written, content = Digest(), Digest()
    packed = written.through_at_most(data.bytes, chunks, "the generated values have")
    try:
        for piece in valid_text(content.through_lines(_unpacked(packed)), content, data.columns):
            if content.lines > rows:
                # A few bytes may unpack to any number. The rest of them says whether they are what was written.
                for _ in packed:
                    pass
                break
            yield piece
    except zlib.error as error:
        raise ArchiveDamaged(f"the generated values are no gzip: {error}") from None
    if (written.size, written.sha256) != (data.bytes, data.sha256):
        raise ArchiveDamaged(
            f"the generated values have {written.size} bytes and the sha256 {written.sha256}, but {data.bytes} and "
            f"{data.sha256} were written"
        )
    if (content.lines, content.sha256) != (rows, data.copy_sha256):
        raise ProofFailed(
            f"the generated values were read back: {content.lines} lines of the digest {content.sha256}, archived were "
            f"{rows} of {data.copy_sha256}"
        )


def _unpacked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Piece by piece, however much a chunk unpacks to."""
    unpacker = zlib.decompressobj(GZIP)
    for chunk in chunks:
        rest = chunk
        while rest and not unpacker.eof:
            yield unpacker.decompress(rest, PIECE)
            rest = unpacker.unconsumed_tail
        if unpacker.unused_data or (rest and unpacker.eof):
            raise zlib.error("something stands behind its end")
    while not unpacker.eof and (piece := unpacker.decompress(unpacker.unconsumed_tail, PIECE)):
        yield piece
    if not unpacker.eof:
        raise zlib.error("it breaks off")


def beside(
    rows: Iterable[bytes], values: Iterator[bytes], data: GeneratedData, names: Sequence[str]
) -> Iterator[bytes]:
    """The rows with the values of these columns behind them. Both in COPY's text format, in the same order. Raises
    `ProofFailed` where there are more rows than values, or columns that the object has not."""
    if missing := [name for name in names if name not in data.columns]:
        raise ProofFailed(f"the archive holds no values of the generated column {missing[0]!r}")
    places, reader = [data.columns.index(name) for name in names], _Lines()
    for chunk in rows:
        yield b"".join(_joined(row, values, places) for row in reader.feed(chunk))
    # Read to the end, where it is proven.
    for _ in values:
        raise ProofFailed("the archive holds more generated values than rows")


def _joined(row: bytes, values: Iterator[bytes], places: Sequence[int]) -> bytes:
    if (line := next(values, None)) is None:
        raise ProofFailed("the archive holds fewer generated values than rows")
    parts = line.split(b"\t")
    if len(parts) <= max(places):
        raise ProofFailed("a line of the generated values has too few columns")
    return b"\t".join([row, *(parts[place] for place in places)]) + b"\n"
