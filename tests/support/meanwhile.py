"""Other sessions that change a table at moments of a run that a test chooses, on real connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from threading import Event
from typing import Any

import psycopg
from psycopg.abc import RV, PQGen

from lab.postgres import Database
from partwarden.api.policy import TableSpec
from partwarden.errors import DatabaseUnreachable
from partwarden.planner.drop_preconditions import UNKNOWN, Archives
from partwarden.planner.findings import Finding
from partwarden.planner.recheck import NEVER, Recheck
from partwarden.postgres.connection import Session, session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import Report, maintain

NOW = datetime(2026, 10, 24, 12, tzinfo=UTC)
RUN = "CREATE TABLE run (submitted_at timestamptz NOT NULL) PARTITION BY RANGE (submitted_at);"
GATE = 4711
"""Key of an advisory lock: its holder keeps `gate` shut."""


class Interrupted(Session):
    """A session that calls a function right before one of its round trips."""

    before: tuple[int, Callable[[], object]] | None = None

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """As it always does, after what `before` says."""
        if self.before and self.before[0] == self.round_trips + 1:
            what, self.before = self.before[1], None
            what()
        return super().wait(gen, interval, timeout)


def policy(**fields: Any) -> TableSpec:
    """A policy for public.run, fields by their names in YAML."""
    return TableSpec.model_validate({"table": {"name": "run"}, **fields})


def keep(
    dsn: str, *, patience: float = 10.0, archives: Archives = UNKNOWN, recheck: Recheck = NEVER, **fields: Any
) -> Report:
    """Run a policy with these fields once. Raises as `unbroken`."""
    with session(from_dsn(dsn)) as connection:
        return unbroken(
            maintain(connection, policy(**fields), now=NOW, patience=patience, archives=archives, recheck=recheck)
        )


def unbroken(report: Report) -> Report:
    """The same report. Raises the error of an action that ended with its connection, whatever was done after it."""
    for each in report.outcomes:
        if isinstance(each.error, DatabaseUnreachable):
            raise each.error
    return report


def keep_while(
    dsn: str, trip: int, what: Callable[[], object], *, archives: Archives = UNKNOWN, **fields: Any
) -> Report:
    """The same, with a call of ``what`` right before round trip number ``trip`` (from 1). Raises as `unbroken`."""
    with session(from_dsn(dsn)) as connection:
        # The very session that Partwarden makes, from here on interrupted.
        connection.__class__ = Interrupted
        assert isinstance(connection, Interrupted)
        connection.before = (connection.round_trips + trip, what)
        report = maintain(connection, policy(**fields), now=NOW, archives=archives)
        assert connection.before is None, f"there were only {connection.round_trips} round trips"
        return unbroken(report)


def findings(report: Report) -> tuple[Finding, ...]:
    """The findings, without those of every test that connects as the server's superuser."""
    return tuple(each for each in report.after.findings if each.reason != "SuperuserLogin")


def reasons(report: Report) -> list[str]:
    """How each action ended: "created", or the reason of its error."""
    return [each.error.reason if each.error else "created" for each in report.outcomes]


def kill_others(database: Database) -> None:
    """Terminate every other connection to the database, as an administrator or a crash would."""
    database.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )


def relations(database: Database) -> set[tuple[object, ...]]:
    """Every relation and type of users."""
    return set(
        database.query(
            "SELECT 'relation', relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            "UNION ALL SELECT 'type', typname FROM pg_type WHERE typnamespace = 'public'::regnamespace"
        )
    )


def waiting(database: Database) -> bool:
    """Whether a session waits for a lock there."""
    return bool(
        database.query(
            "SELECT FROM pg_locks WHERE NOT granted AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    )


@contextmanager
def gate(database: Database) -> Iterator[psycopg.Connection]:
    """Every session that has attached a partition stops there, before its commit, until the end of the block.

    Yields the connection that keeps it shut.
    """
    database.execute(f"""
        CREATE FUNCTION at_gate() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
          IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() c JOIN pg_inherits i ON i.inhparent = c.objid) THEN
            WHILE NOT pg_try_advisory_xact_lock_shared({GATE}) LOOP PERFORM pg_sleep(0.01); END LOOP;
          END IF;
        END $$;
        CREATE EVENT TRIGGER gate ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION at_gate()""")
    with database.connect() as keeper:
        keeper.execute(f"SELECT pg_advisory_lock({GATE})".encode())
        try:
            yield keeper
        finally:
            keeper.execute("DROP EVENT TRIGGER gate; SELECT pg_advisory_unlock_all()")


def at_gate(database: Database) -> bool:
    """Whether a session has attached a partition and waits at the `gate`."""
    return bool(
        database.query(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep' "
            "AND state = 'active'"
        )
    )


@contextmanager
def working(stop: Event, *jobs: Callable[[], None]) -> Iterator[None]:
    """Each job in a thread of its own, until ``stop`` is set, which the end of the block does. Raises what any of them
    raised."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        futures: list[Future[None]] = [pool.submit(job) for job in jobs]
        try:
            yield
        finally:
            stop.set()
    for future in futures:
        future.result()


def killing_after_each_ddl_command(database: Database) -> Iterator[int]:
    """Numbers from 1 on, without end: until the next, a session is ended when it has carried out so many commands."""
    database.execute("""
        CREATE FUNCTION count_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
          -- Empty after a rollback.
          PERFORM set_config('lab.done',
            (coalesce(nullif(current_setting('lab.done', true), ''), '0')::int + 1)::text, false);
          IF current_setting('lab.done') = current_setting('lab.last', true) THEN
            PERFORM pg_terminate_backend(pg_backend_pid());
          END IF;
        END $$;
        CREATE EVENT TRIGGER count_ddl ON ddl_command_end EXECUTE FUNCTION count_ddl()""")
    for last in count(1):
        database.execute(f'ALTER DATABASE "{database.name}" SET lab.last = {last}')
        yield last


@contextmanager
def writing(database: Database) -> Iterator[list[int]]:
    """The ids that a session writes into ``run``, one transaction each, while the block lasts. Raises its error."""
    written, stop = list[int](), Event()

    def write() -> None:
        with database.connect() as connection:
            while not stop.wait(0.01):
                row = connection.execute(b"INSERT INTO run DEFAULT VALUES RETURNING id").fetchone()
                written.append(row[0] if row else 0)

    with working(stop, write):
        yield written
