"""How moments are written for people, in one table."""

from __future__ import annotations

import pytest

from partwarden.cli.formats import Dates


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize(
    ("bound", "shown"),
    [
        ("9999-12-31", "9999-12-31T00:00:00"),
        ("9999-12-31T00:00:00Z", "9999-12-31T00:00:00Z"),
        ("9999-12-31T23:00:00-05:00", "9999-12-31T23:00:00-05:00"),
        ("soon", "soon"),
    ],
)
def test_what_is_no_day_of_the_calendar_is_no_date(zone: str, bound: str, shown: str) -> None:
    dates = Dates.of(zone, [bound])
    assert dates.days is None
    assert dates.show(bound) == shown


def test_bounds_that_begin_days_are_dates() -> None:
    dates = Dates.of("Europe/Berlin", ["2025-12-31T23:00:00Z", None])
    assert dates.span("2025-12-31T23:00:00Z", None) == "[2026-01-01, MAXVALUE)"
