"""A server that stops and starts: the reported reason meanwhile, and recovery without a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.operator import until
from lab.postgres import Database, Role, Server
from partwarden.errors import DatabaseUnreachable, PartwardenError
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import ConnectionInfo
from partwarden.postgres.engine import maintain
from support.complaints import RUN, check, complaint, complaints, login, policy


@pytest.fixture(scope="module")
def own(pg: Server) -> Iterator[Server]:
    """A server that these tests may stop, with room for four connections, one of them reserved for superusers."""
    room = {"max_connections": "4", "superuser_reserved_connections": "1"}
    with Server.start(pg.binaries, options=room) as server:
        yield server


@pytest.fixture
def database(own: Server) -> Iterator[Database]:
    """A new database on it; the server runs again at the end whatever happened."""
    with own.new_database() as made:
        yield made
        if not own.running:
            own.start_again()


@pytest.fixture
def owner(database: Database) -> Role:
    """The role that has the table."""
    role = database.new_role()
    database.execute(f"{RUN}; ALTER TABLE run OWNER TO {role.name}; GRANT CREATE ON SCHEMA public TO {role.name}")
    return role


@pytest.fixture
def info(owner: Role) -> ConnectionInfo:
    """How a policy reaches it."""
    return login(owner.dsn)


def test_a_server_that_stops_and_starts_again(database: Database, own: Server, info: ConnectionInfo) -> None:
    assert complaints(info) == []
    own.stop()
    for _ in range(2):
        check(
            complaint(info), "DatabaseUnreachable", f"at 127.0.0.1:{own.port}", "Connection refused", "start the server"
        )
    own.start_again()
    assert complaints(info, premake=3) == []


@pytest.mark.parametrize("mode", ["fast", "kill"])
def test_a_server_that_stops_while_we_are_connected(
    database: Database, own: Server, info: ConnectionInfo, mode: str
) -> None:
    database.execute("CHECKPOINT")
    with pytest.raises(DatabaseUnreachable) as caught, session(info) as connection:
        _maintain_without(own, mode, lambda: maintain(connection, policy()))
    check(caught.value, "DatabaseUnreachable", f"database {database.name!r}", "the connection was lost: ")
    own.start_again()
    assert complaints(info) == []


def _maintain_without(own: Server, mode: str, work: Callable[[], object]) -> None:
    own.stop(mode)
    work()


def test_a_connection_that_is_lost_in_the_middle_of_the_work(database: Database, info: ConnectionInfo) -> None:
    with database.connect() as holder, ThreadPoolExecutor(1) as pool:
        holder.execute("BEGIN; LOCK TABLE run IN SHARE MODE")
        work = pool.submit(complaint, info, patience=60)
        waiting = "SELECT pid FROM pg_locks WHERE NOT granted"
        ((pid,),) = until("a lock is waited for", lambda: holder.execute(waiting).fetchall())
        holder.execute("SELECT pg_terminate_backend(%s)", (pid,))
        holder.execute("ROLLBACK")
        check(
            work.result(), "DatabaseUnreachable", "partition public.run_2026", "the connection was lost", "terminating"
        )
    assert complaints(info) == []


def test_a_server_that_is_shutting_down(database: Database, own: Server, info: ConnectionInfo) -> None:
    with ThreadPoolExecutor(1) as pool:
        with database.connect():
            stopping = pool.submit(own.stop, "smart")
            error = until("new connections are refused", lambda: _first(complaints(info)))
        stopping.result()
    check(error, "DatabaseUnreachable", "the database system is shutting down", "until it is ready")
    own.start_again()
    assert complaints(info) == []


def _first(found: list[PartwardenError]) -> PartwardenError | None:
    return found[0] if found else None


def test_a_server_that_is_starting_up(database: Database, own: Server, info: ConnectionInfo) -> None:
    own.stop()
    (own.data / "recovery.signal").touch()
    go = own.folder / "go"
    slow = {"restore_command": f"while [ ! -e {go} ]; do sleep 0.05; done; false"}
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(own.start_again, slow)
        try:
            said = until("it listens", lambda: _unless_refused(complaint(info)))
        finally:
            go.touch()
        starting.result()
    check(said, "DatabaseUnreachable", "the database system is", "until it is ready")
    until("it has recovered", lambda: complaints(info) == [])


def _unless_refused(error: PartwardenError) -> PartwardenError | None:
    return None if "refused" in str(error) else error


def test_a_server_that_is_full(database: Database, own: Server, info: ConnectionInfo) -> None:
    others = "SELECT FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
    with database.connect() as one:
        until("only this one is connected", lambda: one.execute(others).fetchall() == [])
        with session(info), session(info):
            error = complaint(info)
            check(
                error, "DatabaseUnreachable", "connection slots are reserved", "end idle connections", "max_connections"
            )
            with database.connect():
                check(complaint(info), "DatabaseUnreachable", "too many clients already", "max_connections")
        until("the others have gone", lambda: one.execute(others).fetchall() == [])
    assert complaints(info) == []


def test_a_server_whose_pg_hba_conf_refuses(database: Database, own: Server, owner: Role, info: ConnectionInfo) -> None:
    file = own.data / "pg_hba.conf"
    before = file.read_text()
    try:
        for line, words in [("", "no pg_hba.conf entry for host"), (f"host all {owner.name} all reject\n", "rejects")]:
            _reload(database, line + before.replace("all all all", f"all {own.superuser} all"))
            check(
                complaint(info), "AuthenticationFailed", words, owner.name, database.name, "in the server's pg_hba.conf"
            )
            assert "TLS" not in str(complaint(info))
        _reload(database, f"host all {owner.name} all ident\n" + before)
        check(complaint(info), "AuthenticationFailed", "Ident authentication failed", owner.name, "with a password")
    finally:
        _reload(database, before)
    assert complaints(info) == []


def _reload(database: Database, access: str) -> None:
    """Waits until the server has read the file: it says so in its log."""
    log = database.server.log
    (database.server.data / "pg_hba.conf").write_text(access)
    seen = log.read_text().count("reloading configuration files")
    database.execute("SELECT pg_reload_conf()")
    until("it is read", lambda: log.read_text().count("reloading configuration files") > seen)
