"""Times of day at which upkeep may begin, over midnight and over changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partwarden.planner.calendar import is_open, next_opening

BERLIN = ZoneInfo("Europe/Berlin")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")
MINUTE = timedelta(minutes=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("window", "moment", "expected"),
    [
        (None, "2026-06-15T12:00", True),
        ("01:00-05:00", "2026-06-15T00:59:59", False),
        ("01:00-05:00", "2026-06-15T01:00", True),
        ("01:00-05:00", "2026-06-15T04:59:59.999999", True),
        ("01:00-05:00", "2026-06-15T05:00", False),
        ("22:30-04:00", "2026-06-15T22:30", True),
        ("22:30-04:00", "2026-06-15T00:00", True),
        ("22:30-04:00", "2026-06-15T03:59", True),
        ("22:30-04:00", "2026-06-15T04:00", False),
        ("22:30-00:00", "2026-06-15T23:59", True),
        ("22:30-00:00", "2026-06-15T00:00", False),
    ],
)
def test_the_first_minute_belongs_to_a_window_and_its_end_does_not(
    window: str | None, moment: str, expected: bool
) -> None:
    assert is_open(window, ZoneInfo("UTC"), at(moment)) is expected


def test_the_clock_is_that_of_the_zone() -> None:
    assert is_open("01:00-05:00", BERLIN, at("2026-06-14T23:30"))
    assert is_open("01:00-05:00", BERLIN, at("2026-01-15T00:30"))
    assert not is_open("01:00-05:00", BERLIN, at("2026-01-14T23:30"))


@pytest.mark.parametrize(
    ("window", "moment", "opening"),
    [
        ("01:00-05:00", "2026-06-15T12:00", "2026-06-15T23:00"),
        ("22:30-04:00", "2026-06-15T12:00", "2026-06-15T20:30"),
        # The clock goes from 02:00 to 03:00, so that this window is not there that night.
        ("02:15-02:45", "2026-03-28T12:00", "2026-03-30T00:15"),
        # What begins in the hour that is left out is open as soon as that is over.
        ("02:30-04:00", "2026-03-28T12:00", "2026-03-29T01:00"),
        # The clock goes from 03:00 back to 02:00: the window comes again, with its beginning or in its middle.
        ("02:15-02:45", "2026-10-25T00:50", "2026-10-25T01:15"),
        ("01:45-02:30", "2026-10-25T00:40", "2026-10-25T01:00"),
    ],
)
def test_the_next_opening_when_the_clock_is_set(window: str, moment: str, opening: str) -> None:
    assert next_opening(window, BERLIN, at(moment)) == at(opening)


@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),  # noqa: DTZ001
    st.times(),
    st.times(),
    st.sampled_from([BERLIN, LORD_HOWE, ZoneInfo("Asia/Kathmandu"), ZoneInfo("Africa/Cairo")]),
)
def test_it_is_the_first_minute_from_now_on_that_is_open(
    moment: datetime, begin: object, end: object, zone: ZoneInfo
) -> None:
    window = f"{begin:%H:%M}-{end:%H:%M}"
    if f"{begin:%H:%M}" == f"{end:%H:%M}":
        return
    now = moment.replace(second=0, microsecond=0, tzinfo=UTC)
    found = next_opening(window, zone, now)
    assert is_open(window, zone, found)
    each = now
    while each < found:
        assert not is_open(window, zone, each), each
        each += MINUTE


@given(st.integers(-180, 180), st.times(), st.times())
def test_that_holds_also_around_changes_of_the_clock(minutes: int, begin: object, end: object) -> None:
    window = f"{begin:%H:%M}-{end:%H:%M}"
    if f"{begin:%H:%M}" == f"{end:%H:%M}":
        return
    for zone, change in ((BERLIN, "2026-10-25T01:00"), (BERLIN, "2026-03-29T01:00"), (LORD_HOWE, "2026-04-04T15:00")):
        each = now = at(change) + minutes * MINUTE
        found = next_opening(window, zone, now)
        assert is_open(window, zone, found)
        while each < found:
            assert not is_open(window, zone, each), each
            each += MINUTE
