"""Detached tables are dropped after their grace, and nothing else ever is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lab.postgres import Database, Server
from partwarden.errors import DatabaseUnreachable
from partwarden.planner import marker
from partwarden.planner.calendar import Range
from partwarden.planner.marker import Phase
from support.meanwhile import keep, keep_while, kill_others, waiting
from support.retirement import (
    CHANGES,
    DEFAULT,
    DETACH,
    DROP,
    LONG_AGO,
    YEARS,
    attached,
    comment,
    converge,
    edit_mark,
    expired,
    keep_before,
    reading,
    rows_of_2018,
    set_comment,
    verbs,
    why,
)

ROWS = 365
FORMS = pytest.mark.parametrize("form", [YEARS, YEARS + DEFAULT], ids=["concurrently", "with DEFAULT"])


def is_there(database: Database, table: str = "run_2018") -> bool:
    return database.query(f"SELECT to_regclass('{table}') IS NOT NULL") == [(True,)]


@FORMS
def test_a_table_is_dropped_after_its_grace_and_not_before(database: Database, form: str) -> None:
    database.execute(form)
    assert verbs(keep(database.dsn, **DROP)) == [("detach", "done")]
    assert verbs(keep(database.dsn, **DROP)) == []
    assert is_there(database)
    edit_mark(database, since=LONG_AGO)
    report = keep(database.dsn, **DROP)
    assert verbs(report) == [("drop", "done")]
    assert not is_there(database)
    assert converge(database, **DROP) == []
    assert database.query("SELECT count(*) FROM run WHERE submitted_at > '2026-01-01Z'") == [(1,)]


def test_a_clock_that_runs_ahead_here_does_not_shorten_the_grace(database: Database) -> None:
    database.execute(YEARS)
    expired(database)
    # By the clock of the plan the grace is over, by the server's it is not.
    edit_mark(database, since=datetime.now(UTC) + timedelta(days=1))
    retention = {**DROP["retention"], "grace": "0s"}
    assert verbs(keep(database.dsn, **{**DROP, "retention": retention})) == []
    edit_mark(database, since=LONG_AGO)
    later = datetime.now(UTC) + timedelta(days=1)
    report = keep_before(database.dsn, "pg_try_advisory_xact_lock", lambda: edit_mark(database, since=later), **DROP)
    assert verbs(report) == [("drop", "TableChanged")]
    assert is_there(database)


def test_on_expire_detach_never_drops(database: Database) -> None:
    database.execute(YEARS)
    expired(database)
    assert converge(database, **DETACH) == []
    assert is_there(database)


BY_HAND: dict[str, dict[str, Any]] = {
    "another table's mark": {"oid": 1},
    "another parent's mark": {"parent": 1},
    "a range that is not old": {"range": Range(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))},
    "a range that it never had": {"range": Range(datetime(2017, 1, 1, tzinfo=UTC), datetime(2018, 1, 1, tzinfo=UTC))},
    "a wider range": {"range": Range(datetime(2010, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC))},
    "not yet": {"since": datetime(9000, 1, 1, tzinfo=UTC)},
}


@pytest.mark.parametrize("what", BY_HAND)
def test_a_mark_that_was_edited_drops_nothing(database: Database, what: str) -> None:
    database.execute(YEARS)
    expired(database)
    edit_mark(database, **BY_HAND[what])
    keep(database.dsn, **DROP)
    keep(database.dsn, **DROP)
    assert rows_of_2018(database) == ROWS


def test_a_phase_that_was_edited_begins_the_grace_anew(database: Database) -> None:
    database.execute(YEARS)
    expired(database)
    edit_mark(database, phase=Phase.DETACHING)
    assert verbs(keep(database.dsn, **DROP)) == [("confirm as detached", "done")]
    assert converge(database, **DROP) == []
    assert rows_of_2018(database) == ROWS


def test_a_copy_of_the_mark_drops_nothing(database: Database) -> None:
    database.execute(YEARS)
    expired(database)
    database.execute("CREATE TABLE run_2017 (LIKE run_2018 INCLUDING ALL); CREATE TABLE other (LIKE run)")
    for table in ("run_2017", "other"):
        set_comment(database, comment(database), table)
    assert verbs(keep(database.dsn, **DROP)) == [("drop", "done")]
    assert is_there(database, "run_2017")
    assert is_there(database, "other")
    assert converge(database, **DROP) == []


ALL_CHANGES = {
    **CHANGES,
    "child of another": "CREATE TABLE other (LIKE run); ALTER TABLE run_2018 INHERIT other",
    "a parent itself": "CREATE TABLE other () INHERITS (run_2018)",
    "another name": "ALTER TABLE run_2018 RENAME TO run_old; CREATE TABLE run_2018 (LIKE run)",
}


@pytest.mark.parametrize("what", ALL_CHANGES)
@pytest.mark.parametrize("moment", ["WITH wanted", "pg_try_advisory_xact_lock", "LOCK TABLE"])
def test_a_table_changed_since_it_was_observed_is_not_dropped(database: Database, what: str, moment: str) -> None:
    database.execute(YEARS)
    expired(database)
    report = keep_before(database.dsn, moment, lambda: database.execute(ALL_CHANGES[what]), **DROP)
    assert verbs(report) == [("drop", "TableChanged")]
    assert is_there(database)


@FORMS
@pytest.mark.parametrize("row", ["2026-07-07Z", "2020-01-01Z"])
def test_a_table_that_may_hold_other_rows_is_not_dropped(database: Database, form: str, row: str) -> None:
    database.execute(form)
    expired(database)
    ((name,),) = database.query(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'run_2018'::regclass AND contype = 'c'"
    )
    database.execute(f"""ALTER TABLE run_2018 DROP CONSTRAINT "{name}";
        INSERT INTO run_2018 (id, submitted_at) VALUES (-1, '{row}')""")
    report = keep(database.dsn, **DROP)
    assert verbs(report) == [("drop", "StatementRejected")]
    assert "no CHECK holds its submitted_at to the range" in why(report)
    database.execute("""DELETE FROM run_2018 WHERE id = -1;
        ALTER TABLE run_2018 ADD CHECK (submitted_at >= '2018-01-01Z' AND submitted_at < '2019-01-01Z')""")
    assert verbs(keep(database.dsn, **DROP)) == [("drop", "done")]


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("CREATE VIEW report AS SELECT * FROM run_2018", "report"),
        ("CREATE MATERIALIZED VIEW report AS SELECT * FROM run_2018", "report"),
        ("CREATE TABLE item (run bigint, at timestamptz, FOREIGN KEY (run, at) REFERENCES run_2018)", "item"),
    ],
)
def test_dependent_objects_keep_the_table_and_are_named(database: Database, what: str, named: str) -> None:
    database.execute(YEARS)
    expired(database)
    database.execute(what)
    report = keep(database.dsn, **DROP)
    assert verbs(report) == [("drop", "StatementRejected")]
    assert named in why(report)
    assert "CASCADE is never used" in why(report)
    assert rows_of_2018(database) == ROWS


@pytest.mark.parametrize("what", ["SELECT count(*) FROM run_2018", "SELECT FROM customer"])
def test_a_long_transaction_that_holds_a_lock_is_named_and_not_waited_for(database: Database, what: str) -> None:
    database.execute(f"""{YEARS} CREATE TABLE customer (id int PRIMARY KEY);
        ALTER TABLE run ADD customer int REFERENCES customer""")
    expired(database)
    with reading(database, what) as reader:
        report = keep(database.dsn, patience=600, **DROP)
        assert verbs(report) == [("drop", "TableBusy")]
        assert f'held by pid {reader.info.backend_pid} (month\'s end, role "postgres")' in why(report)
        assert not waiting(database)
    assert verbs(keep(database.dsn, **DROP)) == [("drop", "done")]
    assert database.query("SELECT count(*) FROM customer") == [(0,)]


def test_a_session_killed_before_any_round_trip_drops_all_or_nothing(server: Server) -> None:
    trip = 1
    while True:
        with server.new_database() as database:
            database.execute(YEARS)
            expired(database)
            try:
                keep_while(database.dsn, trip, lambda: kill_others(database), **DROP)
            except DatabaseUnreachable:
                if is_there(database):
                    assert rows_of_2018(database) == ROWS
            except AssertionError:
                break  # There were fewer.
            assert {reason for _, reason in converge(database, **DROP)} <= {"done"}
            assert not is_there(database)
            assert database.query("SELECT count(*) FROM run") == [(1,)]
        trip += 1
    assert trip > 6


def test_a_table_that_cannot_be_dropped_delays_no_other_and_no_new_partition(database: Database) -> None:
    database.execute(YEARS)
    database.execute("CREATE TABLE run_2017 PARTITION OF run FOR VALUES FROM ('2017-01-01Z') TO ('2018-01-01Z')")
    expired(database)
    edit_mark(database, "run_2017", since=LONG_AGO)
    database.execute("CREATE VIEW report AS SELECT * FROM run_2017")
    report = keep(database.dsn, **{**DROP, "premake": 1})
    assert verbs(report) == [("create", "done"), ("drop", "StatementRejected"), ("drop", "done")]
    assert attached(database, "run_2027") is True
    assert is_there(database, "run_2017")


def test_a_key_in_another_encoding_and_of_another_type(database: Database) -> None:
    for parent, type_, at, fields in (
        ("a", "date", "'{}-01-01'", {}),
        ("b", "timestamp", "'{}-01-01'", {}),
        ("c", "bigint", "extract(epoch FROM '{}-01-01Z'::timestamptz)::bigint", {"keyEncoding": "EpochSeconds"}),
        (
            "d",
            "bigint",
            "1000 * extract(epoch FROM '{}-01-01Z'::timestamptz)::bigint",
            {"keyEncoding": "EpochMilliseconds"},
        ),
    ):
        database.execute(f'CREATE TABLE {parent} ("at" {type_} NOT NULL) PARTITION BY RANGE ("at")')
        for year in (2018, 2026):
            ((lower, upper),) = database.query(f"SELECT ({at.format(year)})::text, ({at.format(year + 1)})::text")
            database.execute(
                f"CREATE TABLE {parent}_{year} PARTITION OF {parent} FOR VALUES FROM ('{lower}') TO ('{upper}')"
            )
        named = {**DROP, **fields, "table": {"name": parent}}
        assert verbs(keep(database.dsn, **named)) == [("detach", "done")]
        held = marker.read(comment(database, f"{parent}_2018"))[1]
        assert held is not None
        edit_mark(database, f"{parent}_2018", since=LONG_AGO)
        assert verbs(keep(database.dsn, **named)) == [("drop", "done")]
