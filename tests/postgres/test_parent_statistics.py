"""The statistics of a partitioned table, which autovacuum never renews."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from lab.operator import until
from lab.postgres import Database
from partwarden.errors import DatabaseUnreachable
from partwarden.planner.inventory import MaintenanceFacts
from support.meanwhile import keep, keep_while, kill_others

TABLE = """
CREATE TABLE run (submitted_at timestamptz NOT NULL, kind int) PARTITION BY RANGE (submitted_at);
CREATE TABLE run_2025 PARTITION OF run FOR VALUES FROM ('2025-01-01Z') TO ('2026-01-01Z');
CREATE TABLE run_2026 PARTITION OF run FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z');
ALTER TABLE run_2025 SET (autovacuum_enabled = off); ALTER TABLE run_2026 SET (autovacuum_enabled = off);
"""
DONE = [("AnalyzeParent", "run", None)]


@pytest.fixture
def table(database: Database) -> Database:
    """run: two partitions, neither of them ever analyzed."""
    database.execute(TABLE)
    return database


def fill(table: Database, rows: int, year: int = 2025) -> None:
    table.execute(f"""INSERT INTO run SELECT '{year}-03-01Z', i % 7 FROM generate_series(1, {rows}) i""")
    table.execute(f"ANALYZE run_{year}")
    _seen(table, f"run_{year}")


def _seen(table: Database, name: str) -> None:
    """Up to 14 the counters arrive a moment later."""
    query = f"SELECT last_analyze IS NOT NULL FROM pg_stat_all_tables WHERE relid = '{name}'::regclass"
    until("the counters tell of the ANALYZE", lambda: table.query(query)[0][0])


def forget(table: Database, name: str = "run") -> None:
    """The server loses its counters of one table, as it does of all in a crash."""
    table.execute(f"SELECT pg_stat_reset_single_table_counters('{name}'::regclass)")
    query = f"SELECT last_analyze IS NULL FROM pg_stat_all_tables WHERE relid = '{name}'::regclass"
    until("the counters are lost", lambda: table.query(query)[0][0])


def keep_once(table: Database, **fields: Any) -> list[tuple[str, str, str | None]]:
    report = keep(table.dsn, **({"premake": 0} | fields))
    return [
        (type(each.action).__name__, each.action.name, each.error.reason if each.error else None)
        for each in report.outcomes
    ]


def believed(table: Database, name: str = "run") -> int:
    ((rows,),) = table.query(f"SELECT reltuples::int FROM pg_class WHERE oid = '{name}'::regclass")
    return int(str(rows))


def test_the_parent_is_analyzed_once_when_its_partitions_have_been(table: Database) -> None:
    assert keep_once(table) == []
    fill(table, 5000)
    assert keep_once(table) == DONE
    assert believed(table) == 5000
    assert table.query("SELECT count(*) FROM pg_stats WHERE tablename = 'run' AND inherited") == [(2,)]
    _seen(table, "run")
    assert keep_once(table) == []


def test_few_rows_or_a_small_share_are_no_reason(table: Database) -> None:
    fill(table, 900)
    assert keep_once(table) == []
    fill(table, 20_000)
    assert keep_once(table) == DONE
    fill(table, 1500, 2026)
    forget(table)
    assert keep_once(table) == []
    fill(table, 2000, 2026)
    forget(table)
    assert keep_once(table) == DONE


def test_lost_counters_make_no_loop_and_no_need(table: Database) -> None:
    fill(table, 5000)
    forget(table)
    forget(table, "run_2025")
    assert keep_once(table) == []
    table.execute("ANALYZE run_2025")
    _seen(table, "run_2025")
    assert keep_once(table) == DONE
    assert keep_once(table) == []


def test_what_differs_for_another_reason_is_asked_about_and_left(table: Database) -> None:
    fill(table, 5000)
    keep_once(table)
    _seen(table, "run")
    # A partition that goes takes its rows along; no partition has been analyzed since.
    table.execute("ALTER TABLE run DETACH PARTITION run_2025")
    table.execute("CREATE TABLE run_2024 PARTITION OF run FOR VALUES FROM ('2024-01-01Z') TO ('2025-01-01Z')")
    table.execute("UPDATE pg_class SET reltuples = 3 WHERE relname = 'run_2024'")
    assert keep_once(table, startFrom="2026-01-01") == []


def test_analyze_only_leaves_partitions_alone_where_the_server_has_it(table: Database) -> None:
    fill(table, 5000)
    assert keep_once(table) == DONE
    # Up to 17 ANALYZE has no ONLY, and takes the partitions along.
    only = int(table.server.version.split(".")[0]) >= 18
    assert (believed(table, "run_2026") == -1) == only


def test_analyze_parent_false_queries_nothing(table: Database) -> None:
    fill(table, 5000)
    report = keep(table.dsn, premake=0, maintenance={"analyzeParent": False})
    assert (report.outcomes, report.inventory.facts) == ((), MaintenanceFacts())


def test_analyze_waits_for_the_window(table: Database) -> None:
    fill(table, 5000)
    report = keep(table.dsn, premake=0, maintenance={"window": "12:01-12:00"})
    assert (report.outcomes, report.after.actions) == ((), ())
    assert report.after.next_boundary.isoformat() == "2026-10-24T12:01:00+00:00"
    assert keep_once(table, maintenance={"window": "12:00-12:01"}) == DONE


def test_a_lock_holder_is_named_at_once(table: Database) -> None:
    fill(table, 5000)
    with psycopg.connect(table.dsn, application_name="ddl") as holder:
        holder.execute("LOCK TABLE ONLY run IN SHARE UPDATE EXCLUSIVE MODE")
        report = keep(table.dsn, premake=0)
        (outcome,) = report.outcomes
        assert outcome.error
        assert outcome.error.reason == "TableBusy"
        assert f'held by pid {holder.info.backend_pid} (ddl, role "postgres") in a transaction' in str(outcome.error)
    assert keep_once(table) == DONE


def test_a_long_transaction_writers_and_readers_do_not_delay_analyze(table: Database) -> None:
    fill(table, 5000)
    begun, stop = threading.Event(), threading.Event()

    def write() -> None:
        with table.connect() as other:
            other.execute("SET lock_timeout = '100ms'")
            while not stop.wait(0.005):
                other.execute("INSERT INTO run VALUES ('2025-06-01Z', 0); SELECT count(*) FROM run_2026")
                begun.set()

    with table.connect() as reader, ThreadPoolExecutor(1) as pool:
        reader.execute("BEGIN; INSERT INTO run VALUES ('2025-06-01Z', 1); SELECT count(*) FROM run")
        work = pool.submit(write)
        try:
            assert begun.wait(60)
            assert keep_once(table) == DONE
        finally:
            stop.set()
        work.result()


def test_a_role_that_owns_only_the_parent_analyzes_the_parent(table: Database) -> None:
    role = table.new_role()
    fill(table, 5000)
    table.execute(f"ALTER TABLE run OWNER TO {role.name}; GRANT CREATE ON SCHEMA public TO {role.name}")
    report = keep(role.dsn, premake=0)
    assert [each.error for each in report.outcomes] == [None]
    assert believed(table) == 5000


@pytest.mark.parametrize("trip", range(1, 11))
def test_analyze_killed_between_any_two_statements_is_done_next_time(table: Database, trip: int) -> None:
    fill(table, 5000)
    # Once all is done there are no more round trips to be interrupted.
    with suppress(DatabaseUnreachable, psycopg.Error, AssertionError):
        keep_while(table.dsn, trip, lambda: kill_others(table), premake=0)
    keep_once(table)
    assert believed(table) == 5000
    _seen(table, "run")
    assert keep_once(table) == []
