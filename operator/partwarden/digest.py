"""SHA-256 and size of what passes by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Digest:
    """SHA-256 and length of what was fed to it, and the lines in it."""

    lines: int = 0
    size: int = 0
    _hash: Any = field(default_factory=hashlib.sha256)

    def update(self, chunk: bytes | memoryview) -> None:
        """Feed the next piece."""
        self._hash.update(chunk)
        self.size += len(chunk)

    def update_rows(self, chunk: bytes) -> None:
        """The same, of what is rows in COPY's text format: one a line."""
        self.update(chunk)
        self.lines += chunk.count(b"\n")

    @property
    def sha256(self) -> str:
        """Lower case hexadecimal digits, of what was fed so far."""
        return str(self._hash.hexdigest())
