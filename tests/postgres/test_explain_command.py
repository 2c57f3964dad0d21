"""``partwarden explain``: which partitions a query reads, and why not fewer, as PostgreSQL itself plans it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from lab.postgres import Database
from partwarden.cli.main import main

YEARS = range(2020, 2026)


def run(database: Database, query: str, *arguments: str) -> Result:
    done = CliRunner().invoke(main, ["explain", query, "--dsn", database.dsn, *arguments])
    assert "Traceback" not in done.output
    return done


def explained(database: Database, query: str) -> tuple[int, dict[str, Any]]:
    done = run(database, query, "-o", "json")
    (found,) = json.loads(done.output)
    return done.exit_code, found


def read(found: dict[str, Any]) -> list[str]:
    return [each["name"] for each in found["read"]]


@pytest.fixture
def table(database: Database) -> Database:
    """run, by year of a timestamp with time zone, and other, which is not partitioned."""
    database.execute("""CREATE TABLE run (id bigint, submitted_at timestamptz NOT NULL)
        PARTITION BY RANGE (submitted_at); CREATE TABLE other (id bigint, at timestamptz)""")
    for year in YEARS:
        database.execute(
            f"CREATE TABLE run_{year} PARTITION OF run FOR VALUES FROM ('{year}-01-01Z') TO ('{year + 1}-01-01Z')"
        )
    return database


def test_the_guides_query_reads_one_partition(table: Database) -> None:
    query = "SELECT * FROM run WHERE submitted_at >= '2025-06-01' AND submitted_at < '2025-07-01'"
    code, found = explained(table, query)
    assert (code, found["prunes"], found["partitions"], read(found)) == (0, True, 6, ["public.run_2025"])
    assert found["read"][0] == {
        "name": "public.run_2025",
        "from": "2025-01-01T00:00:00Z",
        "to": "2026-01-01T00:00:00Z",
    }
    done = run(table, query)
    assert "public.run by submitted_at: it prunes: 1 of 6 partitions is read" in done.output
    assert run(table, query, "-o", "name").output == "public.run_2025\n"
    assert yaml.safe_load(run(table, query, "-o", "yaml").output)["prunes"]
    assert "condition (" in run(table, query, "-o", "wide").output


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("SELECT * FROM run", "no condition is on submitted_at"),
        ("SELECT * FROM run WHERE id = 7", "no condition is on submitted_at"),
        ("SELECT * FROM run WHERE extract(year FROM submitted_at) = 2025", "stands inside an expression"),
        ("SELECT * FROM run r WHERE r.submitted_at::date = '2025-03-01'", "stands inside an expression"),
        ("SELECT * FROM run WHERE date_trunc('month', submitted_at) = '2025-03-01'", "stands inside an expression"),
        ("SELECT * FROM run WHERE submitted_at > '2001-01-01'", "the condition rules no partition out"),
        ("SELECT * FROM run WHERE submitted_at <> '2025-03-01'", "submitted_at"),
        ("DELETE FROM run WHERE id = 7", "no condition is on submitted_at"),
    ],
)
def test_what_is_not_pruned_says_why(table: Database, query: str, why: str) -> None:
    code, found = explained(table, query)
    assert (code, found["prunes"], len(found["read"])) == (2, False, 6)
    assert any(why in each for each in found["why"]), found["why"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("SELECT FROM run WHERE submitted_at = '2022-05-05 12:00Z'", ["public.run_2022"]),
        ("SELECT FROM run WHERE submitted_at = '1999-05-05Z'", []),
        (
            "SELECT FROM run WHERE submitted_at IN ('2020-05-05Z', '2024-05-05Z')",
            ["public.run_2020", "public.run_2024"],
        ),
        ("UPDATE run SET id = 1 WHERE submitted_at < '2021-01-01Z'", ["public.run_2020"]),
        (
            "WITH x AS (SELECT * FROM run WHERE submitted_at >= '2025-01-01Z') SELECT count(*) FROM x;",
            ["public.run_2025"],
        ),
    ],
)
def test_what_is_pruned(table: Database, query: str, names: list[str]) -> None:
    code, found = explained(table, query)
    assert (code, read(found)) == (0, names)


def test_values_of_the_moment_prune_when_it_starts(table: Database) -> None:
    code, found = explained(table, "SELECT FROM run WHERE submitted_at > now() - interval '1 month'")
    assert (code, found["prunes"]) == (0, True)
    assert found["leftOutAtStart"] >= 5


def test_a_join_is_decided_while_it_runs(table: Database) -> None:
    table.execute("CREATE INDEX ON run (submitted_at); INSERT INTO other SELECT 1, '2025-01-01'; ANALYZE other")
    _, found = explained(table, "SELECT FROM other o JOIN run r ON r.submitted_at = o.at")
    assert any("decided while it runs" in each or "no condition" in each for each in found["why"]), found


def test_a_scan_of_default_is_reported(table: Database) -> None:
    table.execute("CREATE TABLE rest PARTITION OF run DEFAULT")
    _, found = explained(table, "SELECT FROM run WHERE submitted_at >= '2025-01-01Z'")
    assert read(found) == ["public.run_2025", "public.rest"]
    assert any("public.rest is read too" in each for each in found["why"])


def test_partitions_of_partitions_count_as_theirs(table: Database) -> None:
    table.execute("""CREATE TABLE run_2026 PARTITION OF run FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z')
        PARTITION BY LIST (id);
        CREATE TABLE leaf PARTITION OF run_2026 FOR VALUES IN (1); CREATE TABLE leaf2 PARTITION OF run_2026 DEFAULT""")
    _, found = explained(table, "SELECT FROM run WHERE submitted_at >= '2026-01-01Z'")
    assert (found["partitions"], read(found)) == (7, ["public.run_2026"])


def test_a_role_with_pruning_off_is_reported(table: Database) -> None:
    table.execute(f"ALTER DATABASE {table.name} SET enable_partition_pruning = off")
    assert "enable_partition_pruning is off" in run(table, "SELECT FROM run WHERE submitted_at = '2022-05-05Z'").output


def test_explain_never_executes_the_query(table: Database) -> None:
    table.execute("INSERT INTO run VALUES (1, '2025-01-01Z')")
    for query in (
        "DELETE FROM run",
        "ANALYZE DELETE FROM run",
        "SELECT FROM run; DELETE FROM run",
        "SELECT FROM run; COMMIT; DELETE FROM run",
        "WITH gone AS (DELETE FROM run RETURNING *) SELECT FROM gone",
    ):
        run(table, query)
        assert table.query("SELECT count(*) FROM run") == [(1,)], query
    assert run(table, "INSERT INTO run VALUES (2, '2025-01-01Z')").exit_code == 0


def test_parameters_need_no_values_from_16_on(table: Database) -> None:
    done = run(table, "SELECT FROM run WHERE submitted_at = $1")
    if table.query("SELECT current_setting('server_version_num')::int >= 160000") == [(True,)]:
        assert "decided while it runs" in done.output or "it prunes" in done.output
    else:
        assert done.exit_code == 1
        assert "only PostgreSQL 16 or later" in done.output


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELEC", "the query cannot be planned: syntax error"),
        ("SELECT FROM nowhere", 'relation "nowhere" does not exist'),
        ("SELECT FROM other", "the query does not use public.run"),
        ("SELECT 100 % 3", "the query does not use public.run"),
    ],
)
def test_what_is_wrong_is_one_line(table: Database, query: str, says: str) -> None:
    done = run(table, query)
    assert done.exit_code == 1
    assert says in done.output
    assert len(done.output.splitlines()) == 1
