"""A drain that ends half-way leaves all as it was; sessions that block it, or come meanwhile, find every row."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from psycopg.pq import TransactionStatus

from lab.operator import until
from lab.postgres import Database
from partwarden.errors import DatabaseUnreachable
from partwarden.postgres import drain
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import Report, maintain
from partwarden.postgres.locks import check_lock_holders, wait_for_snapshots
from support.meanwhile import (
    NOW,
    Interrupted,
    keep,
    kill_others,
    killing_after_each_ddl_command,
    policy,
    reasons,
    relations,
    unbroken,
)

DRAIN: dict[str, Any] = {"premake": 0, "startFrom": "2026-01-01", "defaultPartition": {"drain": "Auto"}}
RICH = """
    CREATE TABLE customer (id int PRIMARY KEY); INSERT INTO customer VALUES (7);
    CREATE TABLE run (id bigint GENERATED ALWAYS AS IDENTITY, submitted_at timestamptz NOT NULL, note text,
        customer int DEFAULT 7 REFERENCES customer, PRIMARY KEY (id, submitted_at)) PARTITION BY RANGE (submitted_at);
    CREATE TABLE log (run bigint, at timestamptz, FOREIGN KEY (run, at) REFERENCES run ON DELETE CASCADE);
    CREATE TABLE rest PARTITION OF run DEFAULT;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;
    CREATE TRIGGER guard BEFORE DELETE ON rest FOR EACH ROW EXECUTE FUNCTION refuse();
    GRANT SELECT ON run TO PUBLIC;
    INSERT INTO run (submitted_at, note) SELECT '2026-05-01Z'::timestamptz + n * interval '1 hour', 'n' || n
        FROM generate_series(1, 50) n;
    INSERT INTO run (submitted_at) VALUES ('2019-01-01Z');
    INSERT INTO log SELECT id, submitted_at FROM run WHERE submitted_at < '2020-01-01Z';
"""


def state(database: Database) -> tuple[object, ...]:
    """Everything that a drain could leave otherwise: relations, constraints, triggers, rows and where they lie."""
    return (
        relations(database),
        database.query("SELECT conname, conrelid FROM pg_constraint ORDER BY 1, 2"),
        database.query("SELECT tgname, tgrelid, tgenabled FROM pg_trigger ORDER BY 1, 2"),
        database.query("SELECT tableoid, run::text FROM run ORDER BY 2"),
        database.query("SELECT log::text FROM log"),
    )


def drain_while(dsn: str, trip: int, what: Callable[[Interrupted], object]) -> Report:
    """Drains, and right before that round trip something happens."""
    with session(from_dsn(dsn)) as connection:
        connection.__class__ = Interrupted
        assert isinstance(connection, Interrupted)
        connection.before = (connection.round_trips + trip, lambda: what(connection))
        return unbroken(maintain(connection, policy(**DRAIN), now=NOW))


def cut(connection: Interrupted) -> None:
    with socket.socket(fileno=connection.fileno()) as wire:
        wire.shutdown(socket.SHUT_RDWR)
        wire.detach()


@pytest.mark.parametrize("how", ["killed", "cut"])
def test_a_session_that_ends_before_any_round_trip_leaves_all_as_it_was(database: Database, how: str) -> None:
    database.execute(RICH)
    before = state(database)
    interrupted = 0
    for trip in itertools.count(1):
        with pytest.raises(DatabaseUnreachable):
            drain_while(database.dsn, trip, lambda lost: kill_others(database) if how == "killed" else cut(lost))
        until("the server has noticed", lambda: not others(database))
        if state(database) != before:
            break
        interrupted += 1
    assert interrupted > 15
    # It was after COMMIT, then, and all is done.
    assert database.query("SELECT tableoid::regclass::text, count(*) FROM run GROUP BY 1 ORDER BY 1") == [
        ("rest", 1),
        ("run_2026", 50),
    ]
    assert reasons(keep(database.dsn, **DRAIN)) == []


def test_a_session_killed_after_any_ddl_command_leaves_all_as_it_was(database: Database) -> None:
    database.execute(RICH)
    before = state(database)
    for killed in killing_after_each_ddl_command(database):
        try:
            report = keep(database.dsn, **DRAIN)
        except DatabaseUnreachable:
            assert state(database) == before, f"after command {killed}"
        else:
            break
    assert killed > 7
    assert reasons(report) == ["created"]


def others(database: Database) -> list[tuple[object, ...]]:
    return database.query(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'partwarden'"
    )


@contextmanager
def busy(database: Database, statements: str) -> Iterator[int]:
    with database.connect() as other:
        other.execute(statements.encode())
        yield other.info.backend_pid


@pytest.mark.parametrize(
    "statements",
    [
        "BEGIN; SELECT count(*) FROM run",
        "BEGIN; SELECT count(*) FROM rest",
        "BEGIN; INSERT INTO run (submitted_at) VALUES ('2026-07-01Z')",
        "BEGIN; UPDATE run SET note = 'x' WHERE submitted_at > '2026-01-01Z'",
        "BEGIN; INSERT INTO customer VALUES (8)",
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class",
        "BEGIN; DECLARE c CURSOR FOR SELECT * FROM pg_class; FETCH c",
    ],
)
def test_a_conflicting_transaction_is_named_and_nothing_is_moved(database: Database, statements: str) -> None:
    database.execute(RICH)
    before = state(database)
    with busy(database, statements) as pid:
        report = keep(database.dsn, patience=0.5, **DRAIN)
        assert reasons(report) == ["TableBusy"]
        assert f"pid {pid} (" in str(report.outcomes[0].error)
        assert state(database) == before
    assert reasons(keep(database.dsn, **DRAIN)) == ["created"]


def test_a_long_transaction_is_not_waited_for(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one row is copied: the worker is needed elsewhere."""
    database.execute(RICH)
    monkeypatch.setattr("partwarden.postgres.locks.SHORT", 0.0)
    with busy(database, "BEGIN; SELECT count(*) FROM run") as pid:
        report = keep(database.dsn, patience=600, **DRAIN)
        assert reasons(report) == ["TableBusy"]
        assert f"pid {pid} (" in str(report.outcomes[0].error)


def test_a_move_that_takes_too_long_under_the_lock_is_undone(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(f"{RICH} INSERT INTO run (submitted_at) SELECT '2026-09-01Z' FROM generate_series(1, 20000)")
    before = state(database)
    with monkeypatch.context() as patched:
        patched.setattr(drain, "UNDER_LOCK", 5)
        report = keep(database.dsn, **DRAIN)
    assert reasons(report) == ["StatementRejected"]
    assert "longer than 5 ms in which all other sessions wait" in str(report.outcomes[0].error)
    assert state(database) == before


def test_rows_written_after_the_copy_move_too(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.execute(RICH)
    with database.connect() as writer:

        def late(*arguments: Any) -> str | None:
            monkeypatch.setattr("partwarden.postgres.locks.wait_for_snapshots", wait_for_snapshots)
            writer.execute("""BEGIN; INSERT INTO run (submitted_at, note) VALUES ('2026-08-01Z', 'late');
                UPDATE run SET note = 'changed' WHERE id = 2""")
            return wait_for_snapshots(*arguments)

        def locked_out(*arguments: Any, **options: Any) -> None:
            """The first call is before the copy, the next when the lock was not to be had."""
            if writer.info.transaction_status == TransactionStatus.INTRANS:
                writer.execute("UPDATE run SET note = 'again' WHERE id = 3; COMMIT")
            check_lock_holders(*arguments, **options)

        monkeypatch.setattr("partwarden.postgres.locks.wait_for_snapshots", late)
        monkeypatch.setattr("partwarden.postgres.locks.check_lock_holders", locked_out)
        assert reasons(keep(database.dsn, patience=60, **DRAIN)) == ["created"]
        assert writer.info.transaction_status == TransactionStatus.IDLE
    assert database.query("SELECT count(*) FROM run_2026") == [(51,)]
    assert database.query("SELECT id, note FROM run WHERE id IN (2, 3) ORDER BY 1") == [(2, "changed"), (3, "again")]
    assert database.query("SELECT count(*) FROM run_2026 WHERE note = 'late'") == [(1,)]


def test_a_reader_during_the_move_finds_every_row(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer, a reader, an UPDATE and a DELETE that wait for the move are led to where the rows are then."""
    monkeypatch.setattr(drain, "UNDER_LOCK", 60_000)
    monkeypatch.setattr(drain, "QUIET_ATTEMPTS", 0)
    database.execute(f"""{RICH}
        CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
          IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() c WHERE c.objid = 'public.run'::regclass) THEN
            WHILE (SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'public.run'::regclass) < 4 LOOP
              PERFORM pg_sleep(0.005);
            END LOOP;
          END IF;
        END $$;
        CREATE EVENT TRIGGER slow ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION slow()""")

    def do(statement: str) -> int:
        with database.connect() as connection:
            return connection.execute(statement.encode()).rowcount

    with ThreadPoolExecutor(5) as pool:
        work = pool.submit(keep, database.dsn, **DRAIN)
        until("the table is locked", lambda: locked(database) or work.done())
        waiters = [
            pool.submit(do, statement)
            for statement in (
                "INSERT INTO run (submitted_at) VALUES ('2026-06-06Z')",
                "SELECT * FROM run WHERE submitted_at >= '2026-05-01Z' AND submitted_at < '2026-05-02Z'",
                "UPDATE run SET note = 'seen' WHERE id = 1 AND submitted_at > '2026-01-01Z'",
                "DELETE FROM run WHERE id = 40 AND submitted_at > '2026-01-01Z'",
            )
        ]
        assert reasons(work.result()) == ["created"]
        assert [each.result() for each in waiters] == [1, 23, 1, 1]
    assert database.query("SELECT count(*) FROM run_2026") == [(50,)]


def locked(database: Database) -> bool:
    return bool(
        database.query(
            "SELECT FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock' AND relation = 'run'::regclass"
        )
    )
