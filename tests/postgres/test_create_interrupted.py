"""Interrupted runs leave nothing half-made, and the next run does the rest."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest

from lab.postgres import Database, Server
from partwarden.errors import DatabaseNotFound, DatabaseUnreachable, PartwardenError
from support.meanwhile import (
    RUN,
    findings,
    keep,
    keep_while,
    kill_others,
    killing_after_each_ddl_command,
    reasons,
    relations,
)

RICH = """
    CREATE TABLE customer (id int PRIMARY KEY);
    CREATE TABLE run (id bigint GENERATED ALWAYS AS IDENTITY, submitted_at timestamptz NOT NULL,
        customer int REFERENCES customer, PRIMARY KEY (id, submitted_at)) PARTITION BY RANGE (submitted_at);
    CREATE INDEX ON run (customer);
    CREATE TABLE run_rest PARTITION OF run DEFAULT;
    GRANT SELECT ON run TO PUBLIC; GRANT UPDATE (customer) ON run TO PUBLIC;
"""
LIMITS = 1
"""The one round trip that belongs to connecting."""
OBSERVED, NAMED, BEGUN, MADE, ATTACHED = 1, 2, 3, 4, 5
"""Round trips of a run until its first partition exists."""
BESIDE_DEFAULT = 1
"""Where there is a DEFAULT partition, its rows are counted in one more, before the work begins."""


def test_a_session_killed_before_any_round_trip_leaves_nothing_half_made(database: Database) -> None:
    database.execute(RICH)
    before = relations(database)
    for trip in range(OBSERVED, ATTACHED + BESIDE_DEFAULT + 1):
        with pytest.raises(DatabaseUnreachable):
            keep_while(database.dsn, trip, lambda: kill_others(database), premake=0)
        assert relations(database) == before
    assert reasons(keep(database.dsn, premake=0)) == ["created"]
    assert reasons(keep(database.dsn, premake=0)) == []


def test_a_session_killed_after_any_statement_leaves_nothing_half_made(database: Database) -> None:
    database.execute(RICH)
    before = relations(database)
    for killed in killing_after_each_ddl_command(database):
        try:
            report = keep(database.dsn, premake=0)
        except DatabaseUnreachable:
            assert relations(database) == before, f"after command {killed}"
        else:
            break
    assert reasons(report) == ["created"]
    assert killed > 5  # create, owner, revoke, grant, attach at least
    assert reasons(keep(database.dsn, premake=0)) == []


@contextmanager
def swallowing(server: Server, answer: int) -> Iterator[int]:
    """A port that leads to the server, but the connection breaks instead of giving the answer number ``answer``.

    Only what follows the login is counted.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_relay, args=(listening, server, answer))
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            thread.join()


def _relay(listening: socket.socket, server: Server, answer: int) -> None:
    listening.settimeout(60)
    client, _ = listening.accept()
    listening.close()  # the next connection is refused
    with client, socket.create_connection((server.host, server.port)) as behind:
        stopped = threading.Thread(target=_forward, args=(client, behind))
        stopped.start()
        seen, pending = -1, b""  # the login's own ReadyForQuery comes first
        while seen < answer and (data := behind.recv(1 << 16)):
            pending += data
            complete, ready = _messages(pending)
            seen += ready
            if seen < answer:
                client.sendall(pending[:complete])
                pending = pending[complete:]
        for end in (client, behind):
            with suppress(OSError):  # the other side may have been quicker
                end.shutdown(socket.SHUT_RDWR)
        stopped.join()


def _forward(client: socket.socket, behind: socket.socket) -> None:
    try:
        while data := client.recv(1 << 16):
            behind.sendall(data)
        behind.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def _messages(data: bytes) -> tuple[int, int]:
    """How many bytes of ``data`` are whole messages, and how many of those say ReadyForQuery."""
    at = ready = 0
    while len(data) >= at + 5 and len(data) >= (end := at + 1 + int.from_bytes(data[at + 1 : at + 5], "big")):
        ready += data[at : at + 1] == b"Z"
        at = end
    return at, ready


def test_a_commit_whose_answer_is_lost_is_found_by_the_next_run(pg_database: Database) -> None:
    pg_database.execute(RUN)
    server = pg_database.server
    with swallowing(server, LIMITS + ATTACHED) as port:
        dsn = pg_database.dsn.replace(f":{urlsplit(pg_database.dsn).port}/", f":{port}/") + "?sslmode=disable"
        with pytest.raises(DatabaseUnreachable):
            keep(dsn, premake=0)
    assert pg_database.query("SELECT to_regclass('run_2026') IS NOT NULL") == [(True,)]
    assert reasons(keep(pg_database.dsn, premake=0)) == []


@pytest.mark.parametrize("mode", ["fast", "kill"])
def test_a_server_that_stops_in_the_middle_leaves_nothing_half_made(
    new_server: Callable[..., Server], mode: str
) -> None:
    server = new_server()
    with server.new_database() as database:
        database.execute(RICH)
        database.execute("CHECKPOINT")  # the lab's servers do not wait for the disk when they commit
        before = relations(database)
        with pytest.raises(PartwardenError) as caught:
            keep_while(database.dsn, ATTACHED + BESIDE_DEFAULT, lambda: server.stop(mode), premake=0)
        assert caught.value.reason == "DatabaseUnreachable"
        server.start_again()
        assert relations(database) == before
        assert reasons(keep(database.dsn, premake=0)) == ["created"]


def test_partitions_that_share_a_transaction_are_made_all_or_none(database: Database) -> None:
    made, attached = BEGUN, BEGUN + 1
    for trip in (made, attached):
        database.execute(f"DROP TABLE IF EXISTS run; {RUN}")
        with pytest.raises(DatabaseUnreachable):
            keep_while(database.dsn, trip, lambda: kill_others(database), premake=3)
        # None was made with the lost connection; the rest was, over a new one.
        assert partitions(database) == ["run_2027", "run_2028", "run_2029"]
        assert reasons(keep(database.dsn, premake=3)) == ["created"]
    database.execute(f"DROP TABLE run; {RUN}")
    overlap = """CREATE TABLE other (submitted_at timestamptz NOT NULL);
                 ALTER TABLE run ATTACH PARTITION other FOR VALUES FROM ('2028-06-01Z') TO ('2028-07-01Z')"""
    report = keep_while(database.dsn, attached, lambda: database.execute(overlap), premake=3)
    # What kept the one from being made kept none of those before it.
    assert reasons(report) == ["created", "created", "TableChanged"]
    assert reasons(keep(database.dsn, premake=3)) == ["created"] * 3
    assert reasons(keep(database.dsn, premake=3)) == []


def partitions(database: Database) -> list[str]:
    found = database.query("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'run'::regclass")
    return sorted(str(name) for (name,) in found)


OVERLAP = "CREATE TABLE other PARTITION OF run FOR VALUES FROM ('2026-06-01Z') TO ('2026-07-01Z')"


@pytest.mark.parametrize("trip", [BEGUN, MADE, ATTACHED])
def test_an_overlapping_partition_made_meanwhile_is_respected(database: Database, trip: int) -> None:
    if trip > MADE:
        # LIKE has locked the parent against PARTITION OF by then, but not against ATTACH.
        what = """CREATE TABLE other (submitted_at timestamptz NOT NULL);
                  ALTER TABLE run ATTACH PARTITION other FOR VALUES FROM ('2026-06-01Z') TO ('2026-07-01Z')"""
    else:
        what = OVERLAP
    database.execute(RUN)
    report = keep_while(database.dsn, trip, lambda: database.execute(what), premake=0)
    assert reasons(report) == ["TableChanged"]
    assert "overlap" in str(report.outcomes[0].error)
    assert {each.name for each in report.inventory.partitions} == {"other"}
    after = keep(database.dsn)
    assert reasons(after) == ["created"] * 4
    assert {each.name for each in after.inventory.partitions} >= {"other", "run_2026_20260101", "run_2026_20260701"}


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("CREATE TABLE run_2026 ()", "NameTaken"),
        ("CREATE TYPE run_2026 AS ENUM ()", "NameTaken"),
        ("CREATE INDEX run_2026 ON run (submitted_at)", "NameTaken"),
        (
            "CREATE TABLE run_2026 PARTITION OF run FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z')",
            "TableChanged",
        ),
        ("ALTER TABLE run RENAME COLUMN submitted_at TO at", "created"),
    ],
)
@pytest.mark.parametrize("trip", [BEGUN, MADE])
def test_an_object_created_between_plan_and_action_is_reported(
    database: Database, what: str, reason: str, trip: int
) -> None:
    database.execute(RUN)
    report = keep_while(database.dsn, trip, lambda: database.execute(what), premake=0)
    assert reasons(report) == [reason]


@pytest.mark.parametrize(
    "what",
    [
        "DROP TABLE run",
        "ALTER TABLE run RENAME TO gone",
        "ALTER TABLE run RENAME TO gone; CREATE TABLE run (submitted_at timestamptz) PARTITION BY RANGE (submitted_at)",
        "ALTER TABLE run RENAME TO gone; CREATE TABLE run (submitted_at timestamptz)",
        "DROP TABLE run; CREATE TABLE run (submitted_at timestamptz) PARTITION BY RANGE (submitted_at)",
        "DROP TABLE run; CREATE VIEW run AS SELECT 1",
        "CREATE SCHEMA elsewhere; ALTER TABLE run SET SCHEMA elsewhere",
    ],
)
@pytest.mark.parametrize("trip", [BEGUN, MADE])
def test_a_table_replaced_meanwhile_is_left_alone(database: Database, what: str, trip: int) -> None:
    database.execute(RUN)
    try:
        error = keep_while(database.dsn, trip, lambda: database.execute(what), premake=0).outcomes[0].error
    except PartwardenError as raised:
        error = raised
    assert error is not None
    assert error.reason in ("TableChanged", "TableNotFound", "NotPartitioned")
    assert database.query("SELECT count(*) FROM pg_inherits") == [(0,)]
    assert database.query("SELECT to_regclass('run_2026')") == [(None,)]


def test_rows_that_come_into_default_meanwhile_are_seen_by_attach(database: Database) -> None:
    database.execute(f"{RUN} CREATE TABLE run_rest PARTITION OF run DEFAULT")
    report = keep_while(
        database.dsn,
        ATTACHED + BESIDE_DEFAULT,
        lambda: database.execute("INSERT INTO run VALUES ('2026-06-01Z')"),
        premake=0,
    )
    assert reasons(report) == ["DefaultHasRows"]
    assert database.query("SELECT to_regclass('run_2026')") == [(None,)]


def test_privileges_revoked_meanwhile_are_reported(database: Database) -> None:
    owner = database.new_role()
    database.execute(f"{RUN} ALTER TABLE run OWNER TO {owner.name}; GRANT CREATE ON SCHEMA public TO {owner.name}")
    take = "REVOKE CREATE ON SCHEMA public FROM PUBLIC; REVOKE CREATE ON SCHEMA public FROM " + owner.name
    report = keep_while(owner.dsn, BEGUN, lambda: database.execute(take), premake=0)
    assert reasons(report) == ["InsufficientPrivilege"]
    assert [each.reason for each in findings(report)] == ["InsufficientPrivilege"]


def test_a_database_dropped_meanwhile_is_missed_by_the_new_connection(pg: Server) -> None:
    with pg.new_database() as database:
        database.execute(RUN)
        with pytest.raises(DatabaseNotFound):
            keep_while(database.dsn, BEGUN, database.drop, premake=0)


def test_one_failed_action_does_not_keep_the_others_from_being_done(database: Database) -> None:
    database.execute(f"{RUN} CREATE TABLE run_2027 ()")
    report = keep(database.dsn, premake=3)
    assert reasons(report) == ["created"] * 3
    assert [each.reason for each in findings(report)] == ["NameTaken"]
    race = keep_while(database.dsn, BEGUN, lambda: database.execute("CREATE TABLE run_2030 ()"), premake=5)
    assert sorted(reasons(race)) == ["NameTaken", "created"]
