"""Periods of spec.ensure on a real table: made at once, as one entry says, and nothing between."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from lab.postgres import Database
from partwarden.cli.main import main
from support.encoded import keep

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
RUN = "CREATE TABLE run (at timestamptz NOT NULL) PARTITION BY RANGE (at);"


def partitions(database: Database) -> list[str]:
    rows = database.query("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'run'::regclass")
    return sorted(str(name) for (name,) in rows)


def test_a_range_by_month_is_made_and_nothing_between_it_and_now(database: Database) -> None:
    database.execute(RUN)
    for _ in range(2):
        keep(database, NOW, interval="Month", premake=0, ensure=["1970-01..1970-03", "2027-Q1"])
        assert partitions(database) == [
            *(f"run_1970_0{month}" for month in (1, 2, 3)),
            "run_2026_11",
            *(f"run_2027_0{month}" for month in (1, 2, 3)),
        ]


def test_days_of_a_zone_hold_the_rows_of_its_calendar(database: Database) -> None:
    database.execute(RUN)
    keep(database, NOW, interval="Day", timezone="Europe/Berlin", premake=0, ensure=["2031-W13"])
    database.execute("INSERT INTO run VALUES ('2031-03-30 00:00 Europe/Berlin'), ('2031-03-30 23:59:59 Europe/Berlin')")
    ((name, count),) = database.query("SELECT tableoid::regclass::text, count(*) FROM run GROUP BY 1")
    assert (name, count) == ("run_2031_03_30", 2)
    assert len(partitions(database)) == 1 + 7


@pytest.mark.parametrize("period", ["2031-06-01..2031-06-03", "2031-w23"])
def test_create_takes_what_ensure_takes(database: Database, period: str) -> None:
    database.execute(RUN)
    keep(database, None, interval="Day", premake=0)
    done = CliRunner().invoke(main, ["create", period, "--dsn", database.dsn])
    assert done.exit_code == 0, done.output
    made = [name for name in partitions(database) if name.startswith("run_2031")]
    assert len(made) == (3 if ".." in period else 7)


def test_what_would_be_too_much_is_refused_before_anything_is_made(database: Database) -> None:
    database.execute(RUN)
    keep(database, None, interval="Day", premake=0)
    done = CliRunner().invoke(main, ["create", "2031..2040", "--dsn", database.dsn])
    assert done.exit_code == 1
    assert "2031..2040 holds more than 1,000 partitions by Day: ask for less" in done.output
    assert len(partitions(database)) == 1
