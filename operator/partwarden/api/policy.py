"""The PartitionPolicy resource: its fields, their defaults and their validation.

The source of ``crds/partitionpolicies.yaml`` (see `crd`), and of what ``kubectl explain`` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints

from .retention import DefaultPartition, KeyEncoding, Maintenance, Retention, Thresholds
from .types import (
    HINTS,
    IDENTIFIER,
    NOT_A_ZONE,
    Day,
    Identifier,
    Interval,
    Model,
    Resync,
    Rule,
    Ruled,
    SecretRef,
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
PLAIN = r"^[^\x00-\x20\x7f]+$"
HINTS |= {
    PLAIN: "must not hold spaces or control characters",
    NAME_FORMAT: "must be text and placeholders, of which there are "
    + ", ".join(f"{{{name}}}" for name in PLACEHOLDERS),
    TIME_ZONE: "must be the name of an IANA time zone, like UTC or Europe/Berlin",
}


class Mode(StrEnum):
    """Whether the plan is executed."""

    APPLY = "Apply"
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


CHOICES = [
    f"(self.interval != '{interval}' || {' || '.join(f'({_holds(names)})' for names in sets)})"
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
SAME_EVERYWHERE = Rule(
    f"!self.matches('{NOT_A_ZONE}')",
    "must be a zone that is the same on every machine, like UTC or Europe/Berlin: none of posix/, right/, localtime, "
    "posixrules and Factory",
    is_zone,
)


Hold = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_HOLD, pattern=IDENTIFIER)]
"""One of `names`: schema, name and OID of a table."""
Host = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=PLAIN)]


class SSLMode(StrEnum):
    """libpq's sslmode. https://www.postgresql.org/docs/current/libpq-ssl.html"""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class Connection(Model):
    """Connection parameters by libpq's names; never a password."""

    host: Host | None = Field(None, description="Host name or IP address of the server.")
    port: int | None = Field(None, ge=1, le=65535, description="TCP port; 5432 when neither this nor the Secret says.")
    dbname: Identifier | None = Field(None, description="Name of the database.")
    user: Identifier | None = Field(
        None, description="Role to connect as: the table's owner or a member of it, with CREATE on the table's schema."
    )
    sslmode: Annotated[SSLMode, Field(strict=False)] | None = Field(
        None,
        description="disable, allow, prefer, require, verify-ca or verify-full; only the last proves who the server "
        "is. prefer means require where a password would go over a network; to send it in clear text, say disable or "
        "allow. Default: verify-full with a CA, else prefer.",
    )
    sslrootcert: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        pattern=IDENTIFIER,
        description="`system`, or the path of a PEM file of CA certificates in the folder that the operator's "
        "PARTWARDEN_CA_FOLDER names. "
        "A CA in the Secret (key `sslrootcert` or `ca.crt`) is used when this is left out.",
    )


class ArchiveConnection(Model):
    """The PostgreSQL server itself, where the rest of ``spec.database`` leads to a pooler."""

    host: Host = Field(description="Host name or IP address of the server, not of a pooler.")
    port: int | None = Field(None, ge=1, le=65535, description="TCP port. Absent: as for everything else.")


class Database(Ruled):
    """Where the table lives: a Secret, connection parameters, or both."""

    RULES = (
        Rule(
            "has(self.secretRef) || has(self.connection)",
            "needs secretRef, connection, or both",
            lambda database: database.secret_ref is not None or database.connection is not None,
        ),
    )

    secret_ref: SecretRef | None = Field(
        None,
        description="Secret with `uri`, or host, port, dbname, user or username, password, sslmode, sslrootcert; "
        "of both, the single keys win. The Secrets that CloudNativePG and Zalando's operator write work as they are.",
    )
    connection: Connection | None = Field(
        None, description="Connection parameters by libpq's names. They win over the Secret's."
    )
    archive: ArchiveConnection | None = Field(
        None,
        description="Where the Jobs that archive connect instead, with all else the same: pg_dump cannot work behind a "
        "pooler that shares server connections between transactions, such as PgBouncer with pool_mode transaction.",
    )

    @property
    def identity(self) -> Self:
        """The database that it is, by whichever way Jobs reach it."""
        return self.model_copy(update={"archive": None})

    @property
    def for_jobs(self) -> Self:
        """The same, as Jobs connect to it."""
        if self.archive is None:
            return self
        instead = self.archive.model_dump(exclude_none=True)
        connection = (self.connection or Connection()).model_copy(update=instead)
        return self.model_copy(update={"connection": connection, "archive": None})


class TableSpec(Ruled):
    """What the partitions of one table shall be: all of a policy's spec but the way to the database."""

    RULES = (TELLS_APART,)

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
    holds: list[Hold] = Field(
        default=[],
        max_length=MOST_NAMES,
        description="Partitions and detached tables that are neither detached, attached again nor dropped, beside "
        "those that the annotation partwarden.dev/hold names: run_2018, old.run_2018 or run_2018@16402; at most 1000.",
    )
    thresholds: Thresholds = Field(default_factory=Thresholds, description="Sizes above which a warning is given.")
    maintenance: Maintenance = Field(
        default_factory=Maintenance, description="VACUUM, REINDEX and ANALYZE of partitions."
    )
    mode: Annotated[Mode, Field(strict=False)] = Field(
        Mode.APPLY, description="Apply carries the plan out; Plan only writes it into the status. Default: Apply."
    )
    suspend: bool = Field(
        False,
        description="true leaves the table as it is: it is observed, so that the status and the metrics stay current, "
        "and nothing is changed. Default: false.",
    )
    resync: Resync = Field(
        "10m",
        description="How often to reconcile although nothing changed: from 10s to 24h, such as 10m or 1h30m. An edit, "
        "and the beginning of an interval, cause a reconcile at once. Default: 10m.",
    )

    @property
    def resync_period(self) -> timedelta:
        """Time between two reconciles, before jitter."""
        return parse_duration(self.resync)


class PartitionPolicySpec(TableSpec):
    """Which partitions a table shall have, and how to reach it. Needed: table.name, database; the rest has defaults."""

    database: Database = Field(description="Where the table lives, and how to connect.")
