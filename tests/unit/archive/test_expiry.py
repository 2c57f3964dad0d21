"""The deletion of an archive: only of what was proven, the manifest first, and from wherever it was interrupted."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from partwarden import errors
from partwarden.api.archive import Fingerprint
from partwarden.api.destination import PVC, Destination
from partwarden.archive.expiry import ABANDONED, expire, remove_abandoned
from partwarden.archive.folder import HALF, Folder
from partwarden.archive.job_order import JobSpec, Task
from partwarden.archive.manifest import (
    DATA,
    EXPIRED,
    GENERATED,
    MANIFEST,
    ArchiveManifest,
    ParquetData,
    TableName,
    serialize,
)
from partwarden.archive.parquet.layout import NAME
from support import places
from support.shelf import Shelf

OID, HOME = 16402, "shop/public.run/run_2018"
TABLE = TableName(schema_="public", name="run_2018", oid=OID)
CONTENT = b"a dump"
PLACE = f"{HOME}/run-2018-0123456789-89abcdef"
PARQUET = f"parquet/table=run/year=2018/{NAME}"


class Killed(BaseException):
    """As SIGKILL, but for the process."""


def manifest(**fields: Any) -> bytes:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    found = ArchiveManifest(
        id="run-2018-0123456789",
        database="shop",
        partition=TABLE,
        columns=(),
        parent_ddl="",
        rows=3,
        bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        copy_sha256="c" * 64,
        parquet=ParquetData(
            path=PARQUET, bytes=4, sha256="e" * 64, footer=4, copy_bytes=9, copy_sha256="f" * 64, columns=()
        ),
        fingerprint=Fingerprint(algorithm="test", rows=3, content="d" * 64),
        snapshot="1",
        server_version="18",
        client_version="18",
        partwarden_version="1",
        started=at,
        completed=at,
    )
    return serialize(found.model_copy(update=fields))


def order(shelf: Shelf, **fields: Any) -> JobSpec:
    return JobSpec(
        task=Task.EXPIRE,
        id="run-2018-0123456789",
        partition=TABLE,
        server="1/1",
        destination=Destination(pvc=PVC(claim_name="archives")),
        location=shelf.url(PLACE),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        manifest_sha256=hashlib.sha256(manifest()).hexdigest(),
    ).model_copy(update=fields)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    """With the archive, and another of the same partition beside it, which stays."""
    found = places.in_folder(tmp_path).shelf()
    for place in (PLACE, f"{HOME}/another"):
        for name, text in ((DATA, CONTENT), (GENERATED, b"values"), (PARQUET, b"PAR1"), (MANIFEST, manifest())):
            found.put(f"{place}/{name}", [text])
    (tmp_path / PLACE / "notes.txt").write_text("of a user")
    yield found
    others = [f"{HOME}/another/{each}" for each in (DATA, GENERATED, MANIFEST, PARQUET)]
    assert [each for each in found.files() if not each.startswith(PLACE)] == others


def run(shelf: Shelf, **fields: Any) -> None:
    wanted = order(shelf, **fields)
    report = expire(wanted, shelf, lambda line: None)
    assert (report.ok, report.manifest_sha256, report.oid) == (True, wanted.manifest_sha256, OID)
    assert [each for each in shelf.files() if each.startswith(PLACE)] == [f"{PLACE}/notes.txt"]


def test_only_the_objects_of_that_very_archive_are_deleted(shelf: Shelf) -> None:
    run(shelf)


@pytest.mark.parametrize("when", ["removing", "removed"])
@pytest.mark.parametrize("name", [MANIFEST, NAME, DATA, GENERATED, EXPIRED])
def test_interrupted_at_any_object_no_manifest_is_left_without_data_and_the_next_attempt_ends_it(
    shelf: Shelf, when: str, name: str
) -> None:
    def kill() -> None:
        raise Killed

    shelf.moment, shelf.what = f"{when} {name}", kill
    with pytest.raises(Killed):
        run(shelf)
    left = {each.removeprefix(f"{PLACE}/") for each in shelf.files()}
    assert MANIFEST not in left or {DATA, GENERATED, PARQUET} <= left
    run(shelf, begun=True)


@pytest.mark.parametrize("when", ["before", "after"])
def test_interrupted_at_the_copy_all_is_there_and_the_next_attempt_ends_it(shelf: Shelf, when: str) -> None:
    def kill() -> None:
        raise Killed

    shelf.moment, shelf.what = f"{when} {EXPIRED}", kill
    with pytest.raises(Killed):
        run(shelf)
    assert {f"{PLACE}/{each}" for each in (DATA, GENERATED, PARQUET, MANIFEST)} <= {*shelf.files()}
    run(shelf, begun=True)


def refuses(shelf: Shelf, **fields: Any) -> None:
    refuses_with(shelf, "nothing is deleted there", **fields)


def refuses_with(shelf: Shelf, words: str, **fields: Any) -> None:
    before = shelf.files()
    with pytest.raises(errors.ArchiveDamaged, match=words):
        expire(order(shelf, **fields), shelf, lambda line: None)
    assert shelf.files() == before


@pytest.mark.parametrize(
    "change",
    [
        {"manifest_sha256": "0" * 64},
        {"manifest_sha256": ""},
        {"sha256": "0" * 64},
        {"id": "run-2018"},
        {"id": ""},
        {"partition": TABLE.model_copy(update={"oid": OID + 1})},
    ],
    ids=lambda change: f"{next(iter(change))}",
)
def test_another_archive_than_the_one_that_was_proven_is_never_deleted(shelf: Shelf, change: dict[str, Any]) -> None:
    refuses(shelf, **change)


@pytest.mark.parametrize(
    "place",
    [
        "",
        "run-2018-0123456789-89abcdef",
        f"{HOME}/../run_2018/run-2018-0123456789-89abcdef",
        f"{HOME}/./run-2018-0123456789-89abcdef",
        f"{HOME}//run-2018-0123456789-89abcdef",
        f"{PLACE}/",
        HOME,
        f"{HOME}/another",
    ],
)
def test_a_location_that_is_no_folder_of_the_archive_is_never_touched(shelf: Shelf, place: str) -> None:
    refuses(shelf, location=shelf.url(place))


def test_another_destination_is_never_touched(shelf: Shelf) -> None:
    refuses(shelf, location=f"file:///elsewhere/{PLACE}")


@pytest.mark.parametrize("begun", [False, True])
def test_data_whose_manifest_a_user_has_moved_away_is_never_deleted(shelf: Shelf, begun: bool) -> None:
    shelf.lose(f"{PLACE}/{MANIFEST}")
    refuses(shelf, begun=begun)


def test_a_copy_that_is_of_another_archive_deletes_nothing(shelf: Shelf) -> None:
    shelf.lose(f"{PLACE}/{MANIFEST}")
    shelf.put(f"{PLACE}/{EXPIRED}", [manifest(rows=4)])
    refuses(shelf, begun=True)


def test_an_empty_folder_is_done_only_where_an_earlier_job_was_made(shelf: Shelf) -> None:
    for name in (MANIFEST, PARQUET, DATA, GENERATED):
        shelf.lose(f"{PLACE}/{name}")
    refuses(shelf)
    run(shelf, begun=True)


def test_a_manifest_that_leads_out_of_the_folder_deletes_nothing(shelf: Shelf) -> None:
    """Be it one that was proven: a user may have written it, and its status."""
    hostile = manifest().replace(PARQUET.encode(), f"../another/{DATA}".encode())
    shelf.write(f"{PLACE}/{MANIFEST}", hostile)
    refuses_with(shelf, "is not a manifest|can be read", manifest_sha256=hashlib.sha256(hostile).hexdigest())
    shelf.lose(f"{PLACE}/{MANIFEST}")
    shelf.put(f"{PLACE}/{EXPIRED}", [hostile])
    refuses_with(shelf, "can be read", manifest_sha256=hashlib.sha256(hostile).hexdigest())
    shelf.lose(f"{PLACE}/{EXPIRED}")


def test_an_archive_without_parquet_is_deleted(shelf: Shelf) -> None:
    shelf.lose(f"{PLACE}/{PARQUET}")
    text = manifest(parquet=None)
    shelf.write(f"{PLACE}/{MANIFEST}", text)
    run(shelf, manifest_sha256=hashlib.sha256(text).hexdigest())


def test_a_folder_is_removed_once_it_is_empty(shelf: Shelf, tmp_path: Path) -> None:
    shelf.lose(f"{PLACE}/notes.txt")
    expire(order(shelf), shelf, lambda line: None)
    assert not (tmp_path / PLACE).exists()
    assert (tmp_path / HOME).exists()


def test_of_files_that_were_never_finished_only_old_ones_of_ours_are_removed(tmp_path: Path) -> None:
    old = time.time() - ABANDONED - 60
    folder = tmp_path / PLACE
    folder.mkdir(parents=True)
    ours, young, other, linked = (
        folder / each for each in (f"{HALF}{'a' * 16}", f"{HALF}{'b' * 16}", f"{HALF}notes", f"{HALF}{'c' * 16}")
    )
    for each in (ours, young, other, folder / DATA):
        each.write_text("half")
    linked.symlink_to(folder / DATA)
    for each in (ours, other, folder / DATA):
        os.utime(each, (old, old))
    os.utime(linked, (old, old), follow_symlinks=False)
    assert list(remove_abandoned(Folder(tmp_path))) == [f"{PLACE}/{ours.name}"]
    assert {each.name for each in folder.iterdir()} == {young.name, other.name, linked.name, DATA}
