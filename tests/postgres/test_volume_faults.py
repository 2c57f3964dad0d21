"""The volume of archives is full, or read-only: the error says so, nothing is left, and archives there are read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.postgres import Database
from lab.small_disk import SmallDisk, small_volume
from partwarden.archive.verify import open_archive
from partwarden.errors import DestinationDenied, DestinationFull
from support import zoo
from support.archived import archive, use_client

SPECIMEN = zoo.ZOO["by date"]


@pytest.fixture
def volume() -> Iterator[SmallDisk]:
    with small_volume() as made:
        yield made


@pytest.fixture
def plain(pg_database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    use_client(monkeypatch)
    zoo.build(pg_database, "by date")
    return pg_database


def files(disk: SmallDisk) -> list[str]:
    return sorted(each.name for each in disk.folder.rglob("*") if each.is_file())


def test_a_full_one_is_reported_and_leaves_nothing_and_it_is_archived_when_there_is_room(
    plain: Database, volume: SmallDisk
) -> None:
    volume.fill()
    before = files(volume)
    with pytest.raises(DestinationFull, match="No space left on device: make room, or choose a larger volume"):
        archive(plain, SPECIMEN, volume.folder)
    assert files(volume) == before
    volume.free()
    archive(plain, SPECIMEN, volume.folder).check()


def test_a_read_only_one_is_reported_and_archives_there_are_read(plain: Database, volume: SmallDisk) -> None:
    first = archive(plain, SPECIMEN, volume.folder)
    before = files(volume)
    plain.execute("INSERT INTO zoo VALUES ('2020-05-05', 99)")
    volume.allow_writing(allowed=False)
    # Another identifier: the archive of that one is there, but not of what the table holds.
    with pytest.raises(DestinationDenied, match="Read-only file system"):
        archive(plain, SPECIMEN, volume.folder, "0123456789ac")
    open_archive(first.url).check()
    assert files(volume) == before
    volume.allow_writing(allowed=True)
    assert archive(plain, SPECIMEN, volume.folder, "0123456789ac").manifest.rows == SPECIMEN.rows + 1
