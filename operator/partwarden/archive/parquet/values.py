"""Columns of values: PostgreSQL's text to Arrow's types, and from Arrow's values back to the very same text.

Both ways are taken a column at a time, by Arrow's own functions and by those of Python that work on whole buffers; only
arrays are taken value by value. What is made of a value read back is what COPY writes of it, to the byte: a digest over
rows made so is that of the rows which came from the server, or the file does not hold them.
"""

from __future__ import annotations

import array
import binascii
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from . import arrays
from .buffers import content_of, cut, filled, fixed_content, hex_of_binary, hex_of_fixed, swapped, validity
from .columns import Kind, ParquetColumn

NULL = "\\N"
"""As COPY writes it; text that is the same it writes with two backslashes."""
MARK = b"\xef\xbb\xbf"
"""At the beginning of a text Arrow's parser takes it for a mark of the encoding, and skips it once."""
ESCAPES = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "\b": "\\b", "\f": "\\f", "\v": "\\v"}
"""Beside the backslash, what COPY writes in another way."""
TO_ESCAPE = [each.encode() for each in ("\\", *ESCAPES)]
UNUSED = "\0"
"""What no text of PostgreSQL holds."""
HEX = b"\\x"

INTEGERS = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}
FLOATS = {32: pa.float32(), 64: pa.float64()}
PLAIN = {
    Kind.BOOLEAN: pa.bool_(),
    Kind.DATE: pa.date32(),
    Kind.TIMESTAMP: pa.timestamp("us"),
    Kind.TIMESTAMPTZ: pa.timestamp("us", "UTC"),
    Kind.TIME: pa.time64("us"),
    Kind.UUID: pa.uuid(),
    Kind.BYTEA: pa.binary(),
    Kind.STRING: pa.string(),
    Kind.TEXT: pa.string(),
    Kind.ENUM: pa.dictionary(pa.int32(), pa.string()),
}
DIRECT = (Kind.INTEGER, Kind.BOOLEAN, Kind.DECIMAL, Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.TIME)
"""What Arrow's parser of rows makes values of; the others it leaves as text."""


def type_of(column: ParquetColumn) -> Any:
    """Arrow's type of the column's values."""
    element = _element_type(column)
    if column.is_array:
        element = element.value_type if pa.types.is_dictionary(element) else element
        return pa.list_(pa.field("element", element))
    return element


def _element_type(column: ParquetColumn) -> Any:
    match column.kind:
        case Kind.INTEGER:
            return INTEGERS[column.bits]
        case Kind.FLOAT:
            return FLOATS[column.bits]
        case Kind.DECIMAL:
            return pa.decimal128(column.precision, column.scale)
        case kind:
            return PLAIN[kind]


def schema_of(columns: Sequence[ParquetColumn], metadata: dict[str, str]) -> Any:
    """Arrow's schema of the columns."""
    return pa.schema([pa.field(column.name, type_of(column)) for column in columns], metadata)


def parse_rows(rows: bytes, columns: Sequence[ParquetColumn], schema: Any) -> Any:
    """A table of whole rows, each with its newline, as COPY writes the columns. Raises `pyarrow.ArrowInvalid`."""
    names = [str(number) for number in range(len(columns))]
    is_direct = [column.kind in DIRECT and not column.is_array for column in columns]
    types = [field.type if direct else pa.string() for field, direct in zip(schema, is_direct, strict=True)]
    if rows.startswith(MARK):
        rows = MARK + rows
    read = pyarrow.csv.read_csv(
        pa.BufferReader(rows),
        pyarrow.csv.ReadOptions(use_threads=False, block_size=len(rows) + 1, column_names=names),
        pyarrow.csv.ParseOptions(
            delimiter="\t",
            quote_char=False,
            double_quote=False,
            escape_char=False,
            newlines_in_values=False,
            ignore_empty_lines=False,
        ),
        pyarrow.csv.ConvertOptions(
            check_utf8=False,
            column_types=dict(zip(names, types, strict=True)),
            null_values=[NULL],
            true_values=["t"],
            false_values=["f"],
            strings_can_be_null=True,
        ),
    )
    found = [
        values if direct else parse(unescape(values), column)
        for values, column, direct in zip(map(_whole, read.columns), columns, is_direct, strict=True)
    ]
    return pa.Table.from_arrays(found, schema=schema)


def render_rows(batch: Any) -> memoryview:
    """The rows of a batch as COPY writes them, each with its newline."""
    texts = [pc.fill_null(escape(render(column), column.type), NULL) for column in batch.columns]
    # An empty last part puts a separator, the newline, behind the row.
    texts[-1] = pc.binary_join_element_wise(texts[-1], "", "\n")
    lines = pc.binary_join_element_wise(*texts, "\t") if len(texts) > 1 else texts[0]
    return memoryview(content_of(lines))


def unescape(texts: Any) -> Any:
    """The text that COPY has written so."""
    if b"\\" not in bytes(content_of(texts)):
        return texts
    texts = pc.replace_substring(texts, "\\\\", UNUSED)
    for character, escaped in ESCAPES.items():
        texts = pc.replace_substring(texts, escaped, character)
    return pc.replace_substring(texts, UNUSED, "\\")


def escape(texts: Any, type_: Any) -> Any:
    """As COPY writes the text; ``type_``: of the values that it is made of."""
    if _is_plain(type_):
        return texts
    content = bytes(content_of(texts))
    if not any(each in content for each in TO_ESCAPE):
        return texts
    texts = pc.replace_substring(texts, "\\", "\\\\")
    for character, escaped in ESCAPES.items():
        texts = pc.replace_substring(texts, character, escaped)
    return texts


def _is_plain(type_: Any) -> bool:
    """Whether the text of such values holds nothing that COPY would write in another way."""
    types = pa.types
    return bool(
        types.is_integer(type_)
        or types.is_boolean(type_)
        or types.is_decimal(type_)
        or types.is_temporal(type_)
        or type_ == pa.uuid()
    )


def parse(texts: Any, column: ParquetColumn) -> Any:
    """Values of PostgreSQL's texts of them; NULL stays NULL."""
    if column.is_array:
        return _parse_lists(texts, column)
    type_ = _element_type(column)
    match column.kind:
        case Kind.STRING | Kind.TEXT:
            return texts
        case Kind.ENUM:
            return pc.dictionary_encode(texts)
        case Kind.BOOLEAN:
            return pc.equal(texts, "t")
        case Kind.FLOAT:
            size = type_.bit_width // 8
            bits = binascii.unhexlify(filled(texts, "\\x" + "00" * size).replace(HEX, b""))
            return pa.Array.from_buffers(type_, len(texts), [validity(texts), pa.py_buffer(swapped(bits, size))])
        case Kind.UUID:
            fixed = binascii.unhexlify(filled(texts, "0" * 32).replace(b"-", b""))
            return _uuids(texts, fixed)
        case Kind.BYTEA:
            raw = binascii.unhexlify(bytes(content_of(texts)).replace(HEX, b""))
            lengths = pc.divide(pc.subtract(pc.binary_length(texts), 2), 2)
            return cut(lengths, texts, raw)
        case Kind.TIME:
            # Arrow makes no time of a text, but of a moment.
            moments = pc.binary_join_element_wise("1970-01-01", texts, " ")
            return pc.cast(pc.cast(moments, pa.timestamp("us")), type_)
        case _:
            return pc.cast(texts, type_)


def _parse_lists(texts: Any, column: ParquetColumn) -> Any:
    lists = [None if each is None else arrays.parse(each) for each in texts.to_pylist()]
    # Arrays of enums are lists of texts: within lists, readers do not keep a dictionary.
    kind = Kind.STRING if column.kind is Kind.ENUM else column.kind
    elements = ParquetColumn("", kind, False, column.precision, column.scale, column.bits)
    flat = parse(pa.array([each for one in lists if one for each in one], pa.string()), elements)
    # A NULL is an empty list that the bitmap hides.
    ends = [0]
    for one in lists:
        ends.append(ends[-1] + len(one or ()))
    offsets = pa.py_buffer(array.array("i", ends).tobytes())
    return pa.Array.from_buffers(type_of(column), len(lists), [validity(texts), offsets], children=[flat])


def render(values: Any) -> Any:
    """PostgreSQL's text of each value; NULL stays NULL."""
    type_, types = values.type, pa.types
    if types.is_string(type_):
        return values
    if types.is_boolean(type_):
        return pc.if_else(values, "t", "f")
    if types.is_decimal(type_):
        return _render_decimals(values)
    if types.is_timestamp(type_):
        text = _without_zeros(pc.cast(pc.cast(values, pa.timestamp("us")), pa.string()))
        return text if type_.tz is None else pc.binary_join_element_wise(text, "00", "+")
    if types.is_time(type_):
        return _without_zeros(pc.cast(values, pa.string()))
    if types.is_floating(type_) or types.is_binary(type_):
        digits = hex_of_binary(values) if types.is_binary(type_) else _hex_of_bits(values)
        return pc.binary_join_element_wise("\\x", digits, "")
    if type_ == pa.uuid():
        return _render_uuids(values.storage)
    if types.is_list(type_):
        return _render_lists(values)
    # Whole numbers, and the texts of a dictionary.
    return pc.cast(values, pa.string())


def _hex_of_bits(numbers: Any) -> Any:
    size = numbers.type.bit_width // 8
    return hex_of_fixed(numbers, swapped(bytes(fixed_content(numbers, size)), size), size)


def _render_decimals(values: Any) -> Any:
    """Arrow writes small ones with an exponent, from the seventh digit behind the point on: their digits are put
    together then."""
    scale = values.type.scale
    if scale <= 6:
        return pc.cast(values, pa.string())
    # The same numbers without a point: the bits are those of the digits.
    buffers = [validity(values), pa.py_buffer(fixed_content(values, 16))]
    whole = pa.Array.from_buffers(pa.decimal128(38, 0), len(values), buffers)
    digits = pc.cast(whole, pa.string())
    sign = pc.if_else(pc.starts_with(digits, "-"), "-", "")
    digits = pc.utf8_lpad(pc.utf8_ltrim(digits, "-"), scale + 1, "0")
    head, tail = pc.utf8_slice_codeunits(digits, 0, -scale), pc.utf8_slice_codeunits(digits, -scale)
    return pc.binary_join_element_wise(sign, pc.binary_join_element_wise(head, tail, "."), "")


def _render_uuids(storage: Any) -> Any:
    digits = hex_of_fixed(storage, fixed_content(storage, 16), 16)
    ends = (0, 8, 12, 16, 20, 32)
    parts = [pc.utf8_slice_codeunits(digits, *each) for each in pairwise(ends)]
    return pc.binary_join_element_wise(*parts, "-")


def _render_lists(values: Any) -> Any:
    elements = render(values.flatten()).to_pylist()
    lengths, texts, at = pc.list_value_length(values).to_pylist(), [], 0
    for length in lengths:
        texts.append(None if length is None else arrays.render(elements[at : at + length]))
        at += length or 0
    return pa.array(texts, pa.string())


def _without_zeros(texts: Any) -> Any:
    """Arrow writes six digits behind the point; PostgreSQL as many as there are, and no point without any."""
    return pc.utf8_rtrim(pc.utf8_rtrim(texts, "0"), ".")


def _whole(chunks: Any) -> Any:
    """One array of a column's chunks."""
    found = chunks.combine_chunks()
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _uuids(texts: Any, fixed: bytes) -> Any:
    storage = pa.Array.from_buffers(pa.binary(16), len(texts), [validity(texts), pa.py_buffer(fixed)])
    return pa.ExtensionArray.from_storage(pa.uuid(), storage)
