"""Runs of Partwarden, some of them interrupted or with conflicting sessions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import psycopg

from lab.operator import until
from model.world import World
from partwarden.api.policy import TableSpec
from partwarden.errors import PartwardenError
from partwarden.postgres.connection import Session, session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import Report, maintain
from support.meanwhile import Interrupted
from support.statements import watch

PATIENCE = 0.3
TRIPS, COMMANDS = (4, 8, 24), (2, 5, 12)
"""A run is ended before one of so many round trips, or after one of so many DDL commands, if it comes so far."""
WRITTEN = 20
"""Rows that are written during a run, and a little longer."""


def run(world: World, trouble: str = "none") -> tuple[Report | None, str]:
    """One run and its outcome; the report is None where it was interrupted. ``trouble`` is one of `TROUBLES`."""
    fields = {"table": {"name": "run"}, "keyEncoding": world.kind.encoding, **world.policy.fields}
    spec = TableSpec.model_validate(fields)
    report, said = None, ""
    world.written.clear()
    try:
        with session(from_dsn(world.dsn)) as connection, TROUBLES[trouble](world, connection):
            report = maintain(connection, spec, patience=PATIENCE, held=world.policy.held)
    except PartwardenError as error:
        said = f"broken off: {error.reason}: {error}"
    if report is not None:
        reasons = [each.reason for each in report.after.findings]
        said = f"{[_describe(each) for each in report.outcomes]} findings {reasons}"
        for each in report.outcomes:
            end = f" failed of {each.error.reason}" if each.error else ""
            world.counts[f"{type(each.action).__name__}{end}"] += 1
    world.counts["runs"] += 1
    until("the server has noticed", partial(_is_gone, world))
    return report, said


def _describe(outcome: Any) -> str:
    end = f" ({outcome.error.reason}: {outcome.error})" if outcome.error else ""
    return f"{type(outcome.action).__name__} {outcome.action.name}{end}"


def _is_gone(world: World) -> bool:
    mine = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'partwarden'"
    return not world.admin.execute(mine.encode()).fetchall()


@contextmanager
def _none(_: World, __: Session) -> Iterator[None]:
    yield


@contextmanager
def _killed_before_a_round_trip(world: World, connection: Session) -> Iterator[None]:
    pid = connection.info.backend_pid

    def kill() -> None:
        world.admin.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))
        world.counts["kills between round trips"] += 1

    _before(connection, world.rng.randint(2, world.rng.choice(TRIPS)), kill)
    yield


@contextmanager
def _killed_after_a_statement(world: World, connection: Session) -> Iterator[None]:
    connection.execute(f"SET lab.last = {world.rng.randint(1, world.rng.choice(COMMANDS))}".encode())
    yield
    # The session ended itself, or did not come so far.


@contextmanager
def _killed_while_it_waits(world: World, connection: Session) -> Iterator[None]:
    """A reader holds a lock from some round trip on; the session is killed as soon as it waits for a lock."""
    with _reader(world, connection, kill=True):
        yield


@contextmanager
def _waits_for_a_reader(world: World, connection: Session) -> Iterator[None]:
    """The same, but it is the reader that ends."""
    with _reader(world, connection, kill=False):
        yield


@contextmanager
def _killed_in_the_middle(world: World, connection: Session) -> Iterator[None]:
    """The reader comes right before a statement of several transactions, CONCURRENTLY, which then waits for it."""
    with _reader(world, connection, kill=True, concurrently=True):
        yield


@contextmanager
def _reader(world: World, connection: Session, *, kill: bool, concurrently: bool = False) -> Iterator[None]:
    pid, over = connection.info.backend_pid, threading.Event()
    with psycopg.connect(world.dsn) as reader:
        watcher = threading.Thread(target=_watch, args=(world, pid, reader, over, kill))
        read = partial(reader.execute, "SELECT FROM run LIMIT 1")
        if concurrently:
            watch(connection, lambda query: read() if "CONCURRENTLY" in query else None)
        else:
            _before(connection, world.rng.randint(2, world.rng.choice(TRIPS)), read)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            reader.rollback()


@contextmanager
def _beside_a_writer(world: World, _: Session) -> Iterator[None]:
    """A writer inserts rows of today and later all the time; what was committed is in `World.written`."""
    first, values = world.number + 1, [world.value(world.near_future()) for _ in range(WRITTEN)]
    world.number += WRITTEN
    thread = threading.Thread(target=_insert, args=(world, first, values))
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _insert(world: World, first: int, values: list[str]) -> None:
    with psycopg.connect(world.dsn, autocommit=True) as writer:
        for number, value in enumerate(values, first):
            # The writer must not notice that another session works; only a missing partition refuses it.
            with suppress(psycopg.errors.CheckViolation):
                writer.execute(f"INSERT INTO run VALUES ({number}, {value}, 'beside')".encode())
                world.written.add(number)


def _watch(world: World, pid: int, reader: psycopg.Connection, over: threading.Event, kill: bool) -> None:
    asked = "SELECT FROM pg_locks WHERE pid = %s AND NOT granted"
    with psycopg.connect(world.dsn, autocommit=True) as other:
        while not over.wait(0.003):
            if other.execute(asked, (pid,)).fetchall():
                if kill:
                    other.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))
                    world.counts["kills while it waited"] += 1
                else:
                    reader.rollback()
                    world.counts["waits for a reader"] += 1
                return


def _before(connection: Session, trip: int, what: Any) -> None:
    # The very session that Partwarden makes, from here on interrupted.
    connection.__class__ = Interrupted
    assert isinstance(connection, Interrupted)
    connection.before = (connection.round_trips + trip, what)


TROUBLES = {
    "none": _none,
    "killed before a round trip": _killed_before_a_round_trip,
    "killed after a statement": _killed_after_a_statement,
    "killed while it waits": _killed_while_it_waits,
    "killed in the middle of a statement": _killed_in_the_middle,
    "waits for a reader": _waits_for_a_reader,
    "beside a writer": _beside_a_writer,
}
