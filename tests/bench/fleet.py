"""A large fleet on one operator: a thousand policies over twenty databases."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from lab.cluster.reporter import Advance
from lab.operator import Operator, until
from lab.postgres import Database
from lab.site import Site

from .figures import Figure
from .idle import WRITES, read_requests
from .memory import is_ready, proportional
from .stand import TABLE, Stand, spec, table_names

DATABASES, TABLES = 20, 50
POLICIES = DATABASES * TABLES
CYCLE = 120.0
"""Seconds between two reconciles of a policy: a fifth of the default, so that a whole cycle can be waited for."""
EDITS = 100
BATCH = 250
PATIENCE = 600.0
MEGABYTE = 1e6

COUNT = "SELECT count(*) FROM pg_inherits WHERE inhparent = %s::regclass"


@dataclass(frozen=True)
class Fleet:
    """Policies by name: the database and the table of each."""

    site: Site
    tables: dict[str, tuple[Database, str]]

    def ready(self) -> int:
        """The number of these policies."""
        found = self.site.kubectl.get("partitionpolicies", "--namespace", self.site.namespace)["items"]
        return sum(is_ready(each.get("status", {})) for each in found)


def measure(stand: Stand) -> list[Figure]:
    """Measure: first start until all ready, a restart, a cycle with nothing to do, and edits."""
    with (
        _fleet(stand) as fleet,
        stand.say.progress(f"bench: {POLICIES} policies over {DATABASES} databases") as advance,
    ):
        settings = {"LOG_LEVEL": "info"}
        began = time.monotonic()
        with fleet.site.operator(**settings).serving():
            until("all are ready", lambda: _ready(fleet, advance) == POLICIES, PATIENCE)
            first = time.monotonic() - began
        began = time.monotonic()
        with fleet.site.operator(**(settings | {"LOG_LEVEL": "debug"})).serving() as operator:
            reconciled = Reconciled(operator.log)
            until("all were reconciled", lambda: reconciled.count() >= POLICIES, PATIENCE)
            again = time.monotonic() - began
            advance(0, 1, "a cycle with nothing to do")
            cycle = _cycle(fleet, operator)
            waits = sorted(_edit(fleet, name) for name in list(fleet.tables)[:: POLICIES // EDITS])
            own, whole = proportional(_process(operator))
    over = f"{POLICIES:,} policies, {DATABASES} databases"
    worst = waits[math.ceil(len(waits) * 0.99) - 1]
    return [
        Figure(f"{over}: first start until all ready", first, "s", note=f"{POLICIES * 4:,} partitions created"),
        Figure(f"{over}: restarted, all reconciled", again, "s"),
        Figure(
            f"{over}: CPU",
            cycle.cpu,
            "%",
            5.0 * 600 / CYCLE,
            f"of a core, with a reconcile of each every {CYCLE:.0f} s",
        ),
        Figure(f"{over}: CPU by default", cycle.cpu * CYCLE / 600, "%", 5.0, "the same, with one every 10 minutes"),
        Figure(f"{over}: API writes per cycle", cycle.writes, "", 0, "as the API server counts"),
        Figure(f"{over}: memory", whole / MEGABYTE, "MB", 384.0, "operator and workers, proportional set sizes"),
        Figure(f"{over}: memory of the operator's own process", own / MEGABYTE, "MB"),
        Figure(f"{over}: edit to effect, median", waits[len(waits) // 2] * 1000, "ms", note=f"{EDITS} edits"),
        Figure(f"{over}: edit to effect, 99th percentile", worst * 1000, "ms", 2000, "kubectl included"),
    ]


@dataclass(frozen=True)
class Cycle:
    """The cost of a cycle. ``cpu``: percent of one core."""

    cpu: float
    writes: int


@contextmanager
def _fleet(stand: Stand) -> Iterator[Fleet]:
    with ExitStack() as stack:
        site = stack.enter_context(Site(stand.cluster, stand.kubectl, stand.folder).open())
        tables: dict[str, tuple[Database, str]] = {}
        for number in range(DATABASES):
            database = stack.enter_context(stand.server.new_database())
            database.execute("; ".join(TABLE.format(name=name) for name in table_names(TABLES)))
            site.secret(f"db-{number}", {"uri": database.dsn})
            tables |= {f"p-{number}-{name}": (database, name) for name in table_names(TABLES)}
        manifests = [site.manifest(name, _spec(name, table)) for name, (_, table) in tables.items()]
        for begin in range(0, POLICIES, BATCH):
            site.kubectl.apply(*manifests[begin : begin + BATCH])
        yield Fleet(site, tables)


def _spec(name: str, table: str) -> dict[str, object]:
    reference = {"secretRef": {"name": f"db-{name.split('-')[1]}"}}
    return spec(table, database=reference, premake=3, resync=f"{CYCLE:.0f}s")


def _ready(fleet: Fleet, advance: Advance) -> int:
    count = fleet.ready()
    advance(count, POLICIES, "ready")
    return count


class Reconciled:
    """Counts the policies that a log names as reconciled. Each byte is read once, and few lines are parsed: the two
    cores that the operator is measured on are this process's, too."""

    def __init__(self, log: Path) -> None:
        self._log, self._read, self._found = log, 0, set[str]()

    def count(self) -> int:
        """As far as the log goes now."""
        with self._log.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                if b"; next reconcile in" in line:
                    self._found.add(json.loads(line)["policy"])
        return len(self._found)


def _cycle(fleet: Fleet, operator: Operator) -> Cycle:
    before, began, written = _spent(operator), time.monotonic(), _writes(fleet)
    time.sleep(CYCLE)
    return Cycle(100 * (_spent(operator) - before) / (time.monotonic() - began), _writes(fleet) - written)


def _process(operator: Operator) -> psutil.Process:
    assert operator.process is not None
    return psutil.Process(operator.process.pid)


def _spent(operator: Operator) -> float:
    """Seconds of the processor: of the operator and of its workers, also of those that have ended."""
    process = _process(operator)
    return sum(sum(each.cpu_times()[:4]) for each in (process, *process.children(recursive=True)))


def _writes(fleet: Fleet) -> int:
    found = read_requests(fleet.site.kubectl("get", "--raw", "/metrics"))
    return sum(found[verb, "partitionpolicies.partwarden.dev"] for verb in WRITES)


def _edit(fleet: Fleet, name: str) -> float:
    """Seconds from the start of kubectl to the partition that an edit asks for."""
    database, table = fleet.tables[name]
    patch = '{"spec": {"premake": 4}}'
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        began = time.monotonic()
        fleet.site.kubectl("patch", "ppol", name, "--namespace", fleet.site.namespace, "--type=merge", "--patch", patch)
        until("the partition is there", lambda: connection.execute(COUNT, [table]).fetchone() == (5,), 30)
        return time.monotonic() - began
