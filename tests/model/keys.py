"""Kinds of partition keys: how a moment is written, and what the bounds of a partition say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BOUNDS = re.compile(r"FOR VALUES FROM \((?P<lower>.+)\) TO \((?P<upper>.+)\)")


@dataclass(frozen=True)
class Kind:
    """``encoding`` is the policy's keyEncoding; ``zoned``: whether a value is an instant, not what a clock shows."""

    type: str
    encoding: str = "Native"
    zoned: bool = True

    def literal(self, moment: datetime, rest: int = 0) -> str:
        """SQL text of the value at a moment, in UTC where the key has no zone. ``rest``: what else a uuid holds."""
        if self.type == "bigint":
            return str((moment - EPOCH) // timedelta(milliseconds=1))
        if self.type == "uuid":
            head = (moment - EPOCH) // timedelta(milliseconds=1)
            return f"'{UUID(int=head << 80 | (0x7 << 76 | rest if rest else 0))}'"
        if self.type == "date":
            return f"'{moment.date().isoformat()}'"
        return f"'{moment.strftime('%Y-%m-%d %H:%M:%S')}{'+00' if self.zoned else ''}'"

    def moment(self, text: str) -> datetime | None:
        """The moment that a bound, or a value, says: aware where ``zoned``; None where it is no moment."""
        text = text.strip("'")
        if text in ("MINVALUE", "MAXVALUE", "infinity", "-infinity"):
            return None
        if self.type == "bigint":
            return EPOCH + timedelta(milliseconds=int(text))
        if self.type == "uuid":
            return EPOCH + timedelta(milliseconds=UUID(text).int >> 80)
        if self.type == "date":
            return datetime.combine(date.fromisoformat(text), datetime.min.time())
        return datetime.fromisoformat(text)

    def bounds(self, text: str | None) -> tuple[datetime | None, datetime | None] | None:
        """What PostgreSQL's text of the bounds says; None for DEFAULT, and for what is no partition."""
        found = BOUNDS.fullmatch(text or "")
        return (self.moment(found["lower"]), self.moment(found["upper"])) if found else None


KINDS = (
    Kind("timestamptz"),
    Kind("timestamptz"),
    Kind("timestamp", zoned=False),
    Kind("date", zoned=False),
    Kind("bigint", "EpochMilliseconds"),
    Kind("uuid", "UUIDv7"),
)
