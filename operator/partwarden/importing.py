"""Looks at the partitioned tables of a database, also of those that pg_partman keeps, for `guessing`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from . import catalog, guessing
from .errors import PartwardenError, TableNotFound, UnknownTimeZone
from .interval import load_zone
from .inventory import Inventory
from .policy import Table, TableSpec
from .resemblance import newest
from .session import Session, run
from .table import check_table

ROOTS = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'p' AND NOT c.relispartition AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND ({name}::text IS NULL OR (n.nspname, c.relname) = ({schema}::text, {name}::text))
ORDER BY n.nspname, c.relname
"""
PARTMAN = """
SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'part_config' AND c.relkind = 'r'
  AND 3 = (SELECT count(*) FROM pg_attribute a
           WHERE a.attrelid = c.oid AND a.attname IN ('parent_table', 'premake', 'retention'))
"""
# Not that of this transaction, which is pinned.
ZONE = "SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'"
KEPT = """
SELECT parent_table, premake::text, retention, coalesce(to_jsonb(c) ->> 'automatic_maintenance', 'on') <> 'off'
FROM {}.part_config c
"""
# What only a partition has, as of a template of pg_partman, no new one will have.
OWN_INDEXES = """
SELECT i.indexrelid::regclass::text FROM pg_index i
WHERE i.indrelid = {newest} AND i.indisunique
  AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid)
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Partman:
    """What pg_partman's part_config says of a table. ``automatic``: whether its maintenance looks at it by itself."""

    premake: str
    retention: str | None
    automatic: bool


@dataclass(frozen=True, slots=True)
class Found:
    """One table: what it seems to be kept by, or ``error``, why it cannot be managed."""

    table: Table
    inventory: Inventory | None = None
    guess: guessing.Guess | None = None
    error: PartwardenError | None = None
    partman: Partman | None = None
    """Where pg_partman has the table in its configuration."""
    own_indexes: tuple[str, ...] = ()
    """Unique indexes of the newest partition alone."""


def look(connection: Session, only: Table | None = None) -> list[Found]:
    """All tables that are partitioned and no partitions themselves, by schema and name, or the one that is asked for.

    Raises `TableNotFound` where that is none of them, and psycopg's errors.
    """
    name, schema = (only.name, only.schema_) if only else (None, None)
    _, roots, places, ((zone,),) = run(
        connection, catalog.PINNED, sql.SQL(ROOTS).format(name=name, schema=schema), PARTMAN, ZONE
    )
    zone = _known(zone)
    if only and not roots:
        raise TableNotFound(
            f"there is no partitioned table {only} in database {connection.info.dbname!r}, or role "
            f"{connection.info.user!r} may not see it: correct --table (names are matched exactly)"
        )
    kept = _partman(connection, [place for (place,) in places])
    found = [_found(connection, Table(schema_=each[0], name=each[1]), zone) for each in roots]
    return [replace(each, partman=kept.get(str(each.table))) for each in found]


def _known(zone: str) -> str:
    """The server may know zones by names that are not in the database of IANA."""
    try:
        load_zone(zone)
    except UnknownTimeZone:
        return "UTC"
    return zone


def _partman(connection: Session, places: list[str]) -> dict[str, Partman]:
    """By the table's name as pg_partman spells it. What may not be read is not asked for again."""
    kept: dict[str, Partman] = {}
    for place in places:
        try:
            rows = run(connection, sql.SQL(KEPT).format(sql.Identifier(place)))[0]
        except psycopg.errors.InsufficientPrivilege:
            continue
        kept |= {name: Partman(*fields) for name, *fields in rows}
    return kept


def _found(connection: Session, table: Table, zone: str) -> Found:
    spec = TableSpec(table=table)
    first = catalog.observe(connection, spec)
    key = first.parent.key[0].type if first.parent and len(first.parent.key) == 1 else ""
    seen = {
        each: catalog.observe(connection, spec.model_copy(update={"key_encoding": each}))
        for each in guessing.encodings(key)
    }
    try:
        encoding = guessing.best_encoding(seen) if seen else spec.key_encoding
        chosen = spec.model_copy(update={"key_encoding": encoding})
        inventory = seen.get(encoding, first)
        _, _, codec = check_table(chosen, inventory)
    except PartwardenError as error:
        return Found(table, first, error=error)
    return Found(
        table,
        inventory,
        guessing.guess(encoding, inventory, codec.aware, zone),
        own_indexes=_own(connection, inventory),
    )


def _own(connection: Session, inventory: Inventory) -> tuple[str, ...]:
    (rows,) = run(connection, sql.SQL(OWN_INDEXES).format(newest=newest(inventory)))
    return tuple(name for (name,) in rows)
