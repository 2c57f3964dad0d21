"""The output and errors of ``partwarden restore``."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lab.postgres import Database
from partwarden.archive import verify
from partwarden.archive.manifest import DATA, MANIFEST
from partwarden.cli.main import main
from partwarden.errors import ArchiveDamaged
from support import zoo
from support.archived import archive, use_client


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump and pg_restore of the newest major."""
    use_client(monkeypatch)


@pytest.fixture
def url(pg_database: Database, tmp_path: Path) -> str:
    """Of an archive of a table that is gone."""
    found = archive(pg_database, zoo.build(pg_database, "by seconds"), tmp_path)
    pg_database.execute("DROP TABLE zoo_2020")
    return found.url


def partwarden(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["restore", *arguments], catch_exceptions=False)


def test_restore_reports_progress_and_result(url: str, pg_database: Database) -> None:
    done = partwarden("--manifest", url, "--dsn", pg_database.dsn)
    assert (done.exit_code, done.stdout) == (
        0,
        "restored public.zoo_2020, a table of its own: 12 rows, equal to the archive\n",
    )
    said = [line.split()[0] for line in done.stderr.splitlines()]
    assert said == ["public.zoo_2020,", "checking", "loading", "comparing"]


def test_restore_of_a_large_archive_reports_progress(
    url: str, pg_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "QUICK", 0)
    done = partwarden("--manifest", url, "--dsn", pg_database.dsn)
    assert done.exit_code == 0
    assert done.stderr.count("100 %: ") == 2
    checked = CliRunner().invoke(main, ["verify", url], catch_exceptions=False)
    assert (checked.exit_code, checked.stderr.count("100 %: ")) == (0, 1)


def test_a_byte_more_which_pg_restore_leaves_is_not_proven(url: str) -> None:
    archive = verify.open_archive(url)
    with pytest.raises(ArchiveDamaged):
        replace(archive, open=lambda: chain(archive.open(), [b"x"])).prove()


def test_what_changes_between_two_readings_is_not_restored(url: str) -> None:
    """The first reading finds all as it was written; by the second there is a byte more."""
    archive, more = verify.open_archive(url), iter([b"", b"x"])
    changing = replace(archive, open=lambda: chain(archive.open(), [next(more)]))
    changing.check()
    with pytest.raises(ArchiveDamaged), changing.rows() as rows:
        list(rows)


def test_attached_under_another_name_from_the_manifest(url: str, pg_database: Database) -> None:
    arguments = (
        "--manifest",
        f"{url}/{MANIFEST}",
        "--dsn",
        pg_database.dsn,
        "--attach",
        "--as",
        "zoo_old",
        "-o",
        "json",
    )
    done = partwarden(*arguments)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == {
        "schema": "public",
        "name": "zoo_old",
        "rows": 12,
        "attachedTo": "public.zoo",
        "typesCreated": [],
        "leftOff": [],
    }
    assert pg_database.query("SELECT count(*) FROM zoo") == [(12,)]
    # Again: it is there now.
    again = partwarden(*arguments)
    assert again.exit_code == 1
    assert json.loads(again.stdout)["error"]["reason"] == "NameTaken"


def test_the_list_names_every_archive_below_an_address(url: str, tmp_path: Path) -> None:
    done = partwarden("--manifest", str(tmp_path), "--list")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == url
    assert "public.zoo_2020, [2020-01-01, 2021-01-01): 12 rows" in done.stdout
    (manifest,) = json.loads(partwarden("--manifest", url, "--list", "-o", "json").stdout)
    assert manifest["rows"] == 12
    assert partwarden("--manifest", str(tmp_path / "nothing"), "--list").exit_code == 1


def test_what_cannot_be_read_hides_nothing_in_a_list(url: str, tmp_path: Path) -> None:
    other = tmp_path / "another"
    for name, text in (("a", "{"), ("z", "no manifest")):
        (other / name).mkdir(parents=True)
        (other / name / MANIFEST).write_text(text)
    for output in ("text", "json"):
        done = partwarden("--manifest", str(tmp_path), "--list", "-o", output)
        assert done.exit_code == 1
        assert "zoo_2020" in done.stdout
        assert [line.split()[1] for line in done.stderr.splitlines()] == [
            f"file://{other}/{name}/{MANIFEST}" for name in ("a", "z")
        ]


def test_a_location_on_a_claim_says_what_to_type() -> None:
    for arguments in (("--list",), ("--dsn", "")):
        done = partwarden("--manifest", "pvc://archives/db/public.run/run_2019/a1", *arguments)
        assert done.exit_code == 1
        (typed,) = [line for line in done.stderr.splitlines() if line.startswith("  kubectl run ")]
        assert typed.endswith(" -- restore --manifest=/archives/db/public.run/run_2019/a1 --list")
        assert '"claimName": "archives"' in typed


@pytest.mark.parametrize("arguments", [(), ("--list", "--dsn", ""), ("--dsn", "", "--parent", "zoo")])
def test_wrong_usage_ends_with_1(url: str, arguments: tuple[str, ...]) -> None:
    done = partwarden("--manifest", url, *arguments)
    assert done.exit_code == 1
    assert "Usage:" in done.stderr


@pytest.mark.parametrize("where", ["first", "last", "cut"])
def test_an_object_that_is_damaged_is_not_loaded(url: str, pg_database: Database, where: str) -> None:
    path = Path(url.removeprefix("file://"), DATA)
    data = bytearray(path.read_bytes())
    if where == "cut":
        del data[-10:]
    else:
        data[0 if where == "first" else -1] ^= 1
    path.write_bytes(data)
    done = partwarden("--manifest", url, "--dsn", pg_database.dsn)
    assert done.exit_code == 1
    assert "data.dump was changed: it has" in done.stderr
    assert "loading" not in done.stderr
    assert pg_database.query("SELECT to_regclass('zoo_2020')") == [(None,)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: "", "is not a manifest"),
        (lambda text: "{}", "is not a manifest"),
        (lambda text: text.replace('"format": 2', '"format": 3'), "is not a manifest"),
        (lambda text: text.replace("zoo_2020", "zoo_2021"), "the rows of another table, or of other columns"),
        (lambda text: text.replace('"rows": 12', '"rows": 13'), "not 13"),
    ],
)
def test_a_manifest_that_is_wrong_restores_nothing(url: str, pg_database: Database, change: object, words: str) -> None:
    path = Path(url.removeprefix("file://"), MANIFEST)
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    done = partwarden("--manifest", url, "--dsn", pg_database.dsn)
    assert done.exit_code == 1
    assert words in done.stderr
    assert pg_database.query("SELECT to_regclass('zoo_2020'), to_regclass('zoo_2021')") == [(None, None)]


@pytest.mark.parametrize("wrong", ["ftp://bucket/prefix", "pvc://claim/folder", "/nowhere/at/all", ""])
def test_an_unreadable_address_is_reported(pg_database: Database, wrong: str) -> None:
    done = partwarden("--manifest", wrong, "--dsn", pg_database.dsn)
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")


def test_no_password_is_shown(url: str, pg_database: Database) -> None:
    dsn = pg_database.dsn.replace(pg_database.server.password, "s3cret")
    done = partwarden("--manifest", url, "--dsn", dsn)
    assert done.exit_code == 1
    assert "s3cret" not in done.output
