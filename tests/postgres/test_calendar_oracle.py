"""The grid against PostgreSQL's own calendar: date_trunc and AT TIME ZONE say where each cell begins and ends.

The server's time zone database and Python's are often of different years. That is no matter of the grid, so here it
reads the very files that the server reads: what is compared is what each makes of the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

import psycopg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lab.postgres import Server
from partwarden.api.types import Interval
from partwarden.planner.calendar import Grid, iso

ZONED = [each for each in Interval if each is not Interval.HOUR]
ZONES, MOMENTS = 100, 24
"""Examples of a test, and moments that each asks about."""
ORACLE = settings(derandomize=True, deadline=None, database=None, phases=[Phase.generate])
"""The rows of the query name what is wrong, so no example need be shrunk."""
TRICKS = (
    "Africa/Cairo",  # midnights skipped, and midnights twice
    "Africa/Monrovia",  # off by 44 minutes and 30 seconds
    "America/Havana",
    "America/Juneau",  # a day twice
    "America/St_Johns",  # half-hour offset, changes at 00:01
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Asia/Manila",
    "Asia/Tehran",
    "Australia/Lord_Howe",  # half an hour of daylight saving
    "Europe/Dublin",  # negative daylight saving
    "Pacific/Apia",  # a day left out
    "Pacific/Kwajalein",
)


def label(moment: str) -> str:
    """The local date that carries the cell, for an SQL expression of a moment."""
    return f"date_trunc(%(unit)s, ({moment}) AT TIME ZONE %(zone)s)"


# A cell of days or longer begins where the local date first reaches its label, and ends where it first reaches a later
# one: no clock has been set back by more than 26 hours.
EDGES = f"""
WITH given AS (SELECT * FROM unnest(%(m)s::timestamptz[], %(l)s::timestamptz[], %(u)s::timestamptz[]) AS g (m, l, u)),
labels AS (
  SELECT m, l, u, {label("m")} AS mine, {label("l")} AS own, {label("u")} AS next,
    {label("l - interval '1 microsecond'")} AS just_before, {label("u - interval '1 microsecond'")} AS last,
    (SELECT max({label("s")}) FROM generate_series(l - interval '26 hours', l, '10 minutes') s WHERE s < l) AS before,
    (SELECT max({label("s")}) FROM generate_series(u - interval '26 hours', u, '10 minutes') s WHERE s < u) AS until,
    (SELECT max({label("s")}) FROM generate_series(l, u, (u - l) / 40) s WHERE s < u) AS inside
  FROM given)
SELECT m::text, l::text, u::text, own::text, next::text FROM labels
WHERE NOT (l <= m AND m < u AND mine <= own AND just_before < own AND before < own
           AND last <= own AND until <= own AND inside <= own AND own < next)
"""
# An hour is cut where the offset changes: its repetition is another one.
HOURS = """
WITH given AS (SELECT * FROM unnest(%(m)s::timestamptz[], %(l)s::timestamptz[], %(u)s::timestamptz[]) AS g (m, l, u)),
seen AS (
  SELECT m, l, u, s = l - interval '1 microsecond' OR s = u AS outside,
         (date_trunc('hour', s AT TIME ZONE %(zone)s), s AT TIME ZONE %(zone)s - s AT TIME ZONE 'UTC')
         = (date_trunc('hour', m AT TIME ZONE %(zone)s), m AT TIME ZONE %(zone)s - m AT TIME ZONE 'UTC') AS same
  FROM given, unnest(ARRAY[l - interval '1 microsecond', l, l + (u - l) / 4, l + (u - l) / 2, u - (u - l) / 4,
                           u - interval '1 microsecond', u]) s)
SELECT DISTINCT m::text, l::text, u::text FROM seen WHERE same = outside OR NOT (l <= m AND m < u)
"""
NAIVE = """
SELECT m::text, l::text, u::text FROM unnest(%(m)s::timestamp[], %(l)s::timestamp[], %(u)s::timestamp[]) AS g (m, l, u)
WHERE l <> date_trunc(%(unit)s, m) OR u <> l + %(step)s::interval
"""

TURNED = (
    ("America/Toronto", "1919-03-31T04:30:00Z"),  # 23:30 forward to 00:30
    ("America/Toronto", "1947-09-28T04:00:00Z"),  # 00:00 back to 23:00
    ("America/Goose_Bay", "2010-11-07T02:31:00Z"),  # 00:01 back to 23:01
    ("America/Havana", "2024-11-03T05:00:00Z"),  # midnight twice
    ("Asia/Beirut", "2024-03-30T22:00:00Z"),  # midnight skipped
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00:00Z"),
    ("America/Juneau", "1867-10-19T00:00:00Z"),
    ("Africa/Monrovia", "1972-01-07T00:44:30Z"),
    ("Asia/Manila", "1844-12-31T16:00:00Z"),
)
"""Midnights that clocks went over, each once."""
TURNS = ("01-02", "02-27", "03-31", "12-27", "12-30")
"""Days about which leap days, years and ISO weeks turn."""
near = st.datetimes(datetime(1900, 1, 1), datetime(2500, 1, 1))  # noqa: DTZ001
far = st.datetimes(datetime(3, 1, 1), datetime(9990, 1, 1))  # noqa: DTZ001


def folder(server: Server) -> Path:
    """Where the server keeps its time zones."""
    return server.binaries.folder / "share" / "postgresql" / "timezone"


def zone_names(connection: psycopg.Connection, path: Path) -> list[str]:
    """The zones that the server and Python both know by one name. AT TIME ZONE takes MET and CET for an offset."""
    offsets = {name for (name,) in connection.execute("SELECT abbrev FROM pg_timezone_abbrevs").fetchall()}
    known = available_timezones() - offsets - {"localtime", "posixrules", "Factory"}
    return sorted(name for name in known if (path / name).is_file())


@cache
def load(path: Path, name: str) -> ZoneInfo:
    """The zone as the server knows it."""
    with (path / name).open("rb") as file:
        return ZoneInfo.from_file(file, name)


@cache
def changes(zone: ZoneInfo) -> list[datetime]:
    """Some moments, to the minute, at which the offset changed or will."""
    found = []
    step = timedelta(days=20)
    moment = datetime(1840, 1, 1, tzinfo=UTC)
    while moment.year < 2040:
        low, high = moment, moment + step
        if low.astimezone(zone).utcoffset() != high.astimezone(zone).utcoffset():
            while high - low > timedelta(minutes=1):
                middle = low + (high - low) / 2
                same = middle.astimezone(zone).utcoffset() == low.astimezone(zone).utcoffset()
                low, high = (middle, high) if same else (low, middle)
            found.append(high)
        moment += step
    return found


@st.composite
def zoned(draw: st.DrawFn, path: Path, names: list[str]) -> tuple[ZoneInfo, list[datetime]]:
    """A zone, and moments around its changes of clocks, in the years 1900 to 2500, and far from them."""
    zone = load(path, draw(st.sampled_from(TRICKS) | st.sampled_from(names)))
    aware = st.one_of(near, near, far).map(lambda moment: moment.replace(tzinfo=UTC))
    if turns := changes(zone):
        shift = st.integers(-36 * 3600, 36 * 3600).map(lambda seconds: timedelta(seconds=seconds))
        close = st.builds(lambda turn, by: turn + by, st.sampled_from(turns), shift)
        aware = aware | close
    return zone, draw(st.lists(aware, min_size=MOMENTS, max_size=MOMENTS))


def cells(grid: Grid, moments: Iterable[datetime]) -> dict[str, list[str | None]]:
    """The moments and the cells that hold them, as parameters of a query."""
    found = [(each, grid.cell(each)) for each in moments]
    return {
        "m": [iso(each) for each, _ in found],
        "l": [iso(cell.lower) for _, cell in found],
        "u": [iso(cell.upper) for _, cell in found],
    }


def compare(server: Server, grid: Callable[[ZoneInfo], Grid], query: str) -> None:
    """Asks the server about cells around chance moments, and around midnights that clocks went over."""
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        path = folder(server)
        names = zone_names(connection, path)

        def check(example: tuple[ZoneInfo, list[datetime]]) -> None:
            zone, moments = example
            asked = {**cells(grid(zone), moments), "unit": grid(zone).interval.lower(), "zone": zone.key}
            assert connection.execute(query.encode(), asked).fetchall() == [], zone

        given(zoned(path, names))(settings(ORACLE, max_examples=ZONES)(check))()
        for name, turn in TURNED:
            middle = datetime.fromisoformat(turn)
            check((load(path, name), [middle + timedelta(minutes=step) for step in range(-1800, 1801, 15)]))


@pytest.mark.parametrize("interval", ZONED)
def test_cells_of_days_and_longer(server: Server, interval: Interval) -> None:
    compare(server, lambda zone: Grid(interval, zone), EDGES)


def test_hours(server: Server) -> None:
    compare(server, lambda zone: Grid(Interval.HOUR, zone), HOURS)


@pytest.mark.parametrize("interval", list(Interval))
def test_cells_of_a_key_without_a_zone(server: Server, interval: Interval) -> None:
    """Leap days and ISO weeks over the year's end are among them."""
    step = "3 months" if interval is Interval.QUARTER else f"1 {interval}"
    days = [datetime.fromisoformat(f"{year}-{day}") for year in range(1900, 2501) for day in TURNS]
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:

        def check(moments: list[datetime]) -> None:
            asked = {**cells(Grid(interval, None), moments), "unit": interval.lower(), "step": step}
            assert connection.execute(NAIVE, asked).fetchall() == []

        given(st.lists(near | far, min_size=MOMENTS, max_size=MOMENTS))(settings(ORACLE, max_examples=ZONES)(check))()
        check([day + timedelta(hours=hours) for day in days for hours in (0, 24, 47)])
