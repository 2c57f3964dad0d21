"""Tables of a database as the commands observe them, and their rows counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import psycopg
from psycopg import sql

from ..api.policy import Table, TableSpec
from ..api.retention import Retention
from ..api.status import PartitionPolicyStatus
from ..archive import verify
from ..errors import InvalidSpec, ReadOnlyServer
from ..planner.calendar import Grid, iso, load_zone
from ..planner.inventory import Detached, Inventory, Partition
from ..planner.plan import Plan
from ..postgres.connection import Session, pinned, run
from ..postgres.engine import observe_and_plan
from ..postgres.transaction import undo
from ..status.conditions import describe
from ..status.details import partitions_of, summarise
from . import guess, import_, manifest
from .options import spelled
from .table_view import ArchiveView, Level, Problem, TableView, inserts

LONGEST = 86400.0
"""Seconds that the rows of one partition may take to count."""
COUNTING = pinned(lock_timeout="10s", statement_timeout="24h")

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
        return Grid(self.spec.interval, load_zone(self.spec.timezone) if self.plan.codec.aware else None)

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
        status = PartitionPolicyStatus.model_construct(
            summary=summarise(self.inventory, self.plan, len(self.inventory.partitions)), partitions=partitions
        )
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
        for each in plan.findings:
            # What this server cannot do, its primary can: a standby shows how the table is, and that is what is asked.
            if each.error and not (self.inventory.server.standby and isinstance(each.error, ReadOnlyServer)):
                yield Level.CRITICAL, f"{each.reason} ({each.object}): {each.message}"


def observe(connection: Session, spec: TableSpec) -> ObservedTable:
    """The table as it is now. Raises as `engine.observe_and_plan`."""
    return ObservedTable(spec, *observe_and_plan(connection, spec))


def seeing_detached(spec: TableSpec) -> TableSpec:
    """The same, by which detached tables are shown, too."""
    return spec if spec.retention else spec.model_copy(update={"retention": EVER})


def tables(
    connection: Session, table: dict[str, str] | None, filename: str | None, detached: bool = False
) -> list[ObservedTable]:
    """The policy's table, or all that can be managed. ``detached``: also without retention, detached tables are seen.
    Raises `PartwardenError`."""
    specs = [_from_file(filename, table)] if filename is not None else _guessed(connection, table)
    if not specs:
        raise InvalidSpec("no table here is partitioned by RANGE on one column that says when")
    return [observe(connection, seeing_detached(each) if detached else each) for each in specs]


def spec(connection: Session, table: dict[str, str] | None, filename: str | None) -> TableSpec:
    """That of exactly one table. Raises `PartwardenError`."""
    if filename is not None:
        return _from_file(filename, table)
    specs = _guessed(connection, table)
    if len(specs) != 1:
        names = ", ".join(spelled(each.table.schema_, each.table.name) for each in specs[:10])
        raise InvalidSpec(f"there are {len(specs)} tables that can be managed: name one by --table ({names or 'none'})")
    return specs[0]


def _from_file(filename: str, table: dict[str, str] | None) -> TableSpec:
    return manifest.load(manifest.read(filename), filename, table=table, needs_database=False).spec


def _guessed(connection: Session, table: dict[str, str] | None) -> list[TableSpec]:
    """Those of all tables that can be managed, or of that one. Raises its error where it cannot be."""
    found = import_.read_tables(connection, Table.model_validate(table) if table else None)
    if len(found) == 1 and found[0].error:
        raise found[0].error
    return [guess.spec(each.table, each.guess) for each in found if each.guess]


def count(connection: Session, table: ObservedTable, report: Callable[[str], None]) -> dict[str, int]:
    """Rows of each partition by its name, each counted by itself: what others write meanwhile may be in or not.

    Raises psycopg's errors.
    """
    counts: dict[str, int] = {}
    partitions = [(name, each) for name, each in table.named() if isinstance(each, Partition)]
    for number, (name, each) in enumerate(partitions, 1):
        report(f"counting {each}, {number} of {len(partitions)}")
        counts[name] = rows(connection, each.schema, each.name)
    return counts


def rows(connection: Session, schema: str, name: str) -> int:
    """The rows of one table, counted. Raises psycopg's errors."""
    connection.longest = LONGEST
    query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, name))
    try:
        # An error is better than a number of those rows only that a policy of row security shows.
        begin = ("BEGIN READ ONLY", COUNTING, "SET LOCAL row_security = off")
        *_, ((found,),), _ = run(connection, *begin, query, "COMMIT")
    except psycopg.Error:
        undo(connection)
        raise
    return int(found)


def archives(url: str) -> dict[int, str]:
    """Where the newest archive of each table is, by the table's OID: those at that address, or below. Raises what
    reading raises."""
    return {each.manifest.partition.oid: each.url for each in verify.find(url).archives}
