"""Periods as people type them, and the partitions that they mean."""

from __future__ import annotations

from datetime import datetime

import pytest

from partwarden.api.types import Interval
from partwarden.cli.options import days, parse
from partwarden.errors import InvalidSpec


@pytest.mark.parametrize(
    ("text", "first", "beyond"),
    [
        ("2027", "2027-01-01", "2028-01-01"),
        ("2027-Q1", "2027-01-01", "2027-04-01"),
        ("2027-q4", "2027-10-01", "2028-01-01"),
        ("2027-03", "2027-03-01", "2027-04-01"),
        ("2027-12", "2027-12-01", "2028-01-01"),
        ("2026-W53", "2026-12-28", "2027-01-04"),
        ("2028-02-29", "2028-02-29", "2028-03-01"),
    ],
)
def test_what_a_period_is(text: str, first: str, beyond: str) -> None:
    found = parse(text)
    assert (found.first, found.beyond) == (datetime.fromisoformat(first), datetime.fromisoformat(beyond))


@pytest.mark.parametrize(
    "text", ["", "27", "2027-13", "2027-02-29", "2027-W54", "2027-W5", "2027-Q5", "next year", "0000"]
)
def test_what_is_none_is_said(text: str) -> None:
    with pytest.raises(InvalidSpec, match="is no period: it must be a year like 2027"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "interval", "expected"),
    [
        ("2027", Interval.YEAR, ["2027-01-01"]),
        ("2027-03-09", Interval.YEAR, ["2027-03-09"]),
        ("2027", Interval.QUARTER, ["2027-01-01", "2027-04-01", "2027-07-01", "2027-10-01"]),
        ("2027-03", Interval.MONTH, ["2027-03-01"]),
        ("2027-W05", Interval.WEEK, ["2027-02-01"]),
        ("2027-02-01", Interval.DAY, ["2027-02-01"]),
        ("2027-W05", Interval.MONTH, ["2027-02-01"]),
        ("2026-W53", Interval.YEAR, ["2026-12-28", "2027-01-01"]),
    ],
)
def test_a_day_of_each_partition(text: str, interval: Interval, expected: list[str]) -> None:
    assert days(parse(text), interval) == expected


def test_too_many_at_once_are_refused() -> None:
    with pytest.raises(InvalidSpec, match="2027 holds more than 100 partitions by Day"):
        days(parse("2027"), Interval.DAY)
    with pytest.raises(InvalidSpec, match="partwarden auto"):
        days(parse("2027-03-09"), Interval.HOUR)
