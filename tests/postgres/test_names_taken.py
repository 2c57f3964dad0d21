"""Objects of users that bear names that Partwarden gives to its own, for the length of a step: they stay."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lab.postgres import Database
from partwarden.errors import TableChanged
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import Report, maintain
from support.converted import LEGACY, convert, undo
from support.meanwhile import keep, policy, reasons

PLAIN = """
CREATE TABLE run (id bigint, at timestamptz NOT NULL, PRIMARY KEY (id, at),
    CONSTRAINT partwarden_split CHECK (id > 0));
INSERT INTO run SELECT n, '2025-12-31T23:30:00Z'::timestamptz + n * interval '1 minute' FROM generate_series(1, 100) n;
"""
CHECKS = "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'c' ORDER BY 1"


def split(database: Database) -> Report:
    split_up = {"mode": "Attach", "split": "Background"}
    spec = policy(key="at", interval="Year", premake=1, maintenance={"analyzeParent": False}, convert=split_up)
    with session(from_dsn(database.dsn)) as connection:
        return maintain(connection, spec, now=datetime(2027, 6, 1, tzinfo=UTC))


@pytest.mark.parametrize("table", ["run", "rest"])
def test_a_drain_leaves_checks_of_the_table_and_of_default(pg_database: Database, table: str) -> None:
    pg_database.execute(f"""
        CREATE TABLE run (submitted_at timestamptz NOT NULL, n int) PARTITION BY RANGE (submitted_at);
        CREATE TABLE rest PARTITION OF run DEFAULT;
        ALTER TABLE {table} ADD CONSTRAINT partwarden_bounds CHECK (n > 0),
            ADD CONSTRAINT partwarden_bounds_ CHECK (n > 1);
        INSERT INTO run VALUES ('2026-05-01Z', 3)""")
    before = pg_database.query(CHECKS, "run"), pg_database.query(CHECKS, "rest")
    report = keep(pg_database.dsn, premake=0, startFrom="2026-01-01", defaultPartition={"drain": "Auto"})
    assert reasons(report) == ["created"]
    assert pg_database.query("SELECT n FROM run_2026") == [(3,)]
    assert (pg_database.query(CHECKS, "run"), pg_database.query(CHECKS, "rest")) == before
    assert pg_database.query(CHECKS, "run_2026") == before[0]


def test_a_check_that_was_on_the_table_stays_through_a_split_and_the_way_back(pg_database: Database) -> None:
    pg_database.execute(PLAIN)
    convert(pg_database)
    assert [each.error for each in split(pg_database).outcomes] == [None]
    assert pg_database.query("SELECT count(*) FROM run_2026") == [(71,)]
    assert ("partwarden_split",) in pg_database.query(CHECKS, LEGACY)
    assert undo(pg_database.dsn) == 71
    assert pg_database.query(CHECKS, "run") == [("partwarden_split",)]


@pytest.mark.parametrize(
    ("make", "drop", "there"),
    [
        (
            f"ALTER TABLE {LEGACY} ADD CONSTRAINT {{name}} CHECK (id > 1)",
            f"ALTER TABLE {LEGACY} DROP CONSTRAINT {{name}}",
            "SELECT FROM pg_constraint WHERE conname = %s",
        ),
        (
            "CREATE FUNCTION {name}() RETURNS timestamptz LANGUAGE sql AS 'SELECT now()'",
            "DROP FUNCTION {name}()",
            "SELECT FROM pg_proc WHERE proname = %s",
        ),
    ],
    ids=["CHECK", "function"],
)
def test_what_has_the_very_name_and_is_none_of_a_split_refuses_split_and_way_back(
    pg_database: Database, make: str, drop: str, there: str
) -> None:
    pg_database.execute(PLAIN.replace("id > 0", "id > -1"))
    pg_database.execute("DELETE FROM run WHERE id = 1")
    convert(pg_database)
    ((oid,),) = pg_database.query(f"SELECT '{LEGACY}'::regclass::oid::int8")
    name = f"partwarden_split_{oid}"
    pg_database.execute(make.format(name=name))
    (outcome,) = split(pg_database).outcomes
    assert f"{name} of public.{LEGACY} is not of a split, or its function is" in str(outcome.error)
    with pytest.raises(TableChanged, match=f"{name} of public.{LEGACY} is not of a split"):
        undo(pg_database.dsn)
    assert len(pg_database.query(there, name)) == 1
    pg_database.execute(drop.format(name=name))
    assert [each.error for each in split(pg_database).outcomes] == [None]
    assert undo(pg_database.dsn) == 71
    assert pg_database.query(there, name) == []
