"""The folder of an archive: its path is one that a file system takes, and of what lies there only files are read, and
no more of them than was written."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path

import pytest

from partwarden.api.archive import Fingerprint
from partwarden.archive.folder import Folder
from partwarden.archive.folder_names import folder, table_of, table_part
from partwarden.archive.manifest import ArchiveManifest, TableName
from partwarden.archive.verify import Archive
from partwarden.errors import ArchiveDamaged

NAMES = ["run", '"' * 63, "日" * 21, "..", "a/b", " " * 63, "%" * 63]


@pytest.mark.parametrize("schema", NAMES)
@pytest.mark.parametrize("name", NAMES)
def test_no_part_is_too_long_or_leads_elsewhere(schema: str, name: str) -> None:
    table = TableName(schema_=schema, name=name, oid=1)
    parts = folder(name, table, table).split("/")
    assert len(parts) == 3
    assert table_of(f"pvc://archives/{'/'.join(parts)}/id-01234567") == table_part(schema, name)
    assert all(0 < len(part.encode()) <= 255 and part.strip(".") for part in parts)


def test_names_that_differ_at_their_end_have_different_folders() -> None:
    table = TableName(schema_="s", name="p", oid=2)
    folders = {folder("db", TableName(schema_='"' * 63, name='"' * 62 + end, oid=1), table) for end in "ab"}
    assert len(folders) == 2


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_read(tmp_path: Path, kind: str) -> None:
    match kind:
        case "pipe":
            os.mkfifo(tmp_path / "data.dump")
        case "device":
            (tmp_path / "data.dump").symlink_to("/dev/zero")
        case _:
            (tmp_path / "data.dump").mkdir()
    with pytest.raises(ArchiveDamaged, match="is not a file"):
        list(Folder(tmp_path).get("data.dump"))


def test_data_without_end_is_damage_and_is_read_no_further() -> None:
    now = datetime.now(UTC)
    manifest = ArchiveManifest(
        id="1",
        database="db",
        partition=TableName(schema_="public", name="run", oid=1),
        columns=(),
        parent_ddl="",
        rows=0,
        bytes=5000,
        sha256="",
        copy_sha256="",
        fingerprint=Fingerprint(algorithm="", rows=0, content=""),
        snapshot="",
        server_version="18",
        client_version="18",
        partwarden_version="1",
        started=now,
        completed=now,
    )
    endless = Archive("file:///a", manifest, "", lambda: repeat(b"x" * 1000), tuple, tuple)
    with pytest.raises(ArchiveDamaged, match="more than the 5000 bytes"):
        endless.check()
