"""Archives that are compressed in every way: proven, read again, and refused by programs that cannot read them."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.postgres import Binaries, Database, Server
from partwarden.api.retention import Compression
from partwarden.archive import archived_rows, pgdump
from partwarden.archive.manifest import DATA, MANIFEST
from partwarden.archive.restore import RestoreRequest, restore
from partwarden.archive.verify import open_archive
from partwarden.cli.main import main
from partwarden.errors import ArchiveDamaged, ClientCannotRead, ProofFailed
from partwarden.postgres.conninfo import from_dsn
from support import archived, zoo

SPECIMEN = "by date"
CALLED, MINOR = 11, 6
"""Where the header of a dump says how it is compressed, from PostgreSQL 16 on, and of which version it is."""
NUMBERS = {Compression.NONE: 0, Compression.GZIP: 1, Compression.ZSTD: 3}


def client(monkeypatch: pytest.MonkeyPatch, binaries: Binaries) -> None:
    monkeypatch.setenv(pgdump.FOLDER, str(binaries.folder / "bin"))


def folder(url: str) -> Path:
    return Path(url.removeprefix("file://"))


def rewrite(url: str, **fields: object) -> None:
    """The manifest, with these fields changed; None takes one away."""
    path = folder(url) / MANIFEST
    document = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))


@pytest.fixture
def older(shared_server: Callable[[int], Server]) -> Server:
    """A server of the major of the programs that know zstd."""
    return shared_server(Binaries.with_zstd().major)


def test_by_zstd(older: Server, pg_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with older.new_database() as database:
        specimen = zoo.build(database, SPECIMEN)
        client(monkeypatch, Binaries.with_zstd())
        made = archived.archive(database, specimen, tmp_path)
        assert made.manifest.compression is Compression.ZSTD
        assert made.manifest.reader == "pg_restore of PostgreSQL 17 or newer, built with zstd"
        assert (folder(made.url) / DATA).read_bytes()[CALLED] == NUMBERS[Compression.ZSTD]
        made.prove()
        request = RestoreRequest(schema="public", name="again")
        assert restore(made, from_dsn(pg_database.dsn), request, lambda line: None).rows == specimen.rows
    client(monkeypatch, Binaries.wheel())
    with pytest.raises(ClientCannotRead) as refused:
        open_archive(made.url).prove()
    said = str(refused.value)
    assert said.startswith(f"cannot read the archive at {made.url}: {pgdump.find('pg_restore')} cannot read this ")
    assert "it needs pg_restore of PostgreSQL 17 or newer, built with zstd: use an image, or a folder" in said
    # Bytes that are others are the worse news, whatever can be made of them.
    data = folder(made.url) / DATA
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ArchiveDamaged, match="was changed"):
        open_archive(made.url).prove()


@pytest.mark.parametrize("wanted", Compression)
def test_by_programs_without_zstd(
    pg_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: Compression
) -> None:
    specimen = zoo.build(pg_database, SPECIMEN)
    client(monkeypatch, Binaries.wheel())
    said: list[str] = []
    made = archived.archive(pg_database, specimen, tmp_path, compression=wanted, say=said.append)
    assert made.manifest.compression is (Compression.GZIP if wanted is Compression.ZSTD else wanted)
    assert made.manifest.reader == "pg_restore of PostgreSQL 18 or newer"
    assert any("compressed by gzip: pg_dump 18" in line for line in said) == (wanted is Compression.ZSTD)
    made.prove()
    assert (folder(made.url) / DATA).read_bytes()[CALLED] == NUMBERS[made.manifest.compression]


@pytest.mark.parametrize(("level", "header"), [("1", b"\x78\x01"), ("9", b"\x78\xda")])
def test_the_level_that_is_asked_for_is_that_of_the_dump(
    pg_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str, header: bytes
) -> None:
    """As zlib says it in the first two bytes of what it compressed: https://www.rfc-editor.org/rfc/rfc1950"""
    client(monkeypatch, Binaries.wheel())
    zoo.build(pg_database, SPECIMEN)
    command = ["archive", "--dsn", pg_database.dsn, "--partition", "zoo_2020", "--to", str(tmp_path)]
    done = CliRunner().invoke(main, [*command, "--compression", "Gzip", "--compression-level", level])
    assert done.exit_code == 0, done.output
    data, found = (folder(done.stdout.strip()) / DATA).read_bytes(), set[bytes]()
    for at in (at for at, byte in enumerate(data) if byte == header[0]):
        with suppress(zlib.error):
            if b"2020-" in zlib.decompressobj().decompress(data[at:]):
                found.add(data[at : at + 2])
    assert found == {header}


@pytest.mark.parametrize("format_", [1, 2])
def test_an_archive_from_before_the_choice(
    pg_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: int
) -> None:
    specimen = zoo.build(pg_database, SPECIMEN)
    client(monkeypatch, Binaries.wheel())
    made = archived.archive(pg_database, specimen, tmp_path, compression=Compression.GZIP)
    rewrite(made.url, compression=None, reader=None, format=format_)
    old = open_archive(made.url)
    assert (old.manifest.format, old.manifest.compression) == (format_, Compression.GZIP)
    old.prove()
    request = RestoreRequest(schema="public", name="again")
    assert restore(old, from_dsn(pg_database.dsn), request, lambda line: None).rows == specimen.rows


def test_a_dump_of_a_newer_pg_dump(pg_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client(monkeypatch, Binaries.wheel())
    made = archived.archive(pg_database, zoo.build(pg_database, SPECIMEN), tmp_path)
    data = folder(made.url) / DATA
    content = bytearray(data.read_bytes())
    content[MINOR] = 99
    data.write_bytes(content)
    rewrite(made.url, sha256=hashlib.sha256(content).hexdigest(), clientVersion="21.3")
    with pytest.raises(ClientCannotRead, match=r"unsupported version \(1\.99\).* it needs pg_restore of PostgreSQL 21"):
        open_archive(made.url).prove()


@pytest.mark.parametrize("rows", [200_000, 1], ids=["rows without end", "a row without end"])
def test_few_bytes_that_unpack_to_far_more_than_was_archived_are_read_no_further(
    pg_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """The manifest says that they are the bytes that were written: so only what they unpack to tells."""
    client(monkeypatch, Binaries.wheel())
    pg_database.execute("CREATE TABLE zoo_2020 (t text); INSERT INTO zoo_2020 VALUES ('x')")
    made = archived.archive(pg_database, zoo.Specimen("", 1), tmp_path)
    value = f"repeat('x', {200_000_000 // rows})"
    pg_database.execute(f"TRUNCATE zoo_2020; INSERT INTO zoo_2020 SELECT {value} FROM generate_series(1, {rows})")
    bomb = archived.archive(pg_database, zoo.Specimen("", rows), tmp_path, id_="b" * 12)
    pg_database.execute("DROP TABLE zoo_2020")
    content = (folder(bomb.url) / DATA).read_bytes()
    assert len(content) < 2_000_000
    (folder(made.url) / DATA).write_bytes(content)
    rewrite(made.url, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    monkeypatch.setattr(archived_rows, "LONGEST_LINE", 10_000_000)
    forged = open_archive(made.url)
    with pytest.raises(ProofFailed, match="unpacks to more than the 1 rows"):
        forged.prove()
    read: list[int] = []
    with forged.rows() as pieces, pytest.raises(ProofFailed, match="unpacks to more"):
        read.extend(map(len, pieces))
    assert sum(read) < 20_000_000
    request = RestoreRequest(schema="public", name="again")
    with pytest.raises(ProofFailed, match="unpacks to more"):
        restore(forged, from_dsn(pg_database.dsn), request, lambda line: None)
    assert pg_database.query("SELECT FROM pg_class WHERE relname = 'again'") == []
