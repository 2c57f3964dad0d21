"""A new partition has what its parent cannot hold from the newest of its siblings."""

from __future__ import annotations

import psycopg
import pytest

from lab.postgres import Database
from meanwhile import keep, reasons

RUN = """
    CREATE TABLE run (at date, note text) PARTITION BY RANGE (at);
    CREATE TABLE run_2024 PARTITION OF run FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') WITH (fillfactor = 50);
    CREATE TABLE run_2025 PARTITION OF run FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
"""
IDENTITY = "SELECT relreplident::text FROM pg_class WHERE relname = 'run_2026'"


def test_storage_parameters_are_those_of_the_newest_sibling(database: Database) -> None:
    database.execute(f"""{RUN} ALTER TABLE run_2025 SET
        (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_enabled = false)""")
    assert reasons(keep(database.dsn, premake=0)) == ["created"]
    options = """SELECT c.reloptions, t.reloptions FROM pg_class c JOIN pg_class t ON t.oid = c.reltoastrelid
        WHERE c.relname = 'run_2026'"""
    assert database.query(options) == [
        (["fillfactor=70", "autovacuum_vacuum_scale_factor=0.05"], ["autovacuum_enabled=false"])
    ]


@pytest.mark.parametrize(
    ("parent", "sibling", "expected"),
    [("DEFAULT", "DEFAULT", "d"), ("FULL", "DEFAULT", "f"), ("NOTHING", "FULL", "n"), ("DEFAULT", "FULL", "f")],
)
def test_replica_identity_is_the_parents_or_else_the_siblings(
    database: Database, parent: str, sibling: str, expected: str
) -> None:
    database.execute(f"""{RUN} ALTER TABLE ONLY run REPLICA IDENTITY {parent};
        ALTER TABLE run_2025 REPLICA IDENTITY {sibling}""")
    assert reasons(keep(database.dsn, premake=0)) == ["created"]
    assert database.query(IDENTITY) == [(expected,)]


def test_what_is_published_can_be_changed_in_the_new_partition(database: Database) -> None:
    database.execute(f"""{RUN} ALTER TABLE ONLY run REPLICA IDENTITY FULL;
        ALTER TABLE run_2025 REPLICA IDENTITY FULL; CREATE PUBLICATION runs FOR TABLE run""")
    assert reasons(keep(database.dsn, premake=0)) == ["created"]
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO run VALUES ('2026-02-01', 'a')")
        assert connection.execute("UPDATE run SET note = 'b' WHERE at = '2026-02-01'").rowcount == 1
        assert connection.execute("DELETE FROM run WHERE at = '2026-02-01'").rowcount == 1
