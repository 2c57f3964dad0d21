"""What others write into a database has limits, and what is beyond them is not transferred, or not taken."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from lab.postgres import Database
from partwarden.errors import StatementRejected
from partwarden.planner import marker
from partwarden.planner.marker import LONGEST
from partwarden.postgres import answers, catalog, ddl, table_state
from partwarden.postgres.connection import Session, connect, run, session
from partwarden.postgres.conninfo import from_dsn
from support.meanwhile import findings, keep
from support.observed import observe_table
from support.retirement import DETACH, DROP, FORMS, YEARS, attached, expired, mark, rows_of_2018, verbs, why
from support.statements import watch

NO_END = """
WITH RECURSIVE n(number, text) AS (SELECT 1, repeat('x', {})
                                   UNION ALL SELECT number + 1, text FROM n) SELECT number, text FROM n
"""


@pytest.fixture
def connection(pg_database: Database) -> Iterator[Session]:
    """A session whose errors are those of psycopg."""
    made = connect(from_dsn(pg_database.dsn))
    yield made
    made.close()


@pytest.mark.parametrize("size", [1, 60_000])
def test_rows_without_end_are_given_up_while_they_are_few(connection: Session, size: int) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(answers.UnreadAnswer, match="a query for number, text has more than 100,000 rows"):
            run(connection, "SELECT 1", NO_END.format(size))
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()
    assert connection.closed
    with pytest.raises(answers.UnreadAnswer):
        run(connection, "SELECT 1")


def test_answers_without_rows_are_counted_as_well(connection: Session) -> None:
    with pytest.raises(answers.UnreadAnswer):
        run(connection, "; ".join(["SELECT"] * (answers.MOST_ROWS + 1)))


def test_too_many_rows_are_an_error_about_the_database_that_a_user_can_act_on(pg_database: Database) -> None:
    with (
        pytest.raises(StatementRejected, match=f"database '{pg_database.name}' at .*for number, text .*drop or merge"),
        session(from_dsn(pg_database.dsn)) as connection,
    ):
        run(connection, NO_END.format(1))


def test_after_too_many_rows_the_session_can_be_connected_anew(connection: Session) -> None:
    with pytest.raises(answers.UnreadAnswer):
        run(connection, NO_END.format(1))
    connection.reconnect()
    assert run(connection, "SELECT 1 AS one")[0][0].one == 1


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 128, 1000])
def test_every_row_comes_however_they_are_read(connection: Session, count: int) -> None:
    query = f"SELECT n AS number, n || 'x' AS text FROM generate_series(1, {count}) n"
    first, none, second, last = run(connection, query, "SET LOCAL lock_timeout = 0", query, "SELECT 1")
    assert first == second == [(n, f"{n}x") for n in range(1, count + 1)]
    assert (none, last) == ([], [(1,)])


def test_an_error_after_rows_is_raised_and_the_session_goes_on(connection: Session) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        run(connection, "SELECT 1 / (900 - n) FROM generate_series(1, 1000) n", "SELECT 1")
    assert run(connection, "SELECT 1") == [[(1,)]]


def test_copy_is_answered_by_an_error(connection: Session) -> None:
    with pytest.raises(answers.UnreadAnswer, match="COPY_OUT"):
        run(connection, "COPY (SELECT 1) TO STDOUT")
    assert connection.closed


def test_a_table_whose_comment_is_too_long_may_be_a_detached_one_and_is_left_alone_and_reported(
    pg_database: Database,
) -> None:
    pg_database.execute(YEARS)
    expired(pg_database)
    held = mark(pg_database)
    assert held is not None
    line = (marker.write("", held) or "").replace("'", "''")
    write = "DO $do$ BEGIN EXECUTE format('COMMENT ON TABLE run_2018 IS %L', repeat('x', {}) || E'\\n{}'); END $do$"
    pg_database.execute(write.format(LONGEST, line))
    report = keep(pg_database.dsn, **DROP)
    assert verbs(report) == []
    assert "CommentTooLong" in [each.reason for each in findings(report)]
    assert rows_of_2018(pg_database) == 365
    pg_database.execute(write.format(100, line))
    report = keep(pg_database.dsn, **DROP)
    assert verbs(report) == [("drop", "done")]
    assert "CommentTooLong" not in [each.reason for each in findings(report)]


def test_comments_of_other_roles_are_neither_read_nor_reported_where_they_are_long(pg_database: Database) -> None:
    pg_database.execute(YEARS)
    other = pg_database.new_role()
    text = f"{marker.LABEL} {'x' * 3000}"
    pg_database.execute(f"CREATE TABLE theirs (); ALTER TABLE theirs OWNER TO {other.name}")
    pg_database.execute(f"COMMENT ON TABLE theirs IS '{text}'")
    with session(from_dsn(pg_database.dsn)) as connection:
        *_, marked = run(connection, *catalog.about_table("public", "run", "MEMBER", True, True, True))
    assert marked == []
    assert "CommentTooLong" not in [each.reason for each in findings(keep(pg_database.dsn, **DETACH))]


def test_marks_of_other_roles_cannot_push_out_those_of_the_owner(
    pg_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    pg_database.execute(YEARS)
    other = pg_database.new_role()
    for number in range(3):
        pg_database.execute(f"CREATE TABLE theirs_{number} (); ALTER TABLE theirs_{number} OWNER TO {other.name}")
        pg_database.execute(f"COMMENT ON TABLE theirs_{number} IS '{marker.LABEL} {{}}'")
    expired(pg_database)
    pg_database.execute("CREATE TABLE copy (LIKE run_2018); DROP TABLE copy")
    catalog.about_table.cache_clear()
    monkeypatch.setattr(table_state, "MOST_MARKED", 1)
    try:
        assert verbs(keep(pg_database.dsn, **DROP)) == [("drop", "done")]
    finally:
        catalog.about_table.cache_clear()


def test_bounds_of_a_megabyte_are_not_transferred(pg_database: Database) -> None:
    pg_database.execute("CREATE TABLE run (at text) PARTITION BY RANGE (at)")
    pg_database.execute(
        "DO $$ BEGIN EXECUTE format('CREATE TABLE run_a PARTITION OF run FOR VALUES FROM (%L) TO (%L)', "
        "repeat('a', 1000), 'b'); END $$"
    )
    found = observe_table(pg_database.dsn)
    assert [len(each) for each in found.unread] == [ddl.LONGEST_BOUNDS]


POLICY = "CREATE POLICY shown ON {} USING (note <> repeat('x', 3) || '{}')"


def test_a_row_security_policy_with_a_huge_expression_is_not_copied_and_named(pg_database: Database) -> None:
    pg_database.execute(YEARS)
    pg_database.execute(POLICY.format("run_2026", "x" * ddl.LONGEST_TEXT))
    report_of: dict[str, Any] = {"startFrom": "2026-01-01", "premake": 1}
    with pytest.raises(StatementRejected, match=r"row security policy 'shown'.*more than 65,536 characters"):
        keep(pg_database.dsn, **report_of)
    pg_database.execute("DROP POLICY shown ON run_2026;" + POLICY.format("run_2026", "x" * 1000))
    assert verbs(keep(pg_database.dsn, **report_of)) == [("create", "done")]


@FORMS
def test_a_check_that_is_too_long_proves_nothing_and_keeps_the_table(database: Database, form: str) -> None:
    """What is cut could say that all rows lie in the range, where the whole does not."""
    database.execute(form)
    expired(database)
    ((name,),) = database.query(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'run_2018'::regclass AND contype = 'c'"
    )
    database.execute(f'ALTER TABLE run_2018 DROP CONSTRAINT "{name}"')
    more = " OR ".join(f"note = '{number:0100}'" for number in range(100))
    range_ = "submitted_at >= '2018-01-01Z' AND submitted_at < '2019-01-01Z'"
    database.execute(f"ALTER TABLE run_2018 ADD CHECK ({range_} AND (note = 'row' OR {more}))")
    report = keep(database.dsn, **DROP)
    assert verbs(report) == [("drop", "StatementRejected")]
    assert "no CHECK holds its submitted_at to the range" in why(report)
    assert rows_of_2018(database) == 365
    assert attached(database) is False


def test_what_a_session_sends_can_be_watched(connection: Session) -> None:
    """What other tests rely on."""
    seen: list[str] = []
    watch(connection, seen.append, seen.append)
    run(connection, "SELECT 1", "SELECT 2")
    assert seen == ["SELECT 1; SELECT 2"] * 2
