"""Read the catalog into an Inventory, in one round trip and one snapshot; what lies below partitions in one more.

Bounds are deparsed without their relation (``pg_get_expr(relpartbound, 0)``: they hold no column), so that a locked
partition does not keep the table from being read. Sizes need a lock on each file's relation: where that is not acquired
at once, the planner's page counts stand in.
https://www.postgresql.org/docs/current/catalogs.html
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from ..api.policy import TableSpec
from ..planner import marker
from ..planner.context import MIN_VERSION
from ..planner.inventory import (
    Grant,
    Inventory,
    KeyPart,
    Membership,
    Parent,
    Partition,
    RelationKind,
    Server,
    Strategy,
)
from ..planner.keys import Codec, parse_bounds
from . import ddl, template
from .connection import pinned, run
from .table_state import IDENTITY, detached, mark_of, of_other_owners, strangers
from .template import DEFAULT_ACL, TRAITS, Model, traits_of
from .transaction import parent_of, read_only

SERVER = """
SELECT current_setting('server_version') AS version, current_database() AS database, current_user AS user,
       pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on' AS read_only,
       {IDENTITY} AS identity,
       to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') AS now,
       coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = session_user), false) AS superuser,
       pg_is_in_recovery() AS standby
""".replace("{IDENTITY}", IDENTITY)

# All is done as the parent's owner, who needs USAGE and CREATE on the schema. Without CREATE only a superuser can make
# the table, and gives it to the owner.
PARENT = """
SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind, pg_get_userbyid(c.relowner) AS owner,
       p.partstrat AS strategy,
       ARRAY(SELECT ARRAY[a.attname::text, format_type(a.atttypid, NULL)]
             FROM unnest(p.partattrs::int2[]) WITH ORDINALITY AS k(attnum, place)
             LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum AND k.attnum > 0 ORDER BY place)
         AS key,
       pg_has_role(c.relowner, 'USAGE') AND pg_has_role(c.relowner, {set_role}) AS may_own,
       has_schema_privilege(c.relowner, n.oid, 'USAGE')
         AND (current_setting('is_superuser') = 'on' OR has_schema_privilege(c.relowner, n.oid, 'CREATE'))
         AS may_create,
       CASE WHEN c.reltuples >= 0 THEN c.reltuples::int8 END AS rows, current_user AS login,
       has_schema_privilege(c.relowner, n.oid, 'CREATE') AS owner_creates,
       (SELECT rolsuper FROM pg_roles WHERE oid = c.relowner) AS owner_superuser,
       {traits}, {default_acl} AS default_acl,
       CASE WHEN pg_has_role(c.relowner, 'USAGE') AND pg_has_role(c.relowner, {set_role}) THEN 'whole'
            WHEN NOT pg_has_role(c.relowner, 'MEMBER') THEN 'none'
            WHEN pg_has_role(c.relowner, 'USAGE') THEN 'without SET'
            WHEN (SELECT rolinherit FROM pg_roles WHERE rolname = current_user) THEN 'without INHERIT'
            ELSE 'NOINHERIT' END AS membership
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_partitioned_table p ON p.partrelid = c.oid
WHERE n.nspname = {schema} AND c.relname = {name} AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
"""

# To plan it takes longer than to run it: the fewer tables it joins, the better.
PARTITIONS = """
SELECT c.oid, (SELECT nspname FROM pg_namespace WHERE oid = c.relnamespace) AS schema, c.relname AS name,
       c.relkind AS kind, {bounds} AS bounds, i.inhdetachpending AS pending,
       CASE WHEN c.reltuples >= 0 THEN c.reltuples::int8 END AS rows,
       CASE WHEN c.relkind <> 'p' THEN {size} END AS bytes, {comment} AS comment, {traits}
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = (SELECT oid FROM pg_class WHERE relname = {name}
                     AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {schema}))
ORDER BY c.oid
"""

# Rows and bytes of partitions that are themselves partitioned; none of what was dropped since.
BELOW = """
SELECT above.oid, sum(c.reltuples) FILTER (WHERE t.isleaf AND c.reltuples >= 0)::int8 AS rows,
       sum({size})::int8 AS bytes
FROM unnest({oids}::oid[]) AS above(oid), pg_partition_tree(above.oid) t JOIN pg_class c ON c.oid = t.relid
GROUP BY 1
"""

RELATED = """
SELECT DISTINCT rn.nspname || '.' || r.relname
FROM (SELECT k.confrelid AS other, above.conrelid AS above
      FROM pg_constraint k LEFT JOIN pg_constraint above ON above.oid = k.conparentid
      WHERE k.contype = 'f' AND k.conrelid = {parent}
      UNION ALL
      SELECT k.conrelid, above.confrelid
      FROM pg_constraint k LEFT JOIN pg_constraint above ON above.oid = k.conparentid
      WHERE k.contype = 'f' AND k.confrelid = {parent}) found
JOIN pg_class r ON r.oid = found.other JOIN pg_namespace rn ON rn.oid = r.relnamespace
-- A key from or to a partitioned table stands there once more for each of its partitions.
WHERE found.above IS DISTINCT FROM {parent}
ORDER BY 1
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

TAKEN = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND c.relname = ANY({names})
UNION
SELECT t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE n.nspname = {schema} AND t.typname = ANY({names})
"""

# Null for what was dropped since the snapshot was taken.
EXACT_SIZE = sql.SQL("coalesce(pg_total_relation_size(c.oid), 0)")
COMMENT = ddl.read(sql.SQL("c.oid"))
PAGES = sql.SQL("""current_setting('block_size')::int8 * (greatest(c.relpages, 0)
  + coalesce((SELECT t.relpages FROM pg_class t WHERE t.oid = c.reltoastrelid), 0)
  + (SELECT coalesce(sum(x.relpages), 0) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
     WHERE i.indrelid IN (c.oid, c.reltoastrelid)))""")


@lru_cache(maxsize=2048)
def about_table(schema: str, name: str, set_role: str, exact: bool, marks: bool) -> sql.SQL:
    """The queries about one table: `SERVER`, `PARENT` and `PARTITIONS`, and with ``marks`` also `MARKED`.

    As text at once: composing takes a while, and every reconcile asks the same. ``set_role`` is the right that must go
    with being a member of the owner; ``exact`` chooses how sizes are read.
    """
    names = {"schema": schema, "name": name, "traits": sql.SQL(TRAITS), "bounds": sql.SQL(ddl.BOUNDS)}
    size = EXACT_SIZE if exact else PAGES
    queries: list[sql.Composable] = [
        sql.SQL(SERVER),
        sql.SQL(PARENT).format(set_role=set_role, default_acl=sql.SQL(DEFAULT_ACL), **names),
        sql.SQL(PARTITIONS).format(size=size, comment=COMMENT if marks else sql.NULL, **names),
    ]
    if marks:
        limits = {"longest": marker.LONGEST, "of_others": LONGEST_OF_OTHERS, "most": MOST_MARKED}
        queries.append(sql.SQL(MARKED).format(size=size, label=f"{marker.LABEL} ", **limits, **names))
    return sql.SQL(sql.SQL("; ").join(queries).as_string())


LONGEST_OF_OTHERS, MOST_MARKED = 1024, 20_000
"""Bytes of a comment on a table of another owner, and tables with marks that are read: all roles share a database."""

# What initdb made has lower OIDs, and thousands of comments. One of the owner that is too long to be read may bear a
# mark. The owner's come first, so that other roles cannot push them out.
MARKED = """
SELECT c.oid, n.nspname AS schema, c.relname AS name, pg_get_userbyid(c.relowner) AS owner,
       CASE WHEN octet_length(d.description) <= {longest} THEN d.description END AS comment,
       CASE WHEN c.reltuples >= 0 THEN c.reltuples::int8 END AS rows, {size} AS bytes
FROM pg_description d
JOIN pg_class c ON c.oid = d.objoid
JOIN pg_namespace n ON n.oid = c.relnamespace,
(SELECT relowner AS owner FROM pg_class WHERE relname = {name}
 AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {schema})) p
WHERE d.objoid >= 16384 AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0
  AND CASE WHEN octet_length(d.description) <= CASE WHEN c.relowner = p.owner THEN {longest} ELSE {of_others} END
           THEN strpos(d.description, {label}) > 0 ELSE c.relowner = p.owner END
  AND c.relkind = 'r' AND NOT c.relispartition
  AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
ORDER BY c.relowner <> p.owner, c.oid LIMIT {most}
"""


KINDS = {"r": RelationKind.TABLE, "p": RelationKind.PARTITIONED, "f": RelationKind.FOREIGN}
STRATEGIES = {"r": Strategy.RANGE, "l": Strategy.LIST, "h": Strategy.HASH}
SET_ROLE_VERSION = 160000
TIMEOUT = "30s"


def observe(connection: psycopg.Connection[Any], spec: TableSpec) -> Inventory:
    """What exists of the policy's table now. Raises psycopg's errors.

    ``parent`` is None when there is no such table, and when the server is older than 14, of which no more is asked.
    What only the creation of partitions needs is left out: see `complete`.
    """
    version = connection.info.server_version
    if version < MIN_VERSION:
        _, (server,) = run(connection, pinned("500ms", TIMEOUT), SERVER)
        return _inventory(version, spec, server, None, [], [])
    try:
        return _observe(connection, spec, exact=True)
    except pg.LockNotAvailable:
        return _observe(connection, spec, exact=False)


def _observe(connection: psycopg.Connection[Any], spec: TableSpec, *, exact: bool) -> Inventory:
    version = connection.info.server_version
    # From 16 on a member of the owning role may lack the right to give a table to it.
    set_role = "SET" if version >= SET_ROLE_VERSION else "MEMBER"
    queries = about_table(spec.table.schema_, spec.table.name, set_role, exact, spec.retention is not None)
    (server,), parents, partitions, *marked = read_only(connection, queries, statement_timeout=TIMEOUT)
    partitions = _with_below(connection, partitions, EXACT_SIZE if exact else PAGES)
    return _inventory(version, spec, server, next(iter(parents), None), partitions, marked[0] if marked else [])


def complete(connection: psycopg.Connection[Any], inventory: Inventory, names: Iterable[str]) -> Inventory:
    """The inventory with what the creation of partitions called ``names`` needs to know. Raises psycopg's errors.

    One round trip. ``taken`` holds the names that belong to a relation or type of the parent's schema, since a new
    table needs both.
    """
    parent = parent_of(inventory)
    related, grants, taken, *template_rows = read_only(
        connection,
        *(sql.SQL(query).format(parent=parent.oid) for query in (RELATED, ACL)),
        sql.SQL(TAKEN).format(schema=parent.schema, names=list(names)),
        *template.queries(inventory),
        statement_timeout=TIMEOUT,
    )
    return replace(
        inventory,
        parent=replace(
            parent, related=tuple(name for (name,) in related), grants=tuple(Grant(*each) for each in grants)
        ),
        template=template.from_rows(template_rows),
        taken=frozenset(name for (name,) in taken),
    )


def _with_below(connection: psycopg.Connection[Any], partitions: list[Any], size: sql.SQL) -> list[Any]:
    """The same rows; of a partitioned one with the rows and bytes of everything below it."""
    oids = [row.oid for row in partitions if row.kind == "p"]
    if not oids:
        return partitions
    (totals,) = read_only(connection, sql.SQL(BELOW).format(size=size, oids=oids), statement_timeout=TIMEOUT)
    below = {each.oid: {"rows": each.rows, "bytes": each.bytes} for each in totals}
    return [row._replace(**below.get(row.oid, {})) for row in partitions]


def _inventory(
    version: int, spec: TableSpec, server: Any, row: Any | None, partitions: Sequence[Any], marked: Sequence[Any]
) -> Inventory:
    """From rows of `SERVER`, `PARENT`, `PARTITIONS` and `MARKED`."""
    inventory = Inventory(
        server=Server(
            version=version,
            version_text=server.version,
            read_only=server.read_only,
            database=server.database,
            user=server.user,
            identity=server.identity,
            superuser=server.superuser,
            standby=server.standby,
        ),
        parent=None,
        now=datetime.fromisoformat(server.now).replace(tzinfo=UTC),
    )
    if row is None:
        return inventory
    parent = _parent(row)
    unread = tuple(f"{each.schema}.{each.name}" for each in marked if each.comment is None)
    inventory = replace(
        inventory, parent=parent, marked_by_others=of_other_owners(marked, parent), comments_too_long=unread
    )
    codec = _codec(parent, spec)
    if codec is None:
        return replace(inventory, unread=tuple(each.bounds for each in partitions))
    model = Model(traits_of(row), row.default_acl)
    return replace(
        inventory,
        partitions=tuple(_partition(codec, parent, model, each) for each in partitions),
        detached=detached(marked, parent, codec),
        strangers=strangers(marked, parent, codec),
    )


def _parent(row: Any) -> Parent:
    return Parent(
        oid=row.oid,
        schema=row.schema,
        name=row.name,
        kind=KINDS.get(row.kind, RelationKind.OTHER),
        owner=row.owner,
        strategy=STRATEGIES.get(row.strategy),
        key=tuple(KeyPart(column, type_) for column, type_ in row.key),
        may_own=row.may_own,
        may_create=row.may_create,
        rows=row.rows,
        login=row.login,
        owner_creates=row.owner_creates,
        owner_superuser=row.owner_superuser,
        membership=Membership(row.membership),
    )


def _codec(parent: Parent, spec: TableSpec) -> Codec | None:
    """What to read bounds by; None where the table cannot be managed, and its bounds need not be read."""
    if parent.strategy is not Strategy.RANGE or len(parent.key) != 1:
        return None
    return Codec.find(parent.key[0].type, spec.key_encoding)


def _partition(codec: Codec, parent: Parent, model: Model, row: Any) -> Partition:
    differs = model.differs(traits_of(row))
    return Partition(
        oid=row.oid,
        schema=row.schema,
        name=row.name,
        range=parse_bounds(row.bounds, codec),
        bounds=row.bounds,
        kind=KINDS[row.kind],
        rows=row.rows,
        bytes=row.bytes or 0,
        detach_pending=row.pending,
        differs=differs,
        # Of another owner's table the comment is another's, too.
        marker=None if "owner" in differs else mark_of(row.comment, row.oid, parent),
    )
