"""After a change of interval or time zone, on real servers: what is old goes in time, and no row that is young does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lab.postgres import Database
from model.snapshot import SETUP
from partwarden.postgres.engine import Report
from support.encoded import BY_OTHERS, ENCODED, NATIVE, Key, bounds, keep

BEGIN = datetime(2026, 8, 3, 9, 30, tzinfo=UTC)
KEEP, LEEWAY = timedelta(days=40), timedelta(hours=14)
"""``keepFor``, and by how much a naive key's wall clock may be off UTC."""
DROP = {"keepFor": "40d", "onExpire": "Drop", "dropWithoutArchive": True, "grace": "0s", "maxRetirements": 100}
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "from days to months": ({"interval": "Day"}, {"interval": "Month"}),
    "from months to days": ({"interval": "Month"}, {"interval": "Day"}),
    "to another time zone": ({"interval": "Day"}, {"interval": "Day", "timezone": "America/New_York"}),
    "to another of both": (
        {"interval": "Week", "timezone": "Asia/Kathmandu"},
        {"interval": "Month", "timezone": "Europe/Berlin"},
    ),
}


def settle(database: Database, now: datetime, **fields: Any) -> Report:
    """Set the server's clock, and run until nothing is left to do, each action without an error."""
    database.execute(f"UPDATE lab.clock SET ahead = timestamptz '{now}' - true_clock_timestamp()")
    for _ in range(6):
        report = keep(database, None, **fields)
        assert not [each.error for each in report.outcomes if each.error]
        if not report.outcomes:
            return report
    raise AssertionError("it never comes to an end")


def notes(database: Database) -> list[datetime]:
    """The moments of all rows that the parent shows."""
    return [datetime.fromisoformat(str(note)) for (note,) in database.query("SELECT note FROM run ORDER BY note")]


@pytest.mark.parametrize(
    ("key", "change"),
    [
        *(pytest.param(NATIVE[0], change, id=change) for change in CHANGES),
        pytest.param(NATIVE[1], "to another of both", id="without a zone"),
        pytest.param(ENCODED[0], "from days to months", id="of UUIDs"),
    ],
)
def test_the_old_ones_go_in_time_and_rows_that_are_young_stay(database: Database, key: Key, change: str) -> None:
    old, new = ({"keyEncoding": key.encoding, "premake": 2, **fields} for fields in CHANGES[change])
    database.execute(SETUP.format(now=BEGIN) + key.table)
    settle(database, BEGIN, startFrom="2026-06-01", **old)
    moments = [datetime(2026, 6, 2, tzinfo=UTC) + number * timedelta(hours=8) for number in range(180)]
    values = [(key.value(f"timestamptz '{each}'"), each) for each in moments]
    database.execute("; ".join(f"INSERT INTO run SELECT {value}, '{each}'" for value, each in values))
    made = set(bounds(database))
    for days in (0, 9, 41, 140):
        now = BEGIN + timedelta(days=days)
        last = settle(database, now, retention=DROP, **new)
        assert last.after.covered_until
        assert not last.after.missing
        young = [each for each in moments if each >= now - KEEP + LEEWAY]
        assert notes(database)[-len(young) or len(moments) :] == young
        for each in last.inventory.partitions:
            assert each.range
            assert each.range.upper
            assert each.range.upper.replace(tzinfo=UTC) > now - KEEP - LEEWAY, f"{each} has expired, and stays"
    assert not made & set(bounds(database))
    assert notes(database) == []
    tables = "SELECT oid || ' ' || oid::regclass FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    assert not made & {name for (name,) in database.query(tables)}, "detached, and not dropped"


def test_with_keep_those_of_the_old_interval_stay(database: Database) -> None:
    database.execute(SETUP.format(now=BEGIN) + NATIVE[0].table)
    settle(database, BEGIN, interval="Day", startFrom="2026-07-01", premake=0)
    retention = {**DROP, "unaligned": "Keep"}
    made = set(bounds(database))
    last = settle(database, BEGIN + timedelta(days=200), interval="Month", premake=0, retention=retention)
    assert made <= set(bounds(database))
    (finding,) = [each for each in last.after.findings if each.reason == "OffGrid"]
    assert "retention skips them, whatever their age (spec.retention.unaligned: Keep)" in finding.message


def test_bounds_within_a_millisecond_of_a_uuid_come_back_to_the_last_bit(database: Database) -> None:
    """Neighbours that leave and return hold the rows on both sides of the bound between them, as before."""
    key = BY_OTHERS[1]
    database.execute(SETUP.format(now=BEGIN) + key.table)
    fields = {"keyEncoding": "UUIDv7", "interval": "Year", "premake": 0, "startFrom": "2026-01-01"}
    for name, year in (("first", 2018), ("second", 2019)):
        ends = [key.literal(database, f"{each}-03-03 12:00Z") for each in (year, year + 1)]
        database.execute(f"CREATE TABLE {name} PARTITION OF run FOR VALUES FROM ('{ends[0]}') TO ('{ends[1]}')")
    middle = "timestamptz '2019-03-03 12:00Z'"
    for rest in ("70008000000000000000", key.rest):
        database.execute(f"INSERT INTO run SELECT {key.value(middle, rest)}")
    settle(database, BEGIN, **fields)
    before, rows = bounds(database), database.query("SELECT tableoid::regclass::text, key FROM run ORDER BY key")
    assert [name for name, _ in rows] == ["first", "second"]
    settle(database, BEGIN, **fields, retention={"keepFor": "5y"})
    assert len(bounds(database)) == len(before) - 2
    settle(database, BEGIN, **fields, retention={"keepFor": "50y"})
    assert bounds(database) == before
    assert database.query("SELECT tableoid::regclass::text, key FROM run ORDER BY key") == rows
    settle(database, BEGIN, **fields, retention={**DROP, "keepFor": "5y"})
    assert database.query("SELECT to_regclass('first'), to_regclass('second')") == [(None, None)]
