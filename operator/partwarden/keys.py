"""How the partition key says when: values of the key <-> moments.

A UUIDv7 begins with 48 bits of Unix milliseconds (RFC 9562, section 5.7); what follows is version, variant and chance.
So the smallest key of a millisecond has nothing but zeros there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from .errors import KeyOutOfRange
from .interval import iso
from .inventory import KeyType
from .lifecycle import KeyEncoding

FLOOR, CEILING = datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 1, 1, tzinfo=UTC)
"""The calendar here has the years 1 to 9999. What lies outside counts as unbounded: nobody plans there."""

TYPES: Mapping[KeyEncoding, tuple[KeyType, ...]] = {
    KeyEncoding.NATIVE: (KeyType.DATE, KeyType.TIMESTAMP, KeyType.TIMESTAMPTZ),
    KeyEncoding.UUID_V7: (KeyType.UUID,),
    KeyEncoding.EPOCH_SECONDS: (KeyType.BIGINT, KeyType.INTEGER),
    KeyEncoding.EPOCH_MILLISECONDS: (KeyType.BIGINT,),
}
"""Columns that can hold each encoding. An integer of milliseconds would end in January 1970."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TICKS: Mapping[KeyEncoding, timedelta] = {
    KeyEncoding.UUID_V7: timedelta(milliseconds=1),
    KeyEncoding.EPOCH_SECONDS: timedelta(seconds=1),
    KeyEncoding.EPOCH_MILLISECONDS: timedelta(milliseconds=1),
}
LIMITS: Mapping[KeyType, tuple[int, int]] = {
    KeyType.UUID: (0, 2**48 - 1),
    KeyType.INTEGER: (-(2**31), 2**31 - 1),
    KeyType.BIGINT: (-(2**63), 2**63 - 1),
}
"""Ticks that fit, both included."""

CHANCE = 80
"""Bits of a UUIDv7 behind its milliseconds."""
LOWEST_VALID = 0x7000_8000_0000_0000_0000
"""The lowest that a UUIDv7 has there: version 7, variant 2. Some write this into bounds, some zeros: it is the same."""


class Bounds(NamedTuple):
    """The bounds of a partition as PostgreSQL takes them: texts of literals, lower included, upper excluded."""

    lower: str
    upper: str


@dataclass(frozen=True, slots=True)
class Codec:
    """One type of key in one encoding; `TYPES` says which go together."""

    type: KeyType
    encoding: KeyEncoding = KeyEncoding.NATIVE

    @classmethod
    def find(cls, type_name: str, encoding: KeyEncoding) -> Codec | None:
        """That of a column, its type as ``format_type`` spells it; None where it cannot hold the encoding."""
        return next((cls(each, encoding) for each in TYPES[encoding] if each == type_name), None)

    @property
    def aware(self) -> bool:
        """Whether moments of this key are aware and in UTC; those of ``timestamp`` and ``date`` are naive."""
        return self.type not in (KeyType.TIMESTAMP, KeyType.DATE)

    @property
    def floor(self) -> datetime:
        """`FLOOR` in the key's domain."""
        return FLOOR if self.aware else FLOOR.replace(tzinfo=None)

    @property
    def ceiling(self) -> datetime:
        """`CEILING` in the key's domain."""
        return CEILING if self.aware else CEILING.replace(tzinfo=None)

    def literal(self, moment: datetime) -> str:
        """The smallest value of the key at or after ``moment``, as the text of a literal. Raises `KeyOutOfRange`."""
        if self.encoding is KeyEncoding.NATIVE:
            text = iso(moment)
            assert text is not None
            return text
        ticks = -((EPOCH - moment) // TICKS[self.encoding])
        lowest, highest = LIMITS[self.type]
        if not lowest <= ticks <= highest:
            raise KeyOutOfRange(
                f"a key of type {self.type} in {self.encoding} cannot be {iso(moment)}, it reaches from "
                f"{self._limit(lowest)} to {self._limit(highest)}: leave out dates beyond that in spec.startFrom and "
                "spec.ensure, and make the last partition by hand, TO (MAXVALUE)"
            )
        if self.encoding is not KeyEncoding.UUID_V7:
            return str(ticks)
        digits = f"{ticks << CHANCE:032x}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def moment(self, value: str) -> datetime:
        """The moment of a value as PostgreSQL writes it; `floor` or `ceiling` for what lies outside the calendar.

        Where some keys of a UUID's millisecond are lower than it, it lies some microseconds later, so that it is never
        taken for a boundary of the calendar. Raises ValueError.
        """
        if self.encoding is KeyEncoding.NATIVE:
            return self._native(value)
        tick, late = TICKS[self.encoding], timedelta(0)
        if self.encoding is KeyEncoding.UUID_V7:
            ticks, rest = divmod(int(value.replace("-", ""), 16), 1 << CHANCE)
            if rest > LOWEST_VALID:
                late = timedelta(microseconds=1 + (rest * 999 >> CHANCE))
        else:
            ticks = int(value)
        if ticks <= (FLOOR - EPOCH) // tick:
            return FLOOR
        return CEILING if ticks >= (CEILING - EPOCH) // tick else EPOCH + ticks * tick + late

    def _native(self, value: str) -> datetime:
        if value[4:5] == "-" and not value.endswith(" BC"):
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC) if self.aware else moment
        if value == "-infinity" or value.endswith(" BC"):
            return self.floor
        if value == "infinity" or re.match(r"\d{5,}-", value):
            return self.ceiling
        raise ValueError(f"not a {self.type}: {value}")

    def _limit(self, ticks: int) -> str:
        moment = self.moment(f"{ticks << CHANCE:032x}" if self.encoding is KeyEncoding.UUID_V7 else str(ticks))
        return iso(moment) or ""
