"""Comments of tables as SQL reads them: never more of one than a mark can stand in, however long it is."""

from __future__ import annotations

from psycopg import sql

from .errors import StatementRejected
from .marker import LONGEST

# octet_length reads the length alone: of a comment that is too long, nothing is decompressed or transferred.
READ = """
(SELECT CASE WHEN octet_length(d.description) <= {longest} THEN d.description END FROM pg_description d
 WHERE d.objoid = {oid} AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0)
"""
LENGTH = """
coalesce((SELECT octet_length(d.description) FROM pg_description d
          WHERE d.objoid = {oid} AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0), 0)
"""


def read(oid: sql.Composable) -> sql.Composed:
    """An expression: the comment of the table, NULL where there is none or it is longer than `LONGEST`."""
    return sql.SQL(READ).format(oid=oid, longest=LONGEST)


def length(oid: sql.Composable) -> sql.Composed:
    """An expression: how many bytes the comment has, 0 where there is none."""
    return sql.SQL(LENGTH).format(oid=oid)


def is_too_long(length: int) -> bool:
    """Whether a comment of so many bytes was not read."""
    return length > LONGEST


def check_room(table: object, comment: str | None) -> str | None:
    """The comment that is to be written, if it would be read again. Raises `StatementRejected`."""
    if comment is not None and is_too_long(len(comment.encode())):
        raise no_room(table)
    return comment


def no_room(table: object) -> StatementRejected:
    """Nothing is written into a comment that is too long, for what stands there is not known."""
    return StatementRejected(
        f"cannot write a mark into the comment of {table}: with it the comment has more than {LONGEST:,} bytes, and no "
        "longer one is read; shorten the comment"
    )
