"""What works through PgBouncer as without it, what it ends or holds up, and what is said then."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lab.operator import until
from lab.pgbouncer import PgBouncer
from lab.postgres import Database, Role, Server
from partwarden.archive.restore import RestoreRequest, restore
from partwarden.errors import DatabaseUnreachable, PartwardenError
from partwarden.postgres.connection import run, session
from partwarden.postgres.conninfo import from_dsn
from support import archived, zoo
from support.archived import quoted
from support.complaints import RUN, check, complaint, complaints

MODES = pytest.mark.parametrize("mode", ["session", "transaction"])
CLOSE: dict[str, Any] = {"premake": 0, "maintenance": {"onClose": "Vacuum", "analyzeParent": False}}
CLOSED = """
CREATE TABLE run_2025 PARTITION OF run FOR VALUES FROM ('2025-01-01Z') TO ('2026-01-01Z');
INSERT INTO run SELECT '2025-05-05Z' FROM generate_series(1, %s);
"""

SLOW = """
CREATE FUNCTION slow(timestamptz) RETURNS timestamptz LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  PERFORM pg_catalog.pg_sleep(0.02); RETURN $1;
END $$;
CREATE INDEX slow ON run_2025 (slow(submitted_at));
"""
"""VACUUM with ANALYZE takes 1.2 s for 60 rows."""
OPEN = """SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND state = 'idle in transaction' AND pid <> pg_backend_pid()"""

Start = Callable[..., PgBouncer]


@pytest.fixture
def start(server: Server, new_pooler: Start, database: Database) -> Start:
    """Starts poolers in front of the server: start(pool_mode, a role beside the superuser, **settings)."""

    def begin(pool_mode: str, role: Role | None = None, **settings: object) -> PgBouncer:
        users = {role.name: role.password} if role else {}
        # A pool whose first connection was kept waiting would else connect again after 15 s.
        more = {"server_login_retry": 1, **settings}
        return new_pooler(server, pool_mode, users=users, databases=[database.name], settings=more)

    return begin


@MODES
def test_an_archive_is_restored_and_attached_through_a_pooler(
    database: Database, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    archived.use_client(monkeypatch)
    specimen = zoo.ZOO["by date"]
    zoo.build(database, "by date")
    source, before = archived.archive(database, specimen, tmp_path), archived.contents(database, specimen)
    database.execute("DROP TABLE zoo_2020")
    info = from_dsn(start(mode).dsn(database.name))
    restored = restore(source, info, RestoreRequest(attach=True), lambda line: None)
    assert restored.attached == "public.zoo"
    assert archived.contents(database, specimen) == before


@MODES
def test_vacuum_waits_for_no_lock_and_names_its_holder(database: Database, start: Start, mode: str) -> None:
    database.execute(RUN + ";" + CLOSED % 10)
    info = from_dsn(start(mode).dsn(database.name))
    with database.connect() as holder:
        holder.execute("BEGIN; LOCK TABLE run_2025 IN SHARE UPDATE EXCLUSIVE MODE")
        began = time.monotonic()
        error = complaint(info, **CLOSE)
        check(error, "TableBusy", "cannot vacuum partition public.run_2025", f"held by pid {holder.info.backend_pid}")
        assert time.monotonic() - began < 10
    assert complaints(info, **CLOSE) == []


@MODES
def test_a_limit_of_the_role_that_ends_vacuum_is_named_with_what_to_do(
    database: Database, start: Start, mode: str
) -> None:
    role = database.new_role()
    database.execute(f"GRANT CREATE ON SCHEMA public TO {role.name}")
    with psycopg.connect(role.dsn, autocommit=True) as connection:
        connection.execute(f"{RUN};{CLOSED % 60}{SLOW}".encode())
    database.execute(f"ALTER ROLE {role.name} SET statement_timeout = '500ms'")
    info = from_dsn(start(mode, role).dsn(database.name, role.name))
    words = (
        "cannot vacuum partition public.run_2025: canceling statement due to statement timeout; behind a pooler",
        f"ALTER ROLE {quoted(role.name)} SET statement_timeout = 0",
        "host and port of the Secret",
    )
    check(complaint(info, **CLOSE), "StatementFailed", *words)
    # Without a pooler the limits of the role do not hold.
    assert complaints(from_dsn(role.dsn), **CLOSE) == []


def refused(pooler: PgBouncer, name: str, seconds: int = 2) -> PartwardenError:
    """The error of a connection, which came within some seconds."""
    began = time.monotonic()
    with pytest.raises(PartwardenError) as caught, session(from_dsn(pooler.dsn(name)), connect_timeout=seconds):
        pass
    assert time.monotonic() - began < seconds + 3
    return caught.value


def answers(pooler: PgBouncer, name: str) -> bool:
    with suppress(DatabaseUnreachable), session(from_dsn(pooler.dsn(name)), connect_timeout=5):
        return True
    return False


@MODES
def test_a_paused_database_is_not_waited_for_longer_than_for_a_connection(
    database: Database, start: Start, mode: str
) -> None:
    database.execute(RUN)
    pooler = start(mode)
    # The login itself waits where the pool has had no connection yet.
    pooler.console(f"PAUSE {database.name}")
    check(
        refused(pooler, database.name), "DatabaseUnreachable", "no answer in time", "whether a pooler there is paused"
    )
    pooler.console(f"RESUME {database.name}")
    assert complaints(from_dsn(pooler.dsn(database.name))) == []
    pooler.console(f"PAUSE {database.name}")
    words = ("the login was accepted, and the first statement is not answered in 2 s", "RESUME the database there")
    check(refused(pooler, database.name), "DatabaseUnreachable", *words)
    pooler.console(f"RESUME {database.name}")
    assert complaints(from_dsn(pooler.dsn(database.name))) == []


def test_a_pooler_that_waits_shorter_is_named_by_its_own_words(database: Database, start: Start) -> None:
    pooler = start("transaction", query_wait_timeout=1)
    # The login waits so at first, later the first statement.
    for _ in range(2):
        pooler.console(f"PAUSE {database.name}")
        error = refused(pooler, database.name, 5)
        check(error, "DatabaseUnreachable", "query_wait_timeout; RESUME the database there, or give its pool more")
        pooler.console(f"RESUME {database.name}")
        until("it is resumed", lambda: answers(pooler, database.name))


@pytest.mark.parametrize("limit", ["query_timeout", "idle_transaction_timeout"])
def test_a_limit_of_the_pooler_is_a_lost_connection_with_its_name(database: Database, start: Start, limit: str) -> None:
    pooler = start("transaction", **{limit: 1})
    info = from_dsn(pooler.dsn(database.name))

    def work() -> None:
        with session(info) as connection:
            run(connection, "BEGIN", "SELECT pg_sleep(5)" if limit == "query_timeout" else "SELECT 1")
            until("the pooler has ended it", lambda: database.query(OPEN) == [(0,)])
            run(connection, "COMMIT")

    with pytest.raises(DatabaseUnreachable) as caught:
        work()
    check(caught.value, "DatabaseUnreachable", "the connection was lost: ", limit.partition("_")[0])


def test_a_disabled_database_is_said_to_be_enabled_in_the_pooler(database: Database, start: Start) -> None:
    pooler = start("transaction")
    pooler.console(f"DISABLE {database.name}")
    check(refused(pooler, database.name), "DatabaseUnreachable", "is disabled; ENABLE the database in the pooler")
