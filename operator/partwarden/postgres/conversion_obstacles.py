"""What keeps a plain table from becoming a partition as it is, and whether what depends on it is still the same.

A property is refused here because PostgreSQL forbids it on a partitioned table or a partition, or because it cannot be
carried over without a change that a user must decide. The queries need no lock: `conversion_swap` asks them again in
its own transaction.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.sql import SQL, Composed

from ..errors import StatementRejected, TableNotFound
from ..planner.conversion import Conversion
from .connection import pinned, run

# Each row: what forbids it, and the way out. Columns that came with a later release are read through to_jsonb: NULL
# where the server has none. ``t`` is the table, ``key`` the number of the key column, ``narrow`` the constraints that
# are widened.
TABLE = """
SELECT 'it is ' || what, way_out FROM t, LATERAL (VALUES
  (t.relkind = 'p', 'partitioned already', 'a policy manages it as it is'),
  (t.relkind <> 'r', 'no plain table', 'convert the table that holds the rows'),
  (t.relispartition, 'a partition', 'convert its parent'),
  (t.relpersistence = 't', 'a temporary table', 'make a permanent one'),
  (t.relpersistence = 'u', 'UNLOGGED, which no partitioned table is', 'ALTER TABLE … SET LOGGED first'),
  (t.reloftype <> 0, 'a typed table', 'ALTER TABLE … NOT OF first'),
  (EXISTS (SELECT FROM pg_inherits WHERE inhrelid = t.oid AND NOT t.relispartition), 'a child of another table',
   'ALTER TABLE … NO INHERIT first'),
  (EXISTS (SELECT FROM pg_inherits WHERE inhparent = t.oid), 'the parent of other tables',
   'ALTER TABLE … NO INHERIT its children first'),
  (EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = t.oid AND deptype = 'e'),
   'a member of an extension', 'ALTER EXTENSION … DROP TABLE first'),
  (EXISTS (SELECT FROM pg_seclabel WHERE classoid = 'pg_class'::regclass AND objoid = t.oid),
   'labelled by a security provider', 'take the label away, and set it again on the new parent'),
  (EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = t.oid),
   'filled by a subscription, which knows it by its OID',
   'take it out of the publication, and ALTER SUBSCRIPTION … REFRESH PUBLICATION'),
  (NOT has_schema_privilege(t.relowner, t.relnamespace, 'CREATE'), 'owned by a role that may not create in its schema',
   format('GRANT CREATE ON SCHEMA %I TO %I', t.relnamespace::regnamespace::text, pg_get_userbyid(t.relowner)))
) found(holds, what, way_out) WHERE holds
"""
KEY = """
SELECT format('its key column %I is generated', a.attname), 'a generated column cannot be a partition key'
FROM t, pg_attribute a WHERE a.attrelid = t.oid AND a.attnum = t.key AND a.attgenerated <> ''
"""
CONSTRAINTS = """
SELECT format('constraint %I %s', k.conname, what), way_out
FROM t, pg_constraint k, LATERAL (VALUES
  (k.contype = 'x', 'excludes overlapping rows: it would be built anew under the lock', 'drop it first'),
  (coalesce((to_jsonb(k) ->> 'conperiod')::bool, false) AND k.contype IN ('p', 'u'),
   'is WITHOUT OVERLAPS: it would be built anew under the lock', 'drop it first'),
  (k.contype IN ('c', 'n') AND k.connoinherit, 'is NO INHERIT, which no partitioned table can have',
   'make it again without NO INHERIT'),
  (k.contype = 'n' AND NOT k.convalidated, 'is a NOT NULL that is NOT VALID', 'VALIDATE it first'),
  (k.contype = 'f' AND NOT k.convalidated,
   'is a foreign key that is NOT VALID, which no partitioned table has before 18', 'VALIDATE it first'),
  (k.contype = 'f' AND coalesce(to_jsonb(k) ->> 'conenforced', 'true') = 'false', 'is a foreign key NOT ENFORCED',
   'drop it first'),
  (k.contype = 'f' AND coalesce((to_jsonb(k) ->> 'conperiod')::bool, false), 'is a foreign key with PERIOD',
   'drop it first'),
  (k.contype = 'f' AND k.confrelid = t.oid AND t.key <> ALL (k.confkey),
   'points to the table itself, to a key that is not unique over all partitions', 'drop it first'),
  (k.contype IN ('p', 'u') AND t.key <> ALL (k.conkey) AND k.conname <> ALL ({narrow}),
   'does not hold the key column, and a partitioned table can only keep it with that column', 'widen it, or drop it')
) found(holds, what, way_out) WHERE k.conrelid = t.oid AND holds AND k.conname <> {check}
"""
INDEXES = """
SELECT format('index %s %s', c.relname, what), way_out
FROM t, pg_index x JOIN pg_class c ON c.oid = x.indexrelid, LATERAL (VALUES
  (NOT x.indisvalid AND c.relname <> ALL ({wide}), 'is invalid', 'REINDEX or drop it'),
  (x.indisunique AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = c.oid AND conrelid = x.indrelid)
   AND c.relname <> ALL ({wide}) AND t.key <> ALL ((x.indkey::int2[])[0:x.indnkeyatts - 1]),
   'is unique without the key column, and no constraint', 'make it a constraint that is widened, or drop it')
) found(holds, what, way_out) WHERE x.indrelid = t.oid AND holds
"""
REFERENCES = """
SELECT format('foreign key %I of %s %s', k.conname, k.conrelid::regclass, what), way_out
FROM t, pg_constraint k JOIN pg_class o ON o.oid = k.conrelid, LATERAL (VALUES
  (t.key <> ALL (k.confkey), 'points to a key that is not unique over all partitions',
   'drop it, or let it point to a key with the key column'),
  (t.key = ANY (k.confkey) AND o.relkind <> 'r',
   'is of a partitioned table, which PostgreSQL would read under the lock',
   'drop it, and make it again after the conversion')
) found(holds, what, way_out)
WHERE k.contype = 'f' AND k.confrelid = t.oid AND k.conrelid <> t.oid AND k.conparentid = 0 AND holds
"""
TRIGGERS = """
SELECT format('trigger %I %s', g.tgname, what), way_out
FROM t, pg_trigger g, LATERAL (VALUES
  ((g.tgtype & 1) = 1 AND (g.tgoldtable IS NOT NULL OR g.tgnewtable IS NOT NULL),
   'is FOR EACH ROW with transition tables, which no partition can have', 'make it FOR EACH STATEMENT, or drop it')
) found(holds, what, way_out) WHERE g.tgrelid = t.oid AND NOT g.tgisinternal AND holds
"""
# Views and their rules are made again, as are the table's own objects; whatever else speaks of the table's OID would
# stay with the partition.
DEPENDENTS = """
SELECT pg_describe_object(d.classid, d.objid, 0) || ' depends on ' || what,
       'drop it, and make it again after the conversion'
FROM t, LATERAL (
  SELECT classid, objid, 'it' FROM pg_depend d
  WHERE refclassid = 'pg_class'::regclass AND refobjid = t.oid AND deptype IN ('n', 'a')
    AND CASE classid
      WHEN 'pg_rewrite'::regclass THEN
        NOT EXISTS (SELECT FROM pg_rewrite r JOIN pg_class v ON v.oid = r.ev_class
                    WHERE r.oid = objid AND v.relkind = 'v')
      WHEN 'pg_constraint'::regclass THEN
        NOT EXISTS (SELECT FROM pg_constraint k WHERE k.oid = objid AND (k.conrelid = t.oid OR k.contype = 'f'))
      WHEN 'pg_trigger'::regclass THEN
        NOT EXISTS (SELECT FROM pg_trigger g WHERE g.oid = objid AND (g.tgrelid = t.oid OR g.tgisinternal))
      WHEN 'pg_policy'::regclass THEN NOT EXISTS (SELECT FROM pg_policy p WHERE p.oid = objid AND p.polrelid = t.oid)
      WHEN 'pg_attrdef'::regclass THEN NOT EXISTS (SELECT FROM pg_attrdef f WHERE f.oid = objid AND f.adrelid = t.oid)
      WHEN 'pg_class'::regclass THEN
        NOT EXISTS (SELECT FROM pg_class o WHERE o.oid = objid AND (o.relkind IN ('i', 'S') OR o.oid = t.oid))
      WHEN 'pg_statistic_ext'::regclass THEN false
      WHEN 'pg_publication_rel'::regclass THEN false
      ELSE true END
  UNION SELECT classid, objid, 'its row type' FROM pg_depend
  WHERE refclassid = 'pg_type'::regclass AND deptype IN ('n', 'a')
    AND refobjid IN (SELECT unnest(ARRAY[oid, typarray]) FROM pg_type WHERE oid = t.reltype)
  UNION SELECT d.classid, d.objid, format('constraint %I, which is widened', k.conname)
  FROM pg_constraint k JOIN pg_depend d ON d.refclassid = 'pg_constraint'::regclass AND d.refobjid = k.oid
  WHERE k.conrelid = t.oid AND k.conname = ANY ({narrow}) AND d.classid = 'pg_rewrite'::regclass
  UNION SELECT d.classid, d.objid, format('sequence %s, which is made anew', i.objid::regclass)
  FROM pg_depend i JOIN pg_class s ON s.oid = i.objid AND s.relkind = 'S'
  JOIN pg_depend d ON d.refclassid = i.classid AND d.refobjid = i.objid AND d.deptype IN ('n', 'a')
  WHERE i.classid = 'pg_class'::regclass AND i.refclassid = 'pg_class'::regclass AND i.refobjid = t.oid
    AND i.deptype = 'i'
  UNION SELECT 'pg_rewrite'::regclass, r.oid, 'it'
  FROM pg_rewrite r WHERE r.ev_class = t.oid
) d(classid, objid, what)
"""
# An expression over whole rows names the table, which is not that of the partitioned one. In PostgreSQL's trees the row
# is a column with the number 0.
WHOLE_ROWS = """
SELECT format('%s %I reads whole rows of the table', kind, name), 'make it again of the columns that it needs'
FROM t, LATERAL (
  SELECT 'constraint', conname, conbin::text FROM pg_constraint WHERE conrelid = t.oid AND contype = 'c'
  UNION ALL SELECT 'index', c.relname, concat(x.indexprs::text, x.indpred::text)
  FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid WHERE x.indrelid = t.oid
  UNION ALL SELECT 'statistics', stxname, stxexprs::text FROM pg_statistic_ext WHERE stxrelid = t.oid
) found(kind, name, tree) WHERE tree ~ ':varattno 0 '
"""
# Whether a rule reads or writes the table without its partitions, which would be to find no row. The server spells it
# with every name qualified; what may stand behind a name there is compared as a blank.
ONLY = """strpos(translate(pg_get_ruledef({rule}) || ' ', E'\\n,;()', '     '),
  translate(format('ONLY %I.%I ', {schema}::text, {table}::text), E'\\n,;()', '     ')) > 0"""
ONLY_VIEWS = """
SELECT DISTINCT format('view %s reads the table without its partitions (ONLY)', r.ev_class::regclass),
       'make it again without ONLY'
FROM t, pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid
  AND v.relkind = 'v' AND {only}
"""
# Without it changes are published under the names of the partitions, which no subscriber has.
PUBLICATIONS = """
SELECT format('publication %I publishes it without publish_via_partition_root', p.pubname),
       format('ALTER PUBLICATION %I SET (publish_via_partition_root = true)', p.pubname)
FROM t, pg_publication p
WHERE NOT p.pubviaroot AND EXISTS (SELECT FROM pg_publication_tables v JOIN pg_namespace n ON n.nspname = v.schemaname
                                   WHERE v.pubname = p.pubname AND n.oid = t.relnamespace AND v.tablename = t.relname)
"""
ALL = (TABLE, KEY, CONSTRAINTS, INDEXES, REFERENCES, TRIGGERS, DEPENDENTS, WHOLE_ROWS, ONLY_VIEWS, PUBLICATIONS)
WITH = """
WITH t AS (SELECT c.*, (SELECT attnum FROM pg_attribute
                        WHERE attrelid = c.oid AND attname = {key} AND attnum > 0) AS key
           FROM pg_class c WHERE c.oid = {oid})
"""


def ask(conversion: Conversion) -> list[Composed]:
    """The queries for `obstacles_in`."""
    values = {
        "oid": conversion.oid,
        "key": conversion.key,
        "check": conversion.check,
        "narrow": SQL("{}::name[]").format([each.constraint for each in conversion.widened]),
        "wide": SQL("{}::name[]").format([each.index for each in conversion.widened]),
        "only": SQL(ONLY).format(rule=SQL("r.oid"), schema=conversion.schema, table=conversion.table),
    }
    return [SQL(WITH + query + " ORDER BY 1 LIMIT 50").format(**values) for query in ALL]


def obstacles(connection: psycopg.Connection[Any], conversion: Conversion) -> tuple[tuple[str, str], ...]:
    """What forbids the conversion, and its way out; none: it can be done. Raises psycopg's errors.

    ``widened`` of the conversion says which keys may become wider; ``check`` need not exist yet.
    """
    _, _, *answers, _ = run(connection, "BEGIN READ ONLY", pinned("500ms", "10s"), *ask(conversion), "COMMIT")
    return tuple((what, way_out) for rows in answers for what, way_out in rows)


def check_obstacles(conversion: Conversion, answers: list[list[Any]]) -> None:
    """Raises `StatementRejected` that names what forbids it. ``answers``: the rows of `ask`."""
    if found := [f"{what}; {way_out}" for rows in answers for what, way_out in rows]:
        raise StatementRejected(f"cannot convert {conversion.schema}.{conversion.table}: {' · '.join(found)}")


# What no lock on the table keeps from changing, or only the one that is taken last.
FINGERPRINT = """
SELECT md5(coalesce(string_agg(line, ' ' ORDER BY line), '')) FROM (
  SELECT format('%s.%s %s %s', classid, objid, refobjsubid, deptype) AS line FROM pg_depend
  WHERE refclassid = 'pg_class'::regclass AND refobjid = {oid}
  UNION ALL SELECT format('type %s.%s', classid, objid) FROM pg_depend
  WHERE refclassid = 'pg_type'::regclass AND deptype IN ('n', 'a')
    AND refobjid IN (SELECT unnest(ARRAY[t.oid, t.typarray]) FROM pg_type t WHERE t.typrelid = {oid})
  UNION ALL SELECT format('view %s %s %s', r.oid, r.xmin, v.reloptions)
  FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
  WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = {oid}
  UNION ALL SELECT format('grants %s %s', relowner, relacl) FROM pg_class WHERE oid = {oid}
  UNION ALL SELECT format('column %s %s', attnum, attacl) FROM pg_attribute
  WHERE attrelid = {oid} AND attacl IS NOT NULL
) found
"""
CHANGED = "PW001"
"""SQLSTATE of what `require` raises."""


def fingerprint(oid: int) -> Composed:
    """The query for one text, equal as long as grants on the table and all that depends on it are the same."""
    return SQL(FINGERPRINT).format(oid=oid)


def require(condition: Composed, words: str) -> Composed:
    """A statement that fails with SQLSTATE `CHANGED` and these words where the condition is not true."""
    raising = SQL("BEGIN IF ({}) IS NOT TRUE THEN RAISE EXCEPTION USING ERRCODE = {}, MESSAGE = {}; END IF; END")
    body = raising.format(condition, CHANGED, words).as_string()
    return SQL("DO {}").format(body)


def check_there(conversion: Conversion, rows: list[Any]) -> None:
    """Raises `TableNotFound` where the rows hold nothing of the table."""
    if not rows:
        raise TableNotFound(f"table {conversion.schema}.{conversion.table} does not exist")
