"""Reads an archive back from where it lies, and says what it restores: the only ground on which anything is dropped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import ValidationError

from . import dumping, generated_values
from .digest import Digest
from .errors import ArchiveDamaged, DumpFailed, ProofFailed
from .record import DATA, GENERATED, MANIFEST, ArchiveManifest, Column
from .storing import Store

END = b"\n\\.\n"
"""What ends the rows of COPY. No row can hold it: a backslash in a value is written twice."""
LARGEST = 64 << 20
"""Bytes of a manifest that is read."""
PREAMBLE = 1 << 22
"""Bytes within which the rows begin: before them stand a few settings and the statement with the columns' names."""


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
    with restored_rows(_through(digest, chunks), schema, name, columns) as restored:
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
    for _ in generated_values.lines(opener(), manifest.generated, manifest.rows):
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
    with dumping.restore_script(chunks) as script:
        yield _section(script, _statement(schema, name, columns))


def _statement(schema: str, name: str, columns: Sequence[Column]) -> bytes:
    """As pg_dump writes it with every identifier quoted; what is generated is not copied."""
    names = ", ".join('"' + each.name.replace('"', '""') + '"' for each in columns if not each.generated)
    return f"\nCOPY {dumping.quoted(schema, name)} ({names}) FROM stdin;\n".encode()


def _section(script: Iterator[bytes], statement: bytes) -> Iterator[bytes]:
    held = b""
    for chunk in script:
        held += chunk
        _, found, after = held.partition(statement)
        if found:
            break
        if len(held) > PREAMBLE:
            raise DumpFailed("the archive holds the rows of another table, or of other columns, than it should")
    else:
        raise DumpFailed("the archive holds no rows' section of the table that it should be of")
    # The newline before the first row belongs to the statement; with it the end is found also where there is no row.
    held, inside = b"\n" + after, True
    first = True
    while inside:
        end = held.find(END)
        inside = end < 0
        ready = held[: end + 1] if not inside else held[: -len(END)]
        held = held[len(ready) :]
        if ready:
            yield ready[1:] if first else ready
            first = False
        if inside and not (more := next(script, b"")):
            raise DumpFailed("the archive's rows break off")
        if inside:
            held += more
    for rest in script:
        # What follows is read for the end's sake: whether the whole object could be read is known only there.
        if statement in rest:
            raise DumpFailed("the archive holds the table's rows twice")


def _through(digest: Digest, chunks: Iterable[bytes]) -> Iterator[bytes]:
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
    return manifest, found


def _holds_nul(value: object) -> bool:
    match value:
        case str():
            return "\0" in value
        case dict():
            return any(_holds_nul(each) for pair in value.items() for each in pair)
        case list() | tuple():
            return any(_holds_nul(each) for each in value)
    return False
