"""A plain table that is to be partitioned, as the catalog shows it, and all that is tied to it. Values only.

Names are as the catalog has them, unquoted; those of objects are for people, as PostgreSQL identifies them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from .inventory import Parent, Server


class ConstraintKind(StrEnum):
    """``pg_constraint.contype``; foreign keys and triggers are `Tied` objects."""

    PRIMARY = "p"
    UNIQUE = "u"
    EXCLUSION = "x"
    CHECK = "c"
    NOT_NULL = "n"
    """Such entries exist from PostgreSQL 18 on."""


class TiedKind(StrEnum):
    """What is tied to a table, as far as a conversion treats it differently."""

    FOREIGN_KEY = "foreign key of the table"
    SELF_REFERENCE = "foreign key of the table to itself"
    NARROW_SELF_REFERENCE = "foreign key of the table to itself (to a key without the partition key)"
    REFERENCE = "foreign key of another table"
    """To a key with the column that rows are partitioned by."""
    NARROW_REFERENCE = "foreign key of another table (to a key without the partition key)"
    PARTITIONED_REFERENCE = "foreign key of a partitioned table"
    PERIOD = "foreign key with PERIOD"
    VIEW = "view"
    ONLY_VIEW = "view of ONLY the table"
    RULE = "rule on the table"
    MATERIALIZED_VIEW = "materialized view"
    BEFORE_TRIGGER = "row trigger before the event"
    ROW_TRIGGER = "row trigger"
    STATEMENT_TRIGGER = "statement trigger"
    CONSTRAINT_TRIGGER = "constraint trigger"
    TRANSITION_TABLES = "row trigger with transition tables"
    POLICY = "row security policy"
    PUBLICATION = "publication with publish_via_partition_root"
    LEAF_PUBLICATION = "publication without publish_via_partition_root"
    FOREIGN_PUBLICATION = "publication of another owner"
    SUBSCRIPTION = "subscription that replicates into the table"
    EVENT_TRIGGER = "event trigger"
    STATISTICS = "extended statistics"
    SECURITY_LABEL = "security label"
    EXTENSION = "extension that the table is a member of"
    PARENT = "table that it inherits from"
    CHILD = "table that inherits from it"
    GROUPED_VIEW = "view that groups by a key"
    OTHER = "object"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tied:
    """One object that is tied to the table. ``validated``: of a foreign key."""

    kind: TiedKind
    name: str
    validated: bool = True

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """``columns``: of the key, in order; ``included``: those of INCLUDE; ``overlaps``: WITHOUT OVERLAPS."""

    name: str
    kind: ConstraintKind
    columns: tuple[str, ...]
    included: tuple[str, ...] = ()
    deferrable: bool = False
    validated: bool = True
    inherited: bool = True
    """False: NO INHERIT, so that it would not hold for partitions."""
    overlaps: bool = False
    nulls_distinct: bool = True
    index: int = 0
    """OID of its index, 0 where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """``columns`` has None for an expression. ``plain``: a B-tree over all rows, ascending, with each column's usual
    operator class and collation."""

    oid: int
    name: str
    columns: tuple[str | None, ...]
    unique: bool
    valid: bool
    constraint: bool
    plain: bool
    identifies_rows: bool = False
    """Whether it is the table's replica identity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyColumn:
    """The column that rows are to be partitioned by, its type as ``format_type`` spells it."""

    name: str
    type: str
    not_null: bool
    generated: bool
    is_identity: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The keys of all rows; counts end at a limit. ``lowest`` and ``highest``: literals, without infinity, None where
    there is no row. ``ahead``: rows later than now."""

    nulls: int = 0
    infinite: int = 0
    """Rows with ``infinity`` or ``-infinity``."""
    lowest: str | None = None
    highest: str | None = None
    ahead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A CHECK of the name that a conversion gives it, left by one that did not end.

    ``condition``: in PostgreSQL's words.
    ``lower`` and ``upper`` are None where it says anything else than two bounds of the key, and that it is not NULL.
    """

    condition: str
    validated: bool
    lower: str | None = None
    upper: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainTable:
    """One table at one moment. ``parent``: itself, in the words of what it is to become."""

    server: Server
    now: datetime
    parent: Parent
    kind: str
    """``pg_class.relkind``."""
    persistence: str
    """``pg_class.relpersistence``."""
    is_partition: bool
    typed: str | None
    """The composite type that it is a table OF."""
    access_method: str
    forced: bool
    """Whether policies of row security hold for its owner, too."""
    bytes: int
    """Of the table with TOAST and indexes."""
    heap: int
    """Bytes that a validation reads."""
    referring: int = 0
    """Bytes of the tables whose foreign keys point to it, which their validation reads."""
    rows: int | None
    """The planner's estimate; None where there is none."""
    key: KeyColumn | None
    """None where there is no such column."""
    columns: tuple[str, ...]
    constraints: tuple[Constraint, ...] = ()
    indexes: tuple[Index, ...] = ()
    tied: tuple[Tied, ...] = ()
    leftover: Leftover | None = None
    spread: Spread | None = None
    """None until the rows were read, which a refusal by the catalog spares."""

    def __str__(self) -> str:
        return str(self.parent)

    @property
    def key_index(self) -> Index | None:
        """A valid index that begins with the key, and holds all rows."""
        if self.key is None:
            return None
        begins = (each for each in self.indexes if each.valid and each.plain and each.columns[0] == self.key.name)
        return next(begins, None)
