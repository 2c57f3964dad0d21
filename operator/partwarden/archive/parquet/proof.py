"""Read a Parquet object back and prove it: the bytes that were written, and in them the very rows of the snapshot.

The object is read in one direction, as from any destination, and twice: first all of its bytes are compared, so that
nothing is parsed which is not what the manifest says was written, and its footer is kept; then row group by row group
is handed to pyarrow, and each value rendered as COPY writes it. The digest of these rows must be that of the rows which
the server gave. In the second reading the bytes are compared again: those that were parsed are the ones that count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import ArchiveDamaged, ProofFailed
from ..manifest import ParquetData
from . import values
from .digest import Opener, check_bytes

BATCH = 8 << 20
"""Bytes of rows, as COPY writes them, that are rendered at once, if they are about equally long."""
MOST_ROWS = 1 << 16
"""Of these."""
LARGEST_GROUP = 2 << 30
"""Bytes of a row group that is read: one row of the longest that PostgreSQL gives, and what comes before it."""
BUFFER = 1 << 20


def prove(open_: Opener, data: ParquetData, rows: int, url: str) -> None:
    """Compare bytes and values. Raises `ArchiveDamaged` where the bytes are not those that were written, `ProofFailed`
    where they do not hold the rows, and what reading raises."""
    end = check_bytes(open_, data, url)
    try:
        _prove_values(open_, data, end, rows, url)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ProofFailed(f"cannot read {url}: {str(error).splitlines()[0][:300]}") from None


def _prove_values(open_: Opener, data: ParquetData, end: bytes, rows: int, url: str) -> None:
    window = Window(data.bytes, end)
    file = pq.ParquetFile(window, buffer_size=BUFFER, pre_buffer=False, page_checksum_verification=True)
    schema = [(field.name, str(field.type)) for field in file.schema_arrow]
    if schema != [(column.name, column.type) for column in data.columns]:
        raise ProofFailed(f"{url} has other columns than its manifest says")
    if file.metadata.num_rows != rows:
        raise ProofFailed(f"{url} holds {file.metadata.num_rows} rows, not {rows}")
    at_once = max(1, min(MOST_ROWS, rows * BATCH // max(1, data.copy_bytes)))
    content, bytes_read = hashlib.sha256(), hashlib.sha256()
    chunks = _Stream(open_(), bytes_read)
    for number, (start, until) in enumerate(_groups(file.metadata, data.bytes - data.footer, url)):
        window.hold(start, chunks.take(start, until))
        for batch in file.iter_batches(batch_size=at_once, row_groups=[number], use_threads=False):
            content.update(values.render_rows(batch))
    chunks.finish()
    if bytes_read.hexdigest() != data.sha256:
        raise ArchiveDamaged(f"{url} was changed while it was read")
    if content.hexdigest() != data.copy_sha256:
        raise ProofFailed(
            f"{url} was read back, and the digest of its rows is {content.hexdigest()}, not {data.copy_sha256}"
        )


def _groups(metadata: Any, end: int, url: str) -> Iterator[tuple[int, int]]:
    """Where each row group begins and ends in the object. Raises `ProofFailed` where they do not follow each other."""
    starts = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(each) for each in range(group.num_columns)]
        starts.append(min(_start(column) for column in columns))
    last = 0
    for start, until in pairwise([*starts, end]):
        if not last <= start < until <= end or until - start > LARGEST_GROUP:
            raise ProofFailed(f"{url} has a row group from byte {start} to {until}, which cannot be")
        last = until
        yield start, until


def _start(column: Any) -> int:
    """A dictionary stands before the pages that use it."""
    return int(column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset)


class _Stream:
    """Bytes that come in one direction, taken by their positions."""

    def __init__(self, chunks: Iterable[bytes], digest: Any) -> None:
        self._chunks, self._digest = iter(chunks), digest
        self._at = 0
        self._left = b""

    def take(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` on, up to ``end``; what comes before them is dropped. Fewer where they end."""
        self._take(start - self._at)
        return self._take(end - start)

    def finish(self) -> None:
        """Read the rest."""
        self._left = b""
        for chunk in self._chunks:
            self._digest.update(chunk)

    def _take(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            if not self._left:
                chunk = next(self._chunks, None)
                if chunk is None:
                    break
                self._digest.update(chunk)
                self._left = chunk
            missing = size - len(found)
            found += self._left[:missing]
            self._left = self._left[missing:]
        self._at += len(found)
        return bytes(found)


class Window:
    """A file to be read of which two parts are in memory: its end, and what `hold` was given last."""

    def __init__(self, size: int, end: bytes) -> None:
        self._size, self._position = size, 0
        self._end = (size - len(end), end)
        self._held: tuple[int, bytes] = (0, b"")
        self.closed = False

    def hold(self, start: int, content: bytes) -> None:
        """Have these bytes, which begin at ``start``, instead of those from before."""
        self._held = (start, content)

    def read(self, size: int = -1) -> bytes:
        """Raises ValueError for bytes that are not in memory."""
        until = self._size if size < 0 else min(self._size, self._position + size)
        for start, content in (self._held, self._end):
            if start <= self._position and until <= start + len(content):
                found = content[self._position - start : until - start]
                self._position = until
                return found
        raise ValueError(f"its metadata leads to bytes {self._position} to {until}, which cannot be")

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of any file."""
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def tell(self) -> int:
        """As of any file."""
        return self._position

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def close(self) -> None:
        """Let go of what is held."""
        self.closed = True
        self._held = (0, b"")
