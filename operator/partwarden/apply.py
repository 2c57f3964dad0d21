"""Executes a plan: each action by the module that knows how, some creations together.

One failed action is an outcome, and the rest goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from . import analyzing, attaching, creating, detaching, draining, dropping, finishing, vacuuming
from .actions import (
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
from .errors import AnotherOperator, DatabaseUnreachable, PartwardenError, TableChanged
from .inventory import Inventory
from .patience import translated
from .plan import Plan
from .questions import SERVER
from .recheck import NEVER, Recheck, Withdrawn
from .session import Session, pinned, run

CREATIONS = (CreatePartition, CreateDefault)

Doer = Callable[..., None]
"""Does one action: connection, what was seen, the key's column, the action, and until when (`time.monotonic`)."""

DOERS: Mapping[type[Action], Doer] = {
    CreatePartition: creating.create,
    CreateDefault: creating.create,
    DrainIntoPartition: draining.drain,
    AttachDetached: attaching.attach,
    FinalizeDetach: finishing.finalize,
    DetachPartition: detaching.detach,
    ConfirmDetached: finishing.confirm,
    AnalyzeParent: analyzing.analyze,
    VacuumPartition: vacuuming.vacuum,
    ReindexPartition: vacuuming.reindex,
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
        if creations and creating.create_together(connection, inventory, key, creations):
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
        if last and type(action) is type(last[0]) is CreatePartition and len(last) < creating.TOGETHER:
            last.append(action)
        else:
            groups.append([action])
    return groups


def _do(
    connection: Session, inventory: Inventory, key: str, action: Action, deadline: float, recheck: Recheck
) -> PartwardenError | None:
    try:
        if isinstance(action, DropDetached):
            dropping.drop(connection, inventory, key, action, deadline, recheck)
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
