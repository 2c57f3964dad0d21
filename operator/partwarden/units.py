"""Units in which a whole number can say when, and those that the bounds of partitions fit.

A number alone tells no unit. But bounds are moments of years not far from ours, and the years 1973 to 2099 in one unit
are other numbers than in any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime

from .lifecycle import KeyEncoding

YEARS = range(1973, 2100)
"""Years in which bounds are expected."""
FIRST, LAST = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (YEARS.start, YEARS.stop))
HIGHEST = frozenset({2**31 - 1, 2**63 - 1})
"""Bounds that mean "no end", as 0 and what is below it mean "no beginning": they fit every unit."""
NUMBER = re.compile(r"\('?(-?\d+)'?\)")


@dataclass(frozen=True, slots=True)
class Unit:
    """``name`` for a message; ``encoding`` None where Partwarden does not manage keys of this unit."""

    name: str
    fits: Callable[[int], bool]
    encoding: KeyEncoding | None = None


def _since_1970(per_second: int) -> Callable[[int], bool]:
    return lambda value: FIRST * per_second <= value <= LAST * per_second


def _digits(count: int) -> Callable[[int], bool]:
    def fits(value: int) -> bool:
        text = str(value)
        if len(text) != count:
            return False
        with suppress(ValueError):
            return date(int(text[:4]), int(text[4:6] or 1), int(text[6:8] or 1)).year in YEARS
        return False

    return fits


UNITS = (
    Unit("seconds since 1970", _since_1970(1), KeyEncoding.EPOCH_SECONDS),
    Unit("milliseconds since 1970", _since_1970(10**3), KeyEncoding.EPOCH_MILLISECONDS),
    Unit("microseconds since 1970", _since_1970(10**6)),
    Unit("nanoseconds since 1970", _since_1970(10**9)),
    Unit("dates written as YYYYMMDD", _digits(8)),
    Unit("months written as YYYYMM", _digits(6)),
    Unit("years", _digits(4)),
)


def numbers(bounds: Iterable[str]) -> list[int]:
    """The whole numbers in PostgreSQL's texts of bounds that tell a unit: neither MINVALUE nor 0, nor the highest."""
    found = [int(each) for text in bounds for each in NUMBER.findall(text)]
    return [each for each in found if each > 0 and each not in HIGHEST]


def fitting(values: Iterable[int]) -> Unit | None:
    """The unit that all of them fit; None where there are no values, or none fits."""
    known = list(values)
    return next((unit for unit in UNITS if known and all(unit.fits(each) for each in known)), None)


def unit_of(encoding: KeyEncoding) -> Unit | None:
    """That of an encoding; None where it has none, as a native key."""
    return next((unit for unit in UNITS if unit.encoding is encoding), None)
