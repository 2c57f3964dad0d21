"""SIGKILL during a command leaves nothing half-made and no lock, and the next run does the rest."""

from __future__ import annotations

import subprocess
import sys

from lab.operator import until
from lab.postgres import Database
from support.meanwhile import at_gate, gate, relations

POLICY = """\
apiVersion: partwarden.dev/v1alpha1
kind: PartitionPolicy
metadata: {name: run}
spec: {table: {name: run}, premake: 1}
"""
RICH = """
    CREATE TABLE customer (id int PRIMARY KEY);
    CREATE TABLE run (id bigint GENERATED ALWAYS AS IDENTITY, submitted_at timestamptz NOT NULL,
        customer int REFERENCES customer, PRIMARY KEY (id, submitted_at)) PARTITION BY RANGE (submitted_at);
    CREATE TABLE run_rest PARTITION OF run DEFAULT;
    INSERT INTO run (submitted_at) VALUES ('2001-01-01Z');
    GRANT SELECT ON run TO PUBLIC"""
NOW = "2026-11-22T12:00:00Z"
WAITS = """
    SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'partwarden'
    AND (wait_event_type = 'Lock' OR query LIKE '%pg_stat_clear_snapshot()%')"""
"""It queues at a lock for moments only, and between attempts reads who holds it."""


def apply(database: Database) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "partwarden", "apply", "-f", "-", "--dsn", database.dsn, "--now", NOW]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)
    assert process.stdin is not None
    process.stdin.write(POLICY)
    process.stdin.close()
    return process


def sessions(database: Database) -> list[tuple[object, ...]]:
    return database.query(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'partwarden'"
    )


def test_an_operator_killed_during_attach_leaves_nothing_half_made(database: Database) -> None:
    database.execute(RICH)
    before = relations(database)
    with gate(database) as shut, apply(database) as process:
        until("it has attached the first partition", lambda: at_gate(database))
        process.kill()
        process.wait(timeout=30)
        # No other session sees anything yet.
        assert relations(database) == before
        shut.execute("SELECT pg_advisory_unlock_all()")
    # COMMIT was sent in the same message: it completes without the client.
    until("the server has noticed", lambda: not sessions(database))
    assert partitions(database) == ["run_2026", "run_rest"]
    assert no_locks(database)
    finish(database)


def test_an_operator_killed_while_it_waits_for_a_lock_leaves_nothing_half_made(database: Database) -> None:
    database.execute(RICH)
    before = relations(database)
    with database.connect() as reader:
        reader.execute("BEGIN; SELECT count(*) FROM run_rest")
        with apply(database) as process:
            until("it waits for DEFAULT, or reads who holds it", lambda: bool(database.query(WAITS)))
            process.kill()
            process.wait(timeout=30)
        until("the server has noticed", lambda: not sessions(database))
        assert relations(database) == before
        reader.execute("ROLLBACK")
    assert no_locks(database)
    finish(database)


def partitions(database: Database) -> list[object]:
    return [
        name
        for (name,) in database.query(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'run'::regclass ORDER BY 1"
        )
    ]


def no_locks(database: Database) -> bool:
    return not database.query(
        "SELECT FROM pg_locks WHERE pid <> pg_backend_pid() AND database = "
        "(SELECT oid FROM pg_database WHERE datname = current_database())"
    )


def finish(database: Database) -> None:
    """The next run does the rest, loses no row and doubles nothing."""
    with apply(database) as process:
        assert process.wait(timeout=60) == 0
    assert partitions(database) == ["run_2026", "run_2027", "run_rest"]
    assert database.query("SELECT count(*) FROM run") == [(1,)]
    orphans = "SELECT relname FROM pg_class WHERE relname LIKE 'run_20__' AND relkind = 'r' AND NOT relispartition"
    assert database.query(orphans) == []
