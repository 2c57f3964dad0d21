"""With synchronous replication and the standby away: no commit of Partwarden waits while it holds locks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from conftest import QUIET
from lab.operator import until
from lab.postgres import Database, Role, Server, standby_away
from partwarden.archive import restored_drop
from partwarden.archive.folder import Folder
from partwarden.archive.restore import RestoreRequest, restore
from partwarden.archive.verify import open_archive
from partwarden.cli.main import main
from partwarden.postgres import transaction
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from support.archived import drop_order, use_client
from support.converted import PLAIN
from support.meanwhile import keep
from support.retirement import DETACH, DROP, LONG_AGO, edit_mark, verbs

TABLE = """
    CREATE TABLE run (id bigint GENERATED ALWAYS AS IDENTITY, submitted_at timestamptz NOT NULL, note text,
        PRIMARY KEY (id, submitted_at)) PARTITION BY RANGE (submitted_at);
    CREATE TABLE run_2018 PARTITION OF run FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z');
    CREATE TABLE run_2025 PARTITION OF run FOR VALUES FROM ('2025-01-01Z') TO ('2026-01-01Z');
    INSERT INTO run (submitted_at) VALUES ('2018-05-05Z'), ('2025-05-05Z');
"""
DEFAULT = "CREATE TABLE run_rest PARTITION OF run DEFAULT;"
WAITS = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND datname = current_database()"
THIS_YEAR: dict[str, Any] = {"premake": 0, "startFrom": "2026-01-01"}


@pytest.fixture(scope="module")
def away(server: Server) -> Iterator[Server]:
    """A server of the same major whose synchronous standby has stopped."""
    with Server.start(server.major, options=QUIET) as own, standby_away(own):
        yield own


@pytest.fixture
def database(away: Server) -> Iterator[Database]:
    """A new database there, dropped afterwards."""
    with away.new_database() as made:
        yield made


@pytest.fixture
def app(database: Database) -> Role:
    """A role whose commits wait for the standby; it owns what the test makes."""
    role = database.new_role()
    database.execute(
        f"GRANT CREATE ON SCHEMA public TO {role.name}; ALTER ROLE {role.name} SET synchronous_commit = on"
    )
    return role


def make(database: Database, app: Role, statements: str) -> None:
    database.execute(f"SET ROLE {app.name}; {statements}")


def test_a_commit_that_waits_for_the_standby_does_not_end(database: Database, app: Role) -> None:
    with psycopg.connect(app.dsn, autocommit=True) as theirs, ThreadPoolExecutor(1) as pool:
        commit = pool.submit(theirs.execute, "CREATE TABLE mine ()")
        ((pid,),) = until("the commit waits", lambda: database.query(WAITS))
        assert not commit.done()
        # It ends with a warning then, as PostgreSQL has it.
        database.query("SELECT pg_cancel_backend(%s)", pid)
        commit.result()


@pytest.mark.parametrize("default", ["", DEFAULT], ids=["alone", "with DEFAULT"])
def test_creations_end_and_no_reader_of_default_is_held(database: Database, app: Role, default: str) -> None:
    make(database, app, TABLE + default)
    assert verbs(keep(app.dsn, **{**THIS_YEAR, "premake": 2})) == [("create", "done")] * 3
    assert readable(database, "run")


def test_a_drain_ends_and_no_reader_of_default_is_held(database: Database, app: Role) -> None:
    make(database, app, f"{TABLE}{DEFAULT}INSERT INTO run (submitted_at) VALUES ('2026-05-05Z')")
    report = keep(app.dsn, **THIS_YEAR, defaultPartition={"drain": "Auto"})
    assert [each.error for each in report.outcomes] == [None]
    assert readable(database, "run")
    assert database.query("SELECT count(*) FROM run_rest") == [(0,)]


@pytest.mark.parametrize("default", ["", DEFAULT], ids=["concurrently", "with DEFAULT"])
def test_a_detach_and_a_drop_end(database: Database, app: Role, default: str) -> None:
    make(database, app, TABLE + default)
    assert ("detach", "done") in verbs(keep(app.dsn, **DETACH))
    edit_mark(database, since=LONG_AGO)
    assert verbs(keep(app.dsn, **DROP)) == [("drop", "done")]
    assert readable(database, "run")


def test_vacuum_reindex_and_analyze_end(database: Database, app: Role) -> None:
    make(database, app, TABLE)
    report = keep(app.dsn, **THIS_YEAR, maintenance={"onClose": "VacuumAndReindex"})
    assert {("vacuum", "done"), ("reindex", "done")} <= set(verbs(report))


def test_a_restore_ends_and_says_that_no_standby_has_it(
    database: Database, app: Role, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_client(monkeypatch)
    make(database, app, TABLE + DEFAULT)
    monkeypatch.setattr(transaction, "PATIENCE", 0.2)
    made = CliRunner().invoke(
        main, ["archive", "--partition", "run_2018", "--to", str(tmp_path), "--dsn", app.dsn], catch_exceptions=False
    )
    assert made.exit_code == 0, made.output
    database.execute("DROP TABLE run_2018")
    restore = ["restore", "--manifest", made.stdout.strip(), "--dsn", app.dsn]
    for arguments in (["--attach"], ["--as", "other"]):
        done = CliRunner().invoke(main, [*restore, *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert "committed, but no synchronous standby has confirmed it" in done.output
    assert readable(database, "run")
    assert database.query("SELECT count(*) FROM run WHERE submitted_at < '2019-01-01Z'") == [(1,)]


def test_a_conversion_and_its_way_back_end(database: Database, app: Role) -> None:
    """A commit that waited would keep every reader of the table out."""
    make(database, app, PLAIN)
    dsn = ("--dsn", app.dsn)
    there = ["convert", "--table", "run", "--key", "at", "--interval", "Year", "--widen-keys", "--yes", *dsn]
    done = CliRunner().invoke(main, there, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert readable(database, "run")
    make(database, app, "INSERT INTO run VALUES (5000, now() + interval '1 year')")
    done = CliRunner().invoke(main, ["convert", "--table", "run", "--undo", "--yes", *dsn], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert readable(database, "run")
    assert database.query("SELECT count(*) FROM run") == [(1001,)]


def test_a_restored_table_is_dropped_again(
    database: Database, app: Role, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_client(monkeypatch)
    monkeypatch.setattr(transaction, "PATIENCE", 0.2)
    make(database, app, TABLE)
    arguments = ["archive", "--partition", "run_2018", "--to", str(tmp_path), "--dsn", app.dsn]
    source = open_archive(CliRunner().invoke(main, arguments, catch_exceptions=False).stdout.strip())
    wish = RestoreRequest(name="again", uid="0a4bd22c")
    made = restore(source, from_dsn(app.dsn), wish, lambda line: None)
    order = drop_order("0a4bd22c", made, source, tmp_path)
    assert restored_drop.drop(order, from_dsn(app.dsn), Folder(tmp_path, "pvc://archives"), lambda line: None).ok
    assert database.query("SELECT to_regclass('again')") == [(None,)]
    assert readable(database, "run")


def test_what_standbys_confirm_is_known_without_any(server: Server) -> None:
    """Where none is demanded nothing is waited for, nor written."""
    with server.new_database() as database, session(from_dsn(database.new_role().dsn)) as connection:
        assert transaction.confirmed(connection)


def readable(database: Database, table: str) -> bool:
    """Whether all of the table, DEFAULT included, can be read at once, and no backend waits for the standby."""
    with database.connect() as reader:
        reader.execute("SET lock_timeout = '1s'")
        reader.execute(f"SELECT count(*) FROM {table}".encode())
    return database.query(WAITS) == []
