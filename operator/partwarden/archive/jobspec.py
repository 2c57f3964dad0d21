"""What a Job does: one JSON document in its environment, without a secret in it.

Credentials come beside it, each in a variable of its own that Kubernetes fills from a Secret: see `DATABASE_PREFIX` and
`STORAGE_PREFIX`.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from ..api.archive import Fingerprint, Written
from ..api.destination import Destination
from ..api.policy import Connection
from ..api.retention import OnLargeObjects
from .manifest import TableName


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
    """``Archive`` makes and proves an archive; ``Check`` reads one again, and compares it with what was proven."""

    ARCHIVE = "Archive"
    CHECK = "Check"


class TableToArchive(Written):
    """A partition of which an archive is to be made, and what is known of it beside the catalog."""

    id: str
    """Of the archive: unique, and the same however often it is tried."""
    partition: TableName
    parent: TableName | None = None
    server: str = ""
    """The server and database that the table is of, as `inventory.Server.identity`: no other may answer. Empty: any."""
    bounds: tuple[str, str] | None = None
    key: str | None = None
    large_objects: OnLargeObjects = OnLargeObjects.REFUSE


class JobSpec(TableToArchive):
    """One thing that a Job does with one partition."""

    task: Task
    connection: Connection | None = None
    """What wins over the database's Secret."""
    destination: Destination
    location: str = ""
    """For ``Check``: the folder's URL, as the report named it."""
    sha256: str = ""
    manifest_sha256: str = ""
    """For ``Check``: what was proven."""
    mount: str = MOUNT
