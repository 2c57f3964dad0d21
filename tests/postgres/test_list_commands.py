"""``partwarden list``, ``stats`` and ``health`` on a database, as replacements of the script, and beyond it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from lab.postgres import Database
from partwarden.cli.main import main
from support.archived import use_client
from support.encoded import NATIVE, keep

YEAR = datetime.now(UTC).year


def run(database: Database, command: str, *arguments: str) -> Result:
    done = CliRunner().invoke(main, [command, "--dsn", database.dsn, *arguments])
    assert "Traceback" not in done.output
    return done


def said(database: Database, command: str, *arguments: str) -> str:
    done = run(database, command, *arguments)
    assert done.exit_code == 0, done.output
    return done.output


def data(database: Database, command: str, *arguments: str) -> dict[str, Any]:
    done = run(database, command, "-o", "json", *arguments)
    assert done.exit_code == 0, done.output
    # What is said of progress does not go there.
    (found,) = json.loads(done.stdout)
    return dict(found)


@pytest.fixture
def table(database: Database) -> Database:
    """run: last year with rows, this one and the next, half a year off the grid, and DEFAULT."""
    database.execute(f"""{NATIVE[0].table} CREATE TABLE "old run" PARTITION OF run FOR VALUES
        FROM ('{YEAR - 1}-01-01Z') TO ('{YEAR}-01-01Z');
        CREATE TABLE half PARTITION OF run FOR VALUES FROM ('{YEAR - 2}-07-01Z') TO ('{YEAR - 1}-01-01Z')""")
    keep(database, None, interval="Year", premake=1, startFrom=f"{YEAR - 1}-01-01")
    database.execute(f"""INSERT INTO run SELECT '{YEAR - 1}-05-05Z', 'x' FROM generate_series(1, 1000);
        CREATE TABLE rest PARTITION OF run DEFAULT; ANALYZE "old run" """)
    return database


def test_partitions_are_listed_in_order(table: Database) -> None:
    lines = [line.split("  ") for line in said(table, "list").splitlines()]
    assert lines[0][0] == "NAME"
    names = [line[0].strip() for line in lines[1:]]
    assert names == ["half", "old run", f"run_{YEAR}", f"run_{YEAR + 1}", "rest"]
    old = said(table, "list").splitlines()[2]
    assert f"{YEAR - 1}-01-01  {YEAR}-01-01  Past" in old
    assert "~1,000" in old
    assert "Unmanaged" in said(table, "list").splitlines()[1]
    assert said(table, "list", "-o", "name").splitlines() == names
    assert "BYTES" in said(table, "list", "-o", "wide")


def test_the_same_as_data(table: Database) -> None:
    found = data(table, "list")
    assert (found["table"], found["interval"], found["key"]) == ("public.run", "Year", "key")
    assert [each["state"] for each in found["partitions"]] == ["Unmanaged", "Past", "Current", "Future", "Default"]
    assert found == {**yaml.safe_load(said(table, "list", "-o", "yaml")), "now": found["now"]}


def test_a_policy_says_what_is_managed(table: Database, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    spec = {"table": {"name": "run"}, "interval": "Month"}
    whole = {"apiVersion": "partwarden.dev/v1alpha1", "kind": "PartitionPolicy", "metadata": {"name": "run"}}
    file.write_text(yaml.safe_dump({**whole, "spec": spec}))
    states = [each["state"] for each in data(table, "list", "-f", str(file))["partitions"]]
    assert states == ["Unmanaged"] * 4 + ["Default"]


def test_totals(table: Database) -> None:
    table.execute("INSERT INTO run VALUES ('1999-05-05Z', 'y'), ('2001-01-01Z', 'z')")
    found = data(table, "stats")
    assert (found["summary"]["partitions"], found["summary"]["managed"]) == (5, 3)
    assert found["summary"]["largest"]["name"] == "old run"
    assert found["summary"]["defaultRows"] == 2
    assert found["default"] == "1999 (1 row), 2001 (1 row), 2 rows in all"
    assert found["skew"] > 1
    text = said(table, "stats")
    assert "1999 (1 row), 2001 (1 row)" in text
    assert "after the current one" in text


def test_rows_are_counted_on_request(table: Database) -> None:
    table.execute(f"INSERT INTO run SELECT '{YEAR}-01-01Z', 'x' FROM generate_series(1, 7)")
    done = run(table, "stats", "--exact")
    assert done.exit_code == 0
    assert re.search(r"rows, counted +1,007\n", done.stdout)
    lines = [line.split() for line in done.stdout.split("\n\n")[1].splitlines()]
    assert lines[0] == ["NAME", "ROWS", "SIZE"]
    assert lines[1][:3] == ["old", "run", "1,000"]
    assert lines[2][:2] == [f"run_{YEAR}", "7"]
    assert "counting public.rest, 5 of 5" in done.stderr
    found = data(table, "stats", "--exact")
    assert found["rows"] == {
        "total": 1007,
        "byPartition": {"half": 0, "old run": 1000, f"run_{YEAR}": 7, f"run_{YEAR + 1}": 0, "rest": 0},
    }


def test_archives_at_an_address_are_shown(table: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_client(monkeypatch)
    where = said(table, "archive", "--partition", "old run", "--to", str(tmp_path)).splitlines()[-1]
    lines = said(table, "list", "--archives", str(tmp_path)).splitlines()
    assert lines[0].split()[-1] == "ARCHIVE"
    assert lines[2].endswith(f"  {where}")
    assert lines[3].endswith("  -")
    found = data(table, "list", "--archives", str(tmp_path))
    assert found["partitions"][1]["archive"] == {"state": "Proven", "location": where}
    assert found["partitions"][2]["archive"] is None
    assert [each["managed"] for each in found["partitions"]] == [False, True, True, True, False]


@pytest.mark.parametrize("arguments", [("run",), ("-n", "x"), ("-A",), ("--context", "y")])
def test_a_database_has_no_policies(table: Database, arguments: tuple[str, ...]) -> None:
    done = run(table, "list", *arguments)
    assert done.exit_code == 1
    assert "it goes with no POLICY" in done.output


def test_health_is_an_exit_code(database: Database) -> None:
    database.execute(NATIVE[0].table)
    done = run(database, "health")
    assert (done.exit_code, done.output) == (2, "CRITICAL: public.run: no partition holds now: inserts fail\n")
    keep(database, None, interval="Year", premake=0)
    done = run(database, "health")
    assert done.exit_code == 1
    assert done.output.startswith("WARNING: public.run: nothing follows the current partition: inserts fail from")
    keep(database, None, interval="Year", premake=2)
    done = run(database, "health")
    assert done.exit_code == 0
    assert done.output.startswith("OK: public.run: 3 partitions, ")
    database.execute("CREATE TABLE rest PARTITION OF run DEFAULT; INSERT INTO run VALUES ('1999-05-05Z')")
    done = run(database, "health", "-o", "json")
    assert done.exit_code == 1
    assert json.loads(done.output)["tables"][0]["wrong"] == [
        {"level": "WARNING", "message": "the DEFAULT partition holds 1999 (1 row)"}
    ]


def test_where_a_default_partition_takes_the_rows_no_insert_fails(database: Database) -> None:
    database.execute(f'{NATIVE[0].table} CREATE TABLE "the rest" PARTITION OF run DEFAULT')
    done = run(database, "health")
    words = "no partition holds now: rows go into the DEFAULT partition the rest"
    assert (done.exit_code, done.output) == (2, f"CRITICAL: public.run: {words}\n")
    database.execute("INSERT INTO run VALUES (now())")
    database.execute("TRUNCATE run")
    assert "inserts fail" not in said_by_plan(database)
    keep(database, None, interval="Year", premake=0)
    done = run(database, "health")
    assert done.exit_code == 1
    words = "nothing follows the current partition: rows go into the DEFAULT partition the rest from"
    assert done.output.startswith(f"WARNING: public.run: {words}")


def said_by_plan(database: Database) -> str:
    policy = """apiVersion: partwarden.dev/v1alpha1
kind: PartitionPolicy
metadata: {name: run}
spec: {table: {name: run}, interval: Year}
"""
    done = CliRunner().invoke(main, ["plan", "-f", "-", "--dsn", database.dsn], input=policy)
    assert "NOW IS NOT COVERED: rows go into public.the rest" in done.output
    return done.output


def test_health_by_a_policy_knows_what_should_be_ahead(database: Database, tmp_path: Path) -> None:
    database.execute(NATIVE[0].table)
    keep(database, None, interval="Year", premake=2)
    file = tmp_path / "policy.yaml"
    file.write_text("""apiVersion: partwarden.dev/v1alpha1
kind: PartitionPolicy
metadata: {name: run}
spec: {table: {name: run}, premake: 5}""")
    done = run(database, "health", "-f", str(file))
    assert done.exit_code == 1
    assert "3 of the partitions that should be ahead are missing" in done.output


def test_an_unreachable_database_is_critical(database: Database) -> None:
    done = CliRunner().invoke(main, ["health", "--dsn", "host=127.0.0.1 port=1 dbname=none user=nobody"])
    assert done.exit_code == 2
    assert done.output.startswith("CRITICAL: ")
    assert "Traceback" not in done.output
    database.execute("CREATE TABLE l (a int) PARTITION BY LIST (a)")
    assert run(database, "health").exit_code == 2
    assert run(database, "list", "--table", "l").exit_code == 1
    assert "only RANGE can be managed" in run(database, "list", "--table", "l").output
