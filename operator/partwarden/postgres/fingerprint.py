"""What a table holds, as one number that does not depend on the order of its rows, computed by the server.

Each row is hashed with SHA-256, and the hashes are added up in four parts of 64 bits. Adding, unlike XOR, also shows
how often equal rows occur. Values are hashed in their binary send format where that is the same for equal values in
every version and database, otherwise as text, and all settings that text depends on are pinned. So the same contents
give the same number from every client, server version and role.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.sql import SQL, Composable, Composed, Identifier

from ..api.archive import Fingerprint
from ..errors import TableNotFound, WrongKey
from .connection import Session, run
from .settings import LIMITS, TEXT_SETTINGS, setting
from .transaction import BEGIN_READ_ONLY, read_as_owner, undo

ALGORITHM = "sha256-sum-1"
LONGEST = 7 * 24 * 3600.0  # seconds that one answer may take: a table of terabytes is read in a single statement

PINNED = {
    **TEXT_SETTINGS,
    "search_path": "",
    "client_encoding": "UTF8",
    "jit": "off",
    # A row that a policy hides would be lost unseen: an error instead.
    "row_security": "off",
}

# Not floats, whose NaN has several bit patterns; not arrays, which may say that they hold NULL when they no longer do;
# and none with an OID inside that another database has for something else.
BINARY = (
    *("bool", "int2", "int4", "int8", "numeric", "money", "text", "varchar", "bpchar", "bytea"),
    *("date", "time", "timetz", "timestamp", "timestamptz", "interval", "inet", "cidr", "macaddr", "macaddr8"),
    *("bit", "varbit", "json", "jsonb", "uuid"),
)
"""Types of pg_catalog that are hashed as they are sent: it takes a fourth of the time of making text of them."""
BUILT_IN = 10_000  # OIDs of types below are the same in every database

COLUMNS = """
SELECT a.attname, t.oid < {built_in} AND t.typname = ANY({binary})
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND c.relname = {name} AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
  -- What is generated and not stored holds nothing, and is computed anew at every reading.
  AND a.attgenerated <> 'v'
ORDER BY a.attnum
"""
SENT = """
SELECT each, EXISTS (SELECT FROM pg_type t WHERE t.oid = to_regtype(each) AND t.oid < {built_in}
                     AND t.typname = ANY({binary}))
FROM unnest({types}::text[]) each
"""
# OFFSET keeps the planner from computing the hash once for each of its parts. Parallel workers, where the server allows
# those, read such a subquery only if it is no limit at first sight, before anything is computed: a constant without a
# type is one of bigint from the beginning, and 0 alone is an integer that is to be converted.
CONTENT = "SELECT count(*), {sums} FROM (SELECT {hash} AS h FROM ONLY {table} AS t OFFSET '0') AS hash"
HASH = "sha256(record_send({row}))"
WIDTH = 64
"""Bits of a part, of which the hash has four: each a number with a sign, the most significant byte first."""
PARTS = [f"coalesce(sum(substr(h, {first}, 8)::int8), 0)" for first in (1, 9, 17, 25)]
CASTS_BYTES = 180_000
"""The version from which on a server casts bytes to numbers."""
# An older one has no cheap way from bytes to a number of more than one byte: it adds up pairs of bytes, and the sums of
# the pairs are put together here. Bit strings, made of hexadecimal digits, take nearly twice as long.
DIGIT = 16
DIGITS = [
    # Half of the range is added to a number with a sign by turning its first bit over.
    f"coalesce(sum({f'(get_byte(h, {first}) # 128)' if first % 8 == 0 else f'get_byte(h, {first})'} * 256"
    f" + get_byte(h, {first + 1})), 0)"
    for first in range(0, 32, 2)
]
# What another session needs of these workers is left to it: where the server, or the role, has none, none are used.
ALL_WORKERS = """
SELECT set_config('max_parallel_workers_per_gather', current_setting('max_parallel_workers'), true)
WHERE current_setting('max_parallel_workers_per_gather')::int8
      BETWEEN 1 AND current_setting('max_parallel_workers')::int8
"""


def take(
    connection: psycopg.Connection[Any],
    schema: str,
    name: str,
    columns: Mapping[str, bool] | None = None,
    *,
    hurry: bool = False,
) -> Fingerprint:
    """Take the fingerprint of a plain table.

    ``columns``: those to take it of, in this order, each with whether it is hashed as it is sent, as `sent` says of the
    type that it had; without it all of the table, as they are. ``hurry``: by as many workers as the server has, where
    it gives a query any: `max_parallel_workers` of the server or the role is the limit.

    In the transaction that the connection is in, whose settings stay as they are (``statement_timeout`` counts: it
    reads every row) and whose role reads, else in one of its own, as the owner. Raises `TableNotFound`, `WrongKey`
    where the table has not all ``columns``, and psycopg's errors: InsufficientPrivilege also where row security
    would hide rows.
    """
    with _settled(connection, schema, name):
        query = SQL(COLUMNS).format(built_in=BUILT_IN, binary=list(BINARY), schema=schema, name=name)
        own = dict(run(connection, query)[0])
        if not own:
            raise TableNotFound(f"{schema}.{name} is not there, or is not a plain table: only those have a fingerprint")
        if columns is not None and not set(columns) <= set(own):
            raise WrongKey(f"{schema}.{name} has the columns {', '.join(own)}, not {', '.join(columns)}")
        chosen = own if columns is None else columns
        with connection.patient(LONGEST) if isinstance(connection, Session) else nullcontext():
            if hurry:
                run(connection, ALL_WORKERS)
            version = connection.info.server_version
            (((rows, *sums),),) = run(connection, _content(schema, name, chosen, version))
            sums = sums if version >= CASTS_BYTES else _put_together(rows, sums)
    text = json.dumps([list(chosen), rows, [str(each) for each in sums]], separators=(",", ":"))
    return Fingerprint(algorithm=ALGORITHM, rows=rows, content=hashlib.sha256(text.encode()).hexdigest())


def sent(connection: psycopg.Connection[Any], types: Sequence[str]) -> dict[str, bool]:
    """Whether values of a type, as `format_type` names it, are hashed as they are sent; else their text is."""
    (found,) = run(connection, SQL(SENT).format(built_in=BUILT_IN, binary=list(BINARY), types=list(types)))
    return dict(found)


def _content(schema: str, name: str, columns: Mapping[str, bool], version: int) -> Composed:
    """``columns``: whether they are hashed as they are sent; ``version``: of the server."""
    values: list[Composable] = [Identifier("t", each) for each, binary in columns.items() if binary]
    if texts := [Identifier("t", each) for each, binary in columns.items() if not binary]:
        # Text as a row's and not by a cast, which a user may have defined.
        values.append(SQL("ROW({})::text").format(SQL(", ").join(texts)))
    return SQL(CONTENT).format(
        sums=SQL(", ").join(map(SQL, PARTS if version >= CASTS_BYTES else DIGITS)),
        table=Identifier(schema, name),
        hash=SQL(HASH).format(row=SQL("ROW({})").format(SQL(", ").join(values))),
    )


def _put_together(rows: int, digits: Sequence[int]) -> list[int]:
    """The sums of `PARTS` from those of `DIGITS`."""
    each, whole = WIDTH // DIGIT, []
    for first in range(0, len(digits), each):
        most_first = enumerate(digits[first : first + each], 1)
        whole.append(sum(digit << WIDTH - DIGIT * place for place, digit in most_first) - (rows << WIDTH - 1))
    return whole


@contextmanager
def _settled(connection: psycopg.Connection[Any], schema: str, name: str) -> Iterator[None]:
    """The pinned settings, and afterwards those from before. In a transaction of its own also the role of the owner."""
    own = connection.info.transaction_status == TransactionStatus.IDLE
    begin = BEGIN_READ_ONLY if own else "SAVEPOINT partwarden_fingerprint"
    # Rolled back, for that gives back every setting; nothing was written that could be lost with it.
    end = "ROLLBACK" if own else "ROLLBACK TO SAVEPOINT partwarden_fingerprint"
    try:
        run(connection, begin, setting(PINNED | (LIMITS if own else {})))
        if own:
            read_as_owner(connection, schema, name)
        yield
        run(connection, end, *(() if own else ("RELEASE SAVEPOINT partwarden_fingerprint",)))
    except BaseException:
        if own:
            undo(connection)
        raise
