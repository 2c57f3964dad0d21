"""Make a table that was loaded from an archive a partition again, for its old bounds.

The parent is touched twice, briefly: at first its definition is read, and at the end, when the rows are loaded and
proven, the table is attached. Between the two, which may be hours, no lock on the parent is held, and no session waits
for a restore. Nothing but the table itself is made, so nothing can be left on a connection that a pooler hands on.

`check` asks before anything is loaded what ATTACH asks again at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import psycopg
from psycopg import errors as pg
from psycopg import sql

from ..api.policy import TableSpec
from ..errors import (
    AnotherOperator,
    CannotAttach,
    InsufficientPrivilege,
    NotOwner,
    StatementRejected,
    TableNotFound,
)
from ..planner import marker
from ..planner.calendar import Range
from ..planner.findings import called, quoted, way_out
from ..planner.inventory import Inventory, Parent, Strategy
from ..planner.marker import Marker, Phase
from ..postgres import catalog, ddl
from ..postgres.connection import Session, pinned, run
from ..postgres.create import NEW_ACLS, grants
from ..postgres.errors import message
from ..postgres.locks import retry_locks, wants_of_attach
from ..postgres.settings import TEXT_SETTINGS, setting
from ..postgres.transaction import BY_NAME, LOCK_TIMEOUT, LOCK_TIMEOUT_HEAVY, advisory, parent_of
from . import table_schema
from .manifest import ArchiveManifest, Column, Say
from .restored_table import Loader, Source, is_about_rows
from .table_lookup import describe, moments
from .table_schema import TableColumn, Types

CHECK = "partwarden_bounds"
"""Of the loaded table, until it is attached; with more behind it where the parent has a constraint of that name."""
LIMIT_DEFAULT, LIMIT_JOINED = "3s", "60s"
"""How long ATTACH may take where others wait for it: for DEFAULT, or for tables that foreign keys join."""
UNFIT = (pg.CheckViolation, pg.ForeignKeyViolation, pg.InvalidObjectDefinition, pg.DatatypeMismatch)
"""Rows in DEFAULT or outside the bounds, rows that refer to none, an overlap, another shape of table."""
SET_TIMEOUTS = "SELECT set_config('lock_timeout', {}, true), set_config('statement_timeout', {}, true)"
NOW_AND_OID = "SELECT clock_timestamp(), {}::regclass::oid::int8"
CREATES = "SELECT has_schema_privilege({owner}, {schema}, 'CREATE')"
AS_OWN = "leave out --attach to load it as a table of its own"

# ATTACH makes foreign keys itself, and says of rows that refer to none neither which nor how many they are.
REFERENCES = """
SELECT k.conname AS name, string_agg(format('%I', a.attname), ', ' ORDER BY u.place) AS columns,
       format('%s AND NOT EXISTS (SELECT FROM %s r WHERE %s)',
              string_agg(format('t.%I IS NOT NULL', a.attname), ' AND ' ORDER BY u.place), k.confrelid::regclass,
              string_agg(format('r.%I = t.%I', b.attname, a.attname), ' AND ' ORDER BY u.place)) AS broken
FROM pg_constraint k, unnest(k.conkey, k.confkey) WITH ORDINALITY u(own, other, place)
JOIN pg_attribute a ON a.attnum = u.own JOIN pg_attribute b ON b.attnum = u.other
WHERE k.conrelid = {parent} AND k.contype = 'f' AND a.attrelid = k.conrelid AND b.attrelid = k.confrelid
GROUP BY k.oid, k.conname, k.confrelid ORDER BY k.conname
"""


@dataclass(frozen=True, slots=True)
class Parentage:
    """The parent as it is now: its inventory, its ``columns`` in order, and what else a partition needs."""

    inventory: Inventory
    columns: tuple[Column, ...]
    definition: table_schema.ParentDefinition

    @property
    def parent(self) -> Parent:
        return parent_of(self.inventory)

    @property
    def check(self) -> str:
        """The name of the CHECK by which the loaded table is held to its bounds."""
        taken, name = {rule.name for rule in self.definition.rules}, CHECK
        while name in taken:
            name += "_"
        return name


def check(
    connection: Session, manifest: ArchiveManifest, parent_schema: str, parent_name: str, schema: str, name: str
) -> Parentage:
    """Read the parent, which the table ``schema.name`` is to be a partition of. Raises `TableNotFound`, `CannotAttach`,
    `NotOwner`, `InsufficientPrivilege`, or psycopg's errors."""
    if manifest.bounds is None or manifest.key is None:
        raise CannotAttach("the archive does not say which bounds its table had: leave out --attach")
    codec, held = moments(manifest.key_type, manifest.bounds)
    fields = {
        "table": {"schema": parent_schema, "name": parent_name},
        **({"keyEncoding": codec.encoding} if codec else {}),
    }
    inventory = catalog.observe(connection, TableSpec.model_validate(fields))
    if inventory.parent is None:
        raise TableNotFound(
            f"table {parent_schema}.{parent_name} does not exist: name another with --parent, or leave out --attach"
            f"{inventory.similar}"
        )
    parent, key = inventory.parent, (manifest.key, manifest.key_type)
    _check_parent(inventory, parent, key, held)
    with connection.transaction():
        run(connection, pinned("2s", "30s"), setting(TEXT_SETTINGS))
        ((creates,),) = run(connection, sql.SQL(CREATES).format(owner=parent.owner, schema=schema))[0]
        if parent.borrowed and not creates:
            grant = f"GRANT CREATE ON SCHEMA {quoted(schema)} TO {quoted(parent.owner)}"
            raise InsufficientPrivilege(
                f"cannot attach {schema}.{name} to {parent}: its owner {parent.owner!r}, as whom all is done, may not "
                f"create tables in schema {schema!r}; {grant}, or leave out --attach"
            )
        columns = describe(connection, parent.oid).columns
        definition = table_schema.read_definition(connection, parent.oid, schema, name)
        _check_columns(parent, columns, manifest.columns, Types(connection, manifest.types))
    return Parentage(catalog.complete(connection, inventory, []), columns, definition)


def _check_parent(inventory: Inventory, parent: Parent, key: tuple[str, str], held: Range | None) -> None:
    """Whether its key is that of the archive, the login may attach to it, and nothing holds a part of the range."""
    if parent.strategy is not Strategy.RANGE or [(part.column, part.type) for part in parent.key] != [key]:
        raise CannotAttach(f"{parent} is not partitioned by RANGE of {key[0]!r} of type {key[1]}, as it was: {AS_OWN}")
    if not parent.may_own:
        server = inventory.server
        raise NotOwner(
            f"role {called(server)} is not an owner of {parent}: connect as {parent.owner!r}, or "
            f"{way_out(server, parent)}"
        )
    for partition in inventory.partitions:
        if held is not None and partition.range is not None and partition.range.overlaps(held):
            raise CannotAttach(
                f"partition {partition} {partition.bounds} of {parent} holds what the archive held: {AS_OWN}"
            )


def _check_columns(parent: Parent, present: Iterable[Column], archived: Iterable[Column], types: Types) -> None:
    """What the parent has and the archive has not gets its default; what it has no more would be lost."""
    by_name = {column.name: column for column in present}
    for column in archived:
        there = by_name.get(column.name)
        if there is None or not _takes(there, column, types):
            difference = "has no such column" if there is None else f"has it as {_words(there)}"
            raise CannotAttach(
                f"column {column.name!r} of the archive is {_words(column)}, but {parent} {difference}: {AS_OWN}"
            )


def _takes(there: Column, archived: Column, types: Types) -> bool:
    """Whether the parent's column is of the type, wherever that is now, and computed where the archived one was. Values
    that were computed and stored may become values like any other."""
    # Of the type alone: whether its values fit another length or precision is found out by loading them.
    type_ = types.find(archived.model_copy(update={"typmod": -1}))
    same = there.type == archived.type or (type_ is not None and type_.as_string() == there.type)
    return same and (there.generated == archived.generated or (archived.generated == "s" and not there.generated))


def _words(column: Column) -> str:
    return f"{column.type}, generated" if column.generated else column.type


def loader(source: Source, types: Types, parentage: Parentage, schema: str, name: str, say: Say) -> Loader:
    """Load into a table with the columns that the parent has now, held to the bounds."""
    bounds, (key,) = source.manifest.bounds, parentage.parent.key
    assert bounds is not None
    held = table_schema.hold_to_bounds(sql.Identifier(schema, name), parentage.check, key, bounds)
    wanted = tuple(_column(each, types, parentage.parent) for each in parentage.columns)
    before: list[sql.SQL | sql.Composed] = [*parentage.definition.before, held]
    return Loader(source, types, schema, name, wanted, say, before, parentage.inventory.template)


def _column(column: Column, types: Types, parent: Parent) -> TableColumn:
    """As the parent has it: its text is the server's own. Raises `CannotAttach` where its owner may not use it."""
    try:
        type_ = types.sql(column)
    except StatementRejected as error:
        raise CannotAttach(
            f"cannot attach to {parent}: column {column.name!r}: {error}; grant its owner {parent.owner!r} USAGE on "
            f"that schema, or {AS_OWN}"
        ) from None
    expression = sql.SQL(column.expression) if column.generated else None
    collation = sql.SQL(column.collation) if column.collation else None
    return TableColumn(column.name, type_, collation, expression, column.generated or "s")


def misfit(loaded: Loader, parentage: Parentage, error: Exception) -> CannotAttach:
    """Why the parent's form refuses the rows: the columns, and how many rows."""
    words = message(error) if isinstance(error, psycopg.Error) else str(error)
    columns = [f"column {name!r}: {why}" for name, why in loaded.examine().items()]
    return _refused(loaded, parentage, columns or [words])


def _refused(loaded: Loader, parentage: Parentage, reasons: Iterable[str]) -> CannotAttach:
    return CannotAttach(
        f"cannot attach table {loaded.schema}.{loaded.name}: {parentage.parent} refuses its rows: "
        f"{'; '.join(reasons)}; {AS_OWN}"
    )


def complete(connection: Session, loaded: Loader, parentage: Parentage) -> None:
    """Add the constraints and indexes that a partition of the parent has. Raises `CannotAttach` for the rows."""
    broken = []
    for rule in parentage.definition.rules:
        try:
            with connection.transaction():
                run(connection, rule.statement)
        except psycopg.Error as error:
            if not is_about_rows(error):
                raise
            words = f"{rule.name!r}: {message(error)}"
            if rule.broken is not None and isinstance(error, pg.IntegrityError):
                words += f", in {loaded.count(rule.broken):,} rows"
            broken.append(words)
    if broken:
        raise _refused(loaded, parentage, broken)
    for statement in parentage.definition.after:
        run(connection, statement)


class NewTable(NamedTuple):
    """The table that was loaded, as `ddl` and `template` take it."""

    schema: str
    name: str


def join(
    connection: Session, parentage: Parentage, manifest: ArchiveManifest, schema: str, name: str, deadline: float
) -> None:
    """Attach the loaded table, marked so that retention leaves it alone, in the caller's transaction. Locks are waited
    for until ``deadline``, a moment of `time.monotonic`; one attempt is made in any case. Raises `TableBusy`,
    `AnotherOperator`, `CannotAttach`, or psycopg's errors: then the transaction is to be undone."""
    subject, inventory = f"cannot attach table {schema}.{name}", parentage.inventory
    others = wants_of_attach(connection, inventory)
    timeouts = sql.SQL(SET_TIMEOUTS).format(
        f"{LOCK_TIMEOUT_HEAVY if len(others) > 1 else LOCK_TIMEOUT}ms",
        LIMIT_DEFAULT if inventory.default else LIMIT_JOINED if len(others) > 1 else "0",
    )

    def attempt() -> None:
        try:
            with connection.transaction():
                _attempt(connection, parentage, manifest, NewTable(schema, name), timeouts)
        except pg.QueryCanceled:
            raise CannotAttach(
                f"{subject}: PostgreSQL must read DEFAULT, or tables that foreign keys join, while others wait, and "
                "gave up; with a CHECK on DEFAULT that excludes the bounds it need not read that one"
            ) from None
        except UNFIT as error:
            orphans = _orphans(connection, parentage, NewTable(schema, name), error)
            raise CannotAttach(f"{subject}: {message(error)}{orphans}; {AS_OWN}") from None

    # Whatever fails in an attempt is undone by its own savepoint.
    retry_locks(
        connection,
        attempt,
        lambda: others,
        subject,
        deadline,
        longest=math.inf,
        rollback=lambda it: None,
    )


def _orphans(connection: Session, parentage: Parentage, new: NewTable, error: psycopg.Error) -> str:
    """For a message: how many rows refer to none by the foreign key that ATTACH has named, where that can be counted.
    Raises psycopg's errors where the connection is lost."""
    if not isinstance(error, pg.ForeignKeyViolation):
        return ""
    try:
        with connection.transaction():
            keys = run(connection, sql.SQL(REFERENCES).format(parent=parentage.parent.oid))[0]
            for key in (each for each in keys if each.name == error.diag.constraint_name):
                count = sql.SQL("SELECT count(*) FROM ONLY {} t WHERE {}").format(
                    ddl.relation(new), sql.SQL(key.broken)
                )
                (((rows,),),) = run(connection, count)
                return f", in {rows:,} rows, by column {key.columns}"
    except psycopg.Error:
        # The owner of the table may have no right to read the other.
        if connection.closed:
            raise
    return ""


def _attempt(
    connection: Session, parentage: Parentage, manifest: ArchiveManifest, new: NewTable, timeouts: sql.Composed
) -> None:
    """Safe for the rows: ATTACH itself checks each against the bounds, and that nothing overlaps. Nothing is taken away
    but the CHECK, which says what the bounds say from then on."""
    inventory, parent, table = parentage.inventory, parentage.parent, ddl.relation(new)
    assert manifest.bounds is not None
    named = sql.SQL(BY_NAME).format(parent.schema, parent.name)
    _, ((mine,),), found = run(connection, timeouts, advisory(parent.oid), named)
    if not mine:
        raise AnotherOperator(f"table {parent} is being worked on by an operator: its advisory lock is taken")
    if [oid for oid, *_ in found] != [parent.oid]:
        raise CannotAttach(f"table {parent} was dropped, renamed or made anew meanwhile")
    *_, acls, ((now, oid),) = run(
        connection,
        *([ddl.set_owner(parent, new)] if inventory.server.user != parent.owner else []),
        sql.SQL(NEW_ACLS).format(new.schema, [new.name]),
        sql.SQL(NOW_AND_OID).format(sql.Literal(table.as_string())),
    )
    _, held = moments(manifest.key_type, manifest.bounds)
    marked = held.bounded if held is not None else None
    mark = Marker(oid, parent.oid, str(parent), marked, Phase.RESTORED, now) if marked is not None else None
    ((_, secured, forced),) = found
    run(
        connection,
        *ddl.set_grants(parent, new, grants(acls)),
        *ddl.set_row_security(new, secured, forced),
        *ddl.before_attach(inventory.template, new),
        table_schema.comment(table, marker.write(note(manifest), mark)),
        table_schema.attach(sql.Identifier(parent.schema, parent.name), table, manifest.bounds),
        sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, sql.Identifier(parentage.check)),
        *ddl.after_attach(inventory.template, new),
    )


def note(manifest: ArchiveManifest) -> str:
    """What stands in the comment of a restored table."""
    return f"restored from archive {manifest.id} of {manifest.partition}"
