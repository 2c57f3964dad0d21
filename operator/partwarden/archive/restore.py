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

from ..errors import InvalidSpec, NameTaken, StatementRejected
from ..postgres import fingerprint, transaction
from ..postgres.connection import Session, by_setting, pinned, run, run_alone, session
from ..postgres.conninfo import ConnectionInfo
from ..postgres.errors import UNABLE, is_lost, message, translate
from ..postgres.settings import TEXT_SETTINGS, setting
from ..postgres.transaction import as_owner, become, set_role_right, undo
from . import reattach, restore_target, restored_code, restored_once, table_schema
from .manifest import ArchiveManifest, Column, Say
from .reattach import Parentage
from .restored_once import Restored
from .restored_table import TEXT, LeftOff, Loader, Source
from .table_schema import TableColumn, Types, expression

OWNER = """
SELECT pg_get_userbyid(c.relowner) AS owner, pg_get_userbyid(c.relowner) = current_user AS same
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND c.relname = {name} AND c.relkind = 'p'
  AND pg_has_role(c.relowner, {set_role}) AND has_schema_privilege(c.relowner, {target}, 'CREATE')
  AND has_schema_privilege(c.relowner, {target}, 'USAGE')
"""
TABLESPACE = """
SELECT spcname, current_user AS role, set_config('default_tablespace', '', true) FROM pg_tablespace
WHERE spcname = current_setting('default_tablespace') AND NOT has_tablespace_privilege(oid, 'CREATE')
"""
"""One that the role may not create in, though a setting makes it the default, is not used."""
NOT_VALID_VERSION = 180000
"""From here on NOT NULL may be NOT VALID."""


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What to restore as. ``schema`` and ``name``: of the new table; None for the names that it had. ``attach``: to
    ``parent`` (schema, name), or, where that is None, to the parent that it had. ``patience``: seconds to wait for the
    parent's locks, once all is loaded. ``uid``: of the PartitionRestore that the table is made for, and made once;
    empty where there is none."""

    schema: str | None = None
    name: str | None = None
    attach: bool = False
    parent: tuple[str, str] | None = None
    patience: float = 300.0
    uid: str = ""


def restore(source: Source, info: ConnectionInfo, request: RestoreRequest, say: Say) -> Restored:
    """Restore an archive. Raises a `PartwardenError`: then nothing was changed in the database. First come the checks
    that are quick, then the archive is read and checked, and only then is anything loaded. With a ``uid`` the table
    that was made for it already is what is returned, be it by this process or another: then nothing is changed."""
    manifest = source.manifest
    schema, name = request.schema or manifest.partition.schema_, request.name or manifest.partition.name
    parent = _parent(manifest, request) if request.attach else None
    subject = f"archive {manifest.id} of {manifest.partition} is not restored"

    def check(connection: Session) -> tuple[bool, Parentage | None]:
        chosen = request.schema is not None or request.attach
        exists = restore_target.check_name(connection, schema, name, chosen)
        return exists, reattach.check(connection, manifest, *parent, schema, name) if parent is not None else None

    with _session(info, subject) as connection:
        if (made := restored_once.find(connection, request.uid)) is not None:
            return made
        check(connection)
    say(f"checking {manifest.bytes:,} bytes by their sha256")
    source.check()
    with _session(info, subject) as connection:
        # Hours may have passed.
        if (made := restored_once.find(connection, request.uid)) is not None:
            return made
        exists, parentage = check(connection)
        become_owner, confined = _as_owner(connection, manifest, parentage, schema if exists else None)
        try:
            _begin(connection, become_owner, say)
            if (made := restored_once.claim(connection, request.uid)) is not None:
                undo(connection)
                return made
            if not exists:
                say(f"creating schema {schema}")
                run_alone(connection, sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
            types = Types(connection, manifest.types)
            types.make()
            if parentage is None:
                restored = _load(source, types, schema, name, say, confined=confined)
            else:
                restored = _load_and_attach(source, types, parentage, schema, name, request.patience, say)
            if request.uid:
                restored = restored_once.mark(connection, restored, request.uid)
            run(connection, "COMMIT")
        except BaseException:
            undo(connection)
            raise
        if not transaction.confirmed(connection):
            say("committed, but no synchronous standby has confirmed it: keep the archive until one has")
    return restored


def _parent(manifest: ArchiveManifest, request: RestoreRequest) -> tuple[str, str]:
    if request.parent is not None:
        return request.parent
    if manifest.parent is None:
        raise InvalidSpec("the archive does not say which table its partition belonged to: name it with --parent")
    return manifest.parent.schema_, manifest.parent.name


def _as_owner(
    connection: Session, manifest: ArchiveManifest, parentage: Parentage | None, schema: str | None
) -> tuple[list[sql.Composable], bool]:
    """Become the owner of the parent, whose functions expressions and domains of the table call. A table of its own is
    loaded so where there is that parent, and its owner may create tables in the schema. Else whether the login has
    rights that such functions must not get. ``schema``: None where only the login is to make it."""
    if parentage is not None:
        return as_owner(parentage.parent), False
    with connection.transaction():
        run(connection, pinned("2s", "30s"))
        if schema is not None and (parent := manifest.parent) is not None:
            names = {"schema": parent.schema_, "name": parent.name, "target": schema}
            query = sql.SQL(OWNER).format(set_role=set_role_right(connection), **names)
            for owner, same in run(connection, query)[0]:
                return ([] if same else [become(owner)]), False
        return [], restored_code.lends_rights(connection)


def _begin(connection: Session, become_owner: Iterable[sql.Composable], say: Say) -> None:
    """Begin the transaction, as the owner, with settings of its own: what makes tables must not depend on others."""
    begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
    *_, unusable = run(connection, begin, pinned("2s", "0"), setting(TEXT_SETTINGS), *become_owner, TABLESPACE)
    for each in unusable:
        say(f"role {each.role!r} may not create in tablespace {each.spcname!r}: using that of the database")


def _load(source: Source, types: Types, schema: str, name: str, say: Say, *, confined: bool) -> Restored:
    manifest = source.manifest
    absent = restore_target.absent_collations(types.connection, manifest)
    wanted = tuple(_wanted(column, types, absent) for column in manifest.columns)
    loader = Loader(source, types, schema, name, wanted, say)
    if confined:
        restored_code.confine(loader)
    try:
        made = loader.load_best()
    except pg.ProgramLimitExceeded as error:
        raise StatementRejected(
            f"archive {manifest.id} of {manifest.partition} is not restored: {message(error)}, where columns are text: "
            f"create the types that are missing, and let role {types.connection.info.user!r} use their schemas"
        ) from None
    run_alone(types.connection, table_schema.comment(loader.table, reattach.note(manifest)))
    left_off = (*_left_off(loader, made, absent), *_set_not_null(loader))
    loader.put_back()
    return Restored(schema, name, manifest.rows, None, tuple(types.made), left_off)


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
            now = restored.type.as_string() if restored is not None else TEXT
            yield LeftOff("Type", column.name, f"it is {now}: {loader.types.why_missing(column.type)}")
        elif restored is not None and restored.type != type_:
            yield LeftOff("Type", column.name, f"it is {restored.type.as_string()}, was {type_.as_string()}: {reason}")
        if column.generated and (restored is None or restored.expression is None):
            what = "the stored values are there" if restored is not None else "it held no values of its own"
            yield LeftOff("Generated", column.name, f"{reason}; {what}; its expression was {column.expression}")
        if column.collation in absent:
            yield LeftOff("Collation", column.name, f"the database has no collation {column.collation}")


def _set_not_null(loader: Loader) -> Iterator[LeftOff]:
    """Add the NOT NULL constraints that the rows fulfil. Raises psycopg's errors."""
    connection = loader.connection
    for column in loader.manifest.columns:
        if not column.not_null or column.generated == "v":
            continue
        if column.not_null_valid:
            statement = sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET NOT NULL")
        elif connection.info.server_version >= NOT_VALID_VERSION:
            statement = sql.SQL("ALTER TABLE {} ADD NOT NULL {} NOT VALID")
        else:
            yield LeftOff("NotNull", column.name, "the constraint was NOT VALID, which this server does not know")
            continue
        try:
            with connection.transaction():
                run(connection, statement.format(loader.table, sql.Identifier(column.name)))
        except pg.IntegrityError as error:
            yield LeftOff("NotNull", column.name, message(error))


def _load_and_attach(
    source: Source, types: Types, parentage: Parentage, schema: str, name: str, patience: float, say: Say
) -> Restored:
    """Load it in the form of the parent, and attach it. Raises `CannotAttach` where the parent refuses the rows."""
    manifest, parent = source.manifest, parentage.parent
    loader = reattach.loader(source, types, parentage, schema, name, say)
    if (error := loader.attempt(loader.wanted)) is not None:
        raise reattach.misfit(loader, parentage, error)
    reattach.complete(types.connection, loader, parentage)
    loader.put_back()
    plain = {column.name for column in loader.wanted if column.expression is None}
    left_off = tuple(
        LeftOff("Generated", column.name, f"{parent} has it as a plain column now; its stored values are there")
        for column in manifest.columns
        if column.generated and column.name in plain
    )
    say(f"attaching it to {parent}")
    reattach.join(types.connection, parentage, manifest, schema, name, time.monotonic() + patience)
    return Restored(schema, name, manifest.rows, str(parent), tuple(types.made), left_off)


@contextmanager
def _session(info: ConnectionInfo, subject: str) -> Iterator[Session]:
    """A session for long statements, whose errors become those of a restore: nothing is about a policy, or tried again.
    Loading and reading a table of terabytes are single statements."""
    with session(info) as connection:
        connection.longest = fingerprint.LONGEST
        try:
            yield connection
        except psycopg.Error as error:
            state = error.sqlstate or ""
            passing = is_lost(error) or state.startswith(UNABLE)
            if passing or isinstance(error, pg.InsufficientPrivilege | pg.ReadOnlySqlTransaction | pg.LockNotAvailable):
                raise translate(error, f"{subject}{by_setting(connection, error)}") from None
            if isinstance(error, pg.DuplicateTable):
                raise NameTaken(f"{subject}: {message(error)}; choose another name with --as") from None
            if isinstance(error, pg.UntranslatableCharacter):
                encoding = connection.info.parameter_status("server_encoding")
                raise StatementRejected(
                    f"{subject}: database {connection.info.dbname!r} of encoding {encoding} has not all characters of "
                    f"it: {message(error)}; restore it into a database of encoding UTF8"
                ) from None
            # Where it was said: by a function of an event trigger, say.
            where = (error.diag.context or "").partition("\n")[0][:200]
            words = f"{message(error)}, in {where}" if where else message(error)
            raise StatementRejected(
                f"{subject}: PostgreSQL refused a statement: {words} (SQLSTATE {state or 'none'})"
            ) from None
