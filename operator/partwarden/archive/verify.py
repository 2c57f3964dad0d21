"""Reads an archive back from where it lies, and says what it restores: the only ground on which anything is dropped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from pydantic import ValidationError

from ..errors import ArchiveDamaged, DumpFailed, PartwardenError, ProofFailed
from . import dump_script, generated_columns, pgdump, storage
from .manifest import DATA, GENERATED, MANIFEST, ArchiveManifest, Column, is_expression, is_type_name
from .storage import Digest, Store

# An archive where it lies, read as often as need be: what `partwarden.restoring` restores.
#

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
            values = generated_columns.lines(self.open_generated(), data, self.manifest.rows)
            yield generated_columns.beside(rows, values, data, generated)

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
    store, key = storage.at(_folder(url))
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
    return _open(*storage.at(_folder(url)), manifest_sha256)


def _folder(url: str) -> str:
    return url.removesuffix("/").removesuffix(f"/{MANIFEST}")


def _open(store: Store, key: str, manifest_sha256: str | None = None) -> Archive:
    manifest, _ = read_manifest(store, key, manifest_sha256)
    return Archive(
        store.url(key), manifest, lambda: store.get(f"{key}/{DATA}"), lambda: store.get(f"{key}/{GENERATED}")
    )


LARGEST = 64 << 20
"""Bytes of a manifest that is read."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was read: the object's ``size`` and ``sha256``; the number of rows that it restores, and their digest."""

    size: int
    sha256: str
    rows: int
    copy_sha256: str


def read_back(chunks: Iterable[bytes], schema: str, name: str, columns: Sequence[Column]) -> Proof:
    """Read an object to its end. Raises `DumpFailed` where it is no dump of that table, and what ``chunks`` raises."""
    digest, rows = Digest(), Digest()
    with restored_rows(_copy_through(digest, chunks), schema, name, columns) as restored:
        for chunk in restored:
            rows.update_rows(chunk)
    return Proof(digest.size, digest.sha256, rows.lines, rows.sha256)


def compare(proof: Proof, manifest: ArchiveManifest) -> None:
    """Whether what is restored is what the manifest describes. Raises `ProofFailed`."""
    for what, found, wanted in (
        ("number of rows", proof.rows, manifest.rows),
        ("digest of the rows", proof.copy_sha256, manifest.copy_sha256),
    ):
        if found != wanted:
            raise ProofFailed(
                f"the archive of {manifest.partition} was read back, and its {what} is {found}, not {wanted}"
            )


def prove(store: Store, place: str, manifest: ArchiveManifest) -> None:
    """Whether the data that lies at ``place`` is what the manifest describes.

    Raises `ArchiveDamaged` where its bytes are others, `ProofFailed` or `DumpFailed` where the very bytes that were
    written do not restore what they should, and what the store raises.
    """
    key, table = f"{place}/{DATA}", manifest.partition
    try:
        proof = read_back(store.get(key), table.schema_, table.name, manifest.columns)
    except DumpFailed:
        # pg_restore stops at the first thing that it cannot read: only all of the bytes tell damage from a mishap.
        digest = Digest()
        for chunk in store.get(key):
            digest.update(chunk)
        _same_bytes(store.url(key), digest.size, digest.sha256, manifest)
        raise
    _same_bytes(store.url(key), proof.size, proof.sha256, manifest)
    compare(proof, manifest)
    prove_generated(lambda: store.get(f"{place}/{GENERATED}"), manifest)


def prove_generated(opener: Callable[[], Iterable[bytes]], manifest: ArchiveManifest) -> None:
    """Whether the values of stored generated columns are those that were archived. Nothing where there are none.

    Raises as `generated_values.lines`, and `ProofFailed` where the manifest lacks what its columns say.
    """
    stored = tuple(each.name for each in manifest.columns if each.generated == "s")
    if manifest.generated is None:
        if stored and manifest.format > 1:
            raise ProofFailed(f"the manifest holds no digest of the generated column {stored[0]!r}")
        return
    if manifest.generated.columns != stored:
        raise ProofFailed(f"the archive has values of the columns {manifest.generated.columns}, not of {stored}")
    for _ in generated_columns.lines(opener(), manifest.generated, manifest.rows):
        pass


def _same_bytes(url: str, size: int, sha256: str, manifest: ArchiveManifest) -> None:
    if (size, sha256) != (manifest.bytes, manifest.sha256):
        raise ArchiveDamaged(
            f"{url} was changed: it has {size} bytes of the sha256 {sha256}, but {manifest.bytes} of {manifest.sha256} "
            "were written"
        )


@contextmanager
def restored_rows(
    chunks: Iterable[bytes], schema: str, name: str, columns: Sequence[Column]
) -> Iterator[Iterator[bytes]]:
    """The rows of a dump as COPY writes them, in UTF-8, without the line that ends them. Errors as of `read_back`."""
    with pgdump.restore_script(chunks) as script:
        yield dump_script.copied_rows(script, _statement(schema, name, columns))


def _statement(schema: str, name: str, columns: Sequence[Column]) -> bytes:
    """As pg_dump writes it with every identifier quoted; what is generated is not copied."""
    names = ", ".join('"' + each.name.replace('"', '""') + '"' for each in columns if not each.generated)
    # Where there is none, pg_dump writes no parentheses.
    return f"COPY {pgdump.quoted(schema, name)} {names and f'({names})'} FROM stdin;".encode()


def _copy_through(digest: Digest, chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def written(manifest: ArchiveManifest) -> bytes:
    """The text of `MANIFEST`."""
    return (json.dumps(manifest.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False) + "\n").encode()


def read_manifest(store: Store, place: str, sha256: str | None) -> tuple[ArchiveManifest, str]:
    """The manifest, and the sha256 of its bytes: ``sha256``, unless that is None. Raises `ArchiveDamaged`."""
    url, text = store.url(f"{place}/{MANIFEST}"), b""
    for chunk in store.get(f"{place}/{MANIFEST}"):
        text += chunk
        if len(text) > LARGEST:
            raise ArchiveDamaged(f"{url} is too large for a manifest")
    found = hashlib.sha256(text).hexdigest()
    if sha256 is not None and found != sha256:
        raise ArchiveDamaged(f"{url} has the sha256 {found}, but {sha256} was proven: it was changed")
    try:
        manifest = ArchiveManifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(each) for each in first["loc"])
        raise ArchiveDamaged(f"{url} is not a manifest: {where or 'it'}: {first['msg']}") from None
    if _holds_nul(manifest.model_dump()):
        raise ArchiveDamaged(f"{url} is not a manifest: no text of PostgreSQL holds the character NUL")
    _check_texts(url, manifest)
    return manifest, found


def _check_texts(url: str, manifest: ArchiveManifest) -> None:
    """Whether what stands for types and expressions is that. Raises `ArchiveDamaged`."""
    made_from = [of.type for each in manifest.types for of in each.attributes]
    for name in (*(each.type for each in manifest.columns), *(each.name for each in manifest.types), *made_from):
        if not is_type_name(name):
            raise ArchiveDamaged(f"{url} is not a manifest: {name[:80]!r} is not a name of a type")
    checks = [check.expression for each in manifest.types for check in each.checks]
    for text in (*(each.expression for each in manifest.columns if each.generated), *checks):
        if not is_expression(text):
            raise ArchiveDamaged(f"{url} is not a manifest: {text[:80]!r} is not an expression")


def _holds_nul(value: object) -> bool:
    match value:
        case str():
            return "\0" in value
        case dict():
            return any(_holds_nul(each) for pair in value.items() for each in pair)
        case list() | tuple():
            return any(_holds_nul(each) for each in value)
    return False
