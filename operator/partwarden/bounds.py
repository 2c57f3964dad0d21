"""PostgreSQL's text of partition bounds -> ranges, and what new neighbours must write to meet them.

Read under ``DateStyle ISO`` and ``TimeZone UTC``; other settings would give other texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from .interval import Range
from .inventory import Partition
from .keys import Bounds, Codec
from .lifecycle import KeyEncoding

TEXT = re.compile(r"FOR VALUES FROM \((.+)\) TO \((.+)\)", re.DOTALL)


def parse_bounds(text: str, codec: Codec) -> Range | None:
    """``FOR VALUES FROM (…) TO (…)`` as a range in the key's domain; ``DEFAULT`` as None. Raises ValueError.

    A range whose ends lie within one millisecond of a UUID may be empty.
    """
    if text == "DEFAULT":
        return None
    floor, ceiling = codec.floor, codec.ceiling
    lower, upper = (_moment(value, codec) for value in _values(text))
    return Range(
        None if lower <= floor else min(lower, ceiling),
        None if upper >= ceiling else max(upper, floor),
    )


def literals(text: str) -> Bounds:
    """The two values in ``FOR VALUES FROM (…) TO (…)``. Raises ValueError."""
    return Bounds(*_values(text))


def _values(text: str) -> tuple[str, str]:
    if not (match := TEXT.fullmatch(text)):
        raise ValueError(f"not the bounds of a RANGE partition: {text}")
    lower, upper = match.groups()
    return lower.strip("'"), upper.strip("'")


def _moment(value: str, codec: Codec) -> datetime:
    if value == "MINVALUE":
        return codec.floor
    return codec.ceiling if value == "MAXVALUE" else codec.moment(value)


@dataclass(frozen=True, slots=True)
class Edges:
    """What to write as bounds of a new partition, so that it meets its neighbours to the last bit.

    Only a UUID says more than its moment. Whoever made a partition may have put anything behind the milliseconds of its
    bounds: a neighbour that wrote zeros there would overlap it, or leave a gap.
    """

    codec: Codec
    lowers: dict[datetime, str] = field(default_factory=dict)
    """Where existing partitions begin, and the lowest literal that stands there."""
    uppers: dict[datetime, str] = field(default_factory=dict)
    """Where they end, and the highest literal that stands there."""

    @classmethod
    def of(cls, codec: Codec, partitions: Iterable[Partition]) -> Edges:
        """Those of the partitions, in the key's domain."""
        edges = cls(codec)
        if codec.encoding is not KeyEncoding.UUID_V7:
            return edges
        for each in partitions:
            if each.range is None:
                continue
            lower, upper = _values(each.bounds)
            # The texts of two UUIDs are ordered as they are.
            if each.range.lower is not None:
                edges.lowers[each.range.lower] = min(lower, edges.lowers.get(each.range.lower, lower))
            if each.range.upper is not None:
                edges.uppers[each.range.upper] = max(upper, edges.uppers.get(each.range.upper, upper))
        return edges

    def bounds(self, lower: datetime, upper: datetime) -> Bounds:
        """Those of a partition for ``[lower, upper)``, of which nothing is held yet. Raises `KeyOutOfRange`."""
        return Bounds(
            self.uppers.get(lower) or self.codec.literal(lower),
            self.lowers.get(upper) or self.codec.literal(upper),
        )
