"""Write a table of a snapshot as one Parquet object, while its rows come.

What is in memory does not grow with the table: a piece of rows as COPY wrote them, the row group that is being filled,
and the bytes that are on their way to the destination. See `GROUP`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from psycopg.sql import SQL, Identifier

from ...errors import ProofFailed, StatementRejected
from ...postgres.connection import run
from ...postgres.settings import setting
from .. import snapshot
from ..archived_rows import Digest
from ..manifest import LARGEST_FOOTER, ParquetColumnData, ParquetData, Say
from ..object_writer import ObjectWriter
from ..snapshot import Held
from ..storage import Store
from ..verify import Progress
from . import values
from .columns import ParquetColumn, choose

PIECE = 4 << 20
"""Bytes of rows, as COPY writes them, that become values at once; a longer row is one piece."""
GROUP, MOST_ROWS = 64 << 20, 1 << 20
"""Bytes of values in memory, or of the rows as COPY wrote them, and rows, by which a row group is full. Readers like
them of about 128 MB, but a whole one is in memory here, when it is written and when it is read back."""
LEVEL = 1
"""Of zstd: of the rows of `make bench archive`, 3 takes longer and makes a larger file."""
KEY = "partwarden"
"""Of the file's metadata, under which a JSON document says what the rows are."""


def write(
    held: Held, store: Store, place: str, path: str, facts: Mapping[str, Any], rows: int, say: Say
) -> ParquetData:
    """Write the object ``path`` of the archive whose folder has the key ``place``. What it returns proves nothing
    before it is read back: see `proof`.

    ``facts``: for the file's metadata. ``rows``: how many the snapshot has. Raises `ProofFailed` where there are
    others, or one of them cannot be written as its column's type, `StatementRejected` for a table with too many
    rows, psycopg's errors, and what storage raises; then no object is there.
    """
    columns = choose(held.connection, held.table)
    for column in columns:
        if column.reason:
            say(f"column {column.name!r} is text in Parquet: {column.reason}")
    described = tuple(_describe(column) for column in columns)
    document = {**facts, "columns": [each.model_dump(mode="json", by_alias=True) for each in described]}
    schema = values.schema_of(columns, {KEY: json.dumps(document, ensure_ascii=False)})
    digest, size, count = hashlib.sha256(), 0, 0
    with Upload(store, f"{place}/{path}", held.size) as upload:
        groups, progress = _Groups(upload, schema), Progress(say, rows)
        for piece in _pieces(held, columns):
            digest.update(piece)
            size += len(piece)
            count += piece.count(b"\n")
            groups.add(_parse(piece, columns, schema, held), len(piece))
            progress.report(count, f"{count:,} of {rows:,} rows written as Parquet")
        footer = groups.close()
        if count != rows:
            raise ProofFailed(f"{held.table}: COPY gave {count} rows, and a count {rows}, in one snapshot")
        if footer > LARGEST_FOOTER:
            raise StatementRejected(
                f"cannot archive table {held.table} as Parquet: its metadata would have {footer:,} bytes, and at most "
                f"{LARGEST_FOOTER:,} are read again; archive it as Dump alone"
            )
        written, sha256 = upload.finish()
    say(f"{written:,} bytes of Parquet written in {groups.count} row groups")
    return ParquetData(
        path=path,
        bytes=written,
        sha256=sha256,
        footer=footer,
        copy_bytes=size,
        copy_sha256=digest.hexdigest(),
        columns=described,
    )


def _describe(column: ParquetColumn) -> ParquetColumnData:
    return ParquetColumnData(name=column.name, type=str(values.type_of(column)), text_reason=column.reason)


def _parse(piece: bytes, columns: Sequence[ParquetColumn], schema: Any, held: Held) -> Any:
    try:
        return values.parse_rows(piece, columns, schema)
    # What Python's own functions raise for digits that are none is a ValueError as well.
    except (pa.ArrowException, ValueError) as error:
        raise ProofFailed(
            f"cannot write {held.table} as Parquet: {str(error).splitlines()[0][:300]}; archive it as Dump alone, and "
            "report this"
        ) from None


def _pieces(held: Held, columns: Sequence[ParquetColumn]) -> Iterator[bytes]:
    """The rows in the order in which the dump has them, as COPY writes the columns; some at a time."""
    run(held.connection, setting(snapshot.IN_ORDER))
    read = SQL(", ").join(column.read for column in columns)
    query = SQL("COPY (SELECT {} FROM ONLY {}) TO STDOUT").format(read, Identifier(held.table.schema_, held.table.name))
    rows = bytearray()
    for piece in snapshot.copy_out(held.connection, query):
        rows += piece
        # A newline in a value is escaped: each is the end of a row.
        if len(rows) >= PIECE and (end := rows.rfind(b"\n") + 1):
            with memoryview(rows) as whole:
                yield bytes(whole[:end])
            del rows[:end]
    if rows:
        yield bytes(rows)


class _Groups:
    """Fills row groups, and writes each once it is full."""

    def __init__(self, upload: Upload, schema: Any) -> None:
        self._upload, self._schema = upload, schema
        self._writer = pq.ParquetWriter(upload, schema, compression="zstd", compression_level=LEVEL)
        self._held: list[Any] = []
        self._rows = self._size = 0
        self.count = 0

    def add(self, table: Any, size: int) -> None:
        """``size``: bytes of its rows as COPY wrote them."""
        self._held.append(table)
        self._rows += table.num_rows
        self._size += max(size, table.nbytes)
        # A piece may hold more rows than that, of a table with few columns.
        if self._size >= GROUP or self._rows >= MOST_ROWS:
            self._flush()

    def _flush(self) -> None:
        table = pa.concat_tables(self._held).unify_dictionaries()
        self._held, self._rows, self._size = [], 0, 0
        self._writer.write_table(table, row_group_size=table.num_rows)
        self.count += 1

    def close(self) -> int:
        """Write what is left, and the footer, whose number of bytes is returned."""
        if self._held:
            self._flush()
        before = self._upload.position
        self._writer.close()
        return self._upload.position - before


class Upload(ObjectWriter):
    """A file for pyarrow, that is only written."""

    def __init__(self, store: Store, key: str, expected: int = 0) -> None:
        """``expected``: about how many bytes it will have at most."""
        self.position, self.closed, self._abandoned = 0, False, False
        self._written = Digest()
        super().__init__(store, key, expected, self._written.through)

    def write(self, content: bytes) -> int:
        """Add bytes. Raises what storage raised."""
        # pyarrow ends a file when it lets go of it.
        if not self._abandoned:
            self.position += super().write(content)
        return len(content)

    def flush(self) -> None:
        """Nothing: an object is there whole or not at all."""

    def close(self) -> None:
        """Take no more; only `finish` makes the object."""
        self.closed = True

    def finish(self) -> tuple[int, str]:
        """The object is there, whole and durable: its bytes, and their sha256. Raises what storage raises."""
        self.end()
        return self._written.size, self._written.sha256

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._abandoned = error is not None
        super().__exit__(kind, error, traceback)
