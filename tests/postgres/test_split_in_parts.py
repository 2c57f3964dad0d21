"""An interval of more rows than may leave at once leaves in parts, each of which stands for itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from lab.operator import until
from lab.postgres import Database
from partwarden.errors import DatabaseUnreachable, TableBusy
from partwarden.planner.conversion import NewPartition
from partwarden.planner.recheck import Recheck
from partwarden.postgres import conversion_split, drain, split_move
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import maintain
from support.converted import ID, LEGACY, conversion, convert, prepare, swap, undo
from support.meanwhile import killing_after_each_ddl_command, policy
from support.splitting import (
    KEYS,
    LATER,
    MADE,
    PARTS,
    POLICY,
    ROWS,
    YEARS,
    edges,
    ends,
    goes_on,
    leave_all,
    parts,
    running,
    split,
)


@pytest.fixture
def converted(database: Database) -> Database:
    """The table with 8,041 rows of 2026 in its first partition, of which no more than 2,000 may leave at once."""
    database.execute(YEARS)
    convert(database, ID)
    return database


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run moves one part."""
    monkeypatch.setattr(conversion_split, "TOGETHER", 0.0)
    monkeypatch.setattr(conversion_split, "AIM", 10.0)


@pytest.mark.usefixtures("one_by_one")
def test_parts_leave_one_by_one_and_the_bounds_always_meet(converted: Database) -> None:
    before, said = converted.query(ROWS), list[str]()
    while said[-1:] != [f"run_2026 off {LEGACY}"]:
        said += ends(parts(converted.dsn))
        assert converted.query(ROWS) == before
        found = edges(converted)
        assert all(one[2] == other[1] for one, other in pairwise(found))
        assert [each[0] for each in found] == [LEGACY, "run_2026", "run_2027", "run_2028"]
        # Whether or not PostgreSQL believes the bounds, the rows keep to them.
        assert converted.query(f"SELECT count(*) FROM {LEGACY} WHERE at >= '{found[1][1]}'") == [(0,)]
        assert converted.query(f"SELECT count(*) FROM run_2026 WHERE at < '{found[1][1]}'") == [(0,)]
    assert len(said) == 5
    assert said[0].startswith("run_2026 (from 2026-09-")
    assert edges(converted)[1][1:] == ("2026-01-01 00:00:00+00", "2027-01-01 00:00:00+00")
    assert sorted(converted.query(MADE)) == [("c",), ("f",)]
    # As one that was made in one go.
    about = """SELECT (SELECT string_agg(pg_get_constraintdef(k.oid), ', ' ORDER BY k.contype) FROM pg_constraint k
                       WHERE k.conrelid = c.oid AND k.contype <> 'n'),
                      (SELECT count(*) FROM pg_index WHERE indrelid = c.oid AND indisvalid),
                      (SELECT string_agg(tgname || tgenabled::text, ', ') FROM pg_trigger WHERE tgrelid = c.oid)
               FROM pg_class c WHERE relname = %s"""
    assert converted.query(about, "run_2026") == converted.query(about, "run_2028")
    assert converted.query("SELECT count(*), bool_and(twice = n * 2) FROM run_2026") == [(8041, True)]
    assert converted.query("INSERT INTO run (at, n) VALUES ('2026-05-05Z', 1) RETURNING id") == [(10000,)]


def test_a_run_goes_on_until_the_interval_has_left_and_parts_are_as_large_as_time_allows(
    converted: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, sizes = converted.query(ROWS), list[int]()
    cut = conversion_split._Split._cut

    def noting(self: conversion_split._Split, action: Any, rows: int) -> Any:
        sizes.append(rows)
        return cut(self, action, rows)

    monkeypatch.setattr(conversion_split._Split, "_cut", noting)
    monkeypatch.setattr(conversion_split, "FIRST", 200)
    convert = PARTS["convert"] | {"splitMaxRows": 4000}
    assert ends(parts(converted.dsn, convert=convert))[0].startswith("run_2026 (from ")
    assert ends(parts(converted.dsn, convert=convert)) == [f"run_2026 off {LEGACY}"]
    assert sizes[:2] == [4000, 200]
    assert all(100 <= each <= 4000 for each in sizes)
    assert max(sizes[1:]) > 200
    assert converted.query(ROWS) == before
    assert sorted(converted.query(MADE)) == [("c",), ("f",)]


def test_what_cannot_leave_in_time_leaves_in_smaller_parts(
    converted: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server needs too long for it, or for as many."""
    before, tried = converted.query(ROWS), list[str]()
    begin = split_move.SplitMove._narrow

    def slow(self: split_move.SplitMove, remaining: Any) -> Any:
        ((rows,),) = self._connection.execute("SELECT count(*) FROM ONLY public.run_2026").fetchall()
        tried.append(str(rows))
        if rows > 1000:
            self._connection.execute("SELECT pg_sleep(30)")
        yield from begin(self, remaining)

    with monkeypatch.context() as patched:
        patched.setattr(split_move.SplitMove, "_narrow", slow)
        patched.setattr(drain, "UNDER_LOCK", 500)
        (said,) = ends(split(converted.dsn, convert=POLICY["convert"] | {"splitMaxRows": 9000}))
    assert said.startswith("run_2026 (from 2026-")
    assert len(tried) == 3
    assert converted.query(ROWS) == before
    assert ends(parts(converted.dsn)) == [f"run_2026 off {LEGACY}"]
    assert converted.query(ROWS) == before


def test_where_more_rows_come_than_may_leave_at_once_a_part_of_them_leaves(
    converted: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, come = split_move.SplitMove._begin, iter(["INSERT INTO run (id, at) VALUES (0, '2026-02-02Z')"])

    def beside(self: split_move.SplitMove) -> None:
        begin(self)
        for each in come:
            converted.execute(each)

    monkeypatch.setattr(split_move.SplitMove, "_begin", beside)
    (said,) = ends(split(converted.dsn, convert=POLICY["convert"] | {"splitMaxRows": 8041}))
    assert said.startswith("run_2026 (from 2026-")
    assert converted.query("SELECT count(*), count(DISTINCT id) FROM run") == [(30_001, 30_001)]


@pytest.mark.usefixtures("one_by_one")
def test_killed_after_any_command_all_rows_are_there_and_the_next_run_goes_on(converted: Database) -> None:
    before = converted.query(ROWS)
    parts(converted.dsn)
    killed_before, report, bounds = 0, None, edges(converted)
    for killed in killing_after_each_ddl_command(converted):
        try:
            report = parts(converted.dsn)
        except DatabaseUnreachable:
            assert converted.query(ROWS) == before, f"after command {killed}"
            assert edges(converted) == bounds, f"after command {killed}"
            killed_before = killed
        else:
            break
    assert killed_before > 6
    assert report is not None
    assert ends(report)[0].startswith("run_2026 (from 2026-")
    assert converted.query(ROWS) == before
    converted.execute("DROP EVENT TRIGGER count_ddl")
    while ends(parts(converted.dsn)) != [f"run_2026 off {LEGACY}"]:
        assert converted.query(ROWS) == before
    assert sorted(converted.query(MADE)) == [("c",), ("f",)]


def test_postgresql_reads_neither_table_again_when_they_are_attached(converted: Database) -> None:
    before = converted.query(ROWS)
    parts(converted.dsn)
    with session(from_dsn(converted.dsn)) as connection:
        connection.execute("SET client_min_messages = debug1")
        notices = list[str]()
        connection.add_notice_handler(lambda each: notices.append(str(each.message_primary)))
        maintain(connection, policy(**PARTS), now=LATER, patience=10.0)
    proven = [each for each in notices if "implied by existing constraints" in each]
    assert {LEGACY, "run_2026"} <= {each.split('"')[1] for each in proven}
    assert not [each for each in notices if "verifying table" in each and "run_" in each and "CHECK" in each]
    assert converted.query(ROWS) == before


def test_one_key_of_more_rows_than_may_leave_is_named(converted: Database) -> None:
    converted.execute("UPDATE run SET at = '2026-12-31 23:59:59.999999Z' WHERE at >= '2026-06-01Z'")
    before = converted.query(ROWS)
    (said,) = ends(parts(converted.dsn))
    assert "more than 2,000 rows (spec.convert.splitMaxRows) of it have the key 2026-12-31 23:59:59.999999+00" in said
    assert (converted.query(ROWS), edges(converted)[0][2]) == (before, "2027-01-01 00:00:00+00")


def test_one_key_of_many_rows_leaves_as_a_whole(converted: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    converted.execute("UPDATE run SET at = '2026-03-03Z' WHERE at BETWEEN '2026-03-03Z' AND '2026-05-04Z'")
    monkeypatch.setattr(conversion_split, "FIRST", 100)
    before = converted.query(ROWS)
    while ends(parts(converted.dsn)) != [f"run_2026 off {LEGACY}"]:
        assert converted.query(ROWS) == before
    assert converted.query(ROWS) == before


def test_a_trigger_of_the_partition_that_grows_is_named(converted: Database) -> None:
    parts(converted.dsn)
    converted.execute("""CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN new.n := 7; RETURN new; END $$;
        CREATE TRIGGER changing BEFORE INSERT ON run_2026 FOR EACH ROW EXECUTE FUNCTION change()""")
    before, bounds = converted.query(ROWS), edges(converted)
    (said,) = ends(parts(converted.dsn))
    assert "its trigger 'changing' would fire" in said or 'its trigger "changing" would fire' in said
    assert (converted.query(ROWS), edges(converted)) == (before, bounds)
    converted.execute("ALTER TABLE run_2026 DISABLE TRIGGER changing")
    assert ends(parts(converted.dsn)) == [f"run_2026 off {LEGACY}"]
    assert converted.query(ROWS) == before


def test_rows_that_would_not_be_the_same_there_do_not_move(database: Database) -> None:
    """A generated column holds what its expression does not give any more."""
    doubled = "CREATE OR REPLACE FUNCTION doubled(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2';"
    database.execute(doubled + YEARS.replace("(n * 2)", "(doubled(n))"))
    convert(database, ID)
    parts(database.dsn)
    before, bounds = database.query(ROWS), edges(database)
    database.execute(doubled.replace("* 2", "* 3"))
    (said,) = ends(parts(database.dsn))
    assert "rows were deleted, and" in said
    assert "which are not the same; all was undone" in said
    assert (database.query(ROWS), edges(database)) == (before, bounds)
    database.execute(doubled)
    assert ends(parts(database.dsn)) == [f"run_2026 off {LEGACY}"]
    assert database.query(ROWS) == before


class Edited(Recheck):
    """The policy is edited once a part has moved into a partition that has rows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._first = ""

    def why_stopped(self) -> str:
        found = edges(self._database)[1][1]
        self._first = self._first or found
        return "its policy was edited" if found != self._first else ""


@pytest.mark.parametrize("then", ["Undo", "Expired", "Never"])
def test_an_edit_stops_it_between_two_parts_and_nothing_outlasts_the_partitions(database: Database, then: str) -> None:
    database.execute(f"{YEARS} ALTER TABLE run DROP CONSTRAINT run_pkey, ADD PRIMARY KEY (id, at)")
    convert(database)
    before = database.query(ROWS)
    parts(database.dsn)
    assert ends(split(database.dsn, recheck=Edited(database), **PARTS))[0].startswith("run_2026 (from 2026-")
    assert sorted(database.query(MADE)) == [("c",), ("c",), ("f",), ("f",)]
    assert database.query(ROWS) == before
    if then == "Undo":
        assert undo(database.dsn, limit=8041) > 2000
        assert database.query(ROWS) == before
    elif then == "Expired":
        retention = {"keepFor": "1d", "onExpire": "Detach"}
        report = parts(database.dsn, retention=retention, convert={"mode": "Attach"})
        assert sorted(ends(report)) == ["run_2026", LEGACY]
    else:
        # What is left of the interval stays, and is a partition like any other.
        assert ends(parts(database.dsn, convert={"mode": "Attach"})) == []
        assert database.query(ROWS) == before
        assert ends(parts(database.dsn)) == [f"run_2026 off {LEGACY}"]
    assert sorted(database.query(MADE)) == ([("c",), ("f",)] if then == "Never" else [])


def test_what_has_left_counts_where_another_session_keeps_the_rest(
    converted: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts(converted.dsn)
    monkeypatch.setattr(conversion_split, "FIRST", 1000)
    run, moved = split_move.SplitGrowth.run, list[int]()

    def busy(self: split_move.SplitGrowth) -> None:
        if moved:
            raise TableBusy("cannot lock it: held by another session")
        moved.append(1)
        run(self)

    monkeypatch.setattr(split_move.SplitGrowth, "run", busy)
    before = converted.query(ROWS)
    (said,) = ends(parts(converted.dsn))
    assert said.startswith("run_2026 (from 2026-")
    (said,) = ends(parts(converted.dsn))
    assert "held by another session" in said
    assert converted.query(ROWS) == before


@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_each_type_leave_in_parts(database: Database, kind: str) -> None:
    said, checks = leave_all(database, kind, most=70)
    assert [each for each in said if each.startswith("run_2022 (from ")], said
    assert database.query("SELECT count(*) FROM run_2022") == [(260,)]
    assert len(checks) == 1, "the table was read again for the CHECK"


@pytest.mark.usefixtures("one_by_one")
def test_numbers_are_divided_as_numbers(database: Database) -> None:
    """In September 2001 the seconds since 1970 got one more digit."""
    database.execute("""CREATE TABLE run (id int PRIMARY KEY, at bigint NOT NULL); CREATE INDEX ON run (at);
        INSERT INTO run SELECT n, 980000000 + n * 86400 FROM generate_series(1, 300) n""")
    first, second, third = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (2000, 2002, 2003))
    ahead = (NewPartition(name="run_2002", lower=str(second), upper=str(third)),)
    made = replace(conversion(database, ID, ahead=ahead), lower=str(first), upper=str(second))
    prepare(database, made)
    swap(database.dsn, made)
    sizes, convert = [0], PARTS["convert"] | {"splitMaxRows": 70}
    while sum(sizes) < 300:
        parts(database.dsn, convert=convert, keyEncoding="EpochSeconds")
        ((rows,),) = database.query("SELECT count(*) FROM run_2001")
        sizes.append(int(str(rows)) - sum(sizes))
    assert all(0 < each <= 70 for each in sizes[1:])


def test_each_row_is_seen_exactly_once_beside_writers_and_readers(
    converted: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion_split, "FIRST", 500)
    convert = PARTS["convert"] | {"splitMaxRows": 1500}
    with running(converted) as sessions:
        goes_on(sessions)
        said: list[str] = []

        def done() -> bool:
            said.extend(ends(parts(converted.dsn, convert=convert)))
            return sessions.stop.is_set() or said[-1] == f"run_2026 off {LEGACY}"

        until("the year has left", done)
        goes_on(sessions)
    assert [each for each in said if each.startswith("run_2026 (from ")]
    assert converted.query("SELECT count(*), count(DISTINCT id) FROM run") == [
        (30_000 + sessions.inserted - sessions.deleted,) * 2
    ]
    assert converted.query("SELECT n FROM run WHERE id = 29000") == [(29_000 + sessions.updated,)]
    assert converted.query("SELECT count(*) FROM run_2026") == [(8041 + sessions.inserted - sessions.deleted,)]
