"""What is to be expected of a table, from what was measured of it: partitions that are closed, archives that are made.

Pure, and it decides nothing. What was not measured is None. Nothing comes from the current partition, which grows at
each reconcile: numbers have two significant digits, moments are dates that follow from those, and so a status that
holds them is not written while nothing is closed or archived.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import combinations, islice
from statistics import median
from typing import Any, NamedTuple, Self

from ..api.forecast import Forecast
from ..api.policy import TableSpec
from ..api.types import parse_moment
from .calendar import BoundedRange, Grid, load_zone
from .drop_preconditions import server_label
from .inventory import Inventory, Partition, RelationKind
from .plan import Plan

DAY = timedelta(days=1)
MOST = 8
"""Periods, or archives, that are measured: the newest."""
LENGTHS = (7, 1, 0)
"""Days of a period, the best first: hours and days follow the week, and a partition alone says little."""
ENOUGH = 3
"""Periods that there must be of a length before a shorter one is taken; of so many the extremes are left out."""
LONGEST = 367
"""Days: a partition of more, such as one for all that is old, says nothing of a day."""
TREND, CERTAIN = 6, 0.7
"""Periods that show a trend, and the share of their pairs that must agree beyond those that do not (Kendall's tau)."""
HORIZON = 3650
"""Days: what is farther away is not said."""
MOST_FAILING = 20
"""Archives that are named in a status."""
LARGEST = 1 << 62
"""Of a number."""
FARTHEST = 4
"""How many times as large as the largest that was measured the next archive may be."""


class PastArchive(NamedTuple):
    """An archive that is proven. ``server``: the `server_label` of its table's. ``seconds``: of the Job that made it,
    None where that is not known. ``completed`` is aware."""

    server: str
    oid: int
    rows: int
    bytes: int
    seconds: int | None
    completed: datetime

    @classmethod
    def of(cls, status: Mapping[str, Any]) -> Self | None:
        """By the status of a PartitionArchive; None where that does not say it was proven, and all of this."""
        if not status.get("manifestSha256"):
            return None
        try:
            rows, seconds = int(status["rows"]), status.get("seconds")
            size = int(status["bytes"]) + int(status.get("parquetBytes") or 0)
            found = cls(
                server=server_label(str(status["server"])),
                oid=int(status["oid"]),
                rows=rows,
                bytes=size,
                seconds=None if seconds is None else max(0, int(seconds)),
                completed=parse_moment(status["completed"]),
            )
        except (KeyError, TypeError, ValueError):
            return None
        return found if rows >= 0 and size >= 0 else None


class Claim(NamedTuple):
    """The PersistentVolumeClaim of the policy's archives. ``used``: bytes of all archives there, the last of which was
    made at ``since``, aware. ``others``: bytes a day that other policies are to add, by their forecasts."""

    capacity: int
    used: int
    since: datetime
    others: int


class Failing(NamedTuple):
    """An archive that is all that is left of its table, and that is wrong, or could not be read."""

    name: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Measured:
    """What the cluster shows of the policy's archives; ``claim`` is None where its capacity is not known."""

    archives: tuple[PastArchive, ...] = ()
    claim: Claim | None = None
    failing: tuple[Failing, ...] = ()
    """By name, `MOST_FAILING` at most."""
    expiring: int = 0
    """How many archives are announced to be deleted."""
    first_expiry: datetime | None = None
    """When the first of them is; aware."""
    oldest_verified: datetime | None = None
    """When the archive was last read that was not read for the longest; aware. None where there is none."""
    verification_due: datetime | None = None
    """When that is to be read again at the latest; None where the policy wants none to be."""
    no_parquet: bool = False
    """Whether the policy wants archives to hold Parquet, and the image of Jobs cannot make it."""


NOTHING = Measured()


class Period(NamedTuple):
    """Some partitions that follow each other. ``middle``: days before the current interval, negative."""

    partitions: int
    days: float
    middle: float
    bytes: int
    rows: int | None
    """The planner's estimate; None where one has none."""


class Trend(NamedTuple):
    """Bytes a day: at the beginning of the current interval, and how many more with each day."""

    base: float
    slope: float

    def at(self, days: float) -> float:
        """Bytes a day, so many days later; never negative."""
        return max(0.0, self.base + self.slope * days)


def forecast(spec: TableSpec, inventory: Inventory, plan: Plan, measured: Measured = NOTHING) -> Forecast | None:
    """None where no partition that is closed was measured."""
    closed = _closed(inventory, plan)
    periods = _periods(closed, plan.current.lower)
    if not periods:
        return None
    bytes_a_day = _a_day((each.bytes, each.days) for each in periods)
    counted = [(each.rows, each.days) for each in periods if each.rows is not None]
    rows_a_day = _a_day(counted) if counted else None
    slope = _slope(periods)
    trend = Trend(bytes_a_day, 0.0)
    if slope is not None:
        trend = Trend(_rough(median(each.bytes / each.days - slope * each.middle for each in periods)), slope)
    found = Forecast(
        partitions=sum(each.partitions for each in periods),
        bytes_per_day=_whole(bytes_a_day),
        rows_per_day=None if rows_a_day is None else _whole(rows_a_day),
        growth_percent=(_whole(3000 * slope / bytes_a_day) or None) if slope and bytes_a_day else None,
        next_partition_bytes=_next_size(trend, plan.current),
        threshold_reached=_iso(_reached(spec, inventory, plan, trend)),
    )
    if spec.retention is None or spec.retention.archive is None:
        return found
    return found.model_copy(update=_of_archives(inventory, plan, closed, rows_a_day, measured))


def _rough(number: float) -> float:
    """To two significant digits."""
    return float(f"{number:.2g}")


def _whole(number: float) -> int:
    """No more than a status holds: what others wrote, from which it comes, may be as large as that."""
    return int(max(-LARGEST, min(_rough(number), LARGEST)))


def _iso(day: date | None) -> str | None:
    return day.isoformat() if day else None


def _closed(inventory: Inventory, plan: Plan) -> list[tuple[Partition, BoundedRange]]:
    """Partitions whose range has passed, the newest first."""
    kinds = (RelationKind.TABLE, RelationKind.PARTITIONED)
    ranged = [(each, each.range.bounded) for each in inventory.partitions if each.range and each.kind in kinds]
    closed = [
        (each, held)
        for each, held in ranged
        if held and held.upper <= plan.current.lower and not each.detach_pending and (held.upper - held.lower) / DAY > 0
    ]
    return sorted(closed, key=lambda pair: pair[1].upper, reverse=True)


def _periods(closed: Sequence[tuple[Partition, BoundedRange]], now: datetime) -> list[Period]:
    """The newest, each of a week where there are enough, else of a day, else of one partition."""
    found: list[Period] = []
    for least in LENGTHS:
        found = list(islice(_grouped(closed, now, least), MOST))
        if len(found) >= ENOUGH:
            break
    return found


def _grouped(closed: Sequence[tuple[Partition, BoundedRange]], now: datetime, least: float) -> Iterator[Period]:
    group: list[Partition] = []
    days = end = 0.0
    for each, held in closed:
        if (length := (held.upper - held.lower) / DAY) > LONGEST:
            continue
        end, days = end if group else (held.upper - now) / DAY, days + length
        group.append(each)
        # As near to it as whole partitions come: a day may have 23 hours.
        if days + length / 2 >= least:
            rows = [table.rows for table in group if table.rows is not None]
            yield Period(
                partitions=len(group),
                days=days,
                middle=(end + (held.lower - now) / DAY) / 2,
                bytes=sum(table.bytes for table in group),
                rows=sum(rows) if len(rows) == len(group) else None,
            )
            group, days = [], 0.0


def _a_day(amounts: Iterable[tuple[int, float]]) -> float:
    """What comes in a day, of amounts and the days that each is of: all together but for the lowest and the highest, so
    that a single one spoils nothing."""
    ordered = sorted(amounts, key=lambda pair: pair[0] / pair[1])
    kept = ordered[1:-1] if len(ordered) >= ENOUGH else ordered
    return _rough(sum(amount for amount, _ in kept) / sum(days for _, days in kept))


def _slope(periods: Sequence[Period]) -> float | None:
    """By how much the bytes a day grow with each day: the median of all pairs (Theil-Sen), None where no trend shows.

    https://en.wikipedia.org/wiki/Theil%E2%80%93Sen_estimator
    """
    slopes = [
        (one.bytes / one.days - other.bytes / other.days) / (one.middle - other.middle)
        for one, other in combinations(periods, 2)
        if one.middle != other.middle
    ]
    agreed = abs(sum((each > 0) - (each < 0) for each in slopes))
    if len(slopes) < TREND * (TREND - 1) // 2 or agreed < CERTAIN * len(slopes):
        return None
    return _rough(median(slopes))


def _next_size(trend: Trend, current: BoundedRange) -> int:
    """Of the partition after the current one, taken to be as long."""
    days = (current.upper - current.lower) / DAY
    return _whole(trend.at(1.5 * days) * days)


def _reached(spec: TableSpec, inventory: Inventory, plan: Plan, trend: Trend) -> date | None:
    """The day, by the policy's zone, on which a partition first grows beyond ``thresholds.partitionSize``.

    In the current one, or the next, by the bytes a day; else when a whole partition is as large, if they grow.
    """
    limit, days = spec.thresholds.partition_bytes, (plan.current.upper - plan.current.lower) / DAY
    if limit is None:
        return None
    today = inventory.now.astimezone(load_zone(spec.timezone)).date()
    candidates = []
    for number in (0, 1):
        rate = trend.at((number + 0.5) * days)
        if rate * days >= limit > 0:
            candidates.append(number * days + limit / rate)
    if trend.slope > 0:
        # The end of the partition whose middle has the rate by which it is as large.
        candidates.append(max((limit / days - trend.base) / trend.slope + days / 2, 2 * days))
    dates = (_later(spec, plan, each) for each in candidates)
    # The current partition may have fewer rows than those before it: a day that has passed says nothing.
    return next((each for each in dates if each is not None and each >= today), None)


def _later(spec: TableSpec, plan: Plan, days: float) -> date | None:
    """The day, by the policy's zone, so long after the beginning of the current interval; None beyond the horizon."""
    try:
        moment = plan.current.lower + timedelta(days=days)
        return Grid.of(spec, aware=plan.codec.aware).local(moment).date() if days <= HORIZON else None
    except OverflowError:
        return None


def _of_archives(
    inventory: Inventory,
    plan: Plan,
    closed: Sequence[tuple[Partition, BoundedRange]],
    rows_a_day: float | None,
    measured: Measured,
) -> dict[str, object]:
    """The fields of a forecast that speak of archives."""
    here = server_label(inventory.server.identity)
    own = [each for each in measured.archives if each.server == here]
    newest = sorted((each for each in own if each.rows > 0), key=lambda each: each.completed)[-MOST:]
    if not newest:
        return {}
    # What an archive costs whatever its size counts the least in the larger half.
    larger = sorted(newest, key=lambda each: each.rows)[len(newest) // 2 :]
    a_row = median(each.bytes / each.rows for each in larger)
    a_day = None if rows_a_day is None else _rough(a_row * rows_a_day)
    found: dict[str, object] = {"archives": len(newest)}
    found["archive_bytes_per_day"] = None if a_day is None else _whole(a_day)
    if measured.claim is not None and a_day is not None:
        found["claim_full"] = _iso(_full(measured.claim, a_day))
    proven, spared = {each.oid for each in own}, plan.retired.kept
    following = [
        each
        for each, _ in closed
        if each.oid not in proven and each.oid not in spared and each.kind is RelationKind.TABLE
    ]
    if not following:
        return found
    rows = following[-1].rows
    found["next_archive"] = following[-1].name
    if rows and rows <= FARTHEST * larger[-1].rows:
        found["next_archive_bytes"] = _whole(a_row * rows)
        found["next_archive_seconds"] = _seconds(newest, larger, rows)
    return found


def _seconds(newest: Sequence[PastArchive], larger: Sequence[PastArchive], rows: int) -> int | None:
    """In proportion to the rows, and no less than the shortest has taken."""
    took = [each.seconds for each in newest if each.seconds is not None]
    a_row = [each.seconds / each.rows for each in larger if each.seconds is not None]
    return _whole(max(min(took), median(a_row) * rows)) if a_row else None


def _full(claim: Claim, a_day: float) -> date | None:
    """The day, in UTC, on which archives fill the claim. It may have passed: then what should be archived by now, and
    is not, fills it."""
    room, rate = max(0, claim.capacity - claim.used), a_day + claim.others
    if rate <= 0 or room / rate > HORIZON:
        return None
    return (claim.since + timedelta(days=room / rate)).date()
