"""Read archives back and prove them: the only ground on which anything is dropped.

`Archive.prove` is the one proof, for the Job that made the archive as for ``verify``, ``drop --archive`` and a later
check: in one reading, the bytes are those that were written, and what they restore are the rows that were archived.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from pydantic import ValidationError

from ..errors import ArchiveDamaged, ClientCannotRead, DumpFailed, PartwardenError, ProofFailed
from ..planner.findings import quoted
from . import archived_rows, compression, generated_values, pgdump, storage
from .archived_rows import Digest
from .manifest import DATA, GENERATED, MANIFEST, ArchiveManifest, Say, is_expression, is_type_name, stored_names
from .parquet import availability, digest
from .storage import Store

QUICK = 64 << 20
"""Bytes of an archive that is read without progress messages."""
LARGEST = 64 << 20
"""Bytes of a manifest that is read."""

Opener = Callable[[], Iterable[bytes]]
"""Begins to read an object anew."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive where it lies, read as often as need be. ``url`` is that of its folder, for people."""

    url: str
    manifest: ArchiveManifest
    manifest_sha256: str
    """Of the manifest's bytes as they were read; empty before it is written."""
    open: Opener
    open_generated: Opener
    open_parquet: Opener

    def telling(self, say: Say) -> Archive:
        """The same, which says how far it is whenever its data is read."""
        if self.manifest.bytes < QUICK:
            return self

        def opened() -> Iterator[bytes]:
            total, done = self.manifest.bytes, 0
            progress = Progress(say, total)
            for chunk in self.open():
                yield chunk
                done += len(chunk)
                progress.report(done, f"{done:,} of {total:,} bytes read")

        return replace(self, open=opened)

    def check(self) -> None:
        """Read all of the data that is restored, and compare its size and sha256 with the manifest. Raises
        `ArchiveDamaged`, `ProofFailed` for the values of generated columns, and what reading raises."""
        written = Digest()
        for _ in self._data(written):
            pass
        self._check_bytes(written)
        self._prove_generated()

    def prove(self) -> None:
        """Read it once: its bytes are those that were written, and restore the rows that were archived. Raises
        `ArchiveDamaged` where the bytes are others, `ProofFailed` or `DumpFailed` where the very bytes that were
        written do not restore what they should, `ClientCannotRead` where this pg_restore cannot tell, and what reading
        raises."""
        try:
            with self.rows() as rows:
                for _ in rows:
                    pass
        except (DumpFailed, ClientCannotRead, ProofFailed):
            # The reading stops at the first thing that cannot be: all bytes tell whether it is damaged.
            self.check()
            raise
        self._prove_generated()
        self._prove_parquet()

    @contextmanager
    def rows(self, generated: Sequence[str] = ()) -> Iterator[Iterator[bytes]]:
        """The rows as COPY writes them, in UTF-8, from reading the data once more: of all columns that are not
        generated, and behind those of the ones that are named.

        At their end raises `ArchiveDamaged` where the data is not what was written, and `ProofFailed` where the rows
        are not those that were archived; before it `DumpFailed` where the data is no dump of such a table,
        `ClientCannotRead` where this pg_restore cannot read it, and what reading raises.
        """
        written, content = Digest(), Digest()
        with pgdump.restore_script(self._data(written)) as script:
            copied = archived_rows.copied_rows(self._named(script), _copy_statement(self.manifest))
            plain = [column.name for column in self.manifest.columns if not column.generated]
            read = archived_rows.valid_text(content.through_lines(copied), content, plain)
            rows = self._checked_at_end(read, written, content)
            if not generated:
                yield rows
                return
            data = self.manifest.generated
            if data is None:
                raise ProofFailed("the archive holds no values of generated columns")
            values = generated_values.lines(self.open_generated(), data, self.manifest.rows)
            yield generated_values.beside(rows, values, data, generated)

    def _data(self, written: Digest) -> Iterator[bytes]:
        """The data's bytes, up to the first that is too many."""
        return written.through_at_most(self.manifest.bytes, self.open(), f"{self.url}/{DATA} was changed: it has")

    def _named(self, script: Iterator[bytes]) -> Iterator[bytes]:
        """The same, whose error says what reads the archive."""
        try:
            yield from script
        except ClientCannotRead as error:
            needed = compression.reader(self.manifest.client_version, self.manifest.compression)
            raise ClientCannotRead(
                f"cannot read the archive at {self.url}: {error}; it needs {needed}: use an image, or a folder in "
                f"{pgdump.FOLDER}, with that"
            ) from None

    def _checked_at_end(self, rows: Iterator[bytes], written: Digest, content: Digest) -> Iterator[bytes]:
        yield from self._bounded(rows, content)
        self._check_bytes(written)
        for what, restored, archived in (
            ("number of rows", content.lines, self.manifest.rows),
            ("digest of the rows", content.sha256, self.manifest.copy_sha256),
        ):
            if restored != archived:
                raise ProofFailed(
                    f"the archive of {self.manifest.partition} was read back, and its {what} is {restored}, not "
                    f"{archived}"
                )

    def _bounded(self, rows: Iterator[bytes], content: Digest) -> Iterator[bytes]:
        """The same, up to what is too much: a few bytes of others may unpack to more than any disk holds."""
        held = 0
        for piece in rows:
            held = 0 if b"\n" in piece else held + len(piece)
            if content.lines > self.manifest.rows or held > archived_rows.LONGEST_LINE:
                raise ProofFailed(
                    f"the archive of {self.manifest.partition} unpacks to more than the {self.manifest.rows} rows that "
                    "were archived"
                )
            yield piece

    def _check_bytes(self, data: Digest) -> None:
        manifest = self.manifest
        if (data.size, data.sha256) != (manifest.bytes, manifest.sha256):
            raise ArchiveDamaged(
                f"{self.url}/{DATA} was changed: it has {data.size} bytes of the sha256 {data.sha256}, but "
                f"{manifest.bytes} of {manifest.sha256} were written"
            )

    def _prove_generated(self) -> None:
        """Read the values of stored generated columns, where there are any, to their end, where they are proven. Raises
        as `generated_values.proven`, and `ProofFailed` where the manifest lacks what its columns say."""
        data, stored = self.manifest.generated, stored_names(self.manifest.columns)
        if data is None:
            if stored and self.manifest.format > 1:
                raise ProofFailed(f"the manifest holds no digest of the generated column {stored[0]!r}")
            return
        if data.columns != stored:
            raise ProofFailed(f"the archive has values of the columns {data.columns}, not of {stored}")
        for _ in generated_values.proven(self.open_generated(), data, self.manifest.rows):
            pass

    def _prove_parquet(self) -> None:
        """Read the Parquet object, where there is one: its bytes, and its values where pyarrow is here. To be called
        once the dump is proven. Raises `ArchiveDamaged`, and `ProofFailed` where it does not hold the rows."""
        if (data := self.manifest.parquet) is None:
            return
        url = f"{self.url}/{data.path}"
        try:
            if availability.is_available():
                # Not before: what it imports takes more memory than all else.
                from .parquet import proof

                proof.prove(self.open_parquet, data, self.manifest.rows, url)
            else:
                digest.check_bytes(self.open_parquet, data, url)
        except ArchiveDamaged as error:
            raise ArchiveDamaged(f"{error}; {DATA} beside it is whole, and restores all rows") from None


def at(store: Store, place: str, manifest: ArchiveManifest, manifest_sha256: str = "") -> Archive:
    """The archive whose folder has the key ``place``, and whose manifest is known already."""
    return Archive(
        store.url(place),
        manifest,
        manifest_sha256,
        lambda: store.get(f"{place}/{DATA}"),
        lambda: store.get(f"{place}/{GENERATED}"),
        lambda: store.get(f"{place}/{manifest.parquet.path}") if manifest.parquet else (),
    )


def place_of(store: Store, location: str) -> str:
    """The key of the archive's folder at that URL. Raises `ArchiveDamaged` where that is not in the store."""
    base = store.url("")
    if not location.startswith(base):
        raise ArchiveDamaged(f"{location} does not lie at {base}: the destination was changed since it was proven")
    place = location.removeprefix(base).strip("/")
    # A status is text that others may have written: it leads to no other folder of the volume.
    if any(part in (".", "..") for part in place.split("/")):
        raise ArchiveDamaged(f"{location} is no folder below {base}: no archive lies there")
    return place


def read(store: Store, place: str, manifest_sha256: str | None = None) -> Archive:
    """The archive whose folder has the key ``place``. ``manifest_sha256``: what the manifest's sha256 must be, in
    hexadecimal digits; None where it is not known. Raises `ArchiveDamaged`, or what reading raises."""
    url, whole = store.url(f"{place}/{MANIFEST}"), bytearray()
    for chunk in store.get(f"{place}/{MANIFEST}"):
        whole += chunk
        if len(whole) > LARGEST:
            raise ArchiveDamaged(f"{url} has more than {LARGEST >> 20} MiB: no manifest is as large")
    text = bytes(whole)
    sha256 = hashlib.sha256(text).hexdigest()
    if manifest_sha256 is not None and sha256 != manifest_sha256:
        raise ArchiveDamaged(f"{url} has the sha256 {sha256}, but {manifest_sha256} was proven: it was changed")
    try:
        manifest = ArchiveManifest.model_validate_json(text)
        _check_texts(manifest)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ArchiveDamaged(f"{url} is not a manifest: {field or 'it'}: {first['msg']}") from None
    except ValueError as error:
        raise ArchiveDamaged(f"{url} is not a manifest: {error}") from None
    return at(store, place, manifest, sha256)


def open_archive(url: str, manifest_sha256: str | None = None) -> Archive:
    """The archive at the address of its folder, or of its manifest. Raises as `read`."""
    return read(*storage.at(_folder(url)), manifest_sha256)


@dataclass(frozen=True, slots=True)
class Found:
    """The archives at and below an address, the oldest first, and what is wrong with those that cannot be read."""

    archives: tuple[Archive, ...]
    unreadable: tuple[PartwardenError, ...] = ()


def find(url: str) -> Found:
    """Every archive at that address, or in a folder below it. Raises as `read` where that cannot be read."""
    store, key = storage.at(_folder(url))
    archives, unreadable = [], []
    for manifest in store.below(key, MANIFEST):
        # One that was damaged must not hide the others.
        try:
            archives.append(read(store, manifest.removesuffix(MANIFEST).rstrip("/")))
        except PartwardenError as error:
            unreadable.append(error)
    archives.sort(key=lambda archive: (archive.manifest.completed, archive.url))
    return Found(tuple(archives), tuple(unreadable))


def _folder(url: str) -> str:
    return url.removesuffix("/").removesuffix(f"/{MANIFEST}")


class Progress:
    """Says how far something is, at every twentieth part of ``total``."""

    def __init__(self, say: Say, total: int) -> None:
        self._say, self._total, self._said = say, total, 0

    def report(self, done: int, words: str) -> None:
        """``words``: what follows the percent."""
        percent = done * 100 // self._total if self._total else 100
        if percent >= self._said + 5:
            self._said = percent
            self._say(f"{percent} %: {words}")


def _copy_statement(manifest: ArchiveManifest) -> bytes:
    """As pg_dump writes it with every identifier quoted; what is generated is not copied."""
    names = ", ".join(quoted(column.name) for column in manifest.columns if not column.generated)
    # Where there is none, pg_dump writes no parentheses.
    columns, table = names and f"({names})", manifest.partition
    return f"COPY {quoted(table.schema_)}.{quoted(table.name)} {columns} FROM stdin;".encode()


def _check_texts(manifest: ArchiveManifest) -> None:
    """Whether what stands for text, types and expressions is that. Raises ValueError."""
    if _holds_nul(manifest.model_dump()):
        raise ValueError("no text of PostgreSQL holds the character NUL")
    made_from = [attribute.type for type_ in manifest.types for attribute in type_.attributes]
    for name in (*(column.type for column in manifest.columns), *(type_.name for type_ in manifest.types), *made_from):
        if not is_type_name(name):
            raise ValueError(f"{name[:80]!r} is not a name of a type")
    checks = [check.expression for type_ in manifest.types for check in type_.checks]
    for text in (*(column.expression for column in manifest.columns if column.generated), *checks):
        if not is_expression(text):
            raise ValueError(f"{text[:80]!r} is not an expression")


def _holds_nul(value: object) -> bool:
    match value:
        case str():
            return "\0" in value
        case dict():
            return any(_holds_nul(part) for pair in value.items() for part in pair)
        case list() | tuple():
            return any(_holds_nul(part) for part in value)
    return False
