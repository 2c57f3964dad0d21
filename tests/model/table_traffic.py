"""Sessions that write and read a table all the time, and judge what they see: each committed row exactly once.

Each row is changed by one session, which writes down what it is about to do, and what was confirmed. So at any moment a
row may have the value that was confirmed last, or one that is being written. A lost connection leaves a change open;
the session that made it asks, once it is connected again, which of the two it was.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

import psycopg

from lab.operator import until
from lab.postgres import Database
from model.plain_tables import STATIC, PlainTableShape, quote

IDS, WRITERS = 40, 3
"""Rows that each writer changes, and how many writers there are."""
KEPT = 200
"""Changes of one row that are remembered: those of the last seconds."""
GONE: tuple[type[Exception], ...] = (psycopg.OperationalError, psycopg.InterfaceError)
"""A connection that was lost, or not made."""


@dataclass
class Change:
    """A row gets a value, or None: it is deleted. ``ended`` is None while that is not known to be so."""

    value: int | None
    began: float
    ended: float | None = None


class Ledger:
    """What each row may be at which moment, by the clock of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        never = -1.0
        self._rows: dict[int, deque[Change]] = defaultdict(lambda: deque([Change(None, never, never)], maxlen=KEPT))
        for number in range(1, STATIC + 1):
            self._rows[-number].append(Change(number, never, never))

    def begin(self, changes: Mapping[int, int | None]) -> list[Change]:
        """Write down what is about to be done to rows."""
        with self._lock:
            made = [Change(value, time.monotonic()) for value in changes.values()]
            for number, change in zip(changes, made, strict=True):
                self._rows[number].append(change)
            return made

    def confirm(self, changes: Sequence[Change]) -> None:
        """It was done."""
        with self._lock:
            for each in changes:
                each.ended = time.monotonic()

    def revoke(self, numbers: Sequence[int]) -> None:
        """The last change of each of these rows was not done."""
        with self._lock:
            for each in numbers:
                self._rows[each].pop()

    def value(self, number: int) -> int | None:
        """Of a row, after its last change."""
        return self._rows[number][-1].value

    def judge(
        self, who: str, seen: Sequence[tuple[int, int]], since: float, until_: float, *, may_miss: bool = False
    ) -> None:
        """What a query saw that took its snapshot between these moments. ``may_miss``: see `Traffic.moving`. Raises
        AssertionError."""
        values = dict(seen)
        assert len(values) == len(seen), (
            f"{who}: rows seen twice: {Counter(number for number, _ in seen).most_common(3)}"
        )
        with self._lock:
            for number in self._rows.keys() | values.keys():
                allowed = self._allowed(number, since, until_) | ({None} if may_miss else set())
                assert values.get(number) in allowed, (
                    f"{who}: row {number} is {values.get(number)}, and may be {allowed} "
                    f"from {since:.4f} to {until_:.4f}; "
                    f"{[*self._rows[number]][-4:]}"
                )

    def _allowed(self, number: int, since: float, until_: float) -> set[int | None]:
        allowed = set()
        for change in reversed(self._rows[number]):
            if change.began <= until_:
                allowed.add(change.value)
            if change.ended is not None and change.ended < since:
                # What was there before had been replaced by then.
                break
        return allowed


@dataclass
class Traffic:
    """All sessions of one table. ``ahead``: a moment beyond the first partition, once there is another one."""

    database: Database
    shape: PlainTableShape
    seed: int
    ledger: Ledger = field(default_factory=Ledger)
    stop: threading.Event = field(default_factory=threading.Event)
    ahead: str | None = None
    moving: bool = False
    """Whether rows may leave the first partition just now. A snapshot that is taken in the very moment and used after
    it misses them, which PostgreSQL cannot prevent; one that was taken before is waited for. No other step, neither the
    conversion nor the way back, may hide a row from any snapshot."""
    done: Counter[str] = field(default_factory=Counter)
    futures: list[Future[None]] = field(default_factory=list)

    def check(self) -> None:
        """Raises what a session raised that has ended."""
        for each in self.futures:
            if each.done():
                each.result()
                raise AssertionError("a session ended by itself")

    def goes_on(self) -> None:
        """Wait until every session has done something more."""
        before = Counter(self.done)

        def all_did() -> bool:
            self.check()
            return all(self.done[who] > before[who] for who in self._jobs())

        until("each session goes on", all_did)

    def _jobs(self) -> dict[str, Callable[[str], None]]:
        writers: dict[str, Callable[[str], None]] = {f"writer {each}": self._write for each in range(WRITERS)}
        return writers | {"reader": self._read, "reader of a snapshot": self._read_snapshots}

    def _views(self) -> list[str]:
        views = ["code.above", "code.higher"] if "views" in self.shape.chosen else []
        return [self.shape.name, *views]

    def _connect(self) -> psycopg.Connection:
        """Again and again while the server restarts."""
        made: list[psycopg.Connection] = []

        def try_it() -> bool:
            try:
                made.append(self.database.connect())
            except GONE:
                return False
            return True

        until("the server takes connections", try_it)
        return made[0]

    def _again(self, connection: psycopg.Connection, who: str, error: Exception) -> psycopg.Connection:
        """After a restart; any other error is one that no session may meet."""
        assert connection.closed, f"{who}: {error}"
        return self._connect()

    def _write(self, who: str) -> None:
        rng = Random(f"{self.seed} {who}")
        first = 1 + int(who[-1]) * IDS
        connection = self._connect()
        while not self.stop.is_set():
            numbers = rng.sample(range(first, first + IDS), rng.choice((1, 1, 2)))
            statements, changes = [], dict[int, int | None]()
            for number in numbers:
                value = self.done[who] * WRITERS * 2 + int(who[-1]) * 2 + len(changes)
                text, changes[number] = self._statement(rng, number, value)
                statements.append(text)
            noted = self.ledger.begin(changes)
            try:
                with connection.transaction():
                    for text in statements:
                        done = connection.execute(text.encode())
                        assert done.rowcount == 1, f"{who}: {done.rowcount} rows by {text}"
            except GONE as error:
                connection = self._again(connection, who, error)
                self._settle(connection, changes, noted)
            else:
                self.ledger.confirm(noted)
            self.done[who] += 1
        connection.close()

    def _settle(self, connection: psycopg.Connection, changes: Mapping[int, int | None], noted: list[Change]) -> None:
        """After a lost connection: all was done, or nothing."""
        key = "SELECT n FROM {} WHERE id = {}"
        found = {
            number: next((n for (n,) in connection.execute(key.format(self.shape.name, number).encode())), None)
            for number in changes
        }
        if found == changes:
            self.ledger.confirm(noted)
        else:
            self.ledger.revoke([*changes])
            before = {number: self.ledger.value(number) for number in changes}
            assert found == before, f"after a lost connection: {found}, neither {changes} nor {before}"
        self.done["changes that a restart left open"] += 1

    def _statement(self, rng: Random, number: int, value: int) -> tuple[str, int | None]:
        """One that changes this row, and what it is afterwards."""
        name, key = self.shape.name, quote(self.shape.key)
        moments = ["now()", "now() - interval '1 day'", "now() - interval '100 days'"]
        moment = rng.choice([*moments, f"'{self.ahead}'"] if self.ahead else moments)
        if self.ledger.value(number) is None:
            values = f"{number}, {moment}, {value}, {number}"
            return f"INSERT INTO {name} (id, {key}, n, code) VALUES ({values})", value
        chosen = rng.random()
        if chosen < 0.3:
            return f"DELETE FROM {name} WHERE id = {number}", None
        also = f", {key} = {moment}" if chosen < 0.5 else ""
        return f"UPDATE {name} SET n = {value}{also} WHERE id = {number}", value

    def _read(self, who: str) -> None:
        """One statement after the other, of the table and of views above it."""
        rng = Random(f"{self.seed} {who}")
        connection = self._connect()
        while not self.stop.is_set():
            source, since = rng.choice(self._views()), time.monotonic()
            try:
                seen = connection.execute(f"SELECT id, n FROM {source}".encode(), prepare=rng.random() < 0.5).fetchall()
            except GONE as error:
                connection = self._again(connection, who, error)
                continue
            self.ledger.judge(f"{who} of {source}", seen, since, time.monotonic())
            self.done[who] += 1
        connection.close()

    def _read_snapshots(self, who: str) -> None:
        """Transactions in REPEATABLE READ: the snapshot is there before the table is read, and all see the same."""
        rng = Random(f"{self.seed} {who}")
        connection = self._connect()
        while not self.stop.is_set():
            since, moving = time.monotonic(), self.moving
            try:
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                connection.execute("SELECT 1")
                until_, target = time.monotonic(), self._writes() + rng.choice((0, 0, 3, 20))
                while self._writes() < target and not self.stop.wait(0.001):
                    if time.monotonic() > until_ + 0.5:
                        break
                for source in rng.choices(self._views(), k=2):
                    seen = connection.execute(f"SELECT id, n FROM {source}".encode()).fetchall()
                    self.ledger.judge(f"{who} of {source}", seen, since, until_, may_miss=moving)
                connection.execute("COMMIT")
            except GONE as error:
                connection = self._again(connection, who, error)
                continue
            self.done[who] += 1
        connection.close()

    def _writes(self) -> int:
        return sum(self.done[f"writer {each}"] for each in range(WRITERS))


@contextmanager
def traffic(database: Database, shape: PlainTableShape, seed: int) -> Iterator[Traffic]:
    """The sessions, in the block. Raises what any of them raised."""
    made = Traffic(database, shape, seed)
    jobs = made._jobs()
    with ThreadPoolExecutor(len(jobs)) as pool:
        made.futures = [pool.submit(job, who) for who, job in jobs.items()]
        try:
            yield made
        finally:
            made.stop.set()
    for each in made.futures:
        each.result()
