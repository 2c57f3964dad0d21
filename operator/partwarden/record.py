"""What is written down of an archive: ``manifest.json`` beside its data, and the report of a Job.

The manifest holds all that a stranger needs to restore the data in ten years, without Kubernetes, the policy or the
database that it came from. It is written last: where there is none, there is no archive.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from .fields import Model

FORMAT = 1
DATA, MANIFEST = "data.dump", "manifest.json"
"""Names of the two objects in an archive's folder."""


class Written(Model):
    """What is read back may be of a newer version: unknown fields are ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, extra="ignore", strict=False, frozen=True
    )


class Fingerprint(Written):
    """What a table holds, whatever the order of its rows. Equal fingerprints of one algorithm: equal contents."""

    algorithm: str
    rows: int
    content: str
    """Lower case hexadecimal digits."""


class TableName(Written):
    """A table by its names and its OID at that time."""

    schema_: str = Field(alias="schema")
    name: str
    oid: int

    def __str__(self) -> str:
        return f"{self.schema_}.{self.name}"


class Column(Written):
    """A column of the partition, in order, as `format_type` names its type."""

    name: str
    type: str
    not_null: bool = False
    generated: str = ""
    """``pg_attribute.attgenerated``: empty, ``s`` or ``v``."""
    expression: str = ""
    """What a generated column is computed by, every name in it qualified."""
    collation: str = ""
    """Where it is not that of the type, as `regcollation` says it."""


class UserType(Written):
    """A type that is not PostgreSQL's own, and that a column is of or made from."""

    name: str
    """As `format_type` says it: qualified, and quoted where need be."""
    schema_: str = Field("", alias="schema")
    ddl: tuple[str, ...] = ()
    """Statements that make it; none where it is written in C or has a function of its own, and must be there."""
    extension: str | None = None
    """The one that it belongs to, and comes with."""


class ArchiveManifest(Written):
    """``manifest.json``. Moments are aware and in UTC."""

    format: Literal[1] = 1
    id: str
    """Unique among the archives of the partition; the last part of the folder's name."""
    database: str
    parent: TableName | None = None
    """None where the table was detached already, and its mark does not say of what."""
    partition: TableName
    bounds: tuple[str, str] | None = None
    """The literals of ``FOR VALUES FROM (…) TO (…)``, lower inclusive, upper exclusive, without quotes."""
    key: str | None = None
    """The partition key's column."""
    columns: tuple[Column, ...]
    types: tuple[UserType, ...] = ()
    """Of users, that the columns need, each after those that it is made from."""
    parent_ddl: str
    """``pg_dump --schema-only`` of the parent, as plain SQL; empty where there is none."""
    rows: int
    bytes: int
    """Of `DATA`."""
    sha256: str
    """Of `DATA`."""
    copy_sha256: str
    """Of the rows as COPY … TO STDOUT writes them in the snapshot, and equally of what the archive restores."""
    fingerprint: Fingerprint
    snapshot: str
    server_version: str
    client_version: str
    """Of pg_dump."""
    partwarden_version: str
    started: datetime
    completed: datetime


class Report(Written):
    """What a Job's pod leaves as its termination message, at most 4,096 bytes of JSON."""

    ok: bool
    reason: str = ""
    """Class name of a `PartwardenError` where it is not ok."""
    message: str = ""
    location: str = ""
    """URL of the archive's folder."""
    id: str = ""
    rows: int = 0
    bytes: int = 0
    sha256: str = ""
    manifest_sha256: str = ""
    fingerprint: Fingerprint | None = None
    oid: int = 0
    server: str = ""
    """The server and database that answered, as `inventory.Server.identity`; empty where the role may not ask."""
    server_version: str = ""
    client_version: str = ""
    started: datetime | None = None
    completed: datetime | None = None
