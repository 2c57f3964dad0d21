"""What others have done to the tables beside a split in parts: it goes on, or says what stands in its way."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest

from lab.operator import until
from lab.postgres import Database
from partwarden.errors import DatabaseUnreachable
from partwarden.postgres import conversion_split, drain, split_move
from support.converted import ID, LEGACY, convert
from support.meanwhile import killing_after_each_ddl_command
from support.splitting import MADE, POLICY, ROWS, YEARS, edges, ends, parts, split


@pytest.fixture(autouse=True)
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run moves one part."""
    monkeypatch.setattr(conversion_split, "TOGETHER", 0.0)
    monkeypatch.setattr(conversion_split, "AIM", 10.0)


@pytest.fixture
def begun(database: Database) -> Database:
    """The table with rows of 2023 to 2026, two parts of which have left its first partition."""
    database.execute(YEARS)
    convert(database, ID)
    parts(database.dsn)
    parts(database.dsn)
    return database


def test_no_statement_of_a_later_part_reads_all_of_the_table(begun: Database) -> None:
    """Under the lock there is a second for it, whatever statistics say is left there."""

    def scans() -> object:
        """Once the server has counted what was deleted, which it does later."""
        ((moved,),) = begun.query("SELECT count(*) FROM run_2026")
        of = f"FROM pg_stat_user_tables WHERE relname = '{LEGACY}' AND n_tup_del >= {moved}"
        return until("the deletion was counted", lambda: begun.query(f"SELECT seq_scan {of}"))

    before = scans()
    most = POLICY["convert"] | {"splitMaxRows": 5000}
    assert ends(parts(begun.dsn, convert=most)) == [f"run_2026 off {LEGACY}"]
    assert scans() == before


def test_a_session_that_vacuums_the_partition_that_grows_is_waited_for(
    begun: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As autovacuum is, which gives way to what waits a second, and has much to do there."""
    opened, held, opening = threading.Event(), threading.Event(), split_move.SplitMove._open

    def vacuum() -> None:
        opened.wait(60)
        with psycopg.connect(begun.dsn) as other:
            other.execute("LOCK TABLE run_2026 IN SHARE UPDATE EXCLUSIVE MODE")
            held.set()
            time.sleep(0.7)

    def noting(move: split_move.SplitMove) -> Any:
        row = opening(move)
        opened.set()
        assert held.wait(60)
        return row

    monkeypatch.setattr(split_move.SplitMove, "_open", noting)
    thread = threading.Thread(target=vacuum)
    thread.start()
    try:
        assert ends(parts(begun.dsn))[0].startswith("run_2026 (from 2026-")
    finally:
        opened.set()
        thread.join()


def test_what_is_built_once_more_with_each_attach_is_named_before_anything_is_done(begun: Database) -> None:
    exclude = "ALTER TABLE run ADD CONSTRAINT once EXCLUDE USING btree (id WITH =, at WITH =)"
    if begun.server.major < 17:
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            begun.execute(exclude)
        return
    begun.execute(exclude)
    indexes, bounds = begun.query("SELECT count(*) FROM pg_index"), edges(begun)
    (said,) = ends(parts(begun.dsn))
    assert "a constraint EXCLUDE, or key WITHOUT OVERLAPS, of public.run is built once more with each ATTACH" in said
    assert (begun.query("SELECT count(*) FROM pg_index"), edges(begun)) == (indexes, bounds)
    begun.execute("ALTER TABLE run DROP CONSTRAINT once")
    assert ends(parts(begun.dsn))[0].startswith("run_2026 (from 2026-")


def test_another_operator_that_has_moved_the_rest_meanwhile_is_not_repeated(
    begun: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion_split, "TOGETHER", 60.0)
    monkeypatch.setattr(conversion_split, "FIRST", 500)
    left_of, said = conversion_split._Split._left_of, list[str]()
    before, moves = begun.query(ROWS), list[str]()
    run = split_move.SplitGrowth.run

    def beside(self: conversion_split._Split, part: Any) -> Any:
        monkeypatch.setattr(conversion_split._Split, "_left_of", left_of)
        while said[-1:] != [f"run_2026 off {LEGACY}"]:
            said.extend(ends(parts(begun.dsn)))
        moves.clear()
        return left_of(self, part)

    def noting(self: split_move.SplitGrowth) -> None:
        moves.append(self.subject)
        run(self)

    monkeypatch.setattr(split_move.SplitGrowth, "run", noting)
    monkeypatch.setattr(conversion_split._Split, "_left_of", beside)
    (ended,) = ends(parts(begun.dsn))
    assert ended.startswith("run_2026 (from 2026-")
    assert moves == []
    assert begun.query(ROWS) == before
    assert edges(begun)[1][1:] == ("2026-01-01 00:00:00+00", "2027-01-01 00:00:00+00")


def test_of_a_partition_that_grows_nothing_is_left_where_the_user_has_dropped_the_other(begun: Database) -> None:
    ((legacy,),) = begun.query(f"SELECT '{LEGACY}'::regclass::oid::text")
    begun.execute(f"DROP TABLE {LEGACY}; DROP FUNCTION partwarden_split_{legacy}()")
    assert begun.query(MADE) == [("f",), ("c",)]
    retention = {"keepFor": "1d", "onExpire": "Detach"}
    assert ends(parts(begun.dsn, retention=retention, convert={"mode": "Attach"})) == ["run_2026"]
    assert begun.query(MADE) == []


@pytest.mark.parametrize("then", ["Expired", "Split"])
def test_where_the_tables_are_given_to_a_member_of_their_owner_nothing_is_left(begun: Database, then: str) -> None:
    give = "ALTER TABLE run OWNER TO {0}; ALTER TABLE run_2026 OWNER TO {0}; ALTER TABLE " + LEGACY + " OWNER TO {0};"
    functions = begun.query("SELECT oid::regprocedure::text FROM pg_proc WHERE proname ~ '^partwarden_split'")
    begun.execute("CREATE ROLE keeper; CREATE ROLE heir IN ROLE keeper; GRANT CREATE ON SCHEMA public TO keeper")
    try:
        begun.execute("".join(f"ALTER FUNCTION {name} OWNER TO keeper;" for (name,) in functions) + give.format("heir"))
        if then == "Expired":
            retention = {"keepFor": "1d", "onExpire": "Detach"}
            assert sorted(ends(parts(begun.dsn, retention=retention, convert={"mode": "Attach"}))) == [
                "run_2026",
                LEGACY,
            ]
            assert begun.query(MADE) == []
        else:
            while (said := ends(parts(begun.dsn))) != [f"run_2026 off {LEGACY}"]:
                assert said[0].startswith("run_2026 (from 2026-")
            # Those of the first partition stay until the last interval has left.
            assert begun.query(MADE) == [("f",), ("c",)]
            assert begun.query(
                "SELECT count(*) FROM pg_constraint WHERE conrelid = 'run_2026'::regclass AND contype = 'c'"
            ) == [(1,)]
    finally:
        begun.execute("DROP OWNED BY keeper, heir CASCADE; DROP ROLE keeper, heir")


@pytest.mark.parametrize("year", [2019, 2021])
def test_where_the_user_has_moved_the_beginning_the_check_says_so_too(begun: Database, year: int) -> None:
    """Else ATTACH would read all of the table, or rows of that range be refused."""
    upper = edges(begun)[0][2]
    begun.execute(f"""ALTER TABLE run DETACH PARTITION {LEGACY};
        ALTER TABLE run ATTACH PARTITION {LEGACY} FOR VALUES FROM ('{year}-01-01Z') TO ('{upper}')""")
    before = begun.query(ROWS)
    assert ends(parts(begun.dsn))[0].startswith("run_2026 (from 2026-")
    says = (
        f"SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '{LEGACY}'::regclass AND contype = 'c'"
    )
    ((check,),) = begun.query(says + " AND conname ~ '^partwarden'")
    assert f"at >= '{year}-01-01 00:00:00+00'" in str(check)
    assert begun.query(ROWS) == before


def test_a_check_that_only_the_partition_that_grows_has_is_named_with_it(begun: Database) -> None:
    begun.execute("ALTER TABLE run_2026 ADD CONSTRAINT late CHECK (n > 26000) NOT VALID")
    before, bounds = begun.query(ROWS), edges(begun)
    (said,) = ends(parts(begun.dsn))
    assert said.startswith(f"cannot move rows of partition public.{LEGACY} into public.run_2026: rows of its range")
    assert 'break the constraint "late"' in said
    assert said.endswith("correct those rows, or drop it on public.run or public.run_2026")
    assert (begun.query(ROWS), edges(begun)) == (before, bounds)
    begun.execute("ALTER TABLE run_2026 DROP CONSTRAINT late")
    assert ends(parts(begun.dsn))[0].startswith("run_2026 (from 2026-")


def test_no_row_moves_to_where_a_crash_takes_it(begun: Database) -> None:
    begun.execute("ALTER TABLE run_2026 SET UNLOGGED")
    bounds = edges(begun)
    (said,) = ends(parts(begun.dsn))
    assert said.endswith("ALTER TABLE public.run_2026 SET LOGGED")
    assert edges(begun) == bounds
    begun.execute(f"ALTER TABLE {LEGACY} SET UNLOGGED")
    assert ends(parts(begun.dsn))[0].startswith("run_2026 (from 2026-")


def test_rows_of_the_last_moment_that_a_rounded_key_knows_leave_together(database: Database) -> None:
    database.execute("""CREATE TABLE run (id int PRIMARY KEY, at timestamptz(0) NOT NULL); CREATE INDEX ON run (at);
        INSERT INTO run SELECT n, '2026-12-31 23:59:59Z' FROM generate_series(1, 2500) n""")
    convert(database, ID)
    (said,) = ends(parts(database.dsn))
    assert "more than 2,000 rows (spec.convert.splitMaxRows) of it have the key 2026-12-31 23:59:59+00" in said


@pytest.mark.parametrize("writes", [False, True])
def test_what_is_too_slow_is_tried_with_fewer_rows_down_to_the_fewest(
    database: Database, monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    """Also where the limit is far above what is there; and others go on as long as they have waited."""
    database.execute(YEARS)
    convert(database, ID)
    tried, waited, before = list[int](), list[float](), database.query(ROWS)
    narrow, cut = split_move.SplitMove._narrow, conversion_split._Split._cut

    def slow(self: split_move.SplitMove, remaining: Any) -> Any:
        ((rows,),) = self._connection.execute("SELECT count(*) FROM ONLY public.run_2026").fetchall()
        tried.append(int(rows))
        if rows > (0 if writes else 3000):
            self._connection.execute("SELECT pg_sleep(30)")
        yield from narrow(self, remaining)

    def written(self: conversion_split._Split, action: Any, rows: int) -> Any:
        if writes:
            database.execute("UPDATE run SET at = at - interval '20 days' WHERE at >= '2026-11-01Z'")
        return cut(self, action, rows)

    monkeypatch.setattr(split_move.SplitMove, "_narrow", slow)
    monkeypatch.setattr(conversion_split._Split, "_cut", written)
    monkeypatch.setattr(drain, "UNDER_LOCK", 300)
    monkeypatch.setattr("time.sleep", lambda seconds: waited.append(seconds))
    (said,) = ends(split(database.dsn, convert=POLICY["convert"] | {"splitMaxRows": 1_000_000}))
    assert sum(waited) > 0.3 * (len(tried) - 1)
    if writes:
        assert "took longer than 300 ms" in said
        assert len(tried) < 10
        assert database.query("SELECT count(*) FROM run") == [(30_000,)]
    else:
        assert said.startswith("run_2026 (from 2026-")
        assert database.query(ROWS) == before


def test_before_both_partitions_are_detached_what_a_split_has_left_goes_wherever_that_is_interrupted(
    begun: Database,
) -> None:
    assert sorted(begun.query(MADE)) == [("c",), ("c",), ("f",), ("f",)]
    tables, all_rows = (LEGACY, "run_2026"), "SELECT count(*), sum(hashtext(r::text)::int8) FROM {} r"
    before, killed_before = [begun.query(all_rows.format(each)) for each in tables], 0
    for killed in killing_after_each_ddl_command(begun):
        try:
            retention = {"keepFor": "1d", "onExpire": "Detach"}
            split(begun.dsn, retention=retention, convert={"mode": "Attach"})
        except DatabaseUnreachable:
            assert [begun.query(all_rows.format(each)) for each in tables] == before, f"after command {killed}"
            killed_before = killed
        else:
            break
    assert killed_before > 3
    assert begun.query(MADE) == []
    assert [begun.query(all_rows.format(each)) for each in tables] == before
    assert not {*tables} & {name for name, *_ in edges(begun)}
