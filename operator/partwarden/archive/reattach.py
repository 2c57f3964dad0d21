"""Makes a table that was loaded from an archive a partition again, for its old bounds.

The parent is touched twice, briefly: at first its definition is read, and at the end, when the rows are loaded and
proven, the table is attached. Between the two, which may be hours, no lock on the parent is held, and no session waits
for a restore. Nothing but the table itself is made, so nothing can be left on a connection that a pooler hands on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import psycopg
from psycopg import errors as pg
from psycopg import sql

from ..errors import AnotherOperator, CannotAttach
from ..planner import marker
from ..planner.actions import CreatePartition
from ..planner.calendar import Range
from ..planner.inventory import Inventory
from ..planner.keys import Bounds
from ..planner.marker import Marker, Phase
from ..postgres import ddl, template
from ..postgres.connection import Session, run
from ..postgres.create import NEW_ACLS, grants
from ..postgres.errors import message
from ..postgres.locks import retry_locks, wants_of_attach
from ..postgres.transaction import BY_NAME, LOCK_TIMEOUT, LOCK_TIMEOUT_HEAVY, advisory, parent_of
from . import table_schema
from .manifest import ArchiveManifest, Column
from .parent_definition import AS_OWN, Parentage, Rule, range_of
from .restored_table import Loader, Say, Source, is_about_rows
from .table_schema import TableColumn
from .user_types import Types

CHECK = "partwarden_bounds"
"""Of the loaded table, until it is attached."""
LIMIT_DEFAULT, LIMIT_JOINED = "3s", "60s"
"""How long ATTACH may take where others wait for it: for DEFAULT, or for tables that foreign keys join."""
UNFIT = (pg.CheckViolation, pg.ForeignKeyViolation, pg.InvalidObjectDefinition, pg.DatatypeMismatch)
"""Rows in DEFAULT or outside the bounds, rows that refer to none, an overlap, another shape of table."""
SET_TIMEOUTS = "SELECT set_config('lock_timeout', {}, true), set_config('statement_timeout', {}, true)"
NOW_AND_OID = "SELECT clock_timestamp(), {}::regclass::oid::int8"


def loader(
    connection: Session, source: Source, types: Types, parentage: Parentage, schema: str, name: str, say: Say
) -> Loader:
    """Load into a table with the columns that the parent has now, held to the bounds."""
    table = sql.Identifier(schema, name)

    def dress(as_wanted: bool) -> Iterable[sql.SQL | sql.Composed]:
        if as_wanted:
            yield from parentage.definition.before
            yield table_schema.hold_to_bounds(table, CHECK, *parentage.key, parentage.bounds)

    wanted = tuple(_column(each, types) for each in parentage.columns)
    like = parentage.inventory.template
    return Loader(connection, source, types, schema, name, wanted, dress, say, source.manifest.unlogged, like)


def _column(column: Column, types: Types) -> TableColumn:
    """As the parent has it: its text is the server's own."""
    expression = sql.SQL(column.expression) if column.generated else None
    collation = sql.SQL(column.collation) if column.collation else None
    return TableColumn(column.name, types.sql(column), collation, expression, column.generated or "s")


def misfit(loaded: Loader, parentage: Parentage, error: Exception) -> Exception:
    """Why the parent's form refuses the rows: the columns, and how many rows."""
    words = message(error) if isinstance(error, psycopg.Error) else str(error)
    plain = loaded.load_plain()
    found = [f"column {name!r}: {why}" for name, why in loaded.examine(plain).items()]
    return CannotAttach(
        f"table {loaded.schema}.{loaded.name} is not attached, for {parentage.parent} refuses its rows: "
        f"{'; '.join(found) or words}; {AS_OWN}"
    )


def complete(connection: Session, loaded: Loader, parentage: Parentage) -> None:
    """Add the constraints and indexes that a partition of the parent has. Raises `CannotAttach` for the rows."""
    definition, broken = parentage.definition, []
    for rule in (*definition.not_null, *definition.checks, *definition.indexes):
        run(connection, "SAVEPOINT completing")
        try:
            run(connection, rule.statement)
            run(connection, "RELEASE SAVEPOINT completing")
        except psycopg.Error as error:
            if not is_about_rows(error):
                raise
            run(connection, "ROLLBACK TO SAVEPOINT completing")
            broken.append(_broken(loaded, rule, error))
    if broken:
        raise CannotAttach(
            f"table {loaded.schema}.{loaded.name} is not attached, for {parentage.parent} refuses its rows: "
            f"{'; '.join(broken)}; {AS_OWN}"
        )
    for statement in definition.after:
        run(connection, statement)


def _broken(loaded: Loader, rule: Rule, error: psycopg.Error) -> str:
    found = loaded.count(rule.broken) if rule.broken is not None and isinstance(error, pg.IntegrityError) else None
    return f"{rule.name!r}: {message(error)}" + (f", in {found:,} rows" if found is not None else "")


def _action(schema: str, name: str) -> CreatePartition:
    """A new partition, as `ddl` and `template` take it."""
    return CreatePartition(schema=schema, name=name, range=Range(None, None), bounds=Bounds("", ""), reason="", lock="")


def join(
    connection: Session, inventory: Inventory, manifest: ArchiveManifest, schema: str, name: str, deadline: float
) -> None:
    """Attach the loaded table, marked so that retention leaves it alone, in the caller's transaction.

    Locks are waited for until ``deadline``, a moment of `time.monotonic`; one attempt is made in any case. Raises
    `TableBusy`, `AnotherOperator`, `CannotAttach`, or psycopg's errors: then the transaction is to be undone.
    """
    subject = f"cannot attach table {schema}.{name}"
    others = wants_of_attach(connection, inventory)
    timeouts = sql.SQL(SET_TIMEOUTS).format(
        f"{LOCK_TIMEOUT_HEAVY if len(others) > 1 else LOCK_TIMEOUT}ms",
        LIMIT_DEFAULT if inventory.default else LIMIT_JOINED if len(others) > 1 else "0",
    )

    def attempt() -> None:
        run(connection, "SAVEPOINT joining")
        try:
            _attempt(connection, inventory, manifest, _action(schema, name), timeouts)
        except (pg.QueryCanceled, *UNFIT) as error:
            raise _unfit(error, subject) from None

    retry_locks(
        connection,
        attempt,
        lambda: others,
        subject,
        deadline,
        longest=math.inf,
        rollback=lambda it: run(it, "ROLLBACK TO SAVEPOINT joining; RELEASE SAVEPOINT joining"),
        retried=(AnotherOperator,),
    )


def _unfit(error: psycopg.Error, subject: str) -> CannotAttach:
    if isinstance(error, pg.QueryCanceled):
        return CannotAttach(
            f"{subject}: PostgreSQL must read DEFAULT, or tables that foreign keys join, while others wait, and gave "
            "up; with a CHECK on DEFAULT that excludes the bounds it need not read that one"
        )
    return CannotAttach(f"{subject}: {message(error)}; {AS_OWN}")


def _attempt(
    connection: Session,
    inventory: Inventory,
    manifest: ArchiveManifest,
    action: CreatePartition,
    timeouts: sql.Composed,
) -> None:
    """Safe for the rows: ATTACH itself checks each against the bounds, and that nothing overlaps. Nothing is taken away
    but the CHECK, which says what the bounds say from then on."""
    parent = parent_of(inventory)
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
    marked = held.bounded if held is not None else None
    mark = Marker(oid, parent.oid, str(parent), marked, Phase.RESTORED, now) if marked is not None else None
    ((_, secured, forced),) = found
    run(
        connection,
        *ddl.set_grants(parent, action, grants(acls)),
        *ddl.set_row_security(action, secured, forced),
        *template.before_attach(inventory.template, action),
        table_schema.comment(table, marker.write(note(manifest), mark)),
        table_schema.attach(sql.Identifier(parent.schema, parent.name), table, manifest.bounds),
        table_schema.drop_constraint(table, CHECK),
        *template.after_attach(inventory.template, action),
    )


def note(manifest: ArchiveManifest) -> str:
    """What stands in the comment of a restored table."""
    return f"restored from archive {manifest.id} of {manifest.partition}"
