"""What a reconcile does with its database, from values to a value: observe, plan, claim, apply.

It runs in a process of its own, see `database_process`: nothing here may import the Kubernetes client, and all that
goes in and comes out can be pickled. What only the operator knows is asked of a `Supervisor`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

import psycopg

from ..api.policy import Mode, TableSpec
from ..api.retention import KeyEncoding
from ..api.types import ObjectKey
from ..archive import pgdump, table_lookup
from ..archive.manifest import TableName
from ..archive.table_lookup import Target
from ..errors import ContentsChanged, NotPartitioned, PartwardenError, WorkerFailed
from ..planner.actions import AnalyzeParent, DrainIntoPartition, DropDetached, Outcome
from ..planner.archive_gate import Request
from ..planner.drop_preconditions import Archives, DropCase
from ..planner.forecast import NOTHING, Measured
from ..planner.inventory import Inventory, Parent
from ..planner.plan import CREATIONS, Plan
from ..planner.recheck import Recheck
from ..postgres import inspection
from ..postgres.connection import Session, session
from ..postgres.conninfo import ConnectionInfo
from ..postgres.engine import maintain, observe_and_plan
from ..postgres.kept_session import KeptSession
from ..postgres.transaction import held_keys, holding_keys
from ..status import conditions, events
from .conversion_work import ConversionWork

CONNECTING = "connecting to the database"
MOST_MISSING = 20
"""Tables that are looked for in one reconcile: each that is gone is a write into the status of its archive."""
running: Session | None = None
"""The session of this process, so that a signal can cancel what runs on it. One process does one thing at a time."""
kept: KeptSession | None = None
"""In a worker process: the session of the last reconcile, where that has only read."""


class Supervisor(Recheck):
    """The operator, as the work on a database sees it. Asked of a process through a pipe: only plain values."""

    yields = True

    def claim(self, server: str, oid: int, table: str) -> None:
        """Raises `PolicyConflict` where an older policy has the table. ``server``: `inventory.Server.identity`."""

    def disclaim(self) -> None:
        """The policy can do nothing: a younger one of the table may."""

    def challenge(self) -> tuple[int, ...]:
        """What `prove` is to lock, as `transaction.holding_keys` takes it; nothing where there is nothing to prove."""
        return ()

    def compare(self) -> None:
        """While the locks of the challenge are held: find out which rivals see them."""

    def latest(self, server: str) -> tuple[frozenset[str], Archives]:
        """The holds and archives of the policy as the API server has them now. Raises as `Recheck.renew`."""
        raise NotImplementedError

    def renew(self, case: DropCase) -> DropCase:
        if running is not None:
            # What another policy has claimed since this one began.
            prove(running, self)
        held, archives = self.latest(case.server)
        return replace(case, held=held, archives=archives)

    def did(self, action: events.CompletedAction) -> None:
        """An action has succeeded: known from now on, also if the process is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkRequest:
    """One reconcile of one policy. ``patience``: seconds for locks, in all; ``connect_timeout``: for each address."""

    spec: TableSpec
    connection: ConnectionInfo = field(repr=False)
    held: frozenset[str]
    archives: Archives = field(repr=False)
    patience: float
    connect_timeout: int
    policy: ObjectKey | None = None
    """How messages name it."""
    measured: Measured = NOTHING
    rests: conditions.PolicyStatusUpdate | None = None
    """What the status stays while a conversion rests, see `conversion_rests`."""
    beside: str = ""
    """The action, as in status.plan, which takes long and which another run of the policy does: this one does what is
    short, and that lets others lock the parent."""


@dataclass(slots=True)
class WorkReport:
    """What became of it. ``boundary``: seconds until the calendar changes the plan."""

    update: conditions.PolicyStatusUpdate = field(default_factory=conditions.suspended)
    requests: tuple[Request, ...] | None = None
    """The archives that the plan asks for; None where no plan was applied."""
    server: str = ""
    """`inventory.Server.identity`."""
    doubted: list[str] = field(default_factory=list)
    """Archives that no longer equal their table."""
    boundary: float | None = None
    more: bool = False
    """Something was done that may take long, and the plan has more of that, which does not wait for the resync."""
    stopped: str = ""
    """Why something of the plan was not begun, or undone."""
    converted: bool = False
    """A step of a conversion, or of its way back, was begun."""
    wasted: float = 0.0
    """Seconds for which a conversion has read rows, and come to nothing."""
    missing: tuple[int, ...] = ()
    """Tables of proven archives, by OID, that no longer exist, and of which no status says so."""


class Outcomes(list[Outcome]):
    """Passes on each action that succeeded, as soon as it has."""

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__()
        self._supervisor = supervisor

    def append(self, outcome: Outcome) -> None:
        super().append(outcome)
        if outcome.error is None:
            self._supervisor.did(events.CompletedAction.of(outcome))


def work(request: WorkRequest, supervisor: Supervisor) -> WorkReport:
    """Bring the table to the state that the policy asks for. An error is in the report, as a status says it."""
    report, outcomes = WorkReport(), Outcomes(supervisor)
    connected = exhausted = False
    supervisor.begins(CONNECTING, None)
    try:
        with cancellable_session(request.connection, request.connect_timeout) as connection:
            connected = True
            supervisor.begins("observing the table", None)
            _maintain(connection, request, supervisor, report, outcomes)
    except PartwardenError as error:
        report.update = conditions.failed(error, connected)
    except MemoryError:
        exhausted = True
    if (outcomes or report.stopped or report.converted) and kept is not None:
        # What a table's triggers, defaults and constraints have called may have left anything there, also if undone.
        kept.close()
    if exhausted:
        # Only here nothing holds what took the memory any more.
        report.update = conditions.failed(
            WorkerFailed(
                f"cannot observe table {request.spec.table}: the worker process reached its memory limit; find out "
                "what of the table's catalog entries is so large, or raise PARTWARDEN_WORKER_MEMORY"
            ),
            connected,
        )
    report.doubted = [
        outcome.action.archive
        for outcome in outcomes
        if isinstance(outcome.action, DropDetached) and isinstance(outcome.error, ContentsChanged)
    ]
    return report


def _maintain(
    connection: Session, request: WorkRequest, supervisor: Supervisor, report: WorkReport, outcomes: list[Outcome]
) -> None:
    """Observe, plan, claim, apply. What is suspended is observed and planned only."""
    spec = request.spec
    conversion = ConversionWork(connection, request, supervisor, report, partial(_claim, connection, supervisor))
    try:
        inventory, plan = observe_and_plan(connection, spec, held=request.held, archives=request.archives)
    except NotPartitioned as error:
        if not conversion.attend(error):
            return
        inventory, plan = observe_and_plan(connection, spec, held=request.held, archives=request.archives)
    report.server, may_act = inventory.server.identity, not spec.suspend and not request.beside
    way_back = None
    if spec.undoes and may_act and (way_back := conversion.go_back(inventory)) is None:
        return
    if not spec.suspend:
        inventory, plan = _act(connection, request, supervisor, report, outcomes, (inventory, plan))
    update = conditions.reconciled(spec, inventory, plan, outcomes, request.measured, request.policy)
    report.update = way_back.on(update) if way_back else conversion.finish(inventory, update)
    report.boundary = (plan.next_boundary - inventory.now).total_seconds()


def _act(
    connection: Session,
    request: WorkRequest,
    supervisor: Supervisor,
    report: WorkReport,
    outcomes: list[Outcome],
    observed: tuple[Inventory, Plan],
) -> tuple[Inventory, Plan]:
    """Claim the table, apply the plan, and say which archives it wants. Returns what holds afterwards."""
    spec, held, archives = request.spec, request.held, request.archives
    inventory, plan = observed
    # What cannot act takes the table from no other policy, such as one whose login does not own it.
    if plan.blocked or not plan.parent.may_own:
        supervisor.disclaim()
    else:
        _claim(connection, supervisor, report.server, plan.parent)
        report.missing = _missing(connection, inventory, archives.on(report.server))
    due = plan
    if request.beside:
        waits = request.beside in (AnalyzeParent.__name__, DrainIntoPartition.__name__)
        due = replace(plan, actions=tuple(each for each in plan.actions if not (waits or each.long)))
    if spec.undoes:
        # It is to be plain again, and is not yet: no row may go meanwhile, and all that come need a partition.
        due = replace(due, actions=tuple(each for each in due.actions if isinstance(each, CREATIONS)))
    if due.actions and spec.mode is not Mode.PLAN and not plan.blocked:
        done = maintain(
            connection,
            spec,
            patience=request.patience,
            held=held,
            archives=archives,
            observed=(inventory, due),
            outcomes=outcomes,
            recheck=supervisor,
        )
        report.stopped = done.stopped
        if outcomes:
            inventory, plan = done.inventory, done.after
    report.stopped = report.stopped or supervisor.why_stopped()
    if spec.mode is not Mode.PLAN and not plan.blocked and not report.stopped and not spec.undoes:
        report.requests = plan.retired.gate.requests
    done_long = any(each.action.long and each.error is None for each in outcomes)
    report.more = done_long and any(each.long for each in plan.actions)
    return inventory, plan


def _claim(connection: Session, supervisor: Supervisor, server: str, parent: Parent) -> None:
    """Take the table for the policy. Raises `PolicyConflict` where an older policy has it, and psycopg's errors."""
    claim = server, parent.oid, str(parent)
    supervisor.claim(*claim)
    if prove(connection, supervisor):
        supervisor.claim(*claim)


def _missing(connection: Session, inventory: Inventory, archives: Archives) -> tuple[int, ...]:
    """Of the archived tables that are neither partitions nor detached, those that are gone: where each drop was
    recorded in its archive, nothing is asked."""
    oids = archives.unrecorded(each.oid for each in (*inventory.partitions, *inventory.detached))
    return inspection.missing(connection, oids)[:MOST_MISSING] if oids else ()


def prove(connection: Session, supervisor: Supervisor) -> bool:
    """Let the operator find out whether rivals reach the database of this very session: see `same_server`.

    Returns whether it has tried. Raises psycopg's errors.
    """
    if not (keys := supervisor.challenge()):
        return False
    with holding_keys(connection, keys):
        supervisor.compare()
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySearch:
    """Which advisory locks of the class ``first`` are held in a database."""

    connection: ConnectionInfo = field(repr=False)
    connect_timeout: int
    first: int


def find_keys(request: KeySearch, supervisor: Supervisor) -> list[int]:
    """The second halves of their keys, as far as the server says so. Raises a `PartwardenError`."""
    supervisor.begins(CONNECTING, None)
    with session(request.connection, connect_timeout=request.connect_timeout) as connection:
        return held_keys(connection, request.first)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSearch:
    """The table of an archive, as its Job would find it, before there is one. ``oid`` and ``server``: of the archive,
    as far as they are known."""

    connection: ConnectionInfo = field(repr=False)
    connect_timeout: int
    schema: str
    name: str
    oid: int | None
    server: str
    encoding: KeyEncoding
    client: int
    """PostgreSQL major of the Job's pg_dump; 0 for any."""


def find_table(request: TableSearch, supervisor: Supervisor) -> Target:
    """Raises a `PartwardenError`, also where a Job could not archive from that server."""
    supervisor.begins(CONNECTING, None)
    if kept is not None:
        # What is kept may be of another database, and must not wait for this one.
        kept.close()
    pgdump.check(request.connection, request.connect_timeout)
    with cancellable_session(request.connection, request.connect_timeout) as connection:
        supervisor.begins("finding the table of an archive", None)
        if request.client:
            pgdump.check_version(str(request.client), connection.info.parameter_status("server_version") or "")
        return table_lookup.find(
            connection, request.schema, request.name, request.oid, request.encoding, request.server
        )


def find_remains(request: TableSearch, supervisor: Supervisor) -> tuple[tuple[TableName, ...], datetime]:
    """As `table_lookup.remains`. Raises a `PartwardenError`."""
    supervisor.begins(CONNECTING, None)
    with session(request.connection, connect_timeout=request.connect_timeout) as connection:
        return table_lookup.remains(connection, request.schema, request.name, request.oid or 0, request.server)


@contextmanager
def cancellable_session(info: ConnectionInfo, connect_timeout: int) -> Iterator[Session]:
    """As `postgres.connection.session`; `cancel` ends the statement that runs on it."""
    global running
    with (
        session(info, connect_timeout=connect_timeout)
        if kept is None
        else kept.use(info, connect_timeout) as connection
    ):
        running = connection
        try:
            yield connection
        finally:
            running = None


def cancel() -> None:
    """Ask the database to end the statement that runs, without waiting for its answer. Safe in a signal handler."""
    if (connection := running) is not None:
        threading.Thread(target=_cancel, args=(connection,), daemon=True).start()


def _cancel(connection: Session) -> None:
    # The statement may have ended by itself, or the server be out of reach.
    with suppress(psycopg.Error):
        connection.cancel_safe(timeout=2.0)
