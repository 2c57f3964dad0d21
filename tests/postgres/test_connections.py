"""Connections kept open for the next policy of the same database: which reconcile reuses one, and for how long."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest

from lab.operator import until
from lab.postgres import Database
from partwarden.errors import AuthenticationFailed, PartwardenError
from partwarden.postgres.conninfo import ConnectionInfo, from_dsn
from partwarden.postgres.pool import LINGER, LONGEST_LIFE, Connections


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def connections(clock: Clock) -> Connections:
    return Connections(5, clock)


def use(connections: Connections, info: ConnectionInfo, *, reusable: bool = True) -> int:
    """The server's process that served."""
    with connections.lend(info) as connection:
        connection.execute("SELECT 1")
        connection.reusable = reusable
        return connection.info.backend_pid


def fail(connections: Connections, info: ConnectionInfo) -> None:
    with connections.lend(info) as connection:
        connection.reusable = True
        connection.execute("SELECT 1/0")


def open_now(database: Database) -> int:
    count = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'partwarden'"
    )
    (number,) = database.query(count)[0]
    assert isinstance(number, int)
    return number


def test_the_next_reconcile_reuses_the_connection_of_the_last(database: Database, connections: Connections) -> None:
    info = from_dsn(database.dsn)
    assert len({use(connections, info) for _ in range(5)}) == 1
    connections.close()
    until("it is closed", lambda: open_now(database) == 0)


def test_after_a_change_or_an_error_the_next_reconcile_has_a_new_connection(
    database: Database, connections: Connections
) -> None:
    info = from_dsn(database.dsn)
    first = use(connections, info, reusable=False)
    second = use(connections, info)
    with pytest.raises(PartwardenError):
        fail(connections, info)
    with connections.lend(info) as connection:
        third = connection.info.backend_pid
        connection.execute("BEGIN")
        connection.reusable = True
    assert len({first, second, third, use(connections, info)}) == 4
    connections.close()
    until("all are closed", lambda: open_now(database) == 0)


def test_a_connection_is_reused_for_identical_parameters_only(database: Database, connections: Connections) -> None:
    role = database.new_role()
    info = from_dsn(role.dsn)
    with psycopg.connect(role.dsn) as other:
        backend = use(connections, info)
        wrong = replace(info, parameters={**info.parameters, "password": "guessed"})
        assert (role.password in str(info.parameters), backend != other.info.backend_pid) == (True, True)
        with pytest.raises(AuthenticationFailed):
            use(connections, wrong)
        superuser = from_dsn(database.dsn)
        assert use(connections, superuser) != backend
    until("only one is kept for a database", lambda: open_now(database) == 1)
    connections.close()


def test_two_reconciles_at_once_have_two_connections_and_the_next_two_reuse_them(
    database: Database, connections: Connections
) -> None:
    info = from_dsn(database.dsn)

    def both() -> set[int]:
        with connections.lend(info) as one, connections.lend(info) as other:
            one.reusable = other.reusable = True
            return {one.info.backend_pid, other.info.backend_pid}

    first = both()
    assert len(first) == 2
    assert both() == first
    connections.close()


def test_a_connection_ended_by_the_server_is_not_reused(database: Database, connections: Connections) -> None:
    info = from_dsn(database.dsn)
    backend = use(connections, info)
    database.query("SELECT pg_terminate_backend(%s)", backend)
    until("it is gone", lambda: open_now(database) == 0)
    assert use(connections, info) != backend
    connections.close()


def test_a_reconnected_session_is_still_the_lent_one(database: Database, connections: Connections) -> None:
    with connections.lend(from_dsn(database.dsn)) as connection:
        database.query("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT 1")
        connection.reconnect()
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
        assert open_now(database) == 1
    until("it is closed", lambda: open_now(database) == 0)


def test_an_idle_connection_is_closed_after_a_moment(
    database: Database, connections: Connections, clock: Clock
) -> None:
    info = from_dsn(database.dsn)
    backend = use(connections, info)
    clock.now += LINGER * 0.9
    connections.sweep()
    assert use(connections, info) == backend
    clock.now += LINGER
    assert use(connections, info) != backend
    clock.now += LINGER
    connections.sweep()
    until("it is closed", lambda: open_now(database) == 0)


def test_a_connection_is_closed_at_its_maximum_age(database: Database, connections: Connections, clock: Clock) -> None:
    info = from_dsn(database.dsn)
    backend = use(connections, info)
    end = clock.now + LONGEST_LIFE
    while clock.now + LINGER / 2 < end:
        clock.now += LINGER / 2
        assert use(connections, info) == backend
    clock.now += LINGER / 2
    assert use(connections, info) != backend
    connections.close()


def test_after_closing_nothing_is_kept(database: Database, connections: Connections) -> None:
    info = from_dsn(database.dsn)
    with connections.lend(info) as connection:
        connections.close()
        connection.reusable = True
    until("it is closed", lambda: open_now(database) == 0)
