"""Each command says the way out of a table that cannot be managed, and finds one in another schema."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from lab.postgres import Database
from partwarden.cli.main import main

COMMANDS = [("list",), ("stats",), ("health",), ("explain", "SELECT * FROM {table}"), ("create", "2031"), ("auto", "2")]
KEYS = {
    "LIST (region)": "is partitioned by LIST; only RANGE can be managed: where its partitions are partitioned by RANGE "
    "themselves, make a policy for each of them (spec.table.name), else make a new table PARTITION BY RANGE",
    "HASH (id)": "is partitioned by HASH; only RANGE can be managed",
    "RANGE (region, at)": "is partitioned by 2 columns or expressions; only a single column can be managed: make a new "
    "table PARTITION BY RANGE on one column that says when, and move the rows",
    "RANGE ((at::date))": "is partitioned by an expression; only a plain column can be managed: make a new table",
}


def said(database: Database, command: tuple[str, ...], *options: str) -> str:
    done = CliRunner().invoke(main, [*command, "--dsn", database.dsn, *options])
    assert done.exit_code in (1, 2), done.output
    assert "Traceback" not in done.output
    return done.output


@pytest.fixture(params=KEYS)
def odd(request: pytest.FixtureRequest, database: Database) -> tuple[Database, str]:
    key = str(request.param)
    database.execute(f"CREATE TABLE odd (id int, region text, at timestamp) PARTITION BY {key}")
    return database, KEYS[key]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: each[0])
def test_the_way_out_is_said_by_every_command(odd: tuple[Database, str], command: tuple[str, ...]) -> None:
    database, words = odd
    text = said(database, tuple(each.format(table="odd") for each in command), "--table", "odd")
    assert f"public.odd {words}" in text


def test_it_is_said_of_a_policy_too(odd: tuple[Database, str], tmp_path: Path) -> None:
    database, words = odd
    file = tmp_path / "policy.yaml"
    whole = {"apiVersion": "partwarden.dev/v1alpha1", "kind": "PartitionPolicy", "metadata": {"name": "odd"}}
    file.write_text(yaml.safe_dump({**whole, "spec": {"table": {"name": "odd"}}}))
    assert f"public.odd {words}" in said(database, ("plan", "-f", str(file)))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: each[0])
def test_a_table_of_another_schema_is_found(database: Database, command: tuple[str, ...]) -> None:
    database.execute("CREATE SCHEMA app; CREATE TABLE app.run (at timestamptz NOT NULL) PARTITION BY RANGE (at)")
    text = said(database, tuple(each.format(table="app.run") for each in command), "--table", "run")
    assert text.rstrip().endswith("; did you mean app.run?")
