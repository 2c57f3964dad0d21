"""The bytes of a Parquet object, compared with what was written: what needs no pyarrow."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ...errors import ArchiveDamaged
from ..archived_rows import Digest
from ..manifest import ParquetData

AHEAD = 64 << 10
"""Bytes at a file's end that pyarrow reads first, however short the footer is."""

Opener = Callable[[], Iterable[bytes]]
"""Begins to read the object anew."""


def check_bytes(open_: Opener, data: ParquetData, url: str) -> bytes:
    """Compare the object's bytes with what was written, and return its end, footer included. Raises `ArchiveDamaged`,
    and what reading raises."""
    written, tail = Digest(), bytearray()
    for chunk in written.through_at_most(data.bytes, open_(), f"{url} was changed: it has"):
        tail += chunk
        del tail[: -(data.footer + AHEAD)]
    if (written.size, written.sha256) != (data.bytes, data.sha256):
        raise ArchiveDamaged(
            f"{url} was changed: it has {written.size} bytes of the sha256 {written.sha256}, but {data.bytes} of "
            f"{data.sha256} were written"
        )
    return bytes(tail)
