"""Observe, plan, apply, observe: what the operator and the command line both do with one table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from . import apply, catalog, defaults, examining, large_objects, pruning, references, ties
from .actions import Outcome
from .archives import UNKNOWN, Archives
from .inventory import Inventory
from .plan import Plan, make_plan
from .policy import Mode, TableSpec
from .recheck import NEVER, Recheck
from .session import Session

Examiner = Callable[[Session, TableSpec, Inventory, Plan], Inventory]
"""Adds to the inventory what a first plan shows to be needed; the same inventory where nothing is."""


def _creation(connection: Session, _spec: TableSpec, inventory: Inventory, plan: Plan) -> Inventory:
    return catalog.complete(connection, inventory, plan.names) if plan.names else inventory


EXAMINERS: tuple[Examiner, ...] = (
    _creation,
    defaults.examine,
    examining.examine,
    pruning.examine,
    references.examine,
    ties.examine,
    large_objects.examine,
)
AFTERWARDS = tuple(pruning.recall if each is pruning.examine else each for each in EXAMINERS)
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
        stopped = apply.execute(connection, inventory, before, time.monotonic() + patience, outcomes, recheck)
    after = before
    if outcomes:
        made = any(isinstance(each.action, apply.CREATIONS) and each.error is None for each in outcomes)
        inventory, after = observe_and_plan(connection, spec, now, held, archives, AFTERWARDS if made else EXAMINERS)
    return Report(before, tuple(outcomes), inventory, after, connection.round_trips - trips, stopped)
