"""Re-read a table's catalog state and mark inside the transaction that will change it.

The plan was made from an older inventory. What is done to a table is decided here once more, by OIDs, under a lock that
keeps others from changing what was read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.sql import SQL

from ..errors import InsufficientPrivilege, TableChanged
from ..planner import marker
from ..planner.actions import Action
from ..planner.calendar import Range
from ..planner.inventory import Detached, KeyPart, Parent
from ..planner.keys import TYPES, Bounds, Codec
from ..planner.marker import Marker, Phase
from . import ddl
from .connection import run

# The identity of a server and its database: OIDs of tables mean something only together with it. System identifier and
# OID of the database, as `inventory.Server.identity` has them. A standby that is promoted keeps them. What initdb made
# anew has others, and so has the cluster that pg_upgrade moves into, or a copy of a database.

IDENTITY = """(SELECT system_identifier FROM pg_control_system()) || '/'
         || (SELECT oid FROM pg_database WHERE datname = current_database())"""
ALLOWED = "SELECT has_function_privilege('pg_control_system()', 'EXECUTE')"
"""True for every role, unless a superuser has taken that away."""


def read(connection: psycopg.Connection[Any], wanted: str = "") -> str:
    """The identity; "" where the role may not ask. ``wanted``: what it must be, where that is known.

    To be asked in a transaction that has pinned its settings. Raises `TableChanged` where the server or the database is
    another one, `InsufficientPrivilege` where that cannot be read, and psycopg's errors.
    """
    (((allowed,),),) = run(connection, ALLOWED)
    if not allowed:
        if not wanted:
            return ""
        raise InsufficientPrivilege(
            f"cannot tell whether this is server {wanted}, which the archive is of: role {connection.info.user!r} may "
            "not execute pg_control_system(); GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO that role"
        )
    (((found,),),) = run(connection, SQL("SELECT " + IDENTITY))
    if wanted not in ("", found):
        raise TableChanged(
            f"cannot use database {connection.info.dbname!r}: the archive is of a table of server {wanted}, and this "
            f"is {found} (system identifier, OID of the database); correct the Secret, or make another "
            "PartitionArchive for the table that is here"
        )
    return str(found)


# CHECK constraints that hold a detached table to the range it had. A concurrent detach leaves one, and the other form
# gives it one (see `detach`). Rows that were there before it lie in the range too: until the detach, PostgreSQL let
# none in that do not. So with the constraint in force every row lies in the range, whether or not PostgreSQL has
# validated it. From 18 on there are constraints that are written down and not enforced.
CHECKS = """
SELECT k.conname AS name, x.text, k.convalidated AS validated, quote_ident({key}) AS column,
       EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attname = {key} AND a.attnotnull)
         AS not_null
FROM pg_constraint k, LATERAL (SELECT pg_get_expr(k.conbin, k.conrelid) AS text OFFSET 0) x
WHERE length(x.text) <= {longest} AND k.conrelid = {oid} AND k.contype = 'c' AND NOT k.connoinherit
  AND to_jsonb(k) ->> 'conenforced' IS DISTINCT FROM 'false'
ORDER BY k.conname
"""
LONGEST_CHECK = 4096
"""Characters. A longer one counts for nothing: that of a detach has a tenth of it."""
VALUE = r"(?:'([^']+)'|(-?\d+))(?:::[a-z0-9 ]+)?"
TOKEN = re.compile(r"'[^']*'|\"[^\"]*\"| AND |[()]")


@dataclass(frozen=True, slots=True)
class Check:
    """A constraint that no row outside the range fulfils."""

    name: str
    condition: str
    validated: bool
    only: bool
    """Whether it says nothing else, as those of a detach."""


def holding_to(connection: psycopg.Connection[Any], oid: int, key: KeyPart, held: Range) -> tuple[Check, ...]:
    """Those of the table that let no row in whose key lies outside ``held``, or is NULL. Raises psycopg's errors.

    To be asked in a transaction that has pinned its settings: texts of moments are read.
    """
    (rows,) = run(connection, sql.SQL(CHECKS).format(oid=oid, key=key.column, longest=LONGEST_CHECK))
    return tuple(
        Check(row.name, row.text, row.validated, _says_only(row.text, row.column))
        for row in rows
        if implies(row.text, row.column, row.not_null, key.type, held)
    )


def bounds(connection: psycopg.Connection[Any], oid: int, key: KeyPart, held: Range) -> Bounds | None:
    """``held`` as a constraint of the table spells it, in PostgreSQL's own words; None where none does.

    Raises psycopg's errors; asked as `holding_to`.
    """
    (rows,) = run(connection, sql.SQL(CHECKS).format(oid=oid, key=key.column, longest=LONGEST_CHECK))
    codecs = [codec for encoding in TYPES if (codec := Codec.find(key.type, encoding)) is not None]
    for row in rows:
        parts = _joined_by_and(row.text)
        for lower in _constants(parts, row.column, ">="):
            for upper in _constants(parts, row.column, "<"):
                if any(_within(codec, [lower], [upper], held) for codec in codecs):
                    return Bounds(lower, upper)
    return None


def implies(condition: str, column: str, not_null: bool, type_name: str, held: Range) -> bool:
    """Whether the condition, in PostgreSQL's own words, lets no key in that lies outside ``held``, or is NULL.

    Only what is certainly so: comparisons of the column with constants, joined by AND and by nothing else. ``column``
    as SQL quotes it.
    """
    parts = _joined_by_and(condition)
    if not not_null and f"({column} IS NOT NULL)" not in parts:
        return False
    lowers, uppers = _constants(parts, column, ">="), _constants(parts, column, "<")
    codecs = [Codec.find(type_name, encoding) for encoding in TYPES]
    return any(codec is not None and _within(codec, lowers, uppers, held) for codec in codecs)


def _says_only(condition: str, column: str) -> bool:
    """Whether the condition is a lower and an upper bound of the column, and that it is not NULL."""
    parts = _joined_by_and(condition)
    ends = len(_constants(parts, column, ">=")), len(_constants(parts, column, "<"))
    return ends == (1, 1) and set(parts[:-2]) == {f"({column} IS NOT NULL)"} and len(parts) == 3


def _joined_by_and(condition: str) -> list[str]:
    """``(a)`` and ``(b)`` of ``((a) AND (b))``: nothing of any other text."""
    inner = condition[1:-1] if condition.startswith("((") and condition.endswith("))") else ""
    parts, depth, begin = [], 0, 0
    for token in TOKEN.finditer(inner):
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if depth == 0 and token[0] == ")":
            parts.append(inner[begin : token.end()])
        elif depth == 0 and token[0] == " AND ":
            begin = token.end()
    # Whatever stands between them beside AND would be missing here.
    return parts if " AND ".join(parts) == inner and all(each.startswith("(") for each in parts) else []


def _constants(parts: Iterable[str], column: str, operator: str) -> list[str]:
    pattern = re.compile(rf"\({re.escape(column)} {operator} {VALUE}\)")
    return [match[1] or match[2] for each in parts if (match := pattern.fullmatch(each))]


def _within(codec: Codec, lowers: Sequence[str], uppers: Sequence[str], held: Range) -> bool:
    """Keys of a bigint could be seconds or milliseconds: no moment can be a bound of the range in both."""
    if held.lower is None or held.upper is None or codec.aware != (held.lower.tzinfo is not None):
        return False
    try:
        return any(codec.moment(each) == held.lower for each in lowers) and any(
            codec.moment(each) == held.upper for each in uppers
        )
    except (ValueError, OverflowError):
        return False


SET_LOCK_TIMEOUT = "SELECT set_config('lock_timeout', {}, true)"
LOCK = "LOCK TABLE ONLY {} IN {} MODE"
STATE = """
SELECT c.oid, c.relkind = 'r' AS plain, c.relispartition AS is_partition, i.inhparent AS parent,
       coalesce(i.inhdetachpending, false) AS pending, {bounds} AS bounds, {comment} AS comment,
       {length} AS length, EXISTS (SELECT FROM pg_inherits below WHERE below.inhparent = c.oid) AS has_children,
       clock_timestamp() AS now, pg_get_userbyid(c.relowner) AS owner
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
WHERE n.nspname = {schema} AND c.relname = {name}
"""


@dataclass(frozen=True, slots=True)
class TableState:
    """``parent`` is the OID of what it is a partition of, or inherits from, ``bounds`` PostgreSQL's text of them.

    ``text`` is the user's own comment, None where the whole is too long to be read; ``mark`` ours beside it. ``now`` is
    the server's clock, aware.
    """

    oid: int
    plain: bool
    is_partition: bool
    parent: int | None
    pending: bool
    bounds: str | None
    text: str | None
    mark: Marker | None
    has_children: bool
    now: datetime
    owner: str

    @property
    def detached(self) -> bool:
        """Whether it is a table of its own, and nothing depends on it as on a parent."""
        return self.plain and not self.is_partition and self.parent is None and not self.has_children


def look(connection: psycopg.Connection[Any], action: Action, oid: int) -> TableState:
    """Lock the table against all DDL, and read its state. Raises `TableChanged` where the name is another's.

    The lock (SHARE UPDATE EXCLUSIVE) is in no reader's or writer's way, and lasts as long as the transaction.
    """
    oid_, names = sql.SQL("c.oid"), {"schema": action.schema, "name": action.name}
    bounds_ = sql.SQL(ddl.BOUNDS)
    query = sql.SQL(STATE).format(bounds=bounds_, comment=ddl.read(oid_), length=ddl.length(oid_), **names)
    _, rows = run(connection, lock(action, "SHARE UPDATE EXCLUSIVE"), query)
    if [row.oid for row in rows] != [oid]:
        raise TableChanged(f"{action.noun} {action} was dropped, renamed or made anew since it was read")
    fields = rows[0]._asdict()
    comment, length = fields.pop("comment"), fields.pop("length")
    text, mark = (None, None) if ddl.is_too_long(length) else marker.read(comment)
    return TableState(**fields, text=text, mark=mark)


def lock(action: Action, mode: str) -> sql.Composed:
    """Ask for the lock on the table; ``mode`` as LOCK TABLE spells it."""
    return sql.SQL(LOCK).format(ddl.relation(action), sql.SQL(mode))


def set_lock_timeout(milliseconds: int) -> sql.Composed:
    """From here on to the end of the transaction, locks are waited for so long only."""
    return sql.SQL(SET_LOCK_TIMEOUT).format(f"{milliseconds}ms")


def is_ours(state: TableState, parent: Parent) -> bool:
    """Whether the mark was written on this very table, of this very parent, whose owner owns the table.

    Another owner may write any text into the comment of a table, and have it run any function.
    """
    mark = state.mark
    return mark is not None and (mark.oid, mark.parent, state.owner) == (state.oid, parent.oid, parent.owner)


def write(action: Action, text: str | None, mark: Marker | None) -> sql.Composed:
    """Put the mark beside the user's own text, or take it away. Raises `StatementRejected` where there is no room."""
    if text is None:
        raise ddl.no_room(f"{action.noun} {action}")
    return ddl.comment(action, ddl.check_room(f"{action.noun} {action}", marker.write(text, mark)))


# Marks in the comments of tables, from rows of `catalog.MARKED`.


def detached(rows: Iterable[Any], parent: Parent, codec: Codec) -> tuple[Detached, ...]:
    """Those of the parent's owner whose mark says their own OID and this parent's, and moments of its key's domain.

    A copy of the comment, on another table or of a table that was made anew, means nothing. Neither does the mark of a
    restored partition once a user has detached it: it is theirs. Nor does a mark on a table of another owner, who
    may write any text into its comment.
    """
    return tuple(
        _detached(row, mark)
        for row in rows
        if row.owner == parent.owner
        and (mark := mark_of(row.comment, row.oid, parent)) is not None
        and _is_of_detach(mark, codec)
    )


def of_other_owners(rows: Iterable[Any], parent: Parent) -> tuple[str, ...]:
    """Tables that bear such a mark, and belong to another role than the parent: ``schema.name``."""
    return tuple(
        f"{row.schema}.{row.name}"
        for row in rows
        if row.owner != parent.owner and mark_of(row.comment, row.oid, parent) is not None
    )


def strangers(rows: Iterable[Any], parent: Parent, codec: Codec) -> tuple[Detached, ...]:
    """Tables whose mark names this parent by its name, and other OIDs: restored from a dump, or the comment is a copy.

    Nothing may be done to them: what they hold need not be what was detached. A copy beside the original is left out.
    """
    own = {each.oid for each in detached(rows, parent, codec)}
    return tuple(
        _detached(row, mark)
        for row in rows
        if (mark := marker.read(row.comment)[1]) is not None
        and not own & {row.oid, mark.oid}
        and (mark.oid, mark.parent) != (row.oid, parent.oid)
        and mark.table == str(parent)
        and _is_of_detach(mark, codec)
    )


def _detached(row: Any, mark: Marker) -> Detached:
    return Detached(row.oid, row.schema, row.name, mark, marker.read(row.comment)[0], row.rows, row.bytes or 0)


def mark_of(comment: str | None, oid: int, parent: Parent) -> Marker | None:
    """The mark in the comment of the table with that OID, if it was written on it, of this parent."""
    _, mark = marker.read(comment)
    return mark if mark is not None and (mark.oid, mark.parent) == (oid, parent.oid) else None


def _is_of_detach(mark: Marker, codec: Codec) -> bool:
    """Users may have edited it: moments with a zone are never compared with moments without one."""
    lower, upper = mark.range.lower, mark.range.upper
    return mark.phase is not Phase.RESTORED and {bool(lower.tzinfo), bool(upper.tzinfo)} == {codec.aware}
