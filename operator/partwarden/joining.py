"""Makes a table that was loaded from an archive a partition again, for its old bounds.

The parent is touched twice, briefly: at first its definition is copied into a template that only this session sees, and
at the end, when the rows are loaded and proven, the table is attached. Between the two, which may be hours, no lock on
the parent is held: nobody waits for a restore.
"""

from __future__ import annotations

import time
from dataclasses import replace

import psycopg
from psycopg import errors as pg
from psycopg import sql

from . import ddl, likeness, marker, remaking
from .actions import CreatePartition
from .blockers import Mode, Want, joined
from .creating import NEW_ACLS
from .errors import AnotherOperator, CannotAttach, TableBusy
from .fitting import range_of
from .interval import Range
from .inventory import Grant, Inventory
from .keys import Bounds
from .marker import Marker, Phase
from .patience import clear_way
from .record import ArchiveManifest
from .session import Session, pinned, run
from .sqlstate import message
from .transaction import BY_NAME, LOCK_TIMEOUT, LOCK_TIMEOUT_HEAVY, advisory

TEMPLATE = "partwarden_template"
CHECK = "partwarden_bounds"
"""Of the loaded table, until it is attached."""
PAUSE = 0.2
LIMIT_DEFAULT, LIMIT_JOINED = "3s", "60s"
"""How long ATTACH may take where others wait for it: for DEFAULT, or for tables that foreign keys join."""
UNFIT = (pg.CheckViolation, pg.ForeignKeyViolation, pg.InvalidObjectDefinition, pg.DatatypeMismatch)
"""Rows in DEFAULT or outside the bounds, rows that refer to none, an overlap, another shape of table."""
EXCLUDES = "SELECT EXISTS (SELECT FROM pg_index WHERE indrelid = {} AND indisexclusion)"
SET_TIMEOUTS = "SELECT set_config('lock_timeout', {}, true), set_config('statement_timeout', {}, true)"
NOW_AND_OID = "SELECT clock_timestamp(), {}::regclass::oid::int8"


def template(connection: Session, inventory: Inventory) -> None:
    """Copy the parent's definition, with a lock on it for a moment. Ends with the session."""
    parent = inventory.parent
    assert parent is not None
    with connection.transaction():
        _, ((excludes,),) = run(connection, pinned("2s", "30s"), sql.SQL(EXCLUDES).format(parent.oid))
        action = _action(inventory, "pg_temp", TEMPLATE)
        # ATTACH would make the index of an EXCLUDE constraint a second time.
        plain = replace(inventory.likeness, tablespace=None, access_method=None, options=())
        run(connection, ddl.create_table(parent, action, plain, indexes=not excludes))


def make(connection: Session, inventory: Inventory, manifest: ArchiveManifest, schema: str, name: str) -> None:
    """An empty table as the template is, held to the bounds, in the caller's transaction. Raises psycopg's errors."""
    parent = inventory.parent
    assert parent is not None
    source = replace(parent, schema="pg_temp", name=TEMPLATE)
    action = _action(inventory, schema, name)
    table = sql.Identifier(schema, name)
    create = ddl.create_table(source, action, inventory.likeness, indexes=True)
    run(connection, create, remaking.hold_to_bounds(table, CHECK, manifest))


def _action(inventory: Inventory, schema: str, name: str) -> CreatePartition:
    """What `ddl` and `likeness` want to be told of a new partition."""
    return CreatePartition(schema=schema, name=name, range=Range(None, None), bounds=Bounds("", ""), reason="", lock="")


def join(
    connection: Session, inventory: Inventory, manifest: ArchiveManifest, schema: str, name: str, deadline: float
) -> None:
    """Attach the loaded table, marked so that retention leaves it alone, in the caller's transaction.

    Locks are waited for until ``deadline``, a moment of `time.monotonic`; one attempt is made in any case. Raises
    `TableBusy`, `AnotherOperator`, `CannotAttach`, or psycopg's errors: then the transaction is to be undone.
    """
    parent, subject = inventory.parent, f"table {schema}.{name} is not attached"
    assert parent is not None
    default = [Want(each.oid, Mode.ACCESS_EXCLUSIVE) for each in inventory.partitions if each.range is None]
    keys = joined(connection, parent.oid, Mode.SHARE_ROW_EXCLUSIVE)
    wants = (Want(parent.oid, Mode.SHARE_UPDATE_EXCLUSIVE), *default, *keys)
    timeouts = sql.SQL(SET_TIMEOUTS).format(
        f"{LOCK_TIMEOUT_HEAVY if default or keys else LOCK_TIMEOUT}ms",
        LIMIT_DEFAULT if default else LIMIT_JOINED if keys else "0",
    )
    while True:
        run(connection, "SAVEPOINT joining")
        try:
            clear_way(connection, wants, subject, deadline=deadline)
            _attempt(connection, inventory, manifest, _action(inventory, schema, name), timeouts)
            return
        except (TableBusy, AnotherOperator) as error:
            late: Exception = error
        except (pg.LockNotAvailable, pg.DeadlockDetected):
            late = TableBusy(f"{subject}: a lock that it needs was not to be had in time")
        except (pg.QueryCanceled, *UNFIT) as error:
            raise _unfit(error, subject) from None
        run(connection, "ROLLBACK TO SAVEPOINT joining")
        if time.monotonic() + PAUSE >= deadline:
            raise late from None
        time.sleep(PAUSE)


def _unfit(error: psycopg.Error, subject: str) -> CannotAttach:
    if isinstance(error, pg.QueryCanceled):
        return CannotAttach(
            f"{subject}: PostgreSQL must read DEFAULT, or tables that foreign keys join, while others wait, and gave "
            "up; with a CHECK on DEFAULT that excludes the bounds it need not read that one"
        )
    return CannotAttach(f"{subject}: {message(error)}; leave out --attach to load it as a table of its own")


def _attempt(
    connection: Session,
    inventory: Inventory,
    manifest: ArchiveManifest,
    action: CreatePartition,
    timeouts: sql.Composed,
) -> None:
    """Safe for the rows: ATTACH itself checks each against the bounds, and that nothing overlaps. Nothing is taken away
    but the CHECK, which says what the bounds say from then on."""
    parent = inventory.parent
    assert parent is not None
    assert manifest.bounds is not None
    table = ddl.relation(action)
    _, ((mine,),), found = run(
        connection, timeouts, advisory(parent), sql.SQL(BY_NAME).format(parent.schema, parent.name)
    )
    if not mine:
        raise AnotherOperator(f"table {parent} is being worked on by an operator: its advisory lock is taken")
    if [oid for oid, *_ in found] != [parent.oid]:
        raise CannotAttach(f"table {parent} was dropped, renamed or made anew meanwhile")
    owner = [ddl.set_owner(parent, action)] if inventory.server.user != parent.owner else []
    *_, acls, ((now, oid),) = run(
        connection,
        *owner,
        sql.SQL(NEW_ACLS).format(action.schema, [action.name]),
        sql.SQL(NOW_AND_OID).format(sql.Literal(table.as_string())),
    )
    held = range_of(manifest)
    mark = Marker(oid, parent.oid, str(parent), held, Phase.RESTORED, now) if held is not None else None
    ((_, secured, forced),) = found
    run(
        connection,
        *ddl.set_grants(parent, action, [Grant(*each[1:]) for each in acls]),
        *ddl.set_row_security(action, secured, forced),
        *likeness.before_attach(inventory.likeness, action),
        remaking.comment(table, marker.write(note(manifest), mark)),
        remaking.attach(sql.Identifier(parent.schema, parent.name), table, manifest.bounds),
        remaking.drop_constraint(table, CHECK),
        *likeness.after_attach(inventory.likeness, action),
    )


def note(manifest: ArchiveManifest) -> str:
    """What stands in the comment of a restored table."""
    return f"restored from archive {manifest.id} of {manifest.partition}"
