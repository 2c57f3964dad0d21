"""Restore an archive: check it, load it into a new table, prove that table, and make it a partition if asked to.

What is restored is committed at once, at the end, when its fingerprint is that of the archive. Interrupted before that,
nothing of it is there: no table, no type, no partition.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import errors as pg
from psycopg import sql

from ..errors import InvalidSpec
from ..postgres import transaction
from ..postgres.connection import Session, pinned, run, session
from ..postgres.conninfo import ConnectionInfo
from ..postgres.errors import message
from ..postgres.settings import TEXT_SETTINGS, setting
from ..postgres.transaction import as_owner, become, set_role_right, undo
from . import reattach, restored_table, table_schema
from .manifest import ArchiveManifest, Column
from .reattach import Parentage
from .restored_table import TEXT, LeftOff, Loader, Say, Source
from .table_schema import TableColumn
from .user_types import Types, expression

OWNER = """
SELECT pg_get_userbyid(c.relowner) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND c.relname = {name} AND c.relkind = 'p' AND pg_get_userbyid(c.relowner) <> current_user
  AND pg_has_role(c.relowner, {set_role}) AND has_schema_privilege(c.relowner, {target}, 'CREATE')
  AND has_schema_privilege(c.relowner, {target}, 'USAGE')
"""
NOT_VALID_VERSION = 180000
"""From here on NOT NULL may be NOT VALID."""


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What to restore as. ``schema`` and ``name``: of the new table; None for the names that it had.

    ``attach``: to ``parent`` (schema, name), or, where that is None, to the parent that it had. ``patience``: seconds
    to wait for the parent's locks, once all is loaded.
    """

    schema: str | None = None
    name: str | None = None
    attach: bool = False
    parent: tuple[str, str] | None = None
    patience: float = 300.0


@dataclass(frozen=True, slots=True)
class Restored:
    """``attached`` is the parent; ``types`` those that were made; ``left_off`` what the rows or the database did not
    allow to be put back."""

    schema: str
    name: str
    rows: int
    attached: str | None = None
    types: tuple[str, ...] = ()
    left_off: tuple[LeftOff, ...] = ()


def restore(source: Source, info: ConnectionInfo, request: RestoreRequest, say: Say) -> Restored:
    """Restore an archive. Raises a `PartwardenError`: then nothing was changed in the database.

    First come the checks that are quick, then the archive is read and checked, and only then is anything loaded.
    """
    manifest = source.manifest
    schema, name = request.schema or manifest.partition.schema_, request.name or manifest.partition.name
    parent = _parent(manifest, request)
    subject = f"archive {manifest.id} of {manifest.partition} is not restored"
    with _session(info, subject) as connection:
        _check(connection, manifest, parent, schema, name)
    say(f"checking {manifest.bytes:,} bytes by their sha256")
    source.check()
    with _session(info, subject) as connection:
        # Hours may have passed.
        parentage = _check(connection, manifest, parent, schema, name)
        become_owner = _as_owner(connection, manifest, parentage, schema)
        try:
            run(
                connection,
                "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
                pinned("2s", "0"),
                setting(TEXT_SETTINGS),
                *become_owner,
            )
            restored = (
                _load(connection, source, schema, name, say)
                if parentage is None
                else _load_and_attach(connection, source, parentage, schema, name, request.patience, say)
            )
            run(connection, "COMMIT")
        except BaseException:
            undo(connection)
            raise
        if not transaction.confirmed(connection):
            say("committed, but no synchronous standby has confirmed it: keep the archive until one has")
    return restored


def _parent(manifest: ArchiveManifest, request: RestoreRequest) -> tuple[str, str] | None:
    if not request.attach:
        return None
    if request.parent is not None:
        return request.parent
    if manifest.parent is None:
        raise InvalidSpec("the archive does not say which table its partition belonged to: name it with --parent")
    return manifest.parent.schema_, manifest.parent.name


def _check(
    connection: Session, manifest: ArchiveManifest, parent: tuple[str, str] | None, schema: str, name: str
) -> Parentage | None:
    restored_table.check_name(connection, schema, name)
    return reattach.check(connection, manifest, *parent, schema, name) if parent is not None else None


def _as_owner(
    connection: Session, manifest: ArchiveManifest, parentage: Parentage | None, schema: str
) -> list[sql.Composable]:
    """Become the owner of the parent, whose functions expressions and domains of the table call.

    A table of its own is loaded so where there is that parent, and its owner may create tables in the schema.
    """
    if parentage is not None:
        return as_owner(parentage.parent)
    if manifest.parent is None:
        return []
    set_role = set_role_right(connection)
    names = {"schema": manifest.parent.schema_, "name": manifest.parent.name, "target": schema, "set_role": set_role}
    with connection.transaction():
        _, rows = run(connection, pinned("2s", "30s"), sql.SQL(OWNER).format(**names))
    return [become(owner) for (owner,) in rows]


def _load(connection: Session, source: Source, schema: str, name: str, say: Say) -> Restored:
    """Load it as a table of its own."""
    manifest, table = source.manifest, sql.Identifier(schema, name)
    types = Types(connection, manifest.types)
    types.make()
    absent = restored_table.absent_collations(connection, manifest)
    wanted = tuple(_wanted(column, types, absent) for column in manifest.columns)

    def dress(_as_wanted: bool) -> Iterable[sql.SQL | sql.Composed]:
        yield table_schema.comment(table, reattach.note(manifest))

    loader = Loader(connection, source, types, schema, name, wanted, dress, say, manifest.unlogged)
    made = loader.load_best()
    left_off = [*_left_off(loader, made, absent), *_set_not_null(connection, loader)]
    return Restored(schema, name, manifest.rows, None, tuple(types.made), tuple(left_off))


def _wanted(column: Column, types: Types, absent: frozenset[str]) -> TableColumn:
    """The column as it was, but for a type or a collation that the database has not."""
    type_ = types.find(column)
    if type_ is None:
        return TableColumn(column.name, sql.SQL(TEXT), kind=column.generated or "s")
    collation = sql.SQL(column.collation) if column.collation and column.collation not in absent else None
    computed = expression(column.expression) if column.generated else None
    return TableColumn(column.name, type_, collation, computed, column.generated or "s")


def _left_off(loader: Loader, made: Iterable[TableColumn], absent: frozenset[str]) -> Iterator[LeftOff]:
    """What the restored table has not of what the archived one had."""
    columns = {column.name: column for column in made}
    for column in loader.manifest.columns:
        restored, type_ = columns.get(column.name), loader.types.find(column)
        reason = loader.reasons.get(column.name, "PostgreSQL refuses the rows with it")
        if type_ is None:
            yield LeftOff("Type", column.name, f"it is {TEXT}: {loader.types.why_missing(column.type)}")
        elif restored is not None and restored.type != type_:
            yield LeftOff("Type", column.name, f"it is {restored.type.as_string()}, was {type_.as_string()}: {reason}")
        if column.generated and (restored is None or restored.expression is None):
            what = "the stored values are there" if restored is not None else "it held no values of its own"
            yield LeftOff("Generated", column.name, f"{reason}; {what}; its expression was {column.expression}")
        if column.collation in absent:
            yield LeftOff("Collation", column.name, f"the database has no collation {column.collation}")


def _set_not_null(connection: Session, loader: Loader) -> Iterator[LeftOff]:
    """Add the NOT NULL constraints that the rows fulfil. Raises psycopg's errors."""
    table = sql.Identifier(loader.schema, loader.name)
    for column in loader.manifest.columns:
        if not column.not_null or column.generated == "v":
            continue
        name = sql.Identifier(column.name)
        if not column.not_null_valid:
            if connection.info.server_version < NOT_VALID_VERSION:
                yield LeftOff("NotNull", column.name, "the constraint was NOT VALID, which this server does not know")
                continue
            statement = sql.SQL("ALTER TABLE {} ADD NOT NULL {} NOT VALID").format(table, name)
        else:
            statement = sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET NOT NULL").format(table, name)
        run(connection, "SAVEPOINT constraining")
        try:
            run(connection, statement)
            run(connection, "RELEASE SAVEPOINT constraining")
        except pg.IntegrityError as error:
            run(connection, "ROLLBACK TO SAVEPOINT constraining")
            yield LeftOff("NotNull", column.name, message(error))


def _load_and_attach(
    connection: Session,
    source: Source,
    parentage: Parentage,
    schema: str,
    name: str,
    patience: float,
    say: Say,
) -> Restored:
    """Load it in the form of the parent, and attach it. Raises `CannotAttach` where the parent refuses the rows."""
    manifest, inventory = source.manifest, parentage.inventory
    types = Types(connection, manifest.types)
    types.make()
    loader = reattach.loader(connection, source, types, parentage, schema, name, say)
    if (error := loader.attempt(loader.wanted)) is not None:
        raise reattach.misfit(loader, parentage, error)
    reattach.complete(connection, loader, parentage)
    plain = {column.name for column in loader.wanted if column.expression is None}
    why = f"{inventory.parent} has it as a plain column now; its stored values are there"
    left_off = [
        LeftOff("Generated", column.name, why)
        for column in manifest.columns
        if column.generated and column.name in plain
    ]
    say(f"attaching it to {inventory.parent}")
    reattach.join(connection, inventory, manifest, schema, name, time.monotonic() + patience)
    return Restored(schema, name, manifest.rows, str(inventory.parent), tuple(types.made), tuple(left_off))


@contextmanager
def _session(info: ConnectionInfo, subject: str) -> Iterator[Session]:
    """A session for long statements, whose errors become those of a restore."""
    with session(info) as connection:
        connection.longest = restored_table.LONGEST
        try:
            yield connection
        except psycopg.Error as error:
            raise restored_table.refused(error, subject) from None
