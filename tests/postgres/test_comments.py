"""Comments written by users: of any length and content, never cut or overwritten."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from psycopg.sql import SQL

from lab.postgres import Database
from partwarden.archive import table_lookup
from partwarden.planner import marker
from partwarden.planner.marker import LONGEST, LONGEST_LINE
from partwarden.postgres.catalog import about_table
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import observe_and_plan
from support.meanwhile import NOW, keep, policy
from support.retirement import (
    DEFAULT,
    DETACH,
    DROP,
    FORMS,
    YEARS,
    attached,
    comment,
    expired,
    keep_before,
    mark,
    rows_of_2018,
    set_comment,
    verbs,
    why,
)

ROWS = 365
HUGE = 240 * 1024 * 1024
CLOSE: dict[str, Any] = {
    "maintenance": {"onClose": "VacuumAndReindex", "analyzeParent": False},
    "premake": 0,
    "startFrom": "2026-01-01",
}
WRITE = "DO $do$ BEGIN EXECUTE format('COMMENT ON TABLE {} IS %L', {}); END $do$"


def write_long(database: Database, length: int, table: str = "run_2018", end: str = "''") -> None:
    """A comment of so many bytes and what comes behind, which is SQL; made on the server."""
    database.execute(WRITE.format(table, f"repeat('x', {length}) || {end}"))


def length(database: Database, table: str = "run_2018") -> int:
    ((found,),) = database.query(f"SELECT octet_length(obj_description('{table}'::regclass, 'pg_class'))")
    assert isinstance(found, int)
    return found


@pytest.mark.parametrize("form", [YEARS, YEARS + DEFAULT], ids=["concurrently", "with DEFAULT"])
def test_a_partition_whose_comment_is_too_long_for_a_mark_is_not_detached(database: Database, form: str) -> None:
    database.execute(form)
    for size in (LONGEST + 1, LONGEST, LONGEST - 100):
        write_long(database, size)
        report = keep(database.dsn, **DETACH)
        assert verbs(report) == [("detach", "StatementRejected")]
        assert "cannot write a mark into the comment of partition public.run_2018" in why(report)
        assert "shorten the comment" in why(report)
        assert attached(database) is True
        assert (length(database), rows_of_2018(database)) == (size, ROWS)
    write_long(database, LONGEST - 1000)
    assert verbs(keep(database.dsn, **DETACH)) == [("detach", "done")]
    assert marker.read(comment(database))[0] == "x" * (LONGEST - 1000)
    assert mark(database) is not None


def test_the_length_limit_of_a_comment_counts_bytes(pg_database: Database) -> None:
    pg_database.execute(YEARS)
    set_comment(pg_database, "€" * (LONGEST // 3))
    assert verbs(keep(pg_database.dsn, **DETACH)) == [("detach", "StatementRejected")]
    assert comment(pg_database) == "€" * (LONGEST // 3)


def test_240_megabytes_are_not_transferred_and_are_no_mark(pg_database: Database) -> None:
    """Of a partition, and of a table that was detached."""
    pg_database.execute(YEARS)
    expired(pg_database)
    held = mark(pg_database)
    assert held is not None
    line = (marker.write("", held) or "").replace("'", "''")
    write_long(pg_database, HUGE, end=f"E'\\n' || '{line}'")
    write_long(pg_database, HUGE, table="run_2026")
    with session(from_dsn(pg_database.dsn)) as connection:
        cursor = connection.execute(SQL("; ").join(about_table("public", "run", "SET", True, True, True)))
        longest = 0
        while True:
            longest = max([longest, *(len(str(value)) for row in cursor.fetchall() for value in row)])
            if not cursor.nextset():
                break
        assert longest < LONGEST
        inventory, plan = observe_and_plan(connection, policy(**DROP), NOW)
        assert (inventory.detached, plan.actions) == ((), ())
        assert table_lookup.find(connection, "public", "run_2018").parent is None
    assert rows_of_2018(pg_database) == ROWS
    assert length(pg_database) > HUGE


@FORMS
def test_a_comment_that_becomes_too_long_before_the_lock_keeps_the_table(database: Database, form: str) -> None:
    database.execute(form)
    expired(database)
    report = keep_before(database.dsn, "IN ACCESS EXCLUSIVE MODE", lambda: None, **DROP, mode="Apply")
    assert verbs(report) == [("drop", "done")]
    database.execute("DROP TABLE run; " + form)
    expired(database)
    report = keep_before(database.dsn, "pg_try_advisory_xact_lock", lambda: write_long(database, LONGEST + 1), **DROP)
    assert verbs(report) == [("drop", "TableChanged")]
    assert (length(database), rows_of_2018(database)) == (LONGEST + 1, ROWS)


def test_maintenance_that_cannot_be_marked_is_not_repeated_for_ever(database: Database) -> None:
    database.execute(YEARS)
    write_long(database, LONGEST - 500)
    before = database.query("SELECT pg_relation_filenode('run_2018_pkey')")
    for _ in range(2):
        report = keep(database.dsn, **CLOSE)
        assert verbs(report) == []
        (found,) = [each for each in report.after.findings if each.reason == "StatementRejected"]
        assert "cannot do what spec.maintenance.onClose asks with public.run_2018: the comment is too long" in str(
            found.error
        )
    assert database.query("SELECT pg_relation_filenode('run_2018_pkey')") == before
    assert length(database) == LONGEST - 500
    write_long(database, 60_000)
    assert verbs(keep(database.dsn, **CLOSE)) == [("vacuum", "done"), ("reindex", "done")]
    text = comment(database)
    assert text is not None
    assert text.startswith("x" * 60_000 + f"\n{marker.CLOSED_LABEL} ")
    assert verbs(keep(database.dsn, **CLOSE)) == []


MARKS = {
    "Infinity": '{"oid": Infinity}',
    "100,000 brackets": "[" * 60_000,
    "as many brackets as a line may have": "[" * (LONGEST_LINE - 100),
    "a number of 5,000 digits": '{"oid": ' + "9" * 5_000 + "}",
    "before the calendar": "from 0001-01-01T00:00:00+14:00",
    "beyond the calendar": "to 9999-12-31T23:59:59-14:00",
    "no zone": "since 2018-01-01T00:00:00",
    "true": "oid true",
}


@pytest.mark.parametrize("what", MARKS)
@pytest.mark.parametrize("label", [marker.LABEL, marker.CLOSED_LABEL])
def test_a_hostile_line_in_a_comment_stops_nothing_and_stays(database: Database, what: str, label: str) -> None:
    """On a partition, and on a table beside it that says it was detached."""
    database.execute(YEARS + "CREATE TABLE other (LIKE run_2018)")
    for table in ("run_2018", "run_2026", "other"):
        set_comment(database, f"theirs\n{label} {_line(database, table, MARKS[what])}", table)
    before = [comment(database, table) for table in ("run_2018", "run_2026", "other")]
    report = keep(database.dsn, **{**DROP, "maintenance": CLOSE["maintenance"]})
    assert verbs(report) == [("detach", "done")]
    text, found = marker.read(comment(database))
    assert found is not None
    assert [text, comment(database, "run_2026"), comment(database, "other")] == before
    assert database.query("SELECT to_regclass('other') IS NOT NULL") == [(True,)]
    assert rows_of_2018(database) == ROWS


@pytest.mark.parametrize("what", ["since 9999-12-29T00:00:00Z", "to 0001-01-05T00:00:00Z"])
def test_a_mark_of_the_ends_of_the_calendar_drops_nothing(database: Database, what: str) -> None:
    """It can be read, and is of its table: another user has written it."""
    database.execute(YEARS + "CREATE TABLE other (LIKE run_2018)")
    set_comment(database, f"{marker.LABEL} {_line(database, 'other', what)}", "other")
    assert ("detach", "done") in verbs(keep(database.dsn, **DROP))
    assert set(verbs(keep(database.dsn, **DROP))) <= {("drop", "StatementRejected")}
    assert database.query("SELECT to_regclass('other') IS NOT NULL") == [(True,)]


def _line(database: Database, table: str, what: str) -> str:
    """A line of its own for the table, with one value changed; or ``what`` itself."""
    if what[0] in "[{":
        return what
    ((oid, parent),) = database.query(f"SELECT '{table}'::regclass::oid::int8, 'run'::regclass::oid::int8")
    field, value = what.split()
    held: dict[str, Any] = {
        "oid": oid,
        "parent": parent,
        "table": "public.run",
        "from": "0001-01-03T00:00:00Z" if field == "to" else "2010-01-01T00:00:00Z",
        "to": "2011-01-01T00:00:00Z",
        "phase": "Detached",
        "since": "2020-01-01T00:00:00Z",
        "vacuumed": datetime.max.isoformat(),
    }
    return json.dumps({**held, field: True if value == "true" else value})
