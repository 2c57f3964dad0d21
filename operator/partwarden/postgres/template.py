"""Read what the creation of partitions needs to know, such as what they have beside what LIKE and ATTACH give them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import psycopg
from psycopg.sql import SQL

from ..planner.inventory import ColumnSetting, Grant, Inventory, PartitionTemplate, RelationKind, RowPolicy
from .transaction import parent_of, read_only

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
       coalesce(s.relpersistence, p.relpersistence) = 'u' AS unlogged,
       coalesce((SELECT relpersistence = 'u' FROM pg_class WHERE oid = {default}), false) AS default_unlogged
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
       pg_get_expr(polqual, polrelid) AS using, pg_get_expr(polwithcheck, polrelid) AS check
FROM pg_policy WHERE polrelid = {sibling} ORDER BY polname
"""


def complete(connection: psycopg.Connection[Any], inventory: Inventory, names: Iterable[str]) -> Inventory:
    """The inventory with what the creation of partitions called ``names`` needs to know, in one round trip. Raises
    psycopg's errors.
    """
    parent, default = parent_of(inventory), inventory.default.oid if inventory.default else 0
    values = {"parent": parent.oid, "schema": parent.schema, "names": list(names), "default": default}
    queries = (RELATED, ACL, TAKEN, STORAGE, COLUMNS, POLICIES)
    related, grants, taken, (row,), columns, policies = read_only(
        connection,
        *(SQL(query).format(**values, sibling=newest(inventory)) for query in queries),
        statement_timeout="30s",
    )
    parent = replace(parent, related=tuple(name for (name,) in related), grants=tuple(Grant(*each) for each in grants))
    taken_names = frozenset(name for (name,) in taken)
    return replace(inventory, parent=parent, template=_template(row, columns, policies), taken=taken_names)


def newest(inventory: Inventory) -> int:
    """OID of the plain partition with the highest range, 0 where there is none."""
    found = [
        (each.range.lower.replace(tzinfo=None), each.oid)
        for each in inventory.partitions
        if each.kind is RelationKind.TABLE and not each.detach_pending and each.range and each.range.lower
    ]
    return max(found)[1] if found else 0


def _template(row: Any, columns: Iterable[Any], policies: Iterable[Any]) -> PartitionTemplate:
    """From the row of `STORAGE`, and rows of `COLUMNS` and `POLICIES`."""
    about = row._asdict() | {"options": _pairs(row.options)}
    if row.replica_identity != "i":
        about["identity_index"] = None
    elif row.identity_index is None:
        # An index of the sibling alone has no counterpart in a new partition.
        about["replica_identity"] = "d"
    return PartitionTemplate(
        **about,
        columns=tuple(ColumnSetting(each.name, each.statistics, _pairs(each.options)) for each in columns),
        policies=tuple(RowPolicy(**each._asdict() | {"roles": tuple(each.roles)}) for each in policies),
    )


def _pairs(options: list[list[str]] | None) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in options or ())
