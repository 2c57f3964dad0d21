"""Executes a plan: each action by the module that knows how, some creations together.

One failed action is an outcome, and the rest goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..api.policy import Mode, TableSpec
from ..errors import AnotherOperator, DatabaseUnreachable, PartwardenError, TableChanged
from ..planner.actions import (
    Action,
    AnalyzeParent,
    AttachDetached,
    ConfirmDetached,
    CreateDefault,
    CreatePartition,
    DetachPartition,
    DrainIntoPartition,
    DropDetached,
    FinalizeDetach,
    Outcome,
    ReindexPartition,
    VacuumPartition,
)
from ..planner.archives import UNKNOWN, Archives
from ..planner.drop_preconditions import NEVER, Recheck, Withdrawn
from ..planner.inventory import Inventory
from ..planner.plan import Plan, make_plan
from . import (
    attach,
    catalog,
    create,
    default_partition,
    dependents,
    detach,
    drain,
    drop,
    foreign_keys,
    inspection,
    large_objects,
    maintenance,
)
from .catalog import SERVER
from .connection import Session, pinned, run
from .locks import translated

CREATIONS = (CreatePartition, CreateDefault)

Doer = Callable[..., None]
"""Does one action: connection, what was seen, the key's column, the action, and until when (`time.monotonic`)."""

DOERS: Mapping[type[Action], Doer] = {
    CreatePartition: create.create,
    CreateDefault: create.create,
    DrainIntoPartition: drain.drain,
    AttachDetached: attach.attach,
    FinalizeDetach: detach.finalize,
    DetachPartition: detach.detach,
    ConfirmDetached: detach.confirm,
    AnalyzeParent: maintenance.analyze,
    VacuumPartition: maintenance.vacuum,
    ReindexPartition: maintenance.reindex,
}

PINNED = pinned(lock_timeout="500ms", statement_timeout="10s")

UPKEEP = (AnalyzeParent, VacuumPartition, ReindexPartition)
"""They stand last in a plan, may take long, and can wait."""


def execute(
    connection: Session,
    inventory: Inventory,
    plan: Plan,
    deadline: float,
    outcomes: list[Outcome],
    recheck: Recheck = NEVER,
) -> str:
    """Do what the plan says, in its order. ``deadline``, of `time.monotonic`: until then locks are waited for.

    ``recheck`` is asked before each action: what it stops has no outcome, and is planned anew. Returns why it stopped
    one, empty where it stopped none.

    What becomes of each action is added to ``outcomes`` at once. A lost connection ends one action, the first of those
    that share a transaction; the rest is done over a new one. Raises as `Session.reconnect` where there is none to be
    had, and `DatabaseUnreachable` where it leads to another database.
    """
    for some in _together(plan.actions):
        if stopped := recheck.why_stopped():
            return stopped
        for action in _without_created(connection, inventory, plan.key, some, outcomes):
            if stopped := recheck.why_stopped():
                return stopped
            if isinstance(action, UPKEEP) and not _may_begin(outcomes, deadline):
                return ""
            began = time.monotonic()
            try:
                error = _do(connection, inventory, plan.key, action, deadline, recheck)
            except Withdrawn as withdrawn:
                return str(withdrawn)
            outcomes.append(Outcome(action, error, time.monotonic() - began))
            if connection.closed or isinstance(error, DatabaseUnreachable):
                _reconnect(connection, inventory)
            if _is_final(action, error) or (error is None and recheck.single_drop and isinstance(action, DropDetached)):
                return ""
    return ""


def _without_created(
    connection: Session, inventory: Inventory, key: str, some: list[Action], outcomes: list[Outcome]
) -> list[Action]:
    """Create partitions that follow each other in one transaction; returns what is left to be done one by one."""
    began = time.monotonic()
    creations = [each for each in some if isinstance(each, CreatePartition)]
    try:
        if creations and create.create_together(connection, inventory, key, creations):
            outcomes += [Outcome(action, seconds=time.monotonic() - began) for action in some]
            return []
    except DatabaseUnreachable as lost:
        outcomes.append(Outcome(some[0], lost, time.monotonic() - began))
        _reconnect(connection, inventory)
        return some[1:]
    return some


def _is_final(action: Action, error: PartwardenError | None) -> bool:
    """Whether the rest would fail of the same: the next look decides anew.

    A creation looks at nothing but the parent; whatever else has changed says nothing about the next table.
    """
    return isinstance(error, AnotherOperator) or (isinstance(error, TableChanged) and isinstance(action, CREATIONS))


def _may_begin(outcomes: list[Outcome], deadline: float) -> bool:
    """Upkeep begins when all else is done; one action of it in any case, more until the deadline.

    One that fails does not keep the next from being tried.
    """
    others = [each for each in outcomes if not isinstance(each.action, UPKEEP)]
    return not any(each.error for each in others) and (len(others) == len(outcomes) or time.monotonic() < deadline)


def _together(actions: tuple[Action, ...]) -> list[list[Action]]:
    """Plain creations that follow each other in groups; everything else by itself."""
    groups: list[list[Action]] = []
    for action in actions:
        last = groups[-1] if groups else []
        if last and type(action) is type(last[0]) is CreatePartition and len(last) < create.TOGETHER:
            last.append(action)
        else:
            groups.append([action])
    return groups


def _do(
    connection: Session, inventory: Inventory, key: str, action: Action, deadline: float, recheck: Recheck
) -> PartwardenError | None:
    try:
        if isinstance(action, DropDetached):
            drop.drop(connection, inventory, key, action, deadline, recheck)
        else:
            DOERS[type(action)](connection, inventory, key, action, deadline)
    except PartwardenError as error:
        return error
    return None


def _reconnect(connection: Session, inventory: Inventory) -> None:
    """Go on with the same session over a new connection, if that leads to the database that the plan was made for."""
    connection.reconnect()
    with translated(f"table {inventory.parent}"):
        _, ((_, _, _, _, identity, *_),) = run(connection, PINNED, SERVER)
    if identity != inventory.server.identity:
        # The same OID may be another table there.
        raise DatabaseUnreachable(
            "the connection was lost, and a new one leads to another database: nothing more is done to "
            f"{inventory.parent}; it is planned again"
        )


# Observe, plan, apply, observe: what the operator and the command line both do with one table.
#

Examiner = Callable[[Session, TableSpec, Inventory, Plan], Inventory]
"""Adds to the inventory what a first plan shows to be needed; the same inventory where nothing is."""


def _creation(connection: Session, _spec: TableSpec, inventory: Inventory, plan: Plan) -> Inventory:
    return catalog.complete(connection, inventory, plan.names) if plan.names else inventory


EXAMINERS: tuple[Examiner, ...] = (
    _creation,
    default_partition.examine,
    inspection.read_closed_partitions,
    inspection.check_pruning,
    foreign_keys.examine,
    dependents.examine,
    large_objects.examine,
)
AFTERWARDS = tuple(inspection.recall_pruning if each is inspection.check_pruning else each for each in EXAMINERS)
"""Once partitions were just made: to plan a query on them costs as much as a look, and the next look asks anyway."""


@dataclass(frozen=True, slots=True)
class Report:
    """One run: what was planned, what became of it, and how things stand afterwards."""

    before: Plan
    outcomes: tuple[Outcome, ...]
    inventory: Inventory
    after: Plan
    round_trips: int
    stopped: str = ""
    """Why something of the plan was not begun, or undone: what had been decided is wanted no longer."""


def observe_and_plan(
    connection: Session,
    spec: TableSpec,
    now: datetime | None = None,
    held: frozenset[str] = frozenset(),
    archives: Archives = UNKNOWN,
    examiners: Sequence[Examiner] = EXAMINERS,
) -> tuple[Inventory, Plan]:
    """Look at the table and decide. ``now`` is aware; the server's clock counts when it is None.

    ``held`` names partitions that nothing may be done to; without ``archives`` nothing is proven. One round trip, and
    one more for each thing that only a closer look can tell, such as what the making of partitions needs to know.
    Raises a `UserError` when the table cannot be managed, and psycopg's errors.
    """
    inventory = catalog.observe(connection, spec)
    moment = now or inventory.now
    plan = make_plan(spec, inventory, moment, held, archives)
    examined = inventory
    for examine in examiners:
        examined = examine(connection, spec, examined, plan)
    if examined is not inventory:
        plan = make_plan(spec, examined, moment, held, archives)
    return examined, plan


def maintain(
    connection: Session,
    spec: TableSpec,
    *,
    now: datetime | None = None,
    patience: float = 1.5,
    held: frozenset[str] = frozenset(),
    archives: Archives = UNKNOWN,
    observed: tuple[Inventory, Plan] | None = None,
    outcomes: list[Outcome] | None = None,
    recheck: Recheck = NEVER,
) -> Report:
    """Do once what the policy says. ``patience``: seconds to wait for locks, in all; one attempt each is made anyway.
    What then is left is for the next time: whoever has many tables to look after should not wait longer.

    ``observed`` is what `observe_and_plan` has just returned, if it was asked already. To ``outcomes`` is added what
    was done, also when an error breaks it off. ``recheck`` is asked before each action whether it is still to be done.

    With ``mode: Plan``, and where the plan is blocked, nothing is executed. One failed action is an outcome, and the
    rest goes on. Raises as `observe_and_plan` does, and `DatabaseUnreachable` when the connection is lost.
    """
    trips = connection.round_trips
    inventory, before = observed or observe_and_plan(connection, spec, now, held, archives)
    outcomes, stopped = [] if outcomes is None else outcomes, ""
    if spec.mode is Mode.APPLY and not before.blocked:
        stopped = execute(connection, inventory, before, time.monotonic() + patience, outcomes, recheck)
    after = before
    if outcomes:
        made = any(isinstance(each.action, CREATIONS) and each.error is None for each in outcomes)
        inventory, after = observe_and_plan(connection, spec, now, held, archives, AFTERWARDS if made else EXAMINERS)
    return Report(before, tuple(outcomes), inventory, after, connection.round_trips - trips, stopped)
