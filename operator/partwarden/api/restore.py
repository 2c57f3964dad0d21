"""The PartitionRestore resource: one archive that is restored once. The source of ``crds/partitionrestores.yaml``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from .archive import LastError, PolicyRef
from .database import Database
from .destination import PREFIX, Destination
from .period import PeriodText
from .retention import JobSettings
from .status import Condition, ObservedGeneration
from .types import HINTS, Identifier, Model, ObjectName, Rule, Ruled

RESTORE_KIND = "PartitionRestore"
RESTORE_PLURAL = "partitionrestores"

SHA256 = r"^[0-9a-f]{64}$"
HINTS |= {SHA256: "must be a sha256: 64 hexadecimal digits in lower case"}
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
    name: Identifier = Field(description="A name that no table of the schema has.")


class PartitionRestoreSpec(Ruled):
    """Which archive, and what of it is made where. Immutable."""

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
        # Only the API server knows what was there before.
        Rule(
            "self == oldSelf",
            "a restore is of one archive, once: make another PartitionRestore instead",
            lambda _: True,
        ),
    )

    archive: ArchiveRef | None = Field(None, description="The archive, by its PartitionArchive.")
    location: ArchiveLocation | None = Field(None, description="The archive, by where it lies.")
    period: PeriodText | None = Field(
        None,
        description="The archive, by its range: the newest proven one that was made for the policy, and whose range is "
        "that period, such as '2019' or '2019-06', in the policy's calendar.",
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
    job: JobSettings | None = Field(None, description="How the Job runs.")


class PartitionRestoreStatus(Model):
    """State of the restore, in kstatus terms. Once Restored is True nothing is done for it any more."""

    observed_generation: ObservedGeneration = None
    conditions: list[Condition] = Field(
        default=[],
        max_length=16,
        description="Ready, Reconciling, Stalled; Restored: the table was made, and held what the archive holds.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    archive: str | None = Field(
        None, max_length=253, description="Name of the PartitionArchive; chosen once where spec.period says which."
    )
    location: str | None = Field(None, description="URL of the archive's folder.")
    table: str | None = Field(None, description="Schema and name of the table that was made.")
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
    seconds: int | None = Field(None, ge=0, description="How long the Job took, from its creation to its end.")
    job: str | None = Field(None, description="Name of the Job that worked on it last.")
    attempts: int | None = Field(None, ge=0, description="How many Jobs failed in a row.")
    next_attempt: str | None = Field(None, description="When the next Job starts.")
    last_error: LastError | None = Field(None, description="Why the last attempt failed.")
    state: str | None = Field(
        None,
        max_length=32,
        description="All of that in one word: Waiting, for the archive or a slot, Restoring, Restored or Failed.",
    )
