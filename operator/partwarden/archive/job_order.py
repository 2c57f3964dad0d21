"""The orders of Jobs and their reports: the documents between the operator and the pod of a Job."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from ..api.archive import Fingerprint, Written
from ..api.database import Connection
from ..api.destination import Destination
from ..api.retention import Compression, Format, KeyEncoding, OnLargeObjects
from ..api.status import MAX_REASON
from .manifest import TableName

# What a Job does stands in its environment as one JSON document, without a secret in it. Credentials come beside it,
# each in a variable of its own that Kubernetes fills from a Secret.
VARIABLE = "PARTWARDEN_ORDER"
DATABASE_PREFIX, STORAGE_PREFIX = "PARTWARDEN_DB_", "PARTWARDEN_STORAGE_"
"""Followed by the key of the Secret with everything but letters and digits made ``_``: ``PARTWARDEN_DB_ca_crt``."""
DATABASE_KEYS = (
    *("uri", "host", "port", "dbname", "database"),
    *("user", "username", "password", "sslmode", "sslrootcert", "ca.crt"),
)
STORAGE_KEYS = (
    *("accessKeyId", "secretAccessKey", "sessionToken"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("ca.crt", "credentials.json", "accountKey", "sasToken"),
)
WRONG = 3
"""Exit code of a Job's program where a `UserError` ended it: the same again would not help. Anything else may pass."""
MOUNT = "/archives"
"""Where the Job's pod has the PersistentVolumeClaim."""


class Task(StrEnum):
    """``Archive`` makes and proves an archive; ``Check`` reads one again, and compares it with what was proven;
    ``Verify`` does so without the table; ``Expire`` deletes one for good; ``Restore`` makes a table of one; ``Drop``
    drops that table again, if it is still equal to the archive."""

    ARCHIVE = "Archive"
    CHECK = "Check"
    VERIFY = "Verify"
    EXPIRE = "Expire"
    RESTORE = "Restore"
    DROP = "Drop"


class JobOrder(Written):
    """What every order says: what to do, how to reach the database, and where archives lie."""

    task: Task
    connection: Connection | None = None
    """What wins over the database's Secret."""
    destination: Destination
    mount: str = MOUNT


class TableToArchive(Written):
    """A partition of which an archive is to be made, and what is known of it beside the catalog."""

    id: str
    """Of the archive: unique, and the same however often it is tried."""
    partition: TableName
    parent: TableName | None = None
    server: str = ""
    """The server and database that the table is of, as `inventory.Server.identity`: no other may answer. Empty: any."""
    encoding: KeyEncoding = KeyEncoding.NATIVE
    """Of the key: by it the bounds of a detached table are spelled where none of its constraints does."""
    large_objects: OnLargeObjects = OnLargeObjects.REFUSE
    compression: Compression = Compression.ZSTD
    compression_level: int | None = None
    """None: the default of that compression."""
    formats: tuple[Format, ...] = (Format.DUMP,)


class JobSpec(TableToArchive, JobOrder):
    """One thing that a Job does with one partition."""

    location: str = ""
    """For ``Check``, ``Verify`` and ``Expire``: the folder's URL, as the report named it."""
    sha256: str = ""
    manifest_sha256: str = ""
    """For the same: what was proven."""
    begun: bool = False
    """For ``Expire``: whether an earlier Job may have deleted all, and not have reported it."""


class RestoreOrder(JobOrder):
    """The table that a Job makes for one PartitionRestore of the archive whose folder has the URL ``location``."""

    task: Literal[Task.RESTORE] = Task.RESTORE
    uid: str
    """Of the PartitionRestore: with it the table is marked, and so made once however often this is tried."""
    location: str
    manifest_sha256: str = ""
    schema_: str | None = Field(None, alias="schema")
    name: str | None = None
    """Of the new table; None for what it was called."""
    attach: bool = False
    parent: tuple[str, str] | None = None
    """Schema and name of the table to attach it to; None for the one that it belonged to."""


class DropOrder(JobOrder):
    """The table that was made for one PartitionRestore, and is to be dropped again."""

    task: Literal[Task.DROP] = Task.DROP
    uid: str
    """As in its mark."""
    table: str
    """What it was called, for messages: it is found by its ``oid``, on ``server``, an `inventory.Server.identity`."""
    oid: int
    server: str = ""
    location: str
    manifest_sha256: str
    """Of the archive that it was made from."""
    due: AwareDatetime
    """Not before then, also by the server's clock."""


class RestoredTable(Written):
    """The table that a Job has made; of what was left off as many, for people, as there is room for."""

    schema_: str = Field(alias="schema")
    name: str
    attached_to: str = ""
    left_off: tuple[str, ...] = ()
    left_off_count: int = 0


def _of_our_time(moment: datetime) -> datetime:
    """Raises ValueError. What is farther away cannot be converted to every time zone."""
    if not 1000 <= moment.year <= 8999:
        raise ValueError("must be between the years 1000 and 8999")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_of_our_time)]


class Report(Written):
    """What a Job's pod leaves as its termination message, at most 4,096 bytes of JSON."""

    ok: bool
    reason: str = Field("", max_length=MAX_REASON)
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
    compression: Compression | None = None
    formats: tuple[Format, ...] | None = None
    parquet_bytes: int | None = None
    started: Moment | None = None
    completed: Moment | None = None
    restored: RestoredTable | None = None
    """Of ``Restore``: ``oid``, ``rows`` and ``server`` are those of this table, too."""
