"""All that must hold before a detached table is dropped, and what is known of archives for it. Pure.

The planner decides by one tuple of predicates, the status says by it what a table waits for, and the check under the
lock asks it once more, with what it has read again by then. Each returns None where it is met, else why the table is
kept. An archive counts for a table only by its OID on the same server, never by a name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from ..api import policy
from ..api.approval import APPROVE_PLAN, PlanApproval
from ..api.archive import Fingerprint
from ..api.retention import Approval, OnExpire, Retention
from ..errors import ContentsChanged
from .calendar import iso
from .inventory import Detached
from .marker import Phase

MOST_ROUNDS = 5
"""Archives of one table that are made one after the other because it is changed again and again."""

OLDEST_READING = timedelta(hours=24)
"""How old the last reading of an archive, and of its table, may be when the table is dropped."""
AHEAD = timedelta(minutes=5)
"""How far in the future a reading may lie, where it was not the database server's clock that said its moment."""

ARCHIVING, CHECKING, APPROVAL, APPLY = "Archiving", "CheckingArchives", "WaitsForApproval", "WaitsForApply"
PLAN_APPROVAL = "WaitsForPlanApproval"
OUTSIDE, HELD, POLICY, GRACE = "NotExpired", "Held", "NotToDrop", "InGrace"

AFTER_DETACH, LAST = "detached/", "drop/"
"""What the tokens of the two kinds of readings begin with."""


@lru_cache(maxsize=256)
def server_label(identity: str) -> str:
    """`inventory.Server.identity` as the value of a Kubernetes label."""
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class CheckState:
    """How the last reading of an archive ended. ``token`` says which it was: what was asked for, when it was asked."""

    token: str
    ok: bool
    reason: str = ""
    message: str = ""
    completed: datetime | None = None
    """When, by the clock of the database server; aware. None where that is not known."""


@dataclass(frozen=True, slots=True)
class ArchiveState:
    """One PartitionArchive as last seen. ``oid`` is that of the table, None before that is known; ``server`` is the
    `server_label` of the server and database that the table is of.

    ``round`` counts from 0: another one is made where the table was changed after it had been archived.
    """

    name: str
    round: int
    server: str
    oid: int | None = None
    proven: bool = False
    fingerprint: Fingerprint | None = None
    location: str = ""
    check: CheckState | None = None
    error: tuple[str, str] | None = None
    """Reason and message of the last attempt, where it failed."""
    doubt: str = ""
    """Not empty where the check that this names counts no more: a drop found that the table holds something else, or
    something kept the table again."""
    dropped: bool = False
    """Whether its status says that the table was dropped. It decides nothing."""

    @property
    def refuted(self) -> bool:
        """Whether the table was seen to hold something else than the archive: it needs another one."""
        return self.check is not None and not self.check.ok and self.check.reason == ContentsChanged.__name__

    def proves(self, oid: int) -> bool:
        """Whether it was read back and was equal to the table with that OID."""
        return self.proven and self.oid == oid and self.fingerprint is not None and not self.refuted

    def passed(self, token: str) -> bool:
        """Whether the last reading was this one, and found everything as it was."""
        return self.check is not None and self.check.ok and self.check.token == token


@dataclass(frozen=True, slots=True)
class Archives:
    """``states``: by OID of the table, ascending by ``round``, of whatever servers. ``approved``: names of what may be
    dropped. ``plan``: the approval of a whole plan."""

    states: Mapping[int, tuple[ArchiveState, ...]] = field(default_factory=dict)
    approved: frozenset[str] = frozenset()
    plan: PlanApproval = field(default_factory=PlanApproval)

    def on(self, identity: str) -> Archives:
        """Those of the server and database with that `inventory.Server.identity`: elsewhere an OID means another
        table."""
        label = server_label(identity)
        kept = {oid: tuple(each for each in some if each.server == label) for oid, some in self.states.items()}
        return replace(self, states={oid: some for oid, some in kept.items() if some})

    def unrecorded(self, there: Iterable[int]) -> list[int]:
        """OIDs of tables that are proven, not among those that are ``there``, and of no archive that says why."""
        known = frozenset(there)
        states = {oid: some[-1] for oid, some in self.states.items() if oid not in known}
        return sorted(oid for oid, state in states.items() if state.proves(oid) and not state.dropped)

    def latest(self, oid: int) -> ArchiveState | None:
        """The one that counts; None where there is none."""
        found = self.states.get(oid)
        return found[-1] if found else None


UNKNOWN = Archives()
"""Nothing is known: nothing is proven then, and nothing approved."""


class Kept(NamedTuple):
    """Why a table is kept. ``reason``: CamelCase; ``message`` continues a sentence about the table."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class DropCase:
    """One table that was detached, and all that its drop is decided from.

    ``now`` is aware, the moment by which the grace is judged: under the lock, the server's clock. ``read_now`` is the
    moment by which the age of the last reading is judged: that of the plan, moved on by what has passed since.
    ``cutoff`` is in the key's domain.
    """

    table: Detached
    now: datetime
    read_now: datetime
    cutoff: datetime | None = None
    retention: Retention | None = None
    held: frozenset[str] = frozenset()
    archives: Archives = field(default=UNKNOWN, repr=False)
    outside: tuple[Detached, ...] = field(default=(), repr=False)
    """Every table that was detached from the same parent: an approval must name one of them only."""
    server: str = ""
    """`inventory.Server.identity` of the server and database: archives of others are none of the table."""
    step: str = ""
    """The id of the drop as a step of a plan that needs the user's approval; "" where it needs none."""
    asked_by_name: bool = False
    """Whether the user has named this very table, so that neither the policy nor its archives are asked."""

    @property
    def archive(self) -> ArchiveState | None:
        """The archive that counts for the table."""
        return self.archives.latest(self.table.oid)

    @property
    def is_held(self) -> bool:
        """Whether a hold names the table."""
        return policy.is_held(self.held, self.table.names)


def is_detached(case: DropCase) -> Kept | None:
    """The mark of the table says since when it is detached."""
    if case.table.marker.phase is not Phase.DETACHED:
        return Kept(OUTSIDE, "its mark does not say since when it is detached")
    return None


def has_expired(case: DropCase) -> Kept | None:
    """Its whole range is older than the policy keeps."""
    if case.table.marker.range.is_before(case.cutoff):
        return None
    return Kept(OUTSIDE, "its range is not older than spec.retention.keepFor")


def not_held(case: DropCase) -> Kept | None:
    """No hold names it."""
    return Kept(HELD, f"{policy.HOLD} names it") if case.is_held else None


def policy_says_drop(case: DropCase) -> Kept | None:
    """The policy drops what has expired. Each that follows needs a policy with ``retention``."""
    if case.retention is not None and case.retention.on_expire is OnExpire.DROP:
        return None
    return Kept(POLICY, "spec.retention.onExpire is not Drop")


def grace_over(case: DropCase) -> Kept | None:
    """It has been detached for as long as the policy wants."""
    assert case.retention is not None
    grace = case.retention.grace_period
    # A difference, not a sum: whatever moment a mark names, this cannot overflow.
    if case.now - case.table.marker.since >= grace:
        return None
    return Kept(GRACE, f"it is not yet detached for as long as spec.retention.grace says ({grace})")


def approved(case: DropCase) -> Kept | None:
    """The user has approved it, where the policy wants that. What names two tables approves neither."""
    assert case.retention is not None
    if case.retention.approval is not Approval.MANUAL:
        return None
    if any(len(named(entry, case.outside)) == 1 for entry in case.archives.approved & case.table.names):
        return None
    return Kept(APPROVAL, f"the annotation {policy.APPROVAL} does not name it, or another table as well")


def plan_approved(case: DropCase) -> Kept | None:
    """The approval of the plan, where it needs one, is there still, and of this drop."""
    if not case.step or case.step in case.archives.plan.steps(plan_basis(case.retention, case.server)):
        return None
    return Kept(PLAN_APPROVAL, f"the annotation {APPROVE_PLAN} of the policy names no plan any more that drops it")


NOT_OF_PLANS: Mapping[str, bool | set[str]] = {
    "max_retirements": True,
    "job": True,
    "archive": {"verify_every", "keep_for", "deletion"},
}
"""Fields of spec.retention that say nothing of how a table is retired."""


def plan_basis(retention: Retention | None, server: str) -> str:
    """What the approval of a plan holds for, beside its steps: this database, by ``inventory.Server.identity``, and
    what the policy says of archives, grace and the like. Another grace, or no archive, is another plan."""
    said = retention.model_dump_json(exclude=NOT_OF_PLANS) if retention else ""
    return hashlib.sha256(f"{server}\0{said}".encode()).hexdigest()[:16]


def archive_proven(case: DropCase) -> Kept | None:
    """Its archive was read back and was equal to it, or the policy says that none is needed."""
    assert case.retention is not None
    state = case.archive
    if case.retention.archive is None:
        met = case.retention.drop_without_archive
    else:
        met = state is not None and state.proves(case.table.oid)
    return None if met else Kept(ARCHIVING, "no archive of it is proven")


def archive_compared(case: DropCase) -> Kept | None:
    """Archive and table were read and compared since all of the above is so, and at most a day ago."""
    assert case.retention is not None
    if case.retention.archive is None:
        return None
    state = case.archive
    if state is None or state.check is None or not state.check.ok or not _is_last(case, state, state.check):
        return Kept(CHECKING, "archive and table were not read again since nothing else keeps the table")
    if not _is_young(case, state.check):
        return Kept(CHECKING, "archive and table were last read more than a day ago")
    return None


BY_NAME = (is_detached, not_held)
"""What keeps even a table that the user has asked for by its name."""
DROP_PRECONDITIONS: tuple[Callable[[DropCase], Kept | None], ...] = (
    is_detached,
    has_expired,
    not_held,
    policy_says_drop,
    grace_over,
    approved,
    plan_approved,
    archive_proven,
    archive_compared,
)
"""In the order in which they are asked."""


def all_unmet(case: DropCase) -> Iterator[Kept]:
    """Every precondition that is not met, in their order; none where the table may be dropped."""
    asked = BY_NAME if case.asked_by_name else DROP_PRECONDITIONS
    return (kept for each in asked if (kept := each(case)) is not None)


def unmet(case: DropCase) -> Kept | None:
    """The first precondition that is not met; None where the table may be dropped."""
    return next(all_unmet(case), None)


def named(entry: str, tables: Iterable[Detached]) -> list[Detached]:
    """The tables that an entry of an annotation may mean."""
    return [each for each in tables if entry in each.names]


def after_detach(table: Detached) -> str:
    """The token of the reading that follows the detach: it was asked for when the mark said ``since``."""
    return f"{AFTER_DETACH}{iso(table.marker.since)}"


def last_reading(case: DropCase, state: ArchiveState) -> str:
    """The token by which the last reading is asked for: the same while that one will do.

    It begins with what allows the drop. Is a reading too old, the next is named after the moment of that one, so that
    it is another; a Job of hours is not asked for anew at midnight.
    """
    facts, check = _facts(case, state), state.check
    if check is None or not _is_last(case, state, check):
        return facts
    if check.ok and not _is_young(case, check):
        return f"{facts}/{iso(check.completed) or 'unread'}"
    return check.token


def _facts(case: DropCase, state: ArchiveState) -> str:
    assert case.retention is not None
    facts = (case.retention.grace, case.retention.approval, state.name, state.doubt)
    return f"{LAST}{iso(case.table.marker.since)}/{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"


def _is_last(case: DropCase, state: ArchiveState, check: CheckState) -> bool:
    facts = _facts(case, state)
    return check.token == facts or check.token.startswith(f"{facts}/")


def _is_young(case: DropCase, check: CheckState) -> bool:
    """What says no moment, or one to come, is as good as old: it is read again."""
    return check.completed is not None and -AHEAD <= case.read_now - check.completed <= OLDEST_READING
