"""Load an archive's rows into a new table, in the form that the table had, or in one that no row can be refused by.

First the table is made as it was. Where the server refuses a row so, or computes other values of a generated column, it
is made plain: built-in types and text, nothing generated. That takes every row. What of the rest these rows fulfil is
then found out by reading them, and the table is made once more with that. What they do not fulfil is left off, with
the reason. Each form is loaded from the archive and proven by the fingerprint; none is kept that differs.

All in a transaction of the caller's: until it commits no other session sees any of it, and an error takes all of it
away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import psycopg
from psycopg import errors as pg
from psycopg import sql

from ..errors import PartwardenError, RestoredDiffers
from ..planner.inventory import PartitionTemplate
from ..postgres import ddl, fingerprint
from ..postgres.connection import Session, run, run_alone
from ..postgres.errors import UNABLE, is_lost, message
from . import guards, table_schema
from .manifest import ArchiveManifest, Column, Say, stored_names
from .table_schema import TableColumn, Types


def hashed_columns(connection: psycopg.Connection[Any], manifest: ArchiveManifest) -> dict[str, bool]:
    """Column that holds values -> whether it is hashed as it is sent, else as text: as the archive's fingerprint was
    taken, whatever types the columns have now. Raises psycopg's errors."""
    columns = [column for column in manifest.columns if column.generated != "v"]
    # None of another schema is, and the role may not be allowed to look into that.
    sent = fingerprint.sent(connection, sorted({column.type for column in columns if "." not in column.type}))
    return {column.name: sent.get(column.type, False) for column in columns}


def is_about_rows(error: Exception) -> bool:
    """Whether another form of the table may take what this one refused: not where the server or connection failed."""
    if isinstance(error, RestoredDiffers):
        return True
    if not isinstance(error, psycopg.Error) or is_lost(error):
        return False
    return not (error.sqlstate or "XX").startswith(UNABLE) and not isinstance(error, pg.ReadOnlySqlTransaction)


TEXT = "text"
CUT = sql.SQL('"char"')
"""Takes any text, of which it keeps a byte."""
PART = 64
"""Columns that are examined at once where a page holds no row of all in plain form, in which text takes more than an
enum did: none takes more than 64 bytes of it."""

# concat() and not a cast to text, which a user may have defined, and which takes blanks from `character`.
#
# By the collation "C": others may hold different texts for equal, and two of them cannot be compared.
OTHER_VALUES = """
SELECT count(*) FROM ONLY {table} WHERE concat({column}::{type}) COLLATE "C" IS DISTINCT FROM concat({column})
"""
OTHER_RESULTS = """
SELECT count(*) FROM ONLY {table}
WHERE concat({column}) COLLATE "C" <> concat(({value})::{type}) COLLATE "C"
   OR num_nulls({column}) <> num_nulls(({value})::{type})
"""
UNREADABLE = "SELECT count(*) FROM ONLY {table} WHERE NOT pg_input_is_valid({column}::text, {words})"
"""From 16 on."""
SOFT_ERRORS_VERSION = 160000
EVALUATED = "SELECT count(({value})::{type}) FROM ONLY {table} AS t"


class Source(Protocol):
    """An archive where it lies."""

    @property
    def manifest(self) -> ArchiveManifest:
        """As it was read."""

    def check(self) -> None:
        """Read all of the data, and compare size and sha256 with the manifest. Raises what `errors` has for storage."""

    def rows(self, generated: Sequence[str] = ()) -> AbstractContextManager[Iterator[bytes]]:
        """The rows as COPY writes them, in UTF-8, read once more: of all columns that are not generated, and of those
        that are named. At its end raises where they are not those that were archived."""


@dataclass(frozen=True, slots=True)
class LeftOff:
    """What of the archived table the restored one has not. ``kind``: Type, Generated, NotNull or Collation."""

    kind: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind} of {self.name}: {self.reason}"


@dataclass(slots=True)
class Loader:
    """One table that is loaded. ``wanted``: the columns in the form that is aimed at; ``before``: statements for the
    table where it has that form, before it is filled."""

    source: Source
    types: Types
    schema: str
    name: str
    wanted: tuple[TableColumn, ...]
    say: Say
    before: Sequence[sql.SQL | sql.Composed] = ()
    like: PartitionTemplate = field(default_factory=PartitionTemplate)
    reasons: dict[str, str] = field(default_factory=dict)
    """Column -> why it is not in the form that was wanted."""
    settled: frozenset[str] = frozenset()
    """Columns whose archived type is not tried: see `restored_code`."""
    _begun: bool = False
    _lifting: bool = False
    """Whether `guards` are taken off before the rows are loaded."""
    _guards: guards.Guards = field(default_factory=guards.Guards)

    @property
    def connection(self) -> Session:
        return self.types.connection

    @property
    def manifest(self) -> ArchiveManifest:
        return self.source.manifest

    @property
    def table(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    def load_best(self) -> tuple[TableColumn, ...]:
        """Load the table in the best form that takes all rows. Returns its columns. Raises as `load`."""
        if (error := self.attempt(self.wanted)) is None:
            return self.wanted
        words = message(error) if isinstance(error, psycopg.Error) else "it computes other values than were archived"
        self.say(f"the server does not take all rows in the form that they had ({words}): loading them in a plain one")
        loaded, typed = self._examined()
        if typed != loaded and self.attempt(typed) is not None:
            if loaded is not None:
                self.load(loaded)
                return loaded
            typed = self._narrowed(typed)
            self.load(typed)
        best = self._generated(typed)
        if best != typed and self.attempt(best) is not None:
            self.load(typed)
            return typed
        return best

    def _plain(self) -> tuple[TableColumn, ...]:
        """The columns in a form that takes every value: of built-in types where those are sure, else of text."""
        if self.manifest.format == 1 and any(column.generated for column in self.manifest.columns):
            raise RestoredDiffers(
                "the server computes other values of generated columns than were archived, and this archive of an "
                "older version does not hold them: nothing is restored"
            )
        hashed = hashed_columns(self.connection, self.manifest)
        return tuple(
            # Without a length: values may be older than that.
            TableColumn(
                column.name,
                self.types.sql(column.model_copy(update={"typmod": -1})) if hashed[column.name] else sql.SQL(TEXT),
            )
            for column in self.manifest.columns
            if column.name in hashed
        )

    def attempt(self, columns: tuple[TableColumn, ...]) -> Exception | None:
        """Load the table in this form; what refused the rows, where another form may take them."""
        try:
            self.load(columns)
        except (psycopg.Error, PartwardenError) as error:
            if not is_about_rows(error):
                raise
            run(self.connection, "ROLLBACK TO SAVEPOINT loading")
            if self._lifting or not self._guards.off:
                return error
        else:
            return None
        self._lifting = True
        return self.attempt(columns)

    def put_back(self) -> None:
        """Put the guards back that were taken off, once the table needs to be read no more. Raises psycopg's errors."""
        for statement in self._guards.on if self._lifting else ():
            run(self.connection, statement)

    def load(self, columns: tuple[TableColumn, ...], *, proven: bool = True) -> None:
        """Make the table with these columns, fill it and prove it, instead of what was made before. Not ``proven``: to
        be examined, and given up. Raises `RestoredDiffers`, psycopg's errors and what reading the archive raises."""
        # Safe: no other session sees the table that is given up, and the archive is read anew.
        run(self.connection, "ROLLBACK TO SAVEPOINT loading" if self._begun else "SAVEPOINT loading")
        self._begun = True
        manifest = self.manifest
        create = table_schema.create_table(self.table, columns, manifest.unlogged)
        run_alone(self.connection, sql.SQL(" ").join([create, *ddl.storage(self.like)]))
        for statement in self.before if columns == self.wanted else ():
            run_alone(self.connection, statement)
        self._guards = guards.find(self.connection, self.table)
        for statement in self._guards.off if self._lifting else ():
            run(self.connection, statement)
        plain = {column.name for column in columns if column.expression is None}
        given = [name for name in stored_names(manifest.columns) if name in plain]
        self.say(f"loading {manifest.rows:,} rows into {self.schema}.{self.name}")
        self._fill([*(column.name for column in manifest.columns if not column.generated), *given], given)
        if proven:
            self.say("comparing what was loaded with what was archived")
            self._compare()

    def _fill(self, columns: Sequence[str], generated: Sequence[str]) -> None:
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (ENCODING 'UTF8')").format(self.table, names)
        with self.source.rows(generated) as rows, self.connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                for chunk in rows:
                    copy.write(chunk)
            loaded = cursor.rowcount
        if loaded != self.manifest.rows:
            raise RestoredDiffers(
                f"{loaded} rows were loaded, but the archive says {self.manifest.rows}: nothing is restored"
            )

    def _compare(self) -> None:
        """Compare the fingerprints. Values are hashed as the archive's were, whatever types the columns have now;
        columns that the archive has not are no part of it."""
        archived = self.manifest.fingerprint
        loaded = fingerprint.take(
            self.connection, self.schema, self.name, hashed_columns(self.connection, self.manifest)
        )
        if loaded != archived:
            raise RestoredDiffers(
                f"what was loaded differs from what was archived: fingerprint {loaded.content} of {loaded.rows} rows, "
                f"archived were {archived.content} of {archived.rows} rows ({archived.algorithm}): nothing is restored"
            )

    def count(self, condition: sql.Composable) -> int:
        """How many rows of the table fulfil it. Raises psycopg's errors."""
        query = sql.SQL("SELECT count(*) FROM ONLY {} WHERE {}").format(self.table, condition)
        ((rows,),) = run_alone(self.connection, query)
        return int(rows)

    def examine(self) -> Mapping[str, str]:
        """Load the rows in a plain form. Returns column -> why they do not fit the form that was wanted."""
        loaded, typed = self._examined()
        if loaded is not None or self.attempt(typed) is None:
            self._generated(typed)
        return self.reasons

    def _examined(self) -> tuple[tuple[TableColumn, ...] | None, tuple[TableColumn, ...]]:
        """The plain form, loaded, or None where a page holds no row of it; and with the types that all values fit."""
        plain = self._plain()
        try:
            self.load(plain)
        except pg.ProgramLimitExceeded:
            return None, self._typed_in_parts(plain)
        return plain, self._typed(plain)

    def _typed_in_parts(self, plain: Sequence[TableColumn]) -> tuple[TableColumn, ...]:
        """As `_typed`, of a few columns at a time, while a row has only the first bytes of the others' values."""
        typed: list[TableColumn] = []
        for first in range(0, len(plain), PART):
            part = plain[first : first + PART]
            self.load(tuple(each if each in part else replace(each, type=CUT) for each in plain), proven=False)
            typed += self._typed(part)
        return tuple(typed)

    def _narrowed(self, columns: Sequence[TableColumn]) -> tuple[TableColumn, ...]:
        """The columns, of which those that are text instead of an enum are one of the archive's labels, made here."""
        run(self.connection, "ROLLBACK TO SAVEPOINT loading")
        text = {column.name for column in columns if column.type == sql.SQL(TEXT)}
        types = {column.name: column.type for column in self.manifest.columns if column.name in text}
        enums = {name: self.types.make_enum(name, self.schema) for name in sorted(set(types.values()))}
        run(self.connection, "SAVEPOINT loading")
        return tuple(replace(each, type=enums.get(types.get(each.name, "")) or each.type) for each in columns)

    def _typed(self, plain: Sequence[TableColumn]) -> tuple[TableColumn, ...]:
        """The columns with the types that all their values fit."""
        wanted = {column.name: column for column in self.wanted}
        archived = {column.name: column for column in self.manifest.columns}
        return tuple(self._fitting(column, wanted.get(column.name), archived[column.name]) for column in plain)

    def _fitting(self, plain: TableColumn, wanted: TableColumn | None, archived: Column) -> TableColumn:
        """The column with its type, or with what a domain is made from, where all its values fit that."""
        for candidate in self._candidates(wanted, archived) if wanted is None or wanted.type != plain.type else ():
            others = self._ask(OTHER_VALUES, plain.name, type=candidate)
            if others == 0:
                collation = wanted.collation if wanted is not None and candidate == wanted.type else None
                return replace(plain, type=candidate, collation=collation)
            self.reasons.setdefault(plain.name, self._why(plain.name, candidate, others))
        collation = wanted.collation if wanted is not None and wanted.type == plain.type else None
        return replace(plain, collation=collation)

    def _why(self, column: str, type_: sql.Composable, others: int | str) -> str:
        """Why the values do not fit the type: what the server said, and of how many rows, where that can be known."""
        if isinstance(others, int):
            return f"{others:,} rows have other values as {type_.as_string()}"
        if self.connection.info.server_version >= SOFT_ERRORS_VERSION:
            rows = self._ask(UNREADABLE, column, words=sql.Literal(type_.as_string()))
            return f"{others}, in {rows:,} rows" if isinstance(rows, int) else others
        return others

    def _candidates(self, wanted: TableColumn | None, archived: Column) -> Iterator[sql.Composable]:
        if wanted is not None:
            yield wanted.type
        base = self.types.base(archived.type) if archived.name not in self.settled else None
        while base is not None:
            if (found := self.types.find(base)) is not None:
                yield found
            base = self.types.base(base.type)

    def _generated(self, typed: Sequence[TableColumn]) -> tuple[TableColumn, ...]:
        """The columns with the expressions that give the values that the rows hold."""
        plain = {column.name: column for column in typed}
        columns = []
        for column in self.wanted:
            if self._computes(column, column.name in plain):
                columns.append(column)
            elif column.name in plain:
                columns.append(plain[column.name])
        return tuple(columns)

    def _computes(self, column: TableColumn, loaded: bool) -> bool:
        """Whether the column's expression gives the values that the rows hold, or can be evaluated if none are held."""
        stored = column.kind == "s"
        if column.expression is None or (stored and not loaded):
            return False
        query = OTHER_RESULTS if stored else EVALUATED
        others = self._ask(query, column.name, type=column.type, value=column.expression)
        if isinstance(others, int) and (others == 0 or not stored):
            return True
        why = others if isinstance(others, str) else f"its expression gives other values in {others:,} rows"
        self.reasons.setdefault(column.name, why)
        return False

    def _ask(self, query: str, column: str, **parts: sql.Composable) -> int | str:
        """The number that the query gives, or what the server says where it cannot."""
        text = sql.SQL(query).format(table=self.table, column=sql.Identifier(column), **parts)
        try:
            with self.connection.transaction():
                ((number,),) = run_alone(self.connection, text)
        except psycopg.Error as error:
            if not is_about_rows(error):
                raise
            return message(error)
        return int(number)
