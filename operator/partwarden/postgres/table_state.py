"""Re-read a table's catalog state and mark inside the transaction that will change it.

The plan was made from an older inventory. What is done to a table is decided here once more, by OIDs, under a lock that
keeps others from changing what was read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed

from ..errors import MOST_NAMES, InsufficientPrivilege, TableChanged, did_you_mean
from ..planner import marker
from ..planner.actions import Action
from ..planner.calendar import Range
from ..planner.inventory import Detached, Inventory, KeyPart, Parent
from ..planner.keys import TYPES, Bounds, Codec
from ..planner.marker import ConvertedMark, Marker, Phase
from . import ddl
from .connection import pinned, run

# The identity of a server and its database: OIDs of tables mean something only together with it. System identifier and
# OID of the database, as `inventory.Server.identity` has them. A standby that is promoted keeps them. What initdb made
# anew has others, and so has the cluster that pg_upgrade moves into, or a copy of a database.
IDENTITY = """(SELECT system_identifier FROM pg_control_system()) || '/'
         || (SELECT oid FROM pg_database WHERE datname = current_database())"""


def read(connection: psycopg.Connection[Any], wanted: str = "") -> str:
    """The identity; "" where the role may not ask. ``wanted``: what it must be, where that is known.

    To be asked in a transaction that has pinned its settings. Raises `TableChanged` where the server or the database is
    another one, `InsufficientPrivilege` where that cannot be read, and psycopg's errors.
    """
    # Every role may, unless a superuser has taken that away.
    (((allowed,),),) = run(connection, "SELECT has_function_privilege('pg_control_system()', 'EXECUTE')")
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


# Those called so first, in whichever schema, then those of the schema, and of them those that begin so.
SIMILAR = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = {kind} AND (c.relname = {name} OR c.relispartition = ({kind} = 'r'))
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND (n.nspname, c.relname) <> ({schema}::text, {name})
ORDER BY c.relname <> {name}, n.nspname <> {schema}, left(c.relname, 4) <> left({name}, 4), n.nspname, c.relname
LIMIT {most}
"""
MOST_SCHEMAS = 3
"""Tables of one name that a message suggests."""


def similar_tables(connection: psycopg.Connection[Any], schema: str, name: str, kind: str = "p") -> str:
    """``; did you mean app.run?``: tables of that name in other schemas, else the one that is called nearly so.

    "" where there is none. ``kind``: p for partitioned tables, r for partitions. Raises psycopg's errors.
    """
    query = SQL(SIMILAR).format(schema=schema, name=name, kind=kind, most=MOST_NAMES)
    _, found = run(connection, pinned("500ms", "10s"), query)
    if same := [f"{there}.{name}" for there, called in found if called == name][:MOST_SCHEMAS]:
        return f"; did you mean {' or '.join(same)}?"
    return did_you_mean(f"{schema}.{name}", (f"{there}.{called}" for there, called in found))


# CHECK constraints that hold a detached table to the range it had. A concurrent detach leaves one, and the other form
# gives it one (see `detach`). Rows that were there before it lie in the range too: until the detach, PostgreSQL let
# none in that do not. So with the constraint in force every row lies in the range, whether or not PostgreSQL has
# validated it. From 18 on there are constraints that are written down and not enforced. They hold texts of moments: to
# be asked for in a transaction that has pinned its settings.
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
VALUE = r"(?:'([^']+)'|(-?\d+))(?:::[a-z0-9]+(?:\([0-6]\))?(?: [a-z ]+)?)?"
"""With its type, which may have a precision."""
TOKEN = re.compile(r"'[^']*'|\"[^\"]*\"| AND |[()]")


@dataclass(frozen=True, slots=True)
class Check:
    """A constraint that no row outside the range fulfils."""

    name: str
    condition: str
    validated: bool
    only: bool
    """Whether it says nothing but two bounds, and that the column is not NULL, as those of a detach."""


def holding_to(connection: psycopg.Connection[Any], oid: int, key: KeyPart, held: Range) -> tuple[Check, ...]:
    """Those of the table that let no row in whose key lies outside ``held``, or is NULL. Raises psycopg's errors."""
    checks = []
    for row in run(connection, SQL(CHECKS).format(oid=oid, key=key.column, longest=LONGEST_CHECK))[0]:
        if implies(row.text, row.column, row.not_null, key.type, held):
            parts = _joined_by_and(row.text)
            ends = len(_constants(parts, row.column, ">=")), len(_constants(parts, row.column, "<"))
            only = ends == (1, 1) and parts[:-2] == [f"({row.column} IS NOT NULL)"]
            checks.append(Check(row.name, row.text, row.validated, only))
    return tuple(checks)


def bounds(connection: psycopg.Connection[Any], oid: int, key: KeyPart, held: Range) -> Bounds | None:
    """``held`` as a constraint of the table spells it, in PostgreSQL's own words, or None. Raises psycopg's errors."""
    (rows,) = run(connection, SQL(CHECKS).format(oid=oid, key=key.column, longest=LONGEST_CHECK))
    spelled = (_spelled(_joined_by_and(row.text), row.column, key.type, held) for row in rows)
    return next((each for each in spelled if each is not None), None)


def implies(condition: str, column: str, not_null: bool, type_name: str, held: Range) -> bool:
    """Whether the condition, in PostgreSQL's own words, lets no key in that lies outside ``held``, or is NULL.

    Only what is certainly so: comparisons of the column with constants, joined by AND and by nothing else. ``column``
    as SQL quotes it.
    """
    parts = _joined_by_and(condition)
    return (not_null or f"({column} IS NOT NULL)" in parts) and _spelled(parts, column, type_name, held) is not None


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


def ends(condition: str, column: str) -> Bounds | None:
    """The two bounds of a condition in PostgreSQL's own words that says nothing but them, and that the column is not
    NULL; else None. ``column`` as SQL quotes it."""
    parts = _joined_by_and(condition)
    lowers, uppers = _constants(parts, column, ">="), _constants(parts, column, "<")
    if (len(lowers), len(uppers), parts[:-2]) != (1, 1, [f"({column} IS NOT NULL)"]):
        return None
    return Bounds(lowers[0], uppers[0])


def _constants(parts: Iterable[str], column: str, operator: str) -> list[str]:
    pattern = re.compile(rf"\({re.escape(column)} {operator} {VALUE}\)")
    return [match[1] or match[2] for each in parts if (match := pattern.fullmatch(each))]


def _spelled(parts: Iterable[str], column: str, type_name: str, held: Range) -> Bounds | None:
    """Keys of a bigint could be seconds or milliseconds: no moment can be a bound of the range in both."""
    lowers, uppers = _constants(parts, column, ">="), _constants(parts, column, "<")
    for codec in (Codec.find(type_name, encoding) for encoding in TYPES):
        if codec is None or held.lower is None or codec.aware != (held.lower.tzinfo is not None):
            continue
        try:
            lower = next((each for each in lowers if codec.moment(each) == held.lower), None)
            upper = next((each for each in uppers if codec.moment(each) == held.upper), None)
        except (ValueError, OverflowError):
            continue
        if lower is not None and upper is not None:
            return Bounds(lower, upper)
    return None


STATE = SQL("""
SELECT c.oid, c.relkind = 'r' AS plain, c.relispartition AS is_partition, i.inhparent AS parent,
       coalesce(i.inhdetachpending, false) AS pending, pg_get_expr(c.relpartbound, 0) AS bounds, {comment} AS comment,
       {length} AS length, EXISTS (SELECT FROM pg_inherits below WHERE below.inhparent = c.oid) AS has_children,
       clock_timestamp() AS now, pg_get_userbyid(c.relowner) AS owner
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
WHERE n.nspname = {schema} AND c.relname = {name}
""")


@dataclass(frozen=True, slots=True)
class TableState:
    """``parent`` is the OID of what it is a partition of, or inherits from, ``bounds`` PostgreSQL's text of them.

    ``text`` is the user's own comment, None where the whole is too long to be read; ``mark`` ours beside it, and
    ``comment`` both. ``now`` is the server's clock, aware.
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
    comment: str | None = None

    @property
    def detached(self) -> bool:
        """Whether it is a table of its own, and nothing depends on it as on a parent."""
        return self.plain and not self.is_partition and self.parent is None and not self.has_children


def ask(action: Action) -> Composed:
    """The query for `parse`."""
    names = {"schema": action.schema, "name": action.name}
    return STATE.format(comment=ddl.COMMENT, length=ddl.COMMENT_LENGTH, **names)


def parse(rows: list[Any], action: Action, oid: int) -> TableState:
    """The state, from the rows of `ask`. Raises `TableChanged` where the name is another's."""
    if [row.oid for row in rows] != [oid]:
        raise TableChanged(f"{action.noun} {action} was dropped, renamed or made anew since it was read")
    fields = rows[0]._asdict()
    text, mark = (None, None) if fields.pop("length") > marker.LONGEST else marker.read(fields["comment"])
    return TableState(**fields, text=text, mark=mark)


def look(connection: psycopg.Connection[Any], action: Action, oid: int) -> TableState:
    """Lock the table against all DDL, and read its state. Raises `TableChanged` where the name is another's.

    The lock (SHARE UPDATE EXCLUSIVE) is in no reader's or writer's way, and lasts as long as the transaction.
    """
    _, rows = run(connection, ddl.lock(action, "SHARE UPDATE EXCLUSIVE"), ask(action))
    return parse(rows, action, oid)


def is_ours(state: TableState, parent: Parent) -> bool:
    """Whether the mark was written on this very table, of this very parent, by its owner: others may write any text."""
    mark = state.mark
    return mark is not None and (mark.oid, mark.parent, state.owner) == (state.oid, parent.oid, parent.owner)


def write(action: Action, text: str | None, mark: Marker | None) -> Composed:
    """Put the mark beside the user's own text, or take it away. Raises `StatementRejected` where there is no room."""
    if text is None:
        raise ddl.no_room(action)
    return ddl.comment(action, marker.write(text, mark))


def mark_of(comment: str | None, oid: int, parent: Parent) -> Marker | None:
    """The mark in the comment of the table with that OID, if it was written on it, of this parent."""
    _, mark = marker.read(comment)
    return mark if mark is not None and (mark.oid, mark.parent) == (oid, parent.oid) else None


def converted_of(comment: str | None, oid: int, parent: Parent) -> ConvertedMark | None:
    """The mark of the plain table that this parent was made of, in the comment of the table with that OID."""
    mark = marker.read_converted(comment, oid)
    return mark if mark is not None and mark.parent == parent.oid and not mark.undone else None


LONGEST_OF_OTHERS, MOST_MARKED = 1024, 20_000
"""Bytes of a comment on a table of another owner, and tables with marks that are read: all roles share a database."""

# What initdb made has lower OIDs, and thousands of comments. One of the owner that is too long to be read may bear a
# mark. The owner's come first, so that other roles cannot push them out.
MARKED = """
SELECT c.oid, n.nspname AS schema, c.relname AS name, pg_get_userbyid(c.relowner) AS owner,
       CASE WHEN octet_length(d.description) <= {longest} THEN d.description END AS comment,
       CASE WHEN c.reltuples >= 0 THEN c.reltuples::int8 END AS rows, {size} AS bytes
FROM pg_description d JOIN pg_class c ON c.oid = d.objoid JOIN pg_namespace n ON n.oid = c.relnamespace,
(SELECT relowner AS owner FROM pg_class WHERE relname = {name}
 AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {schema})) p
WHERE d.objoid >= 16384 AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0
  AND CASE WHEN octet_length(d.description) <= CASE WHEN c.relowner = p.owner THEN {longest} ELSE {of_others} END
           THEN strpos(d.description, {label}) > 0 ELSE c.relowner = p.owner END
  AND c.relkind = 'r' AND NOT c.relispartition
  AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
ORDER BY c.relowner <> p.owner, c.oid LIMIT {most}
"""


def ask_marked(schema: str, name: str, size: SQL) -> Composed:
    """The query for `with_marked`, about the parent of that name. ``size``: an expression over the table ``c``."""
    limits = {"longest": marker.LONGEST, "of_others": LONGEST_OF_OTHERS, "most": MOST_MARKED}
    return SQL(MARKED).format(schema=schema, name=name, size=size, label=f"{marker.LABEL} ", **limits)


def with_marked(inventory: Inventory, rows: Iterable[Any], parent: Parent, codec: Codec | None) -> Inventory:
    """The inventory with the tables whose comment bears a mark, from rows of `MARKED`.

    Detached are those of the parent's owner whose mark says their own OID and this parent's, and moments of its key's
    domain. A copy of the comment, on another table or of a table that was made anew, means nothing. Neither does the
    mark of a restored partition once a user has detached it: it is theirs. Nor does a mark on a table of another owner,
    who may write any text into its comment.

    Strangers are those whose mark names this parent by its name, and other OIDs: restored from a dump, or the comment
    is a copy. Nothing may be done to them: what they hold need not be what was detached. A copy beside the original is
    left out.
    """
    of_others: list[str] = []
    detached: list[Detached] = []
    strangers: list[Detached] = []
    too_long: list[str] = []
    for row in rows:
        if row.comment is None:
            too_long.append(f"{row.schema}.{row.name}")
        text, mark = marker.read(row.comment)
        if mark is None:
            continue
        table = Detached(row.oid, row.schema, row.name, mark, text, row.rows, row.bytes or 0)
        own = (mark.oid, mark.parent) == (row.oid, parent.oid)
        if own and row.owner != parent.owner:
            of_others.append(str(table))
        elif codec is not None and mark.phase is not Phase.RESTORED:
            # Users may have edited it: moments with a zone are never compared with moments without one.
            if {bool(mark.range.lower.tzinfo), bool(mark.range.upper.tzinfo)} != {codec.aware}:
                continue
            if own:
                detached.append(table)
            elif mark.table == str(parent):
                strangers.append(table)
    known = {each.oid for each in detached}
    copies = tuple(each for each in strangers if not known & {each.oid, each.marker.oid})
    inventory = replace(inventory, comments_too_long=tuple(too_long))
    return replace(inventory, marked_by_others=tuple(of_others), detached=tuple(detached), strangers=copies)
