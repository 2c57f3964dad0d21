"""A table that Partwarden detached keeps its bounds in its archive, and becomes the partition again that it was."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lab.postgres import Database
from partwarden.archive.manifest import ArchiveManifest
from partwarden.archive.verify import open_archive
from partwarden.cli.main import main
from support.archived import use_client
from support.encoded import BY_OTHERS, ENCODED, NATIVE, Key, keep
from support.retirement import comment, set_comment

NOW = datetime(2026, 10, 24, 12, tzinfo=UTC)
DEFAULT = "CREATE TABLE run_rest PARTITION OF run DEFAULT"
FORMS = pytest.mark.parametrize(
    ("key", "form"),
    [
        *(pytest.param(key, "", id=str(key)) for key in (*NATIVE, *ENCODED, *BY_OTHERS)),
        *(pytest.param(key, DEFAULT, id=f"{key} with DEFAULT") for key in (NATIVE[0], ENCODED[3])),
    ],
)
"""All keys; with DEFAULT it is another form of detach."""
FROM, TO = "2018-01-01Z", "2019-01-01Z"


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    use_client(monkeypatch)


def build(database: Database, key: Key, more: str = "") -> None:
    """run, by year, with a row of May in 2018."""
    database.execute(f"""{key.table}
        CREATE TABLE run_2018 PARTITION OF run FOR VALUES
          FROM ('{key.literal(database, FROM)}') TO ('{key.literal(database, TO)}');
        INSERT INTO run VALUES ({key.value("timestamptz '2018-05-05Z'")}, 'x'); {more}""")


def detach(database: Database, key: Key) -> None:
    fields: dict[str, Any] = {"startFrom": "2026-01-01", "premake": 0, "retention": {"keepFor": "5y"}}
    report = keep(database, NOW, keyEncoding=key.encoding, **fields)
    assert [(each.action.verb, each.error) for each in report.outcomes][-1:] == [("detach", None)]


def done(database: Database, *arguments: str) -> str:
    result = CliRunner().invoke(main, [*arguments, "--dsn", database.dsn])
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def archived(database: Database, folder: Path) -> tuple[str, ArchiveManifest]:
    """By hand; its address, and what is written down of it."""
    url = done(database, "archive", "--partition", "run_2018", "--to", str(folder))
    return url, open_archive(url).manifest


def bounds(database: Database) -> object:
    ((text,),) = database.query("SELECT pg_get_expr(relpartbound, 0) FROM pg_class WHERE relname = 'run_2018'")
    return text


@FORMS
def test_an_archive_after_the_detach_has_the_origin_of_one_before_it(
    database: Database, tmp_path: Path, key: Key, form: str
) -> None:
    build(database, key, form)
    before, was = archived(database, tmp_path)[1], bounds(database)
    detach(database, key)
    url, after = archived(database, tmp_path)
    assert after.bounds is not None
    assert (after.bounds, after.key) == (before.bounds, before.key)
    assert after.parent == before.parent
    assert "CREATE TABLE public.run (" in after.parent_ddl
    rows = database.query("SELECT * FROM run_2018")
    database.execute("DROP TABLE run_2018")
    done(database, "restore", "--manifest", url, "--attach")
    assert (bounds(database), database.query("SELECT * FROM run_2018")) == (was, rows)


def test_a_detached_table_is_dropped_and_restored_attached_from_its_archive(database: Database, tmp_path: Path) -> None:
    build(database, NATIVE[0])
    was = bounds(database)
    detach(database, NATIVE[0])
    url, _ = archived(database, tmp_path)
    done(database, "drop", "run_2018", "--archive", url, "--yes", "--table", "run")
    assert database.query("SELECT to_regclass('run_2018')") == [(None,)]
    done(database, "restore", "--manifest", url, "--attach")
    assert bounds(database) == was


@pytest.mark.parametrize("key", [*NATIVE, *ENCODED], ids=str)
def test_without_the_check_constraint_the_key_type_and_the_rows_give_the_bounds(
    database: Database, tmp_path: Path, key: Key
) -> None:
    build(database, key)
    before = archived(database, tmp_path)[1]
    detach(database, key)
    ((check,),) = database.query(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'run_2018'::regclass AND contype = 'c'"
    )
    database.execute(f'ALTER TABLE run_2018 DROP CONSTRAINT "{check}"')
    after = archived(database, tmp_path)[1]
    assert (after.bounds, after.key, after.parent) == (before.bounds, before.key, before.parent)


def test_an_ambiguous_epoch_key_gives_no_bounds(database: Database, tmp_path: Path) -> None:
    key = ENCODED[1]
    build(database, key)
    detach(database, key)
    ((check,),) = database.query(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'run_2018'::regclass AND contype = 'c'"
    )
    database.execute(f'ALTER TABLE run_2018 DROP CONSTRAINT "{check}"; TRUNCATE run_2018')
    assert archived(database, tmp_path)[1].bounds is None


MARKS = {
    "of another table": ('"oid": ', '"oid": 1'),
    "of another parent": ('"parent": ', '"parent": 1'),
    "no mark": ("partwarden.dev/detached", "partwarden.dev/other"),
    "no moments": ('"from": "2018', '"from": "99999'),
    "moments of another kind": ("00:00:00Z", "00:00:00"),
}


@pytest.mark.parametrize("what", MARKS)
def test_an_invalid_mark_gives_no_origin(database: Database, tmp_path: Path, what: str) -> None:
    key = NATIVE[0]
    build(database, key)
    detach(database, key)
    said = comment(database)
    assert said is not None
    assert MARKS[what][0] in said
    set_comment(database, said.replace(*MARKS[what]))
    assert archived(database, tmp_path)[1].bounds is None


def test_a_mark_on_a_table_of_another_owner_gives_no_origin(database: Database, tmp_path: Path) -> None:
    build(database, NATIVE[0])
    detach(database, NATIVE[0])
    database.execute(f"ALTER TABLE run_2018 OWNER TO {database.new_role().name}")
    assert archived(database, tmp_path)[1].bounds is None


def test_a_table_made_by_the_user_has_no_origin(database: Database, tmp_path: Path) -> None:
    database.execute("CREATE TABLE run_2018 (at timestamptz)")
    found = archived(database, tmp_path)[1]
    assert (found.bounds, found.key, found.parent) == (None, None, None)


def test_a_detached_table_is_not_archived_as_a_partition_of_another_table(database: Database, tmp_path: Path) -> None:
    build(database, NATIVE[0], "CREATE TABLE other (LIKE run) PARTITION BY RANGE (key)")
    detach(database, NATIVE[0])
    arguments = ["archive", "--partition", "run_2018", "--table", "other", "--to", str(tmp_path)]
    result = CliRunner().invoke(main, [*arguments, "--dsn", database.dsn])
    assert result.exit_code == 1
    assert "public.run_2018 is a partition of public.run, not of public.other" in result.output
