"""The order of creations beside existing partitions, and the effect of one failure on the rest."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import psycopg
import pytest

from lab.postgres import Database
from partwarden.api.types import Interval
from support.meanwhile import NOW, RUN, findings, keep, reasons

ZONES = ["Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kolkata"]


def made(database: Database) -> list[str]:
    """Names of the partitions in the order in which they were made."""
    rows = database.query(
        "SELECT c.relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = "
        "'run'::regclass ORDER BY c.oid"
    )
    return [str(name) for (name,) in rows]


def test_current_first_then_the_future_then_wanted_dates_then_holes(database: Database) -> None:
    database.execute(f"{RUN} CREATE TABLE old PARTITION OF run FOR VALUES FROM ('2023-01-01Z') TO ('2024-01-01Z')")
    report = keep(database.dsn, premake=2, ensure=["2035-06-01", "2031-01-01"], startFrom="2021-05-05")
    assert made(database) == [
        "old",
        "run_2026",
        "run_2027",
        "run_2028",
        "run_2035",
        "run_2031",
        "run_2021",
        "run_2022",
        "run_2024",
        "run_2025",
    ]
    assert [each.action.name for each in report.outcomes] == made(database)[1:]
    assert (report.after.actions, report.after.missing) == ((), ())


@pytest.mark.parametrize("zone", ZONES)
def test_bounds_are_the_local_calendars_as_postgresql_sees_it(pg_database: Database, zone: str) -> None:
    """Of every interval, its first microsecond and its last; the second run has nothing to do."""
    for interval in Interval:
        pg_database.execute(f"DROP TABLE IF EXISTS run; {RUN}")
        fields: dict[str, Any] = {"interval": interval.value, "timezone": zone, "premake": 3}
        assert reasons(keep(pg_database.dsn, **fields)) == ["created"] * 4
        assert keep(pg_database.dsn, **fields).outcomes == ()
        step = "3 months" if interval is Interval.QUARTER else f"1 {interval}"
        pg_database.execute(f"""SET TimeZone = '{zone}';
            INSERT INTO run SELECT date_trunc('{interval}', moment) + (n + last) * interval '{step}' - last * micro
            FROM (VALUES (timestamptz '{NOW}', interval '1 microsecond')) given (moment, micro),
                 generate_series(0, 3) n, generate_series(0, 1) last""")
        rows = pg_database.query("SELECT tableoid::regclass::text, count(*) FROM run GROUP BY 1 ORDER BY 1")
        assert [count for _, count in rows] == [2] * 4, (interval, rows)


@pytest.mark.parametrize("key_type", ["date", "timestamp", "timestamptz"])
def test_rows_at_the_edges(database: Database, key_type: str) -> None:
    """One step before each boundary a row belongs to the partition before, at it to the next one."""
    database.execute(f"CREATE TABLE run (at {key_type} NOT NULL) PARTITION BY RANGE (at)")
    keep(database.dsn, interval="Month", timezone="Europe/Berlin", premake=3)
    step = timedelta(days=1) if key_type == "date" else timedelta(microseconds=1)
    for month in (11, 12):
        edge = datetime.combine(date(2026, month, 1), datetime.min.time())
        with database.connect() as connection:
            connection.execute("SET TimeZone = 'Europe/Berlin'")
            for moment, name in ((edge - step, f"run_2026_{month - 1}"), (edge, f"run_2026_{month}")):
                text = str(moment.date() if key_type == "date" else moment)
                inserted = connection.execute(
                    f"INSERT INTO run VALUES ('{text}') RETURNING tableoid::regclass::text".encode()
                )
                assert inserted.fetchone() == (name,)


def test_a_taken_name_prevents_only_its_own_partition(database: Database) -> None:
    database.execute(f"{RUN} CREATE VIEW run_2026 AS SELECT 1; CREATE TYPE run_2028 AS ENUM ()")
    report = keep(database.dsn, premake=3)
    assert [each.reason for each in findings(report)] == ["NameTaken", "NameTaken"]
    assert made(database) == ["run_2027", "run_2029"]
    assert keep(database.dsn, premake=3).outcomes == ()
    database.execute("DROP VIEW run_2026; DROP TYPE run_2028")
    assert reasons(keep(database.dsn, premake=3)) == ["created", "created"]
    assert made(database) == ["run_2027", "run_2029", "run_2026", "run_2028"]


def test_rows_in_default_prevent_only_their_own_partition(database: Database) -> None:
    database.execute(f"""{RUN} CREATE TABLE rest PARTITION OF run DEFAULT;
        INSERT INTO run VALUES ('2026-06-01Z'), ('2028-06-01Z')""")
    report = keep(database.dsn, premake=3)
    assert [each.reason for each in findings(report)] == ["DefaultHasRows", "DefaultHasRows"]
    assert reasons(report) == ["created", "created"]
    assert made(database) == ["rest", "run_2027", "run_2029"]
    assert database.query("SELECT count(*) FROM rest") == [(2,)]


def test_a_partly_covered_interval_is_completed(database: Database) -> None:
    database.execute(f"""{RUN}
        CREATE TABLE a PARTITION OF run FOR VALUES FROM ('2026-03-01Z') TO ('2026-10-25 12:34:56.789Z');
        CREATE TABLE b PARTITION OF run FOR VALUES FROM ('2027-12-31Z') TO ('2028-01-02Z')""")
    report = keep(database.dsn, premake=1)
    assert reasons(report) == ["created"] * 3
    assert made(database)[2:] == ["run_2026_20260101", "run_2026_20261025t123456789000", "run_2027_20270101"]
    database.execute("INSERT INTO run SELECT generate_series('2026-01-01Z'::timestamptz, '2027-12-31Z', '1 hour')")
    assert keep(database.dsn, premake=1).outcomes == ()


def test_hand_made_partitions_of_other_schemas_count_whatever_their_names(database: Database) -> None:
    database.execute(f"""{RUN} CREATE SCHEMA s;
        CREATE TABLE s.run_2027 PARTITION OF run FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z')""")
    assert reasons(keep(database.dsn, premake=1)) == ["created"]
    assert database.query("SELECT inhrelid::regclass::text FROM pg_inherits ORDER BY 1") == [
        ("run_2027",),
        ("s.run_2027",),
    ]


@pytest.mark.parametrize(
    "bounds", ["(MINVALUE) TO (MAXVALUE)", "('-infinity') TO ('infinity')", "('2020-01-01Z') TO (MAXVALUE)"]
)
def test_a_partition_without_upper_bound_leaves_nothing_to_create(database: Database, bounds: str) -> None:
    database.execute(f"{RUN} CREATE TABLE a PARTITION OF run FOR VALUES FROM {bounds}")
    report = keep(database.dsn)
    assert (report.outcomes, report.after.covered_for_ever, report.round_trips) == ((), True, 1)


def test_a_foreign_table_is_coverage(pg_database: Database) -> None:
    pg_database.execute(f"""{RUN} CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;
        CREATE FOREIGN TABLE old PARTITION OF run FOR VALUES FROM (MINVALUE) TO ('2027-01-01Z') SERVER far""")
    assert reasons(keep(pg_database.dsn)) == ["created"] * 2
    assert made(pg_database) == ["old", "run_2027", "run_2028"]


def test_a_pending_detach_is_reported_and_nothing_is_created_in_its_place(database: Database) -> None:
    database.execute(f"{RUN} CREATE TABLE a PARTITION OF run FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z')")
    with database.connect() as reader, database.connect() as other:
        reader.execute("BEGIN; SELECT count(*) FROM run")
        other.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute("ALTER TABLE run DETACH PARTITION a CONCURRENTLY")
    report = keep(database.dsn, premake=1)
    assert reasons(report) == ["created"]
    assert made(database) == ["a", "run_2027"]
    assert [each.reason for each in findings(report)] == ["DetachPending"]
    assert report.after.covered_until is None
    database.execute("ALTER TABLE run DETACH PARTITION a FINALIZE")
    assert reasons(keep(database.dsn, premake=1)) == ["created"]
    assert made(database) == ["run_2027", "run_2026"]
