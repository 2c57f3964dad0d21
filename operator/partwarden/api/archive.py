"""The PartitionArchive resource: one archive of one partition. Its fields, their defaults and their validation.

The source of ``crds/partitionarchives.yaml``, as `partwarden.policy` is of the other.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from .database import Database
from .destination import Destination
from .retention import JobSettings, OnLargeObjects
from .status import Condition, From, Message, ObservedGeneration, To
from .types import OBJECT_NAME, Identifier, Model, cel, refuse, rules

ARCHIVE_KIND = "PartitionArchive"
ARCHIVE_PLURAL = "partitionarchives"

POLICY_LABEL, SERVER_LABEL = "partwarden.dev/policy", "partwarden.dev/server"
OID_LABEL, ROUND_LABEL = "partwarden.dev/oid", "partwarden.dev/round"
"""Of PartitionArchives that the operator makes: for which policy, and of which table. One made by hand has none."""

NEEDS_DATABASE = "needs policy, database, or both"
IMMUTABLE = "an archive is of one partition for ever: make another PartitionArchive instead"


class PolicyRef(Model):
    """A PartitionPolicy in the archive's own namespace."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=OBJECT_NAME)] = Field(
        description="Name of a PartitionPolicy in the archive's own namespace."
    )


class PartitionArchiveSpec(Model):
    """Of which partition, and where to. It cannot be changed afterwards."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel("has(self.policy) || has(self.database)", NEEDS_DATABASE), cel("self == oldSelf", IMMUTABLE)
        )
    )

    policy: PolicyRef | None = Field(
        None, description="The policy that it is for: it says how to connect where `database` does not."
    )
    database: Database | None = Field(
        None, description="How to connect; wins over the policy's, and serves when there is no policy any more."
    )
    schema_: Identifier | None = Field(
        None, alias="schema", description="Schema of the partition. Absent: that of the policy's table, else public."
    )
    partition: Identifier = Field(
        description="Name of the partition, or of the table that was detached, as the catalog spells it."
    )
    oid: int | None = Field(
        None, ge=1, le=2**32 - 1, description="OID of that table: where it is known, no other of that name is meant."
    )
    destination: Destination = Field(description="Where the archive goes.")
    job: JobSettings | None = Field(None, description="How the Jobs run that make and check it.")
    large_objects: Annotated[OnLargeObjects, Field(strict=False)] | None = Field(
        None,
        description="Whether it is made where rows point to large objects, which it does not hold: Refuse or LeaveOut. "
        "Absent: as the policy's retention says, else Refuse.",
    )

    @model_validator(mode="after")
    def _has_database(self) -> Self:
        if self.policy is None and self.database is None:
            raise refuse(NEEDS_DATABASE)
        return self


class FingerprintStatus(Model):
    """What the table held. Equal fingerprints of one algorithm: equal contents."""

    algorithm: str = Field(description="How it was made.")
    rows: int = Field(description="How many rows.")
    content: str = Field(description="Hash of all rows in whatever order.")


class CheckStatus(Model):
    """The last time that the archive was read again."""

    token: str = Field(max_length=256, description="Which check it was.")
    job: str = Field(max_length=63, description="Name of the Job that did it.")
    ok: bool = Field(description="Whether the archive is as it was when it was proven.")
    reason: str | None = Field(None, description="CamelCase; what is wrong with it.")
    message: Message | None = Field(None, description="The same for people.")
    oid: int | None = Field(None, description="OID of the table that was looked at beside it.")
    fingerprint: FingerprintStatus | None = Field(None, description="What the table held at that time.")
    completed: str | None = Field(None, description="When.")


class LastError(Model):
    """Why the last attempt failed; gone after one that did not."""

    reason: str = Field(max_length=128, description="CamelCase, for programs.")
    message: Message = Field(description="What was found, and the way out.")


class PartitionArchiveStatus(Model):
    """What became of it, in kstatus terms. What was proven stays here whatever comes later."""

    observed_generation: ObservedGeneration = None
    conditions: list[Condition] = Field(
        default=[],
        max_length=16,
        description="Ready, Reconciling, Stalled; Archived: there is a manifest; Verified: the archive was read back "
        "and was equal to the table, and has been as it was ever since.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    oid: int | None = Field(None, description="OID of the partition.")
    server: str | None = Field(
        None, description="Server and database that it is of: system identifier, and OID of the database."
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
    fingerprint: FingerprintStatus | None = Field(None, description="What the table held when it was archived.")
    server_version: str | None = Field(None, description="Of the PostgreSQL server.")
    client_version: str | None = Field(None, description="Of pg_dump.")
    started: str | None = Field(None, description="When the archive was begun.")
    completed: str | None = Field(None, description="When it was proven.")
    check: CheckStatus | None = Field(None, description="The last time that it was read again.")
    job: str | None = Field(None, description="Name of the Job that worked on it last.")
    attempts: int | None = Field(None, ge=0, description="How many Jobs failed in a row.")
    next_attempt: str | None = Field(None, description="When the next is made.")
    phase: str | None = Field(None, max_length=32, description="Archiving or Checking, while a Job is under way.")
    phase_since: str | None = Field(None, description="When that Job was made. Its log has the percent.")
    table_bytes: int | None = Field(
        None, ge=0, description="Size of the table without its indexes, as VACUUM or ANALYZE last counted its pages."
    )
    last_error: LastError | None = Field(None, description="Why the last attempt failed.")


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


CONTAINER = "archive"
MANAGED = {"app.kubernetes.io/managed-by": "partwarden", "app.kubernetes.io/component": "archive"}
"""Labels of every Job and of its pods: the operator watches no others."""
SELECTOR = ",".join(f"{key}={value}" for key, value in MANAGED.items())
