"""What DROP TABLE takes along without asking: objects that PostgreSQL ties to a table, and that others may use.

PostgreSQL drops every object with an automatic or internal dependency on the table (``pg_depend.deptype``), and its
entries in subscriptions. Most of them are parts of the table: its row type, TOAST table, indexes, constraints,
defaults, triggers, rules, policies and extended statistics. What is not a part of it, by kind:

- A sequence that a column owns is kept: ``ALTER SEQUENCE … OWNED BY NONE`` right before the drop. Nothing in the
  catalog says whether an application calls ``nextval`` on it.
- The sequence of an identity column cannot be kept. It goes, and is named. The drop is refused where the sequence has
  given a value that lies beyond all of the column: something else uses it.
- The entry in a publication goes, and is named.
- The drop is refused by a subscription that replicates into the table, by a constraint trigger of another table that
  refers to it (``CREATE CONSTRAINT TRIGGER … FROM``), and by every object of a kind that is not listed here.

Objects with a normal dependency, such as views, foreign keys of other tables and functions with a body in SQL, are no
matter: ``DROP TABLE … RESTRICT`` refuses them itself.
https://www.postgresql.org/docs/current/catalog-pg-depend.html

Before that, PostgreSQL detaches no partition while foreign keys of other tables refer to its rows, which are counted
here. A key that refers to the partitioned table stands in the catalog once more for each partition. One that a user
made to refer to a partition itself goes on to do so after the detach, and is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from ..api.policy import TableSpec
from ..api.retention import OnExpire
from ..planner.actions import DetachPartition, DropDetached
from ..planner.findings import refusing, used_elsewhere
from ..planner.inventory import Fate, Inventory, Reference, Tie
from ..planner.plan import Plan
from . import ddl
from .connection import run
from .ddl import Relation
from .transaction import parent_of, read_only, reading

# Of a constraint trigger its constraint is a part. Triggers that are internal belong to a foreign key, whose own entry
# is judged. Keys that refer to a partition through its parent (conparentid) end with its detach.
TIES = """
WITH RECURSIVE going(root, classid, objid) AS (
  SELECT t.oid, 'pg_class'::regclass::oid, t.oid FROM unnest({oids}::oid[]) t(oid)
  UNION
  SELECT g.root, d.classid, d.objid FROM going g
  JOIN pg_depend d ON d.refclassid = g.classid AND d.refobjid = g.objid AND d.deptype IN ('a', 'i', 'P', 'S')
), judged AS (
  SELECT g.root, g.classid, g.objid, CASE g.classid
    WHEN 'pg_class'::regclass THEN (
      SELECT CASE WHEN c.oid = g.root OR c.relkind IN ('i', 't') THEN 'own' WHEN c.relkind <> 'S' THEN 'other'
        WHEN EXISTS (SELECT FROM pg_depend d WHERE d.classid = g.classid AND d.objid = g.objid
                     AND d.refclassid = g.classid AND d.refobjid = g.root AND d.deptype = 'i') THEN 'identity'
        ELSE 'sequence' END
      FROM pg_class c WHERE c.oid = g.objid)
    WHEN 'pg_type'::regclass THEN (
      SELECT CASE WHEN g.root IN (t.typrelid, e.typrelid) THEN 'own' ELSE 'other' END
      FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem WHERE t.oid = g.objid)
    WHEN 'pg_constraint'::regclass THEN (
      SELECT CASE WHEN k.conrelid = g.root OR k.contype = 't' OR k.conparentid <> 0 THEN 'own' ELSE 'other' END
      FROM pg_constraint k WHERE k.oid = g.objid)
    WHEN 'pg_trigger'::regclass THEN (
      SELECT CASE WHEN t.tgrelid = g.root OR t.tgisinternal THEN 'own' ELSE 'trigger' END
      FROM pg_trigger t WHERE t.oid = g.objid)
    WHEN 'pg_attrdef'::regclass THEN (
      SELECT CASE WHEN adrelid = g.root THEN 'own' ELSE 'other' END FROM pg_attrdef WHERE oid = g.objid)
    WHEN 'pg_policy'::regclass THEN (
      SELECT CASE WHEN polrelid = g.root THEN 'own' ELSE 'other' END FROM pg_policy WHERE oid = g.objid)
    WHEN 'pg_rewrite'::regclass THEN (
      SELECT CASE WHEN ev_class = g.root THEN 'own' ELSE 'other' END FROM pg_rewrite WHERE oid = g.objid)
    WHEN 'pg_statistic_ext'::regclass THEN (
      SELECT CASE WHEN stxrelid = g.root THEN 'own' ELSE 'other' END FROM pg_statistic_ext WHERE oid = g.objid)
    WHEN 'pg_publication_rel'::regclass THEN 'publication'
    ELSE 'other' END AS kind
  FROM going g
  UNION ALL
  SELECT srrelid, 'pg_subscription'::regclass, srsubid, 'subscription' FROM pg_subscription_rel
  WHERE srrelid = ANY({oids}::oid[])
)
SELECT j.root, j.kind, j.objid AS oid, o.type, left(o.identity, 1000) AS described, n.nspname AS schema,
       c.relname AS name
FROM judged j CROSS JOIN LATERAL pg_identify_object(j.classid, j.objid, 0) o
LEFT JOIN pg_class c ON j.classid = 'pg_class'::regclass AND c.oid = j.objid
LEFT JOIN pg_namespace n ON n.oid = c.relnamespace WHERE j.kind <> 'own' ORDER BY j.root, j.kind, o.identity
"""

FATES = {"sequence": Fate.KEPT, "identity": Fate.GOES, "publication": Fate.GOES}
"""By kind; of every other the drop is refused."""

LAST_VALUE = """
SELECT a.attname AS column, pg_sequence_last_value({sequence}::oid::regclass) AS last, s.seqincrement > 0 AS ascending
FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
JOIN pg_sequence s ON s.seqrelid = d.objid
WHERE d.classid = 'pg_class'::regclass AND d.objid = {sequence} AND d.refobjid = {table} AND d.deptype = 'i'
"""


def read_ties(connection: psycopg.Connection[Any], spec: TableSpec, inventory: Inventory, plan: Plan) -> Inventory:
    """Read what is tied to the tables that the policy drops, now or later. Raises psycopg's errors."""
    if spec.retention is None or spec.retention.on_expire is not OnExpire.DROP:
        return inventory
    leaving = [each.oid for each in plan.due if isinstance(each, DetachPartition | DropDetached)]
    tied = ties(connection, [*leaving, *(each.oid for each in inventory.detached)])
    return replace(inventory, ties=tied) if tied else inventory


def ties(
    connection: psycopg.Connection[Any], oids: Iterable[int], *, in_transaction: bool = False
) -> Mapping[int, tuple[Tie, ...]]:
    """What is tied to each table, by its OID; ``in_transaction``: in the one that is open. Raises psycopg's errors."""
    if not (oids := sorted(set(oids))):
        return {}
    query = SQL(TIES).format(oids=oids)
    (rows,) = run(connection, query) if in_transaction else read_only(connection, query)
    tied: dict[int, tuple[Tie, ...]] = {}
    for row in rows:
        fate = FATES.get(row.kind, Fate.REFUSES)
        what = f"{'identity sequence' if row.kind == 'identity' else row.type} {row.described}"
        way_out = f"drop {what}, or change it so that it does not depend on the table"
        if row.kind == "subscription":
            refresh = "ALTER SUBSCRIPTION … REFRESH PUBLICATION"
            way_out = f"take the table out of the publication that it replicates, then {refresh}"
        tie = Tie(what, fate, row.oid, row.schema or "", row.name or "", way_out if fate is Fate.REFUSES else "")
        tied[row.root] = (*tied.get(row.root, ()), tie)
    return tied


def check_ties(
    connection: psycopg.Connection[Any],
    table: Relation,
    oid: int,
    tied: Iterable[Tie],
    reading: Callable[[], AbstractContextManager[None]],
) -> None:
    """Raises `ObjectsTied` where DROP TABLE would take along what others may use, and psycopg's errors. An identity
    column is read in the context ``reading``.
    """
    if error := refusing(table, tied):
        raise error
    for tie in (each for each in tied if each.fate is Fate.GOES and each.name):
        with reading():
            used = _is_used_elsewhere(connection, oid, ddl.relation(table), tie)
        if used:
            raise used_elsewhere(table, tie)


def _is_used_elsewhere(connection: psycopg.Connection[Any], oid: int, table: Identifier, tie: Tie) -> bool:
    """Whether the identity sequence has given a value beyond all that its column holds, which is read."""
    for row in run(connection, SQL(LAST_VALUE).format(sequence=tie.oid, table=oid))[0]:
        if row.last is not None:
            beyond = SQL("> max" if row.ascending else "< min")
            query = SQL("SELECT coalesce({} {}({}), true) FROM ONLY {}")
            ((used,),) = run(connection, query.format(row.last, beyond, Identifier(row.column), table))[0]
            if used:
                return True
    return False


# Rows that refer to a partition by a foreign key.

COUNT_LIMIT = 100_000  # rows of one table that are counted at most
MOST = 50
"""Counts at most, each of one foreign key and one partition; the attempt to detach finds the rest."""

KEYS = """
SELECT k.confrelid AS partition, n.nspname AS schema, c.relname AS name,
       ARRAY(SELECT attname::text FROM unnest(k.conkey) WITH ORDINALITY u(num, place)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY place) AS columns,
       ARRAY(SELECT attname::text FROM unnest(k.confkey) WITH ORDINALITY u(num, place)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY place) AS targets
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.conparentid <> 0 AND k.confrelid = ANY({partitions})
ORDER BY k.confrelid, n.nspname, c.relname, k.oid LIMIT {most}
"""


def count_references(connection: psycopg.Connection[Any], inventory: Inventory, plan: Plan) -> Inventory:
    """The inventory with the rows that would keep the planned detaches from being done. Raises psycopg's errors."""
    actions = [each for each in plan.due if isinstance(each, DetachPartition)]
    counted = references(connection, inventory, actions)
    return replace(inventory, references=counted) if counted else inventory


def references(
    connection: psycopg.Connection[Any], inventory: Inventory, actions: Iterable[DetachPartition]
) -> Mapping[int, tuple[Reference, ...]]:
    """By OID of the partition. What cannot be counted, for want of time or of the right to read it, is left out, unless
    the connection is lost.
    """
    by_oid = {each.oid: each for each in actions}
    if not by_oid:
        return {}
    query = SQL(KEYS).format(partitions=SQL("{}::oid[]").format(list(by_oid)), most=MOST)
    counted: dict[int, dict[str, Reference]] = {}
    for key in read_only(connection, query, statement_timeout="1s")[0]:
        if count := _count(connection, inventory, by_oid[key.partition], key):
            table, known = f"{key.schema}.{key.name}", counted.setdefault(key.partition, {})
            # Of two keys of one table the one with more rows is named.
            if table not in known or known[table].rows < count:
                known[table] = Reference(table, count, count == COUNT_LIMIT)
    return {oid: tuple(each.values()) for oid, each in counted.items()}


def _count(connection: psycopg.Connection[Any], inventory: Inventory, action: DetachPartition, key: Any) -> int:
    """How many rows point there by the key, a row of `KEYS`, up to `COUNT_LIMIT`."""
    parent, pairs = parent_of(inventory), []
    for column, target in zip(key.columns, key.targets, strict=True):
        pairs.append(SQL("f.{} = p.{}").format(Identifier(column), Identifier(target)))
        # The key of the partitioning is among the columns, as it is in every unique key: so an index may help.
        if target == parent.key[0].column:
            pairs.append(ddl.in_range(Identifier("f", column), action.bounds))
    source = SQL("{} f WHERE EXISTS (SELECT FROM ONLY {} p WHERE {})").format(
        ddl.relation(key), ddl.relation(action), SQL(" AND ").join(pairs)
    )
    query = ddl.count(source, COUNT_LIMIT)
    try:
        *_, ((count,),) = read_only(connection, *reading(parent), query, statement_timeout="1s")
    except psycopg.Error:
        if connection.closed:
            raise
        return 0
    return int(count)
