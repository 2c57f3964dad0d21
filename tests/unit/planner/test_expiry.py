"""When something has expired: never too early, and once and for all."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partwarden.api.types import Interval
from partwarden.planner.calendar import Grid
from partwarden.planner.context import cutoff
from partwarden.planner.keys import Codec, KeyType

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/St_Johns",
    "America/Sao_Paulo",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "Africa/Casablanca",
]
AWARE, NAIVE = Codec(KeyType.TIMESTAMPTZ), Codec(KeyType.TIMESTAMP)

ages = st.builds(lambda count, unit: f"{count}{unit}", st.integers(1, 400), st.sampled_from(["h", "d", "w", "mo", "y"]))
zones = st.sampled_from(ZONES)
codecs = st.sampled_from([AWARE, NAIVE])
moments = st.datetimes(datetime(1975, 1, 1), datetime(2035, 1, 1)).map(lambda each: each.replace(tzinfo=UTC))  # noqa: DTZ001
steps = st.one_of(
    st.timedeltas(timedelta(0), timedelta(hours=3)),
    st.timedeltas(timedelta(0), timedelta(days=3)),
    st.timedeltas(timedelta(0), timedelta(days=800)),
)


def at(text: str, age: str, zone: str = "UTC", codec: Codec = AWARE) -> str:
    """The cutoff at a moment, as the wall clock of the zone shows it where the key has none of its own."""
    return cutoff(age, datetime.fromisoformat(text), Grid(Interval.YEAR, ZoneInfo(zone)), codec).isoformat(" ")


def local(now: datetime, zone: str) -> datetime:
    return now.astimezone(ZoneInfo(zone)).replace(tzinfo=None)


def plainly_back(wall: datetime, age: str) -> datetime:
    """A date of the calendar less an age, in the plainest way: by counting months, and cutting the day."""
    count, unit = int(age.rstrip("hdwmoy")), age.lstrip("0123456789")
    if unit in ("d", "w"):
        return wall - timedelta(days=count * (7 if unit == "w" else 1))
    year, month = wall.year, wall.month
    for _ in range(count * (12 if unit == "y" else 1)):
        year, month = (year - 1, 12) if month == 1 else (year, month - 1)
    return wall.replace(year=year, month=month, day=min(wall.day, monthrange(year, month)[1]))


@given(ages, zones, codecs, moments, steps)
def test_what_has_expired_once_is_never_young_again(
    age: str, zone: str, codec: Codec, now: datetime, step: timedelta
) -> None:
    clock = Grid(Interval.DAY, ZoneInfo(zone))
    assert cutoff(age, now, clock, codec) <= cutoff(age, now + step, clock, codec)


@given(ages, zones, moments)
def test_nothing_younger_expires_by_the_wall_clock(age: str, zone: str, now: datetime) -> None:
    found = cutoff(age, now, Grid(Interval.DAY, ZoneInfo(zone)), NAIVE)
    if age.endswith("h"):
        earlier = now - timedelta(hours=int(age[:-1]))
        assert found <= local(earlier, zone)
        assert local(earlier, zone) - found <= timedelta(hours=3)
    else:
        exact = plainly_back(local(now, zone), age)
        assert found <= exact
        # A clock set back, and a day that the month does not have, keep things a little longer; never more than that.
        assert exact - found < timedelta(days=1, hours=3)


@given(ages, zones, moments)
def test_nothing_younger_expires_by_instants(age: str, zone: str, now: datetime) -> None:
    clock = Grid(Interval.DAY, ZoneInfo(zone))
    found = cutoff(age, now, clock, AWARE)
    if age.endswith("h"):
        assert found == (now - timedelta(hours=int(age[:-1]))).replace(microsecond=0)
        return
    # All that the cutoff condemns lies, by the wall clock, before now less the age.
    exact = plainly_back(local(now, zone), age)
    assert local(found - timedelta(microseconds=1), zone) < exact
    assert found <= clock.moment(exact.replace(microsecond=0)) <= now


@pytest.mark.parametrize(
    ("now", "age", "expected"),
    [
        ("2026-11-22T12:00:00Z", "5y", "2021-11-22 12:00:00+00:00"),
        ("2026-11-22T12:00:00.999Z", "18mo", "2025-05-22 12:00:00+00:00"),
        ("2026-11-22T12:00:00Z", "2w", "2026-11-08 12:00:00+00:00"),
        ("2026-11-22T12:00:00Z", "90d", "2026-08-24 12:00:00+00:00"),
        ("2026-11-22T12:00:00Z", "36h", "2026-11-21 00:00:00+00:00"),
    ],
)
def test_each_unit(now: str, age: str, expected: str) -> None:
    assert at(now, age) == expected


@pytest.mark.parametrize(
    ("now", "age", "expected"),
    [
        ("2028-02-29T10:00:00Z", "1y", "2027-02-28 00:00:00+00:00"),
        ("2028-02-29T10:00:00Z", "4y", "2024-02-29 10:00:00+00:00"),
        ("2026-03-31T10:00:00Z", "1mo", "2026-02-28 00:00:00+00:00"),
        ("2026-03-28T10:00:00Z", "1mo", "2026-02-28 00:00:00+00:00"),
        ("2026-03-27T10:00:00Z", "1mo", "2026-02-27 10:00:00+00:00"),
        ("2026-04-30T10:00:00Z", "1mo", "2026-03-30 10:00:00+00:00"),
        ("2026-05-31T10:00:00Z", "6mo", "2025-11-30 00:00:00+00:00"),
    ],
)
def test_a_day_that_the_month_does_not_have_is_its_last(now: str, age: str, expected: str) -> None:
    assert at(now, age) == expected


def test_a_day_is_one_of_the_calendar_and_hours_are_counted() -> None:
    # Berlin's clock was set back on 2026-10-25: that day had 25 hours.
    assert at("2026-10-25T23:00:00Z", "1d", "Europe/Berlin") == "2026-10-24 22:00:00+00:00"
    assert at("2026-10-25T23:00:00Z", "24h", "Europe/Berlin") == "2026-10-24 23:00:00+00:00"


def test_a_time_that_was_skipped_is_the_moment_at_which_the_clock_jumped() -> None:
    # At 01:00 UTC on 2026-03-29 Berlin's clock went from 02:00 to 03:00.
    for now in ("2026-03-30T00:00:00Z", "2026-03-30T00:30:00Z", "2026-03-30T01:00:00Z"):
        assert at(now, "1d", "Europe/Berlin") == "2026-03-29 01:00:00+00:00"


def test_a_time_that_came_twice_is_the_first() -> None:
    # 02:30 in Berlin on 2026-10-25 was 00:30 UTC, and 01:30 UTC again.
    assert at("2026-10-26T01:30:00Z", "1d", "Europe/Berlin") == "2026-10-25 00:30:00+00:00"


def test_the_cutoff_waits_while_the_clock_repeats_an_hour() -> None:
    first, second = "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"
    assert at(first, "1d", "Europe/Berlin", NAIVE) == "2026-10-24 02:00:00"
    assert at(second, "1d", "Europe/Berlin", NAIVE) == "2026-10-24 02:30:00"


@pytest.mark.parametrize("age", ["9000y", "99999mo", "2025y"])
@pytest.mark.parametrize("codec", [AWARE, NAIVE])
def test_before_the_calendar_begins_nothing_expires(age: str, codec: Codec) -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    assert cutoff(age, now, Grid(Interval.YEAR, ZoneInfo("UTC")), codec) == codec.floor
