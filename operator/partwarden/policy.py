"""The PartitionPolicy resource: its fields, their defaults and their validation.

This module is the source of ``crds/partitionpolicies.yaml`` (see `partwarden.crd`). What the API server can know at
admission is checked here in the same way, so that ``partwarden plan -f`` and ``kubectl apply`` agree: a rule that a
JSON schema cannot say stands here as a validator and, beside it, as CEL.
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from .interval import Interval

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

DURATION = r"^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$"
DAY = r"^[1-8][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"
NAME_FORMAT = r"^([^{}\x00-\x1f\x7f]|\{(" + "|".join(PLACEHOLDERS) + r")\})+$"


def cel(rule: str, message: str, path: str | None = None) -> dict[str, str]:
    """One entry of ``x-kubernetes-validations``. https://kubernetes.io/docs/reference/using-api/cel/"""
    entry = {"rule": rule, "message": message}
    return entry | {"fieldPath": path} if path else entry


def rules(*entries: dict[str, str]) -> dict[str, Any]:
    """CEL rules for `pydantic.Field`'s or a model's ``json_schema_extra``."""
    return {"x-kubernetes-validations": list(entries)}


def parse_duration(text: str) -> timedelta:
    """``1h30m``, ``10m``, ``45s``: hours, minutes, seconds, in that order, whole numbers. Raises ValueError."""
    if not text or not (match := re.fullmatch(DURATION[1:-1], text)):
        raise ValueError("must be a duration like 10m, 1h30m or 45s")
    hours, minutes, seconds = (int(part[:-1]) if part else 0 for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def parse_day(text: str) -> datetime:
    """``2031-06-01`` as a naive midnight, years 1000 to 8999. Raises ValueError."""
    if not re.fullmatch(DAY[1:-1], text):
        raise ValueError("must be a date like 2031-06-01")
    return datetime.strptime(text, "%Y-%m-%d")  # noqa: DTZ007 - a date of the policy's calendar has no zone


def _is_day(text: str) -> str:
    parse_day(text)
    return text


def _is_resync(text: str) -> str:
    if not timedelta(seconds=10) <= parse_duration(text) <= timedelta(hours=24):
        raise ValueError("must be between 10s and 24h")
    return text


DAY_RULE = rules(cel("timestamp(self + 'T00:00:00Z').getFullYear() > 0", "must be a date of the calendar"))
Day = Annotated[
    str, StringConstraints(pattern=DAY), AfterValidator(_is_day), Field(json_schema_extra=DAY_RULE, max_length=10)
]
Identifier = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[^\x00]+$")]


class Model(BaseModel):
    """camelCase outside, snake_case inside; unknown fields and lax types are refused, as strict kubectl does."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, extra="forbid", strict=True, frozen=True
    )


class SSLMode(StrEnum):
    """libpq's sslmode. https://www.postgresql.org/docs/current/libpq-ssl.html"""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class Mode(StrEnum):
    """Whether the plan is executed."""

    APPLY = "Apply"
    PLAN = "Plan"


class SecretRef(Model):
    """A Secret in the policy's own namespace."""

    name: str = Field(
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        description="Name of a Secret in the policy's own namespace.",
    )


class Connection(Model):
    """Connection parameters by libpq's names; never a password."""

    host: str | None = Field(None, min_length=1, max_length=253, description="Host name or IP address of the server.")
    port: int | None = Field(None, ge=1, le=65535, description="TCP port; 5432 when neither this nor the Secret says.")
    dbname: Identifier | None = Field(None, description="Name of the database.")
    user: Identifier | None = Field(None, description="Role to connect as; it must own the table and may CREATE in its schema.")
    sslmode: Annotated[SSLMode, Field(strict=False)] | None = Field(
        None, description="libpq's sslmode; verify-full is the one that also proves who the server is."
    )
    sslrootcert: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="Path of a PEM file of CA certificates in the operator's file system, or `system`. "
        "A CA in the Secret (key `sslrootcert` or `ca.crt`) is used when this is left out.",
    )


class Database(Model):
    """Where the table lives: a Secret, connection parameters, or both."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            cel("has(self.secretRef) || has(self.connection)", "needs secretRef, connection, or both")
        )
    )

    secret_ref: SecretRef | None = Field(
        None,
        description="Secret with `uri`, else host, port, dbname, user or username, password, sslmode, sslrootcert. "
        "The Secrets that CloudNativePG and Zalando's operator write work as they are.",
    )
    connection: Connection | None = Field(
        None, description="Connection parameters by libpq's names. They win over the Secret's."
    )

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if self.secret_ref is None and self.connection is None:
            raise ValueError("needs secretRef, connection, or both")
        return self


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
        "public", alias="schema", description="Schema of the table, as it is spelt in the catalog, without quotes."
    )
    name: Identifier = Field(description="Name of the partitioned table, as it is spelt in the catalog, without quotes.")

    @model_validator(mode="after")
    def _is_not_system(self) -> Self:
        if self.schema_.startswith("pg_") or self.schema_ == "information_schema":
            raise ValueError("schema: must not be a system schema")
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
    "must tell every partition of the interval apart: Year needs {year}; Quarter {year} and {quarter}; Month {year} and "
    "{month}; Week {isoyear} and {week}; Day {year}, {month} and {day}; Hour {year}, {month}, {day} and {hour}"
)


class TableSpec(Model):
    """What the partitions of one table shall be: all of a policy's spec but the way to the database."""

    model_config = ConfigDict(json_schema_extra=rules(_name_format_rule()))

    table: Table = Field(description="The table, partitioned by RANGE on one date, timestamp or timestamptz column.")
    key: Identifier | None = Field(
        None,
        description="Partition key column. Optional; when given it must be the table's, which guards against a mix-up.",
    )
    interval: Annotated[Interval, Field(strict=False)] = Field(
        Interval.YEAR, description="Length of one partition. Weeks begin on Monday."
    )
    timezone: str = Field(
        "UTC",
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$",
        description="IANA time zone in which an interval begins, such as Europe/Berlin.",
    )
    premake: int = Field(2, ge=0, le=1000, description="How many partitions to keep ready after the current one.")
    start_from: Day | None = Field(
        None,
        description="Make partitions from the one that holds this date, too. Without it, holes are filled from the "
        "oldest existing partition on; with it, from this date on.",
    )
    ensure: list[Day] = Field(
        default=[], max_length=100, description="Dates whose partitions must exist too, whether past or far ahead."
    )
    name_format: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        pattern=NAME_FORMAT,
        description="Name of a new partition: text and {table}, {year}, {quarter}, {month}, {isoyear}, {week}, {day}, "
        "{hour}. The default is {table}_{year}, continued by the interval's own part. Existing names never matter.",
    )
    mode: Annotated[Mode, Field(strict=False)] = Field(
        Mode.APPLY, description="Apply does what the plan says; Plan only writes it into the status."
    )
    suspend: bool = Field(False, description="Stop all work on this policy, and leave everything as it is.")
    resync: str = Field(
        "10m",
        min_length=2,
        max_length=20,
        pattern=DURATION,
        description="How often to look again, from 10s to 24h, like 10m or 1h30m. Edits, and the beginning of an "
        "interval, are noticed at once whatever this says.",
        json_schema_extra=rules(
            cel("duration(self) >= duration('10s') && duration(self) <= duration('24h')", "must be between 10s and 24h")
        ),
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        _is_resync(self.resync)
        if self.name_format is not None:
            held = {name for name in PLACEHOLDERS if f"{{{name}}}" in self.name_format}
            if not any(names <= held for names in UNIQUE[self.interval]):
                raise ValueError(f"nameFormat: {NAME_FORMAT_MESSAGE}")
        return self

    @property
    def resync_period(self) -> timedelta:
        """Time between two looks, before jitter."""
        return parse_duration(self.resync)


class PartitionPolicySpec(TableSpec):
    """The spec of a PartitionPolicy."""

    database: Database = Field(description="Where the table lives, and how to connect.")


def parse_moment(text: str) -> datetime:
    """An RFC 3339 moment with its offset, as an aware UTC datetime. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("must carry an offset, like 2026-12-31T23:59:59Z")
    return moment.astimezone(UTC)
