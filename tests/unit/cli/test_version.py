"""What `partwarden version` says of the pg_dump that it finds."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from partwarden import __version__
from partwarden.archive import pgdump
from partwarden.cli.main import main
from partwarden.errors import ClientTooOld


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(pgdump.FOLDER, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("pg_dump (PostgreSQL) 18.6 (Debian 18.6-3)", "pg_dump 18.6 reads PostgreSQL 14 to 18"),
        ("pg_dump (PostgreSQL) 19beta1", "pg_dump 19beta1 reads PostgreSQL 14 to 19"),
        ("pg_dump (PostgreSQL) 14.23", "pg_dump 14.23 reads PostgreSQL 14"),
        (
            "pg_dump (PostgreSQL) 13.4",
            "no archives: pg_dump 13.4 reads no server that Partwarden supports, PostgreSQL 14 and newer",
        ),
    ],
)
def test_it_names_the_majors_that_pg_dump_reads(programs: Path, said: str, expected: str) -> None:
    (programs / "pg_dump").write_text(f"#!/bin/sh\necho '{said}'\n")
    (programs / "pg_dump").chmod(0o755)
    done = CliRunner().invoke(main, ["version"])
    assert (done.exit_code, done.stdout) == (0, f"partwarden {__version__}\n{expected}\n")


def test_it_says_why_there_is_no_pg_dump(programs: Path) -> None:
    done = CliRunner().invoke(main, ["version"])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1].startswith(f"no archives: pg_dump is not in {programs}, which PARTWARDEN_PG_BIN")


@pytest.mark.parametrize("newer", ["19.0", "19beta1 (Debian 19~beta1-1)"])
def test_a_server_of_the_next_major_is_named_with_what_is_needed(newer: str) -> None:
    with pytest.raises(ClientTooOld) as caught:
        pgdump.check_version("18.6", newer)
    assert str(caught.value).startswith(f"pg_dump 18.6 is older than the server, {newer}: it refuses such a server; ")
    assert str(caught.value).endswith("with the client programs of PostgreSQL 19 or newer")
