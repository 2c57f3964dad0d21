"""What ``list``, ``stats`` and ``health`` show of one table: values first, then as text or data. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from statistics import median
from typing import Any

from ..api.policy import TableSpec
from ..api.status import PartitionStatus, State, Summary
from ..errors import ReadOnlyServer
from ..planner.calendar import Grid, iso
from ..planner.inventory import Detached, Inventory, Partition
from ..planner.plan import Plan
from ..status.conditions import describe
from ..status.details import human, partitions_of, summarise


class Level(IntEnum):
    """Exit codes of ``health``, as the Monitoring Plugins' guidelines have them."""

    OK = 0
    WARNING = 1
    CRITICAL = 2


@dataclass(frozen=True, slots=True)
class View:
    """One table, as it was seen at ``inventory.now``."""

    spec: TableSpec
    inventory: Inventory
    plan: Plan

    @property
    def partitions(self) -> list[PartitionStatus]:
        """All of them, ascending, DEFAULT last; before them tables that were detached."""
        return partitions_of(self.inventory, self.plan)

    @property
    def oids(self) -> dict[str, int]:
        """Of the same, by the names that `partitions` gives them."""
        own = self.plan.parent.schema
        found: list[Partition | Detached] = [*self.inventory.partitions, *self.inventory.detached]
        return {each.name if each.schema == own else str(each): each.oid for each in found}

    @property
    def summary(self) -> Summary:
        """Totals."""
        return summarise(self.inventory, self.plan, len(self.inventory.partitions))


def heading(view: View) -> dict[str, Any]:
    """What the data begins with, whatever follows."""
    server = view.inventory.server
    return {
        "table": str(view.plan.parent),
        "database": server.database,
        "server": server.version_text,
        "key": view.plan.key,
        "interval": view.spec.interval.value,
        "timezone": view.spec.timezone,
        "now": iso(view.inventory.now),
    }


COLUMNS = ("NAME", "FROM", "TO", "STATE", "ROWS", "SIZE")
WIDE = ("MANAGED", "KIND", "BYTES")
MANAGED = (State.PAST, State.CURRENT, State.FUTURE, State.EXPIRED, State.HELD)
"""Exactly one interval."""


def rows(view: View, wide: bool, archives: Mapping[int, str] | None = None) -> list[tuple[str, ...]]:
    """``list`` as a table, its heading first. Rows are the planner's estimate, with a tilde; - where there is none.

    ``archives``: where that of each partition is, by OID; None where nobody asked.
    """
    found = [(*COLUMNS, *(("ARCHIVE",) if archives is not None else ()), *(WIDE if wide else ()))]
    for each in view.partitions:
        estimate = "-" if each.rows is None else f"~{each.rows:,}"
        plain = (each.name, *_ends(each), each.state.value, estimate, human(each.bytes))
        archived = (_archive(view, each, archives) or "-",) if archives is not None else ()
        more = ("yes" if each.state in MANAGED else "no", each.kind or "table", str(each.bytes)) if wide else ()
        found.append((*plain, *archived, *more))
    return found


def _archive(view: View, partition: PartitionStatus, archives: Mapping[int, str]) -> str | None:
    return archives.get(view.oids.get(partition.name, 0))


def _ends(each: PartitionStatus) -> tuple[str, str]:
    if each.state is State.DEFAULT:
        return "DEFAULT", ""
    return each.from_ or "MINVALUE", each.to or "MAXVALUE"


def listed(view: View, archives: Mapping[int, str]) -> dict[str, Any]:
    """``list`` as data."""
    partitions = []
    for each in view.partitions:
        where = _archive(view, each, archives)
        about = {"state": "Proven", "location": where} if where else None
        plain = each.model_dump(mode="json", by_alias=True, exclude_none=True)
        partitions.append({**plain, "managed": each.state in MANAGED, "archive": about})
    return {**heading(view), "partitions": partitions}


@dataclass(frozen=True, slots=True)
class Statistics:
    """Sizes in bytes. ``skew``: the largest against the median of those that hold something, 0 where none does."""

    summary: Summary
    median: float
    skew: float
    default: str


def measure(view: View) -> Statistics:
    """Of partitions, DEFAULT among them."""
    sizes = [each.bytes for each in view.inventory.partitions if each.bytes]
    middle = median(sizes) if sizes else 0.0
    found = view.inventory.default_rows
    default = ""
    if view.inventory.default is not None and found is not None and found.error is None and found.total:
        default = describe(Grid.of(view.spec, aware=view.plan.codec.aware), found)
    return Statistics(view.summary, middle, max(sizes) / middle if middle else 0.0, default)


def statistics(view: View, measured: Statistics, counts: Mapping[int, int]) -> dict[str, Any]:
    """``stats`` as data; ``counts``: rows by OID, where they were counted."""
    summary = measured.summary.model_dump(mode="json", by_alias=True, exclude_none=True)
    more: dict[str, Any] = {"medianBytes": measured.median, "skew": round(measured.skew, 2)}
    more["default"] = measured.default or None
    if counts:
        names = {oid: name for name, oid in view.oids.items()}
        more["rows"] = {"total": sum(counts.values()), "byPartition": {names[oid]: counts[oid] for oid in counts}}
    return {**heading(view), "summary": summary, **more}


def lines(view: View, measured: Statistics, counts: Mapping[int, int]) -> list[tuple[str, str]]:
    """``stats`` for people."""
    found = measured.summary
    largest = f"{found.largest.name}, {found.largest.size}" if found.largest else "-"
    runway = "for ever" if view.plan.covered_for_ever else f"{found.runway_days} days after the current interval"
    estimate = "-" if found.rows is None else f"{found.rows:,}"
    return [
        ("partitions", f"{found.partitions}, of which {found.managed} are exactly one {view.spec.interval}"),
        ("size", found.size),
        ("rows, counted", f"{sum(counts.values()):,}") if counts else ("rows, estimated", estimate),
        ("largest", largest),
        ("median", human(int(measured.median))),
        ("largest : median", f"{measured.skew:.1f}"),
        ("covered until", str(found.covered_until or "now is not covered")),
        ("runway", runway),
        ("in DEFAULT", measured.default or ("no rows" if view.inventory.default else "there is none")),
    ]


def by_rows(view: View, counts: Mapping[int, int]) -> list[tuple[str, ...]]:
    """Partitions with their rows, most first, as a table; those that were not counted with the planner's estimate."""
    known = {oid: name for name, oid in view.oids.items()}
    found = [(counts.get(each.oid, each.rows or 0), each) for each in view.inventory.partitions]
    ordered = sorted(found, key=lambda each: (-each[0], known[each[1].oid]))
    shown = [(known[each.oid], f"{rows:,}" if counts else f"~{rows:,}", human(each.bytes)) for rows, each in ordered]
    return [("NAME", "ROWS", "SIZE"), *shown]


def health(view: View) -> list[tuple[Level, str]]:
    """What is not as it should be, the worst first, and the current partition before all; empty when all is well."""
    found = list(_ailments(view))
    return sorted(found, key=lambda each: -each[0])


def _ailments(view: View) -> Iterator[tuple[Level, str]]:
    plan, summary = view.plan, view.summary
    if not plan.covered_for_ever and plan.covered_until is None:
        yield Level.CRITICAL, f"no partition holds now: {_inserts(view)}"
    elif plan.covered_until is not None and plan.covered_until <= plan.current.upper:
        until = iso(plan.covered_until)
        yield Level.WARNING, f"nothing follows the current partition: {_inserts(view)} from {until} on"
    missing = [each for each in plan.missing if each != plan.current]
    if missing:
        until = f", covered until {iso(plan.covered_until)}" if plan.covered_until else ""
        yield Level.WARNING, f"{len(missing)} of the partitions that should be ahead are missing{until}"
    if summary.default_rows:
        yield Level.WARNING, f"the DEFAULT partition holds {measure(view).default}"
    for each in plan.findings:
        # What this server cannot do, its primary can: a standby shows how the table is, and that is what is asked.
        if each.error and not (view.inventory.server.standby and isinstance(each.error, ReadOnlyServer)):
            yield Level.CRITICAL, f"{each.reason} ({each.object}): {each.message}"


def _inserts(view: View) -> str:
    """What becomes of rows that no partition with bounds holds."""
    default = view.inventory.default
    return f"rows go into the DEFAULT partition {default}" if default else "inserts fail"


def summary_line(view: View) -> str:
    """One line for whoever is told that all is well."""
    found = view.summary
    until = f"covered until {found.covered_until}" if found.covered_until else "now is not covered"
    standby = ", seen on a standby, which is read-only" if view.inventory.server.standby else ""
    return f"{view.plan.parent}: {found.partitions} partitions, {found.size}, {until}{standby}"


def names(view: View) -> Sequence[str]:
    """``list -o name``."""
    return [each.name for each in view.partitions]
