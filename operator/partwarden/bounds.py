"""PostgreSQL's text of partition bounds -> ranges.

Read under ``DateStyle ISO`` and ``TimeZone UTC``; other settings would give other texts.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from .interval import Range
from .inventory import KeyType

FLOOR, CEILING = datetime(2, 1, 1), datetime(9998, 1, 1)  # noqa: DTZ001 - the key's zone is put in below
"""The calendar here has the years 1 to 9999. What lies outside counts as unbounded: nobody plans there."""

TEXT = re.compile(r"FOR VALUES FROM \((.+)\) TO \((.+)\)", re.DOTALL)


def parse_bounds(text: str, key_type: KeyType) -> Range | None:
    """``FOR VALUES FROM (…) TO (…)`` as a range in the key's domain; ``DEFAULT`` as None. Raises ValueError."""
    if text == "DEFAULT":
        return None
    if not (match := TEXT.fullmatch(text)):
        raise ValueError(f"not the bounds of a RANGE partition: {text}")
    zone = UTC if key_type is KeyType.TIMESTAMPTZ else None
    floor, ceiling = FLOOR.replace(tzinfo=zone), CEILING.replace(tzinfo=zone)
    lower, upper = (_parse(part, floor, ceiling) for part in match.groups())
    return Range(
        None if lower <= floor else min(lower, ceiling),
        None if upper >= ceiling else max(upper, floor),
    )


def _parse(text: str, floor: datetime, ceiling: datetime) -> datetime:
    value = text.strip("'")
    if text == "MINVALUE" or value == "-infinity" or value.endswith(" BC"):
        return floor
    if text == "MAXVALUE" or value == "infinity" or re.match(r"\d{5,}", value):
        return ceiling
    moment = datetime.fromisoformat(value)
    return moment if floor.tzinfo is None else moment.astimezone(UTC)
