"""How long it takes to make 13 monthly partitions of 50 tables, against the statements a person would write.

And how long to look at all of them when nothing is to be done, against the same.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import pairwise

import psycopg

from lab.postgres import Binaries, Database, Server
from partwarden import engine
from partwarden.conditions import looked, make_status
from partwarden.connection import from_dsn
from partwarden.connections import Connections
from partwarden.interval import Interval
from partwarden.policy import Table, TableSpec
from partwarden.session import Session, session

from .figures import Figure
from .stand import TABLE, Stand

TABLES, MONTHS, ROUNDS = 50, 13, 5
NOW = datetime(2026, 1, 15, tzinfo=UTC)
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "128MB"}
"""As a server is that keeps its data, which the lab's own need not."""

LIMIT, LIMIT_OF_LOOKS = 1.2, 0.04
"""Partwarden's time is at most this many times that of bare DDL: to make partitions, and to look when all are there."""

BARE, BY_HAND, PARTWARDEN = "CREATE … PARTITION OF", "LIKE, ATTACH", "Partwarden"
LOOK, VISIT = "look", "look, on a connection that is lent"

Way = Callable[[str], None]
"""Makes the partitions of the table of that name."""


def measure(stand: Stand) -> list[Figure]:
    """For each table the best of several rounds, the ways taking turns at every table.

    What else the machine does meanwhile weighs on all ways, and seldom twice on one table.
    """
    best: dict[str, list[float]] = {way: [math.inf] * TABLES for way in (BARE, BY_HAND, PARTWARDEN, LOOK, VISIT)}
    title = f"bench: {TABLES} tables with {MONTHS} partitions each, {ROUNDS} rounds of 3 ways"
    with Server.start(Binaries.wheel(), options=DURABLE) as server, stand.say.progress(title) as advance:
        for number in range(ROUNDS):
            for table, way, seconds in _round(server):
                advance(number * TABLES + table, ROUNDS * TABLES, "tables")
                best[way][table] = min(best[way][table], seconds)
    total = {way: sum(seconds) for way, seconds in best.items()}
    how = f"{TABLES} tables x {MONTHS} months, each table's best of {ROUNDS}"
    return [
        Figure("provisioning: bare DDL", total[BARE], "s", note=f"{BARE}, one connection, autocommit; {how}"),
        Figure("provisioning: by hand, as safe", total[BY_HAND], "s", note=f"{BY_HAND} in a transaction; the same"),
        Figure("provisioning: Partwarden", total[PARTWARDEN], "s", note="look, make, look; one connection; the same"),
        Figure("Partwarden : bare DDL", total[PARTWARDEN] / total[BARE], "x", LIMIT),
        Figure("Partwarden : by hand, as safe", total[PARTWARDEN] / total[BY_HAND], "x"),
        Figure(
            "nothing to do: all looks",
            total[LOOK],
            "s",
            note=f"read, plan, status; one connection; not the first of the hour; {how}",
        ),
        Figure("nothing to do: all looks, connection lent", total[VISIT], "s", note="as the operator does; the same"),
        Figure("nothing to do : bare DDL", total[LOOK] / total[BARE], "x"),
        Figure("nothing to do, as the operator does : bare DDL", total[VISIT] / total[BARE], "x", LIMIT_OF_LOOKS),
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
        connections = Connections(5)
        stack.callback(connections.close)
        for number, name in enumerate(_tables()):
            for way, look in ((LOOK, _looking(connection)), (VISIT, _visiting(connections, databases[PARTWARDEN][1]))):
                look(name)  # the first asks what then holds for an hour
                began = time.perf_counter()
                look(name)
                yield number, way, time.perf_counter() - began


def _prepared(stack: ExitStack, server: Server) -> tuple[Database, str]:
    """A database with the tables, and how their owner, who is no superuser, connects."""
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


def _looking(connection: Session) -> Way:
    """All that the operator does of a policy that has converged, but for connecting and reading its Secret."""

    def look(name: str) -> None:
        spec = _spec(name)
        inventory, plan = engine.observe_and_plan(connection, spec, NOW)
        assert not plan.actions, plan.actions
        make_status(looked(spec, inventory, plan, []), {}, 1, NOW)

    return look


def _visiting(connections: Connections, dsn: str) -> Way:
    """The same, with the connection that the operator would have: the last one's, or a new one."""

    def visit(name: str) -> None:
        with connections.lend(from_dsn(dsn)) as connection:
            _looking(connection)(name)
            connection.reusable = True

    return visit


def _spec(name: str) -> TableSpec:
    return TableSpec(table=Table(name=name), interval=Interval.MONTH, premake=MONTHS - 1)


def _partition(table: str, lower: str) -> str:
    return f"{table}_{lower[:7].replace('-', '_')}"
