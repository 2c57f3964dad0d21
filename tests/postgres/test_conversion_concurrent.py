"""While a table is converted and made plain again, others write and read it: each row is seen exactly once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from lab.operator import until
from lab.postgres import Database
from partwarden.errors import TableBusy
from support.converted import ID, PLAIN, conversion, prepare, swap, undo
from support.meanwhile import working

SEEN = "SELECT count(*), count(DISTINCT id) FROM {}"


class Sessions:
    """Writers and readers, each on a connection of its own, until `stop`."""

    def __init__(self, dsn: str) -> None:
        self.dsn, self.stop = dsn, threading.Event()
        self.committed, self.updated, self.reads = 1000, 0, 0
        self.ahead = False
        """Whether there are partitions for later rows, too."""

    def write(self) -> None:
        """New ids, one a transaction: into the first partition and into a later one in turn."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            while not self.stop.is_set():
                number = self.committed + 1
                year = 2027 if self.ahead and number % 2 else 2026
                connection.execute("INSERT INTO run VALUES (%s, %s, 0)", (number, f"{year}-06-06Z"), prepare=True)
                self.committed = number

    def update(self) -> None:
        """Each changes exactly one row."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            while not self.stop.is_set():
                done = connection.execute("UPDATE run SET n = n + 1 WHERE id = 500", prepare=True)
                assert done.rowcount == 1
                self.updated += 1

    def read(self, name: str) -> Callable[[], None]:
        """What was committed before a query is seen by it, and nothing twice."""

        def go_on() -> None:
            with psycopg.connect(self.dsn, autocommit=True) as connection:
                while not self.stop.is_set():
                    least = self.committed
                    row = connection.execute(SEEN.format(name).encode(), prepare=True).fetchone()
                    assert row is not None
                    assert row[0] == row[1] >= least, (name, row, least)
                    self.reads += 1

        return go_on


@contextmanager
def running(database: Database) -> Iterator[Sessions]:
    """Raises what any of them raised."""
    sessions = Sessions(database.dsn)
    with working(sessions.stop, sessions.write, sessions.update, sessions.read("run"), sessions.read("above")):
        yield sessions


def test_each_committed_row_is_seen_exactly_once_all_the_way_there_and_back(database: Database) -> None:
    database.execute(f"{PLAIN} CREATE VIEW above AS SELECT id FROM (SELECT * FROM run) r")
    with running(database) as sessions:
        made = conversion(database, ID)
        prepare(database, made)
        swap(database.dsn, made, patience=60.0)
        sessions.ahead = True
        goes_on(sessions)
        until("rows lie in a later partition", lambda: database.query("SELECT FROM run_2027 LIMIT 1") != [])
        back(database)
        goes_on(sessions)
    assert database.query("SELECT count(*), count(DISTINCT id) FROM run") == [(sessions.committed, sessions.committed)]
    assert database.query("SELECT n FROM run WHERE id = 500") == [(500 + sessions.updated,)]


def goes_on(sessions: Sessions) -> None:
    """Every session does its work still."""
    before = sessions.committed, sessions.updated, sessions.reads
    until(
        "others have gone on",
        lambda: all(
            now > then for now, then in zip((sessions.committed, sessions.updated, sessions.reads), before, strict=True)
        ),
    )


def back(database: Database) -> None:
    """Short snapshots of the readers come one after the other: it is tried until none is in the way."""
    end = time.monotonic() + 60
    while True:
        try:
            undo(database.dsn, patience=10.0, limit=100_000)
        except TableBusy:
            assert time.monotonic() < end
        else:
            return
