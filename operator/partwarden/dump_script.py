"""The SQL script that pg_restore makes of an archive: parsed for the one COPY that it may hold.

Read once, a piece at a time: what is found does not depend on where the pieces are cut. Memory is bounded by a piece and
one statement, time is linear. Comments, settings and the positions of sequences are skipped; whatever else is found makes
it the script of something else than one table's rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .errors import DumpFailed

END = b"\n\\.\n"
"""Ends the rows of COPY. No row can hold it: a backslash in a value is written twice."""
LONGEST = 1 << 22
"""Bytes of one statement or comment: the longest is COPY with the columns' names."""

_LITERAL = rb"'[^']*(?:''[^']*)*'"
KNOWN = re.compile(
    rb"SET [a-z_]+ = (?:" + _LITERAL + rb"|[A-Za-z0-9_.+-]+);"
    rb"|SELECT pg_catalog\.set_config\('search_path', '', false\);"
    rb"|SELECT pg_catalog\.setval\( ?E?" + _LITERAL + rb", -?[0-9]+, (?:true|false)\);"
)
"""Statements that pg_restore writes beside the rows: its settings, and where the table's own sequences stand."""
LINE = re.compile(rb"--.*|\\(?:un)?restrict [A-Za-z0-9]+")
"""Lines outside of statements: comments, and the key by which psql refuses every other command of its own."""

_SPACE = re.compile(rb"[ \t\r\n]*")
_NEWLINE, _MARK = re.compile(rb"\n"), re.compile(rb"['\";]")
_QUOTES = {b"'": re.compile(rb"'"), b'"': re.compile(rb'"')}


def copied_rows(script: Iterable[bytes], statement: bytes) -> Iterator[bytes]:
    """The rows of the script's one COPY, which must be ``statement``, without the line that ends them.

    Reads the script to its end. Raises `DumpFailed` where it has no COPY, another one, or a second one, where it holds
    any statement that is not `KNOWN`, and where it breaks off; and what reading it raises.
    """
    pieces = _Pieces(script)
    found = _next_copy(pieces)
    if found is None:
        raise DumpFailed("the archive holds no rows' section of the table that it should be of")
    if found != statement:
        raise DumpFailed("the archive holds the rows of another table, or of other columns, than it should")
    yield from _until_end(pieces)
    if (more := _next_copy(pieces)) is not None:
        which = "the table's rows twice" if more == statement else "the rows of a second table"
        raise DumpFailed(f"the archive holds {which}")


class _Pieces:
    """The pieces of the script, of which the rest of one can be given back."""

    def __init__(self, script: Iterable[bytes]) -> None:
        self._script, self._rest = iter(script), b""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece, self._rest = self._rest, b""
        return piece or next(self._script)

    def give_back(self, rest: bytes) -> None:
        self._rest = rest


def _next_copy(pieces: _Pieces) -> bytes | None:
    """Skip what is `KNOWN`, up to the end of the next COPY. None: the script ends without one. Raises `DumpFailed`."""
    text, quote = bytearray(), b""
    for piece in pieces:
        at = 0
        while at < len(piece):
            if not text:
                at = _end(_SPACE, piece, at)
                # Nothing but its first byte tells a line from a statement.
                text += piece[at : at + 1]
                at += 1
                if text in (b"'", b'"'):
                    raise _refused(text)
                continue
            is_line = text[:1] in (b"-", b"\\")
            sought = _NEWLINE if is_line else _QUOTES.get(quote, _MARK)
            found = sought.search(piece, at)
            end = found.end() if found else len(piece)
            text += piece[at:end]
            at = end
            if len(text) > LONGEST:
                raise _refused(text)
            if found is None:
                continue
            if is_line:
                if not LINE.fullmatch(text[:-1]):
                    raise _refused(text)
                text.clear()
            elif quote:
                quote = b""
            elif found[0] != b";":
                quote = found[0]
            elif text.startswith(b"COPY "):
                pieces.give_back(piece[at:])
                return bytes(text)
            elif KNOWN.fullmatch(text):
                text.clear()
            else:
                raise _refused(text)
    if text:
        raise DumpFailed("the archive's script breaks off within a statement")
    return None


def _end(pattern: re.Pattern[bytes], piece: bytes, at: int) -> int:
    found = pattern.match(piece, at)
    return found.end() if found else at


def _refused(text: bytearray) -> DumpFailed:
    shown = bytes(text[:60]).decode("utf-8", "replace").encode("unicode_escape").decode("ascii")
    return DumpFailed(f"the archive holds more than the rows of a table: {shown}")


def _until_end(pieces: _Pieces) -> Iterator[bytes]:
    # The newline before the first row belongs to the statement; with it the end is found also where there is no row.
    held, first = b"", True
    for piece in pieces:
        held += piece
        if first and held[:1] not in (b"", END[:1]):
            break
        end = held.find(END)
        ready = held[: end + 1] if end >= 0 else held[: 1 - len(END)]
        if end >= 0:
            pieces.give_back(held[end + len(END) :])
        held = held[len(ready) :]
        if rows := ready[1:] if first else ready:
            yield rows
        first = first and not ready
        if end >= 0:
            return
    raise DumpFailed("the archive's rows break off")
