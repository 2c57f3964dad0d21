"""A table as commands show it: its status, observed in a database or written by the operator, then text or data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from statistics import median
from typing import Any

from ..api import policy
from ..api.period import Period
from ..api.policy import Table, TableSpec
from ..api.retention import Retention
from ..api.status import PartitionPolicyStatus, PartitionStatus, Severity, State
from ..errors import InvalidSpec, ReadOnlyServer, did_you_mean, printable
from ..planner.calendar import Grid, iso
from ..planner.findings import join_names
from ..planner.forecast import forecast
from ..planner.inventory import Detached, Inventory, Partition
from ..planner.plan import Plan
from ..postgres.connection import Session
from ..postgres.engine import observe_and_plan
from ..status.default_partition import describe
from ..status.details import expected, human, partitions_of, planned, summarise
from ..status.warnings import graded
from . import formats, manifest, options
from .guess import read_tables
from .options import Target


class Level(IntEnum):
    """Exit codes of ``health``, as the Monitoring Plugins' guidelines have them."""

    OK = 0
    WARNING = 1
    CRITICAL = 2


LEVELS = {Severity.ERROR: Level.CRITICAL, Severity.WARNING: Level.WARNING}
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
    held: frozenset[str] = frozenset()
    """What a hold names."""

    def is_held(self, partition: PartitionStatus) -> bool:
        """Whether a hold names it, and it has expired or not."""
        schema, _, name = partition.name.rpartition(".")
        called = policy.names(schema or self.heading["table"].partition(".")[0], name, partition.oid or 0)
        return partition.state is State.HELD or policy.is_held(self.held, called)

    def state(self, partition: PartitionStatus) -> str:
        """For people: ``Held`` where it has expired, ``Current, held`` or ``Detached, held`` where it is that."""
        held = partition.state is not State.HELD and self.is_held(partition)
        return f"{partition.state}{formats.ALSO_HELD if held else ''}"

    @property
    def of_policy(self) -> bool:
        """Whether the operator wrote the status; else a database was asked."""
        return "policy" in self.heading

    @property
    def dates(self) -> formats.Dates:
        """How its moments are written for people."""
        bounds = (end for each in self.status.partitions for end in (each.from_, each.to))
        return formats.Dates.of(self.heading["timezone"], bounds)

    @property
    def attached(self) -> list[PartitionStatus]:
        """The partitions that are listed, without detached tables."""
        return [each for each in self.status.partitions if each.state is not State.DETACHED]

    def find(self, what: str, spec: TableSpec) -> PartitionStatus:
        """The partition or detached table with that name or in that period. Raises `InvalidSpec` unless it is one."""
        listed, schema, period = self.status.partitions, spec.table.schema_, options.known(what)
        chosen = [each for each in listed if what in (each.name, f"{schema}.{each.name}")]
        if period and not chosen:
            chosen = [each for each in listed if _is_within(each, spec, period)]
        if len(chosen) > 1:
            names = printable(", ".join(each.name for each in chosen[:12]))
            raise InvalidSpec(f"{len(chosen)} partitions of {self.name} lie in {what}: name one of them ({names})")
        if not chosen:
            raise InvalidSpec(
                f"no partition of {self.name} is called {what!r} or lies in it: `partwarden list` shows their names"
                f"{did_you_mean(what, (each.name for each in listed)) if period is None else ''}"
            )
        return chosen[0]

    def rows(self, wide: bool) -> list[tuple[str, ...]]:
        """``list`` as a table, its heading first. Rows are the planner's estimate, with a tilde; - where there is none.

        The archive of a policy's partition is shown by its state, that of a database by its address.
        """
        with_archives, by_state = self.archives is not None, self.of_policy
        heading = (*COLUMNS, *(("ARCHIVE",) if with_archives else ()))
        table = [(*heading, *(("MANAGED", "KIND", "BYTES", *(("LOCATION",) if by_state else ())) if wide else ()))]
        dates = self.dates
        for each in self.status.partitions:
            estimate = "-" if each.rows is None else f"~{each.rows:,}"
            row = [each.name, *ends(each, dates), self.state(each), estimate, human(each.bytes)]
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
        largest, estimate, listed = summary.largest, summary.rows, self.status.partitions
        has_default = any(each.state is State.DEFAULT for each in self.attached)
        interval = self.heading["interval"]
        runway = (
            "for ever" if summary.runway_days is None else f"{summary.runway_days:,} days after the current interval"
        )
        if summary.ahead is not None:
            runway = f"{summary.ahead:,} \N{MULTIPLICATION SIGN} {interval} after the current one"
        return [
            ("partitions", f"{summary.partitions}, of which {summary.managed} are exactly one {interval}"),
            ("size", summary.size),
            ("rows, counted", f"{sum(counts.values()):,}")
            if counts
            else ("rows, estimated", "-" if estimate is None else f"{estimate:,}"),
            ("largest", f"{largest.name}, {largest.size}" if largest else "-"),
            ("median", human(int(skew[0])) if skew else "-"),
            ("largest : median", f"{skew[1]:.1f}" if skew else "-"),
            ("covered until", self.dates.show(summary.covered_until) or "now is not covered"),
            ("runway", runway),
            ("in DEFAULT", self.in_default or ("no rows" if has_default else "there is none")),
            *(expected(summary.forecast) if summary.forecast else []),
            *([("held", join_names(held))] if (held := [each.name for each in listed if self.is_held(each)]) else []),
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
        until = f"covered until {self.dates.show(until)}" if (until := summary.covered_until) else "now is not covered"
        standby = ", seen on a standby, which is read-only" if self.standby else ""
        return f"{self.name}: {summary.partitions} partitions, {summary.size}, {until}{standby}"


def ends(partition: PartitionStatus, dates: formats.Dates) -> tuple[str, str]:
    """Its bounds for people: ``DEFAULT`` and "" for the DEFAULT partition."""
    return ("DEFAULT", "") if partition.state is State.DEFAULT else dates.ends(partition.from_, partition.to)


def inserts(partitions: list[PartitionStatus]) -> str:
    """What becomes of rows that no partition with bounds holds. DEFAULT is always among those that are listed."""
    default = next((each.name for each in partitions if each.state is State.DEFAULT), None)
    return f"rows go into the DEFAULT partition {default}" if default else "inserts fail"


def _is_within(partition: PartitionStatus, spec: TableSpec, period: Period) -> bool:
    if partition.from_ is None or partition.to is None:
        return False
    moment = Grid.of(spec, aware=partition.from_.endswith("Z")).moment
    lower, upper = datetime.fromisoformat(partition.from_), datetime.fromisoformat(partition.to)
    return moment(period.first) <= lower and upper <= moment(period.beyond)


# Tables of a database.

EVER = Retention.model_validate({"keepFor": "1000y"})
"""With it detached tables are seen, and nothing is older."""


@dataclass(frozen=True, slots=True)
class ObservedTable:
    """One table, as it was at ``inventory.now``."""

    spec: TableSpec
    inventory: Inventory
    plan: Plan

    @property
    def grid(self) -> Grid:
        """That of the policy, in the key's domain."""
        return Grid.of(self.spec, aware=self.plan.codec.aware)

    def named(self) -> list[tuple[str, Partition | Detached]]:
        """Partitions and detached tables with the names that a status gives them."""
        schema = self.plan.parent.schema
        tables: list[Partition | Detached] = [*self.inventory.partitions, *self.inventory.detached]
        return [(each.name if each.schema == schema else str(each), each) for each in tables]

    def view(self, archives: Mapping[int, str] | None = None) -> TableView:
        """All partitions, ascending, DEFAULT last; before them detached tables. ``archives``: addresses by OID."""
        server, rows = self.inventory.server, self.inventory.default_rows
        partitions = partitions_of(self.inventory, self.plan)
        in_default = ""
        if self.inventory.default is not None and rows is not None and rows.error is None and rows.total:
            in_default = describe(self.grid, rows)
        # Not checked again: a database may have more partitions than a status may list.
        ahead, steps = forecast(self.spec, self.inventory, self.plan), [planned(each) for each in self.plan.steps]
        totals = summarise(self.inventory, self.plan, len(self.inventory.partitions), ahead)
        status = PartitionPolicyStatus.model_construct(summary=totals, partitions=partitions, plan=steps)
        proven = {
            name: ArchiveView("Proven", archives[each.oid])
            for name, each in self.named()
            if archives and each.oid in archives
        }
        return TableView(
            name=str(self.plan.parent),
            heading={
                "table": str(self.plan.parent),
                "database": server.database,
                "server": server.version_text,
                "key": self.plan.key,
                "interval": self.spec.interval.value,
                "timezone": self.spec.timezone,
                "now": iso(self.inventory.now),
            },
            status=status,
            problems=sorted(self._problems(inserts(partitions), in_default), key=lambda each: -each[0]),
            in_default=in_default,
            archives=None if archives is None else proven,
            standby=server.standby,
            held=policy.holds(None, self.spec.holds),
        )

    def _problems(self, inserts: str, in_default: str) -> Iterator[Problem]:
        """The current partition before all."""
        plan = self.plan
        until = iso(plan.covered_until)
        if not plan.covered_for_ever and plan.covered_until is None:
            yield Level.CRITICAL, f"no partition holds now: {inserts}"
        elif plan.covered_until is not None and plan.covered_until <= plan.current.upper:
            yield Level.WARNING, f"nothing follows the current partition: {inserts} from {until} on"
        if missing := [each for each in plan.missing if each != plan.current]:
            covered = f", covered until {until}" if until else ""
            yield Level.WARNING, f"{len(missing)} of the partitions that should be ahead are missing{covered}"
        if in_default:
            yield Level.WARNING, f"the DEFAULT partition holds {in_default}"
        for severity, each in graded(plan):
            # What this server cannot do, its primary can: a standby shows how the table is, and that is what is asked.
            if severity in LEVELS and not (self.inventory.server.standby and isinstance(each.error, ReadOnlyServer)):
                yield LEVELS[severity], f"{each.reason} ({each.object}): {each.message}"


def observe(connection: Session, spec: TableSpec, held: frozenset[str] = frozenset()) -> ObservedTable:
    """The table as it is now. Raises as `engine.observe_and_plan`."""
    return ObservedTable(spec, *observe_and_plan(connection, spec, held=held))


def observe_all(connection: Session, target: Target, detached: bool = False) -> list[ObservedTable]:
    """The table of the policy's file, or all that can be managed. ``detached``: also without retention, detached tables
    are seen. Raises `PartwardenError`."""
    file = manifest.of_target(target) if target.filename is not None else None
    specs, held = ([file.spec], file.held) if file else (_specs(connection, target), frozenset[str]())
    if not specs:
        raise InvalidSpec("no table here is partitioned by RANGE on one column that says when")
    seeing = {"retention": EVER} if detached else {}
    return [observe(connection, each.model_copy(update=seeing) if not each.retention else each, held) for each in specs]


def only_spec(connection: Session, target: Target) -> TableSpec:
    """That of exactly one table of the database. Raises `PartwardenError`."""
    specs = _specs(connection, target)
    if len(specs) != 1:
        names = ", ".join(options.spelled(each.table.schema_, each.table.name) for each in specs[:10])
        raise InvalidSpec(f"there are {len(specs)} tables that can be managed: name one by --table ({names or 'none'})")
    return specs[0]


def _specs(connection: Session, target: Target) -> list[TableSpec]:
    """The policy's of the file, or those of all tables that can be managed, or of that one. Raises its error where it
    cannot be."""
    if target.filename is not None:
        return [manifest.of_target(target).spec]
    found = read_tables(connection, Table.model_validate(target.table) if target.table else None)
    if len(found) == 1 and found[0].error:
        raise found[0].error
    return [each.guess.spec for each in found if each.guess]
