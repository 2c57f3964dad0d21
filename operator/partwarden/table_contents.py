"""What a table holds in one snapshot, compared with what an archive says that it holds.

Two numbers, and neither stands for the other: the fingerprint is of the table alone, the digest of COPY is also that
of the rows that the archive's data restores. Where both, of one snapshot, are those of a manifest whose data was
proven, the archive restores what the table holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from . import describing, fingerprint, reading
from .digest import Digest
from .errors import ContentsChanged
from .reading import Held
from .record import ArchiveManifest, Column, Fingerprint


@dataclass(frozen=True, slots=True)
class TableContents:
    """Of one snapshot. ``copied`` counts the rows that COPY gave, ``copy_sha256`` is the digest of them."""

    columns: tuple[Column, ...]
    fingerprint: Fingerprint
    copied: int
    copy_sha256: str
    generated_sha256: str | None = None
    """Digest of the values of stored generated columns, a line for each row; None where there are none."""


def read(held: Held) -> TableContents:
    """Read the table twice, by a query and by COPY. Raises psycopg's errors."""
    columns = describing.describe(held.connection, held.table.oid).columns
    taken = fingerprint.take(held.connection, held.table.schema_, held.table.name)
    generated = Digest()
    digest = reading.read_rows(held, columns, sink=generated.update)
    stored = any(each.generated == "s" for each in columns)
    return TableContents(columns, taken, digest.lines, digest.sha256, generated.sha256 if stored else None)


def compare(subject: str, url: str, manifest: ArchiveManifest, contents: TableContents) -> None:
    """Whether the table ``subject`` holds what the manifest of the archive at ``url`` says: columns, number of rows,
    fingerprint and digest. Raises `ContentsChanged`."""
    if _shape(contents.columns) != _shape(manifest.columns):
        raise ContentsChanged(
            f"{subject} has the columns {_listed(contents.columns)}, the archive at {url} {_listed(manifest.columns)}: "
            "the table was altered since, or the archive is of another one; archive it again"
        )
    now, then = contents.fingerprint, manifest.fingerprint
    if (now, now.rows, contents.copied) != (then, manifest.rows, manifest.rows):
        raise ContentsChanged(
            f"{subject} holds {now.rows:,} rows that are not the {manifest.rows:,} of the archive at {url}: the table "
            "was changed since, or the archive is of another one; archive it again"
        )
    generated = manifest.generated.copy_sha256 if manifest.generated else None
    if (contents.copy_sha256, contents.generated_sha256) != (manifest.copy_sha256, generated):
        raise ContentsChanged(
            f"{subject} has the fingerprint that the archive at {url} names, but the rows of the archive are not those "
            "that COPY gives: the manifest names the fingerprint of another table, or the rows were written in another "
            "order since; archive it again"
        )


def _shape(columns: Iterable[Column]) -> list[tuple[str, str, str]]:
    """What decides which value of the archive is which of the table. Constraints do not, and may come later."""
    return [(each.name, each.type, each.generated) for each in columns]


def _listed(columns: Iterable[Column]) -> str:
    return ", ".join(" ".join(filter(None, each)) for each in _shape(columns))
