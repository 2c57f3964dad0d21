"""What is read of a table and its server: exactly, whatever names and settings they have."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from lab.postgres import Database, Server
from partwarden.planner.calendar import Range
from partwarden.planner.inventory import Grant, KeyPart, RelationKind, Strategy
from support.observed import ODD, RUN, observe_table, observe_with_names, quoted, ranges

SETTINGS = {
    "TimeZone": ["'Asia/Kolkata'", "'America/St_Johns'", "'-07:30'"],
    "DateStyle": ["'SQL, DMY'", "'Postgres, MDY'", "'German'"],
    "IntervalStyle": ["iso_8601", "sql_standard"],
    "search_path": ["trap, pg_catalog", "''"],
    "quote_all_identifiers": ["on"],
    "standard_conforming_strings": ["off"],
    "default_transaction_isolation": ["serializable"],
    "default_transaction_deferrable": ["on"],
    "client_encoding": ["SQL_ASCII", "LATIN1"],
    "enable_partition_pruning": ["off"],
    "client_min_messages": ["debug5"],
    "array_nulls": ["off"],
    "row_security": ["off"],
}
TRAPS = """
    CREATE SCHEMA trap;
    CREATE FUNCTION trap.pg_get_expr(pg_node_tree, integer) RETURNS text LANGUAGE sql AS $$ SELECT 'DEFAULT' $$;
    CREATE FUNCTION trap.to_char(timestamp, text) RETURNS text LANGUAGE sql AS $$ SELECT '1970-01-01' $$;
    CREATE FUNCTION trap.never(name, name) RETURNS bool LANGUAGE sql AS $$ SELECT false $$;
    CREATE OPERATOR trap.= (LEFTARG = name, RIGHTARG = name, FUNCTION = trap.never);
    CREATE TABLE trap.pg_class (oid oid, relname name);
    CREATE TABLE trap.pg_inherits (inhrelid oid, inhparent oid);
"""


EDGES = {
    "date": ("2020-02-29", "2020-03-01"),
    "timestamp": ("2020-02-29 12:34:56.789012", "2020-03-01 00:00:00.000001"),
    "timestamptz": ("2020-02-29 12:34:56.789012+00", "2020-03-01 00:00:00.000001+00"),
}


@pytest.mark.parametrize("where", ["DATABASE", "ROLE"])
def test_bounds_are_read_exactly_whatever_settings_a_database_or_a_role_has(database: Database, where: str) -> None:
    for key_type, (lower, upper) in EDGES.items():
        database.execute(f"""CREATE TABLE run_{key_type} (at {key_type}) PARTITION BY RANGE (at);
            CREATE TABLE a_{key_type} PARTITION OF run_{key_type} FOR VALUES FROM ('{lower}') TO ('{upper}');
            CREATE TABLE rest_{key_type} PARTITION OF run_{key_type} DEFAULT""")
    role = database.new_role()
    database.execute(f"{TRAPS} GRANT USAGE ON SCHEMA trap TO PUBLIC")
    subject = f"{where} {database.name if where == 'DATABASE' else role.name}"
    for number in range(3):
        changes = [f"ALTER {subject} SET {name} = {values[number % len(values)]}" for name, values in SETTINGS.items()]
        database.execute(";".join(changes))
        for key_type, edges in EDGES.items():
            found = observe_table(role.dsn, f"run_{key_type}")
            expected = Range(*(datetime.fromisoformat(edge) for edge in edges))
            assert ranges(found) == {f"a_{key_type}": expected, f"rest_{key_type}": None}
            assert abs(found.now - datetime.now(UTC)) < timedelta(minutes=5)
            assert found.parent is not None
            assert found.parent.key[0].column == "at"


def test_the_ends_of_the_calendar(database: Database) -> None:
    first, last = datetime(2, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
    year, micro = datetime(2020, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
    for bounds, expected in {
        "(MINVALUE) TO ('0044-03-15 00:00Z BC')": Range(None, first),
        "('-infinity') TO ('2020-01-01 00:00Z')": Range(None, year),
        "('4714-11-24 00:00Z BC') TO ('0500-01-01 00:00Z')": Range(None, first.replace(year=500)),
        "('2020-01-01 00:00Z') TO ('infinity')": Range(year, None),
        "('2020-01-01 00:00Z') TO (MAXVALUE)": Range(year, None),
        "('9000-01-01 00:00Z') TO ('10000-01-01 00:00Z')": Range(last, None),
        "('2020-01-01 00:00Z') TO ('294276-12-31 23:59:59.999999Z')": Range(year, None),
        "('2020-01-01 05:30:00.000001+05:30') TO ('2020-01-01 00:00:00.000002Z')": Range(
            year + micro, year + 2 * micro
        ),
    }.items():
        database.execute(f"DROP TABLE IF EXISTS run; {RUN} CREATE TABLE a PARTITION OF run FOR VALUES FROM {bounds}")
        assert ranges(observe_table(database.dsn)) == {"a": expected}, bounds


def test_names_are_matched_and_reported_exactly(pg_database: Database) -> None:
    role = pg_database.new_role(name=f"{ODD} {pg_database.name}")
    ddl, owner = quoted(ODD), quoted(role.name)
    pg_database.execute(f"""
        CREATE SCHEMA {ddl} AUTHORIZATION {owner};
        CREATE TABLE {ddl}.{ddl} ({ddl} timestamptz) PARTITION BY RANGE ({ddl});
        ALTER TABLE {ddl}.{ddl} OWNER TO {owner}; GRANT SELECT ({ddl}) ON {ddl}.{ddl} TO PUBLIC;
        CREATE SCHEMA "Other";
        CREATE TABLE "Other".{ddl} PARTITION OF {ddl}.{ddl} DEFAULT;
        CREATE TABLE public.{ddl} ()""")
    found = observe_with_names(role.dsn, ODD, ODD)
    assert found.parent is not None
    assert (found.parent.schema, found.parent.name, found.parent.owner) == (ODD, ODD, role.name)
    assert found.parent.key == (KeyPart(ODD, "timestamp with time zone"),)
    assert Grant(None, "SELECT", False, ODD) in found.parent.grants
    assert [(each.schema, each.name) for each in found.partitions] == [("Other", ODD)]
    assert found.server.user == role.name
    for name, schema in ((ODD.lower(), ODD), (ODD, ODD.upper()), ("run", "public")):
        assert observe_table(role.dsn, name, schema).parent is None


def test_tables_of_one_name_in_two_schemas_are_two(pg_database: Database) -> None:
    pg_database.execute(f"{RUN} CREATE TABLE a PARTITION OF run DEFAULT; CREATE SCHEMA s; SET search_path = s; {RUN}")
    assert ranges(observe_table(pg_database.dsn)) == {"a": None}
    found = observe_table(pg_database.dsn, schema="s")
    assert found.parent is not None
    assert (found.parent.schema, found.partitions) == ("s", ())


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_JP"])
def test_databases_of_any_encoding(pg: Server, encoding: str) -> None:
    with psycopg.connect(pg.dsn(), autocommit=True) as connection:
        name = f"encoded_{encoding.lower()}"
        connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0".encode())
    with Database(pg, name) as database:
        table = "実行" if encoding == "EUC_JP" else "Läufe"
        with psycopg.connect(database.dsn, autocommit=True, client_encoding="UTF8") as connection:
            connection.execute(f'CREATE TABLE "{table}" (at date) PARTITION BY RANGE (at)'.encode())
        found = observe_table(database.dsn, table)
        assert found.parent is not None
        assert (found.parent.name, found.parent.key[0].type) == (table, "date")


@pytest.mark.parametrize(
    ("ddl", "kind", "strategy", "key"),
    [
        ("CREATE TABLE run (at date)", RelationKind.TABLE, None, ()),
        ("CREATE VIEW run AS SELECT 1", RelationKind.OTHER, None, ()),
        ("CREATE MATERIALIZED VIEW run AS SELECT 1", RelationKind.OTHER, None, ()),
        (
            "CREATE TABLE run (a date) PARTITION BY LIST (a)",
            RelationKind.PARTITIONED,
            Strategy.LIST,
            (KeyPart("a", "date"),),
        ),
        (
            "CREATE TABLE run (a date) PARTITION BY HASH (a)",
            RelationKind.PARTITIONED,
            Strategy.HASH,
            (KeyPart("a", "date"),),
        ),
        (
            "CREATE TABLE run (a date, b timestamp(3)) PARTITION BY RANGE (b, (a + 1), a)",
            RelationKind.PARTITIONED,
            Strategy.RANGE,
            (KeyPart("b", "timestamp without time zone"), KeyPart(None, ""), KeyPart("a", "date")),
        ),
        (
            "CREATE TABLE run (x int, a timestamptz(0)) PARTITION BY RANGE (a); ALTER TABLE run DROP x",
            RelationKind.PARTITIONED,
            Strategy.RANGE,
            (KeyPart("a", "timestamp with time zone"),),
        ),
        (
            "CREATE DOMAIN date AS pg_catalog.date; CREATE TABLE run (a public.date) PARTITION BY RANGE (a)",
            RelationKind.PARTITIONED,
            Strategy.RANGE,
            (KeyPart("a", "public.date"),),
        ),
    ],
)
def test_kinds_and_keys(
    pg_database: Database, ddl: str, kind: RelationKind, strategy: Strategy | None, key: tuple[KeyPart, ...]
) -> None:
    pg_database.execute(ddl)
    parent = observe_table(pg_database.dsn).parent
    assert parent is not None
    assert (parent.kind, parent.strategy) == (kind, strategy)
    assert [each.column for each in parent.key] == [each.column for each in key]
    assert [each.type for each in parent.key if each.column] == [each.type for each in key if each.column]


def test_a_sequence_of_that_name_is_no_table(pg_database: Database) -> None:
    pg_database.execute("CREATE SEQUENCE run")
    assert observe_table(pg_database.dsn).parent is None


def test_names_taken_are_those_of_relations_and_types_in_the_schema(pg_database: Database) -> None:
    pg_database.execute(f"""{RUN} CREATE SCHEMA s; CREATE TABLE s.elsewhere (); CREATE INDEX "an index" ON run (at);
        CREATE SEQUENCE seq; CREATE TYPE enum AS ENUM (); CREATE VIEW {quoted(ODD)} AS SELECT 1;
        CREATE DOMAIN d AS int""")
    names = ["run", "elsewhere", "an index", "seq", "enum", ODD, "d", "free", "RUN", "a,b", 'x"y', "{}", "NULL", ""]
    pg_database.execute(f"""ALTER DATABASE {pg_database.name} SET search_path = s, pg_catalog;
        CREATE TABLE s.run (at date) PARTITION BY RANGE (at)""")
    found = observe_with_names(pg_database.dsn, names=names)
    assert found.taken == {"run", "an index", "seq", "enum", ODD, "d"}
    assert observe_with_names(pg_database.dsn, schema="s", names=names).taken == {"elsewhere", "run"}
