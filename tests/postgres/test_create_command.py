"""``partwarden create`` and ``auto``: the two commands of the script that they replace, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from lab.postgres import Database
from lab.site import partitions
from partwarden.cli.main import main
from support.encoded import NATIVE, keep

YEAR = datetime.now(UTC).year


def run(database: Database, *arguments: str) -> Result:
    done = CliRunner().invoke(main, [*arguments, "--dsn", database.dsn])
    assert "Traceback" not in done.output
    return done


@pytest.fixture
def yearly(database: Database) -> Database:
    """run, with the partition of this year only."""
    database.execute(NATIVE[0].table)
    keep(database, None, interval="Year", premake=0)
    return database


def test_create_makes_a_year_once(yearly: Database) -> None:
    done = run(yearly, "create", str(YEAR + 3))
    assert (done.exit_code, done.output) == (0, f"created partition public.run_{YEAR + 3}\n")
    assert partitions(yearly) == [f"run_{YEAR}", f"run_{YEAR + 3}"]
    done = run(yearly, "create", str(YEAR + 3))
    assert (done.exit_code, done.output) == (0, "Nothing to do: what is asked for is there.\n")


def test_a_period_may_hold_several(database: Database) -> None:
    database.execute(NATIVE[0].table)
    keep(database, None, interval="Month", premake=0)
    before = partitions(database)
    assert run(database, "create", f"{YEAR + 2}-Q2").exit_code == 0
    assert sorted({*partitions(database)} - {*before}) == [f"run_{YEAR + 2}_{month:02}" for month in (4, 5, 6)]


def test_create_makes_the_past_too_and_holes_between_stay(yearly: Database) -> None:
    assert run(yearly, "create", "2015").exit_code == 0
    assert partitions(yearly) == ["run_2015", f"run_{YEAR}"]


def test_create_makes_a_number_of_intervals_ahead(yearly: Database) -> None:
    done = run(yearly, "auto", "2")
    assert done.output == "".join(f"created partition public.run_{YEAR + n}\n" for n in (1, 2))
    assert run(yearly, "auto", "2").output == "Nothing to do: what is asked for is there.\n"
    assert run(yearly, "auto", "0").exit_code == 0
    assert partitions(yearly) == [f"run_{YEAR + n}" for n in range(3)]


def test_create_does_nothing_else_of_a_policy(yearly: Database, tmp_path: Path) -> None:
    """Neither its retention, nor what it has ahead, nor its mode."""
    yearly.execute("CREATE TABLE run_2001 PARTITION OF run FOR VALUES FROM ('2001-01-01Z') TO ('2002-01-01Z')")
    spec = {"table": {"name": "run"}, "premake": 5, "mode": "Plan", "retention": {"keepFor": "1y", "grace": "0s"}}
    whole = {"apiVersion": "partwarden.dev/v1alpha1", "kind": "PartitionPolicy", "metadata": {"name": "run"}}
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump({**whole, "spec": spec}))
    assert run(yearly, "create", str(YEAR + 2), "-f", str(file)).exit_code == 0
    assert partitions(yearly) == ["run_2001", f"run_{YEAR}", f"run_{YEAR + 2}"]


def test_rows_in_default_prevent_creation_and_are_reported(yearly: Database) -> None:
    yearly.execute(f"CREATE TABLE rest PARTITION OF run DEFAULT; INSERT INTO run VALUES ('{YEAR + 1}-05-05Z')")
    done = run(yearly, "create", str(YEAR + 1))
    assert done.exit_code == 1
    assert "DEFAULT" in done.output
    assert partitions(yearly) == ["rest", f"run_{YEAR}"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("create", "soon"), "'soon' is no period: it must be a period such as"),
        (("create", "2027", "--table", "none"), "there is no partitioned table public.none"),
        (("auto", "many"), "not a valid integer"),
    ],
)
def test_what_is_wrong_is_one_line(yearly: Database, arguments: tuple[str, ...], says: str) -> None:
    done = run(yearly, *arguments)
    assert done.exit_code == 1
    assert says in done.output


def test_create_asks_which_of_several_tables(yearly: Database) -> None:
    yearly.execute("CREATE TABLE other (at date) PARTITION BY RANGE (at)")
    done = run(yearly, "auto", "1")
    assert done.exit_code == 1
    assert "there are 2 tables that can be managed: name one by --table (public.other, public.run)" in done.output
    assert run(yearly, "auto", "1", "--table", "run").exit_code == 0
