"""`partwarden import`: it writes a policy that leaves nothing to do, whichever tool made the table."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from lab.postgres import Database
from partwarden.api.types import Interval
from partwarden.cli import import_, manifest, plain_tables
from partwarden.cli.main import main
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import observe_and_plan
from support.encoded import ENCODED, NATIVE, Key, created, keep

YEAR = datetime.now(UTC).year


def imported(database: Database, *arguments: str) -> str:
    """What it prints."""
    done = CliRunner().invoke(main, ["import", "--dsn", database.dsn, *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def policy(database: Database, *arguments: str) -> dict[str, Any]:
    """The spec of the only policy that it prints, by which nothing is to be done."""
    text = imported(database, *arguments)
    assert "at once" not in text
    found = manifest.load(text, "imported")
    with session(from_dsn(database.dsn)) as connection:
        _, plan = observe_and_plan(connection, found.spec)
    assert [each for each in plan.actions if each.name != found.spec.table.name] == []
    spec = yaml.safe_load(text)["spec"]
    assert isinstance(spec, dict)
    return spec


@pytest.mark.parametrize("interval", list(Interval))
@pytest.mark.parametrize("key", [*NATIVE, *ENCODED], ids=str)
def test_an_imported_policy_equals_the_one_that_made_the_table(
    database: Database, key: Key, interval: Interval
) -> None:
    if (key.column, interval) == ("date", Interval.HOUR):
        return
    database.execute(key.table)
    fields: dict[str, Any] = {"interval": interval.value, "premake": 3, "keyEncoding": key.encoding}
    created(keep(database, None, **fields))
    spec = policy(database)
    assert (spec["interval"], spec["premake"], spec["key"]) == (interval.value, 3, "key")
    assert spec.get("keyEncoding", "Native") == key.encoding
    assert spec.get("timezone", "UTC") in ("UTC", "Etc/UTC")
    assert "nameFormat" not in spec
    assert "startFrom" not in spec


@pytest.mark.parametrize("interval", ["Day", "Month"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kolkata", "America/New_York"])
def test_a_zone_is_found_by_the_bounds(database: Database, zone: str, interval: str) -> None:
    database.execute(NATIVE[0].table)
    created(keep(database, None, interval=interval, premake=8, timezone=zone))
    text = imported(database)
    assert yaml.safe_load(text)["spec"]["interval"] == interval
    assert "say which is meant" in text
    policy(database)
    database.execute(f"ALTER DATABASE {database.name} SET timezone = '{zone}'")
    assert policy(database)["timezone"] == zone


@pytest.mark.parametrize(
    ("step", "name", "interval", "pattern"),
    [
        ("1 month", "'run_p' || to_char(at, 'YYYYMMDD')", "Month", "{table}_p{year}{month}{day}"),
        ("1 month", "'run_p' || to_char(at, 'YYYY_MM')", "Month", "{table}_p{year}_{month}"),
        ("1 day", "'run_p' || to_char(at, 'YYYY_MM_DD')", "Day", "{table}_p{year}_{month}_{day}"),
        ("1 week", "'run_p' || to_char(at, 'IYYY\"w\"IW')", "Week", "{table}_p{isoyear}w{week}"),
        ("3 months", "'run_p' || to_char(at, 'YYYY\"q\"Q')", "Quarter", "{table}_p{year}q{quarter}"),
        (
            "1 hour",
            "'run_p' || to_char(at, 'YYYYMMDD_HH24') || '0000'",
            "Hour",
            "{table}_p{year}{month}{day}_{hour}0000",
        ),
        ("1 year", "'run_p' || to_char(at, 'YYYYMMDD')", "Year", "{table}_p{year}{month}{day}"),
        ("1 year", "'all of ' || to_char(at, 'YYYY')", "Year", "all of {year}"),
        ("1 month", "'part' || lpad((row_number() OVER (ORDER BY at))::text, 5, '0')", "Month", None),
    ],
)
def test_names_go_on_as_they_are(database: Database, step: str, name: str, interval: str, pattern: str | None) -> None:
    unit = {"3 months": "quarter"}.get(step, step.split(" ")[1])
    database.execute(f"""{NATIVE[0].table} SET timezone = 'UTC'; DO $$ DECLARE r record; BEGIN
        FOR r IN SELECT at, {name} AS name FROM generate_series(date_trunc('{unit}', now()) - 3 * interval '{step}',
            date_trunc('{unit}', now()) + 4 * interval '{step}', '{step}') at LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF run FOR VALUES FROM (%L) TO (%L)', r.name, r.at,
            r.at + interval '{step}'); END LOOP; END $$""")
    spec = policy(database)
    assert (spec["interval"], spec["premake"], spec.get("nameFormat")) == (interval, 4, pattern)
    if pattern is None:
        assert "names follow no pattern" in imported(database)


def _yearly(database: Database, *years: int, table: str = "run") -> None:
    for year in years:
        bounds = f"FROM ('{year}-01-01Z') TO ('{year + 1}-01-01Z')"
        database.execute(f"CREATE TABLE {table}_{year} PARTITION OF {table} FOR VALUES {bounds}")


def test_holes_in_the_past_stay(database: Database) -> None:
    database.execute(NATIVE[0].table)
    _yearly(database, YEAR - 9, YEAR - 7, YEAR - 3, YEAR - 2, YEAR - 1, YEAR, YEAR + 1)
    spec = policy(database)
    assert (spec["startFrom"], spec["premake"]) == (f"{YEAR - 3}-01-01", 1)


def test_an_interval_that_was_changed_is_the_newer_one(database: Database) -> None:
    database.execute(NATIVE[0].table)
    _yearly(database, YEAR - 4, YEAR - 3, YEAR - 2)
    created(keep(database, None, interval="Month", premake=14))
    assert policy(database)["interval"] == "Month"


def test_default_and_unbounded_partitions_are_no_hindrance(database: Database) -> None:
    database.execute(f"""{NATIVE[0].table} CREATE TABLE rest PARTITION OF run DEFAULT;
        CREATE TABLE ancient PARTITION OF run FOR VALUES FROM (MINVALUE) TO ('{YEAR - 1}-01-01Z')""")
    _yearly(database, YEAR - 1, YEAR, YEAR + 1)
    spec = policy(database)
    assert (spec["interval"], spec["premake"]) == ("Year", 1)


@pytest.mark.parametrize("more", ["", "CREATE TABLE rest PARTITION OF run DEFAULT"])
def test_what_the_policy_would_do_at_once_is_reported(database: Database, more: str) -> None:
    database.execute(f"{NATIVE[0].table} {more}")
    text = imported(database)
    assert f"# Applying it does this at once: create partition public.run_{YEAR}" in text
    assert "no partition has both bounds: say what it is to be" in text
    assert manifest.load(text, "imported").spec.premake == 0


def test_what_cannot_be_managed_is_a_comment_and_the_rest_is_there(database: Database) -> None:
    database.execute(f"""{NATIVE[0].table} CREATE TABLE by_list (kind text) PARTITION BY LIST (kind);
        CREATE TABLE two (a int, at date) PARTITION BY RANGE (a, at); CREATE TABLE word (a text) PARTITION BY RANGE (a);
        CREATE SCHEMA "Other"; CREATE TABLE "Other"."run: #1" (at date) PARTITION BY RANGE (at)""")
    _yearly(database, YEAR)
    database.execute(f"""CREATE TABLE "Other".p PARTITION OF "Other"."run: #1" FOR VALUES FROM ('{YEAR}-01-01') TO
        ('{YEAR + 1}-01-01')""")
    text = imported(database, "--namespace", "orchestrator")
    assert "# public.by_list is left out: public.by_list is partitioned by LIST" in text
    assert "# public.two is left out" in text
    assert "# public.word is left out" in text
    found = [each for each in yaml.safe_load_all(text) if each]
    assert [each["metadata"] for each in found] == [
        {"name": "run-1", "namespace": "orchestrator"},
        {"name": "run", "namespace": "orchestrator"},
    ]
    assert found[0]["spec"]["table"] == {"schema": "Other", "name": "run: #1"}
    only = imported(database, "--table", '"Other"."run: #1"')
    assert manifest.load(only, "imported").spec.table.name == "run: #1"


@pytest.mark.parametrize(
    ("step", "begin", "interval"),
    [("1 week", "1 day", "Week"), ("3 months", "1 month", "Quarter"), ("1 year", "5 months", "Year")],
)
def test_off_grid_partitions_are_reported_with_the_nearest_interval(
    database: Database, step: str, begin: str, interval: str
) -> None:
    """As pg_partman makes weeks that begin on a Tuesday, and quarters that begin in February."""
    unit = interval.lower()
    database.execute(f"""{NATIVE[0].table} SET timezone = 'UTC'; DO $$ DECLARE r record; BEGIN
        FOR r IN SELECT at, row_number() OVER () AS n FROM generate_series(
            date_trunc('{unit}', now()) - 3 * interval '{step}' + interval '{begin}',
            date_trunc('{unit}', now()) + 4 * interval '{step}', '{step}') at LOOP
        EXECUTE format('CREATE TABLE part_%s PARTITION OF run FOR VALUES FROM (%L) TO (%L)', r.n, r.at,
            r.at + interval '{step}'); END LOOP; END $$""")
    assert policy(database)["interval"] == interval
    text = imported(database)
    assert f"most are about as long as a {interval}: say what it is to be" in text
    assert "are Unmanaged until they expire: retention judges them by their bounds" in text


def test_an_index_that_only_partitions_have_is_reported(database: Database) -> None:
    """As pg_partman's template gives them: a new partition would take the same number twice."""
    database.execute(f"{NATIVE[0].table} ALTER TABLE run ADD COLUMN id bigint")
    _yearly(database, YEAR, YEAR + 1)
    assert "alone has" not in imported(database)
    database.execute(f"ALTER TABLE run_{YEAR + 1} ADD PRIMARY KEY (id)")
    assert f"# The newest partition alone has run_{YEAR + 1}_pkey: no new partition will" in imported(database)


def test_the_secret_may_be_named(database: Database) -> None:
    database.execute(NATIVE[0].table)
    _yearly(database, YEAR)
    assert "name: database  # yours" in imported(database)
    assert policy(database, "--secret", "orchestrator-db")["database"]["secretRef"] == {"name": "orchestrator-db"}
    done = CliRunner().invoke(main, ["import", "--dsn", database.dsn, "--secret", "No Name"])
    assert (done.exit_code, "is no name of a Secret" in done.output) == (1, True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "/run/postgresql", "::1", ""])
def test_what_is_only_this_machines_view_is_a_comment(database: Database, host: str) -> None:
    """As is the sslmode of the user's own connection, which would else weaken the operator's."""
    database.execute(NATIVE[0].table)
    _yearly(database, YEAR)
    found = from_dsn(database.dsn)
    lines = import_._connection(replace(found, parameters={**found.parameters, "host": host, "sslmode": "disable"}))
    assert lines[0] == "    connection:"
    assert lines[1].startswith("      # host:" + (" " if host else ""))
    assert "put in the name, and the port, by which the operator reaches the server" in lines[1]
    assert lines[-1].startswith("      # sslmode: disable  # by which this command connects")
    connection = policy(database)["database"]["connection"]
    assert connection.keys() == {"dbname", "user"}
    assert connection["dbname"] == database.name


def test_another_machine_stands_in_the_policy() -> None:
    found = from_dsn("host=db.example port=6432 dbname=orders user=app sslmode=verify-full")
    assert yaml.safe_load("\n".join(import_._connection(found))) == {
        "connection": {"host": "db.example", "port": 6432, "dbname": "orders", "user": "app", "sslmode": "verify-full"}
    }
    assert yaml.safe_load("\n".join(import_._connection(replace(found, parameters={})))) is None


def test_a_table_that_pg_partman_manages_too_is_reported(database: Database) -> None:
    database.execute(f"""{NATIVE[0].table} CREATE SCHEMA partman; CREATE TABLE partman.part_config (parent_table text
        PRIMARY KEY, control text, partition_interval text, premake int, retention text, retention_keep_table boolean);
        INSERT INTO partman.part_config VALUES ('public.run', 'key', '1 year', 4, '5 years', true)""")
    _yearly(database, YEAR, YEAR + 1)
    assert "# pg_partman keeps this table as well (premake 4, retention '5 years'): take it out" in imported(database)
    database.execute("""ALTER TABLE partman.part_config ADD automatic_maintenance text;
        UPDATE partman.part_config SET automatic_maintenance = 'off'""")
    assert "(premake 4, retention '5 years'), with automatic_maintenance off" in imported(database)
    owner = database.new_role()
    database.execute(f"ALTER TABLE run OWNER TO {owner.name}; GRANT USAGE, CREATE ON SCHEMA public TO {owner.name}")
    done = CliRunner().invoke(main, ["import", "--dsn", owner.dsn])
    assert done.exit_code == 0, done.output
    assert "pg_partman" not in done.output


@pytest.mark.parametrize(
    ("tables", "arguments", "says"),
    [
        ("", (), "no table here is partitioned by RANGE"),
        ("CREATE TABLE l (a int) PARTITION BY LIST (a)", (), "no table here is partitioned by RANGE"),
        ("CREATE TABLE plain ()", ("--table", "plain"), "there is no partitioned table public.plain in database"),
        ("", ("--table", "a.b.c"), "must be a table or schema.table"),
    ],
)
def test_a_database_without_partitioned_tables_is_reported(
    database: Database, tables: str, arguments: tuple[str, ...], says: str
) -> None:
    if tables:
        database.execute(tables)
    done = CliRunner().invoke(main, ["import", "--dsn", database.dsn, *arguments])
    assert done.exit_code == 1
    assert says in done.output
    assert "Traceback" not in done.output


def test_a_large_plain_table_is_proposed_to_be_converted(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.execute("""CREATE TABLE run (at timestamptz NOT NULL) PARTITION BY RANGE (at);
        CREATE TABLE "Big log" (born date, edited timestamptz, "at it" timestamptz DEFAULT now(), small int);
        CREATE TABLE timeless (id int); CREATE TABLE small (at date);
        INSERT INTO "Big log" SELECT FROM generate_series(1, 5000);
        INSERT INTO timeless SELECT generate_series(1, 9000);
        ANALYZE""")
    monkeypatch.setattr(plain_tables, "LARGE", 100_000)
    lines = [line for line in imported(database).splitlines() if "convert" in line]
    assert len(lines) == 1
    assert "partwarden convert --dsn … --table 'public.Big log' --key 'at it' --interval Month --plan" in lines[0]
    assert yaml.safe_load(imported(database))["kind"] == "PartitionPolicy"
    assert "convert" not in imported(database, "--table", "run")
