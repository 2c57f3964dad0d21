"""What a look asks of PostgreSQL, as SQL."""

from __future__ import annotations

from functools import lru_cache

from psycopg import sql

from . import comments, detached
from .resemblance import DEFAULT_ACL, TRAITS
from .server_identity import IDENTITY

SERVER = """
SELECT current_setting('server_version'), current_database(), current_user,
       pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on',
       {IDENTITY},
       to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'),
       coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = session_user), false)
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
       {traits}, {default_acl}
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
COMMENT = comments.read(sql.SQL("c.oid"))
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
        queries.append(detached.query(size))
    return sql.SQL(sql.SQL("; ").join(queries).as_string())
