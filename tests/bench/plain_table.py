"""The plain table that is converted, and those who use it meanwhile."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event

import psycopg
from psycopg.conninfo import make_conninfo

from lab.postgres import Database

from .figures import Figure
from .waits import HERE, PATIENCE, Watched, going_on, read_count, stay_open

MEGABYTES = int(os.environ.get("CONVERSION_MB") or "500")
ROWS = MEGABYTES * 6_000
"""With the indexes that makes so many megabytes."""
DAYS = 350
TABLE = f"""
CREATE TABLE run (id bigint PRIMARY KEY, submitted_at timestamptz NOT NULL, status text NOT NULL DEFAULT 'queued',
  payload text NOT NULL DEFAULT repeat('x', 40));
CREATE SEQUENCE ids;
INSERT INTO run SELECT -n, '{HERE}'::timestamptz - n * (interval '{DAYS} days' / {ROWS})
  FROM generate_series(1, {ROWS}) n;
CREATE INDEX ON run (submitted_at);
CREATE VIEW above AS SELECT id FROM run WHERE id > 0;
VACUUM ANALYZE run;
CHECKPOINT;
"""
WRITTEN = "SELECT count(*) FROM run WHERE id > 0"
SAMPLE = 240
"""Rows, evenly over all months, that are counted again and again."""
LONG = 100
"""Milliseconds that nothing may keep a session from a lock, but for a split."""
STILL = b" still waiting for "
"""In the server's log, of a lock."""
OLD = 0.2
"""Seconds between the snapshot of a reader in REPEATABLE READ, and its statement."""


def fill(connection: psycopg.Connection) -> None:
    """Make the table. It has a row every few seconds of almost a year, up to the current month."""
    for statement in TABLE.split(";\n")[:-1]:
        connection.execute(statement.encode())


@dataclass
class User(Watched):
    """One whose statements may fail, where ``forgiving``: it counts that, and goes on."""

    forgiving: bool = False
    failed: int = 0
    missed: int = 0

    def go_on(self, dsn: str, stop: Event) -> None:
        """Its commits do not wait for the disk, which each index that is built keeps busy. The server logs each lock
        that it waits for that long."""
        options = f"-c synchronous_commit=off -c log_lock_waits=on -c deadlock_timeout={LONG}ms"
        super().go_on(make_conninfo(dsn, options=options), stop)

    def once(self, connection: psycopg.Connection) -> None:
        """Execute the statement. Raises psycopg's errors, but where it forgives them."""
        try:
            self.act(connection)
        except psycopg.Error:
            if not self.forgiving:
                raise
            self.failed += 1
            connection.rollback()

    def act(self, connection: psycopg.Connection) -> None:
        """Execute the statement. Raises psycopg's errors."""
        connection.execute(self.statement.encode(), prepare=True)


@dataclass
class Changing(User):
    """One that changes a row that is there: ``missed`` is how often it found none."""

    def act(self, connection: psycopg.Connection) -> None:
        """Execute the statement. Raises psycopg's errors."""
        self.missed += connection.execute(self.statement.encode(), prepare=True).rowcount != 1


@dataclass
class Counting(User):
    """One that counts `SAMPLE` rows that are there: ``missed`` is how many it did not see, or saw twice, at worst.

    ``old``: by a snapshot that it has taken before, as statements of a transaction in REPEATABLE READ do, such as those
    of pg_dump.
    """

    old: bool = False

    def act(self, connection: psycopg.Connection) -> None:
        """Execute the statement. Raises psycopg's errors."""
        if self.old:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            connection.execute("SELECT 1")
            time.sleep(OLD)
        row = connection.execute(self.statement.encode(), prepare=True).fetchone()
        if self.old:
            connection.execute("COMMIT")
        assert row is not None
        self.missed = max(self.missed, abs(SAMPLE - int(row[0])))


class Users:
    """A writer, an updater and readers; for one use of `going_on`. ``forgiving``: their statements may fail."""

    def __init__(self, database: Database, *, forgiving: bool = False) -> None:
        # Each later than the one before: what the reader counts stays as few, however long it takes.
        moment = f"'{HERE}'::timestamptz + n * interval '1 ms'"
        insert = f"INSERT INTO run (id, submitted_at) SELECT n, {moment} FROM nextval('ids') n"
        some = f"SELECT count(*) FROM run WHERE submitted_at = '{HERE}'"
        view = "SELECT count(*) FROM above WHERE id = 1"
        self.database, self.before = database, read_count(database, WRITTEN)
        self.writer = User("writer", insert)
        self.updater = Changing("updater", "UPDATE run SET status = 'done' WHERE id = -1")
        self.timed = [self.writer, self.updater, User("reader", some), User("reader of a view", view)]
        count = _counting(database)
        self.counting = [
            Counting("rows unseen or twice", count),
            Counting("rows unseen or twice by an older snapshot", count, old=True),
        ]
        for each in (*self.timed, *self.counting):
            each.forgiving = forgiving
        self._logged = database.server.log.stat().st_size

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Run them for the duration of the block."""
        with going_on(self.database, [*self.timed, *self.counting]):
            yield

    def check(self, name: str) -> None:
        """Every row that was written is there, once. Raises AssertionError."""
        ((distinct,),) = self.database.query("SELECT count(DISTINCT id) FROM run WHERE id > 0")
        rows, written = read_count(self.database, WRITTEN), self.before + self.writer.times - self.writer.failed
        assert rows == distinct, f"{name}: {rows} rows, {distinct} of them distinct"
        assert rows >= written, f"{name}: of {written} rows written {rows} are there"
        ((old, ids),) = self.database.query("SELECT count(*), -sum(id)::int8 FROM run WHERE id < 0")
        assert (old, ids) == (ROWS, ROWS * (ROWS + 1) // 2), f"{name}: of {ROWS} older rows {old} are there, ids {ids}"

    def figures(
        self, name: str, limits: Mapping[str, float], missed: int | None, old: int | None, long: int | None = None
    ) -> list[Figure]:
        """``limits`` of the waits of sessions, by name, in milliseconds; how many rows may be ``missed``, by readers
        and the updater, and by the reader with an ``old`` snapshot; how many ``long`` waits for a lock there may be."""
        waits = [
            Figure(f"{name}: {each.name} waits", each.milliseconds, "ms", limits.get(each.name)) for each in self.timed
        ]
        said = self.database.server.log.read_bytes()[self._logged :].count(STILL)
        waits.append(Figure(f"{name}: waits of {LONG} ms or more for a lock", said, "", long, "of all sessions"))
        unseen = [
            Figure(f"{name}: {each.name}", each.missed, "", old if each.old else missed, f"at worst, of {SAMPLE}")
            for each in self.counting
        ]
        lost = Figure(f"{name}: updates that met no row", self.updater.missed, "", missed)
        if not any(each.failed for each in (*self.timed, *self.counting)):
            return [*waits, *unseen, lost]
        note = "; ".join(f"{each.name}: {each.failed}" for each in (*self.timed, *self.counting) if each.failed)
        failed = sum(each.failed for each in (*self.timed, *self.counting))
        return [*waits, *unseen, lost, Figure(f"{name}: statements that failed", failed, "", note=note)]


def _counting(database: Database) -> str:
    """The statement that counts the sample, month by month, as reports do: of each month only its partition is read."""
    ids = ", ".join(str(-n * (ROWS // SAMPLE)) for n in range(1, SAMPLE + 1))
    months: dict[str, list[str]] = defaultdict(list)
    for (moment,) in database.query(f"SELECT submitted_at::text FROM run WHERE id IN ({ids})"):
        months[str(moment)[:7]].append(f"'{moment}'")
    counts = (
        f"SELECT count(*) FROM run WHERE submitted_at IN ({', '.join(moments)}) AND id < 0"
        for moments in months.values()
    )
    return f"SELECT sum(n) FROM ({' UNION ALL '.join(counts)}) months (n)"


@contextmanager
def beside(dsn: str) -> Iterator[None]:
    """A transaction that has read and written the table stays open in the block, and has ended after it."""
    opened = Event()
    with ThreadPoolExecutor(1) as pool:
        staying = pool.submit(stay_open, dsn, opened)
        assert opened.wait(PATIENCE) or staying.done(), "the transaction was not begun"
        yield
        staying.result()
