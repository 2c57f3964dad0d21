"""The PartitionArchive resource: one archive of one partition. The source of ``crds/partitionarchives.yaml``."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from .database import Database
from .destination import Destination
from .job_settings import JobSettings
from .retention import LEVEL_RULE, Compression, Formats, OnLargeObjects
from .status import Condition, From, Message, Moment, ObservedGeneration, To
from .types import Identifier, Model, ObjectName, Rule, Ruled

ARCHIVE_KIND = "PartitionArchive"
ARCHIVE_PLURAL = "partitionarchives"

POLICY_LABEL, TABLE_LABEL, SERVER_LABEL = "partwarden.dev/policy", "partwarden.dev/table", "partwarden.dev/server"
OID_LABEL, ROUND_LABEL = "partwarden.dev/oid", "partwarden.dev/round"
"""Of PartitionArchives that the operator makes: for which policy, and of which table. One made by hand has none."""
HOLD = "partwarden.dev/hold"
"""As a label or an annotation of a PartitionArchive, whatever its value: its objects are never deleted."""


class PolicyRef(Model):
    """A PartitionPolicy in the archive's own namespace."""

    name: ObjectName = Field(description="Name of a PartitionPolicy in the archive's own namespace.")


class PartitionArchiveSpec(Ruled):
    """The partition and the destination. Immutable."""

    RULES = (
        Rule(
            "has(self.policy) || has(self.database)",
            "needs policy, database, or both",
            lambda spec: spec.policy is not None or spec.database is not None,
        ),
        # Only the API server knows what was there before.
        Rule(
            "self == oldSelf",
            "an archive is of one partition for ever: make another PartitionArchive instead",
            lambda _: True,
        ),
        LEVEL_RULE,
    )

    policy: PolicyRef | None = Field(
        None, description="Policy that it belongs to; its spec.database is used where `database` is absent."
    )
    database: Database | None = Field(
        None,
        description="How to connect. Takes precedence over the policy's, and stays valid when the policy is deleted.",
    )
    schema_: Identifier | None = Field(
        None, alias="schema", description="Schema of the partition. Absent: that of the policy's table, else public."
    )
    partition: Identifier = Field(
        description="Name of the partition, or of the table that was detached, as the catalog spells it."
    )
    oid: int | None = Field(
        None, ge=1, le=2**32 - 1, description="OID of that table. If set, another table of the same name is refused."
    )
    destination: Destination = Field(description="Where the archive is written.")
    job: JobSettings | None = Field(
        None,
        description="How the Jobs that make and check it run. Absent, or made by the operator for its policy: as "
        "spec.retention.job of the policy says by then.",
    )
    large_objects: Annotated[OnLargeObjects, Field(strict=False)] | None = Field(
        None,
        description="Refuse or LeaveOut: whether to archive a partition whose rows point to large objects, which the "
        "archive does not hold. Absent: as the policy's retention says, else Refuse.",
    )
    compression: Annotated[Compression, Field(strict=False)] | None = Field(
        None,
        description="How the dump is compressed: Zstd, Gzip or None. Absent: as the policy's retention.archive says, "
        "else Zstd.",
    )
    compression_level: int | None = Field(
        None,
        ge=1,
        le=19,
        description="From 1, the fastest, to 19 of Zstd or 9 of Gzip; needs compression. Absent: as the policy says "
        "for that compression, else 1 of Zstd, 6 of Gzip.",
    )
    formats: Formats | None = Field(
        None,
        description="Dump, and Parquet for queries, which needs the operator's image with the suffix -parquet. Absent: "
        "as the policy's retention.archive says, else [Dump].",
    )


class Written(Model):
    """What is read back may be of a newer version: unknown fields are ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, extra="ignore", strict=False, frozen=True
    )


class Fingerprint(Written):
    """What a table holds, whatever the order of its rows. Equal fingerprints of one algorithm: equal contents."""

    algorithm: str = Field(description="How it was made.")
    rows: int = Field(description="How many rows.")
    content: str = Field(description="Hash of all rows, whatever their order, in lower case hexadecimal digits.")


class CheckStatus(Model):
    """The last reading of the archive."""

    token: str = Field(max_length=256, description="Identifies the reading that was requested.")
    job: str = Field(max_length=63, description="Name of the Job that did it.")
    ok: bool = Field(description="Whether the archive is as it was when it was proven.")
    reason: str | None = Field(None, description="What is wrong with it, in CamelCase.")
    message: Message | None = Field(None, description="The same for people.")
    oid: int | None = Field(None, description="OID of the table that was compared with it.")
    fingerprint: Fingerprint | None = Field(None, description="What the table held then.")
    completed: str | None = Field(None, description="When it ended, by the clock of the database server.")


class VerificationStatus(Model):
    """The last reading by spec.retention.archive.verifyEvery of the policy."""

    job: str = Field(max_length=63, description="Name of the Job that did it.")
    ok: bool = Field(description="Whether the archive is as it was when it was proven.")
    reason: str | None = Field(None, max_length=128, description="What is wrong with it, in CamelCase.")
    message: Message | None = Field(None, description="The same for people.")
    completed: str = Field(description="When it ended.", json_schema_extra={"format": "date-time"})


class ExpiryStatus(Model):
    """How far the deletion of the archive's objects is, by spec.retention.archive.keepFor of the policy."""

    begun: Moment = Field(
        None, description="When its first Job was made: from then on the archive counts as none, whole or not."
    )
    job: str | None = Field(None, max_length=63, description="Name of the last Job that deletes.")
    attempts: int | None = Field(None, ge=0, description="How many of these Jobs failed.")
    reason: str | None = Field(None, max_length=128, description="Why it is not deleted although it is due.")
    message: Message | None = Field(
        None, description="The same for people; once it is deleted, what its destination keeps of it."
    )
    next_attempt: Moment = Field(None, description="When the next attempt is made.")


class LastError(Model):
    """Why the last attempt failed. Absent after one that succeeded."""

    reason: str = Field(max_length=128, description="CamelCase, for programs.")
    message: Message = Field(description="What was found, and the way out.")


AUTOMATIC = "Automatic"
"""``dropped.approval`` where spec.retention.approval is Automatic."""


class Dropped(Model):
    """That the table of the archive is gone. It decides nothing: it is what is left to read."""

    at: str = Field(
        description="When it was dropped, by the operator's clock; with `observed`, when it was seen to be gone.",
        json_schema_extra={"format": "date-time"},
    )
    approval: str | None = Field(
        None,
        description="What approved it: the entry of the annotation partwarden.dev/approve-drop, or Automatic where "
        "spec.retention.approval of the policy is that.",
    )
    operator: str | None = Field(None, description="Version of the operator that dropped it.")
    observed: bool | None = Field(
        None,
        description="true where the operator only saw that the table is gone: it was interrupted before it could write "
        "this down, or a user dropped the table.",
    )


class PartitionArchiveStatus(Model):
    """State of the archive, in kstatus terms. What was proven stays here whatever comes later."""

    observed_generation: ObservedGeneration = None
    conditions: list[Condition] = Field(
        default=[],
        max_length=16,
        description="Ready, Reconciling, Stalled; Archived: there is a manifest; Verified: the archive was read back "
        "and was equal to the table, and has been as it was ever since; Expired, once it is due to be deleted: whether "
        "it is.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    oid: int | None = Field(None, description="OID of the partition.")
    server: str | None = Field(
        None, description="Server and database of the partition: system identifier, and OID of the database."
    )
    from_: From = None
    to: To = None
    id: str | None = Field(None, description="Last part of the folder's name.")
    location: str | None = Field(None, description="URL of the archive's folder.")
    rows: int | None = Field(None, description="How many rows it holds.")
    bytes: int | None = Field(None, description="Size of data.dump.")
    size: str | None = Field(None, description="The same for people, such as 12.3Gi.")
    sha256: str | None = Field(None, description="Of data.dump.")
    manifest_sha256: str | None = Field(None, description="Of manifest.json. Present once the archive is proven.")
    fingerprint: Fingerprint | None = Field(None, description="What the table held when it was archived.")
    server_version: str | None = Field(None, description="Of the PostgreSQL server.")
    client_version: str | None = Field(None, description="Of pg_dump.")
    compression: str | None = Field(
        None, max_length=32, description="How data.dump is compressed, which pg_restore must know: Zstd, Gzip or None."
    )
    formats: list[str] | None = Field(
        None,
        max_length=8,
        description="What it holds the rows as: Dump, and Parquet where data.parquet lies beside data.dump.",
    )
    parquet_bytes: int | None = Field(None, description="Size of data.parquet.")
    started: str | None = Field(None, description="When the archive was begun.")
    completed: str | None = Field(None, description="When it was proven.")
    seconds: int | None = Field(
        None, ge=0, description="How long the Job took that made it, from its creation to its end."
    )
    check: CheckStatus | None = Field(None, description="The last reading of the archive after it was proven.")
    last_verified: Moment = Field(
        None, description="When the archive was last read whole from its destination, and restored what was archived."
    )
    verification: VerificationStatus | None = Field(
        None, description="The last reading by schedule; absent once a later `check` says how the archive is."
    )
    expires_at: Moment = Field(
        None,
        description="When the archive's objects are deleted, unless a hold or the policy keeps them: a day after this "
        "was announced.",
    )
    expiry: ExpiryStatus | None = Field(None, description="How far the deletion is, or what keeps it from being done.")
    expired: Moment = Field(None, description="When the archive's objects were deleted: this is what is left of it.")
    job: str | None = Field(None, description="Name of the Job that worked on it last.")
    attempts: int | None = Field(None, ge=0, description="How many Jobs failed in a row.")
    next_attempt: str | None = Field(None, description="When the next Job starts.")
    phase: str | None = Field(
        None, max_length=32, description="Archiving, Checking, Verifying or Expiring, while a Job is running."
    )
    phase_since: str | None = Field(None, description="When that Job was created; its log says more.")
    progress: int | None = Field(
        None,
        ge=0,
        le=100,
        description="Percent of the rows, by the planner's estimate, that this Job has dumped, a multiple of 5; 100 "
        "once the dump is complete, and is proven. Absent of short Jobs, and where the server does not show it.",
    )
    table_bytes: int | None = Field(
        None, ge=0, description="Size of the table without its indexes, as VACUUM or ANALYZE last counted its pages."
    )
    last_error: LastError | None = Field(None, description="Why the last attempt failed.")
    state: str | None = Field(
        None,
        max_length=32,
        description="All of that in one word: Queued, Dumping, with the percentage where that is known, Verifying, "
        "Verified, Failed, Expiring or Expired.",
    )
    dropped: Dropped | None = Field(None, description="Absent as long as the table is there, as far as is known.")


CONTAINER = "archive"
MANAGED = {"app.kubernetes.io/managed-by": "partwarden", "app.kubernetes.io/component": "archive"}
"""Labels of every Job and of its pods: the operator watches no others."""
SELECTOR = ",".join(f"{key}={value}" for key, value in MANAGED.items())
