"""PostgreSQL -> Inventory, each look in one round trip and one snapshot; what lies below partitions in one more.

Bounds are deparsed without their relation (``pg_get_expr(relpartbound, 0)``: they hold no column), so that a partition
which somebody has locked does not keep the table from being looked at. Sizes need a lock on each file's relation: where
they are not to be had at once, the planner's page counts stand in.
https://www.postgresql.org/docs/current/catalogs.html
"""

from __future__ import annotations

from collections.abc import Iterable
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
    Detached,
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
from ..planner.marker import Phase
from . import ddl, template
from .connection import pinned, run
from .table_state import IDENTITY
from .template import DEFAULT_ACL, TRAITS, Model, Traits

# What a look asks of PostgreSQL, as SQL.
#

SERVER = """
SELECT current_setting('server_version'), current_database(), current_user,
       pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on',
       {IDENTITY},
       to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'),
       coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = session_user), false), pg_is_in_recovery()
""".replace("{IDENTITY}", IDENTITY)

# All is done as the parent's owner, who needs USAGE and CREATE on the schema. Without CREATE only a superuser can make
# the table, and gives it to the owner.
PARENT = """
SELECT c.oid, n.nspname, c.relname, c.relkind, pg_get_userbyid(c.relowner), p.partstrat,
       ARRAY(SELECT ARRAY[a.attname::text, format_type(a.atttypid, NULL)]
             FROM unnest(p.partattrs::int2[]) WITH ORDINALITY AS k(attnum, place)
             LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum AND k.attnum > 0 ORDER BY place),
       pg_has_role(c.relowner, 'USAGE') AND pg_has_role(c.relowner, {set_role}),
       has_schema_privilege(c.relowner, n.oid, 'USAGE')
         AND (current_setting('is_superuser') = 'on' OR has_schema_privilege(c.relowner, n.oid, 'CREATE')),
       CASE WHEN c.reltuples >= 0 THEN c.reltuples::int8 END, current_user,
       has_schema_privilege(c.relowner, n.oid, 'CREATE'), (SELECT rolsuper FROM pg_roles WHERE oid = c.relowner),
       {traits}, {default_acl},
       CASE WHEN pg_has_role(c.relowner, 'USAGE') AND pg_has_role(c.relowner, {set_role}) THEN 'whole'
            WHEN NOT pg_has_role(c.relowner, 'MEMBER') THEN 'none'
            WHEN pg_has_role(c.relowner, 'USAGE') THEN 'without SET'
            WHEN (SELECT rolinherit FROM pg_roles WHERE rolname = current_user) THEN 'without INHERIT'
            ELSE 'NOINHERIT' END
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_partitioned_table p ON p.partrelid = c.oid
WHERE n.nspname = {schema} AND c.relname = {name} AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
"""

# To plan it takes longer than to run it: the fewer tables it joins, the better.
PARTITIONS = """
SELECT c.oid, (SELECT nspname FROM pg_namespace WHERE oid = c.relnamespace), c.relname, c.relkind,
       pg_get_expr(c.relpartbound, 0), i.inhdetachpending, CASE WHEN c.reltuples >= 0 THEN c.reltuples::int8 END,
       CASE WHEN c.relkind <> 'p' THEN {size} END, {comment}, {traits}
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = (SELECT oid FROM pg_class WHERE relname = {name}
                     AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {schema}))
ORDER BY c.oid
"""

# Rows and bytes of partitions that are themselves partitioned; none of what was dropped since.
BELOW = """
SELECT above.oid, sum(c.reltuples) FILTER (WHERE t.isleaf AND c.reltuples >= 0)::int8, sum({size})::int8
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
    """All that a look asks about one table: `SERVER`, `PARENT` and `PARTITIONS`, and with ``marks`` also
    `detached.query`. As text at once: composing takes a while, and every look asks the same.

    ``set_role`` is the right that must go with being a member of the owner; ``exact`` chooses how sizes are had.
    """
    names = {"schema": schema, "name": name, "traits": sql.SQL(TRAITS)}
    size = EXACT_SIZE if exact else PAGES
    queries: list[sql.Composable] = [
        sql.SQL(SERVER),
        sql.SQL(PARENT).format(set_role=set_role, default_acl=sql.SQL(DEFAULT_ACL), **names),
        sql.SQL(PARTITIONS).format(size=size, comment=COMMENT if marks else sql.NULL, **names),
    ]
    if marks:
        queries.append(query(size))
    return sql.SQL(sql.SQL("; ").join(queries).as_string())


# Tables that Partwarden detached: what a look reads of them, in one query beside the others of `catalog.observe`.
#

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
    return {bool(lower.tzinfo), bool(upper.tzinfo)} == {codec.aware}


KINDS = {"r": RelationKind.TABLE, "p": RelationKind.PARTITIONED, "f": RelationKind.FOREIGN}
STRATEGIES = {"r": Strategy.RANGE, "l": Strategy.LIST, "h": Strategy.HASH}
SET_ROLE_VERSION = 160000
PINNED = pinned(lock_timeout="500ms", statement_timeout="30s")
BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


def observe(connection: psycopg.Connection[Any], spec: TableSpec) -> Inventory:
    """What exists of the policy's table now. Raises psycopg's errors.

    ``parent`` is None when there is no such table, and when the server is older than 14, of which no more is asked.
    What only the making of partitions needs is left out: see `complete`.
    """
    version = connection.info.server_version
    if version < MIN_VERSION:
        _, rows = run(connection, PINNED, SERVER)
        return _inventory(version, spec, rows, [], [], [])
    try:
        return _inventory(version, spec, *_read(connection, spec, exact=True))
    except pg.LockNotAvailable:
        return _inventory(version, spec, *_read(connection, spec, exact=False))


def complete(connection: psycopg.Connection[Any], inventory: Inventory, names: Iterable[str]) -> Inventory:
    """The inventory with what the making of partitions called ``names`` needs to know. Raises psycopg's errors.

    One round trip. ``taken`` holds the names that belong to a relation or type of the parent's schema, since a new
    table needs both.
    """
    parent = inventory.parent
    assert parent is not None
    _, related, grants, taken, *resembling = _transaction(
        connection,
        *(sql.SQL(query).format(parent=parent.oid) for query in (RELATED, ACL)),
        sql.SQL(TAKEN).format(schema=parent.schema, names=list(names)),
        *template.queries(inventory),
    )
    whole = replace(
        parent,
        related=tuple(name for (name,) in related),
        grants=tuple(Grant(*each) for each in grants),
    )
    like = template.likeness(resembling)
    return replace(inventory, parent=whole, likeness=like, taken=frozenset(name for (name,) in taken))


def _read(connection: psycopg.Connection[Any], spec: TableSpec, *, exact: bool) -> list[list[tuple[Any, ...]]]:
    # From 16 on a member of the owning role may lack the right to give a table to it.
    set_role = "SET" if connection.info.server_version >= SET_ROLE_VERSION else "MEMBER"
    marks = spec.retention is not None
    _, server, parents, partitions, *marked = _transaction(
        connection, about_table(spec.table.schema_, spec.table.name, set_role, exact, marks)
    )
    size = EXACT_SIZE if exact else PAGES
    return [server, parents, _with_below(connection, partitions, size), marked[0] if marked else []]


def _with_below(
    connection: psycopg.Connection[Any], partitions: list[tuple[Any, ...]], size: sql.SQL
) -> list[tuple[Any, ...]]:
    """The same rows; of a partitioned one with the rows and bytes of everything below it."""
    oids = [oid for oid, _, _, kind, *_ in partitions if kind == "p"]
    if not oids:
        return partitions
    found = _transaction(connection, sql.SQL(BELOW).format(size=size, oids=oids))[1]
    below = {oid: (rows, total) for oid, rows, total in found}
    return [(*each[:6], *below.get(each[0], (None, 0)), *each[8:]) if each[3] == "p" else each for each in partitions]


def _transaction(connection: psycopg.Connection[Any], *queries: sql.Composable) -> list[list[tuple[Any, ...]]]:
    """The queries' rows, of one snapshot and in one round trip, after those of `PINNED`."""
    try:
        _, *results, _ = run(connection, BEGIN, PINNED, *queries, "COMMIT")
    except psycopg.Error:
        if not connection.closed:
            connection.rollback()
        raise
    return results


def _inventory(version: int, spec: TableSpec, *results: list[tuple[Any, ...]]) -> Inventory:
    server, parents, partitions, marked = results
    text, database, user, read_only, identity, now, superuser, standby = server[0]
    parent = _parent(*parents[0][:13], *parents[0][19:20]) if parents else None
    model = Model(Traits(*parents[0][13:18]), parents[0][18]) if parents else None
    codec = _codec(parent, spec)
    return Inventory(
        server=Server(version, text, read_only, database, user, identity, superuser, standby),
        parent=parent,
        now=datetime.fromisoformat(now).replace(tzinfo=UTC),
        partitions=tuple(_partition(codec, parent, model, *row) for row in partitions)
        if parent and model and codec
        else (),
        unread=() if codec else tuple(row[4] for row in partitions),
        detached=detached(marked, parent, codec) if parent and codec else (),
        marked_by_others=of_other_owners(marked, parent) if parent else (),
        strangers=strangers(marked, parent, codec) if parent and codec else (),
    )


def _parent(
    oid: int,
    schema: str,
    name: str,
    kind: str,
    owner: str,
    strategy: str,
    key: list[list[str]],
    may_own: bool,
    may_create: bool,
    rows: int | None,
    login: str,
    owner_creates: bool,
    owner_superuser: bool,
    membership: str,
) -> Parent:
    return Parent(
        oid=oid,
        schema=schema,
        name=name,
        kind=KINDS.get(kind, RelationKind.OTHER),
        owner=owner,
        strategy=STRATEGIES.get(strategy),
        key=tuple(KeyPart(column, type_) for column, type_ in key),
        may_own=may_own,
        may_create=may_create,
        rows=rows,
        login=login,
        owner_creates=owner_creates,
        owner_superuser=owner_superuser,
        membership=Membership(membership),
    )


def _codec(parent: Parent | None, spec: TableSpec) -> Codec | None:
    """What to read bounds by; None where the table cannot be managed, and its bounds need not be read."""
    if parent is None or parent.strategy is not Strategy.RANGE or len(parent.key) != 1:
        return None
    return Codec.find(parent.key[0].type, spec.key_encoding)


def _partition(
    codec: Codec,
    parent: Parent,
    model: Model,
    oid: int,
    schema: str,
    name: str,
    kind: str,
    bounds: str,
    pending: bool,
    rows: int | None,
    size: int | None,
    comment: str | None,
    *traits: Any,
) -> Partition:
    differs = model.differs(Traits(*traits))
    # Of another owner's table the comment is another's, too.
    mark = None if "owner" in differs else mark_of(comment, oid, parent)
    held = parse_bounds(bounds, codec)
    return Partition(oid, schema, name, held, bounds, KINDS[kind], rows, size or 0, pending, differs, mark)
