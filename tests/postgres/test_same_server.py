"""A lock that one session holds, and the other sees: there is no better proof that both reach one server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from lab import report
from lab.pgbouncer import PgBouncer
from lab.postgres import Database, LabError, Server
from lab.postgres.certificates import make_certificates
from partwarden.controller.database_process import DatabaseProcesses
from partwarden.controller.database_work import KeySearch, Supervisor, find_keys
from partwarden.postgres import table_state
from partwarden.postgres.connection import run, session
from partwarden.postgres.conninfo import LONGEST_CA, from_dsn
from partwarden.postgres.transaction import held_keys, holding_keys

KEYS = (0xFFFFFFFF, 0x80000000, 4711)


@pytest.fixture
def processes() -> Iterator[DatabaseProcesses]:
    made = DatabaseProcesses(64 * 1024 * 1024, observation=60.0)
    yield made
    made.close()


def seen(dsn: str, first: int = KEYS[0]) -> set[int]:
    return set(find_keys(KeySearch(connection=from_dsn(dsn), connect_timeout=10, first=first), Supervisor()))


def test_what_one_session_holds_every_session_of_the_database_sees_and_no_other(database: Database) -> None:
    role = database.new_role()
    with database.server.new_database() as other, session(from_dsn(database.dsn)) as connection:
        with holding_keys(connection, KEYS):
            assert seen(database.dsn) == seen(role.dsn) == set(KEYS[1:])
            assert seen(other.dsn) == set()
            assert seen(database.dsn, 4711) == set()
        assert seen(database.dsn) == set()


def test_in_a_transaction_the_locks_stay_to_its_end(database: Database) -> None:
    with session(from_dsn(database.dsn)) as connection:
        run(connection, "BEGIN", "CREATE TABLE kept ()")
        with holding_keys(connection, KEYS):
            pass
        assert seen(database.dsn) == set(KEYS[1:])
        run(connection, "COMMIT")
    assert seen(database.dsn) == set()
    assert database.query("SELECT 'kept'::regclass::text") == [("kept",)]


def test_an_error_in_the_block_leaves_neither_a_lock_nor_a_transaction(database: Database) -> None:
    with session(from_dsn(database.dsn)) as connection:
        with pytest.raises(KeyError), holding_keys(connection, KEYS):
            raise KeyError
        assert seen(database.dsn) == set()
        assert run(connection, "SELECT 1") == [[(1,)]]


def test_of_many_locks_a_few_are_read(database: Database) -> None:
    with psycopg.connect(database.dsn) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(-1, n) FROM generate_series(1, 100) n")
        with session(from_dsn(database.dsn)) as reader:
            assert len(held_keys(reader, KEYS[0])) == 8


def test_a_standby_and_a_physical_copy_are_other_servers_although_they_say_they_are_the_same(
    new_server: Callable[..., Server], server: Server
) -> None:
    original = new_server(server.major)
    with original.standby() as copy, session(from_dsn(original.dsn())) as connection:
        with holding_keys(connection, KEYS):
            assert seen(original.dsn()) == set(KEYS[1:])
            assert seen(copy.dsn()) == set()
        with psycopg.connect(copy.dsn(), autocommit=True) as other:
            other.execute("SELECT pg_promote()")
        with session(from_dsn(copy.dsn())) as other, holding_keys(connection, KEYS):
            assert table_state.read(other) == table_state.read(connection)
            assert held_keys(other, KEYS[0]) == []


def test_through_a_transaction_pooler_and_past_it_the_server_is_the_same(database: Database) -> None:
    try:
        pooler = PgBouncer.start(database.server, "transaction")
    except LabError as error:
        report.could_not_run(f"PgBouncer: {error}")
    with pooler:
        through = pooler.dsn(database.name)
        with session(from_dsn(through)) as connection, holding_keys(connection, KEYS):
            assert seen(database.dsn) == seen(through) == set(KEYS[1:])
        with session(from_dsn(database.dsn)) as connection, holding_keys(connection, KEYS):
            assert seen(through) == set(KEYS[1:])
        assert seen(through) == set()


def test_a_process_with_little_memory_connects_with_tls_and_the_longest_ca(
    new_server: Callable[..., Server], server: Server, processes: DatabaseProcesses, tmp_path: Path
) -> None:
    certificates = make_certificates(tmp_path)
    encrypted = new_server(server.major, tls=certificates, require_tls=True)
    ca = certificates.authority.read_text()
    info = replace(from_dsn(encrypted.dsn(sslmode="verify-full")), ca=ca * (LONGEST_CA // len(ca)))
    search = KeySearch(connection=replace(info, isolated=True), connect_timeout=10, first=KEYS[0])
    with session(info) as connection, holding_keys(connection, KEYS):
        assert set(processes.run(find_keys, search, Supervisor(), 30.0)) == set(KEYS[1:])
