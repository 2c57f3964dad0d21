"""``partwarden timeline`` and ``report`` on a database: the table as it is now, and what its policy would do."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.cells import cell_len

from lab.postgres import Database
from partwarden.cli.main import main
from support.table_of_years import make_table

YEAR = datetime.now(UTC).year
OLD = YEAR - 6
POLICY = f"""\
apiVersion: partwarden.dev/v1alpha1
kind: PartitionPolicy
metadata: {{name: run}}
spec:
  table: {{name: run}}
  premake: 2
  startFrom: "{YEAR - 3}-01-01"
  retention: {{keepFor: 2y, onExpire: Drop, dropWithoutArchive: true, grace: 1000h}}
"""


@pytest.fixture
def table(database: Database) -> Database:
    """run by year, from six years ago to this one, and a DEFAULT partition."""
    make_table(database, range(OLD, YEAR + 1))
    database.execute("CREATE TABLE rest PARTITION OF run DEFAULT")
    return database


@pytest.fixture
def file(tmp_path: Path) -> str:
    """The policy's."""
    (tmp_path / "run.yaml").write_text(POLICY)
    return str(tmp_path / "run.yaml")


def run(database: Database, *arguments: str) -> Result:
    done = CliRunner().invoke(main, [arguments[0], "--dsn", database.dsn, *arguments[1:]], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def entries(database: Database, *arguments: str) -> dict[str, dict[str, Any]]:
    (found,) = json.loads(run(database, "timeline", "-o", "json", *arguments).stdout)
    return {each["name"]: each for each in found["partitions"]}


def test_each_partition_has_a_line_of_at_most_80_columns(table: Database) -> None:
    shown = run(table, "timeline").output.splitlines()
    assert re.fullmatch(r"public\.run by \S+, Year, UTC", shown[0])
    assert shown[1].endswith(f"; 0 years ahead, until {YEAR + 1}-01-01")
    assert max(map(cell_len, shown)) <= 80
    assert any(each.startswith(f"▸ run_{YEAR} ") and "Current" in each for each in shown)
    assert shown[-1].startswith("  rest")
    assert not any("now" in each.split() for each in shown[4:])


def test_with_a_policy_each_says_what_comes_next(table: Database, file: str) -> None:
    found = entries(table, "-f", file)
    assert found[f"run_{YEAR + 1}"]["state"] == "Planned"
    assert found[f"run_{YEAR + 1}"]["next"] == {"action": "create", "at": None, "waitsFor": []}
    assert found[f"run_{OLD}"]["state"] == "Expired"
    assert found[f"run_{OLD}"]["next"]["action"] == "detach"
    assert found[f"run_{YEAR}"]["next"]["action"] == "expires"
    assert found[f"run_{YEAR}"]["next"]["at"] == f"{YEAR + 3}-01-01T00:00:00Z"


def test_a_detached_table_says_when_it_is_dropped(table: Database, file: str) -> None:
    run(table, "apply", "-f", file)
    gone = entries(table, "-f", file)[f"run_{OLD}"]
    assert (gone["state"], gone["next"]["action"]) == ("Detached", "drop")
    assert datetime.fromisoformat(gone["next"]["at"]) > datetime.now(UTC)
    assert "drop in 41 d" in run(table, "timeline", "-f", file).output


def test_as_names(table: Database) -> None:
    assert run(table, "timeline", "-o", "name").output.split() == [
        *(f"run_{year}" for year in range(OLD, YEAR + 1)),
        "rest",
    ]


def test_many_partitions_are_folded_unless_all_are_asked_for(database: Database) -> None:
    make_table(database, range(YEAR - 40, YEAR + 1))
    assert "… 34 older, " in run(database, "timeline").output
    assert run(database, "timeline", "--all").output.count(" run_") == 41


def test_names_that_would_steer_a_terminal_or_a_page_are_text(database: Database, tmp_path: Path) -> None:
    make_table(database, range(YEAR, YEAR + 1))
    name = "<script>alert(1)</script>\x1b[2J\n"
    database.execute(f'ALTER TABLE run_{YEAR} RENAME TO "{name}"')
    assert "\x1b" not in run(database, "timeline").output
    text = run(database, "report", "--html", "-").output
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_report_is_one_file(table: Database, file: str, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    assert run(table, "report", "-f", file, "--html", str(target)).output == f"wrote {target}: 1 table\n"
    text = target.read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert "public.run: partitions by size over time" in text
    assert run(table, "report", "-f", file, "--html", "-").output.startswith("<!DOCTYPE html>")


def test_a_report_that_cannot_be_written_says_why(table: Database, tmp_path: Path) -> None:
    target = tmp_path / "none" / "report.html"
    done = CliRunner().invoke(main, ["report", "--dsn", table.dsn, "--html", str(target)])
    assert done.exit_code == 1
    assert f"cannot write {target}: No such file or directory; name another file by --html" in done.output
