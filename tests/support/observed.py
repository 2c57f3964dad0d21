"""Observe a table of a real database."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

from partwarden.api.policy import Table, TableSpec
from partwarden.planner.calendar import Range
from partwarden.planner.inventory import Inventory, Partition, RelationKind
from partwarden.postgres import catalog
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn

RUN = "CREATE TABLE run (at timestamptz NOT NULL, note text) PARTITION BY RANGE (at);"
ODD = "We\"ird {Näme} %s 'x' \\"
"""A name with every character that must be quoted."""


def observe_table(dsn: str, name: str = "run", schema: str = "public") -> Inventory:
    """The inventory of a table, read in one round trip; in two where something lies below its partitions, and where
    there is no such table, but perhaps one of a similar name."""
    with session(from_dsn(dsn)) as connection:
        found = catalog.observe(connection, TableSpec(table=Table(schema_=schema, name=name)))
        assert connection.round_trips == 1 + (found.parent is None or _reaches_below(found))
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        return found


def _reaches_below(found: Inventory) -> bool:
    return any(each.kind is RelationKind.PARTITIONED for each in found.partitions)


def observe_with_names(dsn: str, name: str = "run", schema: str = "public", names: Iterable[str] = ()) -> Inventory:
    """The same with the template of partitions with these names, in one more round trip."""
    with session(from_dsn(dsn)) as connection:
        found = catalog.complete(
            connection, catalog.observe(connection, TableSpec(table=Table(schema_=schema, name=name))), names
        )
        assert connection.round_trips == 2 + _reaches_below(found)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        return found


def quoted(name: str) -> str:
    """The name, quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def by_name(found: Inventory) -> dict[str, Partition]:
    """Its partitions by their names."""
    return {each.name: each for each in found.partitions}


def ranges(found: Inventory) -> dict[str, Range | None]:
    """The ranges of its partitions."""
    return {each.name: each.range for each in found.partitions}
