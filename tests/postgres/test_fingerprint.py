"""A fingerprint tells contents apart, and nothing else."""

from __future__ import annotations

import random
import struct
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg
from psycopg import sql

from lab.postgres import Database
from partwarden.api.archive import Fingerprint
from partwarden.errors import TableNotFound
from partwarden.postgres import fingerprint
from partwarden.postgres.connection import run, session
from partwarden.postgres.conninfo import from_dsn
from support import zoo


def take(database: Database, schema: str = "public", name: str = "t", **options: Any) -> Fingerprint:
    with psycopg.connect(database.dsn, autocommit=True, **options) as connection:
        return fingerprint.take(connection, schema, name)


@pytest.mark.parametrize("name", zoo.ZOO)
def test_the_same_from_every_client(database: Database, name: str) -> None:
    if name not in zoo.living(database.server.major):
        return
    specimen = zoo.build(database, name)
    found = take(database, specimen.schema, specimen.partition)
    assert found.rows == specimen.rows
    options = (
        "-c timezone=Asia/Kolkata -c datestyle=SQL,DMY -c intervalstyle=sql_standard -c extra_float_digits=-3 "
        "-c bytea_output=escape -c search_path=odd,public -c quote_all_identifiers=on -c client_encoding=LATIN1 "
        "-c max_parallel_workers_per_gather=0 -c row_security=on"
    )
    assert take(database, specimen.schema, specimen.partition, options=options) == found


SAME = "df6540cb8ec592b1a156fa213769a66859445ba714a57012eb03d84b1da29e23"
"""Of one table, on every major."""
CHANGES = {
    "a row more": "INSERT INTO t VALUES (3, 'c')",
    "a row less": "DELETE FROM t WHERE a = 2",
    "a row twice": "INSERT INTO t SELECT * FROM t WHERE a = 1",
    "each row twice": "INSERT INTO t SELECT * FROM t",
    "NULL is not the empty text": "UPDATE t SET b = NULL WHERE b = ''",
    "values change places": "UPDATE t SET b = CASE b WHEN 'x' THEN '' ELSE 'x' END WHERE a < 3",
    "a column more": "ALTER TABLE t ADD c int",
    "a column less": "ALTER TABLE t DROP b",
    "a column renamed": "ALTER TABLE t RENAME b TO c",
    "one character of megabytes": "UPDATE t SET b = b || '!' WHERE a = 9",
    "another scale": "UPDATE t SET n = 1.0",
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_contents_have_another(pg_database: Database, change: str) -> None:
    pg_database.execute("""CREATE TABLE t (a int, b text, n numeric DEFAULT 1);
        INSERT INTO t VALUES (1, 'x'), (2, ''), (9, repeat('long ', 400000))""")
    before = take(pg_database)
    pg_database.execute(CHANGES[change])
    assert take(pg_database) != before


def test_rows_in_another_order_have_the_same(pg_database: Database) -> None:
    pg_database.execute("""CREATE TABLE t (a int, b float);
        INSERT INTO t SELECT n, sqrt(n) FROM generate_series(1, 5000) n;
        CREATE TABLE u (LIKE t); INSERT INTO u SELECT * FROM t ORDER BY random(); ANALYZE u""")
    assert take(pg_database) == take(pg_database, name="u")


def test_the_same_on_every_server(database: Database) -> None:
    database.execute("""CREATE TABLE t (a int, b text, c numeric, d timestamptz, e jsonb, f text[], g float8);
        INSERT INTO t SELECT n, repeat('x', n), n / 8.0, '2020-02-02Z', jsonb_build_object('n', n), ARRAY['a', NULL], n
        FROM generate_series(1, 100) n; INSERT INTO t DEFAULT VALUES""")
    assert take(database).content == SAME


EDGES = [bytes(32), b"\xff" * 32, (b"\x80" + bytes(7)) * 4, (b"\x7f" + b"\xff" * 7) * 4, b"\x00\x00\x00\x80" * 8]
BITS = ", ".join(f"coalesce(sum(substring(bits FROM {first} FOR 64)::int8), 0)" for first in (1, 65, 129, 193))
"""The parts of a hash as they were added up on servers before 18 when the first archives were made."""


def test_hashes_are_added_up_the_same_on_every_server(database: Database) -> None:
    """Whatever a hash is: the sums are those of four numbers with a sign, and those that manifests hold."""
    spread = random.Random(20)
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        version = connection.info.server_version
        parts = fingerprint.PARTS if version >= fingerprint.CASTS_BYTES else fingerprint.DIGITS
        for rows in (0, 1, 2, len(EDGES), 500):
            hashes = [*EDGES, *(spread.randbytes(32) for _ in range(500))][:rows]
            each = sql.SQL("FROM (SELECT unnest({}::bytea[]) AS h) AS hash").format(hashes)
            query = sql.SQL("SELECT {} {}").format(sql.SQL(", ").join(map(sql.SQL, parts)), each)
            ((*sums,),) = connection.execute(query).fetchall()
            if parts is fingerprint.DIGITS:
                sums = fingerprint._put_together(rows, sums)
            split = [struct.unpack(">4q", each) for each in hashes]
            assert sums == [sum(each[part] for each in split) for part in range(4)]
            # Their digits enter the fingerprint.
            assert [str(number) for number in sums] == [str(int(number)) for number in sums]
            before = sql.SQL("SELECT {} FROM (SELECT ('x' || encode(h, 'hex'))::bit(256) AS bits {}) AS old")
            assert connection.execute(before.format(sql.SQL(BITS), each)).fetchall() == [tuple(sums)]


def test_workers_of_the_server_share_a_large_table(database: Database) -> None:
    database.execute("""CREATE TABLE t (a int, b text) WITH (parallel_workers = 2);
        INSERT INTO t SELECT n, md5(n::text) FROM generate_series(1, 20000) n; ANALYZE t""")
    options = "-c min_parallel_table_scan_size=0 -c parallel_setup_cost=0 -c parallel_tuple_cost=0"
    with psycopg.connect(database.dsn, options=options) as connection:
        query = fingerprint._content("public", "t", {"a": True, "b": True}, connection.info.server_version)
        plan = connection.execute(sql.SQL("EXPLAIN {}").format(query)).fetchall()
    assert any("Workers Planned: 2" in line for (line,) in plan)
    assert take(database, options=options) == take(database, options="-c max_parallel_workers_per_gather=0")


@pytest.mark.parametrize(("settings", "expected"), [("2/5", "5"), ("0/5", "0"), ("4/2", "4")])
def test_in_a_hurry_all_workers_that_the_server_has(pg_database: Database, settings: str, expected: str) -> None:
    pg_database.execute("CREATE TABLE t (a int)")
    each, most = settings.split("/")
    options = f"-c max_parallel_workers_per_gather={each} -c max_parallel_workers={most}"
    with psycopg.connect(pg_database.dsn, options=options) as connection:
        run(connection, "BEGIN", fingerprint.ALL_WORKERS)
        assert run(connection, "SHOW max_parallel_workers_per_gather") == [[(expected,)]]
        run(connection, "ROLLBACK")
        assert fingerprint.take(connection, "public", "t", hurry=True) == take(pg_database)
        assert run(connection, "SHOW max_parallel_workers_per_gather") == [[(each,)]]


def test_columns_in_another_order_where_asked(pg_database: Database) -> None:
    pg_database.execute("""CREATE TABLE t (a int, x int, b text); ALTER TABLE t DROP x; INSERT INTO t VALUES (1, 'x');
        CREATE TABLE u (b text, a int); INSERT INTO u VALUES ('x', 1)""")
    with psycopg.connect(pg_database.dsn) as connection:
        columns = {"a": True, "b": True}
        assert fingerprint.take(connection, "public", "u", columns) == take(pg_database)
        assert fingerprint.take(connection, "public", "u") != take(pg_database)


def test_hidden_rows_are_an_error(pg_database: Database) -> None:
    role = pg_database.new_role()
    pg_database.execute(f"""CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2); ALTER TABLE t OWNER TO {role.name};
        ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (a = 1)""")
    with psycopg.connect(role.dsn) as connection:
        assert fingerprint.take(connection, "public", "t").rows == 2
    pg_database.execute("ALTER TABLE t FORCE ROW LEVEL SECURITY")
    with psycopg.connect(role.dsn) as connection, pytest.raises(pg.InsufficientPrivilege, match="row-level security"):
        fingerprint.take(connection, "public", "t")


@pytest.mark.parametrize(
    "setup", ["SELECT 1", "CREATE VIEW t AS SELECT 1 AS a", "CREATE TABLE t (a int) PARTITION BY RANGE (a)"]
)
def test_only_plain_tables(pg_database: Database, setup: str) -> None:
    pg_database.execute(setup)
    with pytest.raises(TableNotFound, match=r"public\.t"):
        take(pg_database)


def test_a_transaction_goes_on_as_it_was(pg_database: Database) -> None:
    pg_database.execute("CREATE TABLE t (a int)")
    with session(from_dsn(pg_database.dsn)) as connection:
        run(connection, "BEGIN", "INSERT INTO t VALUES (1)", "SET LOCAL timezone = 'Asia/Tokyo'")
        longest = connection.longest
        assert fingerprint.take(connection, "public", "t").rows == 1
        assert run(connection, "SHOW timezone") == [[("Asia/Tokyo",)]]
        run(connection, "COMMIT")
        assert connection.longest == longest
    assert pg_database.query("SELECT a FROM t") == [(1,)]


def test_values_that_came_back_as_text_are_hashed_as_they_were(pg_database: Database) -> None:
    """A column of a type that is not there any more."""
    pg_database.execute("""CREATE TYPE mood AS ENUM ('ok', 'sad'); CREATE TYPE pair AS (a int, b text);
        CREATE TABLE t (a mood, b pair, n int); INSERT INTO t VALUES ('ok', (1, 'x y'), 1), (NULL, NULL, 2);
        CREATE TABLE u (a text, b text, n int); INSERT INTO u VALUES ('ok', '(1,"x y")', 1), (NULL, NULL, 2)""")
    with psycopg.connect(pg_database.dsn) as connection:
        sent = fingerprint.sent(connection, ["public.mood", "public.pair", "integer"])
        assert sent == {"public.mood": False, "public.pair": False, "integer": True}
        columns = {"a": False, "b": False, "n": True}
        assert fingerprint.take(connection, "public", "u", columns) == take(pg_database)


def test_columns_that_hold_nothing_are_no_part_of_it(pg_database: Database) -> None:
    """Virtual ones are computed at every reading, by what the server computes then."""
    if pg_database.server.major < 18:
        return
    pg_database.execute("""CREATE TABLE t (a int, v int GENERATED ALWAYS AS (a + 1) VIRTUAL, b text);
        INSERT INTO t VALUES (1, DEFAULT, 'x'); CREATE TABLE u (a int, b text); INSERT INTO u VALUES (1, 'x')""")
    assert take(pg_database) == take(pg_database, name="u")
