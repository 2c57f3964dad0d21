"""PostgreSQL -> Inventory, in one round trip and one snapshot.

Bounds are deparsed without their relation (``pg_get_expr(relpartbound, 0)``: they hold no column), so that a partition
which somebody has locked does not keep the table from being looked at. Sizes need a lock on each file's relation: where
they are not to be had at once, the planner's page counts stand in.
https://www.postgresql.org/docs/current/catalogs.html
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from .bounds import parse_bounds
from .inventory import Grant, Inventory, KeyPart, KeyType, Parent, Partition, RelationKind, Server, Strategy
from .policy import Table
from .session import pinned, run
from .table import MIN_VERSION

KINDS = {"r": RelationKind.TABLE, "p": RelationKind.PARTITIONED, "f": RelationKind.FOREIGN}
STRATEGIES = {"r": Strategy.RANGE, "l": Strategy.LIST, "h": Strategy.HASH}
SET_ROLE_VERSION = 160000
PINNED = pinned(lock_timeout="500ms", statement_timeout="30s")
BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

SERVER = """
SELECT current_setting('server_version'), current_database(), current_user,
       pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on',
       (SELECT system_identifier FROM pg_control_system()) || '/'
         || (SELECT oid FROM pg_database WHERE datname = current_database()),
       to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US')
"""

OID = """(SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = {schema} AND c.relname = {name} AND c.relkind IN ('r', 'p', 'f', 'v', 'm'))"""

# The new table is given to the parent's owner, who then needs CREATE on the schema as well, unless a superuser does it.
PARENT = """
SELECT c.oid, n.nspname, c.relname, c.relkind, pg_get_userbyid(c.relowner), p.partstrat,
       pg_has_role(c.relowner, 'USAGE') AND pg_has_role(c.relowner, {set_role}),
       has_schema_privilege(c.relnamespace, 'CREATE') AND has_schema_privilege(c.relnamespace, 'USAGE')
         AND (s.super OR has_schema_privilege(c.relowner, c.relnamespace, 'CREATE')),
       ARRAY(SELECT DISTINCT rn.nspname || '.' || r.relname
             FROM pg_constraint k LEFT JOIN pg_constraint above ON above.oid = k.conparentid
             JOIN pg_class r ON r.oid IN (k.conrelid, k.confrelid) JOIN pg_namespace rn ON rn.oid = r.relnamespace
             -- A key from or to a partitioned table stands there once more for each of its partitions.
             WHERE k.contype = 'f'
               AND (k.conrelid = c.oid AND r.oid = k.confrelid AND above.conrelid IS DISTINCT FROM c.oid
                 OR k.confrelid = c.oid AND r.oid = k.conrelid AND above.confrelid IS DISTINCT FROM c.oid)
             ORDER BY 1),
       (SELECT spcname FROM pg_tablespace WHERE oid = c.reltablespace), (SELECT amname FROM pg_am WHERE oid = c.relam)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN (SELECT rolsuper AS super FROM pg_roles WHERE rolname = current_user) s
LEFT JOIN pg_partitioned_table p ON p.partrelid = c.oid
WHERE c.oid = {parent}
"""

KEY = """
SELECT a.attname, format_type(a.atttypid, NULL)
FROM pg_partitioned_table p
CROSS JOIN unnest(p.partattrs::int2[]) WITH ORDINALITY AS k(attnum, place)
LEFT JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = k.attnum AND k.attnum > 0
WHERE p.partrelid = {parent} ORDER BY k.place
"""

ACL = """
SELECT CASE WHEN x.grantee <> 0 THEN pg_get_userbyid(x.grantee) END, x.privilege_type, bool_or(x.is_grantable),
       x.attname
FROM (SELECT (aclexplode(coalesce(relacl, acldefault('r', relowner)))).*, NULL::name AS attname
      FROM pg_class WHERE oid = {parent}
      UNION ALL
      SELECT (aclexplode(attacl)).*, attname FROM pg_attribute WHERE attrelid = {parent} AND NOT attisdropped) x
GROUP BY 1, 2, 4 ORDER BY 4 NULLS FIRST, 1 NULLS FIRST, 2
"""

# OFFSET 0: each by its OID from the index. The planner overestimates the recursion and would read all of pg_class.
PARTITIONS = """
WITH RECURSIVE tree(top, pending, oid, kind) AS (
  SELECT c.oid, i.inhdetachpending, c.oid, c.relkind
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = {parent}
  UNION ALL
  -- Only below what is partitioned itself: the planner would search all of pg_inherits for each table.
  SELECT tree.top, tree.pending, c.oid, c.relkind
  FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid JOIN pg_class c ON c.oid = i.inhrelid WHERE tree.kind = 'p'
), sizes AS (
  SELECT tree.top, tree.pending, sum({size})::int8 AS bytes,
         sum(c.reltuples) FILTER (WHERE c.reltuples >= 0 AND c.relkind <> 'p')::int8 AS rows
  FROM tree CROSS JOIN LATERAL (SELECT * FROM pg_class WHERE oid = tree.oid OFFSET 0) c GROUP BY 1, 2
)
SELECT c.oid, n.nspname, c.relname, c.relkind, pg_get_expr(c.relpartbound, 0), sizes.rows, sizes.bytes, sizes.pending
FROM sizes CROSS JOIN LATERAL (SELECT * FROM pg_class WHERE oid = sizes.top OFFSET 0) c
JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY c.oid
"""

# Null for what was dropped since the snapshot was taken.
EXACT_SIZE = sql.SQL("coalesce(pg_total_relation_size(c.oid), 0)")
PAGES = sql.SQL("""current_setting('block_size')::int8 * (greatest(c.relpages, 0)
  + coalesce((SELECT t.relpages FROM pg_class t WHERE t.oid = c.reltoastrelid), 0)
  + (SELECT coalesce(sum(x.relpages), 0) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
     WHERE i.indrelid IN (c.oid, c.reltoastrelid)))""")


def observe(connection: psycopg.Connection[Any], table: Table) -> Inventory:
    """What exists of ``table`` now. Raises psycopg's errors.

    ``parent`` is None when there is no such table, and when the server is older than 14, of which no more is asked.
    """
    version = connection.info.server_version
    if version < MIN_VERSION:
        _, rows = run(connection, PINNED, SERVER)
        return _inventory(version, rows, [], [], [], [])
    try:
        return _inventory(version, *_read(connection, table, EXACT_SIZE))
    except pg.LockNotAvailable:
        return _inventory(version, *_read(connection, table, PAGES))


def taken(connection: psycopg.Connection[Any], schema: str, names: Iterable[str]) -> frozenset[str]:
    """Which names belong to a relation or type of that schema: a new table needs both. Raises psycopg's errors."""
    query = sql.SQL(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = {schema} AND c.relname = ANY({names}) UNION "
        "SELECT t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace "
        "WHERE n.nspname = {schema} AND t.typname = ANY({names})"
    ).format(schema=schema, names=list(names))
    _, rows = run(connection, PINNED, query)
    return frozenset(name for (name,) in rows)


def _read(connection: psycopg.Connection[Any], table: Table, size: sql.SQL) -> list[list[tuple[Any, ...]]]:
    oid = sql.SQL(OID).format(schema=table.schema_, name=table.name)
    # From 16 on a member of the owning role may lack the right to give a table to it.
    set_role = "SET" if connection.info.server_version >= SET_ROLE_VERSION else "MEMBER"
    try:
        _, _, *results, _ = run(
            connection,
            BEGIN,
            PINNED,
            sql.SQL(SERVER),
            sql.SQL(PARENT).format(parent=oid, set_role=set_role),
            sql.SQL(KEY).format(parent=oid),
            sql.SQL(ACL).format(parent=oid),
            sql.SQL(PARTITIONS).format(parent=oid, size=size),
            "COMMIT",
        )
    except psycopg.Error:
        if not connection.closed:
            connection.rollback()
        raise
    return results


def _inventory(version: int, *results: list[tuple[Any, ...]]) -> Inventory:
    server, parents, key, grants, partitions = results
    text, database, user, read_only, identity, now = server[0]
    parent = _parent(parents[0], key, grants) if parents else None
    key_type = _key_type(parent)
    return Inventory(
        server=Server(version, text, read_only, database, user, identity),
        parent=parent,
        now=datetime.fromisoformat(now).replace(tzinfo=UTC),
        partitions=_partitions(partitions, key_type) if key_type else (),
    )


def _parent(row: tuple[Any, ...], key: list[tuple[Any, ...]], grants: list[tuple[Any, ...]]) -> Parent:
    oid, schema, name, kind, owner, strategy, may_own, may_create, related, tablespace, access_method = row
    return Parent(
        oid=oid,
        schema=schema,
        name=name,
        kind=KINDS.get(kind, RelationKind.OTHER),
        owner=owner,
        strategy=STRATEGIES.get(strategy),
        key=tuple(KeyPart(column, type_name) for column, type_name in key),
        grants=tuple(Grant(grantee, privilege, grantable, column) for grantee, privilege, grantable, column in grants),
        may_own=may_own,
        may_create=may_create,
        related=tuple(related),
        tablespace=tablespace,
        access_method=access_method,
    )


def _key_type(parent: Parent | None) -> KeyType | None:
    """The type to read bounds by; None where the table cannot be managed, and its bounds need not be read."""
    if parent is None or parent.strategy is not Strategy.RANGE or len(parent.key) != 1:
        return None
    return next((kind for kind in KeyType if kind == parent.key[0].type), None)


def _partitions(rows: list[tuple[Any, ...]], key_type: KeyType) -> tuple[Partition, ...]:
    return tuple(
        Partition(oid, schema, name, parse_bounds(bounds, key_type), bounds, KINDS[kind], count, size, pending)
        for oid, schema, name, kind, bounds, count, size, pending in rows
    )
