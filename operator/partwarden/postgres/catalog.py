"""Read the catalog into an Inventory, in one round trip and one snapshot; what lies below partitions in one more.

Bounds are deparsed without their relation (``pg_get_expr(relpartbound, 0)``: they hold no column), so that a locked
partition does not keep the table from being read. Sizes need a lock on each file's relation: where that is not acquired
at once, the planner's page counts stand in.
https://www.postgresql.org/docs/current/catalogs.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.sql import NULL, SQL, Composable

from ..api.policy import TableSpec
from ..planner import marker
from ..planner.context import MIN_VERSION
from ..planner.inventory import (
    Detached,
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
from ..planner.marker import Marker, Phase
from . import ddl
from .connection import pinned, run
from .table_state import IDENTITY
from .transaction import read_only, set_role_right

SERVER = """
SELECT current_setting('server_version') AS version_text, current_database() AS database, current_user AS user,
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
       {traits}, acldefault('r', c.relowner)::text[] AS default_acl,
       CASE WHEN pg_has_role(c.relowner, 'USAGE') AND pg_has_role(c.relowner, {set_role}) THEN 'whole'
            WHEN NOT pg_has_role(c.relowner, 'MEMBER') THEN 'none'
            WHEN pg_has_role(c.relowner, 'USAGE') THEN 'without SET'
            WHEN (SELECT rolinherit FROM pg_roles WHERE rolname = current_user) THEN 'without INHERIT'
            ELSE 'NOINHERIT' END AS membership
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_partitioned_table p ON p.partrelid = c.oid
WHERE n.nspname = {schema} AND c.relname = {name} AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
"""
# To plan it takes longer than to run it: the fewer tables it joins, the better.
PARTITIONS = """
SELECT c.oid, (SELECT nspname FROM pg_namespace WHERE oid = c.relnamespace) AS schema, c.relname AS name,
       c.relkind AS kind, pg_get_expr(c.relpartbound, 0) AS bounds, i.inhdetachpending AS pending,
       CASE WHEN c.reltuples >= 0 THEN c.reltuples::int8 END AS rows,
       CASE WHEN c.relkind <> 'p' THEN {size} END AS bytes, {comment} AS comment, {traits}
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
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

TRAITS = SQL("c.relowner, c.relacl::text[], c.relrowsecurity, c.relforcerowsecurity, c.relreplident")
"""What of a partition is compared with its parent: see `_differs`."""

# Null for what was dropped since the snapshot was taken.
EXACT_SIZE = SQL("coalesce(pg_total_relation_size(c.oid), 0)")
PAGES = SQL("""current_setting('block_size')::int8 * (greatest(c.relpages, 0)
  + coalesce((SELECT t.relpages FROM pg_class t WHERE t.oid = c.reltoastrelid), 0)
  + (SELECT coalesce(sum(x.relpages), 0) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
     WHERE i.indrelid IN (c.oid, c.reltoastrelid)))""")


@lru_cache(maxsize=2048)
def about_table(schema: str, name: str, set_role: str, exact: bool, marks: bool) -> SQL:
    """The queries about one table: `SERVER`, `PARENT` and `PARTITIONS`, and with ``marks`` also `MARKED`.

    As text at once: composing takes a while, and every reconcile asks the same. ``set_role`` is the right that must go
    with being a member of the owner; ``exact`` chooses how sizes are read.
    """
    names = {"schema": schema, "name": name, "traits": TRAITS}
    size = EXACT_SIZE if exact else PAGES
    queries: list[Composable] = [
        SQL(SERVER),
        SQL(PARENT).format(set_role=set_role, **names),
        SQL(PARTITIONS).format(size=size, comment=ddl.COMMENT if marks else NULL, **names),
    ]
    if marks:
        queries.append(SQL(MARKED).format(size=size, label=f"{marker.LABEL} ", longest=marker.LONGEST))
    return SQL(SQL("; ").join(queries).as_string())


# What initdb made has lower OIDs, and thousands of comments.
MARKED = """
SELECT c.oid, n.nspname AS schema, c.relname AS name, pg_get_userbyid(c.relowner) AS owner, d.description AS comment,
       CASE WHEN c.reltuples >= 0 THEN c.reltuples::int8 END AS rows, {size} AS bytes
FROM pg_description d JOIN pg_class c ON c.oid = d.objoid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE d.objoid >= 16384 AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0
  AND CASE WHEN octet_length(d.description) <= {longest} THEN strpos(d.description, {label}) > 0 ELSE false END
  AND c.relkind = 'r' AND NOT c.relispartition
  AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
ORDER BY c.oid
"""


KINDS = {"r": RelationKind.TABLE, "p": RelationKind.PARTITIONED, "f": RelationKind.FOREIGN}
STRATEGIES = {"r": Strategy.RANGE, "l": Strategy.LIST, "h": Strategy.HASH}
TIMEOUT = "30s"


def observe(connection: psycopg.Connection[Any], spec: TableSpec) -> Inventory:
    """What exists of the policy's table now. Raises psycopg's errors.

    ``parent`` is None when there is no such table, and when the server is older than 14, of which no more is asked.
    What only the creation of partitions needs is left out: see `template.complete`.
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
    set_role, marks = set_role_right(connection), spec.retention is not None
    queries = about_table(spec.table.schema_, spec.table.name, set_role, exact, marks)
    (server,), parents, partitions, *marked = read_only(connection, queries, statement_timeout=TIMEOUT)
    if oids := [row.oid for row in partitions if row.kind == "p"]:
        query = SQL(BELOW).format(size=EXACT_SIZE if exact else PAGES, oids=oids)
        (totals,) = read_only(connection, query, statement_timeout=TIMEOUT)
        below = {each.oid: {"rows": each.rows, "bytes": each.bytes} for each in totals}
        partitions = [row._replace(**below.get(row.oid, {})) for row in partitions]
    version, parent = connection.info.server_version, next(iter(parents), None)
    return _inventory(version, spec, server, parent, partitions, marked[0] if marks else [])


def _inventory(
    version: int, spec: TableSpec, server: Any, row: Any | None, partitions: Sequence[Any], marked: Sequence[Any]
) -> Inventory:
    """From rows of `SERVER`, `PARENT`, `PARTITIONS` and `MARKED`."""
    about = server._asdict()
    now = datetime.fromisoformat(about.pop("now")).replace(tzinfo=UTC)
    inventory = Inventory(Server(version=version, **about), None, now)
    if row is None:
        return inventory
    parent, codec = _parent(row), None
    if parent.strategy is Strategy.RANGE and len(parent.key) == 1:
        codec = Codec.find(parent.key[0].type, spec.key_encoding)
    inventory = _with_marked(replace(inventory, parent=parent), marked, parent, codec)
    if codec is None:
        # The table cannot be managed, and its bounds need not be read.
        return replace(inventory, unread=tuple(each.bounds for each in partitions))
    return replace(inventory, partitions=tuple(_partition(codec, parent, row, each) for each in partitions))


def _parent(row: Any) -> Parent:
    about = {each.name: getattr(row, each.name) for each in fields(Parent) if hasattr(row, each.name)}
    about["kind"], about["strategy"] = KINDS.get(row.kind, RelationKind.OTHER), STRATEGIES.get(row.strategy)
    about["key"] = tuple(KeyPart(column, type_) for column, type_ in row.key)
    return Parent(**about | {"membership": Membership(row.membership)})


def _partition(codec: Codec, parent: Parent, parent_row: Any, row: Any) -> Partition:
    differs = tuple(_differs(parent_row, row))
    _, mark = marker.read(row.comment)
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
        marker=mark if "owner" not in differs and mark and _is_of(row, mark, parent) else None,
    )


def _differs(parent: Any, row: Any) -> Iterator[str]:
    """In what a partition differs from its parent, where that matters. Both are rows with the columns `TRAITS`."""
    if row.relowner != parent.relowner:
        # With another owner everything is granted by another role.
        yield "owner"
    elif row.relacl != parent.relacl:
        # NULL: what the owner has where nothing was granted or revoked.
        rights, own = ({*(parent.default_acl if each.relacl is None else each.relacl)} for each in (row, parent))
        if rights != own:
            yield "grants"
    # The other way round it hides more than it must, and only from sessions that read the partition itself.
    if (parent.relrowsecurity, parent.relforcerowsecurity) > (row.relrowsecurity, row.relforcerowsecurity):
        yield "row security"
    if parent.relreplident not in ("d", row.relreplident):
        yield "replica identity"


def _with_marked(inventory: Inventory, rows: Iterable[Any], parent: Parent, codec: Codec | None) -> Inventory:
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
    for row in rows:
        text, mark = marker.read(row.comment)
        if mark is None:
            continue
        table = Detached(row.oid, row.schema, row.name, mark, text, row.rows, row.bytes or 0)
        own = _is_of(row, mark, parent)
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
    return replace(inventory, marked_by_others=tuple(of_others), detached=tuple(detached), strangers=copies)


def _is_of(row: Any, mark: Marker, parent: Parent) -> bool:
    """Whether the mark was written on this very table, of this parent."""
    return (mark.oid, mark.parent) == (row.oid, parent.oid)
