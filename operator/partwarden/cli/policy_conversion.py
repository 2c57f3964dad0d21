"""What ``partwarden apply`` and ``plan`` do with ``spec.convert``: what the operator does, by its own code.

Of a plain table that is to be partitioned ``plan`` prints the document of ``partwarden convert --plan``. Else, where
the table is not partitioned afterwards, or is to be plain, the document is::

    {
      "table",
      "ready": {"status", "reason", "message"},   as the condition of a policy
      "steps": [{"action", "reason", "lock", "bytes", "rows"}],   what is still to be done
      "planDigest",                               what apply --approve has to name, or null
      "findings": [{"severity", "reason", "object", "message"}],
      "done": [{"text", "seconds"}]
    }
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from ..api.policy import Mode, TableSpec
from ..api.status import ConditionStatus
from ..controller.conversion_work import ConversionWork
from ..controller.database_work import Supervisor, WorkReport, WorkRequest
from ..errors import NotPartitioned
from ..planner.drop_preconditions import Archives
from ..planner.inventory import Inventory
from ..planner.plan import Plan
from ..postgres import conversion_engine
from ..postgres.connection import Session
from ..postgres.conninfo import ConnectionInfo
from ..status.conditions import PLAN_PENDING, PolicyStatusUpdate
from ..status.events import CompletedAction
from . import formats
from .convert import Done, refuse_moment, show

NOTHING, ERROR, TO_DO = 0, 1, 2
"""Exit codes."""
NONE = Archives()


class _Course(Supervisor):
    """A command: nothing stops it but its user, and each step is printed when it is done."""

    def __init__(self, done: Done) -> None:
        self._done = done

    def did(self, action: CompletedAction) -> None:
        self._done.add(f"{action.noun} {action.name}", action.seconds)


class PolicyConversion:
    """``spec.convert`` of one policy, in one run of a command."""

    def __init__(
        self,
        connection: Session,
        info: ConnectionInfo,
        spec: TableSpec,
        output: str,
        archives: Archives = NONE,
        patience: float = 0.0,
        now: datetime | None = None,
        *,
        only_plan: bool = False,
    ) -> None:
        """``archives``: with the approval of a plan. ``now``: the moment that the user asks about, which is refused
        where something is to be converted. ``only_plan``: nothing is done."""
        self.spec, self._connection, self._patience, self._now = spec, connection, patience, now
        self._output, self._done, self._only_plan = output, Done(output), only_plan
        # What is suspended is shown, as by mode: Plan.
        self.mode = Mode.PLAN if spec.suspend or only_plan else spec.mode
        request = WorkRequest(
            spec=spec.model_copy(update={"suspend": False, "mode": self.mode}),
            connection=info,
            held=frozenset(),
            archives=archives,
            patience=patience,
            connect_timeout=10,
        )
        self.code, self._report = ERROR, WorkReport()
        self._work = ConversionWork(connection, request, _Course(self._done), self._report, lambda *_: None, once=True)

    def first(self, observe: Callable[[], tuple[Inventory, Plan]]) -> tuple[Inventory, Plan] | None:
        """What ``observe`` returns, once the table is partitioned and is to stay so.

        None: it is not, or was only planned to be; it has printed why, and `code` is that of the command. Raises
        `NotPartitioned` where the policy asks for no conversion and none has left anything.
        """
        try:
            observed = observe()
        except NotPartitioned as error:
            if not self._attend(error):
                return None
            observed = observe()
        if self.spec.undoes:
            # Nothing else is done: no row may go meanwhile, as by retention.
            self._go_back(observed[0])
            return None
        if self.spec.converts and self.mode is Mode.APPLY and observed[0].parent is not None:
            conversion_engine.finish(self._connection, observed[0].parent, self._patience, self._done.add)
        return observed

    def _attend(self, error: NotPartitioned) -> bool:
        """Go on with a table that is not partitioned. Returns whether it is now."""
        refuse_moment(self._now)
        if self._only_plan and self.spec.converts:
            self.code = ERROR if show(self._connection, self.spec, self._output) else TO_DO
            return False
        while not self._work.attend(error):
            if not self._report.more:
                self._show(str(self.spec.table), self._report.update)
                return False
            # What was prepared for another key is taken back, and it begins anew.
            self._report.more = False
        return True

    def _go_back(self, inventory: Inventory) -> None:
        """Make a partitioned table plain."""
        refuse_moment(self._now)
        work = self._work
        if self._only_plan and self.spec.mode is Mode.APPROVE:
            # With the digest, and without an approval: it does nothing.
            spec = work.request.spec.model_copy(update={"mode": Mode.APPROVE})
            work = replace(work, request=replace(work.request, spec=spec, archives=NONE))
        way_back = work.go_back(inventory)
        self._show(str(inventory.parent), self._report.update if way_back is None else way_back.alone())

    def _show(self, table: str, update: PolicyStatusUpdate) -> None:
        ready, seen = update.ready, update.table
        steps, findings = (seen.plan, seen.findings) if seen else ([], [])
        digest = seen.plan_digest if seen else None
        if ready.status is ConditionStatus.TRUE:
            self.code = NOTHING
        elif ready.reason == PLAN_PENDING and self.mode is Mode.PLAN:
            self.code = TO_DO if self._only_plan else NOTHING
        lines = [f"{table}: {ready.reason}: {ready.message}"]
        for number, each in enumerate(steps, 1):
            lines += [f"{number}. {each.reason}", f"   {each.lock}"]
        lines += [f"WAITS: read it, then apply with --approve {digest}"] if digest else []
        lines += [f"  {each.severity} {each.reason} ({each.object}): {each.message}" for each in findings]
        document = {
            "table": table,
            "ready": {"status": ready.status, "reason": ready.reason, "message": ready.message},
            "steps": [
                {
                    "action": each.action,
                    "reason": each.reason,
                    "lock": each.lock,
                    "bytes": each.bytes,
                    "rows": each.rows,
                }
                for each in steps
            ],
            "planDigest": digest,
            "findings": [
                {"severity": each.severity, "reason": each.reason, "object": each.object, "message": each.message}
                for each in findings
            ],
            "done": self._done.steps,
        }
        formats.show(self._output, document, [table], lines)
