"""What ``list``, ``stats`` and ``health`` show of one table: values first, then as text or data. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from .default_rows import describe
from .details import human, partitions_of, summarise
from .interval import Grid, iso, load_zone
from .inventory import Inventory
from .plan import Plan
from .policy import TableSpec
from .status import PartitionStatus, State, Summary


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
WIDE = ("KIND", "BYTES")


def rows(view: View, wide: bool) -> list[tuple[str, ...]]:
    """``list`` as a table, its heading first. Rows are the planner's estimate, with a tilde; - where there is none."""
    found = [(*COLUMNS, *(WIDE if wide else ()))]
    for each in view.partitions:
        estimate = "-" if each.rows is None else f"~{each.rows:,}"
        ends = _ends(each)
        plain = (each.name, *ends, each.state.value, estimate, human(each.bytes))
        found.append((*plain, each.kind or "table", str(each.bytes)) if wide else plain)
    return found


def _ends(each: PartitionStatus) -> tuple[str, str]:
    if each.state is State.DEFAULT:
        return "DEFAULT", ""
    return each.from_ or "MINVALUE", each.to or "MAXVALUE"


def listed(view: View) -> dict[str, Any]:
    """``list`` as data."""
    partitions = [each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in view.partitions]
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
    median = statistics.median(sizes) if sizes else 0.0
    found = view.inventory.default_rows
    default = ""
    if view.inventory.default is not None and found is not None and found.error is None and found.total:
        default = describe(
            Grid(view.spec.interval, load_zone(view.spec.timezone) if view.plan.codec.aware else None), found
        )
    return Statistics(view.summary, median, max(sizes) / median if median else 0.0, default)


def health(view: View) -> list[tuple[Level, str]]:
    """What is not as it should be, the worst first, and the current partition before all; empty when all is well."""
    found = list(_ailments(view))
    return sorted(found, key=lambda each: -each[0])


def _ailments(view: View) -> Iterator[tuple[Level, str]]:
    plan, summary = view.plan, view.summary
    if not plan.covered_for_ever and plan.covered_until is None:
        yield Level.CRITICAL, "no partition holds now: inserts fail"
    elif plan.covered_until is not None and plan.current.upper is not None and plan.covered_until <= plan.current.upper:
        yield Level.WARNING, f"nothing follows the current partition: inserts fail from {iso(plan.covered_until)} on"
    missing = [each for each in plan.missing if each != plan.current]
    if missing:
        until = f", covered until {iso(plan.covered_until)}" if plan.covered_until else ""
        yield Level.WARNING, f"{len(missing)} of the partitions that should be ahead are missing{until}"
    if summary.default_rows:
        yield Level.WARNING, f"the DEFAULT partition holds {measure(view).default}"
    for each in plan.findings:
        if each.error:
            yield Level.CRITICAL, f"{each.reason} ({each.object}): {each.message}"


def summary_line(view: View) -> str:
    """One line for whoever is told that all is well."""
    found = view.summary
    until = f"covered until {found.covered_until}" if found.covered_until else "now is not covered"
    return f"{view.plan.parent}: {found.partitions} partitions, {found.size}, {until}"


def names(view: View) -> Sequence[str]:
    """``list -o name``."""
    return [each.name for each in view.partitions]
