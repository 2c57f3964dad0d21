"""Tables that were detached come back with all their rows when the policy keeps them longer."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lab.postgres import Database, Server
from partwarden.api.retention import KeyEncoding
from partwarden.errors import DatabaseUnreachable
from partwarden.planner.calendar import Range
from partwarden.planner.keys import Codec, KeyType
from support.meanwhile import keep, keep_while, kill_others
from support.retirement import (
    CHANGES,
    DEFAULT,
    DETACH,
    FORMS,
    KEEP_ALL,
    ROWS,
    YEARS,
    attached,
    comment,
    converge,
    edit_mark,
    keep_before,
    reading,
    rows_of_2018,
    set_comment,
    verbs,
    why,
)

RICH = """
    CREATE TABLE customer (id int PRIMARY KEY);
    ALTER TABLE run ADD customer int REFERENCES customer, ADD UNIQUE (submitted_at, id);
    CREATE INDEX ON run (note);
"""
CATALOG = """
    SELECT 'constraint', contype, pg_get_constraintdef(oid), convalidated FROM pg_constraint
    WHERE conrelid = 'run_2018'::regclass
    UNION ALL SELECT 'index', 'i', pg_get_indexdef(i.indexrelid), h.inhparent IS NOT NULL FROM pg_index i
    LEFT JOIN pg_inherits h ON h.inhrelid = i.indexrelid WHERE i.indrelid = 'run_2018'::regclass ORDER BY 1, 2, 3
"""


@FORMS
def test_a_table_is_reattached_as_it_was_with_all_its_rows(database: Database, form: str) -> None:
    database.execute(form + RICH)
    set_comment(database, "mine\n")
    before = database.query(CATALOG)
    assert converge(database, **DETACH) == [("detach", "done")]
    report = keep(database.dsn, **KEEP_ALL)
    assert verbs(report) == [("attach again", "done")]
    assert attached(database) is True
    assert database.query("SELECT count(*) FROM run WHERE submitted_at < '2019-01-01Z' AND note = 'row'") == [(ROWS,)]
    assert comment(database) == "mine\n"
    assert database.query(CATALOG) == before
    assert converge(database, **KEEP_ALL) == []
    # And again.
    assert converge(database, **DETACH) == [("detach", "done")]
    assert converge(database, **KEEP_ALL) == [("attach again", "done")]
    assert rows_of_2018(database) == ROWS


def test_a_table_without_a_comment_has_none_after_reattach(database: Database) -> None:
    database.execute(YEARS)
    converge(database, **DETACH)
    converge(database, **KEEP_ALL)
    assert database.query("SELECT FROM pg_description WHERE objoid = 'run_2018'::regclass") == []


def test_rows_of_its_range_in_default_prevent_reattach_and_are_counted(database: Database) -> None:
    database.execute(YEARS + DEFAULT)
    converge(database, **DETACH)
    database.execute("INSERT INTO run (submitted_at) VALUES ('2018-05-05Z')")
    report = keep(database.dsn, **KEEP_ALL)
    assert verbs(report) == [("attach again", "DefaultHasRows")]
    assert "1 row of its range" in why(report)
    assert "public.run_rest" in why(report)
    assert attached(database) is False
    database.execute("DELETE FROM run_rest")
    assert converge(database, **KEEP_ALL) == [("attach again", "done")]
    assert rows_of_2018(database) == ROWS


@pytest.mark.parametrize("moment", ["pg_try_advisory_xact_lock", "ATTACH PARTITION"])
def test_a_row_inserted_into_default_meanwhile_prevents_reattach(database: Database, moment: str) -> None:
    database.execute(YEARS + DEFAULT)
    converge(database, **DETACH)
    insert = "INSERT INTO run (submitted_at) VALUES ('2018-05-05Z')"
    report = keep_before(database.dsn, moment, lambda: database.execute(insert), **KEEP_ALL)
    assert verbs(report) == [("attach again", "DefaultHasRows")]
    assert rows_of_2018(database) == ROWS + 1


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("moment", ["WITH wanted", "pg_try_advisory_xact_lock"])
def test_a_table_changed_since_it_was_observed_is_not_reattached(database: Database, what: str, moment: str) -> None:
    database.execute(YEARS)
    converge(database, **DETACH)
    report = keep_before(database.dsn, moment, lambda: database.execute(CHANGES[what]), **KEEP_ALL)
    assert verbs(report) == [("attach again", "TableChanged")]


def test_a_table_whose_mark_has_another_range_is_not_reattached(database: Database) -> None:
    database.execute(YEARS)
    converge(database, **DETACH)
    edit_mark(database, range=Range(datetime(2017, 1, 1, tzinfo=UTC), datetime(2018, 1, 1, tzinfo=UTC)))
    report = keep(database.dsn, **KEEP_ALL)
    assert [each for each in verbs(report) if each[1] == "done"] == []
    assert attached(database) is False
    assert rows_of_2018(database) == ROWS


def test_a_table_that_differs_from_the_parent_stays_detached_and_the_reason_is_reported(database: Database) -> None:
    database.execute(YEARS)
    converge(database, **DETACH)
    database.execute("ALTER TABLE run ADD more int")
    report = keep(database.dsn, **KEEP_ALL)
    assert verbs(report) == [("attach again", "StatementRejected")]
    assert "more" in why(report)
    database.execute("ALTER TABLE run_2018 ADD more int")
    assert converge(database, **KEEP_ALL) == [("attach again", "done")]


def test_rows_outside_its_range_prevent_reattach_and_are_not_searched_for_in_default(database: Database) -> None:
    database.execute(YEARS + DEFAULT)
    converge(database, **DETACH)
    ((name,),) = database.query(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'run_2018'::regclass AND contype = 'c'"
    )
    database.execute(f"ALTER TABLE run_2018 DROP CONSTRAINT {name}")
    database.execute("INSERT INTO run_2018 (id, submitted_at) VALUES (0, '2016-05-05Z')")
    report = keep(database.dsn, **KEEP_ALL)
    assert verbs(report) == [("attach again", "StatementRejected")]
    assert "rows in it lie outside of its range, 2018-01-01T00:00:00Z to 2019-01-01T00:00:00Z" in why(report)
    assert "DEFAULT" not in why(report)
    database.execute("DELETE FROM run_2018 WHERE submitted_at < '2017-01-01Z'")
    assert converge(database, **KEEP_ALL) == [("attach again", "done")]


@FORMS
def test_a_long_transaction_that_holds_a_lock_is_named_and_not_waited_for(database: Database, form: str) -> None:
    database.execute(form)
    converge(database, **DETACH)
    with reading(database, "SELECT count(*) FROM run_2018") as reader:
        report = keep(database.dsn, patience=600, **KEEP_ALL)
        assert verbs(report) == [("attach again", "TableBusy")]
        assert f"pid {reader.info.backend_pid} (" in why(report)
    assert converge(database, **KEEP_ALL) == [("attach again", "done")]


@FORMS
def test_a_session_killed_before_any_round_trip_loses_no_row(server: Server, form: str) -> None:
    trip = 1
    while True:
        with server.new_database() as database:
            database.execute(form)
            set_comment(database, "mine")
            converge(database, **DETACH)
            try:
                keep_while(database.dsn, trip, lambda: kill_others(database), **KEEP_ALL)
            except DatabaseUnreachable:
                assert rows_of_2018(database) == ROWS
            except AssertionError:
                break  # There were fewer.
            assert {reason for _, reason in converge(database, **KEEP_ALL)} <= {"done"}
            assert attached(database) is True
            assert rows_of_2018(database) == ROWS
            assert comment(database) == "mine"
        trip += 1
    assert trip > 8


def test_no_check_is_left_where_the_table_meets_a_new_neighbour_of_other_bits(database: Database) -> None:
    """A UUID says more than its moment, and the bounds of a table that returns are those of its neighbours."""
    codec = Codec(KeyType.UUID, KeyEncoding.UUID_V7)
    old, end, far = (codec.literal(datetime(year, 1, 1, tzinfo=UTC)) for year in (2018, 2019, 2020))
    odd = end.replace("-0000-0000-", "-7000-8000-")
    database.execute(f"""CREATE TABLE run (at uuid NOT NULL) PARTITION BY RANGE (at);
        CREATE TABLE run_2018 PARTITION OF run FOR VALUES FROM ('{old}') TO ('{end}');
        CREATE TABLE rest PARTITION OF run DEFAULT; INSERT INTO run VALUES ('{old}')""")
    uuids = {"keyEncoding": "UUIDv7"}
    assert converge(database, **DETACH, **uuids) == [("create", "done"), ("detach", "done")]
    database.execute(f"CREATE TABLE next PARTITION OF run FOR VALUES FROM ('{odd}') TO ('{far}')")
    assert ("attach again", "done") in converge(database, **KEEP_ALL, **uuids)
    bounds = "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'run_2018'"
    assert database.query(bounds) == [(f"FOR VALUES FROM ('{old}') TO ('{odd}')",)]
    assert (
        database.query("SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid = 'run_2018'::regclass")
        == []
    )
