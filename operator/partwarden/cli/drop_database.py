"""Drop one partition of a database because the user asked for it by name: find it, detach it, drop its table.

The same steps as retention's, and the same checks under lock: it is detached and marked, then its table is dropped.
Interrupted in between, it is a table of its own with all its rows, and the same command goes on from there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial

from ..api import policy
from ..api.archive import Fingerprint
from ..api.policy import Mode, TableSpec
from ..api.retention import OnLargeObjects
from ..archive import snapshot
from ..archive.manifest import TableName
from ..archive.verify import Archive
from ..errors import ContentsChanged, InvalidSpec, RowsReferenced
from ..planner.actions import Action, DetachPartition, DropDetached, FinalizeDetach, Outcome
from ..planner.calendar import BoundedRange
from ..planner.drop_preconditions import DropCase
from ..planner.inventory import Detached, Partition, Tie
from ..planner.keys import literals
from ..planner.marker import Phase
from ..planner.plan import Plan
from ..planner.retirement import confirmation, finalization, why_left_alone
from ..postgres import dependents, engine, large_objects
from ..postgres.connection import Session
from ..postgres.transaction import reading_rows
from . import tables
from .tables import ObservedTable

WHY = "asked for by name"


@dataclass(frozen=True, slots=True)
class Found:
    """What would be dropped, as it is now."""

    observed: ObservedTable
    table: Partition | Detached
    range: BoundedRange

    def __str__(self) -> str:
        return str(self.table)

    @property
    def span(self) -> str:
        """Its range, for people."""
        return self.observed.view().dates.span(self.range.lower, self.range.upper)

    @property
    def plan(self) -> Plan:
        """That of the partitioned table."""
        return self.observed.plan


def find(connection: Session, spec: TableSpec, what: str, held: frozenset[str]) -> Found:
    """The one partition or detached table with that name or in that period.

    Raises `InvalidSpec` where there is none, or several, or it is one that is never dropped so: with rows of now or
    later, without two bounds, not a plain table, or held.
    """
    spec = spec.model_copy(update={"mode": Mode.APPLY, "retention": tables.EVER})
    observed = tables.observe(connection, spec)
    name = observed.view().find(what, spec).name
    named = [each for known, each in observed.named() if known == name]
    if len(named) != 1:
        # A dot may be part of a name, too.
        raise InvalidSpec(f"cannot drop {name}: {len(named)} tables are listed by that name; rename one of them")
    table = named[0]
    piece = table.marker.range if isinstance(table, Detached) else table.range
    bounded = piece.bounded if piece else None
    if bounded is None:
        no_bounds = "it is DEFAULT, or has no lower or no upper bound"
        raise InvalidSpec(f"cannot drop {table}: {no_bounds}, so it may hold rows of any time")
    found = Found(observed, table, bounded)
    if why := _why_never(found, held):
        raise InvalidSpec(f"cannot drop {table}: {why}")
    return found


def _why_never(found: Found, held: frozenset[str]) -> str | None:
    table = found.table
    if found.range.upper > found.plan.current.lower:
        return f"it holds {found.span}, which is now or later"
    if policy.is_held(held, table.names):
        return f"{policy.HOLD} names it"
    if isinstance(table, Detached):
        return None
    if table.detach_pending and (table.marker is None or table.marker.phase is not Phase.DETACHING):
        return (
            "its detach was begun by another session and did not end; finish it by ALTER TABLE … DETACH PARTITION … "
            "FINALIZE"
        )
    return why_left_alone(table)


def tied(connection: Session, found: Found) -> tuple[Tie, ...]:
    """What is kept when the table is dropped, or goes with it. Raises `ObjectsTied` where that is of others."""
    table = found.table
    ties = dependents.ties(connection, [table.oid]).get(table.oid, ())
    reader = partial(reading_rows, connection, table.schema, table.name)
    dependents.check_ties(connection, table, table.oid, ties, reader)
    return ties


def pointing_columns(connection: Session, found: Found) -> tuple[str, ...]:
    """The columns that hold OIDs of large objects, of all rows. Raises psycopg's errors."""
    table = found.table
    with reading_rows(connection, table.schema, table.name):
        return large_objects.columns(connection, table.oid, table.schema, table.name)


def compare(connection: Session, found: Found, archive: Archive) -> Fingerprint:
    """Prove the archive again, and read the table beside it: what both hold.

    Fingerprint and COPY of the table are read in one snapshot, and each is compared with the manifest: a manifest with
    this table's fingerprint and another table's data passes neither. Raises `ContentsChanged` where anything differs,
    and what proving and reading raise.
    """
    manifest, table = archive.manifest, found.table
    if manifest.partition.oid != table.oid:
        raise ContentsChanged(
            f"the archive at {archive.url} is of {manifest.partition}, OID {manifest.partition.oid}: {found} has OID "
            f"{table.oid}, and is another table; archive it, too"
        )
    archive.prove()
    with snapshot.holding_on(connection, TableName(schema_=table.schema, name=table.name, oid=table.oid)) as held:
        now = snapshot.read(held)
    snapshot.compare(str(found), archive.url, manifest, now)
    return now.fingerprint


def remove(
    connection: Session,
    found: Found,
    proven: Fingerprint | None,
    url: str,
    patience: float,
    outcomes: list[Outcome] | None = None,
    ties: tuple[Tie, ...] = (),
    large_objects: OnLargeObjects = OnLargeObjects.REFUSE,
) -> list[Outcome]:
    """Detach and drop it. ``proven``: what the archive at ``url`` holds; None where it goes without one. ``ties``:
    what the user was shown of `tied`; ``large_objects``: whether they may be left without a row that points to them.

    What became of each step, which is added to ``outcomes`` at once; the first that failed is the last. Raises
    `RowsReferenced`, and `DatabaseUnreachable`: then no further step was tried.
    """
    outcomes = [] if outcomes is None else outcomes

    def do(observed: ObservedTable, action: Action) -> bool:
        plan = replace(observed.plan, actions=(action,))
        engine.execute(connection, observed.inventory, plan, time.monotonic() + patience, outcomes)
        return not outcomes or outcomes[-1].error is None

    if isinstance(found.table, Partition) and not do(found.observed, _detachment(connection, found, found.table)):
        return outcomes
    observed, table = _observe_detached(connection, found)
    if table.marker.phase is Phase.DETACHING:
        if not do(observed, confirmation(table, WHY)):
            return outcomes
        observed, table = _observe_detached(connection, found)
    # Safe: the user typed its name; its mark says that Partwarden detached it, by OID; and it holds what the archive
    # was just read to hold, which is checked again under the lock, or the user was warned that all of it is lost.
    drop = DropDetached(
        schema=table.schema,
        name=table.name,
        range=table.marker.range,
        oid=table.oid,
        marker=table.marker,
        case=DropCase(table, observed.inventory.now, observed.inventory.now, asked_by_name=True),
        archive=url,
        fingerprint=proven,
        ties=ties,
        large_objects=large_objects,
        reason=WHY,
        lock=f"ACCESS EXCLUSIVE on {table}, and on what its foreign keys point to",
    )
    do(observed, drop)
    return outcomes


def _detachment(connection: Session, found: Found, table: Partition) -> DetachPartition | FinalizeDetach:
    """Raises `RowsReferenced`."""
    if table.detach_pending:
        # Safe: it was begun by this command or by retention, as the mark says; there is no way back, and no row goes.
        return finalization(table, WHY)
    concurrently = found.observed.inventory.default is None
    # Safe: it is wholly past, and no row goes: the table stays.
    action = DetachPartition(
        schema=table.schema,
        name=table.name,
        range=found.range,
        bounds=literals(table.bounds),
        oid=table.oid,
        concurrently=concurrently,
        reason=WHY,
        lock=f"{'SHARE UPDATE' if concurrently else 'ACCESS'} EXCLUSIVE on {found.plan.parent}",
    )
    if counted := dependents.references(connection, found.observed.inventory, [action]).get(action.oid):
        listed = ", ".join(f"{each.table} ({each.rows:,})" for each in counted)
        raise RowsReferenced(
            f"cannot drop {found}: rows of other tables point to its rows by foreign keys: {listed}; delete those "
            "rows or let them point elsewhere"
        )
    return action


def _observe_detached(connection: Session, found: Found) -> tuple[ObservedTable, Detached]:
    """The table as it is now, a detached one."""
    observed = tables.observe(connection, found.observed.spec)
    for each in observed.inventory.detached:
        if each.oid == found.table.oid:
            return observed, each
    raise InvalidSpec(f"cannot drop {found}: it is no longer the table that was asked for; see `partwarden list`")
