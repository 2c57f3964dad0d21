"""The command as a process: its environment, signals, pipes, and what it does not load."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import partwarden
from lab.postgres import Database
from support.table_of_years import POLICY, make_table, partitions


@pytest.fixture
def table(pg_database: Database) -> Database:
    """Table run, by year, with 2024 and 2025."""
    make_table(pg_database)
    return pg_database


def start(database: Database, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "partwarden", *arguments, "-f", "-", "--dsn", database.dsn]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, **options)


def test_libpq_takes_the_rest_from_the_environment(table: Database) -> None:
    parts = conninfo_to_dict(table.dsn)
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    environment = os.environ | {names[key]: str(value) for key, value in parts.items() if key in names}
    command = [sys.executable, "-m", "partwarden", "plan", "-f", "-", "--dsn", ""]
    done = subprocess.run(command, input=POLICY, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "")


def test_control_c_ends_a_command_at_once_and_leaves_nothing_half_done(table: Database) -> None:
    with table.connect() as blocker, blocker.transaction():
        blocker.execute("LOCK TABLE run IN ACCESS EXCLUSIVE MODE")
        with start(table, "apply", "--patience", "600") as process:
            assert process.stdin is not None
            process.stdin.write(POLICY)
            process.stdin.close()
            _wait_for_a_lock_request(blocker)
            process.send_signal(signal.SIGINT)
            code = process.wait(timeout=30)
            assert process.stderr is not None
            assert process.stderr.read().strip() == "interrupted"
    assert code == 130
    assert partitions(table) == ["run_2024", "run_2025"]


@pytest.mark.parametrize("module", ["click.types", "click", "psycopg", "partwarden.archive.restore"])
def test_control_c_during_startup_is_reported_like_any_other(module: str) -> None:
    """Python says of each module that it is imported; whatever the moment, there is a word and no traceback."""
    command = [sys.executable, "-X", "importtime", "-m", "partwarden", "version"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        seen = next(line for line in process.stderr if line.rstrip().endswith(f" {module}"))
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(timeout=30) == 130, (seen, rest)
    said = [line for line in rest.splitlines() if not line.startswith("import time:")]
    assert said == ["interrupted"]


def test_little_is_imported_before_control_c_is_answered() -> None:
    """What comes before it, Python answers in its own way."""
    asked = "import sys; import partwarden.cli; print(sorted({'typing', 're', 'contextlib', 'click'} & {*sys.modules}))"
    # Without the packages of the environment, which import much of that by themselves.
    found = os.environ | {"PYTHONPATH": str(Path(partwarden.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-S", "-c", asked], env=found, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


PSYCOPG_WARNS = """
import contextlib, logging
from partwarden.cli.main import main
with contextlib.suppress(SystemExit):
    main(["version"])
logging.getLogger("psycopg").warning("error ignored terminating the COPY of a server that has gone")
"""


def test_warnings_of_psycopg_are_not_printed_beside_the_error() -> None:
    """It warns so where the server stops within a COPY or a transaction, as in restore: the error itself is raised."""
    done = subprocess.run([sys.executable, "-c", PSYCOPG_WARNS], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def _wait_for_a_lock_request(connection: psycopg.Connection) -> None:
    given_up = threading.Event()
    timer = threading.Timer(60, given_up.set)
    timer.start()
    try:
        while not given_up.is_set():
            waiting = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
            if waiting and waiting[0]:
                return
            given_up.wait(0.05)
        pytest.fail("apply never asked for the lock")
    finally:
        timer.cancel()


def test_a_reader_that_goes_away_gets_no_traceback(table: Database) -> None:
    with start(table, "plan") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        process.stdin.write(POLICY)
        process.stdin.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(timeout=30) == 1


def test_plan_needs_no_kubernetes(table: Database, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    script = (
        "import sys; from partwarden.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(sorted({'kopf', 'kubernetes', 'aiohttp'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", script, "plan", "-f", str(path), "--dsn", table.dsn]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout.endswith("[]\n")
