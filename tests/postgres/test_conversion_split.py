"""Intervals leave the table that was converted: no row is lost, seen twice or out of sight."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from lab.operator import until
from lab.postgres import Database
from partwarden.errors import DatabaseUnreachable, StatementRejected
from partwarden.planner.conversion_rules import Wanted
from partwarden.planner.recheck import Recheck
from partwarden.postgres import conversion_split, drain
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.conversion_engine import convert as convert_table
from partwarden.postgres.conversion_engine import observe_conversion
from partwarden.postgres.engine import maintain
from support.converted import ID, LEGACY, convert, undo
from support.meanwhile import killing_after_each_ddl_command, policy
from support.splitting import KEYS, LEFT, MADE, POLICY, ROWS, YEARS, ends, goes_on, leave_all, running, split

BOUNDS = """
SELECT c.relname, left(substring(pg_get_expr(c.relpartbound, 0) FROM 'FROM \\(''(.*?)''\\)'), 4),
       left(substring(pg_get_expr(c.relpartbound, 0) FROM 'TO \\(''(.*)''\\)'), 4)
FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'run'::regclass ORDER BY 2
"""
OWN_KEY = f"SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '{LEGACY}'::regclass AND contype = 'p'"


@pytest.fixture
def converted(database: Database) -> Database:
    """The table with rows of 2023 to 2026 in its first partition, which begins in 2020."""
    database.execute(YEARS)
    convert(database, ID)
    return database


def test_years_leave_one_by_one_the_youngest_first(converted: Database) -> None:
    before = converted.query(ROWS)
    years = [2026, 2025, 2024, 2023, 2022, 2021]
    for number in years:
        assert ends(split(converted.dsn)) == [f"run_{number} off {LEGACY}"]
        assert converted.query(ROWS) == before
        # The CHECK is for the next interval, and spares it a reading of the table.
        assert len(converted.query(LEFT)) == (1 if number > 2021 else 0)
        names = [name for name, lower, _ in converted.query(BOUNDS) if str(lower) >= str(number)]
        assert names == [f"run_{each}" for each in range(number, 2029)]
    # One interval that is left is a partition like any other.
    assert ends(split(converted.dsn)) == []
    assert converted.query(BOUNDS)[0] == (LEGACY, "2020", "2021")
    assert converted.query(
        "SELECT tableoid::regclass::text, count(*), bool_and(twice = n * 2) FROM run GROUP BY 1 ORDER BY 1"
    ) == [("run_2023", 4415, True), ("run_2024", 8784, True), ("run_2025", 8760, True), ("run_2026", 8041, True)]
    # All of a partition like those that were made for new rows: keys, indexes, triggers, identity.
    about = """SELECT (SELECT string_agg(pg_get_constraintdef(k.oid), ', ' ORDER BY k.contype) FROM pg_constraint k
                       WHERE k.conrelid = c.oid AND k.contype <> 'n'),
                      (SELECT count(*) FROM pg_index WHERE indrelid = c.oid),
                      (SELECT string_agg(tgname || tgenabled::text, ', ') FROM pg_trigger WHERE tgrelid = c.oid)
               FROM pg_class c WHERE relname = %s"""
    assert converted.query(about, "run_2026") == converted.query(about, "run_2028") == converted.query(about, LEGACY)
    assert converted.query("INSERT INTO run (at, n) VALUES ('2020-05-05Z', 1) RETURNING id") == [(10000,)]
    assert converted.query("SELECT indisvalid FROM pg_index WHERE indrelid = 'run'::regclass AND NOT indisvalid") == []


def test_killed_after_any_command_all_rows_are_there_and_the_next_run_goes_on(converted: Database) -> None:
    before, killed_before = converted.query(ROWS), 0
    report = None
    for killed in killing_after_each_ddl_command(converted):
        try:
            report = split(converted.dsn)
        except DatabaseUnreachable:
            assert converted.query(ROWS) == before, f"after command {killed}"
            assert converted.query("SELECT FROM pg_class WHERE relname = 'run_2026'") == []
            # There is a way back until rows have moved.
            assert converted.query(OWN_KEY) == [("PRIMARY KEY (id)",)], f"after command {killed}"
            killed_before = killed
        else:
            break
    assert killed_before > 9
    assert report is not None
    assert ends(report) == [f"run_2026 off {LEGACY}"]
    assert converted.query(ROWS) == before
    assert sorted(converted.query(MADE)) == [("c",), ("f",)]
    assert converted.query(BOUNDS)[:2] == [(LEGACY, "2020", "2026"), ("run_2026", "2026", "2027")]


def test_a_move_that_takes_too_long_under_the_lock_is_undone(
    converted: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = converted.query(ROWS)
    with monkeypatch.context() as patched:
        patched.setattr(drain, "UNDER_LOCK", 5)
        # No smaller part is tried.
        patched.setattr(conversion_split, "LEAST", 1_000_000)
        (said,) = ends(split(converted.dsn))
    # On a busy server the lock alone takes longer.
    assert "undone (canceling" in said
    assert (converted.query(ROWS), converted.query(BOUNDS)[0]) == (before, (LEGACY, "2020", "2027"))
    assert converted.query(OWN_KEY) == [("PRIMARY KEY (id)",)]
    assert ends(split(converted.dsn)) == [f"run_2026 off {LEGACY}"]
    assert converted.query(OWN_KEY) == [("PRIMARY KEY (id, at)",)]


def test_rows_that_come_while_others_are_copied_count_as_well(
    converted: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("partwarden.postgres.conversion_split._Split._cut", lambda _, action, rows: action)
    (said,) = ends(split(converted.dsn, convert=POLICY["convert"] | {"splitMaxRows": 8040}))
    assert "more than 8,040 rows (spec.convert.splitMaxRows) of its range lie in the partition" in said
    assert converted.query(BOUNDS)[0] == (LEGACY, "2020", "2027")


def test_a_row_beyond_the_new_bound_undoes_it(converted: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL takes our word for it: so it must not be given where it is not true."""
    before = converted.query(ROWS)
    whole = drain.Move._switched

    def forgetful(move: drain.Move, on: bool) -> Iterator[Any]:
        if on:
            # As an update that the mover missed, which its lock makes impossible.
            move._connection.execute(f"INSERT INTO public.{LEGACY} (id, at, n) VALUES (0, '2026-03-03Z', 1)".encode())
        yield from whole(move, on)

    with monkeypatch.context() as patched:
        patched.setattr(drain.Move, "_switched", forgetful)
        (said,) = ends(split(converted.dsn))
    assert "are left in public.run_until_2026" in said
    assert (converted.query(ROWS), converted.query(BOUNDS)[0]) == (before, (LEGACY, "2020", "2027"))


def test_foreign_keys_that_point_to_it_are_named_before_anything_is_done(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(f"""{YEARS} ALTER TABLE run DROP CONSTRAINT run_pkey, ADD PRIMARY KEY (id, at);
        CREATE TABLE log (run bigint, at timestamptz, FOREIGN KEY (run, at) REFERENCES run)""")
    convert(database)
    monkeypatch.setattr("partwarden.postgres.conversion_split._Split._outside", stop)
    (said,) = ends(split(database.dsn))
    assert "foreign keys of public.log point to public.run" in said
    assert database.query(BOUNDS)[0] == (LEGACY, "2020", "2027")


def test_what_forbids_a_move_is_said_before_anything_is_prepared(converted: Database) -> None:
    converted.execute(f"CREATE RULE noted AS ON INSERT TO {LEGACY} DO ALSO NOTHING")
    (said,) = ends(split(converted.dsn))
    assert "it has rules" in said
    assert converted.query(LEFT) == []
    assert converted.query(OWN_KEY) == [("PRIMARY KEY (id)",)]


class Edited(Recheck):
    """The policy is edited once the index for the wider key is built."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def why_stopped(self) -> str:
        return "its policy was edited" if ("i",) in self._database.query(MADE) else ""


@pytest.mark.parametrize("then", ["Undo", "Expired"])
def test_an_edit_stops_it_before_the_key_gives_way_and_nothing_of_it_outlasts_the_partition(
    converted: Database, then: str
) -> None:
    report = split(converted.dsn, recheck=Edited(converted))
    assert "its policy was edited" in report.stopped
    assert sorted(converted.query(MADE)) == [("c",), ("f",), ("i",)]
    assert converted.query(OWN_KEY) == [("PRIMARY KEY (id)",)]
    before = converted.query(ROWS)
    if then == "Undo":
        undo(converted.dsn)
        assert converted.query(ROWS) == before
    else:
        retention = {"keepFor": "1d", "onExpire": "Detach"}
        assert ends(split(converted.dsn, retention=retention, convert={"mode": "Attach"})) == [LEGACY]
        assert converted.query(ROWS.replace("FROM run", f"FROM {LEGACY} run")) == before
    assert converted.query(MADE) == []


def test_what_a_split_has_left_goes_before_the_partition_does_wherever_that_is_interrupted(
    converted: Database,
) -> None:
    split(converted.dsn, recheck=Edited(converted))
    before, killed_before = converted.query(ROWS), 0
    for killed in killing_after_each_ddl_command(converted):
        try:
            retention = {"keepFor": "1d", "onExpire": "Detach"}
            report = split(converted.dsn, retention=retention, convert={"mode": "Attach"})
        except DatabaseUnreachable:
            of = "run" if converted.query(BOUNDS)[0][0] == LEGACY else f"{LEGACY} run"
            assert converted.query(ROWS.replace("FROM run", f"FROM {of}")) == before, f"after command {killed}"
            killed_before = killed
        else:
            assert not [each.error for each in report.outcomes if each.error]
            break
    assert killed_before > 3
    assert converted.query(MADE) == []
    assert converted.query(BOUNDS)[0][0] != LEGACY
    assert converted.query(ROWS.replace("FROM run", f"FROM {LEGACY} run")) == before


def test_the_time_for_locks_begins_when_they_are_asked_for(
    converted: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VACUUM, and reading all rows, may take hours before."""
    left, run = list[float](), drain.Move.run

    def noting(move: drain.Move) -> None:
        left.append(move._deadline - time.monotonic())
        run(move)

    monkeypatch.setattr(drain.Move, "run", noting)
    assert ends(split(converted.dsn, patience=0.0)) == [f"run_2026 off {LEGACY}"]
    assert left[0] > conversion_split.PATIENCE - 1


def test_there_is_no_way_back_once_a_narrow_key_has_gone(converted: Database) -> None:
    split(converted.dsn)
    with pytest.raises(StatementRejected, match=r"was split.* rows lie in other partitions: .* in public.run_2026"):
        undo(converted.dsn, limit=1_000_000)


def test_with_a_key_that_was_wide_enough_rows_move_back_within_the_limit(database: Database) -> None:
    database.execute(f"{YEARS} ALTER TABLE run DROP CONSTRAINT run_pkey, ADD PRIMARY KEY (id, at)")
    convert(database)
    before = database.query(ROWS)
    assert ends(split(database.dsn)) == [f"run_2026 off {LEGACY}"]
    # The CHECK that is left says what the bounds say, and would refuse what moves back.
    assert sorted(database.query(MADE)) == [("c",), ("f",)]
    with pytest.raises(StatementRejected, match=r"8,041 rows|at least 8,001 rows in public.run_2026"):
        undo(database.dsn, limit=8000)
    assert undo(database.dsn, limit=8041) == 8041
    assert database.query(ROWS) == before
    assert (database.query(LEFT), database.query("SELECT relkind FROM pg_class WHERE relname = 'run'")) == (
        [],
        [("r",)],
    )


class Stopped(Exception):
    """A run that ends there."""


def stop(*_: object) -> None:
    raise Stopped


@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_each_type_are_split(database: Database, kind: str) -> None:
    _, checks = leave_all(database, kind)
    assert database.query("SELECT count(*) FROM run_2022") == [(260,)]
    assert len(checks) == 1, "the table was read again for the CHECK"


def test_while_the_check_stands_rows_are_written_whatever_a_session_calls_its_tables(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(
        "CREATE TABLE run (id int PRIMARY KEY, at date NOT NULL); INSERT INTO run VALUES (1, '2021-05-05')"
    )
    wanted = Wanted(policy(**POLICY), True, None)
    monkeypatch.setattr("partwarden.postgres.conversion_split._Split._build", stop)
    with session(from_dsn(database.dsn)) as connection:
        convert_table(connection, wanted, observe_conversion(connection, wanted), 10.0, lambda *_: None)
        with pytest.raises(Stopped):
            maintain(connection, policy(**POLICY), now=datetime(datetime.now(UTC).year + 3, 6, 1, tzinfo=UTC))
    assert database.query(MADE) == [("f",), ("c",)]
    with database.connect() as other:
        other.execute("CREATE TEMP TABLE date (n int)")
        other.execute("INSERT INTO run VALUES (2, '2021-05-05')")
    assert database.query("SELECT count(*) FROM run") == [(2,)]


# Beside others.


def test_each_row_is_seen_exactly_once_beside_writers_and_readers(converted: Database) -> None:
    with running(converted) as sessions:
        goes_on(sessions)
        for year in (2026, 2025):
            said: list[str] = []

            def done(year: int = year, said: list[str] = said) -> bool:
                said[:] = ends(split(converted.dsn))
                return sessions.stop.is_set() or said == [f"run_{year} off {LEGACY}"]

            until("the year has left", done)
            goes_on(sessions)
    assert converted.query("SELECT count(*), count(DISTINCT id) FROM run") == [
        (30_000 + sessions.inserted - sessions.deleted,) * 2
    ]
    assert converted.query("SELECT n FROM run WHERE id = 29000") == [(29_000 + sessions.updated,)]
    assert converted.query("SELECT count(*) FROM run_2026") == [(8041 + sessions.inserted - sessions.deleted,)]
