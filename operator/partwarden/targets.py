"""Which table an archive is to be made of: its OID, its parent and its bounds, as the catalog has them now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from . import comments, marker, server_identity
from .bounds import literals
from .errors import KeyOutOfRange, TableNotFound
from .keys import Codec
from .lifecycle import KeyEncoding
from .marker import Marker
from .record import TableName
from .session import pinned, run

PATIENCE = ("2s", "30s")
"""Time limits for locks and for statements: only the catalog is read."""

TARGET = """
SELECT c.oid::int8, n.nspname, c.relname, c.relkind::text, pg_get_expr(c.relpartbound, 0),
       {comment}, i.inhparent::int8, c.relowner::int8
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND c.relispartition
WHERE c.oid = coalesce({oid}::oid, to_regclass(format('%I.%I', {schema}, {name})))
"""
PARENT = """
SELECT c.oid::int8, n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), c.relowner::int8
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_partitioned_table p ON p.partrelid = c.oid
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND p.partnatts = 1 AND a.attnum = p.partattrs[0]
WHERE c.oid = {}
"""
PLAIN = "r"


@dataclass(frozen=True, slots=True)
class Target:
    """``parent``, ``bounds`` and ``key`` are None where there is no parent to be seen, or nothing tells of them."""

    partition: TableName
    parent: TableName | None = None
    bounds: tuple[str, str] | None = None
    """As in `record.ArchiveManifest`."""
    key: str | None = None
    server: str = ""
    """As `inventory.Server.identity`; empty where the role may not ask."""


def find(
    connection: psycopg.Connection[Any],
    schema: str,
    name: str,
    oid: int | None = None,
    encoding: KeyEncoding = KeyEncoding.NATIVE,
    server: str = "",
) -> Target:
    """The partition of that name, or the table that was detached. Raises `TableNotFound`, and psycopg's errors.

    ``oid``: where it is known, the table is looked for by that, whatever it is called now. ``encoding``: of the key,
    to say the bounds of what is detached. ``server``: where it is known, no other may answer; raises as
    `server_identity.read`. In autocommit, in one transaction of its own.
    """
    comment = comments.read(sql.SQL("c.oid"))
    target = sql.SQL(TARGET).format(oid=oid, schema=schema, name=name, comment=comment)
    with connection.transaction():
        run(connection, pinned(*PATIENCE))
        server = server_identity.read(connection, server)
        (found,) = run(connection, target)
        if not found:
            raise TableNotFound(
                f"table {schema}.{name} does not exist in database {connection.info.dbname!r}, or role "
                f"{connection.info.user!r} may not see its schema: correct spec.partition, or delete this archive"
            )
        ((oid, schema, name, kind, bounds, comment, parent_oid, owner),) = found
        if kind != PLAIN:
            raise TableNotFound(
                f"{schema}.{name} is not a plain table: an archive is made of a partition that holds its rows "
                "itself; name one below it"
            )
        partition = TableName(schema_=schema, name=name, oid=oid)
        _, mark = marker.read(comment)
        if mark is not None and mark.oid != oid:  # a copy of another table's comment
            mark = None
        parent_oid = parent_oid or (mark.parent if mark else None)
        (parents,) = run(connection, sql.SQL(PARENT).format(parent_oid))
    # A mark counts only where the table's owner is the parent's: others may write what they like into a comment.
    if not parents or (bounds is None and parents[0][-1] != owner):
        return Target(partition, server=server)
    ((*of_parent, key, type_name, _),) = parents
    parent = TableName(oid=of_parent[0], schema_=of_parent[1], name=of_parent[2])
    if bounds is not None:
        return Target(partition, parent, _bounds(bounds), key, server)
    codec = Codec.find(type_name or "", encoding)
    return Target(partition, parent, _marked(mark, codec), key, server)


def _marked(mark: Marker | None, codec: Codec | None) -> tuple[str, str] | None:
    """The bounds that a mark says; None where it says none that the key can have: anyone may have written it."""
    if mark is None or codec is None or mark.range.lower is None or mark.range.upper is None:
        return None
    try:
        return codec.literal(mark.range.lower), codec.literal(mark.range.upper)
    except (KeyOutOfRange, TypeError):
        return None


def _bounds(text: str) -> tuple[str, str] | None:
    """None for what is no range of one column."""
    try:
        lower, upper = literals(text)
    except ValueError:
        return None
    return lower, upper
