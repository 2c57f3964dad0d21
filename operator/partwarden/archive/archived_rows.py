"""The rows of an archive as COPY wrote them, in the script that pg_restore makes of its dump.

The script is parsed for the one COPY that it may hold, a piece at a time: what is found does not depend on where the
pieces are cut. Memory is bounded by a piece and one statement, time is linear. Comments, settings and positions of
sequences are skipped; any other statement makes it the script of something else than one table's rows.
"""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from ..errors import ArchiveDamaged, DumpFailed, ProofFailed


@dataclass(slots=True)
class Digest:
    """SHA-256 and length of what was fed to it. ``lines``: as its user counts them."""

    lines: int = 0
    size: int = 0
    _hash: Any = field(default_factory=hashlib.sha256)

    def update(self, chunk: bytes | memoryview) -> None:
        """Feed the next piece, whose lines are not counted."""
        self._hash.update(chunk)
        self.size += len(chunk)

    @property
    def feed(self) -> Callable[[bytes | memoryview], None]:
        """Feeds the next piece, whose bytes are not counted either: of many small pieces each call counts."""
        feed: Callable[[bytes | memoryview], None] = self._hash.update
        return feed

    def through(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same chunks, each fed before it is given. Lines are not counted, which takes half as long as hashing."""
        for chunk in chunks:
            self.update(chunk)
            yield chunk

    def through_lines(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same, and its lines are counted."""
        for chunk in self.through(chunks):
            self.lines += chunk.count(b"\n")
            yield chunk

    def through_at_most(self, most: int, chunks: Iterable[bytes], subject: str) -> Iterator[bytes]:
        """As `through`; what others wrote may have no end. Raises `ArchiveDamaged` beyond so many bytes."""
        for chunk in self.through(chunks):
            if self.size > most:
                raise ArchiveDamaged(f"{subject} more than the {most} bytes that were written")
            yield chunk

    @property
    def sha256(self) -> str:
        """Lower case hexadecimal digits, of what was fed so far."""
        return str(self._hash.hexdigest())


END = b"\n\\.\n"
"""Ends the rows of COPY. No row can hold it: a backslash in a value is written twice."""
_END = re.compile(re.escape(END))  # which is found in half the time that bytes.find takes
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
    copy, rest = _next_copy(iter(script))
    if copy is None:
        raise DumpFailed("the archive holds no rows' section of the table that it should be of")
    if _quoted(copy) != statement:
        raise DumpFailed("the archive holds the rows of another table, or of other columns, than it should")
    rest = yield from _until_end(rest)
    if (more := _next_copy(rest)[0]) is not None:
        which = "the table's rows twice" if _quoted(more) == statement else "the rows of a second table"
        raise DumpFailed(f"the archive holds {which}")


def _quoted(statement: bytes) -> bytes:
    """The statement with every identifier in quotes: which need them depends on the version of ``pg_dump``."""
    if not COPY.fullmatch(statement):
        return statement
    names = [name if name.startswith(b'"') else b'"' + name + b'"' for name in _NAMES.findall(statement[5:-12])]
    columns = b"(" + b", ".join(names[2:]) + b")" if names[2:] else b""
    return b"COPY " + b".".join(names[:2]) + b" " + columns + b" FROM stdin;"


def _next_copy(pieces: Iterator[bytes]) -> tuple[bytes | None, Iterator[bytes]]:
    """Skip what is `KNOWN`, up to the end of the next COPY. Returns it, None where the script ends without one, and
    what comes behind it. Raises `DumpFailed`."""
    reader = _Reader()
    for piece in pieces:
        at = 0
        while at < len(piece):
            at, text = reader.read(piece, at)
            if text.startswith(b"COPY "):
                return text, chain([piece[at:]], pieces)
            if text and not KNOWN.fullmatch(text):
                raise _refused(text)
    if reader.begun:
        raise DumpFailed("the archive's script breaks off within a statement")
    return None, pieces


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


def _until_end(pieces: Iterator[bytes]) -> Generator[bytes, None, Iterator[bytes]]:
    """The rows. Returns what comes behind them."""
    # The newline before the first row belongs to the statement; with it the end is found also where there is no row.
    held, first = b"", True
    for each in pieces:
        piece = held + each if held else each
        if first and piece[:1] not in (b"", END[:1]):
            break
        # A piece without a backslash, which is found in no time, does not hold the end.
        if (mark := piece.find(b"\\")) >= 0 and (end := _END.search(piece, max(mark - 1, 0))):
            if rows := piece[first : end.start() + 1]:
                yield rows
            return chain([piece[end.end() :]], pieces)
        # A piece is handed on as it is wherever it can be: copying all of them takes as long as hashing them.
        begun = next(length for length in range(len(END) - 1, -1, -1) if piece.endswith(END[:length]))
        ready, held = (piece[:-begun], piece[-begun:]) if begun else (piece, b"")
        if rows := ready[1:] if first else ready:
            yield rows
        first = first and not ready
    raise DumpFailed("the archive's rows break off")


LONGEST_LINE = 1 << 30
"""Bytes of one: PostgreSQL reads none that is longer."""


def valid_text(pieces: Iterable[bytes], content: Digest, columns: Sequence[str]) -> Iterator[bytes]:
    """The same pieces of rows, which ``content`` has counted. Raises `ProofFailed` where one is no UTF-8: PostgreSQL
    writes such a value where its type lets it, as "char" does up to 15, and reads it nowhere."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    pending = first = 0
    for piece in pieces:
        if pending or not piece.isascii():
            try:
                decoder.decode(piece)
            except UnicodeDecodeError as error:
                raise _not_utf8(piece[: max(0, error.start - pending)], first, columns) from None
            pending = len(decoder.getstate()[0])
        first = content.lines
        yield piece


def _not_utf8(before: bytes, first: int, columns: Sequence[str]) -> ProofFailed:
    """``before``: what stands in the piece before the bytes; ``first``: rows that ended before the piece."""
    *ended, row = before.split(b"\n")
    place = row.count(b"\t") if ended or not first else len(columns)
    column = f"in column {columns[place]!r} " if place < len(columns) else ""
    return ProofFailed(
        f"row {first + len(ended) + 1:,} holds {column}bytes that are not text in UTF-8: they can be archived, and not "
        "be restored; correct such values first"
    )
