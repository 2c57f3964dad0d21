"""A manifest is data: nothing in it is executed, and only the proven one is accepted.

The archive is of a table with types of the user, a domain, and generated columns, restored by a superuser, who may do
anything. Each text stands where PostgreSQL would read SQL if it were pasted into a statement.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lab.postgres import MAJORS, Database
from partwarden.archive.manifest import MANIFEST
from partwarden.cli.main import main
from support.archived import archive, use_client
from support.meanwhile import relations
from support.zoo import Specimen

SETUP = """
    CREATE TYPE mood AS ENUM ('ok', 'sad');
    CREATE TYPE place AS (x int, t text COLLATE "C");
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TYPE steps AS RANGE (subtype = float8);
    CREATE TABLE zoo (at date NOT NULL, a int, m mood, p place, n positive, r steps, t text COLLATE "C",
      g int GENERATED ALWAYS AS (a * 2) STORED) PARTITION BY RANGE (at);
    CREATE TABLE zoo_2020 PARTITION OF zoo FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
    INSERT INTO zoo (at, a, m, p, n, r, t) SELECT '2020-01-01', i, 'ok', ROW(i, 'x')::place, i, '[1,2)', 'y'
    FROM generate_series(1, 5) i
"""
HOSTILE = (
    "{}); COPY (SELECT 1) TO PROGRAM 'touch {file}'; --",
    "{}); COMMIT; CREATE ROLE {role} SUPERUSER; BEGIN; SELECT (1",
    "{} DEFAULT (pg_catalog.set_config('search_path', (SELECT pg_read_file('/etc/passwd')), false))",
    '{}"); CREATE ROLE {role} SUPERUSER; --',
    "{}'); CREATE ROLE {role} SUPERUSER; --",
    "{}/* ",
    "{}$x$",
    "",
    "\x1b[2J\x07{}",
)
Path_ = tuple[str | int, ...]
FIELDS: dict[str, Path_] = {
    "a column's name": ("columns", 1, "name"),
    "a column's type": ("columns", 1, "type"),
    "the type of a column of an enum": ("columns", 2, "type"),
    "a column's collation": ("columns", 6, "collation"),
    "an expression": ("columns", 7, "expression"),
    "the partition's name": ("partition", "name"),
    "the partition's schema": ("partition", "schema"),
    "the parent's name": ("parent", "name"),
    "a bound": ("bounds", 0),
    "the key": ("key",),
    "a label": ("types", 0, "labels", 0),
    "a type's name": ("types", 0, "typeName"),
    "a type's whole name": ("types", 0, "name"),
    "a type's schema": ("types", 0, "schema"),
    "an attribute's name": ("types", 1, "attributes", 0, "name"),
    "an attribute's type": ("types", 1, "attributes", 0, "type"),
    "an attribute's collation": ("types", 1, "attributes", 1, "collation", 1),
    "a CHECK of a domain": ("types", 2, "checks", 0, "expression"),
    "the name of a CHECK": ("types", 2, "checks", 0, "name"),
    "a range's subtype": ("types", 3, "attributes", 0, "type"),
    "a multirange": ("types", 3, "multirange", 1),
    "an extension": ("types", 0, "extension"),
    "a generated column": ("generated", "columns", 0),
    "the parent's definition": ("parentDdl",),
    "the identifier": ("id",),
    "a setting": ("settings", "DateStyle"),
    "the server's version": ("serverVersion",),
}


@pytest.fixture(autouse=True)
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump and pg_restore of the newest major."""
    use_client(monkeypatch)


@pytest.fixture
def url(database: Database, tmp_path: Path) -> str:
    """Of an archive in a database that has neither the table nor its types any more."""
    database.execute(SETUP)
    made = archive(database, Specimen("", rows=5), tmp_path)
    database.execute("DROP TABLE zoo_2020; DROP TABLE zoo; DROP TYPE mood, place, steps; DROP DOMAIN positive")
    return made.url


def tamper(url: str, change: Callable[[Any], None]) -> None:
    path = Path(url.removeprefix("file://"), MANIFEST)
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def put(manifest: Any, path: Path_, text: str) -> None:
    """Set the field to the text, in which ``{}`` stands for what the field holds."""
    for step in path[:-1]:
        manifest = manifest[step]
    now = manifest.get(path[-1]) if isinstance(manifest, dict) else manifest[path[-1]]
    manifest[path[-1]] = text.replace("{}", str(now or ""))


def partwarden(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def state(database: Database) -> list[object]:
    """What a program of others could have changed."""
    return [
        relations(database),
        database.query("SELECT rolname, rolsuper FROM pg_roles ORDER BY 1"),
        database.query("SELECT typname FROM pg_type WHERE oid >= 16384 ORDER BY 1"),
        database.query("SELECT proname FROM pg_proc WHERE oid >= 16384 ORDER BY 1"),
    ]


@pytest.mark.parametrize("field", FIELDS)
def test_nothing_of_a_manifest_is_executed(database: Database, url: str, tmp_path: Path, field: str) -> None:
    path, file = Path(url.removeprefix("file://"), MANIFEST), tmp_path / "touched"
    role, original = f"intruder_{database.name}", path.read_text()
    roles = database.query("SELECT rolname FROM pg_roles ORDER BY 1")
    for hostile in HOSTILE if database.server.major == max(MAJORS) else HOSTILE[:2]:
        path.write_text(original)
        text = hostile.replace("{file}", str(file)).replace("{role}", role)
        tamper(url, partial(put, path=FIELDS[field], text=text))
        before = state(database)
        done = partwarden("restore", "--manifest", url, "--dsn", database.dsn, "--as", "zoo_back")
        assert "\x1b" not in done.output
        assert "\x07" not in done.output
        assert not file.exists()
        assert database.query("SELECT rolname FROM pg_roles ORDER BY 1") == roles
        if done.exit_code:
            assert done.stderr.splitlines()[-1].startswith("Error: ")
            assert "DEBUG_PARTWARDEN" not in done.stderr
            assert state(database) == before
        else:
            assert database.query("SELECT count(*) FROM zoo_back") == [(5,)]
            database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")


def test_the_untouched_one_is_restored(database: Database, url: str) -> None:
    done = partwarden("restore", "--manifest", url, "--dsn", database.dsn, "--as", "zoo_back")
    assert done.exit_code == 0
    assert database.query("SELECT sum(g), min(pg_typeof(n)::text) FROM zoo_back") == [(30, "positive")]
    assert "left off" not in done.output


def archived(database: Database, folder: Path) -> dict[str, str]:
    """The report of an archive that was made by hand."""
    given = "--dsn", database.dsn, "--partition", "zoo_2020", "--to", str(folder), "-o", "json"
    report: dict[str, str] = json.loads(partwarden("archive", *given).stdout)
    return report


@pytest.mark.parametrize("command", ["restore", "verify", "drop"])
def test_a_manifest_must_be_the_one_that_was_proven(pg_database: Database, tmp_path: Path, command: str) -> None:
    pg_database.execute(SETUP)
    made = partwarden(
        "archive", "--dsn", pg_database.dsn, "--partition", "zoo_2020", "--to", str(tmp_path), "-o", "json"
    )
    report = json.loads(made.stdout)
    arguments = {
        "restore": ("--manifest", report["location"], "--dsn", pg_database.dsn, "--as", "zoo_back"),
        "verify": (report["location"],),
        "drop": ("zoo_2020", "--dsn", pg_database.dsn, "--table", "zoo", "--archive", report["location"], "--yes"),
    }[command]
    given = "--manifest-sha256", report["manifestSha256"]
    tamper(report["location"], lambda manifest: manifest.update(database="another"))
    before = relations(pg_database)
    done = partwarden(command, *arguments, *given)
    assert done.exit_code == 1
    assert "it was changed" in done.stderr
    assert relations(pg_database) == before
    tamper(report["location"], lambda manifest: manifest.update(database=pg_database.name))
    done = partwarden(command, *arguments, "--manifest-sha256", "0" * 63)
    assert done.exit_code == 1
    assert "64 hexadecimal digits" in done.stderr


def test_the_manifest_that_was_proven_is_taken(pg_database: Database, tmp_path: Path) -> None:
    pg_database.execute(SETUP)
    made = partwarden(
        "archive", "--dsn", pg_database.dsn, "--partition", "zoo_2020", "--to", str(tmp_path), "-o", "json"
    )
    report = json.loads(made.stdout)
    assert (
        partwarden("verify", report["location"], "--manifest-sha256", report["manifestSha256"].upper()).exit_code == 0
    )


@pytest.mark.parametrize("field", ["a column's type", "an expression", "a CHECK of a domain", "an attribute's type"])
def test_verify_refuses_what_is_no_type_and_no_expression(pg_database: Database, tmp_path: Path, field: str) -> None:
    pg_database.execute(SETUP)
    made = archive(pg_database, Specimen("", rows=5), tmp_path)
    assert partwarden("verify", made.url).exit_code == 0
    tamper(made.url, partial(put, path=FIELDS[field], text=HOSTILE[0]))
    done = partwarden("verify", made.url)
    assert done.exit_code == 1
    assert "is not a manifest" in done.stderr


def test_the_reason_why_a_drop_is_refused_writes_no_control_characters(pg_database: Database, tmp_path: Path) -> None:
    pg_database.execute(SETUP)
    made = archive(pg_database, Specimen("", rows=5), tmp_path)
    tamper(made.url, lambda manifest: manifest["partition"].update(oid=1, name="\x1b[2J\nError: dropped"))
    given = "zoo_2020", "--dsn", pg_database.dsn, "--table", "zoo", "--archive", made.url, "--yes"
    done = partwarden("drop", *given)
    assert done.exit_code == 1
    assert "\x1b" not in done.output
    assert "\\x1b[2J\\nError: dropped" in done.stderr
    assert pg_database.query("SELECT count(*) FROM zoo_2020") == [(5,)]
