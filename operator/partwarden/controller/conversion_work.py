"""What a reconcile does with a table that is not partitioned, or is to be plain again: ``spec.convert``.

Nothing is remembered: each run finds in the catalog how far the conversion has come, and goes on, moves the end of the
range, or takes back what was prepared. It must never leave a CHECK standing that no run attends to, since a write
beyond its end fails. So every run that finds one and may act goes on with the conversion, or takes the CHECK away: with
``mode: Never`` or ``Undo``, without ``spec.convert``, and where something that only a user can remove forbids the
conversion, or a step of it. A run that may not act, as of a suspended policy, says from when on writes are refused.

For how long rows were read, and that was wasted, is in the report: the operator does not have them read again at once,
see `conversion_rests`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..api.policy import Mode
from ..errors import NotPartitioned, PartwardenError, PolicyConflict, TableBusy, UserError
from ..planner.conversion_plan import ConversionPlan
from ..planner.conversion_rules import CHECK, Wanted, is_ours
from ..planner.conversion_steps import CONVERT, UNDO, conversion_digest, gate_of, standing, undo_digest, undo_step
from ..planner.findings import Finding
from ..planner.inventory import Inventory, Parent
from ..planner.marker import ConvertedMark
from ..planner.plain_table import Leftover, PlainTable
from ..planner.recheck import Step, Withdrawn
from ..postgres import conversion_engine
from ..postgres.connection import Session
from ..postgres.conversion_facts import read_prepared, read_table
from ..postgres.conversion_finish import read_mark
from ..postgres.conversion_prepare import VALIDATED, WAIT_FOR_TRANSACTIONS, abandon, remove_check
from ..postgres.engine import LONG
from ..postgres.transaction import translated
from ..status import conversion as status
from ..status.conditions import PolicyStatusUpdate
from ..status.events import CompletedAction

if TYPE_CHECKING:
    from .database_work import Supervisor, WorkReport, WorkRequest

PATIENCE = 20.0
"""Seconds in which each lock of a step must be had, where the setting gives less: others wait 50 ms at a time."""
STEP = "ConversionStep"
"""Reason of the Event of each step."""
QUEUED = "it waits for others that take long"


@dataclass(frozen=True, slots=True)
class ConversionWork:
    """One reconcile, as far as its table is not partitioned, or is to be plain again.

    ``claim`` takes the table for the policy. Raises `PolicyConflict` where an older policy has it. ``once``: no other
    run follows by itself, so that of a CHECK which stands it is said after any failure.
    """

    connection: Session
    request: WorkRequest
    supervisor: Supervisor
    report: WorkReport
    claim: Callable[[str, Parent], None]
    once: bool = False

    def attend(self, error: NotPartitioned) -> bool:
        """Go on with a table that is not partitioned. Returns whether it is now; else the report has its status.

        Raises the ``error`` where the policy asks for no conversion and none has left anything.
        """
        spec = self.request.spec
        with translated(self.connection, f"table {spec.table}"):
            prepared = read_prepared(self.connection, spec.table, CHECK)
            if prepared is None and spec.convert is None:
                raise error
            key, left = prepared or (spec.key or "", None)
            table = read_table(self.connection, spec.table, key, CHECK)
        self.report.server = table.server.identity
        if self.request.beside:
            self.report.update = status.going_on(table, f"{self.request.beside} takes long, and goes on")
        elif spec.suspend:
            self.report.update = status.going_on(table, "spec.suspend is set", _standing(table, left, "is suspended"))
        else:
            return self._attend(table, left, error)
        return False

    def _attend(self, table: PlainTable, left: Leftover | None, error: NotPartitioned) -> bool:
        spec = self.request.spec
        try:
            # What cannot act takes the table from no other policy.
            if table.parent.may_own:
                self.claim(table.server.identity, table.parent)
            else:
                self.supervisor.disclaim()
            if self.request.rests is not None and (spec.converts or left is None):
                self.report.update = self.request.rests
                return False
            anew = spec.converts and left is None and spec.mode is not Mode.PLAN and self._is_unfinished(table)
            if spec.converts and not anew and (left is None or (table.key and table.key.name == spec.key)):
                return self._convert(table, left)
            self._take_back(table, left, error)
        except Withdrawn as withdrawn:
            self.report.stopped, self.report.wasted = str(withdrawn), 0.0
            self.report.update = status.going_on(table, f"stopped: {withdrawn}")
        except PartwardenError as failure:
            # What passes is tried again soon, and moves the end of the range where that is needed. Of a conflict the
            # older policy attends to it.
            lasts = self.once or (isinstance(failure, UserError) and not isinstance(failure, PolicyConflict))
            now = self._again(table) if lasts else None
            found = _standing(table, now.leftover, "a step has failed") if now else []
            self.report.update = status.failing(table, failure, found)
        return False

    # A conversion.

    def _convert(self, table: PlainTable, left: Leftover | None) -> bool:
        spec, convert = self.request.spec, self.request.spec.convert
        assert convert is not None
        wanted = Wanted(spec, convert.widen_keys, convert.legacy_name)
        # With a CHECK that stands it waits for no other: the end of the range comes nearer meanwhile.
        if not self._begin(CONVERT, table.parent, table.bytes, urgent=left is not None):
            self.report.update = status.going_on(table, QUEUED)
            return False
        try:
            with self._reading(), translated(self.connection, f"table {table}"):
                plan = conversion_engine.observe_conversion(self.connection, wanted)
        except UserError:
            if left is not None and spec.mode is not Mode.PLAN:
                self._drop_check(table)
            raise
        if plan.conversion is None:
            self._forbid(plan, left)
            return False
        named = self.request.archives.plan.named
        waits = spec.mode is Mode.PLAN or (spec.mode is Mode.APPROVE and named != conversion_digest(plan, wanted))
        found = _standing(table, left, f"spec.mode is {spec.mode}") if waits else []
        self.report.update = status.foreseen(wanted, plan, named, self.request.policy, found)
        if waits:
            return False
        self._check_wanted()
        self._carry_out(wanted, plan)
        return True

    def _carry_out(self, wanted: Wanted, plan: ConversionPlan) -> None:
        """Where only the user can remove what is in the way, the engine takes the CHECK away again: a policy that is
        Stalled may be left so for weeks, and the range of the CHECK ends. What passes leaves it, for the next run."""
        table, began, read = plan.table, time.monotonic(), 0.0
        goes_on = self._did(CONVERT, table.parent, table.bytes)

        def did(text: str, seconds: float) -> None:
            nonlocal began, read
            began, read = time.monotonic(), seconds if text == VALIDATED else read
            goes_on(text, seconds)

        # Where a step fails and is tried again slowly, the end of the range is moved long before it is reached.
        self.report.boundary = plan.holds_for.total_seconds() / 2
        try:
            conversion_engine.convert(self.connection, wanted, plan, self._patience, did)
        except PartwardenError as error:
            # While a lock is tried for nothing is read, and after the validation nothing at all.
            waited = self._patience + (WAIT_FOR_TRANSACTIONS / 1000 if isinstance(error, TableBusy) else 0.0)
            now = self._again(table)
            if now is None or (now.kind == "r" and not (now.leftover and now.leftover.validated)):
                self.report.wasted += read or max(0.0, time.monotonic() - began - waited)
            if now is not None and now.leftover is None:
                self.report.boundary = None
            raise
        self.report.wasted = 0.0
        self._ends()

    def _forbid(self, plan: ConversionPlan, left: Leftover | None) -> None:
        """No run would move the end of a CHECK that stands: it is taken away, where the role may do it."""
        found: list[Finding] = []
        if left is not None and self.request.spec.mode is Mode.PLAN:
            found = _standing(plan.table, left, "spec.mode is Plan")
        elif left is not None:
            try:
                self._drop_check(plan.table)
            except PartwardenError as error:
                found = _standing(plan.table, left, f"it cannot be taken away: {error}")
        self.report.update = status.forbidden(plan, found)

    # What was prepared goes.

    def _take_back(self, table: PlainTable, left: Leftover | None, error: NotPartitioned) -> None:
        """Also in ``mode: Approve``: nothing is lost by it, and what stands would come to refuse writes.

        Without ``spec.convert`` it is the CHECK alone: an index may be the user's. Raises ``error`` where the policy
        wants a partitioned table.
        """
        spec = self.request.spec
        if left is not None and spec.mode is Mode.PLAN:
            found = _standing(table, left, "spec.mode is Plan")
            self.report.update = status.failing(table, error, found)
            return
        indexes = spec.convert is not None and any(is_ours(table, each) for each in table.indexes)
        unfinished = self._is_unfinished(table)
        if spec.mode is not Mode.PLAN and (left is not None or indexes or unfinished):
            self._check_wanted()
            did = self._did(UNDO, table.parent, table.bytes)
            if left is not None:
                # First of all, and whatever else is to be waited for.
                self._drop_check(table)
            if (indexes or unfinished) and not self._begin(UNDO, table.parent, table.bytes):
                self.report.update = status.going_on(table, QUEUED)
                return
            with self._reading():
                conversion_engine.finish(self.connection, table.parent, self._patience, did)
            self.report.wasted = 0.0
            if indexes:
                abandon(self.connection, table, time.monotonic() + self._patience, did)
            self._ends()
        if spec.converts:
            # It was of another key than the policy names now, or a way back had not ended: it is planned afresh.
            self.report.more = True
            self.report.update = status.going_on(table, f"it begins anew with spec.key {spec.key!r}")
        elif spec.undoes:
            self.report.update = status.undone(table)
        else:
            raise error

    def _is_unfinished(self, table: PlainTable) -> bool:
        """Whether a way back has left it something to do, as children that a new conversion would be refused for."""
        with translated(self.connection, f"table {table}"):
            named = table.parent.schema, table.parent.name
            return table.kind == "r" and _unfinished(read_mark(self.connection, *named)[1])

    def _drop_check(self, table: PlainTable) -> None:
        self.report.converted = True
        if table.key is not None and remove_check(self.connection, table, time.monotonic() + self._patience):
            self._say(table.parent, "dropped the CHECK", 0.0)

    # A table that is partitioned.

    def go_back(self, inventory: Inventory) -> status.WayBack | None:
        """Make the table plain again. None: it is, and the report has its status; else why it is not."""
        spec, parent = self.request.spec, inventory.parent
        assert spec.convert is not None
        assert parent is not None
        limit, size = spec.convert.move_back, sum(each.bytes for each in inventory.partitions)
        step = undo_step(parent, limit)
        gate = gate_of((step,), undo_digest(inventory.server, parent, limit), self.request.archives.plan.named)
        if (pending := status.waiting(spec, parent, (step,), gate, self.request.policy)) is not None:
            return status.WayBack(pending, step, gate.digest if spec.mode is Mode.APPROVE else "")
        try:
            self.claim(inventory.server.identity, parent)
            if not self._begin(UNDO, parent, size):
                return status.WayBack(status.queued(parent, QUEUED), step)
            self._check_wanted()
            did = self._did(UNDO, parent, size)
            conversion_engine.undo(self.connection, spec.table, spec.key, self._patience, limit, did)
            self._ends()
        except Withdrawn as withdrawn:
            self.report.stopped = str(withdrawn)
            return status.WayBack(status.queued(parent, f"stopped: {withdrawn}"), step)
        except PartwardenError as error:
            return status.WayBack(status.failed(error), step, error=error)
        with translated(self.connection, f"table {spec.table}"):
            self.report.update = status.undone(read_table(self.connection, spec.table, spec.key or "", CHECK))
        return None

    def finish(self, inventory: Inventory, update: PolicyStatusUpdate) -> PolicyStatusUpdate:
        """Validate the foreign keys that a conversion has left to be. Returns the ``update``, with an error of that."""
        spec, legacy = self.request.spec, [each for each in inventory.partitions if _unfinished(each.converted)]
        if not legacy or not spec.converts or spec.suspend or spec.mode is not Mode.APPLY or self.request.beside:
            return update
        parent = inventory.parent
        if (rests := self.request.rests) is not None:
            return status.still_resting(update, rests)
        if self.report.stopped or parent is None or not self._begin(CONVERT, parent, legacy[0].bytes):
            return update
        try:
            did = self._did(CONVERT, parent, legacy[0].bytes)
            with self._reading():
                conversion_engine.finish(self.connection, parent, self._patience, did)
            self.report.wasted = 0.0
        except Withdrawn as withdrawn:
            self.report.wasted = 0.0
            self.report.stopped = str(withdrawn)
        except PartwardenError as error:
            return status.with_error(update, error)
        finally:
            self._ends()
        return update

    # What all of it needs.

    @property
    def _patience(self) -> float:
        return max(self.request.patience, PATIENCE)

    def _begin(self, action: str, parent: Parent, size: int, *, urgent: bool = False) -> bool:
        """Whether what may take long may begin; if not, the policy is reconciled when it may. ``urgent``: it may."""
        step = Step(action, str(parent), size)
        if not urgent and self.supervisor.must_wait(step):
            return False
        self.report.converted = True
        self.supervisor.begins(f"{action} of {parent}", LONG, step)
        return True

    def _ends(self) -> None:
        """The policy's status is this run's to write from now on, and what follows is short."""
        self.supervisor.finishes()
        self.supervisor.begins("observing the table again", None)

    def _did(self, action: str, parent: Parent, size: int) -> Callable[[str, float], None]:
        """Called between two steps, when nothing is held: an edit, or the end of the operator, stops it there."""

        def did(text: str, seconds: float) -> None:
            self._say(parent, text, seconds)
            self._check_wanted()
            self.supervisor.begins(f"{action} of {parent}", LONG, Step(action, str(parent), size))

        return did

    def _say(self, parent: Parent, text: str, seconds: float) -> None:
        self.supervisor.did(CompletedAction(STEP, "conversion:", f"{text}; table", str(parent), str(parent), seconds))

    def _check_wanted(self) -> None:
        if stopped := self.supervisor.why_stopped():
            raise Withdrawn(stopped)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Counts the time for which rows are read, until it is known that it is not wasted."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.report.wasted += time.monotonic() - began

    def _again(self, table: PlainTable) -> PlainTable | None:
        """The table after a failure, with the CHECK that stands; None where the connection is lost as well."""
        try:
            with translated(self.connection, f"table {table}"):
                return read_table(self.connection, self.request.spec.table, table.key.name if table.key else "", CHECK)
        except PartwardenError:
            return None


def _unfinished(mark: ConvertedMark | None) -> bool:
    """Whether foreign keys are left to be validated."""
    return mark is not None and (bool(mark.validate) or mark.undone)


def _standing(table: PlainTable, left: Leftover | None, why: str) -> list[Finding]:
    return [] if left is None or left.lower is None else [standing(table, left, why)]
