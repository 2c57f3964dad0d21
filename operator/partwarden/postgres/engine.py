"""Execute a plan, and reconcile one table: observe, plan, apply, observe.

What the operator and the command line both do. One failed action is an outcome, and the rest goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

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
    SplitLegacy,
    TableAction,
    VacuumPartition,
)
from ..planner.drop_preconditions import UNKNOWN, Archives
from ..planner.inventory import Inventory
from ..planner.plan import Plan, make_plan
from ..planner.recheck import NEVER, Recheck, Step, Withdrawn
from . import (
    catalog,
    conversion_split,
    create,
    dependents,
    detach,
    drain,
    drop,
    inspection,
    large_objects,
    maintenance,
)
from .catalog import SERVER
from .connection import Session, pinned, run
from .transaction import READ_ALL_LIMIT, translated

CREATIONS = (CreatePartition, CreateDefault)
MAINTENANCE = (AnalyzeParent, VacuumPartition, ReindexPartition, SplitLegacy)
"""They stand last in a plan, may take long, and can wait."""
YIELD = 1.0
"""Seconds after which an action of those that may take hours is the last of a run that yields."""
SHORT, LONG = 300.0, READ_ALL_LIMIT + 3600.0
"""Seconds, beside those for locks, after which an action is given up from outside. Every statement has its own limit,
much shorter where no rows are read: this is for a server that does not keep it."""


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


def complete_inventory(
    connection: Session, spec: TableSpec, inventory: Inventory, plan: Plan, *, plan_query: bool = True
) -> Inventory:
    """The inventory with what a first plan shows to be needed; the same value where nothing is.

    ``plan_query``: whether PostgreSQL may be asked to plan a query, to see its pruning. Raises psycopg's errors.
    """
    completed = inventory
    if plan.names:
        completed = catalog.complete(connection, completed, plan.names)
    completed = inspection.count_rows(connection, spec, completed, plan)
    completed = inspection.read_closed_partitions(connection, completed, plan)
    completed = inspection.check_pruning(connection, completed, plan, ask=plan_query)
    completed = dependents.count_references(connection, completed, plan)
    completed = dependents.read_ties(connection, spec, completed, plan)
    return large_objects.find(connection, spec, completed, plan)


def observe_and_plan(
    connection: Session,
    spec: TableSpec,
    now: datetime | None = None,
    held: frozenset[str] = frozenset(),
    archives: Archives = UNKNOWN,
    *,
    plan_query: bool = True,
) -> tuple[Inventory, Plan]:
    """Read the table and decide. ``now`` is aware; the server's clock counts when it is None.

    ``held`` names partitions that nothing may be done to; without ``archives`` nothing is proven. One round trip, and
    one more for each thing that `complete_inventory` adds. Raises a `UserError` when the table cannot be managed, and
    psycopg's errors.
    """
    observed = catalog.observe(connection, spec)
    moment = now or observed.now
    plan = make_plan(spec, observed, moment, held, archives)
    completed = complete_inventory(connection, spec, observed, plan, plan_query=plan_query)
    if completed is not observed:
        plan = make_plan(spec, completed, moment, held, archives)
    return completed, plan


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
    """Do once what the policy says.

    ``patience``: seconds to wait for locks, in all; one attempt each is made anyway. What then is left is for the next
    reconcile. ``observed`` is what `observe_and_plan` has just returned, if it was called already. To ``outcomes`` is
    added what was done, also when an error breaks it off. ``recheck`` is asked before each action whether it is still
    to be done.

    With ``mode: Plan``, and where the plan is blocked, nothing is executed; what waits for an approval is not among the
    actions. One failed action is an outcome, and the rest goes on. Raises as `observe_and_plan` does, and
    `DatabaseUnreachable` when the connection is lost.
    """
    trips = connection.round_trips
    inventory, before = observed or observe_and_plan(connection, spec, now, held, archives)
    outcomes, stopped = [] if outcomes is None else outcomes, ""
    if spec.mode is not Mode.PLAN and not before.blocked:
        stopped = execute(connection, inventory, before, time.monotonic() + patience, outcomes, recheck)
    after = before
    if outcomes:
        recheck.finishes()
        recheck.begins("observing the table again", None)
        created = any(isinstance(each.action, CREATIONS) and each.error is None for each in outcomes)
        # To plan a query on partitions that were just created costs much, and the next reconcile does it anyway.
        inventory, after = observe_and_plan(connection, spec, now, held, archives, plan_query=not created)
    return Report(before, tuple(outcomes), inventory, after, connection.round_trips - trips, stopped)


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
    that share a transaction; the rest is done over a new one. Raises as `Session.reconnect` where none can be made, and
    `DatabaseUnreachable` where it leads to another database.
    """
    for group, step in _admitted(inventory, plan, recheck):
        if stopped := recheck.why_stopped():
            return stopped
        recheck.begins(f"{group[0].verb} {group[0]}", _longest(group[0], deadline))
        for action in _without_created(connection, inventory, plan.key, group, outcomes):
            if stopped := recheck.why_stopped():
                return stopped
            if isinstance(action, MAINTENANCE) and not _may_begin(outcomes, deadline):
                return ""
            recheck.begins(f"{action.verb} {action}", _longest(action, deadline), step)
            began, error, done = time.monotonic(), None, action
            try:
                done = execute_action(connection, inventory, plan.key, action, deadline, recheck)
            except Withdrawn as withdrawn:
                return str(withdrawn)
            except PartwardenError as failure:
                error = failure
            did = None if done is action else done
            outcomes.append(Outcome(action, error, time.monotonic() - began, did))
            if connection.closed or isinstance(error, DatabaseUnreachable):
                _reconnect(connection, inventory)
            if _is_final(action, error) or (recheck.yields and step and _took_long(outcomes[-1])):
                return ""
    return ""


def execute_action(
    connection: Session, inventory: Inventory, key: str, action: Action, deadline: float, recheck: Recheck = NEVER
) -> Action:
    """Do one action, and return what was done of it. ``key``: the column that partitions are made by. Raises as the
    function that does it."""
    match action:
        case DrainIntoPartition():
            drain.drain(connection, inventory, key, action, deadline)
        case CreatePartition() | CreateDefault():
            create.create(connection, inventory, key, action, deadline)
        case AttachDetached():
            create.attach(connection, inventory, key, action, deadline)
        case FinalizeDetach():
            detach.finalize(connection, inventory, action, deadline)
        case DetachPartition():
            detach.detach(connection, inventory, action, deadline)
        case ConfirmDetached():
            detach.confirm(connection, inventory, action, deadline)
        case DropDetached():
            drop.drop(connection, inventory, action, deadline, recheck)
        case SplitLegacy():
            return conversion_split.split(connection, inventory, key, action, deadline, recheck)
        case AnalyzeParent() | VacuumPartition() | ReindexPartition():
            maintenance.maintain(connection, inventory, action)
        case _:
            raise TypeError(f"no statement does {type(action).__name__}")
    return action


def _groups(actions: tuple[Action, ...]) -> Iterator[list[Action]]:
    """Plain creations that follow each other in groups; everything else by itself."""
    for plain, run_of in groupby(actions, lambda action: type(action) is CreatePartition):
        group = list(run_of)
        size = create.TOGETHER if plain else 1
        yield from (group[first : first + size] for first in range(0, len(group), size))


def _admitted(inventory: Inventory, plan: Plan, recheck: Recheck) -> Iterator[tuple[list[Action], Step | None]]:
    """The groups that need not wait for others that take long, asked when their turn has come."""
    for group in _groups(plan.actions):
        step = _step(inventory, group[0])
        if step is None or not recheck.must_wait(step):
            yield group, step


def _without_created(
    connection: Session, inventory: Inventory, key: str, group: list[Action], outcomes: list[Outcome]
) -> list[Action]:
    """Create partitions that follow each other in one transaction; returns what is left to be done one by one."""
    began = time.monotonic()
    creations = [each for each in group if isinstance(each, CreatePartition)]
    try:
        if creations and create.create_together(connection, inventory, key, creations):
            for action in group:
                outcomes.append(Outcome(action, seconds=time.monotonic() - began))
            return []
    except DatabaseUnreachable as lost:
        outcomes.append(Outcome(group[0], lost, time.monotonic() - began))
        _reconnect(connection, inventory)
        return group[1:]
    return group


def _step(inventory: Inventory, action: Action) -> Step | None:
    """What is said of an action that may take hours; None of every other."""
    if not action.long:
        return None
    oid = None
    if isinstance(action, TableAction):
        oid = action.oid
    elif isinstance(action, DrainIntoPartition) and inventory.default:
        oid = inventory.default.oid
    # What is done to the parent is done to all.
    sizes = [(each.oid, each.bytes) for each in inventory.partitions]
    sizes += [(each.oid, each.bytes) for each in inventory.detached]
    return Step(type(action).__name__, str(action), sum(size for each, size in sizes if oid in (None, each)))


def _longest(action: Action, deadline: float) -> float:
    waits_for_transactions = type(action) not in CREATIONS and not isinstance(action, ConfirmDetached)
    return max(0.0, deadline - time.monotonic()) + (LONG if waits_for_transactions else SHORT)


def _is_final(action: Action, error: PartwardenError | None) -> bool:
    """Whether the rest would fail of the same: the next reconcile decides anew.

    A creation reads nothing but the parent; whatever else has changed says nothing about the next table.
    """
    return isinstance(error, AnotherOperator) or (isinstance(error, TableChanged) and isinstance(action, CREATIONS))


def _took_long(outcome: Outcome) -> bool:
    """Not of one that failed: it comes first in the next run as well, and the others would never be tried."""
    return outcome.error is None and (outcome.seconds > YIELD or isinstance(outcome.action, DropDetached))


def _may_begin(outcomes: list[Outcome], deadline: float) -> bool:
    """Maintenance begins when all else is done; one action of it in any case, more until the deadline.

    One that fails does not keep the next from being tried.
    """
    others = [each for each in outcomes if not isinstance(each.action, MAINTENANCE)]
    return not any(each.error for each in others) and (len(others) == len(outcomes) or time.monotonic() < deadline)


def _reconnect(connection: Session, inventory: Inventory) -> None:
    """Go on with the same session over a new connection, if that leads to the database that the plan was made for."""
    connection.reconnect()
    with translated(connection, f"table {inventory.parent}"):
        _, (server,) = run(connection, pinned("500ms", "10s"), SERVER)
    if server.identity != inventory.server.identity:
        # The same OID may be another table there.
        raise DatabaseUnreachable(
            "the connection was lost, and a new one leads to another database: nothing more is done to "
            f"{inventory.parent}; it is planned again"
        )
