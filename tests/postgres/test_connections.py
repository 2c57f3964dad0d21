"""Connections of the operator: one for each reconcile, closed at its end, and cancelled when the operator stops."""

from __future__ import annotations

import threading
from dataclasses import replace

import psycopg
import pytest

from lab.operator import until
from lab.postgres import Database
from partwarden.errors import AuthenticationFailed, PartwardenError, StatementFailed
from partwarden.postgres.conninfo import ConnectionInfo, from_dsn
from partwarden.postgres.pool import Connections


@pytest.fixture
def connections() -> Connections:
    return Connections(5)


def use(connections: Connections, info: ConnectionInfo, statement: str = "SELECT 1") -> int:
    """The server process that served."""
    with connections.lend(info) as connection:
        connection.execute(statement.encode())
        return connection.info.backend_pid


def open_now(database: Database) -> int:
    count = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'partwarden'"
    )
    (number,) = database.query(count)[0]
    assert isinstance(number, int)
    return number


def test_each_use_has_a_connection_of_its_own_and_leaves_none(database: Database, connections: Connections) -> None:
    info = from_dsn(database.dsn)
    first, second = use(connections, info), use(connections, info, "BEGIN")
    with pytest.raises(PartwardenError):
        use(connections, info, "SELECT 1/0")
    assert len({first, second, use(connections, info)}) == 3
    until("all are closed", lambda: open_now(database) == 0)


def test_each_use_logs_in_with_its_own_password(database: Database, connections: Connections) -> None:
    role = database.new_role()
    info = from_dsn(role.dsn)
    use(connections, info)
    with pytest.raises(AuthenticationFailed):
        use(connections, replace(info, parameters={**info.parameters, "password": "guessed"}))


def test_two_uses_at_once_have_two_connections(database: Database, connections: Connections) -> None:
    info = from_dsn(database.dsn)
    with connections.lend(info) as one, connections.lend(info) as other:
        assert one.info.backend_pid != other.info.backend_pid
    until("both are closed", lambda: open_now(database) == 0)


def test_a_reconnected_session_is_still_the_lent_one(database: Database, connections: Connections) -> None:
    with connections.lend(from_dsn(database.dsn)) as connection:
        database.query("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT 1")
        connection.reconnect()
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
        assert open_now(database) == 1
    until("it is closed", lambda: open_now(database) == 0)


def test_a_running_statement_can_be_cancelled_on_every_connection(database: Database, connections: Connections) -> None:
    cancelled = threading.Event()

    def work() -> None:
        with pytest.raises(StatementFailed, match="canceling statement"):
            use(connections, from_dsn(database.dsn), "SELECT pg_sleep(600)")
        cancelled.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    sleeping = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    until("it runs", lambda: database.query(sleeping))
    connections.cancel()
    assert cancelled.wait(30)
    thread.join()
