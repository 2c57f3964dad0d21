"""Decide: (policy, inventory, now) -> plan. Pure, and the only place that decides.

The same plan is printed by ``partwarden plan``, executed by ``partwarden apply`` and by the operator, and turned into
status. Nothing is resumed: after an interruption the world is read and planned again. Every prefix of a plan leaves a
valid database, because each action does, and none depends on another.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from .actions import Action, CreateDefault, CreatePartition
from .aging import next_look
from .archives import UNKNOWN, Archives
from .findings import (
    Finding,
    marked_by_others,
    off_grid,
    pending_detaches,
    superuser_login,
    unlike_the_parent,
    why_blocked,
)
from .interval import Grid, Range, merge
from .inventory import Inventory, Parent
from .keys import Codec
from .policy import TableSpec
from .retiring import Retired, retired
from .situation import Situation
from .upkeep import Upkeep, upkeep
from .wanting import wanted


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in order, and what to say.

    Moments are in the key's domain (see `interval`) but for ``next_boundary``, which is aware.
    """

    parent: Parent
    key: str
    codec: Codec
    actions: tuple[Action, ...]
    findings: tuple[Finding, ...]
    current: Range
    """The cell of the grid that holds now, whether or not a partition does."""
    missing: tuple[Range, ...]
    """What of the current, the future and the ensured cells no partition holds yet, ascending within each."""
    covered_until: datetime | None
    """End (exclusive) of the unbroken coverage that begins now: None when now is not covered."""
    covered_for_ever: bool
    """Whether that coverage ends at MAXVALUE; ``covered_until`` is None then, too."""
    next_boundary: datetime
    """When the plan will differ although nothing changes."""
    managed: frozenset[int]
    """OIDs of the partitions whose bounds are exactly one cell of the grid."""
    blocked: bool
    """Whether no action can succeed until a finding is mended: none is tried then."""
    retired: Retired
    upkeep: Upkeep

    @property
    def creations(self) -> tuple[CreatePartition, ...]:
        """The actions that make partitions with bounds."""
        return tuple(action for action in self.actions if isinstance(action, CreatePartition))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tables that are to be made."""
        return tuple(action.name for action in self.actions if isinstance(action, CreatePartition | CreateDefault))


def make_plan(
    spec: TableSpec,
    inventory: Inventory,
    now: datetime,
    held: frozenset[str] = frozenset(),
    archives: Archives = UNKNOWN,
) -> Plan:
    """Decide what to do, in which order, and what a person should know. ``now`` is aware.

    Creation comes first and stands alone, retirement next, upkeep last. ``held`` names what nothing may be done to;
    without ``archives`` nothing is proven. Raises a `UserError` when the table cannot be managed at all.
    """
    situation = Situation.of(spec, inventory, now, held, archives)
    blocking = why_blocked(spec, inventory, situation.parent)
    creation = wanted(situation)
    retirement = retired(situation, creation)
    keeping = upkeep(situation, retirement)
    managed = frozenset(each.oid for each, piece in situation.ranged if situation.is_cell(piece))
    usable = merge(piece for each, piece in situation.ranged if not each.detach_pending)
    here = next((piece for piece in usable if piece.contains(situation.moment)), None)
    boundary = next_look(situation, creation, _next_boundary(Grid(spec.interval, situation.zone), now))
    return Plan(
        parent=situation.parent,
        key=situation.key,
        codec=situation.codec,
        actions=(*creation.actions, *retirement.actions, *keeping.actions),
        findings=(
            *blocking,
            *creation.findings,
            # With retention they are finished by an action.
            *(pending_detaches(inventory, list(creation.cells)) if spec.retention is None else ()),
            *retirement.findings,
            *keeping.findings,
            *off_grid(spec, inventory, managed),
            *unlike_the_parent(inventory),
            *marked_by_others(inventory),
            *superuser_login(inventory),
        ),
        current=situation.current,
        missing=creation.missing,
        covered_until=here.upper if here else None,
        covered_for_ever=here is not None and here.upper is None,
        next_boundary=min(filter(None, (boundary, keeping.boundary))),
        managed=managed,
        blocked=bool(blocking),
        retired=retirement,
        upkeep=keeping,
    )


def _next_boundary(clock: Grid, now: datetime) -> datetime:
    """By instants for naive keys too: a clock set back over midnight shows a boundary twice, and the first is past."""
    upper = clock.cell(now.astimezone(UTC)).upper
    assert upper is not None
    return upper
