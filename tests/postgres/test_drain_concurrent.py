"""Rows leave DEFAULT while other sessions write and read the same range: none is lost or doubled."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg

from lab.operator import until
from lab.postgres import Database
from partwarden.postgres.engine import Report
from support.meanwhile import keep, reasons

TABLE = """
    CREATE TABLE run (id bigint, submitted_at timestamptz NOT NULL, version int NOT NULL, note text,
                      PRIMARY KEY (submitted_at, id)) PARTITION BY RANGE (submitted_at);
    CREATE INDEX ON run (id);
    CREATE TABLE rest PARTITION OF run DEFAULT;
    CREATE FUNCTION change(which bigint, at timestamptz) RETURNS int LANGUAGE plpgsql AS $$
      DECLARE hit int;
      BEGIN
        UPDATE run SET version = version + 1 WHERE id = which AND submitted_at = at;
        GET DIAGNOSTICS hit = ROW_COUNT;
        RETURN hit;
      END $$;
"""
ROUNDS, ROWS = 50, 30
START = datetime(2020, 1, 1, 12, tzinfo=UTC)


class Ledger:
    """What was committed, and what is about to be: rows by their ids, as (moment, version)."""

    def __init__(self) -> None:
        self.day, self.stop = START, threading.Event()
        self._lock = threading.Lock()
        self._rows: dict[int, tuple[datetime, int]] = {}
        self._leaving: set[int] = set()
        self._next = 0

    def new(self) -> tuple[int, datetime]:
        with self._lock:
            self._next += 1
            return self._next, self.day

    def put(self, number: int, moment: datetime, version: int) -> None:
        with self._lock:
            self._rows[number] = (moment, version)

    def some(self, share: int) -> tuple[int, datetime, int] | None:
        """A row of the day that is being worked on, among those that one writer has to itself."""
        with self._lock:
            mine = [each for each in list(self._rows)[-200:] if each % 3 == share and each not in self._leaving]
            here = [each for each in mine if self._rows[each][0] == self.day]
            return (chosen := random.choice(here), *self._rows[chosen]) if here else None

    def leave(self, number: int) -> None:
        with self._lock:
            self._leaving.add(number)

    def seen(self) -> dict[int, tuple[datetime, int]]:
        with self._lock:
            return {number: row for number, row in self._rows.items() if number not in self._leaving}


def insert(connection: psycopg.Connection, ledger: Ledger) -> None:
    number, day = ledger.new()
    connection.execute("INSERT INTO run VALUES (%s, %s, 0, repeat('x', %s))", (number, day, number % 50))
    ledger.put(number, day, 0)


def change(connection: psycopg.Connection, ledger: Ledger) -> None:
    if chosen := ledger.some(0):
        number, moment, version = chosen
        done = connection.execute(
            "UPDATE run SET version = version + 1 WHERE id = %s AND submitted_at = %s", (number, moment)
        )
        assert done.rowcount == 1, "an UPDATE found nothing"
        ledger.put(number, moment, version + 1)


def change_in_function(connection: psycopg.Connection, ledger: Ledger) -> None:
    if chosen := ledger.some(1):
        number, moment, version = chosen
        assert connection.execute("SELECT change(%s, %s)", (number, moment)).fetchall() == [(1,)]
        ledger.put(number, moment, version + 1)


def delete(connection: psycopg.Connection, ledger: Ledger) -> None:
    if chosen := ledger.some(2):
        number, moment, _ = chosen
        ledger.leave(number)
        done = connection.execute("DELETE FROM run WHERE id = %s AND submitted_at = %s", (number, moment))
        assert done.rowcount == 1, "a DELETE found nothing"


def read(connection: psycopg.Connection, ledger: Ledger) -> None:
    """Of the day that is drained alone, which is read in one partition, and of the whole table."""
    for where in ("submitted_at >= %(day)s AND submitted_at < %(day)s + interval '1 hour'", "%(day)s IS NOT NULL"):
        day, before = ledger.day, ledger.seen()
        found = connection.execute(f"SELECT id, version FROM run WHERE {where}".encode(), {"day": day}).fetchall()
        after = ledger.seen()
        versions: dict[int, int] = dict(found)
        assert len(versions) == len(found), "a row was seen twice"
        for number, (moment, version) in before.items():
            if number in after and (moment == day or "hour" not in where):
                assert number in versions, f"row {number} was not seen"
                assert versions[number] >= version


@contextmanager
def others(database: Database, ledger: Ledger) -> Iterator[None]:
    """All of them at work until the end of the block; what one of them finds wrong is raised there."""

    def work(what: Callable[[psycopg.Connection, Ledger], None], prepared: bool) -> int:
        done = 0
        with database.connect() as connection:
            connection.prepare_threshold = 0 if prepared else None
            try:
                while not ledger.stop.is_set():
                    what(connection, ledger)
                    done += 1
            finally:
                ledger.stop.set()
        return done

    kinds = [(insert, True), (change, True), (change_in_function, False), (delete, False), (read, False), (read, True)]
    with ThreadPoolExecutor(len(kinds)) as pool:
        running: list[Future[int]] = [pool.submit(work, *each) for each in kinds]
        try:
            yield
        finally:
            ledger.stop.set()
        assert all(each.result() > 0 for each in running)


def test_fifty_drains_beside_writers_and_readers(database: Database) -> None:
    database.execute(TABLE)
    ledger = Ledger()
    moved = 0
    with others(database, ledger):
        for number in range(ROUNDS):
            ledger.day = day = START + timedelta(days=number)

            def enough(day: datetime = day) -> bool:
                return ledger.stop.is_set() or sum(at == day for at, _ in ledger.seen().values()) >= ROWS

            until("rows of the day lie in DEFAULT", enough)

            def finished(day: datetime = day) -> Report | None:
                return made(database, day)

            report = until("the partition is made", finished)
            assert not ledger.stop.is_set()
            moved += any(type(each.action).__name__ == "DrainIntoPartition" for each in report.outcomes)
    assert moved == ROUNDS
    expected = ledger.seen()
    found = database.query("SELECT id, submitted_at, version, note = repeat('x', (id % 50)::int) FROM run")
    assert {number: (moment, version) for number, moment, version, _ in found} == expected
    assert len(found) == len(expected)
    assert all(same for *_, same in found)
    assert database.query("SELECT count(*) FROM rest") == [(0,)]
    assert database.query("SELECT count(*) > %s FROM pg_inherits WHERE inhparent = 'run'::regclass", ROUNDS) == [
        (True,)
    ]


def made(database: Database, day: datetime) -> Report | None:
    report = keep(
        database.dsn,
        interval="Day",
        premake=0,
        ensure=[day.date().isoformat()],
        startFrom="2026-10-24",
        defaultPartition={"drain": "Auto"},
    )
    assert set(reasons(report)) <= {"created", "TableBusy"}, [str(each.error) for each in report.outcomes]
    return report if reasons(report) and "TableBusy" not in reasons(report) else None
