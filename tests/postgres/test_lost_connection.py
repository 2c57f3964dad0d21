"""A lost connection ends one action, with the server's reason; the rest of the run uses a new one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from lab.operator import until
from lab.postgres import Database, Role, Server
from partwarden.cli.main import main
from partwarden.errors import AuthenticationFailed, DatabaseUnreachable, PartwardenError
from partwarden.planner.actions import Outcome
from partwarden.postgres.connection import RECONNECTIONS, Session, connect, run, session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import maintain
from partwarden.postgres.transaction import undo
from support.archived import use_client
from support.meanwhile import NOW, RUN, Interrupted, kill_others, policy
from support.table_of_years import POLICY

DEFAULT = f"{RUN} CREATE TABLE run_rest PARTITION OF run DEFAULT;"
"""Beside it each partition is made in a transaction of its own."""
KILLED = "terminating connection due to administrator command"
STOP = 4712
"""Key of an advisory lock: as long as it is held, the session that has made `run_2027` stays where it is."""
AHEAD: dict[str, Any] = {"premake": 3}
TERMINATE = """
    CREATE FUNCTION terminate() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
      PERFORM pg_terminate_backend(pg_backend_pid());
    END $$;
    CREATE EVENT TRIGGER terminate ON ddl_command_end WHEN TAG IN ('{}') EXECUTE FUNCTION terminate()
"""


def reported(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    """Each action's partition, and "done" or the reason of its error."""
    return [(each.action.name, each.error.reason if each.error else "done") for each in outcomes]


def keep_while(dsn: str, trip: int, what: Callable[[], object], **fields: Any) -> list[Outcome]:
    """Does once what the policy says, and right before that round trip something happens; what became of each action,
    of which all that is left must be planned again."""
    with session(from_dsn(dsn)) as connection:
        connection.__class__ = Interrupted
        assert isinstance(connection, Interrupted)
        connection.before = (connection.round_trips + trip, what)
        report = maintain(connection, policy(**fields), now=NOW)
        assert connection.before is None
        assert connection.reconnections == 1
    failed = [each.action.name for each in report.outcomes if each.error]
    assert [each.name for each in report.after.actions] == failed
    return list(report.outcomes)


@pytest.mark.parametrize("table", [RUN, DEFAULT], ids=["together", "one by one"])
def test_a_lost_connection_fails_one_creation_and_the_following_succeed(database: Database, table: str) -> None:
    database.execute(table)
    begun = 4 if table == DEFAULT else 3
    outcomes = keep_while(database.dsn, begun, lambda: kill_others(database), **AHEAD)
    assert reported(outcomes) == [
        ("run_2026", "DatabaseUnreachable"),
        *((f"run_{year}", "done") for year in (2027, 2028, 2029)),
    ]
    assert KILLED in str(outcomes[0].error)


def test_outcomes_before_a_lost_connection_stay(database: Database) -> None:
    database.execute(DEFAULT)
    in_the_second = 4 + 3 + 1
    outcomes = keep_while(database.dsn, in_the_second, lambda: kill_others(database), **AHEAD)
    assert reported(outcomes) == [
        ("run_2026", "done"),
        ("run_2027", "DatabaseUnreachable"),
        ("run_2028", "done"),
        ("run_2029", "done"),
    ]


def test_the_reason_of_a_lost_connection_is_the_servers(database: Database) -> None:
    """Also where it is a limit that only a trigger of the user's could set."""
    if database.server.major < 17:
        limit, reason = "idle_in_transaction_session_timeout", "terminating connection due to idle-in-transaction"
    else:
        limit, reason = "transaction_timeout", "terminating connection due to transaction timeout"
    database.execute(DEFAULT)
    database.execute(f"""
        CREATE FUNCTION limited() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
          IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity = 'public.run_2026') THEN
            PERFORM set_config('{limit}', '50ms', true);
          END IF;
        END $$;
        CREATE EVENT TRIGGER limited ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION limited()""")
    attach = 6
    ended = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'partwarden'"
    outcomes = keep_while(
        database.dsn, attach, lambda: until("it is ended", lambda: not database.query(ended)), **AHEAD
    )
    assert [reason for _, reason in reported(outcomes)] == ["DatabaseUnreachable", "done", "done", "done"]
    assert reason in str(outcomes[0].error)


def test_a_server_that_ends_every_connection_is_soon_given_up(database: Database) -> None:
    database.execute(DEFAULT)
    database.execute(TERMINATE.format("CREATE TABLE"))
    outcomes: list[Outcome] = []
    with pytest.raises(DatabaseUnreachable, match=f"was lost {RECONNECTIONS + 1} times"):
        _maintain(database.dsn, outcomes, premake=8)
    assert [reason for _, reason in reported(outcomes)] == ["DatabaseUnreachable"] * (RECONNECTIONS + 1)


def _maintain(dsn: str, outcomes: list[Outcome], **fields: Any) -> None:
    with session(from_dsn(dsn)) as connection:
        maintain(connection, policy(**fields), now=NOW, outcomes=outcomes)


def test_nothing_is_done_in_another_database_that_answers_after_a_reconnect(database: Database) -> None:
    database.execute(DEFAULT)
    with database.server.new_database() as other:
        other.execute(DEFAULT)

        def work() -> None:
            with session(from_dsn(database.dsn)) as connection:

                def lead_astray() -> None:
                    connection.again = partial(connect, from_dsn(other.dsn))
                    kill_others(database)

                _interrupt(connection, 4, lead_astray)
                maintain(connection, policy(**AHEAD), now=NOW)

        with pytest.raises(DatabaseUnreachable, match="leads to another database"):
            work()
        for each in (database, other):
            assert each.query("SELECT count(*) FROM pg_inherits") == [(1,)]


def test_the_reason_is_reported_also_when_only_the_rollback_failed(database: Database) -> None:
    with session(from_dsn(database.dsn)) as connection:
        connection.execute("BEGIN")
        kill_others(database)
        undo(connection)
        with pytest.raises(psycopg.errors.AdminShutdown, match=KILLED):
            run(connection, "SELECT 1")


def _interrupt(connection: Session, trip: int, what: Callable[[], object]) -> None:
    connection.__class__ = Interrupted
    assert isinstance(connection, Interrupted)
    connection.before = (connection.round_trips + trip, what)


@pytest.fixture
def app(database: Database) -> Role:
    """A role that owns run, which is by year and has a DEFAULT partition."""
    role = database.new_role()
    database.execute(f"""
        GRANT CREATE ON SCHEMA public TO {role.name};
        SET ROLE {role.name};
        CREATE TABLE run (id bigint, submitted_at timestamptz NOT NULL) PARTITION BY RANGE (submitted_at);
        CREATE TABLE run_2025 PARTITION OF run FOR VALUES FROM ('2025-01-01Z') TO ('2026-01-01Z');
        CREATE TABLE run_rest PARTITION OF run DEFAULT""")
    return role


@contextmanager
def stopped_in_2027(database: Database) -> Iterator[psycopg.Connection]:
    """The session that created run_2027 waits until the end of the block, before its commit."""
    database.execute(f"""
        CREATE FUNCTION stop() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
          IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity = 'public.run_2027') THEN
            PERFORM pg_advisory_xact_lock_shared({STOP});
          END IF;
        END $$;
        CREATE EVENT TRIGGER stop ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION stop()""")
    with database.connect() as keeper:
        keeper.execute(f"SELECT pg_advisory_lock({STOP})".encode())
        yield keeper


WAITS = """
SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def broken_off(database: Database, app: Role, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command whose connection is lost in the creation of run_2027, and who may not connect again."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "partwarden", *arguments, "--dsn", app.dsn]
    with (
        stopped_in_2027(database) as keeper,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process,
    ):
        assert process.stdin is not None
        process.stdin.write(POLICY)
        process.stdin.close()
        process.stdin = None
        ((pid,),) = until("it makes run_2027", lambda: keeper.execute(WAITS).fetchall())
        keeper.execute(f"ALTER ROLE {app.name} NOLOGIN".encode())
        keeper.execute("SELECT pg_terminate_backend(%s)", (pid,))
        output, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


NOW_TEXT = "2026-11-22T12:00:00Z"


def test_apply_prints_what_was_done_before_it_broke_off(database: Database, app: Role) -> None:
    done = broken_off(database, app, "apply", "-f", "-", "--now", NOW_TEXT)
    lines = [line.split()[:3] for line in done.stdout.splitlines()]
    assert lines[0] == ["Done:", "1", "of"]
    assert lines[2:5] == [
        ["DONE", "create", "public.run_2026"],
        ["FAILED", "create", "public.run_2027"],
        ["NOTTRIED", "create", "public.run_2028"],
    ]
    assert KILLED in done.stdout
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


def test_apply_says_the_same_in_json(database: Database, app: Role) -> None:
    done = broken_off(database, app, "apply", "-f", "-", "--now", NOW_TEXT, "-o", "json")
    document = json.loads(done.stdout)
    assert document["error"]["reason"] == "AuthenticationFailed"
    assert [(each["partition"], each["result"]) for each in document["actions"]] == [
        ("run_2026", "Done"),
        ("run_2027", "Failed"),
        ("run_2028", "NotTried"),
    ]
    assert KILLED in document["actions"][1]["error"]["message"]
    assert done.returncode == 1


def test_the_run_ends_where_no_new_connection_is_to_be_had(database: Database, app: Role) -> None:
    outcomes: list[Outcome] = []

    def lock_out() -> None:
        database.execute(f"ALTER ROLE {app.name} NOLOGIN")
        kill_others(database)

    def work() -> None:
        with session(from_dsn(app.dsn)) as connection:
            _interrupt(connection, 4 + 3 + 1, lock_out)
            maintain(connection, policy(**AHEAD), now=NOW, outcomes=outcomes)

    with pytest.raises(AuthenticationFailed):
        work()
    assert reported(outcomes) == [("run_2026", "done"), ("run_2027", "DatabaseUnreachable")]


def test_drop_prints_what_was_done_before(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_client(monkeypatch)
    url = archived(database, tmp_path)
    database.execute(TERMINATE.format("DROP TABLE"))
    done = CliRunner().invoke(main, ["drop", "run_2020", "--archive", url, "--yes", "--dsn", database.dsn])
    assert done.exit_code == 1
    assert "detached partition public.run_2020" in done.stdout
    assert KILLED in done.stderr
    assert "It is detached, a table of its own with all its rows" in done.stderr
    assert database.query("SELECT count(*) FROM run_2020") == [(100,)]


def archived(database: Database, folder: Path) -> str:
    database.execute("""
        CREATE TABLE run (id bigint, submitted_at timestamptz NOT NULL) PARTITION BY RANGE (submitted_at);
        CREATE TABLE run_2020 PARTITION OF run FOR VALUES FROM ('2020-01-01Z') TO ('2021-01-01Z');
        INSERT INTO run SELECT n, '2020-05-05Z' FROM generate_series(1, 100) n""")
    made = CliRunner().invoke(main, ["archive", "--partition", "run_2020", "--to", str(folder), "--dsn", database.dsn])
    assert made.exit_code == 0, made.output
    return made.stdout.strip()


def test_restore_prints_the_reason_and_no_line_of_a_library(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_client(monkeypatch)
    url = archived(database, tmp_path)
    # The first row that is loaded ends its session.
    database.execute("""
        CREATE FUNCTION terminate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW;
        END $$;
        CREATE FUNCTION guard() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
          CREATE TRIGGER terminate BEFORE INSERT ON public.other FOR EACH ROW EXECUTE FUNCTION public.terminate();
        END $$;
        CREATE EVENT TRIGGER guard ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION guard()""")
    command = [sys.executable, "-m", "partwarden", "restore", "--manifest", url, "--as", "other", "--dsn", database.dsn]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    *steps, error = done.stderr.splitlines()
    assert error.startswith("Error: ")
    assert KILLED in error
    assert "ignored" not in done.stderr
    assert steps[-1].startswith("loading")
    assert database.query("SELECT to_regclass('other') IS NULL") == [(True,)]


def test_a_session_that_was_lost_is_the_same_object_with_another_connection(database: Database, server: Server) -> None:
    info = from_dsn(database.dsn)
    with session(info) as connection:
        before = connection.info.backend_pid
        kill_others(database)
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT 1")
        connection.reconnect()
        assert connection.info.backend_pid != before
        assert connection.execute("SHOW application_name").fetchall() == [("partwarden",)]
        assert connection.info.server_version // 10000 == server.major
    assert connection.closed
    with pytest.raises(PartwardenError):
        connect(from_dsn(database.dsn.replace(database.name, "no_such_database"))).reconnect()
