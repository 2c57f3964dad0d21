"""Time limits of the role or the database end no session, transaction or statement of Partwarden."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql

from lab.operator import until
from lab.postgres import Database, Role, Server
from partwarden.cli.main import main
from partwarden.postgres import transaction
from partwarden.postgres.connection import Session, pinned, run, session
from partwarden.postgres.conninfo import ConnectionInfo, from_dsn
from partwarden.postgres.engine import maintain
from partwarden.postgres.settings import LIMITS
from support.archived import use_client
from support.meanwhile import NOW, keep, policy, unbroken
from support.retirement import DETACH, DROP, LONG_AGO, edit_mark, verbs
from support.statements import watch

OTHERS = {"tcp_user_timeout", "wal_sender_timeout"}
"""Settings with such names that end neither a session nor what is done in it."""
SHORT, LONG = "200ms", 0.3
"""What a DBA gives the role, and seconds that each thing takes here."""
TABLE = """
    CREATE TABLE run (id bigint GENERATED ALWAYS AS IDENTITY, submitted_at timestamptz NOT NULL, note text,
        PRIMARY KEY (id, submitted_at)) PARTITION BY RANGE (submitted_at);
    CREATE TABLE run_2018 PARTITION OF run FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z');
    CREATE TABLE run_2025 PARTITION OF run FOR VALUES FROM ('2025-01-01Z') TO ('2026-01-01Z');
    INSERT INTO run (submitted_at) SELECT '2018-05-05Z' FROM generate_series(1, 60);
    INSERT INTO run (submitted_at) SELECT '2025-05-05Z' FROM generate_series(1, 60);
"""
DEFAULT = "CREATE TABLE run_rest PARTITION OF run DEFAULT; INSERT INTO run (submitted_at) VALUES ('2026-05-05Z');"
THIS_YEAR: dict[str, Any] = {"premake": 0, "startFrom": "2026-01-01"}
# Once in each transaction: what is done under locks has limits of Partwarden's own.
SLOW_DDL = f"""
    CREATE FUNCTION slowly() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
      IF current_setting('lab.slept', true) IS DISTINCT FROM pg_current_xact_id()::text THEN
        PERFORM set_config('lab.slept', pg_current_xact_id()::text, false), pg_sleep({LONG});
      END IF;
    END $$;
    CREATE EVENT TRIGGER slowly ON ddl_command_end EXECUTE FUNCTION slowly();
"""
# VACUUM with ANALYZE and REINDEX call it for each row.
SLOW_INDEX = """
    CREATE FUNCTION slow(bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
      PERFORM pg_sleep(0.01); RETURN $1;
    END $$;
    CREATE INDEX ON run_2025 (slow(id));
"""


def limits_of(server: Server) -> set[str]:
    with psycopg.connect(server.dsn()) as connection:
        found = connection.execute("SELECT name FROM pg_settings WHERE name LIKE '%timeout' AND context = 'user'")
        return {str(name) for (name,) in found} - OTHERS


def test_every_limit_that_the_server_knows_is_in_the_table(server: Server) -> None:
    """A new major may bring another one."""
    known = {"transaction_timeout": 17}
    assert limits_of(server) == {name for name in LIMITS if server.major >= known.get(name, 0)}


@pytest.fixture(params=["ROLE", "DATABASE"])
def app(request: pytest.FixtureRequest, database: Database) -> Role:
    """A role with every limit, by itself or by its database; it owns what the test makes."""
    role = database.new_role()
    database.execute(f"GRANT CREATE ON SCHEMA public TO {role.name}")
    subject = role.name if request.param == "ROLE" else f'"{database.name}"'
    for name in sorted(limits_of(database.server)):
        database.execute(f"ALTER {request.param} {subject} SET {name} = '{SHORT}'")
        # The test's own sessions have none.
        database.execute(f'ALTER ROLE postgres IN DATABASE "{database.name}" SET {name} = 0')
    return role


def make(database: Database, app: Role, statements: str, slow: str = SLOW_DDL) -> None:
    database.execute(f"SET ROLE {app.name}; {statements}")
    database.execute(slow)


def test_the_role_is_limited_indeed(database: Database, app: Role) -> None:
    make(database, app, TABLE)
    with psycopg.connect(app.dsn, autocommit=True) as connection, pytest.raises(psycopg.Error, match="timeout"):
        connection.execute("CREATE TABLE mine ()")


@pytest.mark.parametrize("default", ["", DEFAULT], ids=["together", "from DEFAULT"])
def test_creations_and_drains_are_not_cut_short_by_the_roles_limits(
    database: Database, app: Role, default: str
) -> None:
    make(database, app, TABLE + default)
    report = keep(app.dsn, **{**THIS_YEAR, "premake": 1}, defaultPartition={"drain": "Auto"})
    assert [each.error for each in report.outcomes] == [None, None]


@pytest.mark.parametrize("default", ["", DEFAULT], ids=["concurrently", "with DEFAULT"])
def test_detach_and_drop_are_not_cut_short_by_the_roles_limits(database: Database, app: Role, default: str) -> None:
    make(database, app, TABLE + default)
    assert ("detach", "done") in verbs(keep(app.dsn, **DETACH))
    edit_mark(database, since=LONG_AGO)
    assert ("drop", "done") in verbs(keep(app.dsn, **DROP))


def test_vacuum_and_reindex_are_not_cut_short_by_the_roles_limits(database: Database, app: Role) -> None:
    make(database, app, TABLE, SLOW_INDEX)
    report = keep(app.dsn, **THIS_YEAR, maintenance={"onClose": "VacuumAndReindex"})
    assert {("vacuum", "done"), ("reindex", "done")} <= set(verbs(report))


def test_archive_drop_and_restore_are_not_cut_short_by_the_roles_limits(
    database: Database, app: Role, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_client(monkeypatch)
    make(database, app, TABLE + DEFAULT)

    def partwarden(*arguments: str) -> Result:
        done = CliRunner().invoke(main, [*arguments, "--dsn", app.dsn], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done

    url = partwarden("archive", "--partition", "run_2018", "--to", str(tmp_path)).stdout.strip()
    partwarden("drop", "run_2018", "--archive", url, "--yes")
    partwarden("restore", "--manifest", url, "--as", "other")
    partwarden("restore", "--manifest", url, "--attach")
    assert database.query("SELECT count(*) FROM run WHERE submitted_at < '2019-01-01Z'") == [(60,)]


def test_a_slow_client_is_not_cut_short_by_the_roles_limits(database: Database, app: Role) -> None:
    """Neither between two statements nor between two transactions does the server end the session."""
    make(database, app, TABLE, "")

    with session(from_dsn(app.dsn)) as connection:
        pid = connection.info.backend_pid
        watch(
            connection, lambda _: until("the session has been idle for long", lambda: database.query(IDLE, pid, LONG))
        )
        report = unbroken(maintain(connection, policy(**THIS_YEAR), now=NOW))
    assert verbs(report) == [("create", "done")]


IDLE = """
SELECT FROM pg_stat_activity
WHERE pid = %s AND state LIKE 'idle%%' AND clock_timestamp() - state_change > make_interval(secs => %s)
"""


@contextmanager
def pooler(server: Server) -> Iterator[int]:
    """A port that leads to the server, and names another backend than the one that answers, as poolers do."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_serve, args=(listening, server))
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            thread.join()


def _serve(listening: socket.socket, server: Server) -> None:
    listening.settimeout(60)
    client, _ = listening.accept()
    with client, socket.create_connection((server.host, server.port)) as behind:
        back = threading.Thread(target=_answers, args=(behind, client))
        back.start()
        with suppress(OSError):
            while data := client.recv(1 << 16):
                behind.sendall(data)
        with suppress(OSError):
            behind.shutdown(socket.SHUT_RDWR)
        back.join()


def _answers(behind: socket.socket, client: socket.socket) -> None:
    pending, renamed = b"", False
    with suppress(OSError):
        while data := behind.recv(1 << 16):
            pending += data
            while len(pending) >= 5 and len(pending) >= (end := 1 + int.from_bytes(pending[1:5], "big")):
                message, pending = pending[:end], pending[end:]
                if message[:1] == b"K" and not renamed:  # BackendKeyData
                    process, renamed = int.from_bytes(message[5:9], "big") + 1, True
                    message = message[:5] + process.to_bytes(4, "big") + message[9:]
                client.sendall(message)


def through(port: int, role: Role) -> ConnectionInfo:
    info = from_dsn(role.dsn)
    return replace(info, parameters={**info.parameters, "port": str(port), "sslmode": "disable"})


def shown(connection: Session) -> dict[str, tuple[str, str]]:
    """Each limit, and whether a commit waits: as it is now, and as the session began."""
    query = sql.SQL("SELECT name, setting, reset_val FROM pg_settings WHERE name = ANY({})")
    (rows,) = run(connection, query.format([*LIMITS, "synchronous_commit"]))
    return {name: (now, before) for name, now, before in rows}


def test_behind_a_pooler_nothing_stays_on_the_shared_connection(database: Database, app: Role) -> None:
    with pooler(database.server) as port, session(through(port, app)) as connection:
        assert all(now == before for now, before in shown(connection).values())
        # A transaction has its own all the same.
        run(connection, "BEGIN", pinned("2s", "30s"))
        assert {name: now for name, (now, _) in shown(connection).items()} == {
            **dict.fromkeys(limits_of(database.server), "0"),
            "lock_timeout": "2000",
            "statement_timeout": "30000",
            "idle_in_transaction_session_timeout": "60000",
            "synchronous_commit": "local",
        }
        run(connection, "ROLLBACK")


def test_a_session_of_its_own_has_no_limit_between_transactions(database: Database, app: Role) -> None:
    with session(from_dsn(app.dsn)) as connection:
        ours = {name: now for name, (now, _) in shown(connection).items()}
    assert ours == {**dict.fromkeys(limits_of(database.server), "0"), "synchronous_commit": "local"}


def test_no_operator_of_others_is_called_before_search_path_is_set(database: Database) -> None:
    types = [("int4", "="), ("text", "<>")]
    database.execute("CREATE SCHEMA theirs")
    for kind, operator in types:
        database.execute(f"""
            CREATE FUNCTION theirs.call(pg_catalog.{kind}, pg_catalog.{kind}) RETURNS bool LANGUAGE plpgsql AS
              $$ BEGIN RAISE 'called'; END $$;
            CREATE OPERATOR theirs.{operator} (LEFTARG = {kind}, RIGHTARG = {kind}, FUNCTION = theirs.call)""")
    database.execute(f'ALTER DATABASE "{database.name}" SET search_path = theirs, pg_catalog')
    with psycopg.connect(database.dsn) as theirs, pytest.raises(psycopg.errors.RaiseException):
        theirs.execute("SELECT pg_backend_pid() = 1")
    with session(from_dsn(database.dsn)) as connection:
        assert transaction.confirmed(connection)
        assert run(connection, "SHOW statement_timeout")[0] == [("0",)]
