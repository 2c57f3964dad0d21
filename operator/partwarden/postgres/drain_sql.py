"""The statements that move rows of a partition, such as DEFAULT, into a table that is to become another.

A row that was copied is remembered, in a table of the transaction's own, by where it lay and which transaction wrote
it (``ctid`` and ``xmin``, which no other version of a row shares), and where its copy lies. Columns go by their names:
parent, source and the new table may have them in different places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg.sql import SQL, Composed, Identifier

from ..errors import InsufficientPrivilege, StatementRejected, TableChanged
from ..planner.actions import DrainIntoPartition
from ..planner.findings import quoted
from ..planner.inventory import Parent, Partition
from .ddl import in_range, relation

FACTS = SQL("""
SELECT EXISTS (SELECT FROM pg_inherits i JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE i.inhrelid = c.oid AND i.inhparent = {parent} AND pg_get_expr(c.relpartbound, 0) = {bounds}
                 AND c.oid = {default} AND c.relkind = 'r') AS same,
       pg_has_role(c.relowner, 'USAGE') AS owned, row_security_active(c.oid) AS hidden, c.relhasrules AS ruled,
       c.relpersistence = 'u' AS unlogged,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = {parent} AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
             ORDER BY a.attnum) AS columns,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = {parent} AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS all_columns,
       ARRAY(SELECT ARRAY[t.tgname::text, t.tgenabled::text] FROM pg_trigger t
             -- What keeps foreign keys is a trigger as well, and stays.
             WHERE t.tgrelid = c.oid AND t.tgtype & 8 <> 0 AND t.tgenabled <> 'D'
               AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.oid = t.tgconstraint AND k.contype <> 't')
             ORDER BY 1) AS triggers,
       -- The new table has those that are CHECK, too.
       ARRAY(SELECT k.conname::text FROM pg_constraint k WHERE k.conrelid = {parent}) AS constraints,
       -- Indexes of EXCLUDE, and of keys WITHOUT OVERLAPS, are not taken over by ATTACH, but made twice.
       NOT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = {parent} AND x.indisexclusion) AS indexes
FROM pg_class c WHERE c.relname = {name} AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = {schema})
""")
PUBLISHED = SQL("""
SELECT p.pubname FROM pg_publication p
WHERE current_setting('wal_level') = 'logical' AND (p.pubinsert OR p.pubdelete)
  AND (p.puballtables
       OR EXISTS (SELECT FROM pg_publication_rel r JOIN pg_partition_ancestors({default}) a ON a.relid = r.prrelid
                  WHERE r.prpubid = p.oid){schemas})
ORDER BY 1
""")
# From 15 on a publication may list schemas.
SCHEMAS = SQL("""
       OR EXISTS (SELECT FROM pg_publication_namespace s JOIN pg_class c ON c.relnamespace = s.pnnspid
                  JOIN pg_partition_ancestors({default}) a ON a.relid = c.oid WHERE s.pnpubid = p.oid)""")


def called(source: Partition) -> str:
    """The partition, for people."""
    return f"DEFAULT partition {source}" if source.range is None else f"partition {source}"


def ask(parent: Parent, default: Partition, version: int) -> tuple[Composed, Composed]:
    """The facts that `check` wants, and publications that send these rows to others, once ``default`` is locked: the
    partition that they leave, mostly DEFAULT."""
    facts = FACTS.format(
        parent=parent.oid, default=default.oid, bounds=default.bounds, schema=default.schema, name=default.name
    )
    schemas = SCHEMAS.format(default=default.oid) if version >= 150000 else SQL("")
    return facts, PUBLISHED.format(default=default.oid, schemas=schemas)


def check(default: Partition, action: DrainIntoPartition, user: str, facts: Any, publications: Sequence[str]) -> None:
    """Raises `TableChanged`, `InsufficientPrivilege` or `StatementRejected`.

    ``facts``: the row of `FACTS`, None where there is none. ``user``: the role that all is done as.
    """
    if facts is None or not facts.same:
        raise TableChanged(f"{called(default)} was changed since it was read")
    subject = f"cannot move rows of {called(default)} to {action}"
    if not facts.owned:
        raise InsufficientPrivilege(f"{subject}: role {user!r} is neither its owner nor a member of that role")
    if facts.hidden:
        raise InsufficientPrivilege(
            f"{subject}: its row security hides rows from role {user!r}; ALTER ROLE {quoted(user)} BYPASSRLS, or take "
            "FORCE away"
        )
    if facts.ruled:
        raise StatementRejected(
            f"{subject}: it has rules, which would change what is done; drop them, or move the rows by hand"
        )
    if publications:
        # What is inserted before ATTACH is no partition's yet: subscribers would see the rows deleted only.
        raise StatementRejected(
            f"{subject}: publication {publications[0]!r} would send subscribers only that they were deleted; "
            "move them by hand: delete them, make the partition, and insert them again"
        )


# Foreign keys that point at the parent or at DEFAULT. One that references a partitioned table stands there once more
# for each partition of either side.
REFERENCES = """
SELECT n.nspname || '.' || r.relname, r.relkind = 'p' AS partitioned, n.nspname AS schema, r.relname AS name,
       (SELECT string_agg(format('d.%I OPERATOR(%I.%s) f.%I', pa.attname, q.nspname, o.oprname, fa.attname), ' AND ')
        FROM unnest(k.confkey, k.conkey, k.conpfeqop) AS u(there, here, operator)
        JOIN pg_attribute pa ON pa.attrelid = k.confrelid AND pa.attnum = u.there
        JOIN pg_attribute fa ON fa.attrelid = k.conrelid AND fa.attnum = u.here
        JOIN pg_operator o ON o.oid = u.operator JOIN pg_namespace q ON q.oid = o.oprnamespace) AS condition
FROM pg_constraint k JOIN pg_class r ON r.oid = k.conrelid JOIN pg_namespace n ON n.oid = r.relnamespace
WHERE k.contype = 'f' AND k.confrelid IN ({parent_oid}, {default_oid})
  AND NOT EXISTS (SELECT FROM pg_constraint above
                  WHERE above.oid = k.conparentid AND above.confrelid IN ({parent_oid}, {default_oid}))
ORDER BY 1, k.oid
"""
# Copies what is not remembered yet; ``same`` says whether the copy's text is that of the row. RETURNING gives rows in
# the order in which they go in. Were it ever another, ``same`` would show it.
COPY = """
WITH source AS MATERIALIZED (
  SELECT row_number() OVER () AS place, d.ctid AS old, d.xmin AS born, {hash_from} AS hash, {aliased}
  FROM ONLY {default} AS d
  WHERE {range} AND NOT EXISTS (SELECT FROM {map} AS m WHERE m.old = d.ctid AND m.born = d.xmin) LIMIT {limit}
), put AS (
  INSERT INTO {new} AS t ({columns}) SELECT {alias} FROM source ORDER BY place
  RETURNING t.ctid AS new, {hash_to} AS hash
), placed AS (SELECT row_number() OVER () AS place, new, hash FROM put)
INSERT INTO {map} SELECT s.old, s.born, p.new, s.hash IS NOT DISTINCT FROM p.hash
FROM source AS s JOIN placed AS p USING (place)
"""
# Takes the copies away whose rows were changed or deleted since.
FORGET_GONE = """
WITH gone AS (
  DELETE FROM {map} AS m
  WHERE NOT EXISTS (SELECT FROM ONLY {default} AS d WHERE d.ctid = m.old AND d.xmin = m.born AND {range})
  RETURNING m.new)
DELETE FROM ONLY {new} AS n USING gone AS g WHERE n.ctid = g.new
"""
# Deletes from DEFAULT what was copied, and nothing else. One row: deleted, remembered, in the new table.
DELETE = """
WITH moved AS (
  DELETE FROM ONLY {default} AS d USING {map} AS m WHERE d.ctid = m.old AND d.xmin = m.born RETURNING 1)
SELECT (SELECT count(*) FROM moved), (SELECT count(*) FROM {map}), (SELECT count(*) FROM ONLY {new})
"""

ENABLE = {"O": "ENABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}
"""``pg_trigger.tgenabled``, in the words of ALTER TABLE."""


def names(parent: Parent, default: Partition, action: DrainIntoPartition, key: str, facts: Any) -> dict[str, Any]:
    """What stands in the braces of all these statements. ``facts``: the row of `FACTS`."""
    alias = {name: Identifier(f"c{number}") for number, name in enumerate(facts.columns)}
    aliased = [SQL("d.{} AS {}").format(Identifier(name), short) for name, short in alias.items()]
    return {
        "parent_oid": parent.oid,
        "default_oid": default.oid,
        "default": relation(default),
        "new": relation(action),
        "map": Identifier(parent.schema, f"partwarden_moving_{parent.oid}"),
        "bounds": Identifier(_free_name("partwarden_bounds", facts.constraints)),
        "owner": Identifier(parent.owner),
        "key": Identifier(key),
        "in_bounds": in_range(Identifier(key), action.bounds),
        "range": in_range(Identifier("d", key), action.bounds),
        "limit": action.max_rows + 1,
        "columns": SQL(", ").join(map(Identifier, facts.columns)),
        "alias": SQL(", ").join(alias.values()),
        "aliased": SQL(", ").join(aliased),
        "hash_from": _hash("d", facts.all_columns),
        "hash_to": _hash("t", facts.all_columns),
    }


def _free_name(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _hash(table: str, columns: Sequence[str]) -> Composed:
    listed = SQL(", ").join(Identifier(table, name) for name in columns)
    return SQL("hashtextextended(ROW({})::text, 0)").format(listed)
