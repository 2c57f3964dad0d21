"""What the catalog says against a conversion of a plain table, and what will be otherwise after it.

Every case is one of three: kept, made anew, or refused with the way out. What was not shown to work on PostgreSQL 14 to
18 is refused: an application goes on to use the table, and must not notice anything but what is said here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ..api.policy import TableSpec
from ..api.types import Interval
from ..errors import did_you_mean
from .conversion import WidenedKey
from .findings import quoted, why_blocked
from .inventory import Inventory
from .keys import MAX_BYTES, TYPES, Codec, KeyType
from .plain_table import Constraint, ConstraintKind, Index, KeyColumn, PlainTable, Tied, TiedKind

CHECK = "partwarden_convert"
"""Name of the constraint by which the table is attached: of one table, so it need not be another's name as well."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for: the policy that the table is to have, its ``key`` named, and how it is to be converted."""

    spec: TableSpec
    widen_keys: bool = False
    legacy_name: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the table cannot be converted: the object, what it forbids, and what to do."""

    object: str
    why: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.object}: {self.why}; {self.way_out}"


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one object."""

    object: str
    text: str

    def __str__(self) -> str:
        return f"{self.object}: {self.text}"


KINDS = {
    "p": ("it is partitioned already", "make a PartitionPolicy for it"),
    "f": ("it is a foreign table, whose rows are elsewhere", "convert it there"),
    "v": ("it is a view", "name its table"),
    "m": ("it is a materialized view", "convert a table that holds the rows"),
}
NO_PARTITIONS = "it would hold for no new partition"
REMOVE = "drop it, convert, and create it again on the table then"

REFUSED: Mapping[TiedKind, tuple[str, str]] = {
    TiedKind.NARROW_REFERENCE: (
        "it points to a key that is not unique over all partitions",
        "drop it, or let it point to a key with the partition key",
    ),
    TiedKind.PARTITIONED_REFERENCE: ("PostgreSQL would read that table under the lock", REMOVE),
    TiedKind.PERIOD: ("it would be checked anew under the lock", "drop it"),
    TiedKind.NARROW_SELF_REFERENCE: (
        "it points to a key that is not unique over all partitions",
        "drop it, or let it point to a key with the partition key",
    ),
    TiedKind.RULE: ("a rule on the table is of the one that is renamed", "drop it, or write it as a trigger"),
    TiedKind.ONLY_VIEW: (
        "it leaves out partitions, and all rows will be in one: it would find none",
        "make it again without ONLY",
    ),
    TiedKind.MATERIALIZED_VIEW: (
        "it reads the table by its OID, so it would read the first partition only",
        REMOVE,
    ),
    TiedKind.TRANSITION_TABLES: ("a partition may have no trigger with transition tables for each row", REMOVE),
    TiedKind.LEAF_PUBLICATION: (
        "subscribers would get the rows under the names of the partitions, which they do not have",
        "ALTER PUBLICATION … SET (publish_via_partition_root = true)",
    ),
    TiedKind.FOREIGN_PUBLICATION: (
        "only its owner can put the partitioned table into it",
        "connect as its owner, or as a member of that role",
    ),
    TiedKind.SUBSCRIPTION: (
        "a subscription knows the table by its OID, and would stop at the next row",
        "take the table out of the publication, then ALTER SUBSCRIPTION … REFRESH PUBLICATION",
    ),
    TiedKind.SECURITY_LABEL: ("security labels are not handed on to partitions", "take it away by SECURITY LABEL"),
    TiedKind.EXTENSION: ("the extension's scripts expect the table as they made it", "ALTER EXTENSION … DROP TABLE"),
    TiedKind.PARENT: ("a partition can inherit from nothing else", "ALTER TABLE … NO INHERIT"),
    TiedKind.CHILD: ("a partitioned table can have no such children", "ALTER TABLE … NO INHERIT on that one"),
    TiedKind.OTHER: (
        "it depends on the table by its OID, so it would mean the first partition only",
        REMOVE,
    ),
}
KEPT: Mapping[TiedKind, str] = {
    TiedKind.FOREIGN_KEY: "kept, not checked again; writers of the table that it refers to wait while it is attached",
    TiedKind.REFERENCE: "made anew NOT VALID under the lock, which that table is under as well, and validated "
    "after it, while others go on",
    TiedKind.SELF_REFERENCE: "made anew NOT VALID under the lock, and validated after it, while others go on; writers "
    "wait for a moment then",
    TiedKind.VIEW: "made anew with the same definition, owner, grants, comments and options, under the same lock",
    TiedKind.BEFORE_TRIGGER: "kept, and so for each new partition; that is chosen before it fires: a write fails "
    "where it sets the partition key so that the row belongs elsewhere",
    TiedKind.ROW_TRIGGER: "kept, and so for each new partition",
    TiedKind.CONSTRAINT_TRIGGER: "kept, and so for each new partition",
    TiedKind.STATEMENT_TRIGGER: "kept",
    TiedKind.POLICY: "kept",
    TiedKind.PUBLICATION: "kept: rows are published as those of the table",
    TiedKind.STATISTICS: "kept",
    TiedKind.EVENT_TRIGGER: "fires for each statement of the conversion; where it fails, nothing of that is done",
}


def refusals(table: PlainTable, wanted: Wanted) -> tuple[Refusal, ...]:
    """All that the catalog forbids it for; what the rows forbid is seen in `conversion_plan`."""
    if table.kind != "r":
        return (Refusal(str(table), *KINDS.get(table.kind, ("it is no table", "name a table"))),)
    rules: tuple[Callable[[PlainTable, Wanted], Iterator[Refusal]], ...] = (_rights, _relation, _key, _tied)
    found = [each for rule in rules for each in rule(table, wanted)]
    if table.key is not None:
        found += [each for one in table.constraints for each in _constraint(table, table.key, one, wanted)]
        found += [each for one in table.indexes for each in _index(table, table.key, one)]
    return tuple(found)


def changes(table: PlainTable, wanted: Wanted) -> tuple[Change, ...]:
    """What becomes of all that the table has, where nothing is refused."""
    wider = widened(table, wanted)
    keys = [_widening(each) for each in wider]
    if table.key is not None and not table.key.not_null and any(each.primary for each in wider):
        keys.append(Change(f"column {table.key.name}", "becomes NOT NULL, as each column of a primary key is"))
    return (*keys, *(Change(str(each), KEPT[each.kind]) for each in table.tied if each.kind in KEPT))


def widened(table: PlainTable, wanted: Wanted) -> tuple[WidenedKey, ...]:
    """The keys without the key column, as they are to be; none where that is not wanted."""
    return _wider(table) if wanted.widen_keys else ()


def _wider(table: PlainTable) -> tuple[WidenedKey, ...]:
    if table.key is None:
        return ()
    return tuple(
        WidenedKey(
            constraint=each.name,
            primary=each.kind is ConstraintKind.PRIMARY,
            columns=(*each.columns, table.key.name),
            index=f"{_cut(each.name)}_wide",
        )
        for each in table.constraints
        if each.kind in (ConstraintKind.PRIMARY, ConstraintKind.UNIQUE) and table.key.name not in each.columns
    )


def _cut(name: str) -> str:
    """What of a name leaves room for ``_wide``."""
    return name.encode()[: MAX_BYTES - len("_wide")].decode(errors="ignore")


def own_indexes(table: PlainTable) -> Mapping[str, tuple[str, ...]]:
    """The indexes that a conversion may have built on the table by now: their names, and which columns they have."""
    return {key.index: key.columns for key in _wider(table)}


def is_ours(table: PlainTable, index: Index) -> bool:
    """Whether a conversion has built it: by its name and its definition, for the name alone is anyone's."""
    columns = own_indexes(table).get(index.name)
    return columns == index.columns and index.unique and index.plain and not index.constraint


def _widening(key: WidenedKey) -> Change:
    narrow, wide = ", ".join(key.columns[:-1]), ", ".join(key.columns)
    kind = "primary key" if key.primary else "unique constraint"
    return Change(
        f"{kind} {key.constraint}",
        f"({narrow}) becomes ({wide}): rows of two partitions may be equal in ({narrow}) from then on; those that are "
        f"there stay unique; ON CONFLICT ({narrow}) fails, write ON CONFLICT ({wide})",
    )


def _rights(table: PlainTable, wanted: Wanted) -> Iterator[Refusal]:
    for each in why_blocked(wanted.spec, Inventory(table.server, table.parent, table.now), table.parent):
        yield Refusal(each.object, each.message, "then try again")


def _relation(table: PlainTable, _: Wanted) -> Iterator[Refusal]:
    name = str(table)
    if table.is_partition:
        yield Refusal(name, "it is a partition of another table", "name that one")
    if table.persistence == "t":
        yield Refusal(name, "it is a temporary table", "convert a permanent one")
    elif table.persistence != "p":
        yield Refusal(name, "it is unlogged, and a partitioned table cannot be", "ALTER TABLE … SET LOGGED")
    if table.typed is not None:
        yield Refusal(name, f"it is a table OF {table.typed}, and a partition cannot be", "ALTER TABLE … NOT OF")
    if table.access_method != "heap":
        yield Refusal(name, f"its access method is {table.access_method}", "ALTER TABLE … SET ACCESS METHOD heap")
    if table.forced:
        why = "row security is forced, and its owner, as whom all is done, may not see all rows"
        yield Refusal(name, why, "ALTER TABLE … NO FORCE ROW LEVEL SECURITY, and FORCE again afterwards")


def _key(table: PlainTable, wanted: Wanted) -> Iterator[Refusal]:
    key, name = table.key, str(table)
    if key is None:
        found = did_you_mean(str(wanted.spec.key), table.columns)
        yield Refusal(name, f"it has no column {wanted.spec.key!r}", f"correct the key{found}")
        return
    codec, column = Codec.find(key.type, wanted.spec.key_encoding), f"column {key.name}"
    if codec is None:
        types = " or ".join(TYPES[wanted.spec.key_encoding])
        yield Refusal(
            column, f"its type is {key.type}, and {wanted.spec.key_encoding} keys are of type {types}", "take another"
        )
    elif codec.type is KeyType.DATE and wanted.spec.interval is Interval.HOUR:
        yield Refusal(column, "a date has no hours", "take Day or a longer interval")
    if key.generated:
        yield Refusal(column, "a partition key cannot be a generated column", "take a plain column")
    if key.is_identity:
        yield Refusal(column, "numbers from a sequence do not say when", "take a column that does")


def _tied(table: PlainTable, wanted: Wanted) -> Iterator[Refusal]:
    grouped = bool(widened(table, wanted))
    for each in table.tied:
        if each.kind in REFUSED:
            yield Refusal(str(each), *REFUSED[each.kind])
        elif each.kind in (TiedKind.FOREIGN_KEY, TiedKind.SELF_REFERENCE) and not each.validated:
            yield _unproven(each)
        elif each.kind is TiedKind.GROUPED_VIEW and grouped:
            why = "it groups by a key that becomes wider, and would need every column in GROUP BY then"
            yield Refusal(str(each), why, "name its columns in GROUP BY")


def _unproven(each: Tied | str) -> Refusal:
    why = "it is NOT VALID or NOT ENFORCED, which that of a partitioned table cannot be on every version"
    return Refusal(str(each), why, "ALTER TABLE … VALIDATE CONSTRAINT, or drop it")


def _constraint(table: PlainTable, key: KeyColumn, each: Constraint, wanted: Wanted) -> Iterator[Refusal]:
    name = f"constraint {each.name}"
    if each.name == CHECK and each.kind is ConstraintKind.CHECK:
        if table.leftover is None or table.leftover.lower is None:
            yield Refusal(name, "a conversion gives its own constraint that name", "rename this one")
        return
    if each.kind in (ConstraintKind.CHECK, ConstraintKind.NOT_NULL):
        if not each.inherited:
            yield Refusal(name, f"it is NO INHERIT: {NO_PARTITIONS}", "make it again without NO INHERIT")
        elif each.kind is ConstraintKind.NOT_NULL and not each.validated:
            yield _unproven(name)
    elif each.kind is ConstraintKind.EXCLUSION:
        yield Refusal(name, "two partitions cannot exclude each other's rows", "drop it")
    elif each.overlaps:
        yield Refusal(name, "WITHOUT OVERLAPS cannot hold over two partitions", "drop it")
    elif key.name not in each.columns:
        yield from _narrow(table, key, each, wanted)


def _narrow(table: PlainTable, key: KeyColumn, each: Constraint, wanted: Wanted) -> Iterator[Refusal]:
    """Of a primary key or unique constraint without the key column."""
    columns, wide = ", ".join(each.columns), ", ".join((*each.columns, key.name))
    name = f"{'primary key' if each.kind is ConstraintKind.PRIMARY else 'unique constraint'} {each.name}"
    if not wanted.widen_keys:
        why = f"({columns}) lacks the partition key {key.name}, so no partitioned table can have it"
        lost = f"({wide}) in its place: then two partitions may hold rows that are equal in ({columns})"
        yield Refusal(name, why, f"with widenKeys (--widen-keys) it becomes {lost}")
    elif each.included or each.deferrable or not each.nulls_distinct or not _is_plain(table, each):
        why = "INCLUDE, DEFERRABLE, NULLS NOT DISTINCT and other collations are not made wider"
        yield Refusal(name, why, "make it a plain key, or drop it")
    elif any(one.oid == each.index and one.identifies_rows for one in table.indexes):
        why = "it is the replica identity, which cannot become wider"
        yield Refusal(name, why, "ALTER TABLE … REPLICA IDENTITY DEFAULT, which is the primary key, or FULL")


def _is_plain(table: PlainTable, constraint: Constraint) -> bool:
    return any(each.oid == constraint.index and each.plain and each.valid for each in table.indexes)


def _index(table: PlainTable, key: KeyColumn, each: Index) -> Iterator[Refusal]:
    """Of one that is no constraint's: those are judged by their constraints."""
    if each.constraint or is_ours(table, each):
        return
    name = f"index {each.name}"
    if each.name in own_indexes(table):
        yield Refusal(name, "a conversion would give an index of its own that name", "rename this one")
    elif not each.valid:
        yield Refusal(name, "it is invalid", f"REINDEX INDEX CONCURRENTLY {quoted(each.name)}, or drop it")
    elif each.unique and key.name not in each.columns:
        why = f"a unique index without the partition key {key.name} cannot be over all partitions"
        if each.plain:
            way = f"ALTER TABLE … ADD UNIQUE USING INDEX {quoted(each.name)} and widen that key, or drop it"
        else:
            way = "drop it, or make it again without UNIQUE"
        yield Refusal(name, why, way)
