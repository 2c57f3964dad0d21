"""A policy's interval is changed on real servers: what exists stays, a filler closes the gap, every row has a place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from lab.postgres import Database
from partwarden.api.types import Interval
from partwarden.planner.calendar import Range, iso
from partwarden.postgres.engine import Report
from support.encoded import ENCODED, NATIVE, Key, bounds, created, keep, lands

NOW = datetime(2026, 10, 21, 21, 30, tzinfo=UTC)
ZONE = "Europe/Berlin"
TIMESTAMPTZ = NATIVE[0]


def change(database: Database, key: Key, old: Interval, new: Interval) -> None:
    """Keeps a new table by one interval, by another at once, and again once the partitions of the first have ended."""
    fields = {"keyEncoding": key.encoding, "timezone": ZONE, "premake": 2}
    database.execute(f"DROP TABLE IF EXISTS run; {key.table}")
    first = keep(database, NOW, interval=old.value, **fields)
    assert len(created(first)) == 3
    before, end = bounds(database), first.after.covered_until
    assert end is not None
    later = end.replace(tzinfo=UTC) + timedelta(hours=30)
    created(keep(database, NOW, interval=new.value, **fields))
    last = keep(database, later, interval=new.value, **fields)
    created(last)
    assert keep(database, later, interval=new.value, **fields).outcomes == ()
    assert before.items() <= bounds(database).items()
    check_behind(database, key, end, last)
    (place,) = lands(database, [key.before(f"timestamptz '{iso(end)}'")])
    assert place in {name.split(" ")[1] for name in before}


def check_behind(database: Database, key: Key, end: datetime, report: Report) -> None:
    """Behind what the first interval made: one filler at most, then whole intervals, and each row in its own."""
    found = [(each.range.lower, each) for each in report.inventory.partitions if each.range and each.range.lower]
    behind = sorted(((lower, each.oid, each.name) for lower, each in found if lower >= end), key=lambda each: each[0])
    assert behind[0][0] == end
    assert all(oid in report.after.managed for _, oid, _ in behind[1:])
    names = [name for _, _, name in behind]
    edges = [f"timestamptz '{iso(lower)}'" for lower, _, _ in behind]
    assert lands(database, [key.value(each) for each in edges]) == names
    assert lands(database, [key.before(each) for each in edges[1:]]) == names[:-1]


@pytest.mark.parametrize("old", list(Interval))
def test_from_each_interval_to_each_other(database: Database, old: Interval) -> None:
    for new in Interval:
        if new is not old:
            change(database, TIMESTAMPTZ, old, new)


@pytest.mark.parametrize("key", ENCODED, ids=lambda key: f"{key}-{key.column}")
def test_with_every_encoding(database: Database, key: Key) -> None:
    for old, new in ((Interval.YEAR, Interval.MONTH), (Interval.MONTH, Interval.WEEK), (Interval.DAY, Interval.HOUR)):
        change(database, key, old, new)


def test_one_filler_leads_from_the_last_month_to_the_first_week(database: Database) -> None:
    database.execute(TIMESTAMPTZ.table)
    assert created(keep(database, NOW, interval="Month", premake=0)) == ["run_2026_10"]
    report = keep(database, datetime(2026, 11, 3, tzinfo=UTC), interval="Week", premake=1)
    assert created(report) == ["run_2026_w45", "run_2026_w46", "run_2026_w44_20261101"]
    filler = next(each for each in report.inventory.partitions if each.name == "run_2026_w44_20261101")
    assert filler.range == Range(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC))
