"""A folder as the place where archives lie, such as a mounted volume."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .. import errors
from .parquet.layout import FOLDER as PARQUET

CHUNK = 1 << 20
HALF = ".partwarden-"
"""How names of objects begin that are not whole: of a writer that runs, or that was killed."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


class Folder:
    """A `storage.Store` in a directory, such as a mounted volume. ``root`` must exist; ``base`` is its URL, without a
    slash at the end. An object is written under another name, brought to the disk, and only then linked to its own,
    which fails where there is one: it is whole or not there, whenever power is lost."""

    def __init__(self, root: Path, base: str | None = None) -> None:
        self.root = root
        self.base = base if base is not None else f"file://{root.absolute()}".rstrip("/")

    def put(self, key: str, chunks: Iterable[bytes], expected: int = 0) -> None:
        path = self.root / key
        half = path.with_name(HALF + secrets.token_hex(8))
        with self._translating(key):
            self._is_there()
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                raise errors.ObjectExists(f"{self.url(key)} exists already, and is never overwritten")
        try:
            self._write(half, key, chunks)
            with self._translating(key):
                # Unlike a rename, it fails where another process has just finished one of that name.
                os.link(half, path)
        finally:
            with suppress(OSError):
                half.unlink()
        with self._translating(key):
            for folder in (path.parent, *path.parent.parents):
                _sync(folder)
                if folder == self.root:
                    break

    def _write(self, half: Path, key: str, chunks: Iterable[bytes]) -> None:
        with self._translating(key):
            # A buffer would try what it still holds once more when it is closed, and hide what the failure was.
            file = half.open("xb", buffering=0)
        with file:
            for chunk in chunks:
                with self._translating(key):
                    left = memoryview(chunk)
                    while left:
                        left = left[file.write(left) :]
            with self._translating(key):
                os.fsync(file.fileno())

    def get(self, key: str) -> Iterator[bytes]:
        with self._translating(key):
            self._is_there()
            try:
                # Not waiting for the writer of a pipe.
                descriptor = os.open(self.root / key, os.O_RDONLY | os.O_NONBLOCK)
            except (FileNotFoundError, NotADirectoryError):
                raise errors.ArchiveDamaged(f"{self.url(key)} is not there") from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise errors.ArchiveDamaged(f"{self.url(key)} is not a file")
        with os.fdopen(descriptor, "rb") as file:
            while True:
                with self._translating(key):
                    chunk = file.read(CHUNK)
                if not chunk:
                    return
                yield chunk

    def below(self, key: str, name: str) -> Iterator[str]:
        top = self.root / key
        with self._translating(key):
            self._is_there()
            if not top.is_dir():
                raise errors.DestinationNotFound(f"folder {top} does not exist")
            for each in sorted(top.rglob(name)):
                yield each.relative_to(self.root).as_posix()

    def remove(self, key: str) -> bool:
        path = self.root / key
        with self._translating(key):
            self._is_there()
            path.unlink(missing_ok=True)
        with suppress(OSError):
            # Durable before the next is removed: a power cut must not bring a manifest back whose data is gone.
            _sync(path.parent)
            # Up to the archive's own folder: an object may lie several below it, and what is above may be a writer's.
            for folder in path.parents:
                if folder == self.root:
                    break
                folder.rmdir()
                if folder.name != PARQUET and "=" not in folder.name:
                    break
        return False

    def url(self, key: str) -> str:
        return f"{self.base}/{key}"

    def _is_there(self) -> None:
        """A volume that is not mounted must not be taken for an empty one that anything may be written beside."""
        if not self.root.is_dir():
            raise errors.DestinationNotFound(
                f"folder {self.root} of {self.base} does not exist: create it, or mount the volume"
            )

    @contextmanager
    def _translating(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise errors.ObjectExists(f"{self.url(key)} exists already, and is never overwritten") from None
        except OSError as error:
            words = f"{self.url(key)}: {error.strerror or error}"
            if error.errno in FULL:
                raise errors.DestinationFull(f"{words}: make room, or choose a larger volume") from None
            if error.errno in DENIED:
                raise errors.DestinationDenied(f"{words}: let the user of the process write there") from None
            raise errors.DestinationUnreachable(words) from None


def _sync(folder: Path) -> None:
    """Brings the names in it to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
