"""Tables that cannot be managed, or not wholly: the reported reason, and recovery once the cause is fixed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from lab.postgres import Database, Server
from partwarden.postgres.conninfo import ConnectionInfo, from_dsn
from support.complaints import RUN, check, complaint, complaints

AGAIN = f"DROP TABLE run; {RUN}"
DAYS = """
SET timezone = 'UTC'; DO $$ DECLARE lower timestamptz; BEGIN
  FOR n IN 0..11 LOOP
    lower := date_trunc('day', now()) - n * interval '1 day';
    EXECUTE format('CREATE TABLE day_%s PARTITION OF run FOR VALUES FROM (%L) TO (%L)', n, lower,
      lower + interval '24h');
  END LOOP; END $$
"""
NEW = "make a new table PARTITION BY RANGE on one column that says when, and move the rows"
EACH = ["where its partitions are partitioned by RANGE themselves, make a policy for each of them", NEW]
LONG = "measurements_of_all_sensors_in_the_northern_and_southern_halls"
WIDE = "messgrößen_aller_fühler_in_der_nördlichen_halle_am_südtor"


@dataclass(frozen=True)
class Case:
    """One failure: its cause, what is reported of it, and its fix, in the database or in the policy."""

    name: str
    make: str
    reason: str
    says: list[str]
    fix: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    instead: dict[str, Any] | None = None

    def run(self, database: Database) -> None:
        """Cause it, read what is reported, fix it."""
        info = from_dsn(database.dsn)
        if self.make:
            database.execute(self.make)
        check(complaint(info, **self.fields), self.reason, *self.says)
        if self.fix:
            database.execute(self.fix)
        assert complaints(info, **(self.fields if self.instead is None else self.instead)) == []


def by(key: str, columns: str = "submitted_at timestamptz NOT NULL") -> str:
    return f"CREATE TABLE run ({columns}) PARTITION BY {key}"


CASES = [
    Case("missing", "", "TableNotFound", ["table public.run does not exist in database", "create it"], RUN),
    Case(
        "another schema",
        RUN,
        "TableNotFound",
        ["table reports.run does not exist", "correct spec.table"],
        "CREATE SCHEMA reports; ALTER TABLE run SET SCHEMA reports",
        fields={"table": {"schema": "reports", "name": "run"}},
    ),
    Case(
        "upper case",
        RUN,
        "TableNotFound",
        ["table public.Run does not exist", "upper and lower case differ"],
        'ALTER TABLE run RENAME TO "Run"',
        fields={"table": {"name": "Run"}},
    ),
    Case(
        "in another schema",
        f"CREATE SCHEMA app; {RUN.replace('run', 'app.run')}",
        "TableNotFound",
        ["table public.run does not exist in database", "differ); did you mean app.run?"],
        instead={"table": {"schema": "app", "name": "run"}},
    ),
    Case(
        "in two other schemas",
        f"CREATE SCHEMA app; CREATE SCHEMA b; {RUN.replace('run', 'app.run')}; {RUN.replace('run', 'b.run')}",
        "TableNotFound",
        ["did you mean app.run or b.run?"],
        RUN,
    ),
    Case(
        "called nearly so",
        f"DROP SCHEMA IF EXISTS app, b CASCADE; {RUN.replace('run', 'runs')}",
        "TableNotFound",
        ["did you mean public.runs?"],
        "ALTER TABLE runs RENAME TO run",
    ),
    Case(
        "ordinary",
        "CREATE TABLE run (submitted_at date)",
        "NotPartitioned",
        ["public.run is not a partitioned table (kind: table)", "PARTITION BY RANGE"],
        AGAIN,
    ),
    Case(
        "view",
        "CREATE VIEW run AS SELECT now() AS submitted_at",
        "NotPartitioned",
        ["public.run is not a partitioned table", "PARTITION BY RANGE"],
        f"DROP VIEW run; {RUN}",
    ),
    Case(
        "materialized view",
        "CREATE MATERIALIZED VIEW run AS SELECT now() AS submitted_at",
        "NotPartitioned",
        ["public.run is not a partitioned table"],
        f"DROP MATERIALIZED VIEW run; {RUN}",
    ),
    Case(
        "foreign table",
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; "
        "CREATE FOREIGN TABLE run (submitted_at date) SERVER s",
        "NotPartitioned",
        ["public.run is not a partitioned table (kind: foreign table)"],
        f"DROP FOREIGN TABLE run; {RUN}",
    ),
    Case(
        "list",
        by("LIST (submitted_at)"),
        "UnsupportedStrategy",
        ["is partitioned by LIST", *EACH],
        AGAIN,
    ),
    Case(
        "hash",
        by("HASH (submitted_at)"),
        "UnsupportedStrategy",
        ["is partitioned by HASH", *EACH],
        AGAIN,
    ),
    Case(
        "expression",
        by("RANGE ((submitted_at::date))", "submitted_at timestamp"),
        "UnsupportedKey",
        ["public.run is partitioned by an expression", "a plain column", NEW],
        AGAIN,
    ),
    Case(
        "two columns",
        by("RANGE (submitted_at, id)", "submitted_at date, id int"),
        "UnsupportedKey",
        ["public.run is partitioned by 2 columns", "a single column", NEW],
        AGAIN,
    ),
    Case(
        "text", by("RANGE (id)", "id text"), "UnsupportedKeyType", ["'id' of type text", "only date, timestamp"], AGAIN
    ),
    Case("bigint", by("RANGE (id)", "id bigint"), "UnsupportedKeyType", ["'id' of type bigint"], AGAIN),
    Case(
        "domain",
        f"CREATE DOMAIN day AS date; {by('RANGE (at)', 'at day')}",
        "UnsupportedKeyType",
        ["'at' of type public.day", "only date, timestamp"],
        AGAIN,
    ),
    Case(
        "wrong key",
        RUN,
        "WrongKey",
        ["spec.key is 'created_at', but public.run is partitioned by 'submitted_at'", "leave it out"],
        "ALTER TABLE run RENAME submitted_at TO created_at",
        fields={"key": "created_at"},
    ),
    Case(
        "hours of a date",
        by("RANGE (at)", "at date"),
        "IntervalTooFine",
        ["spec.interval is Hour, but public.run is partitioned by 'at' of type date"],
        fields={"interval": "Hour"},
        instead={"interval": "Day"},
    ),
    Case(
        "another interval",
        f"{RUN}; {DAYS}",
        "IntervalMismatch",
        [
            "spec.interval is left out, which means Year, but its 12 newest partitions are each one Day long",
            "write spec.interval: Day to go on with those, or spec.interval: Year to change to that one",
        ],
        instead={"interval": "Day"},
    ),
    Case(
        "unknown time zone",
        RUN,
        "UnknownTimeZone",
        ["spec.timezone", "'Mars/Olympus_Mons'", "IANA"],
        fields={"timezone": "Mars/Olympus_Mons"},
        instead={"timezone": "Asia/Kathmandu"},
    ),
    Case(
        "name too long",
        RUN.replace("run", LONG),
        "NameTooLong",
        [f"{LONG}_2026", f"has {len(LONG) + 5} bytes, PostgreSQL keeps 63", "shorten spec.nameFormat", "by 4 bytes"],
        fields={"table": {"name": LONG}},
        instead={"table": {"name": LONG}, "nameFormat": "m_{year}"},
    ),
    Case(
        "name of wide letters too long",
        RUN.replace("run", f'"{WIDE}"'),
        "NameTooLong",
        [f"{WIDE}_2026", "has 67 bytes, PostgreSQL keeps 63"],
        fields={"table": {"name": WIDE}},
        instead={"table": {"name": WIDE}, "nameFormat": "größen_{year}"},
    ),
    Case(
        "name of a table",
        f"{RUN}; CREATE TABLE run_2026 ()",
        "NameTaken",
        [
            "would be called public.run_2026, but a relation or type of that name exists",
            "choose another spec.nameFormat",
        ],
        "ALTER TABLE run_2026 RENAME TO other",
    ),
    Case(
        "name of an index",
        f"{RUN}; CREATE INDEX run_2027 ON run (submitted_at)",
        "NameTaken",
        ["would be called public.run_2027, but a relation or type of that name exists"],
        "DROP INDEX run_2027",
    ),
    Case(
        "name of a type",
        f"{RUN}; CREATE TYPE run_2026 AS ENUM ('a')",
        "NameTaken",
        ["would be called public.run_2026, but a relation or type of that name exists", "rename it"],
        "DROP TYPE run_2026",
    ),
    Case(
        "name of another partition",
        f"{RUN}; CREATE TABLE run_2026 PARTITION OF run FOR VALUES FROM ('2025-01-01Z') TO ('2026-01-01Z')",
        "NameTaken",
        [
            "would be called public.run_2026, but a partition of that name holds FOR VALUES FROM ('2025-01-01",
            "rename it",
        ],
        "ALTER TABLE run_2026 RENAME TO run_2025",
    ),
    Case(
        "rows in default",
        f"{RUN}; CREATE TABLE rest PARTITION OF run DEFAULT; "
        "INSERT INTO run VALUES ('2026-01-01Z'), ('2026-12-31Z'), ('2019-01-01Z')",
        "DefaultHasRows",
        ["partition public.run_2026", "2 rows of its range lie in the DEFAULT partition public.rest", "move them"],
        "DELETE FROM rest WHERE submitted_at >= '2026-01-01Z'",
    ),
    Case(
        "far too many",
        RUN,
        "TooManyPartitions",
        ["more than 1000 partitions are missing", "set spec.startFrom"],
        fields={"interval": "Day", "startFrom": "1970-01-01"},
        instead={"interval": "Day", "startFrom": "2026-11-20"},
    ),
]


IN_THE_DATABASE = [case for case in CASES if case.instead is None]
IN_THE_POLICY = [case for case in CASES if case.instead is not None]


def named(case: Case) -> str:
    return case.name.replace(" ", "-")


@pytest.fixture(scope="module")
def reused(server: Server) -> Iterator[Database]:
    """One database for all cases: a new one for each would take longer than the cases do."""
    with server.new_database() as made:
        yield made


@pytest.fixture
def emptied(reused: Database) -> Database:
    """The same without anything in it."""
    reused.execute(
        "DROP SCHEMA IF EXISTS public, reports CASCADE; DROP FOREIGN DATA WRAPPER IF EXISTS w CASCADE; "
        "CREATE SCHEMA public"
    )
    return reused


@pytest.mark.parametrize("case", IN_THE_DATABASE, ids=named)
def test_a_problem_of_the_table_is_reported_and_heals(emptied: Database, case: Case) -> None:
    case.run(emptied)


@pytest.mark.parametrize("case", IN_THE_POLICY, ids=named)
def test_a_problem_of_the_policy_is_reported_and_heals(pg_database: Database, case: Case) -> None:
    case.run(pg_database)


def test_a_partition_that_fails_delays_no_other(database: Database) -> None:
    database.execute(f"{RUN}; CREATE TABLE run_2026 (); CREATE TABLE run_2028 ()")
    found = complaints(from_dsn(database.dsn), premake=3, ensure=["2031-06-01"])
    assert [each.reason for each in found] == ["NameTaken", "NameTaken"]
    made = database.query("SELECT inhrelid::regclass::text FROM pg_inherits ORDER BY 1")
    assert made == [("run_2027",), ("run_2029",), ("run_2031",)]


def test_a_pending_detach_is_reported_until_it_is_finished(database: Database) -> None:
    info = from_dsn(database.dsn)
    database.execute(RUN)
    assert complaints(info) == []
    with database.connect() as reader, database.connect() as owner:
        reader.execute("BEGIN; SELECT FROM run")
        owner.execute("SET lock_timeout = '10ms'")
        with pytest.raises(Exception, match="lock timeout"):
            owner.execute("ALTER TABLE run DETACH PARTITION run_2026 CONCURRENTLY")
        reader.execute("COMMIT")
    error = complaint(info)
    check(error, "DetachPending", "partition public.run_2026 is pending detach", "rows are invisible")
    check(error, "DetachPending", "ALTER TABLE", 'DETACH PARTITION "run_2026" FINALIZE')
    database.execute('ALTER TABLE public.run DETACH PARTITION "run_2026" FINALIZE')
    check(complaint(info), "NameTaken", "public.run_2026", "attach it for that range")
    database.execute("ALTER TABLE run ATTACH PARTITION run_2026 FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z')")
    assert complaints(info) == []


def test_a_server_that_is_too_old_is_named_with_its_version(old_server: Server) -> None:
    with old_server.new_database() as database:
        database.execute(RUN)
        error = complaint(ConnectionInfo(from_dsn(database.dsn).parameters))
        check(error, "ServerTooOld", f"the server is PostgreSQL {old_server.version}", "needs 14 or newer")
