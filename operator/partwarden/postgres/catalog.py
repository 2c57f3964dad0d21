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
from ..planner.context import MIN_VERSION
from ..planner.inventory import (
    ColumnSetting,
    Grant,
    Inventory,
    KeyPart,
    Membership,
    Parent,
    Partition,
    PartitionTemplate,
    RelationKind,
    RowPolicy,
    Server,
    Strategy,
)
from ..planner.keys import Codec, parse_bounds
from . import ddl
from .answers import UnreadAnswer, check_rows
from .connection import pinned, run
from .table_state import IDENTITY, ask_marked, converted_of, mark_of, similar_tables, with_marked
from .transaction import parent_of, read_only, set_role_right

SERVER = """
SELECT current_setting('server_version') AS version_text, current_database() AS database, current_user AS user,
       pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on' AS read_only,
       {IDENTITY} AS identity,
       to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') AS now,
       coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = session_user), false) AS superuser,
       pg_is_in_recovery() AS standby, CASE WHEN session_user <> current_user THEN session_user ELSE '' END AS login
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
       c.relkind AS kind, {bounds} AS bounds, i.inhdetachpending AS pending,
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

# Null for what was dropped since.
EXACT_SIZE = SQL("coalesce(pg_total_relation_size(c.oid), 0)")
PAGES = SQL("""current_setting('block_size')::int8 * (greatest(c.relpages, 0)
  + coalesce((SELECT t.relpages FROM pg_class t WHERE t.oid = c.reltoastrelid), 0)
  + (SELECT coalesce(sum(x.relpages), 0) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
     WHERE i.indrelid IN (c.oid, c.reltoastrelid)))""")


@lru_cache(maxsize=2048)
def about_table(schema: str, name: str, set_role: str, exact: bool, marks: bool, noted: bool) -> tuple[SQL, ...]:
    """`SERVER`, `PARENT`, `PARTITIONS`, and with ``marks`` `table_state.MARKED`, as text, and kept. ``set_role``: as
    `set_role_right`; ``exact`` chooses how sizes are read, ``noted`` whether comments of partitions are."""
    names = {"schema": schema, "name": name, "traits": TRAITS, "bounds": ddl.BOUNDS}
    size = EXACT_SIZE if exact else PAGES
    queries: list[Composable] = [
        SQL(SERVER),
        SQL(PARENT).format(set_role=set_role, **names),
        SQL(PARTITIONS).format(size=size, comment=ddl.COMMENT if noted else NULL, **names),
    ]
    queries += [ask_marked(schema, name, size)] if marks else []
    return tuple(SQL(each.as_string()) for each in queries)


KINDS = {"r": RelationKind.TABLE, "p": RelationKind.PARTITIONED, "f": RelationKind.FOREIGN}
STRATEGIES = {"r": Strategy.RANGE, "l": Strategy.LIST, "h": Strategy.HASH}
TIMEOUT = "30s"
YEARS = range(1970, 9000)  # of a server's clock: a thousand partitions ahead of it must have bounds in Python


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
    schema, name, marks = spec.table.schema_, spec.table.name, spec.retention is not None
    noted = marks or spec.convert is not None
    queries = about_table(schema, name, set_role_right(connection), exact, marks, noted)
    (server,), parents, partitions, *marked = read_only(connection, *queries, statement_timeout=TIMEOUT)
    if oids := [row.oid for row in partitions if row.kind == "p"]:
        query = SQL(BELOW).format(size=EXACT_SIZE if exact else PAGES, oids=oids)
        (totals,) = read_only(connection, query, statement_timeout=TIMEOUT)
        below = {each.oid: {"rows": each.rows, "bytes": each.bytes} for each in totals}
        partitions = [row._replace(**below.get(row.oid, {})) for row in partitions]
    version, parent = connection.info.server_version, next(iter(parents), None)
    found = _inventory(version, spec, server, parent, partitions, marked[0] if marks else [])
    return found if parent else replace(found, similar=similar_tables(connection, schema, name))


def _inventory(
    version: int, spec: TableSpec, server: Any, row: Any | None, partitions: Sequence[Any], marked: Sequence[Any]
) -> Inventory:
    """From rows of `SERVER`, `PARENT`, `PARTITIONS` and `table_state.MARKED`. Raises `UnreadAnswer`."""
    try:
        return _read(version, spec, server, row, partitions, marked)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnreadAnswer(f"the catalog holds what no PostgreSQL has there ({error!r:.200})") from error


def _read(
    version: int, spec: TableSpec, server: Any, row: Any | None, partitions: Sequence[Any], marked: Sequence[Any]
) -> Inventory:
    for rows in ([server], [row] if row else [], partitions, marked):
        check_rows(rows)
    about = server._asdict()
    if (now := datetime.fromisoformat(about.pop("now")).replace(tzinfo=UTC)).year not in YEARS:
        raise ValueError(f"the server's clock says {now}")
    inventory = Inventory(Server(version=version, **about), None, now)
    if row is None:
        return inventory
    parent, codec = _parent(row), None
    if parent.strategy is Strategy.RANGE and len(parent.key) == 1:
        codec = Codec.find(parent.key[0].type, spec.key_encoding)
    inventory = with_marked(replace(inventory, parent=parent), marked, parent, codec)
    if codec is None:
        # The table cannot be managed, and its bounds need not be read.
        return replace(inventory, unread=tuple(each.bounds for each in partitions))
    return replace(inventory, partitions=tuple(_partition(spec, codec, parent, row, each) for each in partitions))


def _parent(row: Any) -> Parent:
    about = {each.name: getattr(row, each.name) for each in fields(Parent) if hasattr(row, each.name)}
    about["kind"], about["strategy"] = KINDS.get(row.kind, RelationKind.OTHER), STRATEGIES.get(row.strategy)
    about["key"] = tuple(KeyPart(column, type_) for column, type_ in row.key)
    return Parent(**about | {"membership": Membership(row.membership)})


def _partition(spec: TableSpec, codec: Codec, parent: Parent, parent_row: Any, row: Any) -> Partition:
    differs = tuple(_differs(parent_row, row))
    comment = None if "owner" in differs else row.comment  # of another owner's table it is another's, too
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
        marker=mark_of(comment, row.oid, parent) if spec.retention else None,
        converted=converted_of(comment, row.oid, parent),
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


# What the creation of partitions needs to know.

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
# A new table needs both names, of a relation and of a type.
TAKEN = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND c.relname = ANY({names})
UNION
SELECT t.typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE n.nspname = {schema} AND t.typname = ANY({names})
"""
STORAGE = """
SELECT CASE WHEN s.relam = coalesce(nullif(p.relam, 0), s.relam)
            THEN ARRAY(SELECT ARRAY[option_name, option_value] FROM pg_options_to_table(s.reloptions)
                       UNION ALL
                       SELECT ARRAY['toast.' || option_name, option_value] FROM pg_options_to_table(t.reloptions)) END
         AS options,
       (SELECT spcname FROM pg_tablespace WHERE oid = coalesce(nullif(p.reltablespace, 0), s.reltablespace))
         AS tablespace,
       nullif((SELECT amname FROM pg_am WHERE oid = coalesce(nullif(p.relam, 0), s.relam)),
              current_setting('default_table_access_method')) AS access_method,
       CASE WHEN p.relreplident <> 'd' THEN p.relreplident ELSE coalesce(s.relreplident, 'd') END AS replica_identity,
       coalesce((SELECT indexrelid FROM pg_index WHERE indrelid = p.oid AND indisreplident),
                (SELECT i.inhparent FROM pg_index x JOIN pg_inherits i ON i.inhrelid = x.indexrelid
                 WHERE x.indrelid = s.oid AND x.indisreplident)) AS identity_index,
       -- Partitioned tables that are UNLOGGED exist up to 17, where it says what their partitions should be.
       coalesce(s.relpersistence, p.relpersistence) = 'u' AS unlogged
FROM pg_class p LEFT JOIN pg_class s ON s.oid = {sibling} LEFT JOIN pg_class t ON t.oid = s.reltoastrelid
WHERE p.oid = {parent}
"""
COLUMNS = """
SELECT * FROM (
  SELECT p.attname AS name, coalesce(nullif(p.attstattarget, -1), nullif(s.attstattarget, -1)) AS statistics,
         ARRAY(SELECT ARRAY[option_name, option_value]
               FROM pg_options_to_table(coalesce(p.attoptions, s.attoptions))) AS options
  FROM pg_attribute p
  LEFT JOIN pg_attribute s ON s.attrelid = {sibling} AND s.attname = p.attname AND NOT s.attisdropped
  WHERE p.attrelid = {parent} AND p.attnum > 0 AND NOT p.attisdropped ORDER BY p.attnum) c
WHERE c.statistics IS NOT NULL OR c.options <> '{{}}'
"""
POLICIES = """
SELECT polname AS name, polpermissive AS permissive, polcmd AS command,
       ARRAY(SELECT CASE WHEN role <> 0 THEN pg_get_userbyid(role) END FROM unnest(polroles) AS role) AS roles,
       {using} AS using, {check} AS check
FROM pg_policy WHERE polrelid = {sibling} ORDER BY polname
"""


def complete(connection: psycopg.Connection[Any], inventory: Inventory, names: Iterable[str]) -> Inventory:
    """The inventory with what the creation of partitions called ``names`` needs to know. Raises psycopg's errors."""
    parent = parent_of(inventory)
    values = {"parent": parent.oid, "schema": parent.schema, "names": list(names)} | {
        "using": ddl.bounded("pg_get_expr(polqual, polrelid)"),
        "check": ddl.bounded("pg_get_expr(polwithcheck, polrelid)"),
    }
    queries = (RELATED, ACL, TAKEN, STORAGE, COLUMNS, POLICIES)
    related, grants, taken, (row,), columns, policies = read_only(
        connection,
        *(SQL(query).format(**values, sibling=newest(inventory)) for query in queries),
        statement_timeout=TIMEOUT,
    )
    parent = replace(parent, related=tuple(name for (name,) in related), grants=tuple(Grant(*each) for each in grants))
    taken_names = frozenset(name for (name,) in taken)
    return replace(inventory, parent=parent, template=template(row, columns, policies), taken=taken_names)


def newest(inventory: Inventory) -> int:
    """OID of the plain partition with the highest range, 0 where there is none."""
    found = [
        (each.range.lower.replace(tzinfo=None), each.oid)
        for each in inventory.partitions
        if each.kind is RelationKind.TABLE and not each.detach_pending and each.range and each.range.lower
    ]
    return max(found)[1] if found else 0


def template(row: Any, columns: Sequence[Any], policies: Sequence[Any]) -> PartitionTemplate:
    """From the row of `STORAGE`, and rows of `COLUMNS` and `POLICIES`."""
    for each in policies:
        for text in filter(None, (each.using, each.check)):
            ddl.check_text(f"cannot give new partitions the row security policy {each.name!r}: its expression", text)
    about = row._asdict() | {"options": tuple((name, value) for name, value in row.options or ())}
    if row.replica_identity != "i":
        about["identity_index"] = None
    elif row.identity_index is None:
        # An index of the sibling alone has no counterpart in a new partition.
        about["replica_identity"] = "d"
    options = {each.name: tuple((name, value) for name, value in each.options or ()) for each in columns}
    return PartitionTemplate(
        **about,
        columns=tuple(ColumnSetting(each.name, each.statistics, options[each.name]) for each in columns),
        policies=tuple(RowPolicy(**each._asdict() | {"roles": tuple(each.roles)}) for each in policies),
    )
