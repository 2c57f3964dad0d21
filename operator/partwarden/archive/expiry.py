"""Delete an archive for good, once its policy's ``keepFor`` is over: what the Job of `Task.EXPIRE` does.

The operator has asked all else before (see `controller.archive_schedule`). Here it is decided once more that the
objects are those of the very archive that was proven, and they are removed in an order that is safe wherever it ends:

::

    what is in the folder                    what the next attempt does
    manifest, data                           compares the manifest's sha256 with the one that was proven
    manifest, expired.json, data             the same; `EXPIRED` is a copy of the manifest
    expired.json, data                       compares the copy's sha256 in the same way, and goes on
    expired.json                             the same
    nothing                                  has nothing to do, if an earlier Job was made; else it fails

Data is the dump, the values of generated columns, and the Parquet object, whose path the manifest and its copy say.

The manifest goes first: an archive without one is none, so nothing is ever restored from one that is half deleted. Its
copy says, to each attempt that follows, that it was this program which removed the manifest, and of which archive: data
whose manifest a user has moved away is never removed. Only three names of one folder are removed, the copy, and the
one object below it that the proven manifest names, by a path that cannot lead out of the folder.
"""

from __future__ import annotations

import hashlib
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

from pydantic import ValidationError

from .. import errors
from . import verify
from .folder import HALF, Folder
from .job_order import JobSpec, Report
from .manifest import DATA, EXPIRED, GENERATED, MANIFEST, ArchiveManifest, Say
from .objectstore import Objects
from .storage import Store
from .verify import LARGEST

VERSIONS = "its bucket keeps versions of what was deleted, until its own rules, or a user, remove them"


def expire(order: JobSpec, store: Store, say: Say) -> Report:
    """Remove the archive's objects; the report says where the bucket keeps versions of them.

    Raises `ArchiveDamaged` where they are not those that the order names: nothing is removed then. Raises
    `DeletionRefused` where the destination keeps one of them, and what removing raises: then the next attempt goes on.
    """
    place = _place(order, store)
    manifest, copy = (_read(store, f"{place}/{name}") for name in (MANIFEST, EXPIRED))
    if manifest is None and copy is None:
        if not order.begun or any(_read(store, f"{place}/{name}", 0) is not None for name in (DATA, GENERATED)):
            raise errors.ArchiveDamaged(f"{order.location} has no {MANIFEST}: nothing is deleted there")
        say(f"{order.location} is deleted already")
        return _report(order)
    for name, text in ((MANIFEST, manifest), (EXPIRED, copy)):
        if text is not None:
            _check(order, f"{order.location}/{name}", text)
    versions = False
    # Read before anything is removed, and from the copy once the manifest is gone: both are what was proven.
    beside = _parquet(order, manifest or copy or b"")
    if manifest is not None:
        _check_manifest(order, store, place)
        if copy is None:
            store.put(f"{place}/{EXPIRED}", [manifest])
        # Safe: its bytes are those that were proven for this very archive, and they are in the copy.
        versions |= _remove(store, f"{place}/{MANIFEST}", say)
        if _read(store, f"{place}/{MANIFEST}") is not None:
            raise errors.DeletionRefused(f"{order.location}/{MANIFEST} is there after it was deleted: see its bucket")
    # Safe: there is no manifest any more, and the copy has proven that it was that of this archive.
    for name in (*beside, DATA, GENERATED, EXPIRED):
        versions |= _remove(store, f"{place}/{name}", say)
    return _report(order, VERSIONS if versions else "")


def _place(order: JobSpec, store: Store) -> str:
    """The folder's key. Raises `ArchiveDamaged` where it is none below the destination, or not of that archive."""
    base = store.url("")
    place = order.location.removeprefix(base)
    parts = place.split("/")
    below = order.location.startswith(base) and all(part.strip(".") for part in parts) and "\\" not in place
    # As `create.archive` names it: <database>/<schema>.<table>/<partition>/<id>-<8 digits>. A whole database is none.
    if not below or len(parts) < 2 or not order.id or not parts[-1].startswith(f"{order.id}-"):
        raise errors.ArchiveDamaged(
            f"{order.location} is no folder of archive {order.id} below {base}: nothing is deleted there"
        )
    if not order.manifest_sha256:
        raise errors.ArchiveDamaged(f"{order.location}: it is not known what was proven; nothing is deleted there")
    return place


def _check(order: JobSpec, url: str, text: bytes) -> None:
    sha256 = hashlib.sha256(text).hexdigest()
    if sha256 != order.manifest_sha256:
        raise errors.ArchiveDamaged(
            f"{url} has the sha256 {sha256}, but {order.manifest_sha256} was proven: nothing is deleted there"
        )


def _check_manifest(order: JobSpec, store: Store, place: str) -> None:
    """What has that sha256 says the rest: a status that was put together from two archives deletes neither."""
    manifest = verify.read(store, place, order.manifest_sha256).manifest
    said = manifest.id, manifest.partition.oid, manifest.sha256
    if said != (order.id, order.partition.oid, order.sha256):
        raise errors.ArchiveDamaged(
            f"{order.location} is archive {manifest.id} of {manifest.partition} with OID {manifest.partition.oid}, not "
            f"{order.id} of OID {order.partition.oid}: nothing is deleted there"
        )


def _parquet(order: JobSpec, text: bytes) -> tuple[str, ...]:
    """The key of the Parquet object below the archive's folder, where the manifest says that there is one."""
    try:
        data = ArchiveManifest.model_validate_json(text).parquet
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise errors.ArchiveDamaged(
            f"{order.location} has no manifest that can be read ({field or 'it'}): nothing is deleted there"
        ) from None
    return (data.path,) if data else ()


def _read(store: Store, key: str, most: int = LARGEST) -> bytes | None:
    """At least the first ``most`` bytes of the object; None where there is none."""
    found = bytearray()
    with suppress(errors.ArchiveDamaged):
        for chunk in store.get(key):
            found += chunk
            if len(found) > most:
                break
        return bytes(found)
    return None


def _remove(store: Store, key: str, say: Say) -> bool:
    versions = store.remove(key)
    say(f"{store.url(key)} is deleted")
    return versions


def _report(order: JobSpec, message: str = "") -> Report:
    """That of the archive that is deleted."""
    return Report(
        ok=True,
        message=message,
        id=order.id,
        location=order.location,
        sha256=order.sha256,
        manifest_sha256=order.manifest_sha256,
        oid=order.partition.oid,
        server=order.server,
    )


UNFINISHED = re.compile(re.escape(HALF) + "[0-9a-f]{16}")
ABANDONED = 31 * 86400.0
"""Seconds since a half-written file was last written to, or an upload was begun: more than any Job may take, by
PARTWARDEN_JOB_DEADLINE."""


def remove_abandoned(store: Store, older: float = ABANDONED) -> Iterator[str]:
    """Remove what writers left half written that were killed, and was last written to, or was begun in a bucket, more
    than so many seconds ago. Returns the paths. Raises OSError of a volume, and of a bucket as `Uploads.abort`.

    Safe: such a file, or upload, is no object yet. Were its writer alive after all, its object would fail, and be made
    again.
    """
    if isinstance(store, Folder):
        yield from _remove_files(store, older)
    elif isinstance(store, Objects) and store.uploads is not None:
        yield from store.uploads.abort(timedelta(seconds=older))


def _remove_files(store: Folder, older: float) -> Iterator[str]:
    for each in sorted(store.root.rglob(f"{HALF}*")):
        # Gone meanwhile: another Job does the same.
        with suppress(FileNotFoundError):
            found = each.lstat()
            old = time.time() - found.st_mtime > older
            if old and stat.S_ISREG(found.st_mode) and UNFINISHED.fullmatch(each.name):
                each.unlink()
                yield each.relative_to(store.root).as_posix()
