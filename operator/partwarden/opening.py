"""An archive where it lies, read as often as need be: what `partwarden.restoring` restores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from .claim_pod import CLAIM, how_to_read
from .errors import ArchiveDamaged, DestinationNotFound, InvalidSpec, PartwardenError
from .folders import Folder
from .proving import Digest, Proof, compare, restored_rows
from .record import DATA, MANIFEST, ArchiveManifest
from .storing import Store

LARGEST = 64 << 20
"""Bytes of a manifest that is read."""

Opener = Callable[[], Iterable[bytes]]
"""Begins to read the archive's data anew."""


@dataclass(frozen=True, slots=True)
class Archive:
    """``url`` is that of its folder, for people."""

    url: str
    manifest: ArchiveManifest
    open: Opener

    def check(self) -> None:
        """Read all of the data, and compare its size and sha256 with the manifest.

        Raises `ArchiveDamaged`, and what reading raises.
        """
        digest = Digest()
        for chunk in self.open():
            digest.update(chunk)
        if (digest.size, digest.sha256) != (self.manifest.bytes, self.manifest.sha256):
            raise ArchiveDamaged(
                f"the archive at {self.url} is damaged: its data has {digest.size} bytes and the sha256 "
                f"{digest.sha256}, written were {self.manifest.bytes} and {self.manifest.sha256}"
            )

    @contextmanager
    def rows(self) -> Iterator[Iterator[bytes]]:
        """The rows as COPY writes them, in UTF-8, from reading the data once more.

        At their end raises `ProofFailed` where the data or the rows are not those that were archived; before it
        `DumpFailed` where the data is no dump of such a table, and what reading raises.
        """
        partition, whole, content = self.manifest.partition, Digest(), Digest()
        with restored_rows(
            _through(whole.update, self.open()), partition.schema_, partition.name, self.manifest.columns
        ) as restored:
            yield self._proven(_through(content.update_rows, restored), whole, content)

    def _proven(self, rows: Iterator[bytes], whole: Digest, content: Digest) -> Iterator[bytes]:
        yield from rows
        compare(Proof(whole.size, whole.sha256, content.lines, content.sha256), self.manifest)


def _through(take: Callable[[bytes], None], chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        take(chunk)
        yield chunk


@dataclass(frozen=True, slots=True)
class Found:
    """The archives at and below an address, the oldest first, and what is wrong with those that cannot be read."""

    archives: tuple[Archive, ...]
    unreadable: tuple[PartwardenError, ...] = ()


def find(url: str) -> Found:
    """Every archive at that address, or in a folder below it. Raises as `open_archive` where that cannot be read."""
    store, key = _place(url.removesuffix("/").removesuffix(f"/{MANIFEST}"))
    root = Path(store.url(key).removeprefix("file://"))
    if not root.is_dir():
        raise DestinationNotFound(f"folder {root} does not exist")
    archives, unreadable = [], []
    for each in sorted(root.rglob(MANIFEST)):
        # One that was damaged must not hide the others.
        try:
            archives.append(open_archive(str(each.parent)))
        except PartwardenError as error:
            unreadable.append(error)
    archives.sort(key=lambda each: (each.manifest.completed, each.url))
    return Found(tuple(archives), tuple(unreadable))


def open_archive(url: str) -> Archive:
    """The archive at the address of its folder, or of its manifest. Raises `ArchiveDamaged`, or what reading raises."""
    store, key = _place(url.removesuffix("/").removesuffix(f"/{MANIFEST}"))
    return Archive(store.url(key), _manifest(store, key), lambda: store.get(f"{key}/{DATA}"))


def _place(url: str) -> tuple[Store, str]:
    # As `Folder.url` writes it: names in it hold percent signs of their own.
    text = url.removeprefix("file://")
    path = Path(text)
    if text.startswith(CLAIM):
        raise InvalidSpec(how_to_read(text))
    if "://" in text or not path.name:
        raise InvalidSpec(f"{url!r} cannot be read from by this version: give a folder, or file:///folder")
    return Folder(path.parent), path.name


def _manifest(store: Store, key: str) -> ArchiveManifest:
    text, url = b"", store.url(f"{key}/{MANIFEST}")
    for chunk in store.get(f"{key}/{MANIFEST}"):
        text += chunk
        if len(text) > LARGEST:
            raise ArchiveDamaged(f"{url} is too large for a manifest")
    try:
        return ArchiveManifest.model_validate_json(text)
    except ValidationError as error:
        raise ArchiveDamaged(f"{url} is not a manifest: {error.errors()[0]['msg']}") from None
