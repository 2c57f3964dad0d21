"""Locks: which sessions wait, for how long, and the message when a lock cannot be acquired."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg

from lab.operator import until
from lab.postgres import Database, Server
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import maintain
from support.meanwhile import NOW, RUN, at_gate, gate, keep, policy, reasons, relations, waiting

DEFAULT = "CREATE TABLE run_rest PARTITION OF run DEFAULT;"


def test_a_lock_held_beyond_the_timeout_is_reported_with_its_holder(database: Database) -> None:
    database.execute(RUN)
    before = relations(database)
    with psycopg.connect(database.dsn, application_name="month's end") as holder:
        holder.execute("LOCK TABLE run IN SHARE MODE")
        report = keep(database.dsn, patience=0.1, premake=1)
        assert reasons(report) == ["TableBusy", "TableBusy"]
        said = str(report.outcomes[0].error)
        assert "cannot create partition public.run_2026" in said
        assert f'cannot lock public.run: held by pid {holder.info.backend_pid} (month\'s end, role "postgres")' in said
    assert relations(database) == before
    assert reasons(keep(database.dsn, premake=1)) == ["created", "created"]


def test_a_lock_released_within_the_timeout_is_acquired(database: Database) -> None:
    database.execute(RUN)
    with database.connect() as holder, ThreadPoolExecutor(1) as pool:
        holder.execute("BEGIN; LOCK TABLE run IN SHARE MODE")
        work = pool.submit(keep, database.dsn, patience=60, premake=0)
        until("a session waits for the lock", lambda: waiting(database))
        holder.execute("ROLLBACK")
        assert reasons(work.result()) == ["created"]


def test_an_old_transaction_is_not_waited_for(database: Database) -> None:
    database.execute(RUN)
    old = "SELECT clock_timestamp() - xact_start > '2s' FROM pg_stat_activity WHERE pid = %s"
    with database.connect() as holder:
        holder.execute("BEGIN; LOCK TABLE run IN SHARE MODE")
        with database.connect() as other:
            until("it is old", lambda: other.execute(old, [holder.info.backend_pid]).fetchall() == [(True,)])
        patient, impatient = keep(database.dsn, patience=1.5, premake=0), keep(database.dsn, patience=0, premake=0)
        assert reasons(patient) == reasons(impatient) == ["TableBusy"]
        assert patient.round_trips == impatient.round_trips
        assert "in a transaction since 2" in str(patient.outcomes[0].error)


def test_a_transaction_that_has_read_the_parent_delays_nothing(database: Database) -> None:
    database.execute(f"{RUN} CREATE TABLE old PARTITION OF run FOR VALUES FROM ('2025-01-01Z') TO ('2026-01-01Z')")
    with database.connect() as reader:
        reader.execute("BEGIN; SELECT count(*) FROM run; INSERT INTO run VALUES ('2025-06-01Z')")
        assert reasons(keep(database.dsn, patience=0)) == ["created"] * 3
        reader.execute("COMMIT")


def test_creation_delays_neither_readers_nor_writers(database: Database) -> None:
    database.execute(f"{RUN} CREATE TABLE old PARTITION OF run FOR VALUES FROM ('2025-01-01Z') TO ('2026-01-01Z')")
    heavy = """SELECT relation::regclass::text, mode FROM pg_locks WHERE granted AND relation IN ('run'::regclass,
               'old'::regclass) AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')"""
    with gate(database) as shut, ThreadPoolExecutor(1) as pool:
        work = pool.submit(keep, database.dsn, premake=0)
        until("the partition is attached, and nothing committed", lambda: at_gate(database))
        assert database.query(heavy) == [("run", "ShareUpdateExclusiveLock")]
        with database.connect() as other:
            other.execute("SET lock_timeout = '1ms'; INSERT INTO run VALUES ('2025-06-01Z'); SELECT count(*) FROM run")
            other.execute("UPDATE run SET submitted_at = '2025-07-01Z'; SELECT submitted_at FROM run FOR UPDATE")
        shut.execute("SELECT pg_advisory_unlock_all()")
        assert reasons(work.result()) == ["created"]


def test_with_a_default_partition_its_readers_are_kept_waiting_briefly_at_most(database: Database) -> None:
    database.execute(f"{RUN} {DEFAULT}")
    stop = threading.Event()

    def read_on() -> int:
        """Reads as long as it may; fails when a read waits for longer than a second."""
        reads = 0
        with database.connect() as other:
            other.execute("SET lock_timeout = '1s'")
            while not stop.wait(0.02):
                other.execute("SELECT count(*) FROM run")
                reads += 1
        return reads

    with database.connect() as reader, ThreadPoolExecutor(1) as pool:
        reader.execute("BEGIN; SELECT count(*) FROM run_rest")
        work = pool.submit(read_on)
        report = keep(database.dsn, patience=1.5, premake=0)
        stop.set()
        assert work.result() > 5
        assert reasons(report) == ["TableBusy"]
        assert f"pid {reader.info.backend_pid} (" in str(report.outcomes[0].error)
    assert reasons(keep(database.dsn, premake=0)) == ["created"]


def test_rows_of_the_range_in_default_are_counted_before_anything_is_locked(database: Database) -> None:
    database.execute(f"""{RUN} {DEFAULT}
        INSERT INTO run SELECT '2026-06-01Z' FROM generate_series(1, 3); INSERT INTO run VALUES ('2027-06-01Z')""")
    with database.connect() as reader:
        reader.execute("BEGIN; SELECT count(*) FROM run_rest")
        report = keep(database.dsn, patience=0)
        assert reasons(report) == ["TableBusy"]
        first, second = [each for each in report.after.findings if each.reason == "DefaultHasRows"]
        assert "3 rows of its range lie in the DEFAULT partition public.run_rest" in first.message
        assert "1 row of its range" in second.message
    assert reasons(keep(database.dsn)) == ["created"]
    database.execute("DELETE FROM run_rest")
    assert reasons(keep(database.dsn)) == ["created", "created"]


def test_a_writer_of_a_referenced_table_is_named(database: Database) -> None:
    database.execute("""CREATE TABLE customer (id int PRIMARY KEY);
        CREATE TABLE run (at date, customer int REFERENCES customer) PARTITION BY RANGE (at)""")
    with database.connect() as writer:
        writer.execute("BEGIN; INSERT INTO customer VALUES (1)")
        report = keep(database.dsn, patience=0, premake=0)
        assert reasons(report) == ["TableBusy"]
        assert f'cannot lock public.customer: held by pid {writer.info.backend_pid} (role "postgres")' in str(
            report.outcomes[0].error
        )
    assert reasons(keep(database.dsn, premake=0)) == ["created"]


def test_autovacuum_which_yields_to_waiting_sessions_is_waited_for(new_server: Callable[..., Server]) -> None:
    server = new_server(options={"autovacuum": "on", "autovacuum_naptime": "1s"})
    with server.new_database() as database:
        database.execute("""
            CREATE TABLE customer (id int PRIMARY KEY) WITH (autovacuum_vacuum_cost_delay = 100,
                autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0);
            CREATE TABLE run (at date, customer int REFERENCES customer) PARTITION BY RANGE (at);
            INSERT INTO customer SELECT generate_series(1, 50000); DELETE FROM customer WHERE id % 2 = 0""")
        vacuum = "SELECT pid FROM pg_stat_progress_vacuum WHERE relid = 'customer'::regclass"
        until("autovacuum is at work, and would be for minutes", lambda: database.query(vacuum))
        assert reasons(keep(database.dsn, patience=0, premake=0)) == ["created"]


def test_a_role_without_pg_read_all_stats_sees_the_lock_holder_without_its_age(database: Database) -> None:
    owner = database.new_role()
    database.execute(f"{RUN} ALTER TABLE run OWNER TO {owner.name}; GRANT CREATE ON SCHEMA public TO {owner.name}")
    with database.connect() as holder:
        holder.execute("BEGIN; LOCK TABLE run IN SHARE MODE")
        said = str(keep(owner.dsn, patience=0, premake=0).outcomes[0].error)
        assert f"pid {holder.info.backend_pid} (" in said
        assert "since" not in said


def test_a_prepared_transaction_that_holds_the_lock_is_named(new_server: Callable[..., Server]) -> None:
    server = new_server(options={"max_prepared_transactions": "1"})
    with server.new_database() as database:
        database.execute(RUN)
        with database.connect() as holder:
            holder.execute("BEGIN; LOCK TABLE run IN SHARE MODE; PREPARE TRANSACTION 'left behind'")
        said = str(keep(database.dsn, patience=0, premake=0).outcomes[0].error)
        database.execute("ROLLBACK PREPARED 'left behind'")
        assert "cannot lock public.run: held by prepared transaction 'left behind'" in said


def test_a_locked_partition_does_not_prevent_observing_the_table(database: Database) -> None:
    database.execute(f"""{RUN} CREATE TABLE old PARTITION OF run FOR VALUES FROM ('2025-01-01Z') TO ('2026-01-01Z');
        INSERT INTO run SELECT '2025-01-01Z' FROM generate_series(1, 5000)""")
    database.execute("VACUUM ANALYZE run")
    with database.connect() as holder:
        holder.execute("BEGIN; LOCK TABLE old IN ACCESS EXCLUSIVE MODE")
        report = keep(database.dsn, premake=0)
        assert reasons(report) == ["created"]
        old = next(each for each in report.inventory.partitions if each.name == "old")
        assert (old.rows, old.bytes >= 8192) == (5000, True)


def test_of_two_runs_at_once_on_one_table_one_works_and_the_other_reports_it(database: Database) -> None:
    database.execute(RUN)
    with gate(database) as shut, ThreadPoolExecutor(1) as pool:
        first = pool.submit(keep, database.dsn, premake=1)
        until("the first is at work", lambda: at_gate(database))
        second = keep(database.dsn, patience=0.5, premake=1)
        assert reasons(second) == ["AnotherOperator"]
        assert "table public.run is being worked on by another session" in str(second.outcomes[0].error)
        shut.execute("SELECT pg_advisory_unlock_all()")
        assert reasons(first.result()) == ["created", "created"]
    assert reasons(keep(database.dsn, premake=1)) == []


def test_two_tables_are_worked_on_at_once(database: Database) -> None:
    database.execute(f"{RUN} CREATE TABLE other (at date) PARTITION BY RANGE (at)")
    with gate(database) as shut, ThreadPoolExecutor(1) as pool:
        first = pool.submit(keep, database.dsn, premake=0)
        until("the first is at work", lambda: at_gate(database))
        shut.execute("DROP EVENT TRIGGER gate; CREATE EVENT TRIGGER gate ON sql_drop EXECUTE FUNCTION at_gate()")
        assert reasons(keep(database.dsn, premake=0, table={"name": "other"})) == ["created"]
        shut.execute("SELECT pg_advisory_unlock_all()")
        assert reasons(first.result()) == ["created"]


def test_many_at_once_end_with_every_partition_once(database: Database) -> None:
    database.execute(RUN)
    start = threading.Barrier(4)

    def work() -> list[str]:
        with session(from_dsn(database.dsn)) as connection:
            start.wait()
            return reasons(maintain(connection, policy(interval="Month", premake=6), now=NOW))

    with ThreadPoolExecutor(4) as pool:
        ended = [each.result() for each in [pool.submit(work) for _ in range(4)]]
    assert {reason for each in ended for reason in each} <= {"created", "AnotherOperator", "TableChanged", "NameTaken"}
    keep(database.dsn, interval="Month", premake=6)
    assert database.query("SELECT count(*) FROM pg_inherits WHERE inhparent = 'run'::regclass") == [(7,)]
    assert reasons(keep(database.dsn, interval="Month", premake=6)) == []
