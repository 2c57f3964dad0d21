"""The PartitionRestore resource: one archive, or those that a period is made of, restored once. The source of
``crds/partitionrestores.yaml``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from .archive import LastError, PolicyRef
from .database import Database
from .destination import PREFIX, Destination
from .job_settings import JobSettings
from .period import PeriodText
from .status import Condition, ObservedGeneration
from .types import HINTS, Age, Identifier, Model, ObjectName, Rule, Ruled

RESTORE_KIND = "PartitionRestore"
RESTORE_PLURAL = "partitionrestores"

SHA256 = r"^[0-9a-f]{64}$"
HINTS |= {SHA256: "must be a sha256: 64 hexadecimal digits in lower case"}
MOST_ARCHIVES = 400
"""Of one period: each day of a year, and what a status has room for."""
MOST_LEFT_OFF = 20
"""Entries of ``status.leftOff``: what a Job's report has room for is less in most cases."""
NO_DOTS = Rule(
    "!self.matches('(^|/)[.][.]?(/|$)')",
    "must not have . or .. as a folder: it does not lead out of the destination",
    lambda folder: not any(part in (".", "..") for part in folder.split("/")),
)


class ArchiveRef(Model):
    """A PartitionArchive in the restore's own namespace."""

    name: ObjectName = Field(description="Name of a PartitionArchive in the restore's own namespace.")


class ArchiveLocation(Model):
    """An archive of which no PartitionArchive is left, or that another cluster made."""

    destination: Destination = Field(description="Where archives are, as in a PartitionArchive.")
    folder: Annotated[str, NO_DOTS] = Field(
        min_length=1,
        max_length=1024,
        pattern=PREFIX,
        description="The archive's folder below that: database, table, partition and identifier, such as "
        "orchestrator/public.run/run_2019/run-run-2019-5ea733734c-0123456789-89abcdef.",
    )
    manifest_sha256: Annotated[str, StringConstraints(pattern=SHA256)] | None = Field(
        None, description="What the sha256 of its manifest.json must be. Absent: any."
    )


class NewTable(Model):
    """The table that is made."""

    schema_: Identifier | None = Field(
        None, alias="schema", description="An existing schema. Absent: that of the archived table."
    )
    name: Identifier | None = Field(
        None,
        description="A name that no table of the schema has. Absent: what the archived partition was called; needed "
        "so where `period` is made up of several archives, each of which becomes a table.",
    )


FIXED = ("archive", "location", "period", "policy", "database", "__as__", "job")
"""What is never changed; by the names that CEL has."""
UNCHANGED = " && ".join(
    (
        *(
            f"has(self.{each}) == has(oldSelf.{each}) && (!has(self.{each}) || self.{each} == oldSelf.{each})"
            for each in FIXED
        ),
        "self.attach == oldSelf.attach",
    )
)


class PartitionRestoreSpec(Ruled):
    """Which archive, and what of it is made where. Immutable, but for expireAfter."""

    RULES = (
        Rule(
            "[has(self.archive), has(self.location), has(self.period)].filter(x, x).size() == 1",
            "needs exactly one of archive, location and period",
            lambda spec: sum(each is not None for each in (spec.archive, spec.location, spec.period)) == 1,
        ),
        Rule(
            "has(self.policy) || has(self.database)",
            "needs policy, database, or both",
            lambda spec: spec.policy is not None or spec.database is not None,
        ),
        Rule(
            "!has(self.period) || has(self.policy)",
            "period needs policy: it is of the policy's calendar, and the archive one of the policy's",
            lambda spec: spec.period is None or spec.policy is not None,
            "period",
        ),
        Rule(
            "has(self.__as__) != self.attach",
            "needs either as, for a table of its own, or attach: true, for a partition",
            lambda spec: (spec.as_ is not None) != spec.attach,
        ),
        Rule(
            "!has(self.expireAfter) || !self.attach",
            "expireAfter is for a table of its own, by as: a partition that came back is the policy's table again, and "
            "is never dropped by a PartitionRestore; leave expireAfter out",
            lambda spec: spec.expire_after is None or not spec.attach,
            "expireAfter",
        ),
        # Only the API server knows what was there before.
        Rule(
            UNCHANGED,
            "a restore is done once, and only expireAfter can be changed: make another PartitionRestore instead",
            lambda _: True,
        ),
    )

    archive: ArchiveRef | None = Field(None, description="The archive, by its PartitionArchive.")
    location: ArchiveLocation | None = Field(None, description="The archive, by where it lies.")
    period: PeriodText | None = Field(
        None,
        description="The archive, by its range: the newest proven one that was made for the policy, and whose range is "
        "that period, such as '2019' or '2019-06', in the policy's calendar; else all those that make the period up "
        f"without a hole or an overlap, the newest of each range, {MOST_ARCHIVES} at most, one after the other.",
    )
    policy: PolicyRef | None = Field(
        None,
        description="Policy whose spec.database is used where `database` is absent, and whose table `attach` means.",
    )
    database: Database | None = Field(
        None,
        description="How to connect; the role must be allowed to create tables. Takes precedence over the policy's.",
    )
    as_: NewTable | None = Field(
        None, alias="as", description="Restore it as a table of its own, of this name, with no tie to any other."
    )
    attach: bool = Field(
        False,
        description="Restore it under its own name as a partition, for its old bounds, of the policy's table, or, "
        "without policy, of the table that it belonged to. Retention leaves it alone. Default: false.",
    )
    expire_after: Age | None = Field(
        None,
        description="How long after status.completed a table of its own is dropped again, if nothing in it changed "
        "since, and the archive restores all of it: such as 14d. Else it stays, and the condition Expired says why. "
        "May be changed, added and removed at any time. Absent: never.",
    )
    job: JobSettings | None = Field(
        None, description="How its Jobs run. Absent: as spec.retention.job of the policy says."
    )


class ExpiryStatus(Model):
    """The last attempt to drop a table whose time is over."""

    job: str | None = Field(None, max_length=63, description="Name of the Job that drops it now.")
    reason: str | None = Field(None, max_length=128, description="Why it stays, in one word.")
    message: str | None = Field(None, max_length=2048, description="The same in a sentence.")
    attempts: int | None = Field(None, ge=0, description="How many attempts found that it must stay.")
    next_attempt: str | None = Field(None, description="When that is found out anew.")


class RestoredArchive(Model):
    """One of several archives."""

    archive: str = Field(max_length=253, description="Name of the PartitionArchive.")
    from_: str | None = Field(None, alias="from", description="Lower bound of its range.")
    to: str | None = Field(None, description="Upper bound.")
    state: str = Field(
        max_length=32, description="Waiting, Restoring, Restored or Failed; then Dropping, Dropped or Kept."
    )
    location: str | None = Field(None, description="URL of the archive's folder.")
    manifest_sha256: str | None = Field(None, description="sha256 of the manifest that was restored.")
    table: str | None = Field(None, description="Schema and name of the table that was made.")
    oid: int | None = Field(None, description="OID of that table.")
    attached_to: str | None = Field(None, description="Schema and name of the table that it is a partition of.")
    rows: int | None = Field(None, description="How many rows were restored.")
    left_off: list[Annotated[str, StringConstraints(max_length=512)]] = Field(
        default=[], max_length=MOST_LEFT_OFF, description="As in the status; the first two."
    )
    left_off_count: int | None = Field(None, description="How many there are.")
    server: str | None = Field(None, description="Server and database of the table.")
    completed: str | None = Field(None, description="When the table was there.")
    dropped: str | None = Field(None, description="When it was dropped again, by expireAfter.")
    expiry: ExpiryStatus | None = Field(None, description="The last attempt to do so.")


class PartitionRestoreStatus(Model):
    """State of the restore, in kstatus terms. Once Restored is True nothing is done for it any more."""

    observed_generation: ObservedGeneration = None
    conditions: list[Condition] = Field(
        default=[],
        max_length=16,
        description="Ready, Reconciling, Stalled; Restored: the table was made, and held what the archive holds; "
        "Expired: it was dropped again, or when it will be, or why it stays.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    archive: str | None = Field(
        None,
        max_length=253,
        description="Name of the PartitionArchive; chosen once where spec.period says which. Of several, how many.",
    )
    archives: list[RestoredArchive] = Field(
        default=[],
        max_length=MOST_ARCHIVES,
        description="The archives that make spec.period up, where they are several, the oldest range first; chosen "
        "once.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["archive"]},
    )
    location: str | None = Field(None, description="URL of the archive's folder.")
    manifest_sha256: str | None = Field(None, description="sha256 of the manifest that was restored.")
    table: str | None = Field(
        None, description="Schema and name of the table that was made. Of several, how many there are."
    )
    oid: int | None = Field(None, description="OID of that table.")
    attached_to: str | None = Field(None, description="Schema and name of the table that it is a partition of.")
    rows: int | None = Field(None, description="How many rows were restored.")
    left_off: list[Annotated[str, StringConstraints(max_length=512)]] = Field(
        default=[],
        max_length=MOST_LEFT_OFF,
        description="What of the archived table the rows or the database did not allow to be put back: type, "
        "generation, constraint or collation of a column. The rows are all there.",
    )
    left_off_count: int | None = Field(None, description="How many there are, where not all have room in leftOff.")
    server: str | None = Field(
        None, description="Server and database of the table: system identifier, and OID of the database."
    )
    completed: str | None = Field(None, description="When the table was there.")
    expires_at: str | None = Field(
        None, description="When the table is dropped again by expireAfter, if nothing in it changed by then."
    )
    dropped: str | None = Field(None, description="When it was.")
    expiry: ExpiryStatus | None = Field(None, description="The last attempt to do so.")
    seconds: int | None = Field(None, ge=0, description="How long its Jobs took, from their creation to their end.")
    job: str | None = Field(None, description="Name of the Job that worked on it last.")
    attempts: int | None = Field(None, ge=0, description="How many Jobs failed in a row.")
    next_attempt: str | None = Field(None, description="When the next Job starts.")
    last_error: LastError | None = Field(None, description="Why the last attempt failed.")
    state: str | None = Field(
        None,
        max_length=32,
        description="All of that in one word: Waiting, for the archive or a slot, Restoring, Restored or Failed; then "
        "Dropping, Dropped, or Kept where expireAfter is over and the table stays.",
    )
