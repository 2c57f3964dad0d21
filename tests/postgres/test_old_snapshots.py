"""What a session finds that has a snapshot of before a change, and comes to the table after it.

PostgreSQL reads the catalog as it is, and rows by the snapshot. docs/explanation/old-snapshots.md has the table of it.
"""

from __future__ import annotations

import time
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql
from psycopg.pq import TransactionStatus

from lab.postgres import Database
from partwarden.errors import DatabaseUnreachable, StatementRejected, TableBusy
from partwarden.planner.inventory import Relation
from partwarden.planner.marker import ConvertedMark, write_converted
from partwarden.postgres import conversion_remains, conversion_swap, conversion_undo, detach, drain, locks
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.conversion_finish import finish
from support.converted import ID, PLAIN, conversion, convert, prepare, swap, undo
from support.meanwhile import keep, killing_after_each_ddl_command
from support.retirement import LONG_AGO, edit_mark, verbs
from support.snapshots import STALE, WHOLE, meanwhile, ranged, readers, writers

LATER = "INSERT INTO run VALUES (2001, '2027-05-05Z', 0), (2002, '2027-05-06Z', 0);"
CHANGE = "UPDATE run SET n = n + 1 WHERE at >= '2027-01-01Z' AND at < '2028-01-01Z'"
LEFT = "SELECT relname FROM pg_class WHERE relname ~ '^run_20' AND relkind = 'r'"
YEARS = """
CREATE TABLE run (id bigint, at timestamptz NOT NULL, n int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE run_2018 PARTITION OF run FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z');
CREATE TABLE run_2026 PARTITION OF run FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z');
INSERT INTO run VALUES (1, '2018-01-01Z', 0), (2, '2018-02-01Z', 0), (3, '2026-01-01Z', 0);
"""
DEFAULT = "CREATE TABLE rest PARTITION OF run DEFAULT;"


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits under a lock are of no use where other sessions are to come meanwhile."""
    for module in (conversion_swap, conversion_undo, drain):
        monkeypatch.setattr(module, "UNDER_LOCK", 60_000)
    monkeypatch.setattr(detach, "UNDER_LOCK", "60s")
    monkeypatch.setattr(locks, "SHORT", 30.0)


@pytest.fixture
def converted(database: Database) -> Database:
    """1,000 rows in the first partition, two in that of 2027, and one partition that was never written to."""
    database.execute(PLAIN)
    convert(database, ID)
    database.execute(LATER)
    return database


def found_by(found: dict[str, object], name: str, *but: str) -> set[object]:
    """What all readers of that query got, but for some of them."""
    return {rows for each, rows in found.items() if each.startswith(f"{name} ") and not each.endswith(but)}


def test_a_conversion_moves_no_row_and_hides_none(database: Database) -> None:
    database.execute(PLAIN + LATER)
    made = replace(conversion(database, ID, ahead=()), upper="2028-01-01T00:00:00Z")
    prepare(database, made)
    found = meanwhile(database, lambda: swap(database.dsn, made), readers(range=ranged(2027), whole=WHOLE))
    assert found_by(found, "range") == {(2, 2)}
    assert found_by(found, "whole") == {(1002, 1002)}


def test_rows_that_a_way_back_moves_are_seen_once_by_every_snapshot(converted: Database) -> None:
    found = meanwhile(converted, lambda: undo(converted.dsn), readers(range=ranged(2027), whole=WHOLE))
    assert found_by(found, "range") == {(2, 2)}
    assert found_by(found, "whole") == {(1002, 1002)}
    assert converted.query(LEFT) == []


def test_an_older_snapshot_changes_nothing_that_a_way_back_moved(converted: Database) -> None:
    """Of READ COMMITTED every statement that writes takes a new one; a query by EXECUTE does not, and skips rows that
    were deleted meanwhile, as they were where it finds them."""
    rows = CHANGE.partition("WHERE")[2]
    others = writers(CHANGE, f"SELECT id FROM run WHERE{rows} FOR UPDATE")
    assert meanwhile(converted, lambda: undo(converted.dsn), others) == {
        "simple": 2,
        "extended": 2,
        "EXECUTE": 2,
        "FOR UPDATE": 2,
        "EXECUTE FOR UPDATE": 0,
        "REPEATABLE READ": "SerializationFailure",
        "SERIALIZABLE": "SerializationFailure",
    }


def busy(converted: Database, why: str) -> None:
    """The way back does not end."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(locks, "SHORT", 0.1)
        with pytest.raises(TableBusy, match=why):
            undo(converted.dsn, patience=0.1)


def finished(database: Database) -> object:
    """What is left to do is done; whether no mark says otherwise."""
    with session(from_dsn(database.dsn)) as connection:
        finish(connection, "public", "run", time.monotonic() + 10)
    return database.query("SELECT obj_description('run'::regclass) IS NULL")[0][0]


def test_rows_that_were_deleted_before_a_way_back_are_seen_by_an_older_snapshot(converted: Database) -> None:
    """Nothing moves; the partition stays for that snapshot alone, and goes when it has ended."""
    with converted.connect() as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        converted.execute("DELETE FROM run WHERE at > '2027-01-01Z'")
        busy(converted, r"finds its rows in public\.run_2027$")
        assert converted.query("SELECT relkind::text FROM pg_class WHERE relname = 'run'") == [("r",)]
        assert converted.query(ranged(2027)) == [(0, 0)]
        assert reader.execute(ranged(2027).encode()).fetchone() == (2, 2)
    assert finished(converted) is True
    assert converted.query(LEFT) == []


def test_rows_that_are_written_into_what_is_left_keep_it(converted: Database) -> None:
    with converted.connect() as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        converted.execute("DELETE FROM run WHERE at > '2027-01-01Z'")
        busy(converted, "finds its rows in")
    converted.execute("INSERT INTO run_2027 VALUES (7000, '2027-07-07Z')")
    with pytest.raises(StatementRejected, match=r"rows were written into public\.run_2027 since"):
        finished(converted)
    assert converted.query("SELECT count(*) FROM run") == [(1001,)]
    converted.execute("WITH gone AS (DELETE FROM run_2027 RETURNING *) INSERT INTO run SELECT * FROM gone")
    assert finished(converted) is True
    assert converted.query(LEFT) == []
    assert converted.query("SELECT count(*) FROM run") == [(1001,)]


def test_what_is_no_child_any_more_once_its_lock_is_had_stays_and_no_lock_with_it(
    converted: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted.execute("DELETE FROM run WHERE at > '2027-01-01Z'")
    monkeypatch.setattr(conversion_undo, "finish", lambda *_: None)
    undo(converted.dsn)
    ((oid, child),) = converted.query(
        "SELECT inhparent::int8, inhrelid::int8 FROM pg_inherits WHERE inhparent = 'run'::regclass"
    )
    assert isinstance(oid, int)
    assert isinstance(child, int)

    def meanwhile_another(*_: object) -> None:
        converted.execute("ALTER TABLE run_2027 NO INHERIT run")

    monkeypatch.setattr(locks, "wait_for_snapshots", meanwhile_another)
    with session(from_dsn(converted.dsn)) as connection:
        conversion_remains.drop_children(connection, Relation(oid, "public", "run"), [child], time.monotonic() + 10)
        assert connection.info.transaction_status == TransactionStatus.IDLE
    assert converted.query(LEFT) == [("run_2027",)]


def test_wherever_a_way_back_is_interrupted_all_rows_are_there_and_it_ends(converted: Database) -> None:
    converted.execute("INSERT INTO run VALUES (2003, '2028-05-05Z', 0)")
    rows, killed_before = "SELECT count(*), count(DISTINCT id) FROM run", 0
    for killed in killing_after_each_ddl_command(converted):
        try:
            if converted.query("SELECT relkind FROM pg_class WHERE relname = 'run'") == [("p",)]:
                undo(converted.dsn)
            assert finished(converted)
        except DatabaseUnreachable:
            assert converted.query(rows) == [(1003, 1003)], f"after command {killed}"
            killed_before = killed
        else:
            break
    assert killed_before > 9
    assert converted.query(rows) == [(1003, 1003)]
    assert converted.query(LEFT) == []


def test_a_forged_mark_takes_nothing_along(database: Database) -> None:
    """It can name what is no child, and children of another role: both stay."""
    role = database.new_role()
    database.execute(f"""CREATE TABLE run (id int); CREATE TABLE other (id int); CREATE TABLE theirs () INHERITS (run);
        ALTER TABLE theirs OWNER TO {role.name}""")
    oids = database.query("SELECT oid::int8 FROM pg_class WHERE relname IN ('run', 'other', 'theirs')")
    ((oid,),) = database.query("SELECT 'run'::regclass::oid::int8")
    assert isinstance(oid, int)
    mark = ConvertedMark(oid, oid, undone=True, left=tuple(each for (each,) in oids if isinstance(each, int)))
    comment = sql.SQL("COMMENT ON TABLE run IS {}").format(write_converted(None, oid, mark))
    with database.connect() as connection:
        connection.execute(comment)
    assert finished(database) is True
    assert database.query("SELECT to_regclass('other') IS NULL, to_regclass('theirs') IS NULL") == [(False, False)]


def test_what_depends_on_a_partition_forbids_the_way_back(converted: Database) -> None:
    converted.execute("CREATE VIEW one AS SELECT id FROM run_2027")
    with pytest.raises(StatementRejected, match="one depends on"):
        undo(converted.dsn)
    assert converted.query("SELECT relkind::text FROM pg_class WHERE relname = 'run'") == [("p",)]
    assert converted.query("SELECT count(*) FROM one") == [(2,)]


def test_a_walsender_holds_a_snapshot_as_well(converted: Database) -> None:
    """As for the first copy of a subscription."""
    with psycopg.connect(converted.dsn, replication="database", autocommit=True) as walsender:
        walsender.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        walsender.execute("SELECT 1 FROM pg_class LIMIT 1")
        busy(converted, "has an older snapshot")
    assert undo(converted.dsn) == 2


def drained(database: Database) -> None:
    report = keep(
        database.dsn,
        interval="Year",
        premake=0,
        ensure=["2027"],
        startFrom="2026-10-24",
        defaultPartition={"drain": "Auto"},
    )
    assert set(verbs(report)) == {("create and fill", "done")}


def test_rows_leave_default_only_while_no_snapshot_is_held(database: Database) -> None:
    """The attempt beside which others come is undone: all of them read the table as it was."""
    database.execute(YEARS + DEFAULT + LATER)
    found = meanwhile(database, lambda: drained(database), readers(range=ranged(2027), whole=WHOLE))
    assert found_by(found, "range") == {(2, 2)}
    assert found_by(found, "whole") == {(5, 5)}
    assert database.query("SELECT count(*) FROM run_2027") == [(2,)]


def test_rows_leave_default_on_a_busy_server_and_are_missed_by_few_and_seen_twice_by_none(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The range of a key leads to one partition; for an older snapshot nothing is there yet."""
    monkeypatch.setattr(drain, "QUIET_ATTEMPTS", 0)
    database.execute(YEARS + DEFAULT + LATER)
    found = meanwhile(database, lambda: drained(database), readers(range=ranged(2027), whole=WHOLE))
    assert found_by(found, "whole") == {(5, 5)}
    assert found_by(found, "range", *STALE) == {(2, 2)}
    assert found_by(found, "range", "simple", "extended") == {(0, 0)}


def retired(database: Database, **retention: object) -> None:
    report = keep(database.dsn, startFrom="2026-01-01", premake=0, retention=retention)
    assert [done for _, done in verbs(report)] == ["done"]


def test_rows_of_a_detached_partition_are_gone_for_every_snapshot(database: Database) -> None:
    database.execute(YEARS + DEFAULT)
    found = meanwhile(database, lambda: retired(database, keepFor="5y"), readers(range=ranged(2018), whole=WHOLE))
    assert found_by(found, "range") == {(0, 0)}
    assert found_by(found, "whole") == {(1, 1)}
    assert database.query("SELECT count(*) FROM run_2018") == [(2,)]


def test_an_older_snapshot_of_what_is_detached_attached_again_and_dropped(database: Database) -> None:
    """Nothing moves: what belongs to the table is for every snapshot what the catalog says at that moment."""
    database.execute(YEARS)

    def seen(query: str = WHOLE) -> object:
        reader.execute("SAVEPOINT before")
        found: object
        try:
            found = reader.execute(query.encode()).fetchone()
        except psycopg.Error as error:
            found = type(error)
        # With it goes the lock, which would keep the next change away.
        reader.execute("ROLLBACK TO SAVEPOINT before")
        return found

    with database.connect() as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        retired(database, keepFor="5y")
        assert seen() == (1, 1)
        assert seen("SELECT count(*) FROM run_2018") == (2,)
        retired(database, keepFor="50y")
        assert seen() == seen(f"{WHOLE} OR at < '2019-01-01Z'") == (3, 3)
        assert seen(ranged(2018)) == (2, 2)
        drop = {"keepFor": "5y", "onExpire": "Drop", "dropWithoutArchive": True, "grace": "0s"}
        retired(database, **drop)
        edit_mark(database, since=LONG_AGO)
        retired(database, **drop)
        assert seen() == (1, 1)
        assert seen("SELECT count(*) FROM run_2018") is psycopg.errors.UndefinedTable
