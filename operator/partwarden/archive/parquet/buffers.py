"""Arrays of Arrow as what they are in memory: bytes behind one another, where they end, and a bitmap."""

from __future__ import annotations

import array
import binascii
import sys
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

WORDS = {4: "I", 8: "Q"}
"""Of `array.array`, by the size of a number in bytes."""


def content_of(texts: Any) -> Any:
    """The bytes of all values, one behind the other; a NULL has none."""
    _, offsets, data = texts.buffers()
    if data is None or not len(texts):
        return b""
    ends = memoryview(offsets).cast("i")
    return data[ends[texts.offset] : ends[texts.offset + len(texts)]]


def fixed_content(values: Any, size: int) -> Any:
    """The bytes of all values, which have ``size`` each; those of a NULL are any."""
    if not len(values):
        return b""
    return values.buffers()[1][values.offset * size : (values.offset + len(values)) * size]


def validity(values: Any) -> Any:
    """A bitmap of which are not NULL, from the first bit on; None where all are."""
    if not values.null_count:
        return None
    return pc.is_valid(values).buffers()[1]


def filled(texts: Any, instead: str) -> bytes:
    """The bytes of all values, with these for each NULL: all are of one length."""
    return bytes(content_of(pc.fill_null(texts, instead)))


def swapped(bits: bytes, size: int) -> bytes:
    """Numbers in the order of bytes that the network has, in that of this machine; and the other way."""
    if sys.byteorder == "big":
        return bits
    numbers = array.array(WORDS[size], bits)
    numbers.byteswap()
    return numbers.tobytes()


def cut(lengths: Any, like: Any, content: bytes, type_: Any = None) -> Any:
    """Values of these lengths out of the content; NULL where ``like`` is."""
    ends = pc.cumulative_sum(pc.cast(pc.fill_null(lengths, 0), pa.int32()))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    buffers = [validity(like), offsets.buffers()[1], pa.py_buffer(content)]
    return pa.Array.from_buffers(type_ or pa.binary(), len(like), buffers)


def hex_of_fixed(like: Any, content: Any, size: int) -> Any:
    """The digits of values that have ``size`` bytes each; NULL where ``like`` is."""
    digits = binascii.hexlify(content)
    fixed = pa.Array.from_buffers(pa.binary(2 * size), len(like), [validity(like), pa.py_buffer(digits)])
    return pc.cast(pc.cast(fixed, pa.binary()), pa.string())


def hex_of_binary(values: Any) -> Any:
    digits = binascii.hexlify(bytes(content_of(values)))
    return cut(pc.multiply(pc.binary_length(values), 2), values, digits, pa.string())
