"""What a split makes beside the new partition: a CHECK, the function in it, and an index for the key. See
`conversion_split`. A partition that grows has a CHECK and a function of its own.

CHECK and function stay until the last interval has left; where a split was interrupted all stay, and the next one goes
on with them. Before the table is detached or made plain again, and there will be none, they are taken away: the
function would outlast its table. What a user calls so stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier

from ..planner.actions import DetachPartition
from ..planner.findings import quoted
from ..planner.inventory import Inventory, Parent, Relation
from . import ddl, locks, transaction
from .connection import Session, run
from .conversion_definition import rows_of, statements
from .conversion_obstacles import require
from .locks import Mode, Want

NAME = "partwarden_split"
"""Of CHECK, function and index, with the OID of the table after it."""

# The CHECK of that name calls the function of that name, which returns a constant.
CALLS = """
EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
          AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = to_regprocedure({function}))"""
CONSTANT = "p.oid = to_regprocedure({function}) AND p.prosrc ~ '^SELECT ''[^'']*''::[a-z_. ]+$'"
OURS = """
NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = {oid} AND k.conname = {name} AND NOT {calls})
AND NOT EXISTS (SELECT FROM pg_proc p WHERE p.oid = to_regprocedure({function}) AND NOT ({constant}))
"""
# The index is of no constraint: then it is the primary key, and has another name.
LEFT = """
SELECT l.statement
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, LATERAL (
  SELECT 1 AS place, format('ALTER TABLE %I.%I DROP CONSTRAINT %I', n.nspname, c.relname, k.conname) AS statement
  FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c' AND k.conname = {name} AND {calls}
  UNION ALL
  SELECT 2, format('DROP FUNCTION %I.%I()', n.nspname, p.proname) FROM pg_proc p
  WHERE {constant} AND pg_has_role(p.proowner, 'USAGE')
  UNION ALL
  SELECT 3, format('DROP INDEX %I.%I', n.nspname, o.relname)
  FROM pg_index x JOIN pg_class o ON o.oid = x.indexrelid
  WHERE x.indrelid = c.oid AND o.relname = {name}
    AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = o.oid)
    AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = o.oid)) l
WHERE c.oid = {oid} ORDER BY l.place
"""
HOLDING = """
SELECT conrelid::int8 AS oid FROM pg_constraint
WHERE conrelid = ANY ({oids}::oid[]) AND contype = 'c' AND conname = {name} || '_' || conrelid
"""


def name_of(oid: int) -> str:
    """That of CHECK, function and index of the table with that OID."""
    return f"{NAME}_{oid}"


def function_of(legacy: Relation) -> Identifier:
    """The name of the function in the CHECK."""
    return Identifier(legacy.schema, name_of(legacy.oid))


def words(legacy: Relation) -> str:
    """Why nothing can be done where `ours` is not true."""
    name = name_of(legacy.oid)
    return (
        f"{name} of {legacy} is not of a split, or its function is in another schema: rename it, or ALTER FUNCTION … "
        f"SET SCHEMA {quoted(legacy.schema)}"
    )


def ours(legacy: Relation) -> Composed:
    """The condition that what bears the names of CHECK and function is of a split, or not there."""
    return SQL(OURS).format(**_named(legacy))


def forget(legacy: Relation) -> Iterator[Composable]:
    """What takes the CHECK away, and the function. Safe: it says nothing that the bounds do not say, and what has the
    name and is none of a split fails before."""
    yield require(ours(legacy), words(legacy))
    check = Identifier(name_of(legacy.oid))
    yield SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}").format(ddl.relation(legacy), check)
    yield SQL("DROP FUNCTION IF EXISTS {}()").format(function_of(legacy))


def left_of(connection: psycopg.Connection[Any], legacy: Relation) -> list[SQL]:
    """What takes all of it away that the table has now; to be run as its owner. Raises psycopg's errors.

    Safe: the CHECK says nothing that the bounds do not say, the index is weaker than the key that is there, and neither
    holds a row. Never CASCADE.
    """
    return statements(connection, LEFT, **_named(legacy))


def undo(connection: psycopg.Connection[Any], legacy: Relation, others: Sequence[Relation]) -> list[Composable]:
    """The same, for the way back: what has such a name and is none of a split fails before. ``others``: the partitions
    that go, one of which may have a part of an interval."""
    (rows,) = rows_of(connection, HOLDING, oids=[each.oid for each in others], name=NAME)
    growing = {each.oid for each in rows}
    growth = [each for other in others if other.oid in growing for each in left_of(connection, other)]
    return [require(ours(legacy), words(legacy)), *left_of(connection, legacy), *growth]


def take_away(connection: Session, inventory: Inventory, action: DetachPartition, deadline: float) -> None:
    """Take all of it off a partition that is about to be detached; ``deadline``: as for `locks.retry_locks`. With the
    table that was converted, also off the partition that has a part of an interval: no part follows.

    It may be done again at any time, and does nothing where nothing is left. Raises as `locks.retry_locks`.
    """
    converted = {each.oid for each in inventory.partitions if each.converted}
    # Also where the user has dropped the other.
    about = [each for each in inventory.partitions if each.oid == action.oid or action.oid in converted]
    asked = SQL(HOLDING).format(oids=[each.oid for each in about], name=NAME)
    growing = {each.oid for each in transaction.read_only(connection, asked)[0]}
    for each in about:
        ask = each.oid == action.oid and each.oid in converted
        left = transaction.read_only(connection, SQL(LEFT).format(**_named(each)))[0] if ask else []
        if left or each.oid in growing:
            _take_away(
                connection, transaction.parent_of(inventory), each, f"cannot detach partition {action}", deadline
            )


def _take_away(connection: Session, parent: Parent, table: Relation, subject: str, deadline: float) -> None:
    def attempt() -> None:
        with transaction.changing(connection, parent, "10s"):
            heavy = transaction.set_lock_timeout(transaction.LOCK_TIMEOUT_HEAVY)
            run(connection, heavy, ddl.lock(table, "ACCESS EXCLUSIVE"), *left_of(connection, table), "COMMIT")

    wants = [Want(table.oid, Mode.ACCESS_EXCLUSIVE)]
    locks.retry_locks(connection, attempt, lambda: wants, subject, deadline)


def _named(legacy: Relation) -> dict[str, Any]:
    function = f"{function_of(legacy).as_string()}()"
    parts = {name: SQL(each).format(function=function) for name, each in {"calls": CALLS, "constant": CONSTANT}.items()}
    return {"oid": legacy.oid, "name": name_of(legacy.oid), "function": function, **parts}
