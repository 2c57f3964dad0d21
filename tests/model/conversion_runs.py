"""Runs of a conversion, of a split and of the way back, interrupted at random points, until one comes to its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random

from lab.operator import until
from lab.postgres import Database
from model.plain_tables import PlainTableShape
from partwarden.api import conversion
from partwarden.api.policy import TableSpec
from partwarden.errors import TransientError
from partwarden.planner.actions import SplitLegacy
from partwarden.planner.conversion_rules import Wanted
from partwarden.postgres.connection import Session, session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.conversion_engine import convert, finish, observe_conversion, undo
from partwarden.postgres.engine import maintain
from support.meanwhile import Interrupted

PATIENCE = 5.0
LEAVING, PART = 4, 40
"""How often in one run an interval leaves, or parts of it, if there are so many; rows of a part."""
LIMIT = 1000
TRIPS, COMMANDS = (8, 24, 60), (3, 10, 60)
"""A run is interrupted before one of so many round trips, or after one of so many DDL commands, if it comes so far."""
MOMENTS = ("UNIQUE INDEX CONCURRENTLY", "NOT VALID", "VALIDATE", "ATTACH PARTITION", "DETACH PARTITION", "COMMENT ON")
"""What the server carries out when the process is killed that asked for it."""
DEFINED = "SELECT FROM pg_stat_activity WHERE application_name = 'partwarden' AND pid <> pg_backend_pid()"


class Forward:
    """Convert the table; a run that was interrupted after its transaction has something left to finish."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted

    def __call__(self, connection: Session) -> None:
        """Go on where the last run ended."""
        plan = observe_conversion(connection, self.wanted)
        if plan.table.kind == "p":
            finish(connection, plan.table.parent, PATIENCE, ignore)
            return
        assert plan.refusals == (), plan.refusals
        convert(connection, self.wanted, plan, PATIENCE, ignore)


class Back:
    """Make the table plain again, or take away what a conversion has prepared."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted

    def __call__(self, connection: Session) -> None:
        """Go on where the last run ended."""
        undo(connection, self.wanted.spec.table, self.wanted.spec.key, PATIENCE, LIMIT, ignore)


class Split:
    """Let some intervals leave the table that was converted, as if two years had passed."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted, self.parts = wanted, 0

    def __call__(self, connection: Session) -> None:
        """Go on where the last run ended."""
        # So few that the month into which others write leaves in parts.
        attach, background = conversion.ConvertMode.ATTACH, conversion.Split.BACKGROUND
        asked = conversion.Convert(mode=attach, split=background, split_max_rows=PART)
        spec, later = self.wanted.spec.model_copy(update={"convert": asked}), datetime.now(UTC) + timedelta(days=730)
        for _ in range(LEAVING):
            outcomes = maintain(connection, spec, now=later, patience=PATIENCE).outcomes
            for each in filter(None, (each.error for each in outcomes)):
                raise each
            self.parts += sum(isinstance(each.did, SplitLegacy) and each.did.part for each in outcomes)


def ignore(_: str, __: float) -> None:
    """Nothing is reported."""


Step = Forward | Back | Split


def attempt(database: Database, shape: PlainTableShape, step: Step, rng: Random, trouble: str) -> str:
    """One run with that trouble, one of `TROUBLES`. Returns how it ended."""
    try:
        if trouble == "process killed":
            return _in_process(database, shape, step, rng)
        with session(from_dsn(shape.login)) as connection, TROUBLES[trouble](database, connection, rng):
            step(connection)
    except TransientError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        until("the server has noticed", partial(_is_gone, database))
    return "done"


def complete(database: Database, shape: PlainTableShape, step: Step, check: Callable[[], None]) -> list[str]:
    """Run it until it comes to its end: other sessions use the table, so a lock may not be had at once."""
    said: list[str] = []

    def done() -> bool:
        check()
        said.append(attempt(database, shape, step, Random(0), "none"))
        return said[-1] == "done"

    until(f"it comes to its end: {said}", done)
    return said


def _is_gone(database: Database) -> bool:
    return not database.query(DEFINED)


def _before(connection: Session, trip: int, what: Callable[[], object]) -> None:
    # The very session that Partwarden makes, from here on interrupted.
    connection.__class__ = Interrupted
    assert isinstance(connection, Interrupted)
    connection.before = (connection.round_trips + trip, what)


@contextmanager
def _none(_: Database, __: Session, ___: Random) -> Iterator[None]:
    yield


@contextmanager
def _backend_terminated(database: Database, connection: Session, rng: Random) -> Iterator[None]:
    pid = connection.info.backend_pid
    kill = partial(database.query, "SELECT pg_terminate_backend(%s, 60000)", pid)
    _before(connection, rng.randint(1, rng.choice(TRIPS)), kill)
    yield


@contextmanager
def _ended_after_a_command(_: Database, connection: Session, rng: Random) -> Iterator[None]:
    connection.execute(f"SET lab.last = {rng.randint(1, rng.choice(COMMANDS))}".encode())
    yield


@contextmanager
def _server_restarted(database: Database, connection: Session, rng: Random) -> Iterator[None]:
    def restart() -> None:
        database.server.stop("immediate")
        database.server.start_again()

    _before(connection, rng.randint(1, rng.choice(TRIPS)), restart)
    yield


def _in_process(database: Database, shape: PlainTableShape, step: Step, rng: Random) -> str:
    """The process is killed while the server carries out a statement of it, which it may well bring to its end."""
    spec = step.wanted.spec
    values = [type(step).__name__, shape.login, spec.model_dump(mode="json", by_alias=True, exclude_none=True)]
    paths = os.pathsep.join(sys.path)
    moment = rng.choice(MOMENTS)
    with subprocess.Popen(
        [sys.executable, "-m", "model.conversion_runs", json.dumps(values)],
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        there = "SELECT FROM pg_stat_activity WHERE application_name = 'partwarden' AND query ~ %s"
        until("it ends, or comes so far", lambda: process.poll() is not None or database.query(there, moment))
        process.kill()
        _, said = process.communicate()
    # It ended by itself, with one of the errors that a user may meet.
    assert process.returncode in (0, -9) or "TransientError" in said, said
    return f"killed at {moment}" if process.returncode else "done"


TROUBLES = {
    "none": _none,
    "backend terminated": _backend_terminated,
    "ended after a command": _ended_after_a_command,
    "server restarted": _server_restarted,
}


def main() -> None:
    """One run in a process of its own."""
    name, dsn, fields = json.loads(sys.argv[1])
    wanted = Wanted(TableSpec.model_validate(fields), widen_keys=True)
    steps: list[type[Step]] = [Forward, Back, Split]
    step = next(each for each in steps if each.__name__ == name)(wanted)
    try:
        with session(from_dsn(dsn)) as connection:
            step(connection)
    except TransientError as error:
        sys.exit(f"TransientError: {error}")


if __name__ == "__main__":
    main()
