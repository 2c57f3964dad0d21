"""The plan names the strongest lock taken, and strong locks are held for a moment only."""

from __future__ import annotations

import itertools
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.operator import until
from lab.postgres import Database
from partwarden.postgres import create
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import observe_and_plan
from support.meanwhile import NOW, RUN, at_gate, gate, keep, policy, reasons

WITH_KEY = "CREATE TABLE run (id int, at date, customer int{}, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);"
CUSTOMER = "CREATE TABLE customer (id int PRIMARY KEY);"
LOG = "CREATE TABLE log (id int, at date, FOREIGN KEY (id, at) REFERENCES run);"
REST = "CREATE TABLE rest PARTITION OF run DEFAULT;"
OLD = "CREATE TABLE old PARTITION OF run FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');"
HARMLESS = ("ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE")
ORDER = (*HARMLESS, "SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE")


def heavy_locks(database: Database, known: set[object]) -> dict[str, str]:
    """The locks on tables of ``known`` that block another session, by table."""
    rows = database.query(
        "SELECT l.relation, l.relation::regclass::text, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation "
        "WHERE l.granted AND c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace"
    )
    found: dict[str, str] = {}
    for oid, name, mode in rows:
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(mode).removesuffix("Lock")).upper()
        if oid in known and words not in HARMLESS:
            found[f"public.{name}"] = max(found.get(f"public.{name}", words), words, key=ORDER.index)
    return found


@pytest.mark.parametrize(
    ("ddl", "strongest"),
    [
        (WITH_KEY.format("") + OLD, "SHARE UPDATE EXCLUSIVE on public.run"),
        (CUSTOMER + WITH_KEY.format(" REFERENCES customer") + OLD, "SHARE ROW EXCLUSIVE on public.customer"),
        (WITH_KEY.format("") + LOG, "SHARE ROW EXCLUSIVE on public.log"),
        (WITH_KEY.format("") + OLD + REST, "ACCESS EXCLUSIVE on public.rest"),
    ],
    ids=["plain", "refers", "referred to", "default"],
)
def test_the_lock_in_the_plan_is_the_strongest_taken(database: Database, ddl: str, strongest: str) -> None:
    database.execute(ddl)
    known = {oid for (oid,) in database.query("SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace")}
    with session(from_dsn(database.dsn)) as connection:
        _, decided = observe_and_plan(connection, policy(premake=0), NOW)
    assert {action.lock for action in decided.actions} == {strongest}
    with gate(database) as shut, ThreadPoolExecutor(1) as pool:
        work = pool.submit(keep, database.dsn, premake=0)
        until("the partition is attached, and nothing committed", lambda: at_gate(database))
        held = heavy_locks(database, known)
        shut.execute("SELECT pg_advisory_unlock_all()")
        assert reasons(work.result())[0] == "created"
    lock, _, table = strongest.partition(" on ")
    expected = {"public.run": "SHARE UPDATE EXCLUSIVE"} | {table: lock}
    if database.server.major == 14:
        # It does not lock the tables that refer to this one.
        expected.pop("public.log", None)
    assert held == expected


def test_a_default_partition_too_large_to_scan_in_time_is_released(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(f"{RUN} {REST} INSERT INTO run SELECT '2030-06-01Z' FROM generate_series(1, 100000)")
    with monkeypatch.context() as patched:
        patched.setattr(create, "SCAN_TIMEOUT", "1ms")
        report = keep(database.dsn, premake=0)
    assert reasons(report) == ["StatementRejected"]
    said = str(report.outcomes[0].error)
    assert "none of its rows lie in public.rest" in said
    assert database.query("SELECT to_regclass('run_2026'), count(*) FROM pg_locks WHERE locktype = 'advisory'") == [
        (None, 0)
    ]
    advised = re.search(r"CHECK \(.*\)(?= on it)", said)
    assert advised
    database.execute(f"ALTER TABLE rest ADD {advised[0]}")
    heard: list[str] = []
    with session(from_dsn(database.dsn)) as connection:
        connection.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
        connection.execute("SET client_min_messages = debug1")
        inventory, decided = observe_and_plan(connection, policy(premake=0), NOW)
        create.create(connection, inventory, decided.key, decided.creations[0], 0)
    assert any("default partition" in line and "is implied by existing constraints" in line for line in heard)


def test_writers_of_a_referenced_table_proceed_between_attempts(database: Database) -> None:
    database.execute(CUSTOMER + WITH_KEY.format(" REFERENCES customer"))
    stop = threading.Event()

    def write_on() -> int:
        """Writes as long as it may; fails when a write waits for longer than a second."""
        with database.connect() as other:
            other.execute("SET lock_timeout = '1s'")
            for number in itertools.count(1):
                other.execute(f"INSERT INTO customer VALUES ({number})".encode())
                if stop.wait(0.02):
                    return number
        raise AssertionError

    with database.connect() as writer, ThreadPoolExecutor(1) as pool:
        writer.execute("BEGIN; INSERT INTO customer VALUES (0)")
        work = pool.submit(write_on)
        report = keep(database.dsn, patience=1, premake=0)
        stop.set()
        assert work.result() > 5
        assert reasons(report) == ["TableBusy"]
        assert f"pid {writer.info.backend_pid} (" in str(report.outcomes[0].error)
        assert "public.customer" in str(report.outcomes[0].error)
    assert reasons(keep(database.dsn, premake=0)) == ["created"]


def test_creating_partitions_of_a_plain_table_blocks_no_session(database: Database) -> None:
    """Every lock that is asked for is to be had at once, beside readers, writers and row lockers who never end."""
    database.execute(f"{RUN} CREATE TABLE old PARTITION OF run FOR VALUES FROM ('2025-01-01Z') TO ('2026-01-01Z')")
    with database.connect() as busy:
        busy.execute("""BEGIN; INSERT INTO run VALUES ('2025-06-01Z'); SELECT FROM run FOR UPDATE;
            UPDATE run SET submitted_at = '2025-07-01Z'; DELETE FROM old""")
        report = keep(database.dsn, patience=0, interval="Month", premake=12)
        assert reasons(report) == ["created"] * 22
        busy.execute("COMMIT")
