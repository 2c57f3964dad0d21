"""How the partition key says when: values of the key <-> moments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from .interval import iso
from .inventory import KeyType
from .lifecycle import KeyEncoding


class Bounds(NamedTuple):
    """The bounds of a partition as PostgreSQL takes them: texts of literals, lower included, upper excluded."""

    lower: str
    upper: str


@dataclass(frozen=True, slots=True)
class Codec:
    """One type of key in one encoding."""

    type: KeyType
    encoding: KeyEncoding = KeyEncoding.NATIVE

    @property
    def aware(self) -> bool:
        """Whether moments of this key are aware and in UTC; those of ``timestamp`` and ``date`` are naive."""
        return self.type is KeyType.TIMESTAMPTZ

    def literal(self, moment: datetime) -> str:
        """The smallest value of the key at ``moment``, as the text of a literal."""
        text = iso(moment)
        assert text is not None
        return text
