"""Periods as people type them, and the entries of spec.ensure that they become."""

from __future__ import annotations

import pytest

from partwarden.api.period import parse_period
from partwarden.api.types import Interval
from partwarden.cli.create import merged
from partwarden.cli.options import known, parse
from partwarden.errors import InvalidSpec
from partwarden.planner.calendar import Grid


@pytest.mark.parametrize("text", ["2027-q4", " 2027-w05 ", "2027-03-09t13", "2027-q1..2027-q2"])
def test_lower_case_is_as_good(text: str) -> None:
    assert parse(text) == parse_period(text.strip().upper())


@pytest.mark.parametrize("text", ["", "27", "2027-13", "2027-W5", "2027-Q5", "next year", "0000", "2027..2027-03"])
def test_what_is_none_is_said(text: str) -> None:
    with pytest.raises(InvalidSpec, match='is no period: it must be a period such as "2031"'):
        parse(text)
    assert known(text) is None


@pytest.mark.parametrize("text", ["2027-02-29", "2027-W53"])
def test_what_the_calendar_does_not_have_is_said(text: str) -> None:
    with pytest.raises(InvalidSpec, match="is no period: it must be in the calendar"):
        parse(text)


def test_another_notation_is_answered_with_ours() -> None:
    with pytest.raises(InvalidSpec, match=r"; did you mean 2024-01\.\.2024-06\?$"):
        parse("2024-01/2024-06")


@pytest.mark.parametrize(
    ("ensure", "text", "interval", "expected"),
    [
        ([], "2024-01..2024-06", Interval.MONTH, ["2024-01..2024-06"]),
        (["2031"], "2024-01..2024-06", Interval.MONTH, ["2031", "2024-01..2024-06"]),
        (["2031", "2024-01"], "2024-02..2024-06", Interval.MONTH, ["2031", "2024-01..2024-06"]),
        (["2024-01", "2024-03"], "2024-02", Interval.MONTH, ["2024-Q1"]),
        (["2024-01..2024-11"], "2024-12", Interval.MONTH, ["2024"]),
        (["2024"], "2024-03", Interval.MONTH, ["2024"]),
        (["2024-01", "2024-02"], "2024-01..2024-02", Interval.MONTH, ["2024-01", "2024-02"]),
        (["2031-06-01"], "2031", Interval.YEAR, ["2031-06-01"]),
        (["2031-06-01"], "2032", Interval.YEAR, ["2031..2032"]),
        (["2031-06-01"], "2032", Interval.MONTH, ["2031-06-01", "2032"]),
        (["2024-05-01T10"], "2024-05-01T11..2024-05-01T12", Interval.HOUR, ["2024-05-01T10..2024-05-01T12"]),
        (["2024-W01"], "2024-W02", Interval.WEEK, ["2024-W01..2024-W02"]),
    ],
)
def test_a_period_becomes_one_entry(ensure: list[str], text: str, interval: Interval, expected: list[str]) -> None:
    found = merged(ensure, parse(text), interval)
    assert found == expected
    grid = Grid(interval, None)
    held = {cell for each in found for cell in grid.holding(parse_period(each))}
    assert held == {cell for each in [*ensure, text] for cell in grid.holding(parse_period(each))}


@pytest.mark.parametrize(("ensure", "text"), [("1000", "1000-W01"), ("8999-12-31", "8999-12-30"), ("8999", "8998")])
def test_at_the_ends_of_the_calendar_a_period_is_joined_or_added(ensure: str, text: str) -> None:
    grid = Grid(Interval.DAY, None)
    held = {cell for each in merged([ensure], parse(text), Interval.DAY) for cell in grid.holding(parse_period(each))}
    assert held == {cell for each in (ensure, text) for cell in grid.holding(parse_period(each))}


def test_what_the_operator_would_refuse_is_not_written() -> None:
    with pytest.raises(InvalidSpec, match=r"cannot add 2026 to spec\.ensure: .* asks for 1,096 partitions by Day"):
        merged(["2024", "2025"], parse("2026"), Interval.DAY)
    assert merged(["2025", "2031"], parse("2026-01"), Interval.DAY) == ["2031", "2025-01..2026-01"]


def test_too_many_at_once_are_refused() -> None:
    with pytest.raises(InvalidSpec, match=r"2024\.\.2027 holds more than 1,000 partitions by Day: ask for less"):
        merged([], parse("2024..2027"), Interval.DAY)
