"""A table that is published goes on to reach its subscriber, each row once, over a conversion and its way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from lab.operator import until
from lab.postgres import Database, Server
from partwarden.api.policy import TableSpec
from partwarden.planner.conversion_rules import Wanted
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.conversion_engine import convert, observe_conversion, undo
from support.majors import of_test

SPEC = TableSpec.model_validate({"table": {"name": "run"}, "key": "at", "interval": "Year", "premake": 2})
RUN = "CREATE TABLE run (id int PRIMARY KEY, at timestamptz NOT NULL, n int);"
ROWS = "SELECT id, at, n FROM run ORDER BY id"
CHANGES = """INSERT INTO run VALUES ({0}, now() - interval '1 hour', 0), ({1}, now() - interval '1 hour', 0);
    UPDATE run SET n = n + 1 WHERE id % 7 = 0; UPDATE run SET at = at - interval '1 minute' WHERE id % 5 = 0;
    DELETE FROM run WHERE id = {0}; DELETE FROM run WHERE id = {0} - 100"""
LATER = "now() + interval '1 year'"


@contextmanager
def subscribed(database: Database, subscriber: Database) -> Iterator[None]:
    """In one server, where the slot must be made before the subscription is."""
    database.query("SELECT pg_create_logical_replication_slot('sent', 'pgoutput')")
    subscriber.execute(
        f"CREATE SUBSCRIPTION sent CONNECTION '{database.dsn}' PUBLICATION runs WITH (create_slot = false)"
    )
    try:
        yield
    finally:
        subscriber.execute("ALTER SUBSCRIPTION sent DISABLE")
        subscriber.execute("ALTER SUBSCRIPTION sent SET (slot_name = NONE)")
        subscriber.execute("DROP SUBSCRIPTION sent")
        until("the slot is free", lambda: database.query("SELECT FROM pg_replication_slots WHERE NOT active"))
        database.query("SELECT pg_drop_replication_slot('sent')")


@pytest.mark.parametrize("major", of_test("test_conversion_replication"))
def test_each_change_reaches_a_subscriber_once_there_and_back(new_server: Callable[..., Server], major: int) -> None:
    server = new_server(major, options={"wal_level": "logical"})
    with server.new_database() as database, server.new_database() as subscriber:
        database.execute(f"""{RUN} INSERT INTO run SELECT n, now() - n * interval '1 hour', 0
            FROM generate_series(1, 100) n; CREATE PUBLICATION runs FOR TABLE run""")
        subscriber.execute(RUN)

        def arrives(changes: str) -> None:
            database.execute(changes)
            wanted = database.query(ROWS)
            until("all has arrived", lambda: subscriber.query(ROWS) == wanted)

        wanted = Wanted(SPEC, widen_keys=True)
        with subscribed(database, subscriber):
            arrives(CHANGES.format(200, 201))
            with session(from_dsn(database.dsn)) as connection:
                refused = [str(each) for each in observe_conversion(connection, wanted).refusals]
                assert any("publish_via_partition_root runs" in each for each in refused), refused
                database.execute("ALTER PUBLICATION runs SET (publish_via_partition_root = true)")
                convert(connection, wanted, observe_conversion(connection, wanted), 10.0, lambda *_: None)
            arrives(CHANGES.format(202, 203))
            arrives(f"INSERT INTO run VALUES (301, {LATER}, 0), (302, {LATER}, 0), (303, {LATER}, 0)")
            # From one partition into another, and within the later one.
            arrives(f"UPDATE run SET at = {LATER} WHERE id = 12; UPDATE run SET n = 5 WHERE id IN (12, 301)")
            arrives("DELETE FROM run WHERE id = 302; UPDATE run SET at = now() WHERE id = 303")
            with session(from_dsn(subscriber.dsn)) as connection:
                (tied,) = (each for each in observe_conversion(connection, wanted).refusals if "subscr" in each.object)
                assert (tied.object, "REFRESH PUBLICATION" in tied.way_out) == (
                    "subscription that replicates into the table sent",
                    True,
                )
            with session(from_dsn(database.dsn)) as connection:
                undo(connection, SPEC.table, "at", 10.0, 1000, lambda *_: None)
            assert database.query("SELECT relkind::text FROM pg_class WHERE oid = 'run'::regclass") == [("r",)]
            arrives(CHANGES.format(204, 205))
