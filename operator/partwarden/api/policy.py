"""The PartitionPolicy resource: its fields, their defaults and their validation.

The source of ``crds/partitionpolicies.yaml`` (see `partwarden.crd`), and of what ``kubectl explain`` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from .database import Database
from .retention import DefaultPartition, KeyEncoding, Maintenance, Retention, Thresholds
from .types import (
    HINTS,
    NOT_A_ZONE,
    Day,
    Identifier,
    Interval,
    Model,
    Resync,
    cel,
    is_zone,
    parse_duration,
    refuse,
    rules,
)

# The annotation that keeps partitions: ``partwarden.dev/hold: run_2018, archive.run_2017``.
#
# It names partitions, or detached tables, as the catalog spells them, with their schema or without, and with ``@`` and
# their OID or without. Nothing is detached, attached again or dropped that it names.
#

ANNOTATION = "partwarden.dev/hold"
APPROVAL = "partwarden.dev/approve-drop"
"""Names in the same way what may be dropped, where the policy's ``retention.approval`` is Manual. With the OID,
``run_2018@16402``, it means that very table and no later one of the name."""


LONGEST_ANNOTATION, MOST_NAMES = 64 << 10, 1000
"""Characters of such an annotation, and names in it."""
UNREAD = "\0"
"""Stands for all that an annotation may name that is beyond those. No table is called so."""


def parse(annotations: Mapping[str, str] | None, annotation: str = ANNOTATION) -> frozenset[str]:
    """The names in the annotation; none where there is no such annotation, `UNREAD` alone where it is too long.

    What is too long holds every table (see `is_held`), and approves none.
    """
    text = (annotations or {}).get(annotation, "")
    if len(text) > LONGEST_ANNOTATION or text.count(",") >= MOST_NAMES:
        return frozenset({UNREAD})
    return frozenset(name for part in text.split(",") if (name := part.strip()))


def is_held(held: frozenset[str], schema: str, name: str, oid: int) -> bool:
    """Whether a hold names the table, or is too long to be read."""
    return UNREAD in held or not held.isdisjoint(names(schema, name, oid))


def names(schema: str, name: str, oid: int) -> frozenset[str]:
    """What a hold, or an approval, may call this table."""
    return frozenset({name, f"{schema}.{name}", f"{name}@{oid}", f"{schema}.{name}@{oid}"})


GROUP = "partwarden.dev"
VERSION = "v1alpha1"
KIND = "PartitionPolicy"
PLURAL = "partitionpolicies"
API_VERSION = f"{GROUP}/{VERSION}"

PLACEHOLDERS = ("table", "year", "quarter", "month", "isoyear", "week", "day", "hour")
"""What ``nameFormat`` may hold in braces. All but ``table`` have a fixed width, so names differ where they do."""

UNIQUE: dict[Interval, tuple[frozenset[str], ...]] = {
    Interval.YEAR: (frozenset({"year"}),),
    Interval.QUARTER: (frozenset({"year", "quarter"}), frozenset({"year", "month"})),
    Interval.MONTH: (frozenset({"year", "month"}),),
    Interval.WEEK: (frozenset({"isoyear", "week"}), frozenset({"year", "month", "day"})),
    Interval.DAY: (frozenset({"year", "month", "day"}),),
    Interval.HOUR: (frozenset({"year", "month", "day", "hour"}),),
}
"""The placeholders of which ``nameFormat`` must hold one whole set, or two partitions would bear one name."""

NAME_FORMAT = r"^([^{}\x00-\x1f\x7f]|\{(" + "|".join(PLACEHOLDERS) + r")\})+$"
TIME_ZONE = r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$"
HINTS |= {
    NAME_FORMAT: "must be text and placeholders, of which there are "
    + ", ".join(f"{{{name}}}" for name in PLACEHOLDERS),
    TIME_ZONE: "must be the name of an IANA time zone, like UTC or Europe/Berlin",
}


class Mode(StrEnum):
    """Whether the plan is executed."""

    APPLY = "Apply"
    PLAN = "Plan"


class Table(Model):
    """The partitioned table."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel(
                "!self.schema.startsWith('pg_') && self.schema != 'information_schema'",
                "must not be a system schema",
                ".schema",
            )
        )
    )

    schema_: Identifier = Field(
        "public",
        alias="schema",
        description="Schema of the table, as it is spelt in the catalog, without quotes. Default: public.",
    )
    name: Identifier = Field(description="Name of the table, as it is spelt in the catalog, without quotes.")

    @model_validator(mode="after")
    def _is_not_system(self) -> Self:
        if self.schema_.startswith("pg_") or self.schema_ == "information_schema":
            raise refuse("must not be a system schema", "schema")
        return self

    def __str__(self) -> str:
        return f"{self.schema_}.{self.name}"


def _name_format_rule() -> dict[str, str]:
    def holds(names: frozenset[str]) -> str:
        return " && ".join(f"self.nameFormat.contains('{{{name}}}')" for name in sorted(names))

    choices = [
        f"self.interval != '{interval}' || " + " || ".join(f"({holds(names)})" for names in sets)
        for interval, sets in UNIQUE.items()
    ]
    rule = "!has(self.nameFormat) || (" + " && ".join(f"({choice})" for choice in choices) + ")"
    return cel(rule, NAME_FORMAT_MESSAGE, ".nameFormat")


NAME_FORMAT_MESSAGE = (
    "must tell every partition of the interval apart: Year needs {year}; Quarter {year} and {quarter}; Month {year} "
    "and {month}; Week {isoyear} and {week}; Day {year}, {month} and {day}; Hour {year}, {month}, {day} and {hour}"
)

ZONE_MESSAGE = (
    "must be a zone that is the same on every machine, like UTC or Europe/Berlin: none of posix/, right/, localtime, "
    "posixrules and Factory"
)


def _is_zone(name: str) -> str:
    if not is_zone(name):
        raise refuse(ZONE_MESSAGE)
    return name


class TableSpec(Model):
    """What the partitions of one table shall be: all of a policy's spec but the way to the database."""

    model_config = ConfigDict(json_schema_extra=rules(_name_format_rule()))

    table: Table = Field(description="The table, partitioned by RANGE on one column.")
    key: Identifier | None = Field(
        None,
        description="Partition key column. If given, it must be the table's, which guards against a mix-up.",
    )
    key_encoding: Annotated[KeyEncoding, Field(strict=False)] = Field(
        KeyEncoding.NATIVE,
        description="How the key says when: Native (date, timestamp, timestamptz), UUIDv7 (uuid), EpochSeconds or "
        "EpochMilliseconds (bigint, integer). Default: Native.",
    )
    interval: Annotated[Interval, Field(strict=False)] = Field(
        Interval.YEAR,
        description="Length of one partition: Hour, Day, Week (from Monday), Month, Quarter or Year. Default: Year.",
    )
    timezone: Annotated[str, AfterValidator(_is_zone)] = Field(
        "UTC",
        min_length=1,
        max_length=64,
        pattern=TIME_ZONE,
        description="IANA time zone in which an interval begins, such as Europe/Berlin. Default: UTC.",
        json_schema_extra=rules(cel(f"!self.matches('{NOT_A_ZONE}')", ZONE_MESSAGE)),
    )
    premake: int = Field(
        2,
        ge=0,
        le=1000,
        description="How many partitions to keep ready after the current one, from 0 to 1000. Default: 2.",
    )
    start_from: Day | None = Field(
        None,
        description="A date such as 2019-01-01: missing partitions of the past are created from the one that holds it. "
        "Absent: from the oldest existing partition.",
    )
    ensure: list[Day] = Field(
        default=[],
        max_length=100,
        description="Dates such as 2031-06-01 whose partitions must exist too, in the past or far ahead; at most 100.",
    )
    name_format: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        pattern=NAME_FORMAT,
        description="Name of a new partition: text and {table}, {year}, {quarter}, {month}, {isoyear}, {week}, {day}, "
        "{hour}; it must tell the partitions of the interval apart. The defaults make run_2026, run_2026_q4, "
        "run_2026_11, run_2026_w48, run_2026_11_22, run_2026_11_22_13. Names of existing partitions never matter.",
    )
    default_partition: DefaultPartition = Field(
        default_factory=DefaultPartition,
        description="Whether to create a DEFAULT partition, and what to do with its rows.",
    )
    retention: Retention | None = Field(
        None, description="What happens to old partitions. Absent: nothing is ever detached or dropped."
    )
    thresholds: Thresholds = Field(default_factory=Thresholds, description="Sizes above which a warning is given.")
    maintenance: Maintenance = Field(
        default_factory=Maintenance, description="VACUUM, REINDEX and ANALYZE of partitions."
    )
    mode: Annotated[Mode, Field(strict=False)] = Field(
        Mode.APPLY, description="Apply carries the plan out; Plan only writes it into the status. Default: Apply."
    )
    suspend: bool = Field(
        False, description="true stops all work on this policy and leaves the table as it is. Default: false."
    )
    resync: Resync = Field(
        "10m",
        description="How often to reconcile although nothing changed: from 10s to 24h, such as 10m or 1h30m. An edit, "
        "and the beginning of an interval, cause a reconcile at once. Default: 10m.",
    )

    @model_validator(mode="after")
    def _tells_partitions_apart(self) -> Self:
        if self.name_format is not None:
            held = {name for name in PLACEHOLDERS if f"{{{name}}}" in self.name_format}
            if not any(names <= held for names in UNIQUE[self.interval]):
                raise refuse(NAME_FORMAT_MESSAGE, "nameFormat")
        return self

    @property
    def resync_period(self) -> timedelta:
        """Time between two reconciles, before jitter."""
        return parse_duration(self.resync)


class PartitionPolicySpec(TableSpec):
    """Which partitions a table shall have, and how to reach it. Needed: table.name, database; the rest has defaults."""

    database: Database = Field(description="Where the table lives, and how to connect.")
