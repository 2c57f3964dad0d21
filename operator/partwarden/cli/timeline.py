"""A table along time, as `partwarden timeline` and `partwarden report` show it. Values only.

Moments here are naive: the wall clock of the policy's zone, or the key's own where it has no zone. What a status says
is text that others may have written: what is no moment is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby, takewhile
from typing import Any

from ..api.policy import TableSpec
from ..api.status import FOR_EVER, PartitionStatus, PlannedAction, State
from ..api.types import Interval
from ..errors import UnknownTimeZone
from ..planner.calendar import BoundedRange, Grid, load_zone
from ..planner.context import cutoff
from ..planner.keys import Codec, KeyType
from .tables import Level, TableView

EXPIRES = "expires"
PLANNED = "Planned"
"""The state of a partition that the plan makes."""
MANY = 10_000
"""Intervals ahead that are counted; more are "at least"."""
NEAR = 6
"""Partitions on either side of the current one that are never folded."""
PLAIN = (State.PAST, State.FUTURE)
NOTABLE = 8
"""Of those further off that are held, or for which more comes than that they expire, how many are not folded."""
PERIODS = {
    Interval.YEAR: "%Y",
    Interval.MONTH: "%Y-%m",
    Interval.WEEK: "%G-W%V",
    Interval.DAY: "%Y-%m-%d",
    Interval.HOUR: "%Y-%m-%dT%H",
}


@dataclass(frozen=True, slots=True)
class Coming:
    """What comes next for a partition. ``at`` None: now, or as soon as what it ``waits`` for has come."""

    verb: str
    at: datetime | None = None
    waits: tuple[str, ...] = ()

    def words(self, now: datetime) -> str:
        """Such as ``detach now``, ``drop in 3 d``, ``expires 2031-01-01`` or ``detach, waits: Archive``."""
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
    bytes: int = 0
    rows: int | None = None
    archive: str = ""
    held: bool = False
    next: Coming | None = None

    @property
    def period(self) -> str:
        """Its range for people, as commands take it where it is one interval: ``2026-08``, ``2026-Q3``."""
        return period(self.lower, self.upper) if self.state != State.DEFAULT else "DEFAULT"

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
    interval: Interval
    zone: str
    now: datetime
    covered_until: datetime | None
    ahead: int | None
    cutoff: datetime | None
    entries: tuple[Entry, ...]
    """Detached tables first, then partitions ascending, DEFAULT last."""
    steps: tuple[PlannedAction, ...] = ()
    unlisted: int = 0
    """Partitions that the status does not list."""

    @classmethod
    def of(
        cls, view: TableView, now: datetime, spec: TableSpec | None = None, plan: Sequence[PlannedAction] = ()
    ) -> Timeline:
        """``now`` is aware. Without a ``spec`` nothing is known to expire. ``plan``: what is known to come."""
        zone_name, interval = view.heading["timezone"], _interval(view.heading["interval"])
        try:
            zone = load_zone(zone_name)
        except UnknownTimeZone:
            zone_name, zone = "UTC", load_zone("UTC")
        status = view.status

        def local(text: str | None) -> datetime | None:
            with suppress(ValueError, OverflowError):
                moment = datetime.fromisoformat(text or "")
                return moment.astimezone(zone).replace(tzinfo=None) if moment.tzinfo else moment
            return None

        clock = now.astimezone(zone).replace(tzinfo=None)
        until = status.summary.covered_until if status.summary else None
        covered = local(until)
        steps: dict[str, PlannedAction] = {}
        for step in plan:
            steps.setdefault(step.partition, step)
        entries = [_entry(each, view, spec, steps.get(each.name), local) for each in status.partitions]
        known = {each.name for each in entries}
        made = [
            Entry(each.partition, PLANNED, local(each.from_), local(each.to), next=_coming(each, local))
            for each in plan
            if each.action == "CreatePartition" and each.partition not in known
        ]
        return cls(
            view=view,
            interval=interval,
            zone=zone_name,
            now=clock,
            covered_until=covered,
            ahead=None if until == FOR_EVER else _ahead(interval, clock, covered),
            cutoff=_cutoff(spec, now),
            entries=tuple(sorted((*entries, *made), key=_place)),
            steps=tuple(plan),
            unlisted=max(0, status.summary.partitions - status.summary.listed) if status.summary else 0,
        )

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
        if self.covered_until is None or self.covered_until <= self.now:
            return "now is not covered"
        most = "at least " if self.ahead == MANY else ""
        return f"{most}{self.ahead:,} {self.interval.value.lower()}{'' if self.ahead == 1 else 's'} ahead"

    @property
    def urgency(self) -> tuple[int, float, str]:
        """Ascending: the worst first, then the one with the least runway."""
        return -self.level, float("inf") if self.ahead is None else self.ahead, self.view.name

    @property
    def coming(self) -> Entry | None:
        """The entry of that for which something comes first."""
        found = [each for each in self.entries if each.next and not each.next.waits]
        return min(found, key=lambda each: (each.next and each.next.at) or datetime.min, default=None)

    def folded(self) -> Iterator[Entry | Fold]:
        """The entries with runs of those that are far off, and for which nothing comes, as one each."""
        after = next((n for n, each in enumerate(self.entries) if each.upper and each.upper > self.now), 0)
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
            "cutoff": _text(self.cutoff),
            "notListed": self.unlisted,
            "partitions": [
                {
                    "name": each.name,
                    "state": str(each.state),
                    "period": each.period,
                    "from": _text(each.lower),
                    "to": _text(each.upper),
                    "bytes": each.bytes,
                    "rows": each.rows,
                    "archive": each.archive or None,
                    "held": each.held,
                    "next": each.next
                    and {"action": each.next.verb, "at": _text(each.next.at), "waitsFor": list(each.next.waits)},
                }
                for each in self.entries
            ],
        }


def when(moment: datetime, now: datetime) -> str:
    """From ``now`` on: ``in 5 h``, ``in 27 d``, from a hundred days on the date; ``now`` for what has come."""
    left = moment - now
    if left <= timedelta(0):
        return "now"
    if left < timedelta(days=2):
        return f"in {max(1, round(left / timedelta(hours=1)))} h"
    return f"in {left.days} d" if left.days < 100 else moment.date().isoformat()


def period(lower: datetime | None, upper: datetime | None) -> str:
    """A range for people: a period where it is exactly one, else its ends."""
    if lower is None or upper is None:
        return f"from {short(lower)}" if lower else f"before {short(upper)}" if upper else "everything"
    for interval in Interval:
        with suppress(OverflowError):
            if Grid(interval, None).cell(lower) == BoundedRange(lower, upper):
                shape = PERIODS.get(interval, f"%Y-Q{(lower.month + 2) // 3}")
                return lower.strftime(shape)
    return f"{short(lower)}/{short(upper)}"


def short(moment: datetime | None) -> str:
    """``2026-01-01``, or ``2026-01-01T07:30`` where it is no midnight."""
    text = _text(moment) or ""
    return text.removesuffix("T00:00:00").removesuffix(":00")


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _interval(text: Any) -> Interval:
    """Year, as the default is, for what is none."""
    with suppress(ValueError):
        return Interval(text)
    return Interval.YEAR


def _entry(
    each: PartitionStatus, view: TableView, spec: TableSpec | None, step: PlannedAction | None, local: Any
) -> Entry:
    archive = (view.archives or {}).get(each.name)
    expires, drop = local(each.expires_at), local(each.drop_after)
    coming = _coming(step, local) if step else None
    if coming is None and spec is not None:
        if expires and each.state not in (State.EXPIRED, State.DETACHED):
            coming = Coming(EXPIRES, expires)
        elif drop:
            coming = Coming("drop", drop)
    return Entry(
        name=each.name,
        state=each.state,
        lower=local(each.from_),
        upper=local(each.to),
        bytes=each.bytes,
        rows=each.rows,
        archive=archive.state if archive else "",
        held=bool(each.held) or each.state is State.HELD,
        next=coming,
    )


def _coming(step: PlannedAction, local: Any) -> Coming:
    """The verb is the first word of the action's name."""
    verb = "".join(takewhile(str.islower, step.action[1:]))
    return Coming(step.action[:1].lower() + verb, local(step.not_before), tuple(step.waits_for))


def _place(each: Entry) -> tuple[int, datetime]:
    order = {State.DETACHED: 0, State.DEFAULT: 2}.get(State(each.state), 1) if each.state != PLANNED else 1
    return order, each.lower or datetime.min


def _ahead(interval: Interval, now: datetime, covered: datetime | None) -> int:
    if covered is None or covered <= now:
        return 0
    grid = Grid(interval, None)
    with suppress(OverflowError):
        cells = takewhile(lambda cell: cell.upper <= covered, grid.cells(grid.cell(now).upper, covered))
        return sum(1 for _, _ in zip(range(MANY), cells, strict=False))
    return MANY


def _cutoff(spec: TableSpec | None, now: datetime) -> datetime | None:
    if spec is None or spec.retention is None:
        return None
    with suppress(UnknownTimeZone):
        return cutoff(spec.retention.keep_for, now, Grid.of(spec), Codec(KeyType.TIMESTAMP))
    return None
