"""A database for one test, and roles that are dropped with it."""

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from lab.postgres.server import Server


@dataclass(frozen=True)
class Role:
    """A role that may log in; `dsn` is its connection string for the database that it was made for."""

    name: str
    password: str
    dsn: str


@dataclass(frozen=True)
class Database:
    """A database of a running server. Leaving it as a context manager drops it."""

    server: "Server"
    name: str
    _roles: list[Role] = field(default_factory=list, repr=False, compare=False)

    @property
    def dsn(self) -> str:
        """The superuser's connection string."""
        return self.server.dsn(self.name)

    def connect(self) -> psycopg.Connection:
        """A superuser's connection that commits every statement by itself; the caller closes it."""
        return psycopg.connect(self.dsn, autocommit=True)

    def execute(self, statements: str) -> None:
        """Runs SQL without parameters as the superuser, several statements separated by semicolons."""
        with self.connect() as connection:
            connection.execute(statements.encode())

    def query(self, statement: str, *parameters: object) -> list[tuple[object, ...]]:
        """The rows of one statement as the superuser."""
        with self.connect() as connection:
            return connection.execute(statement.encode(), parameters or None).fetchall()

    def new_role(self, attributes: str = "", name: str | None = None) -> Role:
        """A new role with LOGIN and `attributes`, as CREATE ROLE has them; it is dropped with the database."""
        name, password = name or f"role_{secrets.token_hex(4)}", secrets.token_urlsafe(12)
        create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} ").format(sql.Identifier(name), sql.Literal(password))
        with self.connect() as connection:
            connection.execute(create.as_bytes(connection) + attributes.encode())
        role = Role(name, password, self.server.dsn(self.name, name, password))
        self._roles.append(role)
        return role

    def drop(self) -> None:
        """Ends its connections and drops it and its roles. Doing it again does nothing."""
        with psycopg.connect(self.server.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self.name)))
            for role in self._roles:
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role.name)))
        self._roles.clear()

    def __enter__(self) -> "Database":
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()
