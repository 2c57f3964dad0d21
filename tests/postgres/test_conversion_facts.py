"""What is read of a plain table before it is converted."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from lab.operator import until
from lab.postgres import Database
from partwarden.api.policy import Table
from partwarden.api.retention import KeyEncoding
from partwarden.errors import TableNotFound
from partwarden.planner.plain_table import ConstraintKind, Leftover, PlainTable, Spread
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.conversion_facts import read_rows, read_table, read_taken

NOW = datetime(2026, 10, 24, 12, tzinfo=UTC)
CHECK = "partwarden_convert"
OTHERS = """
SELECT FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
SCANS = "SELECT seq_scan FROM pg_stat_all_tables WHERE relid = 'run'::regclass"
RICH = """
    CREATE TABLE customer (id int PRIMARY KEY);
    CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
    CREATE TABLE run (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "At" timestamptz, code text, customer int
        REFERENCES customer, before bigint REFERENCES run, twice int GENERATED ALWAYS AS (2 * customer) STORED,
        CONSTRAINT once UNIQUE (code, "At") INCLUDE (customer) DEFERRABLE,
        CONSTRAINT twice UNIQUE ("At", code), CONSTRAINT sane CHECK (id > 0) NO INHERIT);
    CREATE INDEX by_time ON run ("At"); CREATE INDEX backwards ON run ("At" DESC);
    CREATE UNIQUE INDEX small ON run (lower(code)) WHERE customer IS NULL;
    CREATE TABLE log (run bigint);
    ALTER TABLE log ADD FOREIGN KEY (run) REFERENCES run NOT VALID;
    CREATE TABLE other (code text, at timestamptz, FOREIGN KEY (at, code) REFERENCES run ("At", code));
    CREATE VIEW recent AS SELECT * FROM run; CREATE VIEW above AS SELECT id FROM recent;
    CREATE MATERIALIZED VIEW stale AS SELECT id FROM run;
    CREATE VIEW grouped AS SELECT id, code FROM run GROUP BY id;
    CREATE FUNCTION first(r run) RETURNS bigint LANGUAGE sql AS 'SELECT r.id';
    CREATE TABLE holder (r run); CREATE VIEW whole AS SELECT run FROM run;
    CREATE RULE quiet AS ON DELETE TO run DO ALSO NOTHING;
    CREATE TRIGGER each_row AFTER INSERT ON run FOR EACH ROW EXECUTE FUNCTION nothing();
    CREATE TRIGGER once AFTER INSERT ON run EXECUTE FUNCTION nothing();
    CREATE TRIGGER sees AFTER INSERT ON run REFERENCING NEW TABLE AS fresh EXECUTE FUNCTION nothing();
    CREATE CONSTRAINT TRIGGER later AFTER INSERT ON run DEFERRABLE FOR EACH ROW EXECUTE FUNCTION nothing();
    CREATE POLICY seen ON run USING (true);
    CREATE PUBLICATION leaves FOR TABLE run;
    CREATE PUBLICATION roots FOR ALL TABLES WITH (publish_via_partition_root);
    CREATE STATISTICS together ON code, customer FROM run;
"""


def read(database: Database, key: str = "At", name: str = "run") -> PlainTable:
    with session(from_dsn(database.dsn)) as connection:
        return read_table(connection, Table(name=name), key, CHECK)


def scans(database: Database) -> list[tuple[object, ...]]:
    """How often the table was read from its beginning: what a session has counted is seen once it has ended."""
    until("others have ended", lambda: not database.query(OTHERS))
    return database.query(SCANS)


def test_all_that_is_tied_to_a_table_is_read(database: Database) -> None:
    database.execute(RICH)
    table = read(database)
    assert (table.kind, table.persistence, table.access_method) == ("r", "p", "heap")
    assert table.columns == ("id", "At", "code", "customer", "before", "twice")
    assert table.key is not None
    assert (table.key.type, table.key.not_null, table.key.generated) == ("timestamp with time zone", False, False)
    tied = {(each.kind.name, each.name, each.validated) for each in table.tied}
    assert tied == {
        ("FOREIGN_KEY", "run_customer_fkey", True),
        ("NARROW_SELF_REFERENCE", "run_before_fkey", True),
        ("NARROW_REFERENCE", "log_run_fkey of public.log", False),
        ("REFERENCE", "other_at_code_fkey of public.other", True),
        ("VIEW", "public.recent", True),
        ("VIEW", "public.grouped", True),
        ("GROUPED_VIEW", "public.grouped", True),
        ("MATERIALIZED_VIEW", "public.stale", True),
        ("OTHER", "function public.first(public.run)", True),
        ("OTHER", "table column public.holder.r", True),
        ("VIEW", "public.whole", True),
        ("OTHER", "view column public.whole.run", True),
        ("RULE", "quiet", True),
        ("ROW_TRIGGER", "each_row", True),
        ("STATEMENT_TRIGGER", "once", True),
        ("STATEMENT_TRIGGER", "sees", True),
        ("CONSTRAINT_TRIGGER", "later", True),
        ("POLICY", "seen", True),
        ("LEAF_PUBLICATION", "leaves", True),
        ("PUBLICATION", "roots", True),
        ("STATISTICS", "together", True),
    }


def test_a_publication_of_columns_and_rows_is_one_object(database: Database) -> None:
    if database.server.major < 15:
        return
    database.execute("""CREATE TABLE run (id int, at date, PRIMARY KEY (id, at));
        CREATE PUBLICATION p FOR TABLE run (id, at) WHERE (id > 5) WITH (publish_via_partition_root)""")
    assert [(each.kind.name, each.name) for each in read(database, "at").tied] == [("PUBLICATION", "p")]


def test_keys_and_indexes_are_read(database: Database) -> None:
    database.execute(RICH)
    table = read(database)
    by_name = {each.name: each for each in table.constraints if each.kind is not ConstraintKind.NOT_NULL}
    assert set(by_name) == {"run_pkey", "once", "twice", "sane"}
    once = by_name["once"]
    assert (once.columns, once.included, once.deferrable) == (("code", "At"), ("customer",), True)
    assert not by_name["sane"].inherited
    assert (by_name["run_pkey"].columns, by_name["run_pkey"].deferrable) == (("id",), False)
    indexes = {each.name: each for each in table.indexes}
    assert [name for name, each in sorted(indexes.items()) if each.plain] == ["by_time", "run_pkey", "twice"]
    assert indexes["small"].columns == (None,)
    assert not indexes["small"].constraint
    assert indexes["once"].constraint
    assert indexes["run_pkey"].oid == by_name["run_pkey"].index
    assert table.key_index == indexes["by_time"]


@pytest.mark.parametrize("index", ["", "CREATE INDEX ON run (at);"], ids=["scanned", "by an index"])
def test_the_spread_of_the_keys_is_the_same_with_an_index_and_without(database: Database, index: str) -> None:
    database.execute(f"""CREATE TABLE run (at timestamptz); {index}
        INSERT INTO run VALUES ('2026-11-01Z'), ('2019-05-05 10:00:00.5Z'), ('2020-01-01Z'), (NULL), (NULL),
            ('infinity'), ('-infinity')""")
    with session(from_dsn(database.dsn)) as connection:
        table = read_rows(connection, read(database, "at"), KeyEncoding.NATIVE, NOW)
    assert table.spread == Spread(
        nulls=2, infinite=2, lowest="2019-05-05 10:00:00.5+00", highest="2026-11-01 00:00:00+00", ahead=1
    )


@pytest.mark.parametrize("index", ["", "CREATE INDEX ON run (at);"], ids=["scanned", "by an index"])
def test_numbers_are_ordered_as_numbers(database: Database, index: str) -> None:
    """As texts they are not: in September 2001 seconds since 1970 became longer by a digit."""
    low, high = 999_999_999, 1_700_000_000
    database.execute(f"CREATE TABLE run (at bigint); {index} INSERT INTO run VALUES ({high}), (1000000000), ({low})")
    with session(from_dsn(database.dsn)) as connection:
        table = read_rows(connection, read(database, "at"), KeyEncoding.EPOCH_SECONDS, NOW)
    assert table.spread == Spread(lowest=str(low), highest=str(high))


def test_no_row_is_read_but_by_the_index_where_there_is_one(database: Database) -> None:
    database.execute("""CREATE TABLE run (at timestamptz NOT NULL); CREATE INDEX ON run (at);
        INSERT INTO run SELECT '2020-01-01Z'::timestamptz + n * interval '1 minute' FROM generate_series(1, 20000) n;
        ANALYZE run""")
    before = scans(database)
    with session(from_dsn(database.dsn)) as connection:
        read_rows(connection, read(database, "at"), KeyEncoding.NATIVE, NOW)
    assert scans(database) == before


def test_keys_that_encode_a_moment_are_read_as_they_are(database: Database) -> None:
    low, high = "018cc251-f400-7000-8000-000000000000", "ffffffff-ffff-4fff-bfff-ffffffffffff"
    database.execute(f"CREATE TABLE run (id uuid); INSERT INTO run VALUES ('{high}'), ('{low}')")
    with session(from_dsn(database.dsn)) as connection:
        table = read_rows(connection, read(database, "id"), KeyEncoding.UUID_V7, NOW)
    assert table.spread == Spread(lowest=low, highest=high, ahead=1)


def test_what_an_interrupted_conversion_left_is_read(database: Database) -> None:
    database.execute(f"""CREATE TABLE run (at date); ALTER TABLE run ADD CONSTRAINT {CHECK}
        CHECK (at IS NOT NULL AND at >= '2020-01-01' AND at < '2027-01-01') NOT VALID""")
    leftover = read(database, "at").leftover
    assert leftover is not None
    assert (leftover.lower, leftover.upper, leftover.validated) == ("2020-01-01", "2027-01-01", False)
    database.execute(f"ALTER TABLE run DROP CONSTRAINT {CHECK}, ADD CONSTRAINT {CHECK} CHECK (at > '2020-01-01')")
    assert read(database, "at").leftover == Leftover(condition="(at > '2020-01-01'::date)", validated=True)


def test_a_table_that_is_not_there_is_named(database: Database) -> None:
    with pytest.raises(TableNotFound, match=r"table public\.walk does not exist"):
        read(database, name="walk")


def test_an_absent_key_and_taken_names_are_seen(database: Database) -> None:
    database.execute("CREATE TABLE run (at date); CREATE TYPE old AS (a int)")
    table = read(database, "At")
    assert table.key is None
    with session(from_dsn(database.dsn)) as connection:
        assert read_taken(connection, table, ["run", "old", "free"]) == {"run", "old"}
