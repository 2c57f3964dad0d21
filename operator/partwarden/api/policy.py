"""The PartitionPolicy resource: its fields, their defaults and their validation.

The source of ``crds/partitionpolicies.yaml`` (see `crd`), and of what ``kubectl explain`` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from .conversion import Convert, ConvertMode
from .database import Database
from .period import Periods
from .retention import DefaultPartition, KeyEncoding, Maintenance, Retention, Thresholds
from .types import (
    HINTS,
    IDENTIFIER,
    NOT_A_ZONE,
    Day,
    Identifier,
    Interval,
    Resync,
    Rule,
    Ruled,
    is_zone,
    parse_duration,
)

ANNOTATION = "partwarden.dev/hold"
"""Names partitions, or detached tables, as the catalog spells them, with their schema or without, and with their OID or
without: ``run_2018, old.run_2017, run_2016@16402``. Nothing is detached, attached again or dropped that it names, or
that ``spec.holds`` names."""
APPROVAL = "partwarden.dev/approve-drop"
"""Names in the same way what may be dropped, where the policy's ``retention.approval`` is Manual. With the OID,
``run_2018@16402``, it means that very table and no later one of the name."""


HOLD = f"the annotation {ANNOTATION} or spec.holds"
"""What holds tables, for people."""
LONGEST_ANNOTATION, MOST_NAMES = 64 << 10, 1000
"""Characters of such an annotation, and names in it, or in ``spec.holds``."""
LONGEST_HOLD = 140
"""Characters of a schema, a table and its OID."""
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


def holds(annotations: Mapping[str, str] | None, listed: object) -> frozenset[str]:
    """The names that are held, by the annotation or by ``listed``: ``spec.holds`` as written, not yet validated.

    `UNREAD`, which holds every table, is among them where one of the two cannot be read.
    """
    written = [] if listed is None else listed
    if not isinstance(written, list) or len(written) > MOST_NAMES or not all(isinstance(each, str) for each in written):
        return frozenset({UNREAD})
    return parse(annotations) | frozenset(written)


def is_held(held: frozenset[str], called: frozenset[str]) -> bool:
    """Whether a hold names the table, by what it may be ``called``, or is too long to be read."""
    return UNREAD in held or bool(held & called)


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
    APPROVE = "Approve"
    PLAN = "Plan"


class Table(Ruled):
    """The partitioned table."""

    RULES = (
        Rule(
            "!self.schema.startsWith('pg_') && self.schema != 'information_schema'",
            "must not be a system schema",
            lambda table: not table.schema_.startswith("pg_") and table.schema_ != "information_schema",
            "schema",
        ),
    )

    schema_: Identifier = Field(
        "public",
        alias="schema",
        description="Schema of the table, as it is spelt in the catalog, without quotes. Default: public.",
    )
    name: Identifier = Field(description="Name of the table, as it is spelt in the catalog, without quotes.")

    def __str__(self) -> str:
        return f"{self.schema_}.{self.name}"


def _holds(names: frozenset[str]) -> str:
    return " && ".join(f"self.nameFormat.contains('{{{name}}}')" for name in sorted(names))


INTERVAL = f"(has(self.interval) ? self.interval : '{Interval.YEAR}')"
CHOICES = [
    f"({INTERVAL} != '{interval}' || {' || '.join(f'({_holds(names)})' for names in sets)})"
    for interval, sets in UNIQUE.items()
]
TELLS_APART = Rule(
    f"!has(self.nameFormat) || ({' && '.join(CHOICES)})",
    "must tell every partition of the interval apart: Year needs {year}; Quarter {year} and {quarter}; Month {year} "
    "and {month}; Week {isoyear} and {week}; Day {year}, {month} and {day}; Hour {year}, {month}, {day} and {hour}",
    lambda spec: (
        spec.name_format is None
        or any(all(f"{{{name}}}" in spec.name_format for name in names) for names in UNIQUE[spec.interval])
    ),
    "nameFormat",
)
NAMES_KEY = Rule(
    f"!has(self.convert) || !has(self.convert.mode) || self.convert.mode != '{ConvertMode.ATTACH}' || "
    "(has(self.key) && has(self.interval))",
    "Attach needs spec.key and spec.interval: the column that says when, and the length of a partition",
    lambda spec: not spec.converts or (spec.key is not None and spec.says_interval),
    "convert",
)
SAME_EVERYWHERE = Rule(
    f"!self.matches('{NOT_A_ZONE}')",
    "must be a zone that is the same on every machine, like UTC or Europe/Berlin: none of posix/, right/, localtime, "
    "posixrules and Factory",
    is_zone,
)


Hold = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_HOLD, pattern=IDENTIFIER)]
"""One of `names`: schema, name and OID of a table."""


def _left_out(schema: dict[str, Any]) -> None:
    """A default that the API server does not write into objects: it would look like what the user wrote."""
    del schema["default"]


class TableSpec(Ruled):
    """What the partitions of one table shall be: all of a policy's spec but the way to the database."""

    RULES = (TELLS_APART, NAMES_KEY)

    table: Table = Field(description="The table, partitioned by RANGE on one column; see convert.")
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
        description="Length of one partition: Hour, Day, Week (from Monday), Month, Quarter or Year. Absent: Year; "
        "but where the newest partitions are all of another interval, the policy is refused until it says which is "
        "meant.",
        json_schema_extra=_left_out,
    )
    timezone: Annotated[str, SAME_EVERYWHERE] = Field(
        "UTC",
        min_length=1,
        max_length=64,
        pattern=TIME_ZONE,
        description="IANA time zone in which an interval begins, such as Europe/Berlin. Default: UTC.",
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
    ensure: Periods = Field(default=[])
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
    holds: list[Hold] = Field(
        default=[],
        max_length=MOST_NAMES,
        description="Partitions and detached tables that are neither detached, attached again nor dropped, beside "
        "those that the annotation partwarden.dev/hold names: run_2018, old.run_2018 or run_2018@16402; at most 1000.",
    )
    convert: Convert | None = Field(
        None, description="Whether and how a table that is not partitioned yet is partitioned. Absent: Never."
    )
    thresholds: Thresholds = Field(default_factory=Thresholds, description="Sizes above which a warning is given.")
    maintenance: Maintenance = Field(
        default_factory=Maintenance, description="VACUUM, REINDEX and ANALYZE of partitions."
    )
    mode: Annotated[Mode, Field(strict=False)] = Field(
        Mode.APPLY,
        description="Apply carries the plan out; Plan only writes it into the status; Approve does nothing before the "
        "annotation partwarden.dev/approve-plan names status.planDigest. Default: Apply.",
    )
    suspend: bool = Field(
        False, description="true observes the table, and changes nothing: the status stays current. Default: false."
    )
    resync: Resync = Field(
        "10m",
        description="How often to reconcile although nothing changed: from 10s to 24h, such as 10m or 1h30m. An edit, "
        "and the beginning of an interval, cause a reconcile at once. Default: 10m.",
    )

    @property
    def says_interval(self) -> bool:
        """Whether the interval was written, and is not the default."""
        return "interval" in self.model_fields_set

    @property
    def converts(self) -> bool:
        """Whether a plain table is to be partitioned."""
        return self.convert is not None and self.convert.mode is ConvertMode.ATTACH

    @property
    def undoes(self) -> bool:
        """Whether the table is to be plain again."""
        return self.convert is not None and self.convert.mode is ConvertMode.UNDO

    @property
    def resync_period(self) -> timedelta:
        """Time between two reconciles, before jitter."""
        return parse_duration(self.resync)


class PartitionPolicySpec(TableSpec):
    """Which partitions a table shall have, and how to reach it. Needed: table.name, database; the rest has defaults."""

    database: Database = Field(description="Where the table lives, and how to connect.")
