"""Tables that Partwarden detached: what a look reads of them, in one query beside the others of `catalog.observe`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psycopg import sql

from . import marker
from .inventory import Detached, Parent
from .keys import Codec
from .marker import Phase

# What initdb made has lower OIDs, and thousands of comments.
MARKED = """
SELECT c.oid, n.nspname, c.relname, pg_get_userbyid(c.relowner), d.description,
       CASE WHEN c.reltuples >= 0 THEN c.reltuples::int8 END, {size}
FROM pg_description d
JOIN pg_class c ON c.oid = d.objoid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE d.objoid >= 16384 AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0
  AND CASE WHEN octet_length(d.description) <= {longest} THEN strpos(d.description, {label}) > 0 ELSE false END
  AND c.relkind = 'r' AND NOT c.relispartition
  AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
ORDER BY c.oid
"""


def query(size: sql.Composable) -> sql.Composed:
    """Every table of the database that bears a mark and is no partition. ``size`` is an expression over ``c``."""
    return sql.SQL(MARKED).format(size=size, label=f"{marker.LABEL} ", longest=marker.LONGEST)


def detached(rows: Iterable[tuple[Any, ...]], parent: Parent, codec: Codec) -> tuple[Detached, ...]:
    """Those of the parent's owner whose mark says their own OID and this parent's, and moments of its key's domain.

    A copy of the comment, on another table or of a table that was made anew, means nothing. Neither does the mark of a
    restored partition once a user has detached it: it is theirs. Nor does a mark on a table of another owner, who
    may write any text into its comment.
    """
    found = []
    for oid, schema, name, owner, comment, tuples, size in rows:
        mark = mark_of(comment, oid, parent) if owner == parent.owner else None
        if mark is not None and mark.phase is not Phase.RESTORED and _in_domain(mark, codec):
            found.append(Detached(oid, schema, name, mark, marker.read(comment)[0], tuples, size or 0))
    return tuple(found)


def of_other_owners(rows: Iterable[tuple[Any, ...]], parent: Parent) -> tuple[str, ...]:
    """Tables that bear such a mark, and belong to another role than the parent: ``schema.name``."""
    return tuple(
        f"{schema}.{name}"
        for oid, schema, name, owner, comment, *_ in rows
        if owner != parent.owner and mark_of(comment, oid, parent) is not None
    )


def strangers(rows: Iterable[tuple[Any, ...]], parent: Parent, codec: Codec) -> tuple[Detached, ...]:
    """Tables whose mark names this parent by its name, and other OIDs: restored from a dump, or the comment is a copy.

    Nothing may be done to them: what they hold need not be what was detached. A copy beside the original is left out.
    """
    known = list(rows)
    own = {each.oid for each in detached(known, parent, codec)}
    found = []
    for oid, schema, name, _, comment, tuples, size in known:
        text, mark = marker.read(comment)
        if mark is None or oid in own or mark.oid in own or (mark.oid, mark.parent) == (oid, parent.oid):
            continue
        if mark.table == str(parent) and mark.phase is not Phase.RESTORED and _in_domain(mark, codec):
            found.append(Detached(oid, schema, name, mark, text, tuples, size or 0))
    return tuple(found)


def mark_of(comment: str | None, oid: int, parent: Parent) -> marker.Marker | None:
    """The mark in the comment of the table with that OID, if it was written on it, of this parent."""
    _, mark = marker.read(comment)
    return mark if mark is not None and (mark.oid, mark.parent) == (oid, parent.oid) else None


def _in_domain(mark: marker.Marker, codec: Codec) -> bool:
    """Somebody may have edited it: moments with a zone are never compared with moments without one."""
    lower, upper = mark.range.lower, mark.range.upper
    return lower is not None and upper is not None and {bool(lower.tzinfo), bool(upper.tzinfo)} == {codec.aware}
