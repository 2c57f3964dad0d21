"""The SQL script that pg_restore makes of an archive: parsed for the one COPY that it may hold.

Read once, a piece at a time: what is found does not depend on where the pieces are cut. Memory is bounded by a piece
and one statement, time is linear. Comments, settings and positions of sequences are skipped; any other statement makes
it the script of something else than one table's rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..errors import DumpFailed

END = b"\n\\.\n"
"""Ends the rows of COPY. No row can hold it: a backslash in a value is written twice."""
LONGEST = 1 << 22
"""Bytes of one statement or comment: the longest is COPY with the columns' names."""

_LITERAL = rb"'[^']*(?:''[^']*)*'"
KNOWN = re.compile(
    # Comments, and the key by which psql refuses every other command of its own.
    rb"--.*|\\(?:un)?restrict [A-Za-z0-9]+"
    # Settings, and where the table's own sequences stand.
    rb"|SET [a-z_]+ = (?:" + _LITERAL + rb"|[A-Za-z0-9_.+-]+);"
    rb"|SELECT pg_catalog\.set_config\('search_path', '', false\);"
    rb"|SELECT pg_catalog\.setval\( ?E?" + _LITERAL + rb", -?[0-9]+, (?:true|false)\);"
)
"""Lines and statements that pg_restore writes beside the rows."""

_NAME = rb'(?:[a-z_][a-z0-9_$]*|"[^"]*(?:""[^"]*)*")'
COPY = re.compile(
    rb"COPY " + _NAME + rb"\." + _NAME + rb" (?:\(" + _NAME + rb"(?:, " + _NAME + rb")*\) )? ?FROM stdin;"
)
_NAMES = re.compile(_NAME)

_SPACE, _NEWLINE, _MARK = re.compile(rb"[ \t\r\n]*"), re.compile(rb"\n"), re.compile(rb"['\";]")
_QUOTES = {b"'": re.compile(rb"'"), b'"': re.compile(rb'"')}


def copied_rows(script: Iterable[bytes], statement: bytes) -> Iterator[bytes]:
    """The rows of the script's one COPY, which must be ``statement``, without the line that ends them.

    ``statement``: with every identifier in quotes; in the script those that need none may have none.

    Reads the script to its end. Raises `DumpFailed` where it has no COPY, another one, or a second one, where it holds
    any statement that is not `KNOWN`, and where it breaks off; and what reading it raises.
    """
    pieces = _Pieces(script)
    copy = _next_copy(pieces)
    if copy is None:
        raise DumpFailed("the archive holds no rows' section of the table that it should be of")
    if _quoted(copy) != statement:
        raise DumpFailed("the archive holds the rows of another table, or of other columns, than it should")
    yield from _until_end(pieces)
    if (more := _next_copy(pieces)) is not None:
        which = "the table's rows twice" if _quoted(more) == statement else "the rows of a second table"
        raise DumpFailed(f"the archive holds {which}")


def _quoted(statement: bytes) -> bytes:
    """The statement with every identifier in quotes: which need them depends on the version of ``pg_dump``."""
    if not COPY.fullmatch(statement):
        return statement
    names = [name if name.startswith(b'"') else b'"' + name + b'"' for name in _NAMES.findall(statement[5:-12])]
    columns = b"(" + b", ".join(names[2:]) + b")" if names[2:] else b""
    return b"COPY " + b".".join(names[:2]) + b" " + columns + b" FROM stdin;"


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
    reader = _Reader()
    for piece in pieces:
        at = 0
        while at < len(piece):
            at, text = reader.read(piece, at)
            if text.startswith(b"COPY "):
                pieces.give_back(piece[at:])
                return text
            if text and not KNOWN.fullmatch(text):
                raise _refused(text)
    if reader.begun:
        raise DumpFailed("the archive's script breaks off within a statement")
    return None


class _Reader:
    """Puts together one statement, or one line that is none, after the other."""

    def __init__(self) -> None:
        self.begun = bytearray()
        self._quote = b""

    def read(self, piece: bytes, at: int) -> tuple[int, bytes]:
        """Go on in the piece. Returns the place that it came to, and what ends there; nothing where it goes on."""
        text = self.begun
        if not text:
            space = _SPACE.match(piece, at)
            at = space.end() if space else at
            # Its first byte tells a line from a statement.
            self._quote = piece[at : at + 1] if piece[at : at + 1] in _QUOTES else b""
            text += piece[at : at + 1]
            return at + 1, b""
        is_line = text.startswith((b"-", b"\\"))
        found = (_NEWLINE if is_line else _QUOTES.get(self._quote, _MARK)).search(piece, at)
        end = found.end() if found else len(piece)
        text += piece[at:end]
        if len(text) > LONGEST:
            raise _refused(text)
        if found is None:
            return end, b""
        if not is_line and found[0] != b";":
            self._quote = b"" if self._quote else found[0]
            return end, b""
        self.begun = bytearray()
        return end, bytes(text[:-1] if is_line else text)


def _refused(text: bytes | bytearray) -> DumpFailed:
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
