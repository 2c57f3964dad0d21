"""Renews the statistics of a partitioned table, which autovacuum leaves as they are."""

from __future__ import annotations

import psycopg
from psycopg import errors as pg
from psycopg import sql

from . import ddl
from .actions import AnalyzeParent
from .blockers import Mode, Want, blockers
from .elders import PINNED
from .errors import PartwardenError, StatementFailed, TableBusy
from .inventory import Inventory
from .outside import OutOfTime, run_outside
from .session import Session, run
from .sqlstate import translate
from .transaction import BY_NAME, LOCK_TIMEOUT, check_same

LIMIT = 300.0
"""Seconds. Samples are small, but up to version 17 every partition is sampled for itself as well."""
ONLY_VERSION = 180000


def analyze(connection: Session, inventory: Inventory, _key: str, action: AnalyzeParent, _deadline: float) -> None:
    """ANALYZE of the parent, from 18 on of nothing but the parent: its rows are sampled through its partitions.

    Outside a transaction, so that the lock on a partition ends with that partition. Nobody is waited for: raises
    `TableBusy` at once, `StatementFailed` after `LIMIT`, `TableChanged`, and as `sqlstate`.
    """
    parent = inventory.parent
    assert parent is not None
    only = sql.SQL("ONLY " if inventory.server.version >= ONLY_VERSION else "")
    try:
        check_same(parent, run(connection, PINNED, sql.SQL(BY_NAME).format(parent.schema, parent.name))[1])
        statement = sql.SQL("ANALYZE {}{}").format(only, ddl.relation(action))
        run_outside(connection, statement, lock_timeout=LOCK_TIMEOUT, limit=LIMIT)
    except OutOfTime:
        raise StatementFailed(f"table {action} was not analyzed: it did not end within {LIMIT:.0f} seconds") from None
    except (pg.LockNotAvailable, pg.DeadlockDetected):
        raise _busy(connection, inventory, action) from None
    except psycopg.Error as error:
        raise translate(error, f"table {action}") from None


def _busy(connection: Session, inventory: Inventory, action: AnalyzeParent) -> PartwardenError:
    assert inventory.parent is not None
    relations = [inventory.parent.oid, *(each.oid for each in inventory.partitions)]
    try:
        wants = [Want(each, Mode.SHARE_UPDATE_EXCLUSIVE) for each in relations]
        found = blockers(connection, wants, inventory.parent.oid)
    except psycopg.Error as lost:
        return translate(lost, f"table {action}")
    who = found[0].text if found else "whoever held it has gone meanwhile"
    return TableBusy(f"table {action} was not analyzed: a lock on it was not to be had in time; {who}")
