"""``spec.database`` of a PartitionPolicy: where the table lives, and how to connect."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints

from .types import HINTS, IDENTIFIER, Identifier, Model, Rule, Ruled, SecretRef

PLAIN = r"^[^\x00-\x20\x7f]+$"
HINTS |= {PLAIN: "must not hold spaces or control characters"}
Host = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=PLAIN)]


class SSLMode(StrEnum):
    """libpq's sslmode. https://www.postgresql.org/docs/current/libpq-ssl.html"""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class Connection(Model):
    """Connection parameters by libpq's names; never a password."""

    host: Host | None = Field(None, description="Host name or IP address of the server.")
    port: int | None = Field(None, ge=1, le=65535, description="TCP port; 5432 when neither this nor the Secret says.")
    dbname: Identifier | None = Field(None, description="Name of the database.")
    user: Identifier | None = Field(
        None, description="Role to connect as: the table's owner or a member of it, with CREATE on the table's schema."
    )
    sslmode: Annotated[SSLMode, Field(strict=False)] | None = Field(
        None,
        description="disable, allow, prefer, require, verify-ca or verify-full; only the last proves who the server "
        "is. prefer means require where a password would go over a network; to send it in clear text, say disable or "
        "allow. Default: verify-full with a CA, else prefer.",
    )
    sslrootcert: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        pattern=IDENTIFIER,
        description="`system`, or the path of a PEM file of CA certificates in the folder that the operator's "
        "PARTWARDEN_CA_FOLDER names. "
        "A CA in the Secret (key `sslrootcert` or `ca.crt`) is used when this is left out.",
    )


class ArchiveConnection(Model):
    """The PostgreSQL server itself, where the rest of ``spec.database`` leads to a pooler."""

    host: Host = Field(description="Host name or IP address of the server, not of a pooler.")
    port: int | None = Field(None, ge=1, le=65535, description="TCP port. Absent: as for everything else.")


class Database(Ruled):
    """Where the table lives: a Secret, connection parameters, or both."""

    RULES = (
        Rule(
            "has(self.secretRef) || has(self.connection)",
            "needs secretRef, connection, or both",
            lambda database: database.secret_ref is not None or database.connection is not None,
        ),
    )

    secret_ref: SecretRef | None = Field(
        None,
        description="Secret with `uri`, or host, port, dbname, user or username, password, sslmode, sslrootcert; "
        "of both, the single keys win. The Secrets that CloudNativePG and Zalando's operator write work as they are.",
    )
    connection: Connection | None = Field(
        None, description="Connection parameters by libpq's names. They win over the Secret's."
    )
    archive: ArchiveConnection | None = Field(
        None,
        description="Where the Jobs that archive connect instead, with all else the same: pg_dump cannot work behind a "
        "pooler that shares server connections between transactions, such as PgBouncer with pool_mode transaction.",
    )

    @property
    def identity(self) -> Self:
        """The database that it is, by whichever way Jobs reach it."""
        return self.model_copy(update={"archive": None})

    @property
    def for_jobs(self) -> Self:
        """The same, as Jobs connect to it."""
        if self.archive is None:
            return self
        instead = self.archive.model_dump(exclude_none=True)
        connection = (self.connection or Connection()).model_copy(update=instead)
        return self.model_copy(update={"connection": connection, "archive": None})
