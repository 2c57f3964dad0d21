"""PostgreSQL's text of bounds, read into ranges."""

from datetime import UTC, datetime

import pytest

from partwarden.planner.calendar import Range
from partwarden.planner.keys import Codec, KeyType, parse_bounds
from support.values import moment, naive

TSTZ, TS, DATE = (Codec(each) for each in (KeyType.TIMESTAMPTZ, KeyType.TIMESTAMP, KeyType.DATE))


@pytest.mark.parametrize(
    ("text", "codec", "lower", "upper"),
    [
        (
            "FROM ('2026-01-01 00:00:00+00') TO ('2027-01-01 00:00:00+00')",
            TSTZ,
            moment("2026-01-01"),
            moment("2027-01-01"),
        ),
        (
            "FROM ('2026-03-28 23:00:00+00') TO ('2026-03-29 22:00:00.000001+00')",
            TSTZ,
            moment("2026-03-28T23:00"),
            moment("2026-03-29T22:00:00.000001"),
        ),
        (
            "FROM ('2026-01-01 00:00:00.5+00') TO ('2026-01-01 00:00:00.500001+00')",
            TSTZ,
            moment("2026-01-01T00:00:00.500000"),
            moment("2026-01-01T00:00:00.500001"),
        ),
        (
            "FROM ('2026-01-01 00:00:00') TO ('2026-12-31 23:59:59.999999')",
            TS,
            naive("2026-01-01"),
            naive("2026-12-31T23:59:59.999999"),
        ),
        ("FROM ('2024-02-29') TO ('2024-03-01')", DATE, naive("2024-02-29"), naive("2024-03-01")),
        ("FROM ('0044-03-15') TO ('0999-01-01')", DATE, naive("0044-03-15"), naive("0999-01-01")),
    ],
)
def test_bounds_are_exact(text: str, codec: Codec, lower: datetime, upper: datetime) -> None:
    assert parse_bounds(f"FOR VALUES {text}", codec) == Range(lower, upper)


def test_default_has_no_range() -> None:
    assert parse_bounds("DEFAULT", TSTZ) is None


@pytest.mark.parametrize(
    "lowest", ["MINVALUE", "'-infinity'", "'0044-03-15 BC'", "'4713-01-01 BC'", "'0001-01-01'", "'0001-12-31'"]
)
def test_what_lies_before_the_calendar_is_unbounded_below(lowest: str) -> None:
    assert parse_bounds(f"FOR VALUES FROM ({lowest}) TO ('2026-01-01')", DATE) == Range(None, naive("2026-01-01"))


@pytest.mark.parametrize(
    "highest", ["MAXVALUE", "'infinity'", "'10000-01-01'", "'294276-12-31'", "'5874897-12-31'", "'9999-12-31'"]
)
def test_what_lies_behind_the_calendar_is_unbounded_above(highest: str) -> None:
    assert parse_bounds(f"FOR VALUES FROM ('2026-01-01') TO ({highest})", DATE) == Range(naive("2026-01-01"), None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM (MINVALUE) TO (MAXVALUE)", Range(None, None)),
        ("FROM ('-infinity') TO ('infinity')", Range(None, None)),
        (
            "FROM ('0044-03-15 00:00:00+00 BC') TO ('2026-01-01 00:00:00+00')",
            Range(None, datetime(2026, 1, 1, tzinfo=UTC)),
        ),
        (
            "FROM ('2026-01-01 00:00:00+00') TO ('10000-01-01 00:00:00+00')",
            Range(datetime(2026, 1, 1, tzinfo=UTC), None),
        ),
    ],
)
def test_moments_with_a_zone_have_the_same_ends(text: str, expected: Range) -> None:
    assert parse_bounds(f"FOR VALUES {text}", TSTZ) == expected


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("FROM (MINVALUE) TO ('-infinity')", "0001-06-01"),
        ("FROM (MINVALUE) TO ('0044-03-15 BC')", "0001-06-01"),
        ("FROM ('infinity') TO (MAXVALUE)", "9999-06-01"),
        ("FROM ('10000-01-01') TO ('20000-01-01')", "9999-06-01"),
    ],
)
def test_what_lies_wholly_outside_the_calendar_covers_no_planned_range(text: str, held: str) -> None:
    found = parse_bounds(f"FOR VALUES {text}", DATE)
    assert found is not None
    assert found.contains(naive(held))
    assert not any(found.contains(naive(f"{year:04}-01-01")) for year in (2, 1000, 2026, 9997))


@pytest.mark.parametrize("text", ["FOR VALUES IN ('a')", "FOR VALUES WITH (modulus 4, remainder 0)", "", "nonsense"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the bounds of a RANGE partition"):
        parse_bounds(text, DATE)
