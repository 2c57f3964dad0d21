"""Whether pg_dump compresses by zstd is found out from its answer, not from its version."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.postgres import Binaries
from partwarden.api.retention import Compression
from partwarden.archive import compression, pgdump
from partwarden.archive.compression import Dumper, choose, reader
from partwarden.errors import ClientMissing


def use(monkeypatch: pytest.MonkeyPatch, binaries: Binaries) -> None:
    monkeypatch.setenv(pgdump.FOLDER, str(binaries.folder / "bin"))
    # What the environment says of a server is not asked for.
    monkeypatch.setenv("PGHOST", "/tmp")  # noqa: S108 - nothing is made there
    monkeypatch.setenv("PGOPTIONS", "--nonsense")


def test_one_that_was_built_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Binaries.with_zstd())
    found = choose(Compression.ZSTD)
    assert (found.compression, found.why_not) == (Compression.ZSTD, "")
    assert found.options == (f"--compress=zstd:{compression.LEVEL}",)


def test_the_level_that_was_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Binaries.with_zstd())
    assert choose(Compression.ZSTD, 19).options == ("--compress=zstd:19",)
    # Of a number alone every version knows that it is gzip's.
    assert choose(Compression.GZIP, 9).options == ("--compress=9",)


def test_a_newer_one_that_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Binaries.wheel())
    found = choose(Compression.ZSTD)
    assert (found.compression, found.options) == (Compression.GZIP, ())
    assert found.why_not.startswith(f"pg_dump {found.version} cannot compress by zstd: ")
    assert "this build does not support compression with ZSTD" in found.why_not


def test_one_that_does_not_know_the_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of 15 and older, as they answer."""
    program = tmp_path / "pg_dump"
    program.write_text(
        "#!/bin/sh\ncase \"$*\" in\n*version*) echo 'pg_dump (PostgreSQL) 15.18';;\n"
        "*zstd*) echo 'pg_dump: error: invalid value \"zstd:19\" for option -Z/--compress' >&2; exit 1;;\n"
        "*) echo 'pg_dump: error: connection failed' >&2; exit 1;;\nesac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv(pgdump.FOLDER, str(tmp_path))
    why = 'pg_dump 15.18 cannot compress by zstd: invalid value "zstd:19" for option -Z/--compress'
    assert choose(Compression.ZSTD, 19) == Dumper("15.18", Compression.GZIP, why_not=why)


@pytest.mark.parametrize("wanted", [Compression.GZIP, Compression.NONE])
def test_what_every_one_can_is_not_asked(monkeypatch: pytest.MonkeyPatch, wanted: Compression) -> None:
    use(monkeypatch, Binaries.wheel())
    monkeypatch.setattr(compression, "_ask", None)
    assert choose(wanted).compression is wanted


def test_without_a_pg_dump(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(pgdump.FOLDER, str(tmp_path))
    with pytest.raises(ClientMissing, match="pg_dump is not in"):
        choose(Compression.ZSTD)


def test_what_reads_a_dump() -> None:
    assert reader("17.10", Compression.ZSTD) == "pg_restore of PostgreSQL 17 or newer, built with zstd"
    assert reader("15.18 (Debian)", Compression.GZIP) == "pg_restore of PostgreSQL 15 or newer"
