"""``status.summary.forecast`` of a PartitionPolicy: what is to be expected of its table and its archives."""

from __future__ import annotations

from pydantic import Field

from .types import Model


class Forecast(Model):
    """What is to be expected, from what was measured. All numbers have two significant digits; what was not measured is
    absent."""

    partitions: int = Field(description="Of how many partitions, the newest whose ranges have passed, it is made.")
    rows_per_day: int | None = Field(
        None, description="Rows that come in a day, by the planner's estimates; absent where these are missing."
    )
    bytes_per_day: int = Field(description="Bytes on disk, with indexes and TOAST, that come in a day.")
    growth_percent: int | None = Field(
        None, description="By how many percent bytesPerDay grows in 30 days; absent where no trend shows."
    )
    next_partition_bytes: int = Field(description="Size that the partition after the current one will have.")
    threshold_reached: str | None = Field(
        None,
        description="The day, in spec.timezone, on which a partition grows beyond spec.thresholds.partitionSize; "
        "absent where none does within ten years.",
    )
    archives: int | None = Field(None, description="Of how many archives, the newest, the following is made.")
    archive_bytes_per_day: int | None = Field(None, description="Bytes of archives that a day of rows becomes.")
    next_archive: str | None = Field(
        None,
        description="Name of the partition that is archived next: the oldest that has no archive, and is not held.",
    )
    next_archive_bytes: int | None = Field(
        None, description="Size that its archive will have; absent where none of about that size was made yet."
    )
    next_archive_seconds: int | None = Field(None, description="Seconds that its Job will take.")
    claim_full: str | None = Field(
        None,
        description="The day, in UTC, on which archives fill the PersistentVolumeClaim, by its capacity and what all "
        "policies archive there; absent where that is not known, or later than in ten years.",
    )
