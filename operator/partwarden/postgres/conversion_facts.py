"""Read a plain table that is to be partitioned: what it is, what is tied to it, and between what its keys lie.

The catalog is read in one snapshot; rows only where the catalog refuses nothing, as the table's owner. What an index
on the key cannot answer is counted in one scan, which may take as long as a validation does.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from psycopg.sql import SQL, Composable, Identifier, Literal

from ..api.policy import Table, TableSpec
from ..api.retention import KeyEncoding
from ..errors import StatementRejected, TableNotFound
from ..planner.inventory import Inventory
from ..planner.keys import Codec, KeyType
from ..planner.plain_table import (
    Constraint,
    ConstraintKind,
    Index,
    KeyColumn,
    Leftover,
    PlainTable,
    Spread,
    Tied,
    TiedKind,
)
from . import catalog, ddl
from .answers import UnreadAnswer, check_rows
from .connection import Session, run
from .conversion_obstacles import ONLY
from .table_state import ends
from .transaction import read_only, reading_rows

MOST = 1000
"""Objects of one kind that are read: a table with more is refused."""
COUNT_LIMIT = 100_000
"""Rows that are counted where an index finds them."""

TABLE = """
SELECT c.relkind::text AS kind, c.relpersistence::text AS persistence, c.relispartition AS is_partition,
       CASE WHEN c.reloftype <> 0 THEN format_type(c.reloftype, NULL) END AS typed,
       coalesce((SELECT amname::text FROM pg_am WHERE oid = c.relam), '') AS access_method,
       c.relrowsecurity AND c.relforcerowsecurity
         AND NOT (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE oid = c.relowner) AS forced,
       coalesce(pg_total_relation_size(c.oid), 0) AS bytes,
       coalesce((SELECT sum(pg_relation_size(conrelid)) FROM
                 (SELECT DISTINCT conrelid FROM pg_constraint WHERE contype = 'f' AND confrelid = c.oid) k), 0)::int8
         AS referring,
       coalesce(pg_relation_size(c.oid), 0) AS heap, CASE WHEN c.reltuples >= 0 THEN c.reltuples::int8 END AS rows
FROM pg_class c WHERE c.oid = {oid}
"""
COLUMNS = """
SELECT attname::text AS name, format_type(atttypid, NULL) AS type, attnotnull AS not_null,
       attgenerated::text AS generated, attidentity <> '' AS is_identity
FROM pg_attribute WHERE attrelid = {oid} AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
# Columns that only newer servers have are read by way of jsonb, which knows no name that is not there.
CONSTRAINTS = """
SELECT k.conname::text AS name, k.contype::text AS kind,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(num, place)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY place) AS columns,
       ARRAY(SELECT a.attname::text
             FROM pg_index x, unnest((x.indkey::int2[])[x.indnkeyatts:]) u(num)
             JOIN pg_attribute a ON a.attrelid = {oid} AND a.attnum = u.num
             WHERE x.indexrelid = k.conindid AND x.indnatts > x.indnkeyatts) AS included,
       k.condeferrable AS deferrable, k.convalidated AS validated,
       NOT k.connoinherit AS inherited,
       coalesce((to_jsonb(k) ->> 'conperiod')::bool, false) AS overlaps,
       coalesce((SELECT NOT (to_jsonb(x) ->> 'indnullsnotdistinct')::bool FROM pg_index x
                 WHERE x.indexrelid = k.conindid), true) AS nulls_distinct, k.conindid AS index
FROM pg_constraint k WHERE k.conrelid = {oid} AND k.contype IN ('p', 'u', 'x', 'c', 'n')
ORDER BY k.contype, k.conname LIMIT {most}
"""
# An index's vectors begin with 0. An expression has the number 0, and no name.
INDEXES = """
SELECT i.indexrelid AS oid, c.relname::text AS name,
       ARRAY(SELECT a.attname::text
             FROM unnest((i.indkey::int2[])[:i.indnkeyatts - 1]) WITH ORDINALITY u(num, place)
             LEFT JOIN pg_attribute a ON a.attrelid = {oid} AND a.attnum = u.num AND u.num > 0 ORDER BY place)
         AS columns,
       i.indisunique AS unique, i.indisvalid AND i.indisready AND i.indislive AS valid,
       EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid
               AND k.contype IN ('p', 'u', 'x')) AS constraint,
       (SELECT amname FROM pg_am WHERE oid = c.relam) = 'btree' AND i.indpred IS NULL
         AND i.indnatts = i.indnkeyatts
         AND NOT coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false)
         AND NOT EXISTS (SELECT FROM unnest(i.indoption::int2[]) o(option) WHERE option <> 0)
         AND NOT EXISTS (SELECT FROM unnest(i.indclass::oid[]) o(class) JOIN pg_opclass d ON d.oid = o.class
                         WHERE NOT d.opcdefault)
         AND NOT EXISTS (SELECT FROM unnest(i.indkey::int2[]) WITH ORDINALITY u(num, place)
                         JOIN pg_attribute a ON a.attrelid = {oid} AND a.attnum = u.num
                         WHERE a.attcollation <> (i.indcollation::oid[])[place - 1]) AS plain,
       i.indisreplident AS identifies_rows
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = {oid} ORDER BY c.relname LIMIT {most}
"""
LEFTOVER = """
SELECT left(pg_get_expr(k.conbin, k.conrelid), {longest}) AS condition, k.convalidated AS validated,
       quote_ident({key}) AS column
FROM pg_constraint k WHERE k.conrelid = {oid} AND k.contype = 'c' AND k.conname = {check}
"""
# The same of a table of which only the name is known.
PREPARED = """
SELECT left(pg_get_expr(k.conbin, k.conrelid), {longest}) AS condition, k.convalidated AS validated,
       quote_ident(a.attname) AS column, a.attname::text AS key
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.conkey[1]
WHERE n.nspname = {schema} AND c.relname = {name} AND c.relkind = 'r' AND NOT c.relispartition
  AND k.contype = 'c' AND k.conname = {check} AND cardinality(k.conkey) = 1
"""
LONGEST_CHECK = 4096

# Foreign keys, triggers, policies, publications and the like, one query, each as (kind, name, validated).
TIED = """
SELECT kind, left(name, 255) AS name, validated FROM (
  SELECT CASE WHEN coalesce((to_jsonb(k) ->> 'conperiod')::bool, false) THEN 'PERIOD'
              WHEN k.conrelid = {oid} AND k.confrelid <> {oid} THEN 'FOREIGN_KEY'
              WHEN r.relkind <> 'r' THEN 'PARTITIONED_REFERENCE'
              WHEN EXISTS (SELECT FROM pg_attribute WHERE attrelid = {oid} AND attnum = ANY (k.confkey)
                           AND attname = {key})
              THEN CASE WHEN k.conrelid = {oid} THEN 'SELF_REFERENCE' ELSE 'REFERENCE' END
              ELSE CASE WHEN k.conrelid = {oid} THEN 'NARROW_SELF_REFERENCE' ELSE 'NARROW_REFERENCE' END END AS kind,
         CASE WHEN k.conrelid = {oid} THEN k.conname::text
              ELSE k.conname || ' of ' || n.nspname || '.' || r.relname END AS name,
         k.convalidated AND coalesce((to_jsonb(k) ->> 'conenforced')::bool, true) AS validated
  FROM pg_constraint k JOIN pg_class r ON r.oid = k.conrelid JOIN pg_namespace n ON n.oid = r.relnamespace
  WHERE k.contype = 'f' AND k.conparentid = 0 AND (k.conrelid = {oid} OR k.confrelid = {oid})
  UNION ALL
  SELECT CASE WHEN tgtype & 1 = 1 AND coalesce(tgoldtable, tgnewtable) IS NOT NULL THEN 'TRANSITION_TABLES'
              WHEN tgconstraint <> 0 THEN 'CONSTRAINT_TRIGGER'
              -- BEFORE, of INSERT or UPDATE: see TRIGGER_TYPE_… in PostgreSQL's pg_trigger.h.
              WHEN tgtype & 3 = 3 AND tgtype & 20 <> 0 THEN 'BEFORE_TRIGGER' WHEN tgtype & 1 = 1 THEN 'ROW_TRIGGER'
              ELSE 'STATEMENT_TRIGGER' END, tgname, true
  FROM pg_trigger WHERE tgrelid = {oid} AND NOT tgisinternal
  UNION ALL
  SELECT 'OTHER', 'trigger ' || tgname || ' of ' || tgrelid::regclass::text, true
  FROM pg_trigger WHERE tgconstrrelid = {oid} AND tgrelid <> {oid} AND NOT tgisinternal
  UNION ALL SELECT 'POLICY', polname, true FROM pg_policy WHERE polrelid = {oid}
  UNION ALL
  SELECT CASE WHEN NOT p.pubviaroot THEN 'LEAF_PUBLICATION'
              WHEN NOT pg_has_role(p.pubowner, 'USAGE') THEN 'FOREIGN_PUBLICATION' ELSE 'PUBLICATION' END,
         p.pubname, true
  FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = {oid}
  UNION ALL
  -- Of all tables, or of all of the schema.
  SELECT CASE WHEN p.pubviaroot THEN 'PUBLICATION' ELSE 'LEAF_PUBLICATION' END, p.pubname, true
  FROM pg_publication_tables t JOIN pg_publication p ON p.pubname = t.pubname
  WHERE (t.schemaname, t.tablename) = ({schema}::text, {name}::text)
    AND NOT EXISTS (SELECT FROM pg_publication_rel r WHERE r.prrelid = {oid} AND r.prpubid = p.oid)
  UNION ALL
  SELECT 'SUBSCRIPTION', s.subname, true FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid
  WHERE r.srrelid = {oid}
  UNION ALL SELECT 'EVENT_TRIGGER', evtname, true FROM pg_event_trigger WHERE evtenabled <> 'D'
  UNION ALL
  SELECT 'RULE', rulename, true FROM pg_rewrite WHERE ev_class = {oid} AND rulename <> '_RETURN'
  UNION ALL SELECT 'STATISTICS', stxname, true FROM pg_statistic_ext WHERE stxrelid = {oid}
  UNION ALL
  SELECT 'SECURITY_LABEL', provider, true FROM pg_seclabel
  WHERE classoid = 'pg_class'::regclass AND objoid = {oid}
  UNION ALL
  SELECT 'EXTENSION', e.extname, true FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
  WHERE d.classid = 'pg_class'::regclass AND d.objid = {oid} AND d.objsubid = 0
    AND d.refclassid = 'pg_extension'::regclass AND d.deptype IN ('e', 'x')
  UNION ALL SELECT 'PARENT', inhparent::regclass::text, true FROM pg_inherits WHERE inhrelid = {oid}
  UNION ALL SELECT 'CHILD', inhrelid::regclass::text, true FROM pg_inherits WHERE inhparent = {oid}
) found ORDER BY kind, name LIMIT {most}
"""
# What depends on the table, on its row type or on its keys. A default, a trigger or a policy of the table itself is a
# part of it; foreign keys stand above. What depends on a view goes on to do so: a view is replaced, and keeps its OID.
DEPENDENTS = """
WITH used(classid, objid) AS (
  VALUES ('pg_class'::regclass::oid, {oid}::oid)
  UNION ALL SELECT 'pg_type'::regclass::oid, t.oid FROM pg_type t
    WHERE t.typrelid = {oid} OR t.typelem = (SELECT reltype FROM pg_class WHERE oid = {oid})
  UNION ALL SELECT 'pg_constraint'::regclass::oid, k.oid FROM pg_constraint k
    WHERE k.conrelid = {oid} AND k.contype IN ('p', 'u')
), dependents AS (
  SELECT DISTINCT d.classid, d.objid, d.objsubid, u.classid = 'pg_constraint'::regclass AS by_key,
         u.classid = 'pg_type'::regclass AS by_type
  FROM used u JOIN pg_depend d ON d.refclassid = u.classid AND d.refobjid = u.objid AND d.deptype = 'n'
)
SELECT CASE WHEN d.by_key THEN 'GROUPED_VIEW'
            WHEN v.relkind = 'v' AND NOT d.by_type AND {only} THEN 'ONLY_VIEW'
            WHEN v.relkind = 'v' AND NOT d.by_type THEN 'VIEW'
            WHEN v.relkind = 'm' THEN 'MATERIALIZED_VIEW' ELSE 'OTHER' END AS kind,
       left(CASE WHEN v.relkind IN ('v', 'm') AND NOT d.by_type THEN n.nspname || '.' || v.relname
                 ELSE o.type || ' ' || o.identity END, 255) AS name, true AS validated
FROM dependents d CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) o
LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
LEFT JOIN pg_class v ON v.oid = w.ev_class LEFT JOIN pg_namespace n ON n.oid = v.relnamespace
WHERE NOT (d.classid = 'pg_constraint'::regclass
           AND (SELECT contype = 'f' OR conrelid = {oid} FROM pg_constraint WHERE oid = d.objid))
  AND NOT (d.classid = 'pg_rewrite'::regclass AND w.ev_class = {oid})
  AND NOT (d.classid = 'pg_attrdef'::regclass AND (SELECT adrelid = {oid} FROM pg_attrdef WHERE oid = d.objid))
  AND NOT (d.classid = 'pg_trigger'::regclass AND (SELECT tgrelid = {oid} FROM pg_trigger WHERE oid = d.objid))
  AND NOT (d.classid = 'pg_policy'::regclass AND (SELECT polrelid = {oid} FROM pg_policy WHERE oid = d.objid))
  AND NOT (d.classid = 'pg_class'::regclass AND (SELECT relkind IN ('i', 'I') FROM pg_class WHERE oid = d.objid))
  -- Publications stand above; that one depends on columns, too, where it has a list of them or a row filter.
  AND d.classid <> 'pg_publication_rel'::regclass
GROUP BY 1, 2 ORDER BY 1, 2 LIMIT {most}
"""


def read_table(connection: Session, table: Table, key: str, check: str) -> PlainTable:
    """The table from the catalog alone. ``check``: the name that a conversion gives its constraint.

    Raises `TableNotFound`, `StatementRejected` where it has more objects than are read, and psycopg's errors.
    """
    inventory = catalog.observe(connection, TableSpec(table=table))
    parent = inventory.parent
    if parent is None:
        raise TableNotFound(
            f"table {table} does not exist in database {inventory.server.database!r}, or role "
            f"{inventory.server.user!r} may not see its schema: correct the name (names are matched exactly)"
        )
    names = {"key": key, "oid": parent.oid, "schema": parent.schema, "name": parent.name, "most": MOST + 1}
    only = SQL(ONLY).format(rule=SQL("w.oid"), schema=parent.schema, table=parent.name)
    queries = (TABLE, COLUMNS, CONSTRAINTS, INDEXES, TIED, DEPENDENTS)
    asked: list[Composable] = [
        *(SQL(each).format(only=only, **names) for each in queries),
        ask_leftover(parent.oid, key, check),
    ]
    about, columns, *lists, checks = read_only(connection, *asked, statement_timeout=catalog.TIMEOUT)
    for rows in (about, columns, *lists, checks):
        check_rows(rows)
        if len(rows) > MOST and rows is not columns:
            raise StatementRejected(f"cannot convert {parent}: it has more than {MOST:,} objects of one kind")
    if not about:
        raise TableNotFound(f"table {parent} was dropped since it was read")
    try:
        return _table(inventory, key, about, columns, lists, checks)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnreadAnswer(f"the catalog holds what no PostgreSQL has there ({error!r:.200})") from error


def _table(
    inventory: Inventory, key: str, about: list[Any], columns: list[Any], lists: list[list[Any]], checks: list[Any]
) -> PlainTable:
    assert inventory.parent is not None
    constraints, indexes, tied, dependents = lists
    chosen = next((each for each in columns if each.name == key), None)
    return PlainTable(
        server=inventory.server,
        now=inventory.now,
        parent=inventory.parent,
        **about[0]._asdict(),
        key=chosen and KeyColumn(**chosen._asdict() | {"generated": chosen.generated != ""}),
        columns=tuple(each.name for each in columns),
        constraints=tuple(_constraint(each) for each in constraints),
        indexes=tuple(Index(**each._asdict() | {"columns": tuple(each.columns)}) for each in indexes),
        tied=tuple(
            Tied(kind=TiedKind[row.kind], name=row.name, validated=row.validated) for row in (*tied, *dependents)
        ),
        leftover=parse_leftover(checks),
    )


def _constraint(row: Any) -> Constraint:
    lists = {"columns": tuple(row.columns), "included": tuple(row.included)}
    return Constraint(**row._asdict() | lists | {"kind": ConstraintKind(row.kind)})


def ask_leftover(oid: int, key: str, check: str) -> Composable:
    """The query for `parse_leftover`, in a transaction that has pinned its settings."""
    return SQL(LEFTOVER).format(oid=oid, key=key, check=check, longest=LONGEST_CHECK)


def parse_leftover(rows: list[Any]) -> Leftover | None:
    """The CHECK of that name, from the rows of `ask_leftover`."""
    for row in rows:
        lower, upper = ends(row.condition, row.column) or (None, None)
        return Leftover(condition=row.condition, validated=row.validated, lower=lower, upper=upper)
    return None


def read_prepared(connection: Session, table: Table, check: str) -> tuple[str, Leftover] | None:
    """The CHECK of a conversion that a plain table has, and the column that it is of; None where it has none.

    Raises psycopg's errors.
    """
    query = SQL(PREPARED).format(schema=table.schema_, name=table.name, check=check, longest=LONGEST_CHECK)
    (rows,) = read_only(connection, query, statement_timeout=catalog.TIMEOUT)
    check_rows(rows)
    try:
        left = parse_leftover(rows)
        return (str(rows[0].key), left) if left is not None and left.lower is not None else None
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnreadAnswer(f"the catalog holds what no PostgreSQL has there ({error!r:.200})") from error


def read_taken(connection: Session, table: PlainTable, names: list[str]) -> frozenset[str]:
    """Which of the names a relation or a type of the table's schema has. Raises psycopg's errors."""
    query = SQL(catalog.TAKEN).format(schema=table.parent.schema, names=names)
    return frozenset(name for (name,) in read_only(connection, query)[0])


INFINITE = (KeyType.DATE, KeyType.TIMESTAMP, KeyType.TIMESTAMPTZ)

# With an index each question reads one row, or as many as it counts; without one they are asked in one scan. The bare
# name in ORDER BY would be that of the text that is returned: no index has its order, and it is not that of numbers.
INDEXED = """
SELECT (SELECT count(*) FROM (SELECT FROM ONLY {table} WHERE {key} IS NULL LIMIT {limit}) r) AS nulls,
       (SELECT count(*) FROM (SELECT FROM ONLY {table} WHERE {infinite} LIMIT {limit}) r) AS infinite,
       (SELECT {key}::text FROM ONLY {table} r WHERE {finite} ORDER BY r.{key} LIMIT 1) AS lowest,
       (SELECT {key}::text FROM ONLY {table} r WHERE {finite} ORDER BY r.{key} DESC LIMIT 1) AS highest,
       (SELECT count(*) FROM (SELECT FROM ONLY {table} WHERE {finite} AND {key} > {now} LIMIT {limit}) r) AS ahead
"""
SCANNED = """
SELECT count(*) FILTER (WHERE {key} IS NULL) AS nulls, count(*) FILTER (WHERE {infinite}) AS infinite,
       (min({value}) FILTER (WHERE {finite}))::text AS lowest, (max({value}) FILTER (WHERE {finite}))::text AS highest,
       count(*) FILTER (WHERE {finite} AND {key} > {now}) AS ahead
FROM ONLY {table}
"""


def read_rows(connection: Session, table: PlainTable, encoding: KeyEncoding, now: datetime) -> PlainTable:
    """The table with the spread of its keys. ``now``: in the key's domain.

    The key is of a type that can hold the encoding. Takes as long as a scan where no index begins with the key. Raises
    `InsufficientPrivilege`, and psycopg's errors, also where row security hides a row from the role that reads.
    """
    assert table.key is not None
    codec = Codec.find(table.key.type, encoding)
    assert codec is not None
    key, relation = Identifier(table.key.name), ddl.relation(table.parent)
    never, ever = SQL("false"), SQL("{} IS NOT NULL").format(key)
    infinite = SQL("{key} IN ('infinity', '-infinity')").format(key=key) if codec.type in INFINITE else never
    finite = SQL("{key} > '-infinity' AND {key} < 'infinity'").format(key=key) if codec.type in INFINITE else ever
    # Before 18 there is no smallest UUID; texts of UUIDs are ordered as they are.
    value = SQL('{}::text COLLATE "C"').format(key) if codec.type is KeyType.UUID else key
    query = INDEXED if table.key_index else SCANNED
    parts: dict[str, Composable] = {"table": relation, "key": key, "infinite": infinite, "finite": finite}
    parts |= {"value": value, "now": Literal(codec.literal(now)), "limit": Literal(COUNT_LIMIT)}
    with reading_rows(connection, table.parent.schema, table.parent.name):
        ((row,),) = run(connection, SQL(query).format(**parts))
    try:
        for each in filter(None, (row.lowest, row.highest)):
            codec.moment(each)
    except (TypeError, ValueError) as error:
        raise UnreadAnswer(f"a key of {table} is no value of type {codec.type} ({error!r:.200})") from error
    return replace(table, spread=Spread(**row._asdict()))
