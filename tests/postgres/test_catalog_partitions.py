"""What is read of partitions of every kind and state, also of those that another session has locked."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest

from lab.postgres import Database
from partwarden.api.policy import Table, TableSpec
from partwarden.planner.calendar import Range
from partwarden.planner.inventory import RelationKind
from partwarden.postgres import catalog
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from support.observed import RUN, by_name, observe_table, observe_with_names


def test_sizes_are_exact_and_rows_unknown_before_an_analyze(database: Database) -> None:
    database.execute(f"""{RUN} CREATE INDEX ON run (at);
        CREATE TABLE a PARTITION OF run FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z');
        CREATE TABLE b PARTITION OF run FOR VALUES FROM ('2027-01-01Z') TO ('2028-01-01Z') PARTITION BY RANGE (at);
        CREATE TABLE b1 PARTITION OF b FOR VALUES FROM ('2027-01-01Z') TO ('2027-07-01Z') PARTITION BY LIST (note);
        CREATE TABLE b11 PARTITION OF b1 DEFAULT;
        CREATE TABLE b2 PARTITION OF b DEFAULT;
        ALTER TABLE run ALTER note SET STORAGE EXTERNAL; ALTER TABLE a ALTER note SET STORAGE EXTERNAL;
        INSERT INTO run SELECT '2026-06-01Z', repeat('x', 5000) FROM generate_series(1, 100);
        INSERT INTO run SELECT '2027-06-01Z' FROM generate_series(1, 200);
        INSERT INTO run SELECT '2027-08-01Z' FROM generate_series(1, 300)""")
    sizes = "SELECT sum(pg_total_relation_size(name)) FROM unnest(%s::text[]) name"
    ((a,),), ((b,),) = database.query(sizes, ["a"]), database.query(sizes, ["b11", "b2"])
    seen = by_name(observe_table(database.dsn))
    assert [(each.name, each.rows, each.bytes, each.kind) for each in seen.values()] == [
        ("a", None, a, RelationKind.TABLE),
        ("b", None, b, RelationKind.PARTITIONED),
    ]
    for table, rows in (("b2", (None, 300)), ("a", (100, 300)), ("run", (100, 500))):
        database.execute(f"ANALYZE {table}")
        seen = by_name(observe_table(database.dsn))
        assert (seen["a"].rows, seen["b"].rows) == rows


def test_foreign_tables_and_the_default_partition_are_partitions_too(pg_database: Database) -> None:
    pg_database.execute(f"""{RUN} CREATE EXTENSION IF NOT EXISTS postgres_fdw;
        CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;
        CREATE FOREIGN TABLE old PARTITION OF run FOR VALUES FROM (MINVALUE) TO ('2026-01-01Z') SERVER far;
        CREATE TABLE rest PARTITION OF run DEFAULT""")
    found = observe_table(pg_database.dsn)
    assert [(each.name, each.kind, each.bytes, each.rows) for each in found.partitions] == [
        ("old", RelationKind.FOREIGN, 0, None),
        ("rest", RelationKind.TABLE, pg_database.query("SELECT pg_total_relation_size('rest')")[0][0], None),
    ]
    assert found.default == found.partitions[1]
    assert found.default.bounds == "DEFAULT"


def test_a_detach_that_never_ended_is_seen(database: Database) -> None:
    database.execute(f"""{RUN} CREATE TABLE a PARTITION OF run FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z');
        CREATE TABLE b PARTITION OF run FOR VALUES FROM ('2027-01-01Z') TO ('2028-01-01Z')""")
    with database.connect() as reader, database.connect() as other:
        reader.execute("BEGIN; SELECT count(*) FROM run")
        other.execute("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute("ALTER TABLE run DETACH PARTITION a CONCURRENTLY")
    seen = by_name(observe_table(database.dsn))
    assert {name: each.detach_pending for name, each in seen.items()} == {"a": True, "b": False}
    assert seen["a"].range == Range(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    database.execute("ALTER TABLE run DETACH PARTITION a FINALIZE")
    assert list(by_name(observe_table(database.dsn))) == ["b"]


def test_tables_joined_by_foreign_keys_are_named_once(database: Database) -> None:
    database.execute("""
        CREATE SCHEMA "S"; CREATE TABLE "S".customer (id int PRIMARY KEY); CREATE TABLE unrelated (id int PRIMARY KEY);
        CREATE TABLE run (id int, at date, a int REFERENCES "S".customer, b int REFERENCES "S".customer,
            PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE a PARTITION OF run DEFAULT;
        CREATE TABLE log (id int, at date, FOREIGN KEY (id, at) REFERENCES run) PARTITION BY HASH (id);
        CREATE TABLE log_0 PARTITION OF log FOR VALUES WITH (modulus 2, remainder 0)""")
    parent = observe_with_names(database.dsn).parent
    assert parent is not None
    assert parent.related == ("S.customer", "public.log")
    database.execute("ALTER TABLE run ADD FOREIGN KEY (a, at) REFERENCES run")
    parent = observe_with_names(database.dsn).parent
    assert parent is not None
    assert parent.related == ("S.customer", "public.log", "public.run")


def test_a_locked_partition_is_seen_with_the_size_that_the_planner_knows(database: Database) -> None:
    database.execute(f"""{RUN} CREATE INDEX ON run (at);
        CREATE TABLE a PARTITION OF run FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z');
        INSERT INTO run SELECT '2026-06-01Z', repeat('x', 100) FROM generate_series(1, 5000)""")
    database.execute("VACUUM ANALYZE a")
    ((heap,),) = database.query("SELECT pg_relation_size('a')")
    ((index,),) = database.query("SELECT pg_relation_size(indexrelid) FROM pg_index WHERE indrelid = 'a'::regclass")
    with database.connect() as holder, session(from_dsn(database.dsn)) as connection:
        holder.execute("BEGIN; LOCK TABLE a IN ACCESS EXCLUSIVE MODE")
        (a,) = catalog.observe(connection, TableSpec(table=Table(name="run"))).partitions
        # The index on TOAST has a page from the beginning.
        assert (a.rows, a.bytes) == (5000, int(str(heap)) + int(str(index)) + 8192)
        assert a.range == Range(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))


def test_nothing_but_a_locked_partitions_size_is_waited_for(database: Database) -> None:
    """Nor is any lock left behind."""
    database.execute(f"{RUN} CREATE TABLE a PARTITION OF run DEFAULT")
    with database.connect() as holder, session(from_dsn(database.dsn)) as connection:
        holder.execute("BEGIN; LOCK TABLE run, pg_description, pg_trigger IN ACCESS EXCLUSIVE MODE")
        assert len(catalog.observe(connection, TableSpec(table=Table(name="run"))).partitions) == 1
        assert connection.round_trips == 3  # sizes, the end of that transaction, pages
        rows = database.query("SELECT FROM pg_locks WHERE pid = %s", connection.info.backend_pid)
        assert rows == []
