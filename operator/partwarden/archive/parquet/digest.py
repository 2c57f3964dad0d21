"""The bytes of a Parquet object, compared with what was written: what needs no pyarrow."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from ...errors import ArchiveDamaged
from ..manifest import ParquetData

AHEAD = 64 << 10
"""Bytes at a file's end that pyarrow reads first, however short the footer is."""

Opener = Callable[[], Iterable[bytes]]
"""Begins to read the object anew."""


def check_bytes(open_: Opener, data: ParquetData, url: str) -> bytes:
    """Compare the object's bytes with what was written, and return its end, footer included. Raises `ArchiveDamaged`,
    and what reading raises."""
    digest, size, tail = hashlib.sha256(), 0, bytearray()
    for chunk in open_():
        digest.update(chunk)
        size += len(chunk)
        if size > data.bytes:
            raise ArchiveDamaged(f"{url} was changed: it has more than the {data.bytes} bytes that were written")
        tail += chunk
        del tail[: -(data.footer + AHEAD)]
    if (size, digest.hexdigest()) != (data.bytes, data.sha256):
        raise ArchiveDamaged(
            f"{url} was changed: it has {size} bytes of the sha256 {digest.hexdigest()}, but {data.bytes} of "
            f"{data.sha256} were written"
        )
    return bytes(tail)
