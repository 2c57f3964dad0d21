"""While a table is converted and made plain again, others wait for one message to the server at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.abc import RV, PQGen

from lab.postgres import Database
from partwarden.api.policy import Table, TableSpec
from partwarden.api.types import Interval
from partwarden.planner.conversion_rules import Wanted
from partwarden.postgres import brief_locks, conversion_prepare, conversion_swap
from partwarden.postgres.brief_locks import LEAST, lock_in_time
from partwarden.postgres.connection import Session, run, session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.conversion_engine import convert, observe_conversion, undo
from partwarden.postgres.transaction import LOCK_TIMEOUT_HEAVY

TABLE = """CREATE TABLE run (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz);
    INSERT INTO run (at) SELECT now() - n * interval '1 hour' FROM generate_series(1, 500) n;
    CREATE VIEW above AS SELECT id FROM run"""
WANTED = Wanted(TableSpec(table=Table(name="run"), key="at", interval=Interval.MONTH), widen_keys=True)


class Watched(Session):
    """A session that calls a function before each of its round trips."""

    meanwhile: Callable[[], object]

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        self.meanwhile()
        return super().wait(gen, interval, timeout)


def test_no_lock_that_others_wait_for_is_kept_from_one_message_to_the_next(database: Database) -> None:
    """So the way to the server is no part of what they wait."""
    database.execute(TABLE)
    written = 0
    with database.connect() as other, session(from_dsn(database.dsn)) as connection:
        other.execute("SET lock_timeout = '50ms'")

        def go_on() -> None:
            nonlocal written
            other.execute("INSERT INTO run (at) VALUES (now())")
            other.execute("SELECT FROM above LIMIT 1")
            written += 1

        connection.__class__ = Watched
        assert isinstance(connection, Watched)
        connection.meanwhile = go_on
        plan = observe_conversion(connection, WANTED)
        conversion_prepare.prepare(connection, plan, time.monotonic() + 10.0, lambda *_: None)
        # What was prepared is taken back, then all of it is done, and taken back.
        undo(connection, WANTED.spec.table, "at", 10.0, 1000, lambda *_: None)
        convert(connection, WANTED, plan, 10.0, lambda *_: None)
        undo(connection, WANTED.spec.table, "at", 10.0, 1000, lambda *_: None)
    assert written > 20
    assert database.query("SELECT count(*), count(DISTINCT id) FROM run") == [(500 + written, 500 + written)]


def test_several_locks_of_one_message_are_waited_for_no_longer_together_than_one(database: Database) -> None:
    def left(seconds: float) -> int:
        shown = run(connection, "BEGIN", f"SELECT pg_sleep({seconds})", lock_in_time(), "SHOW lock_timeout")
        connection.rollback()
        return int(shown[-1][0][0].removesuffix("ms"))

    with session(from_dsn(database.dsn)) as connection:
        assert LEAST <= left(0) <= LOCK_TIMEOUT_HEAVY
        assert LEAST <= left(0.03) <= LOCK_TIMEOUT_HEAVY - 30
        assert left(LOCK_TIMEOUT_HEAVY / 1000) == LEAST


@pytest.mark.parametrize("module", [conversion_prepare, conversion_swap])
def test_a_step_that_has_ended_is_on_disk(database: Database, monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    """So its COMMIT, which gave its locks back before, is not lost any more."""
    database.execute(TABLE)
    flushed: list[bool] = []

    def flush(connection: psycopg.Connection[Any]) -> None:
        ((written,),) = database.query("SELECT pg_current_wal_insert_lsn()")
        brief_locks.flush(connection)
        ((done,),) = database.query("SELECT pg_current_wal_flush_lsn() >= %s", written)
        flushed.append(bool(done))

    monkeypatch.setattr(module, "flush", flush)
    with session(from_dsn(database.dsn)) as connection:
        convert(connection, WANTED, observe_conversion(connection, WANTED), 10.0, lambda *_: None)
    assert flushed == [True]
