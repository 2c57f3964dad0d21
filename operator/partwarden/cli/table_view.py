"""One table as ``list``, ``stats`` and ``health`` show it: a status, observed in a database or written by the operator.

Values first, then text or data. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from statistics import median
from typing import Any

from ..api.policy import TableSpec
from ..api.status import PartitionPolicyStatus, PartitionStatus, State
from ..errors import InvalidSpec
from ..planner.calendar import Grid
from ..status.details import human
from .options import known, midnight


class Level(IntEnum):
    """Exit codes of ``health``, as the Monitoring Plugins' guidelines have them."""

    OK = 0
    WARNING = 1
    CRITICAL = 2


Problem = tuple[Level, str]
COLUMNS = ("NAME", "FROM", "TO", "STATE", "ROWS", "SIZE")
MANAGED = (State.PAST, State.CURRENT, State.FUTURE, State.EXPIRED, State.HELD)
"""Exactly one interval."""


@dataclass(frozen=True, slots=True)
class ArchiveView:
    """``state``: Proven, or why not. ``location``: its address, None where it has none yet. ``name``: its object's."""

    state: str
    location: str | None
    name: str = ""


@dataclass(frozen=True, slots=True)
class TableView:
    """One table: its status, and what the status does not say."""

    name: str
    """``namespace/name`` of the policy, or ``schema.name`` of the table of a database."""
    heading: dict[str, Any]
    """What the data begins with."""
    status: PartitionPolicyStatus
    problems: list[Problem]
    """What is not as it should be, the worst first; empty when all is well."""
    in_default: str = ""
    """What the DEFAULT partition holds, in words; "" for no rows."""
    archives: Mapping[str, ArchiveView] | None = None
    """By names of partitions; None where they were not asked for."""
    notes: tuple[str, ...] = ()
    """Sentences below a list: what it does not show."""
    standby: bool = False

    @property
    def of_policy(self) -> bool:
        """Whether the operator wrote the status; else a database was asked."""
        return "policy" in self.heading

    @property
    def attached(self) -> list[PartitionStatus]:
        """The partitions that are listed, without detached tables."""
        return [each for each in self.status.partitions if each.state is not State.DETACHED]

    def find(self, what: str, spec: TableSpec) -> PartitionStatus:
        """The partition or detached table with that name or in that period. Raises `InvalidSpec` unless it is one."""
        listed, schema = self.status.partitions, spec.table.schema_
        chosen = [each for each in listed if what in (each.name, f"{schema}.{each.name}")]
        chosen = chosen or [each for each in listed if _is_within(each, spec, what)]
        if len(chosen) > 1:
            names = ", ".join(each.name for each in chosen[:12])
            raise InvalidSpec(f"{len(chosen)} partitions of {self.name} lie in {what}: name one of them ({names})")
        if not chosen:
            raise InvalidSpec(
                f"no partition of {self.name} is called {what!r} or lies in it: `partwarden list` shows their names"
            )
        return chosen[0]

    def rows(self, wide: bool) -> list[tuple[str, ...]]:
        """``list`` as a table, its heading first. Rows are the planner's estimate, with a tilde; - where there is none.

        The archive of a policy's partition is shown by its state, that of a database by its address.
        """
        with_archives, by_state = self.archives is not None, self.of_policy
        heading = (*COLUMNS, *(("ARCHIVE",) if with_archives else ()))
        table = [(*heading, *(("MANAGED", "KIND", "BYTES", *(("LOCATION",) if by_state else ())) if wide else ()))]
        for each in self.status.partitions:
            estimate = "-" if each.rows is None else f"~{each.rows:,}"
            row = [each.name, *ends(each), each.state.value, estimate, human(each.bytes)]
            archive = (self.archives or {}).get(each.name)
            location = (archive.location if archive else None) or "-"
            if with_archives:
                row.append((archive.state if archive else "-") if by_state else location)
            if wide:
                row += ["yes" if each.state in MANAGED else "no", each.kind or "table", str(each.bytes)]
                row += [location] if by_state else []
            table.append(tuple(row))
        return table

    def document(self) -> dict[str, Any]:
        """``list`` as data."""
        partitions = []
        for each in self.status.partitions:
            archive = (self.archives or {}).get(each.name)
            about = {"state": archive.state, "location": archive.location} if archive else None
            plain = each.model_dump(mode="json", by_alias=True, exclude_none=True)
            partitions.append({**plain, "managed": each.state in MANAGED, "archive": about})
        return {**self.heading, "partitions": partitions}

    def skew(self) -> tuple[float, float] | None:
        """The median size in bytes, and the largest against it; None where not all are listed, or all are empty."""
        sizes = [each.bytes for each in self.attached if each.bytes]
        if not sizes or self.status.summary is None or len(self.attached) < self.status.summary.partitions:
            return None
        return median(sizes), max(sizes) / median(sizes)

    def statistics(self, counts: Mapping[str, int]) -> dict[str, Any]:
        """``stats`` as data; ``counts``: rows by name, where they were counted."""
        summary, skew = self.status.summary, self.skew()
        return {
            **self.heading,
            "summary": summary.model_dump(mode="json", by_alias=True, exclude_none=True) if summary else None,
            "medianBytes": skew[0] if skew else None,
            "skew": round(skew[1], 2) if skew else None,
            "default": self.in_default or None,
            **({"rows": {"total": sum(counts.values()), "byPartition": dict(counts)}} if counts else {}),
        }

    def lines(self, counts: Mapping[str, int]) -> list[tuple[str, str]]:
        """``stats`` for people."""
        summary, skew = self.status.summary, self.skew()
        if summary is None:
            return [("status", "the operator has not observed it yet")]
        largest, estimate = summary.largest, summary.rows
        runway = "for ever" if summary.runway_days is None else f"{summary.runway_days} days after the current interval"
        has_default = any(each.state is State.DEFAULT for each in self.attached)
        interval = self.heading["interval"]
        return [
            ("partitions", f"{summary.partitions}, of which {summary.managed} are exactly one {interval}"),
            ("size", summary.size),
            ("rows, counted", f"{sum(counts.values()):,}")
            if counts
            else ("rows, estimated", "-" if estimate is None else f"{estimate:,}"),
            ("largest", f"{largest.name}, {largest.size}" if largest else "-"),
            ("median", human(int(skew[0])) if skew else "-"),
            ("largest : median", f"{skew[1]:.1f}" if skew else "-"),
            ("covered until", summary.covered_until or "now is not covered"),
            ("runway", runway),
            ("in DEFAULT", self.in_default or ("no rows" if has_default else "there is none")),
            *([("to be done", str(summary.pending))] if self.of_policy else []),
        ]

    def by_rows(self, counts: Mapping[str, int]) -> list[tuple[str, ...]]:
        """Partitions with their rows, most first, as a table; those not counted with the planner's estimate."""
        rows = {each.name: counts.get(each.name, each.rows or 0) for each in self.attached}
        ordered = sorted(self.attached, key=lambda each: (-rows[each.name], each.name))
        shown = [(each.name, f"{'' if counts else '~'}{rows[each.name]:,}", human(each.bytes)) for each in ordered]
        return [("NAME", "ROWS", "SIZE"), *shown]

    def summary_line(self) -> str:
        """One line for a table that is well."""
        summary = self.status.summary
        if summary is None:
            return f"{self.name}: not observed yet"
        until = f"covered until {summary.covered_until}" if summary.covered_until else "now is not covered"
        standby = ", seen on a standby, which is read-only" if self.standby else ""
        return f"{self.name}: {summary.partitions} partitions, {summary.size}, {until}{standby}"


def ends(partition: PartitionStatus) -> tuple[str, str]:
    """Its bounds for people: ``DEFAULT`` and "" for the DEFAULT partition."""
    if partition.state is State.DEFAULT:
        return "DEFAULT", ""
    return partition.from_ or "MINVALUE", partition.to or "MAXVALUE"


def inserts(partitions: list[PartitionStatus]) -> str:
    """What becomes of rows that no partition with bounds holds. DEFAULT is always among those that are listed."""
    default = next((each.name for each in partitions if each.state is State.DEFAULT), None)
    return f"rows go into the DEFAULT partition {default}" if default else "inserts fail"


def _is_within(partition: PartitionStatus, spec: TableSpec, what: str) -> bool:
    period = known(what)
    if period is None or partition.from_ is None or partition.to is None:
        return False
    grid = Grid.of(spec, aware=partition.from_.endswith("Z"))
    first, beyond = (grid.moment(midnight(day)) for day in (period.first, period.beyond))
    return first <= datetime.fromisoformat(partition.from_) and datetime.fromisoformat(partition.to) <= beyond
