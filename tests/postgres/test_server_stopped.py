"""A server that stops while a command of the terminal works on it: one message, and nothing half-done is left.

Each command is a real process, on a server that only this file uses. It is brought to a place where it holds a
transaction, and kept there by a lock that the test holds, so that the server surely stops in that very transaction.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest

from lab.operator import until
from lab.postgres import Database, Server
from partwarden.archive import pgdump
from partwarden.archive.manifest import MANIFEST
from support.archived import use_client
from support.table_of_years import POLICY

T = TypeVar("T")
FEW, MANY = 10, 10_000
"""Rows of 3,200 bytes. Many are more than the sockets between client and server hold."""
GATE = 4714
"""Key of an advisory lock: while the test holds it, a command stays at the place where `at_gate` is called."""
CLOSED = f"SELECT pg_advisory_lock({GATE})"
TABLE = f"""
    CREATE FUNCTION at_gate() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
      WHILE NOT pg_catalog.pg_try_advisory_xact_lock_shared({GATE}) LOOP PERFORM pg_catalog.pg_sleep(0.01); END LOOP;
      RETURN true;
    END $$;
    CREATE FUNCTION row_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      PERFORM public.at_gate(); RETURN NEW;
    END $$;
    CREATE FUNCTION command_at_gate() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
      PERFORM public.at_gate();
    END $$;
    CREATE FUNCTION guard_other() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
      CREATE TRIGGER guard BEFORE INSERT ON public.other FOR EACH ROW WHEN (NEW.id = {FEW // 2})
      EXECUTE FUNCTION public.row_at_gate();
    END $$;
    CREATE TABLE run (id bigint, submitted_at timestamptz NOT NULL, note text) PARTITION BY RANGE (submitted_at);
    CREATE TABLE run_2020 PARTITION OF run FOR VALUES FROM ('2020-01-01Z') TO ('2021-01-01Z');
    CREATE TABLE run_2026 PARTITION OF run FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z');
"""
FILL = "INSERT INTO run SELECT n, '2020-05-05Z', repeat(md5(n::text), 100) FROM generate_series(1, {}) n"
WAITS = """
    SELECT pid FROM pg_stat_activity WHERE application_name = 'partwarden' AND datname = current_database()
    AND (wait_event_type = 'Lock' OR wait_event = 'PgSleep')
"""
TOAST = """
    SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.reltoastrelid = i.indrelid
    WHERE c.relname = 'run_2020'
"""
PROGRESS = re.compile(r"public\.run_2020, |checking |loading |reading the archive at |\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ")
"""The beginnings of progress lines."""
NOW = "2026-11-22T12:00:00Z"
LOST, UNREACHABLE = "the connection was lost", "cannot connect to database"


@pytest.fixture(scope="module")
def own(server: Server) -> Iterator[Server]:
    """A server of the same major that may be stopped."""
    with Server.start(server.binaries, options={"autovacuum": "off"}) as started:
        yield started


@pytest.fixture
def database(own: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A new database on it, which runs again at the end."""
    use_client(monkeypatch)
    with own.new_database() as made:
        try:
            yield made
        finally:
            serve_again(own)


def serve_again(server: Server) -> None:
    """Start it, or wait until it has recovered by itself."""
    if not server.running:
        server.start_again()

    def answers() -> bool:
        try:
            psycopg.connect(server.dsn()).close()
        except psycopg.OperationalError:
            return False
        return True

    until("the server answers", answers)


def stop(server: Server, how: str, backend: int) -> None:
    """As `Server.stop`; "backend" kills that process alone, upon which the server ends all and recovers by itself."""
    if how == "backend":
        os.kill(backend, signal.SIGKILL)
    else:
        server.stop(how)


def program(*arguments: str, dsn: str) -> list[str]:
    """The command as a user runs it, and what Python else keeps to itself."""
    return [sys.executable, "-W", "always::ResourceWarning", "-m", "partwarden", *arguments, "--dsn", dsn]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)


def run_until_stopped(
    command: list[str], arrived: Callable[[], T], stop: Callable[[T], object]
) -> subprocess.CompletedProcess[str]:
    """The command, during which the server is stopped once ``arrived`` returns something, which ``stop`` is given."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True) as process:

        def observed() -> T:
            assert process.poll() is None, process.communicate()
            return arrived()

        try:
            stop(until("the command arrives", observed))
            output, errors = process.communicate(timeout=60)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def assert_one_message(done: subprocess.CompletedProcess[str], words: str) -> None:
    """It has failed as documented, and its last line is the only one that is no progress."""
    *steps, error = done.stderr.splitlines()
    assert done.returncode == 1
    assert error.startswith("Error: ")
    assert words in error
    # So there is no "error ignored" of psycopg, no "Exception ignored", no warning, no traceback.
    assert [line for line in steps if not PROGRESS.match(line)] == []


def waiting_backend(database: Database) -> int:
    """The process that serves the command, once it waits there; 0 before."""
    return next((int(str(pid)) for (pid,) in database.query(WAITS)), 0)


def rows(database: Database, table: str) -> int | None:
    ((there,),) = database.query("SELECT to_regclass(%s) IS NOT NULL", f"public.{table}")
    return int(str(database.query(f"SELECT count(*) FROM {table}")[0][0])) if there else None


@dataclass(frozen=True)
class Place:
    """Where a command is when the server stops. ``prepare``: SQL that leads it to the gate there; where it is empty,
    the command needs the index of TOAST, on which the test then holds a lock. ``words`` are in the message, ``printed``
    in what it prints of what was done before."""

    command: str
    prepare: str
    words: str
    printed: str = ""
    rows: int = FEW


ON_COMMAND = "CREATE EVENT TRIGGER gate ON ddl_command_end WHEN TAG IN ('{}') EXECUTE FUNCTION {}()"
RESTORE = ON_COMMAND.format("CREATE TABLE", "guard_other")
SENDING = Place("restore --manifest {url} --as other", RESTORE, LOST, rows=MANY)
SENT = Place("restore --manifest {url} --as other", RESTORE, LOST)
ARCHIVING = Place("archive --partition run_2020 --to {folder}", "", LOST)
COMPARING = Place("drop run_2020 --archive {url} --yes", "", LOST)
DROPPING = Place(
    "drop run_2020 --archive {url} --yes",
    ON_COMMAND.format("DROP TABLE", "command_at_gate"),
    UNREACHABLE,
    printed="detached partition public.run_2020",
)
# PostgreSQL computes a constant CHECK while it plans a query on the table.
PLANNING = Place(f"plan -f {{policy}} --now {NOW}", "ALTER TABLE run_2026 ADD CHECK (at_gate())", LOST)
APPLYING = Place(
    f"apply -f {{policy}} --now {NOW}", ON_COMMAND.format("CREATE TABLE", "command_at_gate"), UNREACHABLE, printed=LOST
)


@pytest.mark.parametrize(
    ("place", "how"),
    [
        pytest.param(SENDING, "immediate", id="restore, sending rows, immediate"),
        pytest.param(SENDING, "kill", id="restore, sending rows, kill"),
        pytest.param(SENDING, "backend", id="restore, sending rows, backend"),
        pytest.param(SENT, "immediate", id="restore, all rows sent, immediate"),
        pytest.param(ARCHIVING, "immediate", id="archive, immediate"),
        pytest.param(ARCHIVING, "backend", id="archive, backend"),
        pytest.param(COMPARING, "kill", id="drop, comparing, kill"),
        pytest.param(DROPPING, "immediate", id="drop, dropping, immediate"),
        pytest.param(PLANNING, "kill", id="plan, kill"),
        pytest.param(APPLYING, "immediate", id="apply, immediate"),
        pytest.param(APPLYING, "kill", id="apply, kill"),
    ],
)
def test_there_is_one_message_and_the_same_command_succeeds_afterwards(
    own: Server, database: Database, tmp_path: Path, place: Place, how: str
) -> None:
    database.execute(TABLE + FILL.format(place.rows))
    folder, url, policy = tmp_path / "archives", "", tmp_path / "policy.yaml"
    folder.mkdir()
    premake = 1 if place is APPLYING else 0
    policy.write_text(f"{POLICY}  startFrom: '2026-01-01'\n  premake: {premake}\n")
    if "{url}" in place.command:
        made = run(program("archive", "--partition", "run_2020", "--to", str(folder), dsn=database.dsn))
        assert made.returncode == 0, made.stderr
        url = made.stdout.strip()
    # The lab's servers do not wait for the disk when they commit.
    database.execute(f"{place.prepare}; CHECKPOINT" if place.prepare else "CHECKPOINT")
    closed = CLOSED if place.prepare else f"BEGIN; REINDEX INDEX {database.query(TOAST)[0][0]}"
    arguments = [each.format(url=url, folder=folder, policy=policy) for each in place.command.split()]
    command = program(*arguments, dsn=database.dsn)

    with closing(database.connect()) as keeper:
        keeper.execute(closed.encode())
        done = run_until_stopped(command, lambda: waiting_backend(database), lambda pid: stop(own, how, pid))
    assert_one_message(done, place.words)
    assert place.printed in done.stdout

    serve_again(own)
    assert rows(database, "run_2020") == place.rows
    assert rows(database, "other") is None
    assert rows(database, "run_2027") is None
    assert len(list(folder.rglob(MANIFEST))) == (1 if url else 0)

    again = run(command)
    assert again.returncode == 0, again.stderr
    assert rows(database, "run_2020") == (None if place in (COMPARING, DROPPING) else place.rows)
    assert rows(database, "other") == (place.rows if place in (SENDING, SENT) else None)
    assert rows(database, "run_2027") == (0 if place is APPLYING else None)
    assert len(list(folder.rglob(MANIFEST))) == (1 if url or place is ARCHIVING else 0)


WAITING_PROGRAM = """\
#!/bin/sh
case "$*" in
  *--snapshot=*)
    touch {folder}/arrived
    read -r line < {folder}/gate
    ;;
esac
exec {program} "$@"
"""


@pytest.mark.parametrize("how", ["immediate", "kill"])
def test_archive_that_waits_for_pg_dump_says_that_it_cannot_connect(
    own: Server, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Its own connection holds the snapshot meanwhile, and reads the rows."""
    database.execute(f"{TABLE} {FILL.format(FEW)}; CHECKPOINT")
    folder, programs, real = tmp_path / "archives", tmp_path / "programs", pgdump.find("pg_dump")
    for each in (folder, programs):
        each.mkdir()
    os.mkfifo(tmp_path / "gate")
    (programs / "pg_dump").write_text(WAITING_PROGRAM.format(folder=tmp_path, program=real))
    (programs / "pg_dump").chmod(0o755)
    (programs / "pg_restore").symlink_to(pgdump.find("pg_restore"))
    monkeypatch.setenv(pgdump.FOLDER, str(programs))
    command = program("archive", "--partition", "run_2020", "--to", str(folder), dsn=database.dsn)

    def stop_and_go_on(_: bool) -> None:
        own.stop(how)
        (tmp_path / "gate").write_text("\n")

    done = run_until_stopped(command, (tmp_path / "arrived").exists, stop_and_go_on)
    assert_one_message(done, "pg_dump: error: connection to server")
    assert list(folder.rglob(MANIFEST)) == []

    serve_again(own)
    monkeypatch.setenv(pgdump.FOLDER, str(Path(real).parent))
    again = run(command)
    assert again.returncode == 0, again.stderr
    assert len(list(folder.rglob(MANIFEST))) == 1
