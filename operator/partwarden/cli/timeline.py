"""A table along time, as `partwarden timeline` and `partwarden report` show it. Values only.

Bounds, and what is compared with them, are in the domain of the key, as `clock` has it; what comes is at instants.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, takewhile
from typing import Any

from ..api.policy import Mode, TableSpec
from ..api.status import FOR_EVER, MAX_PLAN, PartitionStatus, PlannedAction, State
from ..api.types import Interval
from ..errors import UnknownTimeZone
from ..planner.calendar import Grid, iso
from ..planner.context import cutoff
from ..planner.keys import Codec, KeyType
from ..planner.upcoming import MOST_AHEAD
from .clock import Clock, when
from .tables import Level, TableView

EXPIRES, LATER = "expires", "later"
PLANNED = "Planned"
"""The state of a partition that the plan makes."""
BEGINNING = datetime.min.replace(tzinfo=UTC)
NEAR = 6
"""Partitions on either side of the current one that are never folded."""
PLAIN = (State.PAST, State.FUTURE)
NOTABLE = 8
"""Of those further off that are held, or for which more comes than that they expire, how many are not folded."""


@dataclass(frozen=True, slots=True)
class Coming:
    """What comes next for a partition. ``at`` None: now, or as soon as what it ``waits`` for has come."""

    verb: str
    at: datetime | None = None
    waits: tuple[str, ...] = ()

    def words(self, now: datetime) -> str:
        """Such as ``detach now``, ``drop in 3 d``, ``expires 2031-01-01`` or ``detach, waits: Archive``.

        ``now``: in the zone of the words.
        """
        if self.verb == LATER:
            return LATER
        if self.waits:
            return f"{self.verb}, waits: {self.waits[0].partition(':')[0]}"
        return f"{self.verb} {'now' if self.at is None else when(self.at, now)}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One partition, detached table, or partition that the plan makes.

    ``lower`` None is MINVALUE and ``upper`` None MAXVALUE, but of DEFAULT, which has neither. ``archive``: "" for none.
    """

    name: str
    state: str
    lower: datetime | None
    upper: datetime | None
    period: str
    """Its range for people, as commands take it where it is one interval: ``2026-08``, ``2026-Q3``; or DEFAULT."""
    bytes: int = 0
    rows: int | None = None
    archive: str = ""
    held: bool = False
    next: Coming | None = None

    @property
    def archived(self) -> bool:
        """Whether an archive of it is proven."""
        return self.archive == "Proven"

    @property
    def leaves(self) -> bool:
        """Whether its rows are about to leave the table, or have left it."""
        return self.state in (State.EXPIRED, State.DETACH_PENDING, State.DETACHED)


@dataclass(frozen=True, slots=True)
class Fold:
    """Partitions that are not shown one by one."""

    entries: Sequence[Entry]
    older: bool

    @property
    def bytes(self) -> int:
        """All of them."""
        return sum(each.bytes for each in self.entries)


@dataclass(frozen=True, slots=True)
class Timeline:
    """One table. ``ahead``: whole intervals of coverage after the current one; None: without an end."""

    view: TableView
    clock: Clock
    now: datetime
    """In the policy's zone."""
    covered_until: datetime | None
    ahead: int | None
    cutoff: datetime | None
    entries: tuple[Entry, ...]
    """Detached tables first, then partitions ascending, DEFAULT last."""
    steps: tuple[PlannedAction, ...] = ()
    cut: bool = False
    """There may be more steps, which the status does not have."""
    idle: str = ""
    """Why nothing of what comes is done."""
    unlisted: int = 0
    """Partitions that the status does not list."""

    @classmethod
    def of(
        cls, view: TableView, now: datetime, spec: TableSpec | None = None, plan: Sequence[PlannedAction] = ()
    ) -> Timeline:
        """``now`` is aware. Without retention in ``spec`` nothing is known to expire. ``plan``: what comes."""
        status, interval = view.status, _interval(view.heading["interval"])
        until = status.summary.covered_until if status.summary else None
        bounds = [until, *(end for each in status.partitions for end in (each.from_, each.to))]
        clock = Clock.of(view.heading["timezone"], interval, [*bounds, *(each.from_ for each in plan)])
        steps: dict[str, PlannedAction] = {}
        for step in plan:
            steps.setdefault(step.partition, step)
        cut = view.of_policy and len(plan) >= MAX_PLAN
        entries = [_entry(each, view, spec, steps.get(each.name), clock, cut) for each in status.partitions]
        known = {each.name for each in entries}
        made = [
            Entry(each.partition, PLANNED, *_range(each, clock), next=_coming(each, clock))
            for each in plan
            if each.action == "CreatePartition" and each.partition not in known
        ]
        entries = sorted((*entries, *made), key=_place)
        covered, here = clock.bound(until), clock.here(now.astimezone(UTC))
        return cls(
            view=view,
            clock=clock,
            now=now.astimezone(clock.zone),
            covered_until=covered,
            ahead=None if until == FOR_EVER else _ahead(clock.grid, here, covered),
            cutoff=_cutoff(spec, now, clock),
            entries=tuple(entries),
            steps=tuple(plan),
            cut=cut,
            idle=_idle(spec) if any(each.next for each in entries) else "",
            unlisted=max(0, status.summary.partitions - status.summary.listed) if status.summary else 0,
        )

    @property
    def here(self) -> datetime:
        """Now, in the key's domain."""
        return self.clock.here(self.now.astimezone(UTC))

    @property
    def interval(self) -> Interval:
        """That of the policy."""
        return self.clock.grid.interval

    @property
    def zone(self) -> str:
        """By whose clock its words are."""
        return self.clock.zone.key

    @property
    def level(self) -> Level:
        """How bad it is."""
        return max((level for level, _ in self.view.problems), default=Level.OK)

    @property
    def runway(self) -> str:
        """``3 months ahead``."""
        if self.view.status.summary is None:
            return "not observed yet"
        if self.ahead is None:
            return "covered for ever"
        if self.covered_until is None or self.covered_until <= self.here:
            return "now is not covered"
        most = "at least " if self.ahead == MOST_AHEAD else ""
        return f"{most}{self.ahead:,} {self.interval.value.lower()}{'' if self.ahead == 1 else 's'} ahead"

    @property
    def urgency(self) -> tuple[int, float, str]:
        """Ascending: the worst first, then the one with the least runway."""
        return -self.level, float("inf") if self.ahead is None else self.ahead, self.view.name

    @property
    def coming(self) -> Entry | None:
        """The entry of that for which something comes first; what waits comes last."""
        found = [
            (bool(each.next.waits), each.next.at or BEGINNING, n) for n, each in enumerate(self.entries) if each.next
        ]
        return self.entries[min(found)[-1]] if found else None

    def folded(self) -> Iterator[Entry | Fold]:
        """The entries with runs of those that are far off, and for which nothing comes, as one each."""
        here = self.here
        after = next((n for n, each in enumerate(self.entries) if each.upper and each.upper > here), 0)
        near = range(after - NEAR, after + NEAR + 1)
        far = [(n, each) for n, each in enumerate(self.entries) if n not in near]
        expires = [n for n, each in far if each.next and each.next.verb == EXPIRES]
        notable = [n for n, each in far if n not in expires and (each.next or each.held or each.state not in PLAIN)]
        shown = {*near, *notable[:NOTABLE], *expires[:1], *(n for n, each in far if each.state == State.DEFAULT)}
        for is_shown, run in groupby(enumerate(self.entries), key=lambda pair: pair[0] in shown):
            numbers, found = zip(*run, strict=True)
            if is_shown or len(found) == 1:
                yield from found
            else:
                yield Fold(found, older=numbers[0] < after)

    def document(self) -> dict[str, Any]:
        """As data, all entries."""
        view = self.view
        return {
            **view.heading,
            "level": self.level.name,
            "intervalsAhead": self.ahead,
            "coveredUntil": view.status.summary.covered_until if view.status.summary else None,
            "cutoff": iso(self.cutoff),
            "notListed": self.unlisted,
            "partitions": [
                {
                    "name": each.name,
                    "state": str(each.state),
                    "period": each.period,
                    "from": iso(each.lower),
                    "to": iso(each.upper),
                    "bytes": each.bytes,
                    "rows": each.rows,
                    "archive": each.archive or None,
                    "held": each.held,
                    "next": each.next
                    and {"action": each.next.verb, "at": iso(each.next.at), "waitsFor": list(each.next.waits)},
                }
                for each in self.entries
            ],
        }


def _interval(text: Any) -> Interval:
    """Year, as the default is, for what is none."""
    with suppress(ValueError):
        return Interval(text)
    return Interval.YEAR


def _range(each: PartitionStatus | PlannedAction, clock: Clock) -> tuple[datetime | None, datetime | None, str]:
    lower, upper = clock.bound(each.from_), clock.bound(each.to)
    return lower, upper, clock.period(lower, upper)


def _entry(
    each: PartitionStatus,
    view: TableView,
    spec: TableSpec | None,
    step: PlannedAction | None,
    clock: Clock,
    cut: bool,
) -> Entry:
    """``cut``: there may be more steps than are known."""
    archive = (view.archives or {}).get(each.name)
    expires, drop = clock.instant(each.expires_at), clock.instant(each.drop_after)
    coming = _coming(step, clock) if step else None
    if coming is None and spec is not None and spec.retention is not None:
        if expires and each.state not in (State.EXPIRED, State.DETACHED):
            coming = Coming(EXPIRES, expires)
        elif drop:
            coming = Coming("drop", drop)
        elif cut and each.state is State.EXPIRED:
            coming = Coming(LATER, waits=(f"the first {MAX_PLAN} steps",))
    lower, upper, words = _range(each, clock)
    return Entry(
        name=each.name,
        state=each.state,
        lower=lower,
        upper=upper,
        period="DEFAULT" if each.state is State.DEFAULT else words,
        bytes=each.bytes,
        rows=each.rows,
        archive=archive.state if archive else "",
        held=bool(each.held) or each.state is State.HELD,
        next=coming,
    )


def _coming(step: PlannedAction, clock: Clock) -> Coming:
    """The verb is the first word of the action's name."""
    verb = "".join(takewhile(str.islower, step.action[1:]))
    return Coming(step.action[:1].lower() + verb, clock.instant(step.not_before), tuple(step.waits_for))


def _place(each: Entry) -> tuple[int, bool, datetime]:
    order = {State.DETACHED: 0, State.DEFAULT: 2}.get(State(each.state), 1) if each.state != PLANNED else 1
    return order, each.lower is not None, each.lower or BEGINNING


def _ahead(grid: Grid, here: datetime, covered: datetime | None) -> int:
    if covered is None or covered <= here:
        return 0
    with suppress(OverflowError):
        cells = takewhile(lambda cell: cell.upper <= covered, grid.cells(grid.cell(here).upper, covered))
        return sum(1 for _, _ in zip(range(MOST_AHEAD), cells, strict=False))
    return MOST_AHEAD


def _cutoff(spec: TableSpec | None, now: datetime, clock: Clock) -> datetime | None:
    if spec is None or spec.retention is None:
        return None
    codec = Codec(KeyType.TIMESTAMPTZ if clock.grid.zone else KeyType.TIMESTAMP)
    with suppress(UnknownTimeZone):
        return clock.bound(iso(cutoff(spec.retention.keep_for, now, Grid.of(spec), codec)))
    return None


def _idle(spec: TableSpec | None) -> str:
    why = spec and ("spec.suspend is true" if spec.suspend else "spec.mode is Plan" if spec.mode is Mode.PLAN else "")
    return f"nothing of NEXT is done: {why}" if why else ""
