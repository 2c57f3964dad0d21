"""Sessions that come to a table while a change holds its locks, with a snapshot of before it, or without one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psycopg

from lab.operator import until
from lab.postgres import Database
from support.meanwhile import at_gate, gate

STALE = ("EXECUTE", "COPY", "STABLE function", "REPEATABLE READ", "SERIALIZABLE")
"""Those of `readers` that read by a snapshot from before the lock that they waited for."""
WHOLE = "SELECT count(*), count(DISTINCT id) FROM run WHERE at IS NOT NULL"

Reader = tuple[Callable[[psycopg.Connection], object], Callable[[psycopg.Connection], object]]
"""What it does before the change begins, and what it does while the change holds its locks."""


def ranged(year: int) -> str:
    """PostgreSQL looks for the rows of one partition's range in that partition alone."""
    return f"SELECT count(*), count(DISTINCT id) FROM run WHERE at >= '{year}-01-01Z' AND at < '{year + 1}-01-01Z'"


def _nothing(connection: psycopg.Connection) -> None:
    pass


def _one(connection: psycopg.Connection, statement: str, *, prepare: bool | None = None) -> object:
    return connection.execute(statement.encode(), prepare=prepare).fetchone()


def _copied(connection: psycopg.Connection, query: str) -> object:
    with connection.cursor().copy(f"COPY ({query}) TO STDOUT".encode()) as copy:
        text = b"".join(bytes(each) for each in copy)
    return tuple(int(each) for each in text.split())


def _define(connection: psycopg.Connection, name: str, query: str) -> None:
    connection.execute(
        f"""CREATE FUNCTION {name}() RETURNS record STABLE LANGUAGE plpgsql AS $$
        DECLARE found record; BEGIN {query} INTO found; RETURN found; END $$""".encode()
    )


def _count(connection: psycopg.Connection, statement: str, *, prepare: bool | None = None) -> int:
    return connection.execute(statement.encode(), prepare=prepare).rowcount


def _as_of(level: str, statement: str, connection: psycopg.Connection) -> object:
    """Its snapshot is taken by another table. The error's name where there is one."""
    connection.execute(f"BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM pg_class".encode())
    try:
        done = connection.execute(statement.encode())
        return done.rowcount if done.description is None else done.fetchone()
    except psycopg.Error as error:
        return type(error).__name__
    finally:
        connection.rollback()


def readers(**queries: str) -> dict[str, Reader]:
    """Each way in which a session may come to the table with a snapshot of before, and two in which it does not.

    ``queries``: by their names, which stand before that of the way.
    """
    return {f"{name} {way}": each for name, query in queries.items() for way, each in _readers(name, query).items()}


def _readers(name: str, query: str) -> dict[str, Reader]:
    return {
        "simple": (_nothing, lambda it: _one(it, query)),
        "extended": (lambda it: _one(it, query, prepare=True), lambda it: _one(it, query, prepare=True)),
        "EXECUTE": (lambda it: it.execute(f"PREPARE q AS {query}".encode()), lambda it: _one(it, "EXECUTE q")),
        "COPY": (_nothing, lambda it: _copied(it, query)),
        "STABLE function": (
            lambda it: _define(it, name, query),
            lambda it: _one(it, f"SELECT * FROM {name}() AS (rows bigint, ids bigint)"),
        ),
        "REPEATABLE READ": (_nothing, lambda it: _as_of("REPEATABLE READ", query, it)),
        "SERIALIZABLE": (_nothing, lambda it: _as_of("SERIALIZABLE", query, it)),
    }


def writers(change: str, locking: str) -> dict[str, Reader]:
    """The same of a statement that writes, and of a query with FOR UPDATE: how many rows it has changed, or locked."""
    return {
        "simple": (_nothing, lambda it: _count(it, change)),
        "extended": (lambda it: _count(it, change, prepare=True), lambda it: _count(it, change, prepare=True)),
        "EXECUTE": (lambda it: it.execute(f"PREPARE q AS {change}".encode()), lambda it: _count(it, "EXECUTE q")),
        "FOR UPDATE": (_nothing, lambda it: _count(it, locking)),
        "EXECUTE FOR UPDATE": (
            lambda it: it.execute(f"PREPARE q AS {locking}".encode()),
            lambda it: _count(it, "EXECUTE q"),
        ),
        "REPEATABLE READ": (_nothing, lambda it: _as_of("REPEATABLE READ", change, it)),
        "SERIALIZABLE": (_nothing, lambda it: _as_of("SERIALIZABLE", change, it)),
    }


def meanwhile(database: Database, change: Callable[[], Any], others: Mapping[str, Reader]) -> dict[str, object]:
    """What each of them got. All come to the table while the change holds its locks, and wait for its end."""
    with ExitStack() as stack:
        connections = {name: stack.enter_context(database.connect()) for name in others}
        for name, (first, _) in others.items():
            first(connections[name])
        pool = stack.enter_context(ThreadPoolExecutor(len(others) + 1))
        with gate(database) as keeper:
            work = pool.submit(change)
            until("the change holds its locks", lambda: at_gate(database) or work.done())
            if work.done():
                work.result()
            futures = {name: pool.submit(then, connections[name]) for name, (_, then) in others.items()}
            until("the others wait", lambda: _waiting(database) == len(others) or work.done())
            keeper.execute("SELECT pg_advisory_unlock_all()")
            found = {name: future.result() for name, future in futures.items()}
            work.result()
    return found


def _waiting(database: Database) -> int:
    ((count,),) = database.query("""SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())""")
    assert isinstance(count, int)
    return count
