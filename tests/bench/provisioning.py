"""How long it takes to make 13 monthly partitions of 50 tables, against the statements a user would write.

And how long one reconcile of each takes when nothing is to be done, against the same.
"""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import pairwise

import psycopg

from lab.postgres import Binaries, Database, Server
from partwarden.api.policy import Table, TableSpec
from partwarden.api.types import Interval
from partwarden.controller.runtime import PER_DATABASE
from partwarden.postgres import engine
from partwarden.postgres.connection import Session, session
from partwarden.postgres.conninfo import from_dsn
from partwarden.status.conditions import make_status, reconciled

from .figures import Figure
from .stand import TABLE, Stand

TABLES, MONTHS, ROUNDS = 50, 13, 5
NOW = datetime(2026, 1, 15, tzinfo=UTC)
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "128MB"}
"""Settings of a durable server; the lab's own servers are not durable."""

LIMIT, LIMIT_OF_RECONCILES = 1.2, 0.04
"""Partwarden's time is at most this many times that of bare DDL: to create, and to reconcile when all exist."""

BARE, BY_HAND, PARTWARDEN = "CREATE … PARTITION OF", "LIKE, ATTACH", "Partwarden"
RECONCILE = "reconcile"

Way = Callable[[str], None]
"""Creates the partitions of the table of that name."""


def measure(stand: Stand) -> list[Figure]:
    """For each table the best of several rounds, the ways taking turns at every table; of all at once the best round.

    What else the machine does meanwhile weighs on all ways, and seldom twice on one table.
    """
    best: dict[str, list[float]] = {way: [math.inf] * TABLES for way in (BARE, BY_HAND, PARTWARDEN, RECONCILE)}
    made = reconciled = bare = math.inf
    title = f"bench: {TABLES} tables with {MONTHS} partitions each, {ROUNDS} rounds of 4 ways"
    with Server.start(Binaries.wheel(), options=DURABLE) as server, stand.say.progress(title) as advance:
        for number in range(ROUNDS):
            spent = 0.0
            for table, way, seconds in _round(server):
                advance(number * TABLES + table, ROUNDS * TABLES, "tables")
                best[way][table] = min(best[way][table], seconds)
                spent += seconds if way == BARE else 0.0
            bare = min(bare, spent)
            making, reconciling = _all_at_once(server)
            made, reconciled = min(made, making), min(reconciled, reconciling)
    total = {way: sum(seconds) for way, seconds in best.items()}
    how = f"{TABLES} tables x {MONTHS} months, each table's best of {ROUNDS}"
    operator = f"{PER_DATABASE} connections, as the operator has; best of {ROUNDS}"
    whole = f"of bare DDL, too, the best round as a whole: {bare:.2f} s"
    return [
        Figure("provisioning: bare DDL", total[BARE], "s", note=f"{BARE}, one connection, autocommit; {how}"),
        Figure(
            "provisioning: by hand, equally safe", total[BY_HAND], "s", note=f"{BY_HAND} in a transaction; the same"
        ),
        Figure("provisioning: Partwarden, one by one", total[PARTWARDEN], "s", note="one connection; the same"),
        Figure("provisioning: Partwarden", made, "s", note=f"observe, create, observe; {operator}"),
        Figure("Partwarden, one by one : bare DDL", total[PARTWARDEN] / total[BARE], "x"),
        Figure("Partwarden, one by one : by hand, equally safe", total[PARTWARDEN] / total[BY_HAND], "x", LIMIT),
        Figure("Partwarden : bare DDL", made / bare, "x", LIMIT, note=whole),
        Figure(
            "nothing to do: reconciles, one by one",
            total[RECONCILE],
            "s",
            note="read, plan, status; one connection; the same",
        ),
        Figure("nothing to do: reconciles", reconciled, "s", note="the same, at all tables"),
        Figure("nothing to do, one by one : bare DDL", total[RECONCILE] / total[BARE], "x"),
        Figure("nothing to do : bare DDL", reconciled / bare, "x", LIMIT_OF_RECONCILES, note=whole),
    ]


def _round(server: Server) -> Iterator[tuple[int, str, float]]:
    """Every table in every way, each way in a new database of its own: table, way, seconds."""
    with ExitStack() as stack:
        databases = {way: _prepared(stack, server) for way in (BARE, BY_HAND, PARTWARDEN)}
        ways = {
            BARE: _bare(stack.enter_context(psycopg.connect(databases[BARE][1], autocommit=True))),
            BY_HAND: _by_hand(stack.enter_context(psycopg.connect(databases[BY_HAND][1], autocommit=True))),
            PARTWARDEN: _partwarden(connection := stack.enter_context(session(from_dsn(databases[PARTWARDEN][1])))),
        }
        order = list(ways)
        for number, name in enumerate(_tables()):
            for way in order:
                began = time.perf_counter()
                ways[way](name)
                yield number, way, time.perf_counter() - began
            order.append(order.pop(0))
        for database, _ in databases.values():
            _check(database)
        reconcile = _reconciling(connection)
        for number, name in enumerate(_tables()):
            reconcile(name)  # the first also checks what is then cached for an hour
            began = time.perf_counter()
            reconcile(name)
            yield number, RECONCILE, time.perf_counter() - began


def _all_at_once(server: Server) -> tuple[float, float]:
    """Seconds until every table has its partitions, and until all were reconciled again, as the operator does both."""
    with ExitStack() as stack:
        database, dsn = _prepared(stack, server)
        workers = stack.enter_context(ThreadPoolExecutor(PER_DATABASE))

        def lend(work: Callable[[Session], Way]) -> float:
            def one(name: str) -> None:
                with session(from_dsn(dsn)) as connection:
                    work(connection)(name)

            began = time.perf_counter()
            list(workers.map(one, _tables()))
            return time.perf_counter() - began

        made = lend(_partwarden)
        _check(database)
        lend(_reconciling)  # the first also checks what is then cached for an hour
        return made, min(lend(_reconciling) for _ in range(ROUNDS))


def _prepared(stack: ExitStack, server: Server) -> tuple[Database, str]:
    """A database with the tables, and the connection of their owner, which is not a superuser."""
    database = stack.enter_context(server.new_database())
    role = database.new_role()
    database.execute(f"ALTER DATABASE {database.name} OWNER TO {role.name}")
    with psycopg.connect(role.dsn, autocommit=True) as connection:
        for name in _tables():
            connection.execute(TABLE.format(name=name).encode())
    return database, role.dsn


def _check(database: Database) -> None:
    rows = database.query(
        "SELECT p.relname, count(*), min(pg_get_expr(c.relpartbound, c.oid)), max(pg_get_expr(c.relpartbound, c.oid)) "
        "FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent AND p.relkind = 'p' "
        "JOIN pg_class c ON c.oid = i.inhrelid GROUP BY 1"
    )
    bounds = {row[1:] for row in rows}
    expected = tuple(f"FOR VALUES FROM ('{lower}') TO ('{upper}')" for lower, upper in (_months()[0], _months()[-1]))
    assert len(rows) == TABLES, rows
    assert bounds == {(MONTHS, *expected)}, bounds


def _tables() -> list[str]:
    return [f"t{number:02d}" for number in range(TABLES)]


def _months() -> list[tuple[str, str]]:
    """Bounds, lower inclusive and upper exclusive."""
    starts = [
        f"{NOW.year + (NOW.month - 1 + n) // 12}-{(NOW.month - 1 + n) % 12 + 1:02d}-01 00:00:00+00"
        for n in range(MONTHS + 1)
    ]
    return list(pairwise(starts))


def _bare(connection: psycopg.Connection) -> Way:
    def make(name: str) -> None:
        for lower, upper in _months():
            connection.execute(
                f"CREATE TABLE {_partition(name, lower)} PARTITION OF {name} "
                f"FOR VALUES FROM ('{lower}') TO ('{upper}')".encode()
            )

    return make


def _by_hand(connection: psycopg.Connection) -> Way:
    def make(name: str) -> None:
        for lower, upper in _months():
            made = _partition(name, lower)
            attach = f"ALTER TABLE {name} ATTACH PARTITION {made} FOR VALUES FROM ('{lower}') TO ('{upper}')"
            with connection.transaction():
                connection.execute(f"CREATE TABLE {made} (LIKE {name} INCLUDING ALL EXCLUDING IDENTITY)".encode())
                connection.execute(attach.encode())

    return make


def _partwarden(connection: Session) -> Way:
    def make(name: str) -> None:
        report = engine.maintain(connection, _spec(name), now=NOW)
        failed = [outcome.error for outcome in report.outcomes if outcome.error]
        assert not failed, failed

    return make


def _reconciling(connection: Session) -> Way:
    """A reconcile of a converged policy, without reading its Secret."""

    def reconcile(name: str) -> None:
        spec = _spec(name)
        inventory, plan = engine.observe_and_plan(connection, spec, NOW)
        assert not plan.actions, plan.actions
        make_status(reconciled(spec, inventory, plan, []), {}, 1, NOW)

    return reconcile


def _spec(name: str) -> TableSpec:
    return TableSpec(table=Table(name=name), interval=Interval.MONTH, premake=MONTHS - 1)


def _partition(table: str, lower: str) -> str:
    return f"{table}_{lower[:7].replace('-', '_')}"
