"""A table that is not there is answered with the one that was probably meant, another with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.postgres import Database
from partwarden.cli.main import main

MONTH = "FROM ('2026-11-01') TO ('2026-12-01')"


def said(database: Database, command: str, *arguments: str) -> str:
    """What an error of a command says."""
    done = CliRunner().invoke(main, [command, "--dsn", database.dsn, *arguments])
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.output
    return done.stderr.strip()


@pytest.fixture
def app(database: Database) -> Database:
    """Table app.run with partition app.run_2026_11, and a view, a type and an index that are called nearly so."""
    database.execute(f"""CREATE SCHEMA app; CREATE TABLE app.run (at date NOT NULL) PARTITION BY RANGE (at);
        CREATE TABLE app.run_2026_11 PARTITION OF app.run FOR VALUES {MONTH};
        CREATE VIEW rum AS SELECT 1; CREATE TYPE rug AS ENUM (); CREATE INDEX runt ON app.run (at)""")
    return database


@pytest.mark.parametrize(
    ("command", "arguments", "meant"),
    [
        ("list", ("--table", "run"), "app.run"),
        ("import", ("--table", "app.rnu"), "app.run"),
        ("stats", ("--table", "App.Run"), "app.run"),
        ("archive", ("--partition", "run_2026_11", "--to", "{folder}"), "app.run_2026_11"),
        ("archive", ("--partition", "app.run_2026_12", "--to", "{folder}"), "app.run_2026_11"),
        ("drop", ("run_2026_12", "--table", "app.run"), "run_2026_11"),
    ],
)
def test_the_table_that_was_probably_meant_is_named(
    app: Database, tmp_path: Path, command: str, arguments: tuple[str, ...], meant: str
) -> None:
    words = [each.format(folder=tmp_path) for each in arguments]
    assert said(app, command, *words).endswith(f"; did you mean {meant}?")


def test_of_many_tables_of_one_name_some_are_named(database: Database) -> None:
    for number in range(9):
        database.execute(f"CREATE SCHEMA s{number}; CREATE TABLE s{number}.run (at date) PARTITION BY RANGE (at)")
    assert said(database, "list", "--table", "run").endswith("; did you mean s0.run or s1.run or s2.run?")


def test_nothing_is_named_where_nothing_is_near(app: Database) -> None:
    assert "did you mean" not in said(app, "list", "--table", "something_else")


def test_names_of_others_are_bounded_and_printable(database: Database) -> None:
    """A tenant may make thousands of tables, and call them what it likes."""
    database.execute("""DO $$ BEGIN FOR i IN 1..2000 LOOP
        EXECUTE format('CREATE TABLE %I (at date) PARTITION BY RANGE (at)', 'runs' || repeat('s', 50) || i);
        END LOOP; END $$""")
    assert "did you mean" not in said(database, "list", "--table", "nothing")
    database.execute(b"""CREATE TABLE "run\n\x1b[31m" (at date) PARTITION BY RANGE (at)""".decode("unicode_escape"))
    assert said(database, "list", "--table", "run").endswith(r"; did you mean public.run\n\x1b[31m?")


def test_partitions_by_range_of_a_table_by_list_have_policies_of_their_own(database: Database) -> None:
    """The way out that the message of UnsupportedStrategy names."""
    database.execute("""CREATE TABLE run (site text NOT NULL, at date NOT NULL) PARTITION BY LIST (site);
        CREATE TABLE run_north PARTITION OF run FOR VALUES IN ('north') PARTITION BY RANGE (at)""")
    assert "make a policy for each of them (spec.table.name)" in said(database, "list", "--table", "run")
    policy = """apiVersion: partwarden.dev/v1alpha1
kind: PartitionPolicy
metadata: {name: north}
spec: {table: {name: run_north}, interval: Month, premake: 1, retention: {keepFor: 1mo}}
"""
    done = CliRunner().invoke(main, ["apply", "--dsn", database.dsn, "-f", "-"], input=policy)
    assert done.exit_code == 0, done.output
    database.execute("INSERT INTO run VALUES ('north', current_date)")
    assert database.query("SELECT count(*) FROM pg_inherits WHERE inhparent = 'run_north'::regclass") == [(2,)]
    for _ in range(2):
        later = ["plan", "--dsn", database.dsn, "-f", "-", "--now", "2060-01-01"]
        done = CliRunner().invoke(main, later, input=policy)
        assert done.output.count("  detach") == 2
