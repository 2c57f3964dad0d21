"""Databases that cannot be reached, or refuse the login: the reported reason, and recovery once the cause is fixed."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import psycopg
import pytest

from lab import report
from lab.operator import until
from lab.postgres import Database, Role, free_port
from partwarden.errors import DatabaseUnreachable
from partwarden.postgres.connection import Session, session
from partwarden.postgres.engine import maintain
from support.complaints import RUN, check, complaint, complaints, login, login_by_uri, policy


@pytest.fixture
def owner(database: Database) -> Role:
    """A role without any privilege but that it owns the table and may create others."""
    role = database.new_role()
    database.execute(f"{RUN}; ALTER TABLE run OWNER TO {role.name}; GRANT CREATE ON SCHEMA public TO {role.name}")
    return role


def test_a_wrong_password(database: Database, owner: Role) -> None:
    wrong = complaint(login(owner.dsn, password="not-the-password"))
    check(wrong, "AuthenticationFailed", f"database {database.name!r} at 127.0.0.1:{database.server.port}", owner.name)
    check(wrong, "AuthenticationFailed", "correct user and password in the Secret", secrets=["not-the-password"])
    assert complaints(login(owner.dsn)) == []


def test_a_password_that_was_rotated_beside_a_uri(database: Database, owner: Role) -> None:
    database.execute(f"ALTER ROLE {owner.name} PASSWORD 'rotated'")
    stale = complaint(login_by_uri(owner.dsn, username=owner.name))
    keys = "user from key 'username' of Secret 'login', password from key 'uri' of Secret 'login'"
    check(stale, "AuthenticationFailed", keys, secrets=[owner.password])
    assert complaints(login_by_uri(owner.dsn, username=owner.name, password="rotated")) == []


def test_no_password(owner: Role) -> None:
    check(complaint(login(owner.dsn, password="")), "AuthenticationFailed", "no password supplied", "in the Secret")


def test_an_unknown_role(database: Database, owner: Role) -> None:
    info = login(owner.dsn, user=f"{owner.name}_new")
    check(complaint(info), "AuthenticationFailed", f"{owner.name}_new", "correct user")
    database.execute(f"ALTER ROLE {owner.name} RENAME TO {owner.name}_new")
    database.execute(f"ALTER ROLE {owner.name}_new PASSWORD '{owner.password}'")
    assert complaints(info) == []
    database.execute(f"ALTER ROLE {owner.name}_new RENAME TO {owner.name}")


def test_a_role_that_may_not_log_in(database: Database, owner: Role) -> None:
    database.execute(f"ALTER ROLE {owner.name} NOLOGIN")
    check(complaint(login(owner.dsn)), "AuthenticationFailed", owner.name, "not permitted to log in", "WITH LOGIN")
    database.execute(f"ALTER ROLE {owner.name} LOGIN")
    assert complaints(login(owner.dsn)) == []


def test_a_database_that_does_not_exist(database: Database, owner: Role) -> None:
    info = login(owner.dsn, dbname=f"{database.name}_new")
    check(complaint(info), "DatabaseNotFound", f'database "{database.name}_new" does not exist', "or correct dbname")
    rename = f"ALTER DATABASE {database.name} RENAME TO {database.name}_new"
    Database(database.server, "postgres").execute(rename)
    try:
        assert complaints(info) == []
    finally:
        Database(database.server, "postgres").execute(
            f"ALTER DATABASE {database.name}_new RENAME TO {database.name}",
        )


def test_a_database_that_takes_no_connections(database: Database, owner: Role) -> None:
    outside = Database(database.server, "postgres")
    outside.execute(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS false")
    check(complaint(login(owner.dsn)), "DatabaseNotFound", database.name, "ALLOW_CONNECTIONS")
    outside.execute(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS true")
    assert complaints(login(owner.dsn)) == []


def test_no_privilege_to_connect(database: Database, owner: Role) -> None:
    database.execute(f"REVOKE CONNECT ON DATABASE {database.name} FROM public")
    check(complaint(login(owner.dsn)), "InsufficientPrivilege", database.name, "GRANT CONNECT ON DATABASE")
    database.execute(f"GRANT CONNECT ON DATABASE {database.name} TO {owner.name}")
    assert complaints(login(owner.dsn)) == []


@pytest.mark.parametrize("limited", ["ROLE {role}", "DATABASE {database}"])
def test_too_many_connections(database: Database, owner: Role, limited: str) -> None:
    alter = f"ALTER {limited.format(role=owner.name, database=database.name)} CONNECTION LIMIT"
    database.execute(f"{alter} 1")
    _no_session_is_left(database)
    with session(login(owner.dsn)):
        check(complaint(login(owner.dsn)), "DatabaseUnreachable", "too many connections for", "CONNECTION LIMIT")
    database.execute(f"{alter} 2")
    _no_session_is_left(database)
    assert complaints(login(owner.dsn)) == []


def _no_session_is_left(database: Database) -> None:
    """A server process counts until it has ended, which is later than its client's good-bye."""
    with psycopg.connect(database.server.dsn(), autocommit=True) as elsewhere:
        others = f"SELECT FROM pg_stat_activity WHERE datname = '{database.name}'"
        until("no session is connected to the database", lambda: elsewhere.execute(others).fetchall() == [])


def test_an_unknown_host(pg_database: Database) -> None:
    error = complaint(login(pg_database.dsn, host="no-such-host.invalid"))
    check(error, "DatabaseUnreachable", "at no-such-host.invalid:", "'no-such-host.invalid'", "correct host")


@pytest.mark.parametrize("host", ["two..dots", ".", "x" * 64, "not a name", "ex:ample"])
def test_a_host_that_is_no_name_at_all(pg_database: Database, host: str) -> None:
    check(complaint(login(pg_database.dsn, host=host)), "DatabaseUnreachable", host, "correct host")


def test_a_port_without_listener(pg_database: Database) -> None:
    port = free_port()
    error = complaint(login(pg_database.dsn, port=str(port)))
    check(error, "DatabaseUnreachable", f"at 127.0.0.1:{port}", "Connection refused", "correct host and port")


@contextmanager
def listening(answer: bytes | None = None) -> Iterator[int]:
    """A port at which something listens that is no PostgreSQL; without an answer, it never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        if answer is None:
            yield server.getsockname()[1]
            return
        with ThreadPoolExecutor(1) as pool:
            pool.submit(_answer, server, answer)
            yield server.getsockname()[1]


def _answer(server: socket.socket, answer: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(8)
        connection.sendall(answer)


def test_a_port_that_never_answers_is_not_waited_for_longer_than_the_timeout(pg_database: Database) -> None:
    with listening() as port:
        began = time.monotonic()
        error = complaint(login(pg_database.dsn, port=str(port)))
        assert 1.5 < time.monotonic() - began < 8
    check(error, "DatabaseUnreachable", f"at 127.0.0.1:{port}", "timeout expired", "firewalls and network policies")


def test_a_port_at_which_something_else_listens(pg_database: Database) -> None:
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        error = complaint(login(pg_database.dsn, port=str(port)))
    check(error, "DatabaseUnreachable", "no PostgreSQL listens there", "correct host and port")


@pytest.mark.parametrize("turn", [1, -1])
def test_of_several_addresses_the_one_that_answers_tells_the_cause(pg_database: Database, turn: int) -> None:
    pg_database.execute(RUN)
    hosts, ports = "127.0.0.1,127.0.0.1", ",".join([str(pg_database.server.port), str(free_port())][::turn])
    error = complaint(login(pg_database.dsn, host=hosts, port=ports, password="wrong"))
    check(error, "AuthenticationFailed", f"at {hosts}:{ports}", "password authentication failed", "Connection refused")
    assert complaints(login(pg_database.dsn, host=hosts, port=ports)) == []


def test_no_address_answers(pg_database: Database) -> None:
    error = complaint(login(pg_database.dsn, host="127.0.0.1,127.0.0.1", port=f"{free_port()},{free_port()}"))
    check(error, "DatabaseUnreachable", "at 127.0.0.1,127.0.0.1:", ": Connection refused; start the server")


def test_an_unknown_refusal_is_an_outage_with_the_servers_words(pg_database: Database) -> None:
    if pg_database.server.major < 17:
        report.could_not_run("refusing a login in words of one's own needs PostgreSQL 17")
    role = pg_database.new_role()
    pg_database.execute(f"""{RUN}; ALTER TABLE run OWNER TO {role.name}; GRANT CREATE ON SCHEMA public TO {role.name};
        CREATE FUNCTION speak() RETURNS event_trigger LANGUAGE plpgsql AS
        $$ BEGIN IF session_user = '{role.name}' THEN RAISE 'heute wird gewartet'; END IF; END $$;
        CREATE EVENT TRIGGER speaks ON login EXECUTE FUNCTION speak()""")
    check(complaint(login(role.dsn)), "DatabaseUnreachable", "heute wird gewartet; see the server's log")
    pg_database.execute("DROP EVENT TRIGGER speaks")
    assert complaints(login(role.dsn)) == []


def test_hosts_and_ports_that_do_not_match(pg_database: Database) -> None:
    error = complaint(login(pg_database.dsn, host="a,b,c", port="1,2"))
    check(error, "SecretInvalid", "2 port numbers to 3 hosts", "correct that connection parameter")


def test_a_hanging_server_is_not_waited_for_without_limit(
    pg_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    pg_database.execute(RUN)
    monkeypatch.setattr(Session, "longest", 1.0)

    def hang() -> None:
        with session(login(pg_database.dsn)) as connection:
            backend = psutil.Process(connection.info.backend_pid)
            backend.suspend()
            try:
                maintain(connection, policy())
            finally:
                backend.resume()

    with pytest.raises(DatabaseUnreachable) as caught:
        hang()
    check(caught.value, "DatabaseUnreachable", repr(pg_database.name), "the connection was lost: no answer in 1 s")
    assert complaints(login(pg_database.dsn)) == []


REFUSALS = [
    ("28P01", "FATAL", "Passwort-Authentifizierung für Benutzer »app« fehlgeschlagen", "AuthenticationFailed"),
    ("28000", "ВАЖНО", 'роль "app" не существует', "AuthenticationFailed"),
    ("28000", "致命错误", "没有用于主机的 pg_hba 条目", "AuthenticationFailed"),
    ("3D000", "FATAL", "Datenbank »orders« existiert nicht", "DatabaseNotFound"),
    ("55000", "FATAL", "Datenbank »orders« akzeptiert gegenwärtig keine Verbindungen", "DatabaseNotFound"),
    ("42501", "FATAL", "keine Berechtigung für Datenbank »orders«", "InsufficientPrivilege"),
    ("53300", "FATAL", "désolé, trop de clients sont déjà connectés", "DatabaseUnreachable"),
    ("57P03", "FATAL", "le système de bases de données se lance", "DatabaseUnreachable"),
    ("0L000", "FATAL", "etwas anderes", "DatabaseUnreachable"),
]
"""The severity is translated, too."""


@contextmanager
def refusing(state: str, severity: str, words: str) -> Iterator[int]:
    """The port of a server that refuses every login with this error: a page of protocol."""
    fields = {"S": severity, "V": "FATAL", "C": state, "M": words}
    text = b"".join(name.encode() + value.encode() + b"\0" for name, value in fields.items()) + b"\0"
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        done = pool.submit(_refuse, listener, b"E" + (len(text) + 4).to_bytes(4, "big") + text)
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            done.result()


def _refuse(listener: socket.socket, answer: bytes) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client:
            client.settimeout(30)
            while head := client.recv(8):
                code = int.from_bytes(head[4:], "big")
                client.recv(int.from_bytes(head[:4], "big") - 8)
                # It has no TLS, for which this asks.
                client.sendall(b"N" if code == SSL_REQUEST else answer)
                if code != SSL_REQUEST:
                    break


SSL_REQUEST = 80877103


@pytest.mark.parametrize(("state", "severity", "words", "reason"), REFUSALS)
def test_a_login_refused_in_another_language_is_judged_by_sqlstate(
    state: str, severity: str, words: str, reason: str
) -> None:
    with refusing(state, severity, words) as port:
        error = complaint(login(f"postgresql://app:geheim@127.0.0.1:{port}/orders"))
    check(error, reason, f"database 'orders' at 127.0.0.1:{port}: {words}; ", secrets=["geheim"])
