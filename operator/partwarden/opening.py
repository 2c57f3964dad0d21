"""An archive where it lies, read as often as need be: what `partwarden.restoring` restores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from . import generated_values, places
from .digest import Digest
from .errors import ArchiveDamaged, PartwardenError, ProofFailed
from .proving import Proof, compare, prove_generated, read_manifest, restored_rows
from .record import DATA, GENERATED, MANIFEST, ArchiveManifest
from .storing import Store

QUICK = 64 << 20
"""Bytes of an archive that is read before anybody wonders how far it is."""

Say = Callable[[str], None]
Opener = Callable[[], Iterable[bytes]]
"""Begins to read the archive's data anew."""


@dataclass(frozen=True, slots=True)
class Archive:
    """``url`` is that of its folder, for people."""

    url: str
    manifest: ArchiveManifest
    open: Opener
    open_generated: Opener

    def telling(self, say: Say) -> Archive:
        """The same, which says how far it is whenever its data is read."""
        if self.manifest.bytes < QUICK:
            return self
        return replace(self, open=lambda: _told(self.open(), self.manifest.bytes, say))

    def check(self) -> None:
        """Read all of the data, and compare its size and sha256 with the manifest.

        Raises `ArchiveDamaged`, and what reading raises.
        """
        digest = Digest()
        for chunk in self.open():
            digest.update(chunk)
        self._are_those_written(digest)
        prove_generated(self.open_generated, self.manifest)

    def prove(self) -> None:
        """Read it twice: all of its bytes are those that were written, and the rows that they restore are those that
        were archived. What `restore` demands, so that nothing is dropped for an archive that would be refused then.

        Raises as `check` and `rows` do.
        """
        self.check()
        with self.rows() as rows:
            for _ in rows:
                pass

    @contextmanager
    def rows(self, generated: Sequence[str] = ()) -> Iterator[Iterator[bytes]]:
        """The rows as COPY writes them, in UTF-8, from reading the data once more: of all columns that are not
        generated, and behind those of the ones that are named.

        At their end raises `ArchiveDamaged` where the data is not what was written, and `ProofFailed` where the rows
        are not those that were archived; before it `DumpFailed` where the data is no dump of such a table, and what
        reading raises.
        """
        partition, whole, content = self.manifest.partition, Digest(), Digest()
        with restored_rows(
            _through(whole.update, self.open()), partition.schema_, partition.name, self.manifest.columns
        ) as restored:
            rows = self._proven(_through(content.update_rows, restored), whole, content)
            if not generated:
                yield rows
                return
            data = self.manifest.generated
            if data is None:
                raise ProofFailed("the archive holds no values of generated columns")
            values = generated_values.lines(self.open_generated(), data, self.manifest.rows)
            yield generated_values.beside(rows, values, data, generated)

    def _proven(self, rows: Iterator[bytes], whole: Digest, content: Digest) -> Iterator[bytes]:
        yield from rows
        self._are_those_written(whole)
        compare(Proof(whole.size, whole.sha256, content.lines, content.sha256), self.manifest)

    def _are_those_written(self, data: Digest) -> None:
        if (data.size, data.sha256) != (self.manifest.bytes, self.manifest.sha256):
            raise ArchiveDamaged(
                f"the archive at {self.url} is damaged: its data has {data.size} bytes and the sha256 "
                f"{data.sha256}, written were {self.manifest.bytes} and {self.manifest.sha256}"
            )


def _through(take: Callable[[bytes], None], chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        take(chunk)
        yield chunk


def _told(chunks: Iterable[bytes], total: int, say: Say) -> Iterator[bytes]:
    """At every twentieth part."""
    size = told = 0
    for chunk in chunks:
        yield chunk
        size += len(chunk)
        if (percent := size * 100 // total) >= told + 5:
            told = percent
            say(f"{percent} %: {size:,} of {total:,} bytes read")


@dataclass(frozen=True, slots=True)
class Found:
    """The archives at and below an address, the oldest first, and what is wrong with those that cannot be read."""

    archives: tuple[Archive, ...]
    unreadable: tuple[PartwardenError, ...] = ()


def find(url: str) -> Found:
    """Every archive at that address, or in a folder below it. Raises as `open_archive` where that cannot be read."""
    store, key = places.at(_folder(url))
    archives, unreadable = [], []
    for each in store.below(key, MANIFEST):
        # One that was damaged must not hide the others.
        try:
            archives.append(_open(store, each.removesuffix(MANIFEST).rstrip("/")))
        except PartwardenError as error:
            unreadable.append(error)
    archives.sort(key=lambda each: (each.manifest.completed, each.url))
    return Found(tuple(archives), tuple(unreadable))


def open_archive(url: str, manifest_sha256: str | None = None) -> Archive:
    """Open the archive at the address of its folder, or of its manifest.

    ``manifest_sha256``: what the manifest's sha256 must be, in hexadecimal digits; None where it is not known. Raises
    `ArchiveDamaged`, or what reading raises.
    """
    return _open(*places.at(_folder(url)), manifest_sha256)


def _folder(url: str) -> str:
    return url.removesuffix("/").removesuffix(f"/{MANIFEST}")


def _open(store: Store, key: str, manifest_sha256: str | None = None) -> Archive:
    manifest, _ = read_manifest(store, key, manifest_sha256)
    return Archive(
        store.url(key), manifest, lambda: store.get(f"{key}/{DATA}"), lambda: store.get(f"{key}/{GENERATED}")
    )
