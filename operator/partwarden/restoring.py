"""Restores an archive: checks it, loads it into a new table, proves that table, and makes it a partition if asked to.

What is restored is committed at once, at the end, when its fingerprint is that of the archive. Interrupted before that,
by whatever, nothing of it is there: no table, no type, no partition.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import psycopg
from psycopg import sql

from . import fitting, joining, loading, remaking, standbys
from .connection import ConnectionInfo
from .errors import InvalidSpec
from .inventory import Inventory
from .record import ArchiveManifest
from .session import Session, pinned, run, session
from .transaction import undo

Say = Callable[[str], None]
"""Called with one line for each step that may take long, and for what a person should know."""


class Source(Protocol):
    """An archive where it lies."""

    @property
    def manifest(self) -> ArchiveManifest:
        """As it was read."""

    def check(self) -> None:
        """Read all of the data, and compare size and sha256 with the manifest. Raises what `errors` has for storage."""

    def rows(self) -> AbstractContextManager[Iterator[bytes]]:
        """The rows as COPY writes them, in UTF-8, read once more. At its end raises where they are not those that were
        archived."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person wants. ``schema`` and ``name``: of the new table; None for the names that it had.

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
    """``attached`` is the parent; ``types`` those that were made; ``without`` collations that the database has not."""

    schema: str
    name: str
    rows: int
    attached: str | None = None
    types: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


def restore(source: Source, info: ConnectionInfo, wish: Wish, say: Say) -> Restored:
    """Do it. Raises a `PartwardenError`: then nothing was changed in the database.

    First what is quick to see forbids it, then the archive is read and checked, and only then is anything loaded.
    """
    manifest = source.manifest
    schema, name = wish.schema or manifest.partition.schema_, wish.name or manifest.partition.name
    parent = _parent(manifest, wish)
    subject = f"archive {manifest.id} of {manifest.partition} is not restored"
    with _working(info, subject) as connection:
        _look(connection, manifest, parent, schema, name)
    say(f"checking {manifest.bytes:,} bytes by their sha256")
    source.check()
    with _working(info, subject) as connection:
        # Hours may have passed.
        inventory = _look(connection, manifest, parent, schema, name)
        if inventory is not None:
            joining.template(connection, inventory)
        try:
            restored = _load(connection, source, wish, inventory, schema, name, say)
            run(connection, "COMMIT")
        except BaseException:
            undo(connection)
            raise
        if not standbys.confirmed(connection):
            say("committed, but no synchronous standby has confirmed it: keep the archive until one has")
    return restored


def _parent(manifest: ArchiveManifest, wish: Wish) -> tuple[str, str] | None:
    if not wish.attach:
        return None
    if wish.parent is not None:
        return wish.parent
    if manifest.parent is None:
        raise InvalidSpec("the archive does not say which table its partition belonged to: name it with --parent")
    return manifest.parent.schema_, manifest.parent.name


def _look(
    connection: Session, manifest: ArchiveManifest, parent: tuple[str, str] | None, schema: str, name: str
) -> Inventory | None:
    loading.check_name(connection, schema, name)
    return fitting.look(connection, manifest, *parent) if parent is not None else None


def _load(
    connection: Session,
    source: Source,
    wish: Wish,
    inventory: Inventory | None,
    schema: str,
    name: str,
    say: Say,
) -> Restored:
    """All of the transaction but its COMMIT."""
    manifest, table = source.manifest, sql.Identifier(schema, name)
    run(connection, "BEGIN ISOLATION LEVEL READ COMMITTED", pinned("2s", "0"))
    types = loading.make_types(connection, manifest)
    without = frozenset[str]()
    if inventory is not None:
        joining.make(connection, inventory, manifest, schema, name)
    else:
        without = loading.absent_collations(connection, manifest)
        run(connection, remaking.create_table(table, manifest.columns, without))
        run(connection, remaking.comment(table, joining.note(manifest)))
    say(f"loading {manifest.rows:,} rows into {schema}.{name}")
    with source.rows() as rows:
        loading.fill(connection, table, manifest, rows)
    say("comparing what was loaded with what was archived")
    loading.compare(connection, schema, name, manifest)
    attached = None
    if inventory is not None:
        say(f"attaching it to {inventory.parent}")
        joining.join(connection, inventory, manifest, schema, name, time.monotonic() + wish.patience)
        attached = str(inventory.parent)
    return Restored(schema, name, manifest.rows, attached, tuple(types), tuple(sorted(without)))


@contextmanager
def _working(info: ConnectionInfo, subject: str) -> Iterator[Session]:
    """A session for something long, with errors told as those of a restore."""
    with session(info) as connection:
        connection.longest = loading.LONGEST
        try:
            yield connection
        except psycopg.Error as error:
            raise loading.refused(error, subject) from None
