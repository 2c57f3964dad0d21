"""What becomes of partitions once they exist: the sections of a PartitionPolicy's spec that say so."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from .destination import Destination
from .job_settings import JobSettings
from .types import Age, Grace, Model, Quantity, Rule, Ruled, Window, parse_duration, parse_quantity


class KeyEncoding(StrEnum):
    """How a value of the partition key says when."""

    NATIVE = "Native"
    UUID_V7 = "UUIDv7"
    """RFC 9562: the first 48 bits are Unix milliseconds."""
    EPOCH_SECONDS = "EpochSeconds"
    EPOCH_MILLISECONDS = "EpochMilliseconds"


class Drain(StrEnum):
    """Whether rows of the DEFAULT partition move into a new partition that should hold them."""

    NEVER = "Never"
    AUTO = "Auto"


class OnExpire(StrEnum):
    """What happens to an expired partition."""

    DETACH = "Detach"
    DROP = "Drop"


class Approval(StrEnum):
    """Whether the user must approve each drop."""

    AUTOMATIC = "Automatic"
    MANUAL = "Manual"


class Unaligned(StrEnum):
    """Whether a partition expires that is not exactly one interval, such as one of an interval that was changed."""

    EXPIRE = "Expire"
    KEEP = "Keep"


class OnLargeObjects(StrEnum):
    """What becomes of a partition whose rows point to large objects: an archive of a table holds none."""

    REFUSE = "Refuse"
    LEAVE_OUT = "LeaveOut"


class Compression(StrEnum):
    """How the dump in an archive is compressed."""

    ZSTD = "Zstd"
    GZIP = "Gzip"
    NONE = "None"


HIGHEST_LEVEL = {Compression.ZSTD: 19, Compression.GZIP: 9, Compression.NONE: 0}
"""Of ``compressionLevel``, from 1 on. Above 19 zstd takes memory that a Job does not have."""


def is_level(compression: Compression, level: int | None) -> bool:
    """Whether the method has that level; None is the default of each."""
    return level is None or 1 <= level <= HIGHEST_LEVEL[compression]


LEVEL_RULE = Rule(
    # Without compression the API server fills in the default of a policy; an archive must say it.
    "!has(self.compressionLevel) || (has(self.compression) && "
    "self.compressionLevel <= {'Zstd': 19, 'Gzip': 9, 'None': 0}[self.compression])",
    "must be 1 to 19 with compression: Zstd, 1 to 9 with Gzip, and absent with None or without compression",
    lambda spec: is_level(spec.compression or Compression.NONE, spec.compression_level),
    "compressionLevel",
)
"""Of a model with ``compression`` and ``compressionLevel``."""


class Format(StrEnum):
    """What an archive holds the rows as: the dump is what proves and restores it, Parquet is for queries."""

    DUMP = "Dump"
    PARQUET = "Parquet"


Formats = Annotated[
    list[Annotated[Format, Field(strict=False)]],
    Rule(
        f"self.exists(each, each == '{Format.DUMP}')",
        "must hold Dump: it is what an archive is proven by and restored from; Parquet comes beside it",
        lambda formats: Format.DUMP in formats,
    ),
    Rule(
        "self.all(each, self.exists_one(other, other == each))",
        "must hold each format once",
        lambda formats: len(set(formats)) == len(formats),
    ),
    Field(max_length=8),
]
"""``[Dump]``, or ``[Dump, Parquet]`` in any order."""


class Deletion(StrEnum):
    """Whether an archive may ever be deleted."""

    NEVER = "Never"
    ALLOWED = "Allowed"


class OnClose(StrEnum):
    """What is done once with a partition whose range has passed."""

    NONE = "None"
    VACUUM = "Vacuum"
    VACUUM_AND_REINDEX = "VacuumAndReindex"


class ArchiveSettings(Destination):
    """Where expired partitions are archived, how, and what becomes of their archives."""

    RULES = (
        *Destination.RULES,
        Rule(
            "has(self.keepFor) == (has(self.deletion) && self.deletion == 'Allowed')",
            "keepFor and deletion: Allowed need each other: archives are deleted for good after keepFor, which must be "
            "said twice; leave both out to keep them for ever",
            lambda spec: (spec.keep_for is not None) == (spec.deletion is Deletion.ALLOWED),
            "keepFor",
        ),
        LEVEL_RULE,
    )

    compression: Annotated[Compression, Field(strict=False)] = Field(
        Compression.ZSTD,
        description="How dumps are compressed. Zstd: by zstd where pg_dump can, from PostgreSQL 16 on, else by gzip, "
        "and the Job's log says why. Gzip; None. Default: Zstd.",
    )
    compression_level: int | None = Field(
        None,
        ge=1,
        le=19,
        description="From 1, the fastest, to 19 of Zstd or 9 of Gzip. Absent: 1 of Zstd, 6 of Gzip.",
    )
    formats: Formats = Field(
        [Format.DUMP],
        description="Dump, and Parquet for archives that DuckDB and others query: data.parquet beside data.dump, "
        "which needs the operator's image with the suffix -parquet. Archives that were made already stay as they are. "
        "Default: [Dump].",
    )
    verify_every: Age | None = Field(
        None,
        description="How often each archive is read again from its destination, and proven to restore what was "
        "archived, such as 90d: a number of h, d, w, mo or y. Absent: only before a drop.",
    )
    keep_for: Age | None = Field(
        None,
        description="How long after the drop of its table an archive is kept, such as 10y: then its objects are "
        "deleted for good, and its PartitionArchive stays as a record. Needs deletion: Allowed. Absent: for ever.",
    )
    deletion: Annotated[Deletion, Field(strict=False)] = Field(
        Deletion.NEVER, description="Allowed: archives may be deleted after keepFor, which needs this. Default: Never."
    )

    @property
    def place(self) -> Destination:
        """The destination alone, by which archives are identified, however they are made and kept."""
        return Destination(pvc=self.pvc, s3=self.s3, gcs=self.gcs, azure=self.azure)


class DefaultPartition(Model):
    """The DEFAULT partition, which takes rows that no other partition holds."""

    ensure: bool = Field(False, description="Create one if there is none. Default: false.")
    drain: Annotated[Drain, Field(strict=False)] = Field(
        Drain.NEVER,
        description="Auto moves rows of the DEFAULT partition that belong in a new partition into it, in the "
        "transaction that makes it. Default: Never.",
    )
    drain_max_rows: int = Field(
        100_000,
        ge=1,
        le=10_000_000,
        description="Most rows to move into one partition; if there are more, none is moved, and a finding says so. "
        "Default: 100000.",
    )


class Retention(Ruled):
    """When a partition expires, and what becomes of it then."""

    RULES = (
        Rule(
            "!has(self.onExpire) || self.onExpire != 'Drop' || has(self.archive) || "
            "(has(self.dropWithoutArchive) && self.dropWithoutArchive)",
            "Drop needs archive, or dropWithoutArchive: true, which says that the rows are lost for good",
            lambda spec: spec.on_expire is not OnExpire.DROP or spec.archive is not None or spec.drop_without_archive,
            "onExpire",
        ),
        Rule(
            "!has(self.archive) || !has(self.dropWithoutArchive) || !self.dropWithoutArchive",
            "archive and dropWithoutArchive: true contradict each other: keep one of them",
            lambda spec: spec.archive is None or not spec.drop_without_archive,
            "dropWithoutArchive",
        ),
    )

    keep_for: Age = Field(
        description="A partition expires when its whole range is older than this: a number of h, d, w, mo or y, such "
        "as 90d or 5y, counted by the calendar of spec.timezone."
    )
    on_expire: Annotated[OnExpire, Field(strict=False)] = Field(
        OnExpire.DETACH,
        description="Detach makes an expired partition a table of its own; Drop also drops that table after the "
        "grace. Default: Detach.",
    )
    unaligned: Annotated[Unaligned, Field(strict=False)] = Field(
        Unaligned.EXPIRE,
        description="Partitions with two bounds that are not exactly one interval, such as those from before interval "
        "or timezone was changed: Expire judges them by their bounds like all others; Keep leaves them attached, "
        "whatever their age. Default: Expire.",
    )
    archive: ArchiveSettings | None = Field(
        None,
        description="Where expired partitions are archived, and for how long. An expired partition is detached only "
        "once its archive was read back and is equal to it, and dropped only while it still is. Absent: nothing is "
        "archived.",
    )
    drop_without_archive: bool = Field(
        False,
        description="true says that expired rows may be lost for good; Drop without archive needs it. Default: false.",
    )
    large_objects: Annotated[OnLargeObjects, Field(strict=False)] = Field(
        OnLargeObjects.REFUSE,
        description="An archive holds no large objects, only their OIDs. Refuse: a partition whose rows point to large "
        "objects is neither archived nor dropped, and reported. LeaveOut: it is archived without them. "
        "Default: Refuse.",
    )
    grace: Grace = Field(
        "24h", description="Time between detaching and dropping, such as 24h, 30m or 0s. Default: 24h."
    )
    approval: Annotated[Approval, Field(strict=False)] = Field(
        Approval.AUTOMATIC,
        description="Manual: a table is dropped only once the annotation partwarden.dev/approve-drop of the policy "
        "names it. Default: Automatic.",
    )
    max_retirements: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Most partitions that a reconcile may retire at once, those that wait for their archive included. "
        "If more are due, none is archived, detached or dropped before the annotation partwarden.dev/approve-plan "
        "names status.planDigest. Absent: 10, or 72 where spec.interval is Hour.",
    )
    job: JobSettings | None = Field(
        None,
        description="How the Jobs that make and check archives run, and those of a PartitionRestore that does not say.",
    )

    @property
    def grace_period(self) -> timedelta:
        """Time between detaching and dropping."""
        return parse_duration(self.grace)


class Thresholds(Model):
    """Limits whose crossing is reported and changes nothing."""

    partition_size: Quantity | None = Field(
        None, description="A partition larger than this, indexes and TOAST included, is reported; such as 10Gi."
    )

    @property
    def partition_bytes(self) -> int | None:
        """``partitionSize`` in bytes."""
        return None if self.partition_size is None else parse_quantity(self.partition_size)


class Maintenance(Model):
    """Upkeep beside making partitions."""

    on_close: Annotated[OnClose, Field(strict=False)] = Field(
        OnClose.NONE,
        description="Vacuum runs VACUUM (ANALYZE, FREEZE) once on a partition whose range has passed; "
        "VacuumAndReindex also rebuilds its indexes, concurrently. Default: None.",
    )
    window: Window | None = Field(
        None,
        description="Times of day, by spec.timezone, between which upkeep may begin, such as 01:00-05:00. "
        "Absent: at any time.",
    )
    analyze_parent: bool = Field(
        True,
        description="Whether the parent's statistics are renewed when its partitions changed enough: autovacuum never "
        "does. Default: true.",
    )
