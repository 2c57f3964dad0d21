"""Connections of a worker process: one for each reconcile, closed at its end, and cancelled when the operator stops."""

from __future__ import annotations

import threading
from dataclasses import replace

import psycopg
import pytest

from lab.operator import until
from lab.postgres import Database
from partwarden.controller.database_work import cancel, cancellable_session
from partwarden.errors import AuthenticationFailed, PartwardenError, StatementFailed
from partwarden.postgres.conninfo import ConnectionInfo, from_dsn


def use(info: ConnectionInfo, statement: str = "SELECT 1") -> int:
    """The server process that served."""
    with cancellable_session(info, 5) as connection:
        connection.execute(statement.encode())
        return connection.info.backend_pid


def open_now(database: Database) -> int:
    count = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'partwarden'"
    )
    (number,) = database.query(count)[0]
    assert isinstance(number, int)
    return number


def test_each_use_has_a_connection_of_its_own_and_leaves_none(database: Database) -> None:
    info = from_dsn(database.dsn)
    first, second = use(info), use(info, "BEGIN")
    with pytest.raises(PartwardenError):
        use(info, "SELECT 1/0")
    assert len({first, second, use(info)}) == 3
    until("all are closed", lambda: open_now(database) == 0)


def test_each_use_logs_in_with_its_own_password(database: Database) -> None:
    role = database.new_role()
    info = from_dsn(role.dsn)
    use(info)
    with pytest.raises(AuthenticationFailed):
        use(replace(info, parameters={**info.parameters, "password": "guessed"}))


def test_a_reconnected_session_is_still_the_lent_one(database: Database) -> None:
    with cancellable_session(from_dsn(database.dsn), 5) as connection:
        database.query("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT 1")
        connection.reconnect()
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
        assert open_now(database) == 1
    until("it is closed", lambda: open_now(database) == 0)


def test_a_running_statement_can_be_cancelled(database: Database) -> None:
    cancelled = threading.Event()

    def work() -> None:
        with pytest.raises(StatementFailed, match="canceling statement"):
            use(from_dsn(database.dsn), "SELECT pg_sleep(600)")
        cancelled.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    sleeping = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    until("it runs", lambda: database.query(sleeping))
    cancel()
    assert cancelled.wait(30)
    thread.join()
