"""Answers of a server: rows are read as they come, some at a time, and counted; errors by which it refuses a login.

libpq would keep all rows of an answer before it shows the first. A server that sends rows without end, or a catalog
that others have filled, would take the memory of the process: so what is too much is noticed while it is little.
https://www.postgresql.org/docs/current/libpq-single-row-mode.html
"""

from __future__ import annotations

import fcntl
import os
import re
import selectors
import time
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import capabilities, generators, pq
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.conninfo import make_conninfo
from psycopg.pq import ExecStatus, Format, PollingStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import RowMaker

LONGEST = 2048
"""Characters of a server's message that are looked at: some patterns take the square of its length."""
MOST_ROWS, MOST_BYTES = 100_000, 32 << 20
"""Of the answers to what is sent at once; bytes are counted as characters. A table has far fewer partitions."""
CHUNK = 64
"""Rows that are read at a time."""
NAMED, LONGEST_NAME = 6, 63
"""Columns that a message names, and characters of one."""
ENDED = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK, ExecStatus.EMPTY_QUERY)
GOOD = (*ENDED, ExecStatus.TUPLES_CHUNK, ExecStatus.SINGLE_TUPLE)


LONGEST_IDENTIFIER = 255
"""Characters of a name in the catalog; PostgreSQL keeps 63 bytes, unless it was built otherwise."""


class UnreadAnswer(psycopg.DataError):
    """An answer is larger than it is taken, or no PostgreSQL gives it. The rest of it may have no end."""


def _is_oid(value: object) -> bool:
    return type(value) is int and 0 < value < 1 << 32


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_IDENTIFIER


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_count(value: object) -> bool:
    return value is None or (type(value) is int and 0 <= value < 1 << 63)


COLUMNS: Mapping[str, Callable[[object], bool]] = {
    **dict.fromkeys(("oid", "relowner"), _is_oid),
    **dict.fromkeys(("schema", "name", "database", "user", "owner", "login", "kind", "membership"), _is_name),
    **dict.fromkeys(("version_text", "identity"), _is_name),
    **dict.fromkeys(("read_only", "standby", "pending", "may_own", "may_create"), _is_flag),
    **dict.fromkeys(("owner_creates", "owner_superuser", "relrowsecurity", "relforcerowsecurity"), _is_flag),
    **dict.fromkeys(("rows", "bytes"), _is_count),
}
"""What columns of these names hold in what the catalog says of a table: elsewhere some of them may be NULL."""


def check_rows(rows: Sequence[Any]) -> None:
    """Raises `UnreadAnswer` unless rows of one query are as `COLUMNS` says: a lie is noticed before they are used."""
    for name, values in zip(rows[0]._fields, zip(*rows, strict=True), strict=True) if rows else ():
        if not all(map(COLUMNS.get(name, _anything), values)):
            raise UnreadAnswer(f"the server answers a query with a {name!r} that no PostgreSQL has")


def read(connection: psycopg.Connection[Any], query: bytes, *, alone: bool) -> PQGen[list[list[Any]]]:
    """A generator for `psycopg.Connection.wait`: send the query, and return the rows of each answer.

    ``alone``: by the extended protocol, which takes no second statement. Raises `UnreadAnswer`, and the error of the
    server, after which the connection can be used again.
    """
    answers, pgconn = _Answers(connection), connection.pgconn
    if alone:
        pgconn.send_query_params(query, None, result_format=Format.BINARY)
    else:
        pgconn.send_query(query)
    if capabilities.has_stream_chunked():
        pgconn.set_chunked_rows_mode(CHUNK)
    else:
        pgconn.set_single_row_mode()
    yield from generators.send(pgconn)
    while (result := (yield from _next(pgconn, answers))) is not None:
        answers.add(result)
    if answers.failure is not None:
        raise answers.failure
    return answers.complete


class _Answers:
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.complete: list[list[Any]] = []
        self.failure: psycopg.Error | None = None
        self._transformer = Transformer(connection)
        self._rows: list[Any] = []
        self._make: RowMaker[Any] | None = None
        self._rows_left, self._bytes_left = MOST_ROWS, MOST_BYTES

    def add(self, result: PGresult) -> None:
        """Raises `UnreadAnswer`."""
        status, more = result.status, []
        if status == ExecStatus.FATAL_ERROR:
            self.failure = self.failure or psycopg.errors.error_from_result(result)
        elif status not in GOOD:
            # COPY, which nothing here asks for, and which would be answered for ever.
            raise UnreadAnswer(f"the server answers a query with {ExecStatus(status).name}, as no PostgreSQL does")
        elif result.ntuples:
            self._make = self._make or _row_maker(result)
            self._transformer.set_pgresult(result)
            more = self._read(result)
            self._rows += more
        self._count(more)
        if status in ENDED:
            self.complete.append(self._rows)
            self._rows, self._make = [], None

    def _read(self, result: PGresult) -> list[Any]:
        assert self._make is not None
        try:
            return self._transformer.load_rows(0, result.ntuples, self._make)
        except (ValueError, ArithmeticError, RecursionError) as error:
            raise UnreadAnswer(f"the server answers a query with what its type cannot be: {error}") from None

    def _count(self, rows: Sequence[Any]) -> None:
        # An answer without rows counts as one: there may be answers without end.
        self._rows_left -= max(len(rows), 1)
        self._bytes_left -= sum(map(_length, zip(*rows, strict=True)))
        if self._rows_left < 0 or self._bytes_left < 0:
            names = [name[:LONGEST_NAME] for name in getattr(rows[0], "_fields", ())[:NAMED]] if rows else []
            raise UnreadAnswer(
                f"the answer to a query for {', '.join(names) or 'nothing'} has more than {MOST_ROWS:,} rows, or more "
                f"than {MOST_BYTES >> 20} MiB, and is not read any further; drop or merge what is not needed there"
            )


def _anything(_: object) -> bool:
    return True


def _length(column: tuple[Any, ...]) -> int:
    """Of the texts in a column of equal types. Arrays and JSON count as text, numbers and the like not at all."""
    values = [*filter(None, column)]
    if not values or not isinstance(values[0], str | list | dict):
        return 0
    try:
        return sum(map(len, values if isinstance(values[0], str) else map(str, values)))
    except RecursionError:
        raise UnreadAnswer("the server answers a query with arrays in arrays, as no PostgreSQL does") from None


def _next(pgconn: PGconn, answers: _Answers) -> PQGen[PGresult | None]:
    try:
        result: PGresult | None = yield from generators.fetch(pgconn)
        return result
    except psycopg.DatabaseError:
        if answers.failure is None:
            raise
        # The server has ended the connection; its error before that says why.
        return None


@lru_cache(maxsize=512)
def _row_type(*names: str) -> type[tuple[Any, ...]]:
    # What SQL gave no name, or the same as another column, is left to its position.
    return namedtuple("Row", names, rename=True)


def _row_maker(result: PGresult) -> RowMaker[Any]:
    """Tuples with the column names of the SELECT as attributes."""
    names = [result.fname(number) or b"" for number in range(result.nfields)]
    row = _row_type(*(name.decode(errors="replace") for name in names))
    return lambda values: row(*values)


# SQLSTATE of a refused connection, which libpq keeps to itself: read from its own trace of the protocol. The message of
# a refusal is in the language of the server (lc_messages), which no client can choose before it is let in; the code in
# the same message is not. A libpq older than 18 does not trace that part: then nothing is known.

RESPONSE, CODE = b"\tErrorResponse\t", re.compile(rb' C "([0-9A-Z]{5})"')
LONGEST_TRACE = 1 << 20
"""Bytes. What a server says beyond that fails to be written, which libpq does not mind."""
_known: OrderedDict[str, tuple[str, ...]] = OrderedDict()


def sqlstates(parameters: Mapping[str, str | int | None], words: str, timeout: float = 10.0) -> tuple[str, ...]:
    """The codes of the errors by which the server refuses such a connection, one for each message in ``words``.

    Connects once more for that, and not again for the same words: a trace costs some memory that libpq never frees.
    """
    words = words[:LONGEST]
    if words not in _known:
        _known[words] = _trace(make_conninfo("", **dict(parameters)), timeout)
        while len(_known) > 1000:
            _known.popitem(last=False)
    return _known[words]


def _trace(conninfo: str, timeout: float) -> tuple[str, ...]:
    if not hasattr(os, "memfd_create"):
        return ()
    # In memory only: what is sent is in the trace as well.
    file = os.memfd_create("partwarden-trace", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(file, LONGEST_TRACE)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
        connection = pq.PGconn.connect_start(conninfo.encode())
        try:
            connection.trace(file)
            _poll(connection, time.monotonic() + timeout)
            connection.untrace()
        finally:
            connection.finish()
        return codes(os.pread(file, LONGEST_TRACE, 0))
    except (psycopg.Error, OSError):
        return ()
    finally:
        os.close(file)


def codes(trace: bytes) -> tuple[str, ...]:
    """The SQLSTATEs in a trace of libpq, one for each error of the server. Takes time in proportion to its length."""
    said = (line.partition(RESPONSE)[2] for line in trace.split(b"\n"))
    return tuple(found[1].decode() for each in said if (found := CODE.search(each)))


def _poll(connection: PGconn, deadline: float) -> None:
    with selectors.DefaultSelector() as selector:
        while (status := connection.connect_poll()) in (PollingStatus.READING, PollingStatus.WRITING):
            event = selectors.EVENT_READ if status == PollingStatus.READING else selectors.EVENT_WRITE
            selector.register(connection.socket, event)
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            # libpq may go on with another socket.
            selector.unregister(connection.socket)
            # A server that goes on sending is ready at any time.
            if not ready or time.monotonic() > deadline:
                return
