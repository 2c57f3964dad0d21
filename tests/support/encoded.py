"""Tables with encoded time keys, and the values of such keys as computed by the server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from lab.postgres import Database
from partwarden.api.policy import TableSpec
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import Report, maintain

ZEROS, LOWEST, HIGHEST = "00000000000000000000", "70008000000000000000", "7fffbfffffffffffffff"
"""What may stand behind the milliseconds of a UUID: what new bounds have, and the ends of what is valid."""


@dataclass(frozen=True)
class Key:
    """A column and its encoding. ``rest`` is what stands behind the milliseconds of bounds that are made by hand."""

    encoding: str
    column: str
    rest: str = ZEROS

    def __str__(self) -> str:
        more = {ZEROS: "", LOWEST: "-lowest"}.get(self.rest, "-odd")
        return f"{self.encoding}-{self.column}{more}" if self.encoding == "Native" else f"{self.encoding}{more}"

    @property
    def table(self) -> str:
        """DDL of the table ``run``, not yet with a partition."""
        return f"CREATE TABLE run (key {self.column} NOT NULL, note text) PARTITION BY RANGE (key);"

    def value(self, moment: str, rest: str | None = None) -> str:
        """SQL of the key's value at a moment, which is SQL as well."""
        if self.encoding == "UUIDv7":
            digits = f"lpad(to_hex((extract(epoch FROM {moment}) * 1000)::bigint), 12, '0')"
            return f"({digits} || '{rest or self.rest}')::uuid"
        if self.encoding == "EpochSeconds":
            return f"extract(epoch FROM {moment})::{self.column}"
        if self.encoding == "EpochMilliseconds":
            return f"(extract(epoch FROM {moment}) * 1000)::bigint"
        return moment if self.column == "timestamptz" else f"({moment} AT TIME ZONE 'UTC')::{self.column}"

    def before(self, moment: str) -> str:
        """SQL of the last value before a moment."""
        step = {"EpochSeconds": "1 second", "EpochMilliseconds": "1 millisecond", "UUIDv7": "1 millisecond"}
        least = "1 day" if self.column == "date" else step.get(self.encoding, "1 microsecond")
        return self.value(f"({moment} - interval '{least}')", HIGHEST)

    def literal(self, database: Database, moment: str) -> str:
        """The text of the value at a moment, for the bounds of a partition that is made by hand."""
        ((text,),) = database.query(f"SELECT ({self.value(f'timestamptz {moment!r}')})::text")
        return str(text)


ENCODED = (
    Key("UUIDv7", "uuid"),
    Key("EpochSeconds", "bigint"),
    Key("EpochSeconds", "integer"),
    Key("EpochMilliseconds", "bigint"),
)
NATIVE = (Key("Native", "timestamptz"), Key("Native", "timestamp"), Key("Native", "date"))
BY_OTHERS = (Key("UUIDv7", "uuid", LOWEST), Key("UUIDv7", "uuid", "7abc8def0123456789ab"))
"""Bounds of a UUID that others make: with version and variant, or copied from some row."""


def keep(database: Database, now: datetime | None, **fields: Any) -> Report:
    """Does once what a policy for public.run with these fields says, at that moment or the server's."""
    spec = TableSpec.model_validate({"table": {"name": "run"}, **fields})
    with session(from_dsn(database.dsn)) as connection:
        return maintain(connection, spec, now=now)


def created(report: Report) -> list[str]:
    """The names of what was made, in that order; nothing may have failed."""
    assert not [each.error for each in report.outcomes if each.error]
    return [each.action.name for each in report.outcomes]


def bounds(database: Database) -> dict[str, str]:
    """The bounds of each partition of ``run``, as PostgreSQL writes them, by its OID and name."""
    rows = database.query(
        "SELECT c.oid || ' ' || c.oid::regclass, pg_get_expr(c.relpartbound, 0) FROM pg_inherits i "
        "JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'run'::regclass ORDER BY 1"
    )
    return {str(name): str(text) for name, text in rows}


def lands(database: Database, values: Iterable[str]) -> list[str | None]:
    """The partition in which a row with each key, given as SQL, lies once it is inserted; None where it is refused."""
    found: list[str | None] = []
    with database.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for value in values:
            try:
                row = connection.execute(
                    f"INSERT INTO run (key) SELECT {value} RETURNING tableoid::regclass::text".encode()
                )
                found.append(row.fetchall()[0][0])
            except psycopg.errors.CheckViolation:
                found.append(None)
    return found
