"""A Parquet object is proven by its bytes and its values, read in one direction; a hostile one ends in a message."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq
import pytest

from partwarden.archive.manifest import ParquetColumnData, ParquetData
from partwarden.archive.parquet import proof, values
from partwarden.archive.parquet.columns import ParquetColumn, resolve
from partwarden.archive.parquet.digest import check_bytes
from partwarden.errors import ArchiveDamaged, ProofFailed

COLUMNS: list[ParquetColumn] = [resolve("n", "int4", -1, "integer"), resolve("t", "text", -1, "text")]
ROWS = b"".join(b"%d\t%s\n" % (n, b"\\N" if n % 5 == 0 else b"tab\\t" * n) for n in range(20))


def written(rows: bytes = ROWS) -> bytes:
    """A file with these rows, in row groups of six."""
    file = io.BytesIO()
    table = values.parse_rows(rows, COLUMNS, values.schema_of(COLUMNS, {}))
    pq.write_table(table, file, row_group_size=6, compression="zstd")
    return file.getvalue()


def data(text: bytes, **fields: Any) -> ParquetData:
    found = ParquetData(
        path="parquet/data.parquet",
        bytes=len(text),
        sha256=hashlib.sha256(text).hexdigest(),
        footer=100,
        copy_bytes=len(ROWS),
        copy_sha256=hashlib.sha256(ROWS).hexdigest(),
        columns=tuple(ParquetColumnData(name=each.name, type=str(values.type_of(each))) for each in COLUMNS),
    )
    # As the format has it: the length of the metadata, and four bytes.
    return found.model_copy(update={"footer": int.from_bytes(text[-8:-4], "little") + 8, **fields})


def prove(text: bytes, said: ParquetData | None = None, rows: int = 20, piece: int = 1 << 20) -> None:
    def opened() -> Iterator[bytes]:
        yield from (text[at : at + piece] for at in range(0, len(text), piece))

    proof.prove(opened, said or data(text), rows, "file:///x")


@pytest.mark.parametrize("piece", [1, 7, 100, 1 << 20])
def test_it_is_proven_however_it_comes(piece: int) -> None:
    prove(written(), piece=piece)


def test_a_file_longer_than_what_is_read_ahead_is_proven() -> None:
    noise = (b"".join(hashlib.sha256(b"%d %d" % (n, i)).hexdigest().encode() for i in range(200)) for n in range(20))
    rows = b"".join(b"%d\t%s\n" % each for each in enumerate(noise))
    text = written(rows)
    assert len(text) > 1 << 16
    prove(text, data(text, copy_sha256=hashlib.sha256(rows).hexdigest(), copy_bytes=len(rows)), piece=1000)


@pytest.mark.parametrize("at", [0, 5, -1, -200])
def test_each_byte_counts(at: int) -> None:
    whole = written()
    text = bytearray(whole)
    text[at] ^= 1
    with pytest.raises(ArchiveDamaged, match="was changed"):
        prove(bytes(text), data(whole))
    with pytest.raises(ArchiveDamaged, match="was changed"):
        check_bytes(lambda: [bytes(text)], data(whole), "file:///x")


def test_each_value_counts() -> None:
    text = written(ROWS.replace(b"19\t", b"18\t"))
    with pytest.raises(ProofFailed, match="the digest of its rows"):
        prove(text)


def test_what_was_changed_between_two_readings_is_not_proven() -> None:
    whole = written()
    changed = bytearray(whole)
    changed[5] ^= 1
    readings = iter([whole, bytes(changed)])
    with pytest.raises((ArchiveDamaged, ProofFailed)):
        proof.prove(lambda: [next(readings)], data(whole), 20, "file:///x")


HOSTILE: dict[str, dict[str, Any]] = {
    "a longer footer": {"footer": 2000},
    "another name of a column": {"columns": (ParquetColumnData(name="m", type="int32"),) * 2},
    "another type of a column": {"columns": (ParquetColumnData(name="n", type="int64"),) * 2},
    "no columns": {"columns": ()},
    "absurd rows": {"copy_bytes": 10**30},
    "no rows": {"copy_bytes": 0, "copy_sha256": ""},
}


@pytest.mark.parametrize("change", HOSTILE)
def test_a_manifest_that_says_another_thing_is_not_proven(change: str) -> None:
    text = written()
    said = data(text, **HOSTILE[change])
    if change == "absurd rows":
        # It only decides how many rows are rendered at once.
        prove(text, said)
        return
    with pytest.raises(ProofFailed):
        prove(text, said)


def test_another_number_of_rows_is_not_proven() -> None:
    with pytest.raises(ProofFailed, match="holds 20 rows, not 21"):
        prove(written(), rows=21)


@pytest.mark.parametrize(
    "text", [b"PAR1", b"no Parquet" * 10000, b"PAR1" + b"\xff" * 9000 + b"PAR1", written()[:-9] + b"PAR1"]
)
def test_what_is_no_parquet_is_said_so(text: bytes) -> None:
    with pytest.raises(ProofFailed, match="cannot read file:///x"):
        prove(text, data(text, footer=100))
