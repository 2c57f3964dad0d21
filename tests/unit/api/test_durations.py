"""What is written instead of a duration or an age: an answer means what was written, or there is none."""

from __future__ import annotations

from datetime import timedelta

import pytest

from partwarden.api.retention import Retention
from partwarden.api.types import parse_age, parse_duration
from partwarden.api.validation import check

UNITS = {"hours": ("h", 3600), "minutes": ("m", 60), "seconds": ("s", 1), "days": ("d", 86400), "weeks": ("w", 604800)}


def advice(**fields: str) -> str:
    """What follows ``write`` in the only problem of a retention."""
    _, (problem,) = check(Retention, {"keepFor": "5y", **fields})
    return problem.partition("; write ")[2]


@pytest.mark.parametrize("unit", [*UNITS, *(unit.upper() for unit in UNITS)])
@pytest.mark.parametrize("text", ["{0} {1}", "{0}{1}", " {0}  {1} ", "00{0} {1}"])
@pytest.mark.parametrize("count", [1, 7, 90])
def test_a_grace_in_words_is_as_long(unit: str, text: str, count: int) -> None:
    seconds = UNITS[unit.lower()][1]
    assert parse_duration(advice(grace=text.format(count, unit))) == timedelta(seconds=count * seconds)


@pytest.mark.parametrize(("word", "unit"), [*((each, UNITS[each][0]) for each in ("hours", "days", "weeks"))])
def test_an_age_in_words_keeps_its_unit(word: str, unit: str) -> None:
    assert parse_age(advice(keepFor=f"30 {word}")) == (30, unit)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1 year 6 months", "18mo"),
        ("2 years and 12 months", "3y"),
        ("P1Y6M", "18mo"),
        ("P30D", "30d"),
        ("PT36H", "36h"),
        ("1.5 years", "18mo"),
        ("1w2d", "9d"),
        ("05y", "5y"),
        ("18m", "18mo for months"),
        # A month has no certain number of days, and nothing says what the others are.
        ("1 year 3 days", ""),
        ("30 minutes", ""),
        ("1.5", ""),
        ("30", ""),
        ("-1d", ""),
        ("0 days", ""),
        ("100000 days", ""),
        ("a while", ""),
        ("", ""),
    ],
)
def test_an_age_is_answered_where_it_can_be_understood(written: str, meant: str) -> None:
    assert advice(keepFor=written) == meant


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1h 30m", "1h30m"),
        ("1 hour and 30 minutes", "1h30m"),
        ("PT1H30M", "1h30m"),
        ("1m1h", "1h1m"),
        ("1.5h", "1h30m"),
        ("0 days", "0s"),
        ("1d12h", "36h"),
        ("1 month", ""),
        ("10000ms", ""),
        ("100000s", ""),
        ("0", ""),
        ("-10m", ""),
    ],
)
def test_a_grace_is_answered_where_it_can_be_understood(written: str, meant: str) -> None:
    assert advice(grace=written) == meant


def test_a_number_is_answered_with_what_a_text_is_like() -> None:
    _, problems = check(Retention, {"keepFor": 30})
    assert problems == [
        "keepFor: must be a string, found 30; write an age like 90d, 18mo or 5y: a whole number of h, d, w, mo or y"
    ]
