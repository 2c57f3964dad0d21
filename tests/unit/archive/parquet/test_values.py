"""Values keep their text: what is made of PostgreSQL's text in Arrow is rendered as that very text again."""

from __future__ import annotations

import struct
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partwarden.archive.parquet import arrays, values
from partwarden.archive.parquet.columns import ParquetColumn, resolve

ESCAPES = {"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


def copied(text: str | None) -> str:
    """As COPY writes a value."""
    return "\\N" if text is None else "".join(ESCAPES.get(each, each) for each in text)


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _decimal(precision: int, scale: int) -> st.SearchStrategy[tuple[Any, str]]:
    def made(digits: int) -> tuple[Any, str]:
        text = f"{abs(digits):0{scale + 1}}"
        shown = f"{text[:-scale]}.{text[-scale:]}" if scale else text
        shown = f"{'-' if digits < 0 else ''}{shown}"
        return Decimal(shown), shown

    most = 10**precision - 1
    return st.integers(-most, most).map(made)


def _float(size: str) -> st.SearchStrategy[tuple[Any, str]]:
    floats = st.floats(width=64) if size == "d" else st.floats(width=32)
    return floats.map(lambda each: (each, "\\x" + struct.pack(f">{size}", each).hex()))


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
MOMENTS = st.datetimes()
SAMPLES: dict[str, tuple[ParquetColumn, st.SearchStrategy[tuple[Any, str]]]] = {
    "smallint": (resolve("c", "int2", -1, ""), st.integers(-(2**15), 2**15 - 1).map(lambda n: (n, str(n)))),
    "bigint": (resolve("c", "int8", -1, ""), st.integers(-(2**63), 2**63 - 1).map(lambda n: (n, str(n)))),
    "boolean": (resolve("c", "bool", -1, ""), st.booleans().map(lambda b: (b, "t" if b else "f"))),
    "real": (resolve("c", "float4", -1, ""), _float("f")),
    "double": (resolve("c", "float8", -1, ""), _float("d")),
    "numeric(10,2)": (resolve("c", "numeric", (10 << 16 | 2) + 4, ""), _decimal(10, 2)),
    "numeric(38,0)": (resolve("c", "numeric", (38 << 16) + 4, ""), _decimal(38, 0)),
    "numeric(38,30)": (resolve("c", "numeric", (38 << 16 | 30) + 4, ""), _decimal(38, 30)),
    "numeric(3,9)": (resolve("c", "numeric", (3 << 16 | 9) + 4, ""), _decimal(3, 9)),
    "date": (resolve("c", "date", -1, ""), st.dates().map(lambda d: (d, d.isoformat()))),
    "timestamp": (resolve("c", "timestamp", -1, ""), MOMENTS.map(lambda m: (m, _trimmed(m.isoformat(" "))))),
    "timestamptz": (
        resolve("c", "timestamptz", -1, ""),
        MOMENTS.map(lambda m: (m, _trimmed(m.isoformat(" ")) + "+00")),
    ),
    "time": (resolve("c", "time", -1, ""), st.times().map(lambda t: (t, _trimmed(t.isoformat())))),
    "uuid": (resolve("c", "uuid", -1, ""), st.uuids().map(lambda u: (u, str(u)))),
    "bytea": (resolve("c", "bytea", -1, ""), st.binary(max_size=9).map(lambda b: (b, "\\x" + b.hex()))),
    "text": (resolve("c", "text", -1, ""), TEXTS.map(lambda t: (t, t))),
    "enum": (resolve("c", "", -1, "", is_enum=True), TEXTS.map(lambda t: (t, t))),
}


def _equal(found: Any, value: Any, column: ParquetColumn) -> bool:
    if isinstance(found, datetime):
        return bool(found.replace(tzinfo=None) == value)
    if isinstance(value, float):
        size = "d" if column.bits == 64 else "f"
        return struct.pack(size, found) == struct.pack(size, value)
    return bool(found == value)


@pytest.mark.parametrize("name", SAMPLES)
@given(data=st.data())
def test_a_value_is_the_one_that_its_text_says_and_keeps_its_text(name: str, data: st.DataObject) -> None:
    column, strategy = SAMPLES[name]
    sample = data.draw(st.lists(st.none() | strategy, min_size=1, max_size=6))
    rows = "".join(copied(each and each[1]) + "\n" for each in sample).encode()
    table = values.parse_rows(rows, [column], values.schema_of([column], {}))
    found = table.column(0).to_pylist()
    assert [each is None for each in found] == [each is None for each in sample]
    assert all(_equal(one, each[0], column) for one, each in zip(found, sample, strict=True) if each is not None)
    for batch in (*table.to_batches(), *(part for part in table.slice(1).to_batches() if part)):
        shown = bytes(values.render_rows(batch))
        assert rows.endswith(shown)
        assert shown.count(b"\n") == len(batch)


@pytest.mark.parametrize("name", SAMPLES)
@given(data=st.data())
def test_an_array_holds_each_of_these_values(name: str, data: st.DataObject) -> None:
    column, strategy = SAMPLES[name]
    column = replace(column, is_array=True)
    sample = data.draw(st.lists(st.none() | st.lists(st.none() | strategy, max_size=3), min_size=1, max_size=4))
    texts = [None if one is None else arrays.render(each and each[1] for each in one) for one in sample]
    rows = "".join(copied(each) + "\n" for each in texts).encode()
    table = values.parse_rows(rows, [column], values.schema_of([column], {}))
    for found, one in zip(table.column(0).to_pylist(), sample, strict=True):
        assert (found is None) == (one is None)
        for value, each in zip(found or (), one or (), strict=True):
            assert (value is None) if each is None else _equal(value, each[0], column)
    assert b"".join(bytes(values.render_rows(batch)) for batch in table.to_batches()) == rows
