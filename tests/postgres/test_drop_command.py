"""``partwarden drop`` on a database: its confirmation, its refusals, and the state after each interruption."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lab.postgres import Database
from lab.site import partitions
from partwarden.archive.verify import open_archive
from partwarden.cli import drop_database, tables
from partwarden.cli.main import main
from partwarden.cli.options import Target
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from support.archived import use_client
from support.retirement import leave_pending
from support.statements import watch

YEAR = datetime.now(UTC).year
OLD = f"run_{YEAR - 2}"
ROWS = 1000


def run(database: Database, *arguments: str) -> Result:
    done = CliRunner().invoke(main, [*arguments, "--dsn", database.dsn])
    assert "Traceback" not in done.output
    return done


def run_plain(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def typed(database: Database, answer: str, *arguments: str) -> tuple[int, str]:
    """The command at a terminal, where a user types: its exit code, and what it printed."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "partwarden", *arguments, "--dsn", database.dsn]
    os.write(ours, f"{answer}\n".encode())
    try:
        done = subprocess.run(
            command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
        )
    finally:
        os.close(theirs)
        os.close(ours)
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout


@pytest.fixture
def table(database: Database) -> Database:
    """run, by year, with rows in the oldest of four partitions."""
    database.execute("CREATE TABLE run (id bigint, at timestamptz NOT NULL) PARTITION BY RANGE (at)")
    for year in range(YEAR - 2, YEAR + 2):
        ends = f"FROM ('{year}-01-01Z') TO ('{year + 1}-01-01Z')"
        database.execute(f"CREATE TABLE run_{year} PARTITION OF run FOR VALUES {ends}")
    database.execute(f"INSERT INTO run SELECT n, '{YEAR - 2}-05-05Z' FROM generate_series(1, {ROWS}) n")
    return database


@pytest.fixture
def archive(table: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a proven archive of the oldest partition."""
    use_client(monkeypatch)
    done = run(table, "archive", "--partition", OLD, "--to", str(tmp_path))
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


def rows(database: Database, table: str) -> int | None:
    ((there,),) = database.query(f"SELECT to_regclass('public.{table}') IS NOT NULL")
    if not there:
        return None
    ((count,),) = database.query(f"SELECT count(*) FROM {table}")
    return int(str(count))


def test_a_table_with_a_proven_archive_is_dropped_with_yes(table: Database, archive: str) -> None:
    done = run(table, "drop", str(YEAR - 2), "--archive", archive, "--yes")
    assert done.exit_code == 0, done.output
    assert f"public.{OLD}, [{YEAR - 2}-01-01, {YEAR - 1}-01-01): {ROWS:,} rows" in done.output
    assert f"read just now: all {ROWS:,} rows are equal" in done.output
    assert done.output.splitlines()[-2:] == [f"detached partition public.{OLD}", f"dropped table public.{OLD}"]
    assert rows(table, OLD) is None
    assert partitions(table) == [f"run_{YEAR - 1}", f"run_{YEAR}", f"run_{YEAR + 1}"]
    back = run(table, "restore", "--manifest", archive, "--attach")
    assert back.exit_code == 0, back.output
    assert rows(table, OLD) == ROWS


def test_drop_takes_a_name_and_prints_json(table: Database, archive: str) -> None:
    done = run(table, "drop", f"public.{OLD}", "--archive", archive, "--yes", "-o", "json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {
        "partition": f"public.{OLD}",
        "rows": ROWS,
        "archive": archive,
        "dropped": True,
        "error": None,
    }


def test_a_drop_is_confirmed_by_typing_the_name(table: Database, archive: str) -> None:
    code, said = typed(table, "y", "drop", str(YEAR - 2), "--archive", archive)
    assert code == 1
    assert f"nothing is done: that was not {OLD}" in said
    assert rows(table, OLD) == ROWS
    code, said = typed(table, OLD, "drop", str(YEAR - 2), "--archive", archive)
    assert code == 0, said
    assert f"Type {OLD} to drop it" in said
    assert rows(table, OLD) is None


def test_a_drop_without_archive_says_what_is_lost(table: Database) -> None:
    code, said = typed(table, OLD, "drop", OLD, "--without-archive")
    assert code == 0, said
    assert f"NO ARCHIVE: these {ROWS:,} rows are lost for ever" in said
    assert rows(table, OLD) is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((OLD,), "no archive of it is named"),
        ((OLD, "--yes"), "no archive of it is named"),
        ((OLD, "--without-archive", "--yes"), "--yes goes with a proven archive only"),
        ((OLD, "--without-archive"), "there is no terminal to ask at"),
        ((str(YEAR), "--without-archive"), "which is now or later"),
        ((str(YEAR + 1), "--without-archive"), "which is now or later"),
        (("1999", "--without-archive"), "no partition of public.run is called '1999' or lies in it"),
        (("run_old", "--without-archive"), "no partition of public.run is called 'run_old'"),
        ((OLD, "--archive", "/nonexistent/here", "--yes"), "/nonexistent/here"),
        ((OLD, "--archive", "/x", "--without-archive"), "exclude each other"),
    ],
)
def test_drop_refuses_arguments_that_name_no_droppable_table(
    table: Database, arguments: tuple[str, ...], says: str
) -> None:
    done = run(table, "drop", *arguments)
    assert done.exit_code == 1
    assert says in done.output
    assert rows(table, OLD) == ROWS
    assert len(partitions(table)) == 4


def test_a_drop_without_terminal_needs_more_than_an_archive(table: Database, archive: str) -> None:
    done = run(table, "drop", OLD, "--archive", archive)
    assert done.exit_code == 1
    assert "there is no terminal to ask at; with a proven archive, say --yes" in done.output
    assert len(partitions(table)) == 4


def test_default_and_unbounded_partitions_are_never_dropped(table: Database) -> None:
    table.execute(
        f"CREATE TABLE rest PARTITION OF run DEFAULT; CREATE TABLE ever PARTITION OF run "
        f"FOR VALUES FROM (MINVALUE) TO ('{YEAR - 9}-01-01Z')"
    )
    for name in ("rest", "ever"):
        done = run(table, "drop", name, "--without-archive")
        assert done.exit_code == 1
        assert "it may hold rows of any time" in done.output


def test_an_archive_of_something_else_does_not_count(table: Database, archive: str) -> None:
    table.execute(f"INSERT INTO run VALUES (0, '{YEAR - 2}-06-06Z')")
    done = run(table, "drop", OLD, "--archive", archive, "--yes")
    assert done.exit_code == 1
    assert f"holds {ROWS + 1:,} rows that are not the {ROWS:,} of the archive" in done.output
    done = run(table, "drop", str(YEAR - 1), "--archive", archive, "--yes")
    assert done.exit_code == 1
    assert f"is of public.{OLD}" in done.output
    assert len(partitions(table)) == 4


@pytest.mark.parametrize("damage", [lambda data: data[:-1] + b"x", lambda data: data + b"x"], ids=["changed", "longer"])
def test_a_damaged_archive_does_not_count(table: Database, archive: str, damage: Callable[[bytes], bytes]) -> None:
    """Also where its rows could still be read: `restore` would refuse it once the table is gone."""
    data = Path(archive.removeprefix("file://"), "data.dump")
    data.write_bytes(damage(data.read_bytes()))
    assert run_plain("verify", archive).exit_code == 1
    done = run(table, "drop", OLD, "--archive", archive, "--yes")
    assert done.exit_code == 1
    assert rows(table, OLD) == ROWS
    assert len(partitions(table)) == 4


def test_referencing_rows_keep_the_table(table: Database) -> None:
    table.execute(
        f"ALTER TABLE run ADD PRIMARY KEY (id, at); "
        f"CREATE TABLE item (id bigint, at timestamptz, FOREIGN KEY (id, at) REFERENCES run); "
        f"INSERT INTO item VALUES (1, '{YEAR - 2}-05-05Z')"
    )
    code, said = typed(table, OLD, "drop", OLD, "--without-archive")
    assert code == 1
    assert "rows of other tables point to its rows by foreign keys: public.item (1)" in said
    assert len(partitions(table)) == 4


@pytest.mark.parametrize("place", ["annotation", "spec"])
def test_a_hold_in_the_policys_file_keeps_the_table(table: Database, tmp_path: Path, place: str) -> None:
    file = tmp_path / "policy.yaml"
    annotations, holds = ({"partwarden.dev/hold": OLD}, []) if place == "annotation" else ({}, [OLD])
    file.write_text(f"""apiVersion: partwarden.dev/v1alpha1
kind: PartitionPolicy
metadata: {{name: run, annotations: {json.dumps(annotations)}}}
spec: {{table: {{name: run}}, holds: {json.dumps(holds)}}}""")
    done = run(table, "drop", OLD, "--without-archive", "-f", str(file))
    assert done.exit_code == 1
    assert "the annotation partwarden.dev/hold or spec.holds names it" in done.output


def test_a_period_of_several_partitions_asks_which(table: Database) -> None:
    table.execute("CREATE TABLE log (at timestamptz) PARTITION BY RANGE (at)")
    for month in (1, 2):
        ends = f"FROM ('2020-0{month}-01Z') TO ('2020-0{month + 1}-01Z')"
        table.execute(f"CREATE TABLE log_{month} PARTITION OF log FOR VALUES {ends}")
    done = run(table, "drop", "2020", "--table", "log", "--without-archive")
    assert done.exit_code == 1
    assert "2 partitions of public.log lie in 2020: name one of them (log_1, log_2)" in done.output


def test_a_lock_held_by_another_session_leaves_the_table_whole(table: Database, archive: str) -> None:
    with table.connect() as other, other.transaction():
        other.execute(f"SELECT FROM {OLD}")
        done = run(table, "drop", OLD, "--archive", archive, "--yes", "--patience", "1")
        assert done.exit_code == 1
        assert rows(table, OLD) == ROWS
    done = run(table, "drop", OLD, "--archive", archive, "--yes")
    assert done.exit_code == 0, done.output
    assert rows(table, OLD) is None


def pending(database: Database) -> bool:
    ((found,),) = database.query("SELECT bool_or(inhdetachpending) FROM pg_inherits WHERE inhparent = 'run'::regclass")
    return bool(found)


def test_a_drop_interrupted_during_the_detach_continues_from_there(table: Database, archive: str) -> None:
    """PostgreSQL knows no way back from a detach that is pending: the same command finishes it, and no row goes."""
    reader, begun = table.connect(), False

    def before(query: str) -> None:
        nonlocal begun
        if not begun and "CONCURRENTLY" in query:
            begun = True
            reader.execute("BEGIN; SELECT count(*) FROM run")

    with reader, session(from_dsn(table.dsn)) as connection:
        watch(connection, before)
        found = drop_database.find(connection, tables.only_spec(connection, Target()), OLD, frozenset())
        (outcome,) = drop_database.remove(connection, found, None, "", 10.0)
        assert outcome.error
        assert pending(table)
    assert rows(table, OLD) == ROWS
    done = run(table, "drop", OLD, "--archive", archive, "--yes")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-3:] == [
        f"finished detaching partition public.{OLD}",
        f"confirmed as detached table public.{OLD}",
        f"dropped table public.{OLD}",
    ]
    assert rows(table, OLD) is None


@pytest.mark.parametrize("text", ["COMMENT", "DETACH", "DROP TABLE"])
def test_ctrl_c_at_any_step_loses_no_row_and_the_same_command_goes_on(table: Database, archive: str, text: str) -> None:
    def interrupt(query: str) -> None:
        if text in query:
            raise KeyboardInterrupt

    def drop() -> None:
        with session(from_dsn(table.dsn)) as connection:
            watch(connection, after=interrupt)
            found = drop_database.find(connection, tables.only_spec(connection, Target()), OLD, frozenset())
            proven = drop_database.compare(connection, found, open_archive(archive))
            drop_database.remove(connection, found, proven, archive, 10.0)

    with pytest.raises(KeyboardInterrupt):
        drop()
    if rows(table, OLD) is None:
        return
    assert rows(table, OLD) == ROWS
    done = run(table, "drop", OLD, "--archive", archive, "--yes")
    assert done.exit_code == 0, done.output
    assert rows(table, OLD) is None
    assert run(table, "restore", "--manifest", archive, "--attach").exit_code == 0
    assert rows(table, OLD) == ROWS


def test_a_detach_begun_by_another_session_is_refused(table: Database, archive: str) -> None:
    leave_pending(table, OLD)
    done = run(table, "drop", OLD, "--archive", archive, "--yes")
    assert done.exit_code == 1
    assert "its detach was begun by another session and did not end" in done.output
    assert rows(table, OLD) == ROWS


def test_a_drop_interrupted_after_the_detach_continues_from_there(table: Database, archive: str) -> None:
    """As the first half leaves it: a table of its own, marked, with all its rows."""
    table.execute(f"CREATE VIEW needs AS SELECT * FROM {OLD}")
    done = run(table, "drop", OLD, "--archive", archive, "--yes")
    assert done.exit_code == 1
    assert "other objects depend on it" in done.output
    assert "It is detached, a table of its own with all its rows; the same command goes on" in done.output
    assert rows(table, OLD) == ROWS
    assert OLD not in partitions(table)
    listed = run(table, "list")
    assert "Detached" in listed.output
    table.execute("DROP VIEW needs")
    done = run(table, "drop", OLD, "--archive", archive, "--yes")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == f"dropped table public.{OLD}"
    assert rows(table, OLD) is None
