"""New partitions on real servers: their bounds, their likeness to the parent, and what is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lab.postgres import Database
from partwarden.api.policy import TableSpec
from partwarden.api.types import Interval
from partwarden.planner.calendar import iso
from partwarden.planner.inventory import RelationKind
from partwarden.planner.keys import KeyType
from partwarden.postgres.connection import Session, session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.create import TOGETHER
from partwarden.postgres.engine import Report, maintain
from support.meanwhile import findings

NOW = datetime(2026, 10, 24, 21, 30, tzinfo=UTC)
"""Shortly before Europe's clocks are set back."""
RUN = """
    CREATE TABLE run (submitted_at timestamptz NOT NULL, note text) PARTITION BY RANGE (submitted_at);
"""


@contextmanager
def connected(dsn: str) -> Iterator[Session]:
    with session(from_dsn(dsn)) as connection:
        yield connection


def keep(database: Database, dsn: str = "", *, now: datetime = NOW, **fields: Any) -> Report:
    """Does once what a policy with these fields says."""
    spec = TableSpec.model_validate({"table": {"name": "run"}, **fields})
    with connected(dsn or database.dsn) as connection:
        return maintain(connection, spec, now=now)


def created(report: Report) -> list[str]:
    assert not [each.error for each in report.outcomes if each.error]
    return [each.action.name for each in report.outcomes]


@pytest.mark.parametrize("interval", list(Interval))
@pytest.mark.parametrize("key_type", ["date", "timestamp", "timestamptz"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Australia/Lord_Howe"])
def test_rows_at_the_edges_lie_where_the_plan_says(
    pg_database: Database, interval: Interval, key_type: str, zone: str
) -> None:
    if key_type == "date" and interval is Interval.HOUR:
        interval = Interval.DAY  # hours on a date are refused; that has a test of its own
    pg_database.execute(f"CREATE TABLE run (submitted_at {key_type} NOT NULL) PARTITION BY RANGE (submitted_at)")
    report = keep(pg_database, interval=interval.value, timezone=zone, premake=4)
    assert len(created(report)) == 5
    least = timedelta(days=1) if key_type == "date" else timedelta(microseconds=1)
    for outcome in report.outcomes:
        held = outcome.action.range
        assert held is not None
        assert held.lower is not None
        assert held.upper is not None
        for moment in (held.lower, held.upper - least):
            pg_database.execute(f"SET TimeZone = 'UTC'; INSERT INTO run VALUES ('{iso(moment)}')")
        ((count,),) = pg_database.query(f'SELECT count(*) FROM "{outcome.action.name}"')
        assert count == 2
    assert created(keep(pg_database, interval=interval.value, timezone=zone, premake=4)) == []


@pytest.mark.parametrize(
    ("zone", "interval", "expression"),
    [
        ("Europe/Berlin", Interval.DAY, "date_trunc('day', moment AT TIME ZONE 'Europe/Berlin')"),
        ("America/Sao_Paulo", Interval.MONTH, "date_trunc('month', moment AT TIME ZONE 'America/Sao_Paulo')"),
        ("Asia/Kolkata", Interval.WEEK, "date_trunc('week', moment AT TIME ZONE 'Asia/Kolkata')"),
        ("Asia/Kathmandu", Interval.QUARTER, "date_trunc('quarter', moment AT TIME ZONE 'Asia/Kathmandu')"),
    ],
)
def test_postgresql_counts_the_same_days(pg_database: Database, zone: str, interval: Interval, expression: str) -> None:
    pg_database.execute("CREATE TABLE run (moment timestamptz NOT NULL) PARTITION BY RANGE (moment)")
    report = keep(pg_database, interval=interval.value, timezone=zone, premake=8)
    last = report.after.covered_until
    pg_database.execute(
        f"INSERT INTO run SELECT generate_series('{iso(report.after.current.lower)}'::timestamptz, "
        f"'{iso(last)}'::timestamptz - interval '1 microsecond', '30 minutes')"
    )
    rows = pg_database.query(
        f"SELECT count(DISTINCT tableoid), count(DISTINCT day), count(DISTINCT (tableoid, day)) "
        f"FROM (SELECT tableoid, {expression} AS day FROM run) rows"
    )
    assert rows == [(9, 9, 9)]


def test_a_partition_is_like_its_parent(database: Database) -> None:
    reader, writer = database.new_role().name, database.new_role().name
    database.execute(f"""
        CREATE TABLE customer (id int PRIMARY KEY);
        CREATE TABLE run (
          id bigint GENERATED ALWAYS AS IDENTITY, submitted_at timestamptz NOT NULL DEFAULT now(),
          customer int REFERENCES customer, cost numeric CHECK (cost >= 0),
          doubled numeric GENERATED ALWAYS AS (cost * 2) STORED,
          PRIMARY KEY (id, submitted_at)) PARTITION BY RANGE (submitted_at);
        CREATE INDEX ON run (customer) WHERE cost > 1;
        CREATE TABLE log (run_id bigint, run_at timestamptz, FOREIGN KEY (run_id, run_at) REFERENCES run);
        CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER after_run AFTER INSERT ON run FOR EACH ROW EXECUTE FUNCTION nothing();
        GRANT SELECT ON run TO PUBLIC; GRANT INSERT ON run TO {writer} WITH GRANT OPTION;
        GRANT UPDATE (customer) ON run TO {reader}; REVOKE TRUNCATE ON run FROM CURRENT_USER;
        ALTER DEFAULT PRIVILEGES GRANT DELETE ON TABLES TO {reader};
    """)
    names = created(keep(database))
    assert names == ["run_2026", "run_2027", "run_2028"]
    acl = "SELECT x.grantee, privilege_type, is_grantable FROM pg_class, aclexplode(relacl) x WHERE relname = %s"
    columns = """SELECT attname, x.grantee, x.privilege_type FROM pg_attribute, aclexplode(attacl) x
                 WHERE attrelid = %s::regclass"""
    for name in names:
        assert set(database.query(acl, name)) == set(database.query(acl, "run"))
        assert set(database.query(columns, name)) == set(database.query(columns, "run"))
    ((owners,),) = database.query("SELECT count(DISTINCT relowner) FROM pg_class WHERE relname LIKE 'run%%'")
    assert owners == 1
    assert database.query("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]
    attached = """SELECT count(*) FROM pg_inherits i JOIN pg_index x ON x.indexrelid = i.inhrelid
                  WHERE x.indrelid = %s::regclass"""
    assert database.query(attached, "run_2026") == [(2,)]
    assert database.query(
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'run_2026'::regclass AND tgname = 'after_run'"
    ) == [(1,)]
    database.execute(
        "INSERT INTO customer VALUES (1); INSERT INTO run (submitted_at, customer, cost) "
        "VALUES ('2027-01-01Z', 1, 2); INSERT INTO log SELECT id, submitted_at FROM run"
    )
    assert database.query("SELECT id, doubled FROM run_2027") == [(1, 4)]


def test_a_member_of_the_owning_role_makes_partitions_for_the_owner(database: Database) -> None:
    owner, member = database.new_role(), database.new_role()
    database.execute(f"""{RUN} GRANT {owner.name} TO {member.name};
        ALTER TABLE run OWNER TO {owner.name}; GRANT CREATE ON SCHEMA public TO {owner.name}, {member.name}""")
    assert len(created(keep(database, member.dsn))) == 3
    assert database.query("SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relname LIKE 'run%%'") == [
        (owner.name,)
    ]


def test_names_that_need_quotes(database: Database) -> None:
    role = database.new_role(name=f'Äl"ter {database.name}')
    quoted = '"' + role.name.replace('"', '""') + '"'
    schema, table, key = 'Schöne "Welt"', "Läufe {100%} 'x'", 'Zeit "%s"'
    ddl = ['"' + each.replace('"', '""') + '"' for each in (schema, table, key)]
    database.execute(f"""
        CREATE SCHEMA {ddl[0]} AUTHORIZATION {quoted};
        CREATE TABLE {ddl[0]}.{ddl[1]} ({ddl[2]} timestamptz) PARTITION BY RANGE ({ddl[2]});
        ALTER TABLE {ddl[0]}.{ddl[1]} OWNER TO {quoted};
        CREATE TABLE {ddl[0]}.other PARTITION OF {ddl[0]}.{ddl[1]} DEFAULT""")
    report = keep(database, role.dsn, table={"schema": schema, "name": table}, key=key, nameFormat='{table} "{year}"')
    assert created(report) == [f'{table} "{year}"' for year in (2026, 2027, 2028)]
    assert {each.schema for each in report.inventory.partitions} == {schema}


def test_partitions_made_by_others_count_and_are_left_alone(database: Database) -> None:
    database.execute(f"""{RUN}
        CREATE SCHEMA elsewhere;
        CREATE TABLE elsewhere.old PARTITION OF run FOR VALUES FROM (MINVALUE) TO ('2020-01-01Z');
        CREATE TABLE y21 PARTITION OF run FOR VALUES FROM ('2021-01-01Z') TO ('2022-01-01Z');
        CREATE TABLE odd PARTITION OF run FOR VALUES FROM ('2023-06-01Z') TO ('2025-03-01Z');
        CREATE TABLE deep PARTITION OF run FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z') PARTITION BY LIST (note);
        CREATE TABLE deep_a PARTITION OF deep FOR VALUES IN ('a');
        CREATE TABLE far PARTITION OF run FOR VALUES FROM ('2028-01-01Z') TO (MAXVALUE);
        CREATE TABLE rest PARTITION OF run DEFAULT;
        INSERT INTO run VALUES ('2026-02-01Z', 'a'), ('2019-01-01Z', 'b');""")
    database.execute("ANALYZE deep_a")
    report = keep(database, premake=4)
    assert created(report) == ["run_2027", "run_2020", "run_2022", "run_2023_20230101", "run_2025_20250301"]
    assert [each.reason for each in findings(report)] == ["OffGrid", "SubPartitioned"]
    assert report.after.covered_for_ever
    seen = {each.name: each for each in report.inventory.partitions}
    assert seen["deep"].kind is RelationKind.PARTITIONED
    assert seen["deep"].rows == 1
    assert seen["deep"].bytes == database.query("SELECT pg_total_relation_size('deep_a')")[0][0]
    assert seen["rest"].range is None
    assert seen["old"].schema == "elsewhere"
    assert created(keep(database, premake=4)) == []
    assert database.query("SELECT count(*) FROM run") == [(2,)]


def test_bounds_are_read_exactly_whatever_the_settings(database: Database) -> None:
    database.execute(f"""{RUN}
        CREATE TABLE a PARTITION OF run FOR VALUES FROM ('-infinity') TO ('0044-03-15 00:00:00Z BC');
        CREATE TABLE b PARTITION OF run FOR VALUES FROM ('2020-02-29 12:34:56.789012Z') TO ('2020-03-01Z');
        CREATE TABLE c PARTITION OF run FOR VALUES FROM ('20000-01-01Z') TO ('infinity');
        ALTER DATABASE {database.name} SET TimeZone = 'Asia/Kolkata';
        ALTER DATABASE {database.name} SET DateStyle = 'German, DMY';
        ALTER DATABASE {database.name} SET IntervalStyle = 'iso_8601';
        ALTER DATABASE {database.name} SET search_path = 'nowhere'""")
    report = keep(database, startFrom="2026-01-01")
    seen = {each.name: each.range for each in report.inventory.partitions}
    assert seen["a"] is not None
    assert seen["a"].lower is None
    assert seen["b"] is not None
    assert seen["b"].lower == datetime(2020, 2, 29, 12, 34, 56, 789012, UTC)
    assert seen["b"].upper == datetime(2020, 3, 1, tzinfo=UTC)
    assert seen["c"] is not None
    assert seen["c"].upper is None
    current = seen["run_2026"]
    assert current is not None
    assert (current.lower, current.upper) == (datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    assert report.after.codec.type is KeyType.TIMESTAMPTZ


def test_an_observation_takes_one_round_trip_also_with_thousands_of_partitions(pg_database: Database) -> None:
    pg_database.execute(RUN)
    first = keep(pg_database, interval="Day", startFrom="2025-01-01", premake=1000)
    count = len(created(first))
    assert count > 1600
    # Observe, ask for names, at most three round trips for every twenty partitions, observe again.
    assert first.round_trips <= 3 * -(-count // TOGETHER) + 3
    # The first observation of new partitions also asks how queries are planned on them.
    trips = [keep(pg_database, interval="Day", startFrom="2025-01-01", premake=1000).round_trips for _ in range(2)]
    assert trips == [2, 1]


def test_a_session_is_left_as_it_was(database: Database) -> None:
    database.execute(RUN)
    asked = "SELECT name, setting FROM pg_settings WHERE source IN ('session', 'client') ORDER BY name"
    with connected(database.dsn) as connection:
        before = connection.execute(asked).fetchall()
        assert maintain(connection, TableSpec.model_validate({"table": {"name": "run"}}), now=NOW).outcomes
        assert connection.execute(asked).fetchall() == before
        assert connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchall() == [(0,)]
        assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchall() == [(0,)]
