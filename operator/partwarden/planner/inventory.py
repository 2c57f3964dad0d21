"""A partitioned table and its partitions as the catalog shows them at one moment, and what maintenance is decided from.

Values only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from ..api import policy
from .calendar import Range
from .default_rows import DefaultRows
from .marker import ClosedMark, ConvertedMark, Marker


class RelationKind(StrEnum):
    """The relations that matter here, by ``pg_class.relkind``."""

    TABLE = "table"
    PARTITIONED = "partitioned table"
    FOREIGN = "foreign table"
    OTHER = "other relation"


class Strategy(StrEnum):
    """``pg_partitioned_table.partstrat``."""

    RANGE = "RANGE"
    LIST = "LIST"
    HASH = "HASH"


class Membership(StrEnum):
    """What the connected role has of the role that owns the table."""

    WHOLE = "whole"
    NONE = "none"
    WITHOUT_SET = "without SET"
    """PostgreSQL 16 and newer: it may not give a table to that role."""
    WITHOUT_INHERIT = "without INHERIT"
    """It is a member, and the grant, or a role in between, does not hand on the rights."""
    NOINHERIT = "NOINHERIT"
    """It is a member, and is itself a role that inherits no rights (on 16 and newer, unless the grant says so)."""


@dataclass(frozen=True, slots=True)
class KeyPart:
    """One column of a partition key; ``column`` is None for an expression, ``type`` as ``format_type`` spells it."""

    column: str | None
    type: str


@dataclass(frozen=True, slots=True)
class Grant:
    """Privileges that one role has on the table, or on one of its columns; ``grantee`` None is PUBLIC."""

    grantee: str | None
    privilege: str
    grantable: bool
    column: str | None = None


@dataclass(frozen=True, slots=True)
class ColumnSetting:
    """How ANALYZE treats a column: its statistics target, and options like ``n_distinct``."""

    name: str
    statistics: int | None = None
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RowPolicy:
    """One row security policy, expressions as PostgreSQL deparses them; a role that is None is PUBLIC."""

    name: str
    permissive: bool
    command: str
    roles: tuple[str | None, ...]
    using: str | None = None
    check: str | None = None


@dataclass(frozen=True, slots=True)
class PartitionTemplate:
    """What new partitions have beside what LIKE and ATTACH give them.

    The parent's word counts where it has one; else they are like the newest partition, since a partitioned table cannot
    hold storage parameters, and not every release hands down the rest.
    """

    options: tuple[tuple[str, str], ...] = ()
    """Storage parameters, those of TOAST with ``toast.`` in front."""
    tablespace: str | None = None
    access_method: str | None = None
    """None where the server's defaults do."""
    replica_identity: str = "d"
    """As ``pg_class.relreplident``: d, n, f, or i for an index."""
    identity_index: int | None = None
    """OID of the parent's index that identifies rows; of it each partition has its own."""
    columns: tuple[ColumnSetting, ...] = ()
    policies: tuple[RowPolicy, ...] = ()
    unlogged: bool = False
    """Whether the newest sibling is UNLOGGED: a crash of the server empties it."""


@dataclass(frozen=True, slots=True)
class Relation:
    """``oid`` identifies it across renames."""

    oid: int
    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def names(self) -> frozenset[str]:
        """What a hold, or an approval, may call it."""
        return policy.names(self.schema, self.name, self.oid)


@dataclass(frozen=True, slots=True)
class Parent(Relation):
    """The table of a policy. ``may_*`` speak of the connected role."""

    kind: RelationKind
    owner: str
    strategy: Strategy | None = None
    key: tuple[KeyPart, ...] = ()
    grants: tuple[Grant, ...] = ()
    may_own: bool = True
    may_create: bool = True
    related: tuple[str, ...] = ()
    """Tables joined with this one by a foreign key, whichever way it points: ATTACH keeps writers out of them."""
    rows: int | None = None
    """What the planner believes that all partitions hold together: None before the first ANALYZE of the parent."""
    login: str | None = None
    """The connected role. None where it is of no account, as in tests of what asks no server."""
    owner_creates: bool = True
    """Whether the owner may create tables in the schema; else only a superuser can, and gives them to the owner."""
    owner_superuser: bool = False
    membership: Membership = Membership.NONE
    """Why ``may_own`` is false."""

    @property
    def borrowed(self) -> bool:
        """Whether another role than the owner is connected: transactions must then run as the owner."""
        return self.login not in (None, self.owner)


@dataclass(frozen=True, slots=True)
class Partition(Relation):
    """One partition. ``range`` is None for DEFAULT, and its bounds are in the domain of the key (see `calendar`).

    ``bounds`` is PostgreSQL's own text, for people. ``rows`` is the planner's estimate, None before the first ANALYZE;
    ``bytes`` counts indexes and TOAST, and of a partitioned partition everything below it.
    """

    range: Range | None
    bounds: str
    kind: RelationKind = RelationKind.TABLE
    rows: int | None = None
    bytes: int = 0
    detach_pending: bool = False
    differs: tuple[str, ...] = ()
    """In what it is not as its parent: owner, grants, row security, replica identity."""
    marker: Marker | None = None
    """Our mark in its COMMENT, with its own OID and this parent's: a detach began. None where it was not read."""
    converted: ConvertedMark | None = None
    """Of the plain table that the parent was made of. Read only with ``retention`` or ``convert``."""


@dataclass(frozen=True, slots=True)
class Detached(Relation):
    """A table that is no partition now, and whose COMMENT bears our mark with its own OID and this parent's.

    ``rows`` and ``bytes`` as in `Partition`; ``comment`` is the user's own text beside the mark.
    """

    marker: Marker
    comment: str = ""
    rows: int | None = None
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Reference:
    """Rows of ``table`` (schema.name) whose foreign key points to rows of one partition.

    ``at_least``: counting ended at ``rows``, there may be more.
    """

    table: str
    rows: int
    at_least: bool = False


class Fate(StrEnum):
    """What becomes of an object when the table that it is tied to is dropped."""

    KEPT = "Kept"
    """It is taken off the table right before."""
    GOES = "Goes"
    """PostgreSQL drops it with the table."""
    REFUSES = "Refuses"
    """It would go, and is of others: the table is not dropped."""


@dataclass(frozen=True, slots=True)
class Tie:
    """An object that DROP TABLE would take along. ``what``: its kind and name, in PostgreSQL's words.

    ``schema`` and ``name`` are those of a sequence. ``way_out``: what lets the drop happen where it is refused.
    """

    what: str
    fate: Fate
    oid: int
    schema: str = ""
    name: str = ""
    way_out: str = ""

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True)
class Server:
    """The server and database that answered. ``identity`` tells one table of the world from another."""

    version: int
    """As ``server_version_num``: 180003 is 18.3."""
    version_text: str
    read_only: bool
    database: str
    user: str
    identity: str
    """System identifier and database OID: equal for two policies that reach one database by different names."""
    superuser: bool = False
    """Whether the role that logged in is a superuser."""
    standby: bool = False
    """Whether it only follows another server; then it is ``read_only``, too."""
    login: str = ""
    """The role that logged in, where its setting ``role`` made ``user`` of it."""


@dataclass(frozen=True, slots=True)
class ClosedPartition:
    """One partition whose range has passed."""

    oid: int
    owner: str
    may_own: bool
    """Whether the connected role has the rights of the owner."""
    empty: bool
    """Whether its file is; a partition without rows that has pages is not empty."""
    frozen: bool
    """Whether all its pages are known to be frozen, which servers before 18 do not tell."""
    indexed: bool
    """Whether it has an index that REINDEX CONCURRENTLY rebuilds."""
    invalid: tuple[str, ...]
    """Its invalid indexes, by name."""
    mark: ClosedMark
    no_room: bool = False
    """Whether its comment is too long to write down there what was done."""
    exclusive: tuple[str, ...] = ()
    """Indexes that REINDEX CONCURRENTLY skips: those of EXCLUDE, and of keys WITHOUT OVERLAPS."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """When ANALYZE last ran, aware: None for never, or where the server has lost its counters."""

    parent: datetime | None
    partitions: datetime | None
    """The latest of all."""
    counted: bool
    """Whether the server counts at all (``track_counts``)."""


@dataclass(frozen=True, slots=True)
class Pruning:
    """How a query for the current interval, through the parent, would be executed."""

    enabled: bool
    """``enable_partition_pruning`` as the connected role has it from the server, the database and itself."""
    disabled_for: tuple[str, ...] = ()
    """For whom else it is off, such as ``role "report"``."""
    needless: tuple[str, ...] = ()
    """Relations that would be scanned although they cannot hold such a row."""


@dataclass(frozen=True, slots=True)
class MaintenanceFacts:
    """What the maintenance planner decides from: None, and nothing, where it was not read."""

    closed: tuple[ClosedPartition, ...] = ()
    statistics: Statistics | None = None
    pruning: Pruning | None = None


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everything that a plan is made from, read in one snapshot.

    ``parent`` is None when the table does not exist. ``now`` is the server's clock, aware, UTC. ``taken`` holds those
    names, of the names asked for, that already belong to a relation or type in the parent's schema.
    """

    server: Server
    parent: Parent | None
    now: datetime
    partitions: tuple[Partition, ...] = ()
    unread: tuple[str, ...] = ()
    """Bounds in PostgreSQL's text where the policy's ``keyEncoding`` does not fit the key; ``partitions`` is empty."""
    taken: frozenset[str] = frozenset()
    template: PartitionTemplate = PartitionTemplate()
    """Read only where partitions are to be made."""
    default_rows: DefaultRows | None = None
    """None where there is no DEFAULT partition, or its rows were not counted yet."""
    detached: tuple[Detached, ...] = ()
    """Read only where the policy has ``retention``."""
    marked_by_others: tuple[str, ...] = ()
    """Tables that bear our mark with this parent's OID, and count for nothing: their owner is not the parent's."""
    comments_too_long: tuple[str, ...] = ()
    """Tables of the parent's owner that may bear a mark, in a comment that is too long to be read."""
    strangers: tuple[Detached, ...] = ()
    """Tables with a mark of a detach that is not theirs, or of a parent with another OID. Read as ``detached`` is."""
    facts: MaintenanceFacts = MaintenanceFacts()
    references: Mapping[int, tuple[Reference, ...]] = field(default_factory=dict)
    """By OID of the partition, for those that a first plan would detach; none where no row points there."""
    ties: Mapping[int, tuple[Tie, ...]] = field(default_factory=dict)
    """By OID of the table, for those that the policy drops, now or later."""
    large_objects: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """By OID of the table, for those that a first plan would archive or drop: columns that point to large objects."""
    similar: str = ""
    """What to say of tables that may be meant instead, where ``parent`` is None."""

    @property
    def default(self) -> Partition | None:
        """The DEFAULT partition, which has no range."""
        return next((each for each in self.partitions if each.range is None), None)
