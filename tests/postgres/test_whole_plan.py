"""A switch from mode Plan to Apply does exactly what the plan said: on real servers, action by action."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from lab.postgres import Database
from partwarden.api.policy import Mode, TableSpec
from partwarden.planner.archive_gate import ArchiveRequest, Request
from partwarden.planner.drop_preconditions import Archives, ArchiveState, CheckState
from partwarden.planner.foresight import ARCHIVE, CHECK
from partwarden.planner.inventory import Inventory
from partwarden.planner.plan import Plan
from partwarden.planner.schedule import OF_USER, PlannedStep, WaitsFor
from partwarden.postgres import fingerprint
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from partwarden.postgres.engine import maintain, observe_and_plan
from partwarden.status.conditions import reconciled
from support.archived import here
from support.meanwhile import RUN, policy
from support.retirement import edit_mark, leave_pending, mark

What = tuple[str, str]
"""Action and name of its table."""
HOUR = timedelta(hours=1)
PASSED = 25 * HOUR
"""A grace of a day is over by then."""
TABLE = """
    CREATE TABLE run (id bigint GENERATED ALWAYS AS IDENTITY, submitted_at timestamptz NOT NULL,
        PRIMARY KEY (id, submitted_at)) PARTITION BY RANGE (submitted_at);
    CREATE TABLE run_2001 PARTITION OF run FOR VALUES FROM ('2001-01-01Z') TO ('2002-01-01Z');
    CREATE TABLE run_2002 PARTITION OF run FOR VALUES FROM ('2002-01-01Z') TO ('2003-01-01Z');
    CREATE TABLE run_2003 PARTITION OF run FOR VALUES FROM ('2003-01-01Z') TO ('2004-01-01Z');
    INSERT INTO run (submitted_at) VALUES ('2001-05-05Z'), ('2002-05-05Z'), ('2003-05-05Z');
"""
"""Years that have expired; whatever the server's clock says, those of the last years are missing."""
REST = """
    CREATE TABLE run_rest PARTITION OF run DEFAULT;
    INSERT INTO run (submitted_at) VALUES (now()), (now() - '1 year'::interval);
"""
CLOSED = """
    DO $$ BEGIN EXECUTE format('CREATE TABLE run_last PARTITION OF run FOR VALUES FROM (%L) TO (%L)',
        date_trunc('year', now(), 'UTC') - '1 year'::interval, date_trunc('year', now(), 'UTC')); END $$;
    INSERT INTO run (submitted_at) SELECT now() - '1 year'::interval FROM generate_series(1, 100);
"""
LOST = {"keepFor": "5y", "onExpire": "Drop", "dropWithoutArchive": True}
KEPT = {"keepFor": "5y", "onExpire": "Drop", "archive": {"pvc": {"claimName": "archives"}}}


@dataclass
class Operator:
    """Plans and applies a policy, with Jobs whose archives are as they should be."""

    database: Database
    spec: TableSpec
    held: frozenset[str] = frozenset()
    approved: frozenset[str] = frozenset()
    states: dict[int, tuple[ArchiveState, ...]] = field(default_factory=dict)
    ahead: timedelta = timedelta(0)
    """By how much later than the server's clock it plans."""

    def plan(self, mode: Mode = Mode.APPLY) -> tuple[Inventory, Plan]:
        with session(from_dsn(self.database.dsn)) as connection:
            spec, known = self.spec.model_copy(update={"mode": mode}), Archives(self.states, self.approved)
            inventory, _ = observe_and_plan(connection, spec)
            return observe_and_plan(connection, spec, inventory.now + self.ahead, self.held, known)

    def reconcile(self) -> list[What]:
        """What was done, by the engine and then by the Jobs."""
        observed = self.plan()
        with session(from_dsn(self.database.dsn)) as connection:
            known = Archives(self.states, self.approved)
            now = observed[0].now + self.ahead
            report = maintain(
                connection, self.spec, now=now, patience=10.0, held=self.held, archives=known, observed=observed
            )
        assert [each.error for each in report.outcomes if each.error] == []
        done = [(type(each.action).__name__, each.action.name) for each in report.outcomes]
        return [*done, *(self.job(each, observed[0]) for each in report.after.retired.gate.requests)]

    def job(self, request: Request, inventory: Inventory) -> What:
        names = {each.oid: each.name for each in (*inventory.partitions, *inventory.detached)}
        if isinstance(request, ArchiveRequest):
            with session(from_dsn(self.database.dsn)) as connection:
                taken = fingerprint.take(connection, request.schema, request.name)
            name = f"archive-{request.oid}"
            made = ArchiveState(name, 0, here(self.database), request.oid, True, taken, location="pvc://archives")
            self.states[request.oid] = (made,)
            return ARCHIVE, request.name
        oid = int(request.archive.removeprefix("archive-"))
        check = CheckState(request.token, ok=True, completed=inventory.now)
        self.states[oid] = (replace(self.states[oid][0], check=check),)
        return CHECK, names[oid]

    def run(self) -> list[What]:
        """Until nothing is due."""
        done: list[What] = []
        while some := self.reconcile():
            done += some
            assert len(done) < 100, f"there is no end to it: {done}"
        return done


def detach_long_ago(database: Database) -> None:
    """Seven tables that were detached, of years before those of the table."""
    for year in range(1994, 2001):
        database.execute(
            f"CREATE TABLE run_{year} PARTITION OF run FOR VALUES FROM ('{year}-01-01Z') TO ('{year + 1}-01-01Z')"
        )
    operator = Operator(database, policy(premake=0, retention={"keepFor": "5y"}))
    operator.run()


@dataclass(frozen=True)
class Scenario:
    """``fields``: of the policy."""

    fields: dict[str, Any]
    sql: str = TABLE
    before: Callable[[Database], object] | None = None
    held: frozenset[str] = frozenset()
    approved: frozenset[str] = frozenset()
    expects: tuple[What, ...] = ()
    """Among what is done."""


DRAIN = {"defaultPartition": {"ensure": True, "drain": "Auto"}}
UPKEEP = {"maintenance": {"onClose": "VacuumAndReindex", "analyzeParent": False}}
SCENARIOS = {
    "dropped at once": Scenario({"retention": LOST | {"grace": "0s"}}, expects=(("DropDetached", "run_2001"),)),
    "dropped after a grace": Scenario({"retention": LOST}, expects=(("DropDetached", "run_2003"),)),
    "only detached": Scenario({"retention": {"keepFor": "5y"}}, expects=(("DetachPartition", "run_2003"),)),
    "archived and dropped": Scenario(
        {"retention": KEPT}, expects=((ARCHIVE, "run_2001"), ("DropDetached", "run_2003"))
    ),
    "archived and dropped at once": Scenario({"retention": KEPT | {"grace": "0s"}}, expects=((CHECK, "run_2002"),)),
    "archived and detached": Scenario({"retention": KEPT | {"onExpire": "Detach"}}, expects=((CHECK, "run_2002"),)),
    "one is held": Scenario({"retention": KEPT}, held=frozenset({"run_2002"})),
    "one is approved": Scenario(
        {"retention": LOST | {"grace": "0s", "approval": "Manual"}},
        approved=frozenset({"run_2001"}),
        expects=(("DropDetached", "run_2001"),),
    ),
    "rows in DEFAULT": Scenario({"retention": LOST} | DRAIN, TABLE + REST, expects=(("DropDetached", "run_2001"),)),
    "a DEFAULT partition is made": Scenario(
        {"retention": KEPT} | DRAIN, expects=(("CreateDefault", "run_default"), ("DropDetached", "run_2003"))
    ),
    "a detach is pending": Scenario(
        {"retention": LOST},
        before=lambda database: leave_pending(database, "run_2002"),
        expects=(("FinalizeDetach", "run_2002"), ("DropDetached", "run_2003")),
    ),
    "detached tables": Scenario(
        {"retention": LOST | {"grace": "0s"}}, before=detach_long_ago, expects=(("DropDetached", "run_1994"),)
    ),
    "detached tables without an archive": Scenario(
        {"retention": KEPT}, before=detach_long_ago, expects=((ARCHIVE, "run_1994"), ("DropDetached", "run_2003"))
    ),
    "detached tables that return": Scenario(
        {"retention": {"keepFor": "50y"}}, before=detach_long_ago, expects=(("AttachDetached", "run_1994"),)
    ),
    "upkeep": Scenario(
        {"retention": {"keepFor": "5y"}} | UPKEEP, TABLE + CLOSED, expects=(("VacuumPartition", "run_last"),)
    ),
}


def by_itself(steps: Iterable[PlannedStep]) -> Iterator[PlannedStep]:
    return (each for each in steps if not any(wait.on in OF_USER for wait in each.waits_for))


def in_order(done: Iterable[What]) -> dict[str, list[What]]:
    """Those of each table, and all of the engine; Jobs run beside it, and may read a table more than once."""
    ordered: dict[str, list[What]] = {}
    for each in dict.fromkeys(done):
        ordered.setdefault(each[1], []).append(each)
        if each[0] not in (ARCHIVE, CHECK):
            ordered.setdefault("engine", []).append(each)
    return ordered


def let_pass(database: Database, tables: Iterable[str]) -> None:
    """Let the detached tables be so for longer than any grace."""
    for name in tables:
        held = mark(database, name)
        assert held is not None
        edit_mark(database, name, since=held.since - PASSED)


@pytest.mark.parametrize("name", SCENARIOS)
def test_apply_does_what_the_plan_of_mode_plan_said_and_nothing_else(database: Database, name: str) -> None:
    """The same actions on the same tables in the same order, and none before its moment."""
    scenario = SCENARIOS[name]
    database.execute(scenario.sql)
    if scenario.before:
        scenario.before(database)
    spec = policy(premake=1, **({"maintenance": {"analyzeParent": False}} | scenario.fields))
    operator = Operator(database, spec, scenario.held, scenario.approved)
    _, plan = operator.plan(Mode.PLAN)
    at_once = operator.run()
    inventory, left = operator.plan()
    # A part that waits for the user stays; of the rest only what is in its grace is left.
    assert all(each.not_before and each.not_before > inventory.now for each in by_itself(left.steps))
    let_pass(database, [each.name for each in inventory.detached])
    done = [*at_once, *operator.run()]
    promised = [(each.action, each.name) for each in by_itself(plan.steps)]
    assert in_order(done) == in_order(promised)
    assert set(scenario.expects) <= set(done)
    late = {(each.action, each.name) for each in plan.steps if each.not_before}
    assert not late & set(at_once)
    assert not list(by_itself(operator.plan()[1].steps))


def test_seven_detached_tables_without_a_grace_are_seven_drops_in_mode_plan(pg_database: Database) -> None:
    """The policy was Converged, its plan empty; within a minute of mode Apply they were gone."""
    pg_database.execute(RUN)
    detach_long_ago(pg_database)
    spec = policy(premake=0, mode="Plan", retention=LOST | {"grace": "0s"})
    inventory, plan = Operator(pg_database, spec).plan(Mode.PLAN)
    said = reconciled(spec, inventory, plan, ())
    assert (said.ready.status, said.ready.reason) == ("False", "PlanPending")
    assert "7 tables to drop; spec.mode is Plan" in said.ready.message
    assert said.table is not None
    drops = [each.partition for each in said.table.plan if each.action == "DropDetached"]
    assert drops == [f"run_{year}" for year in range(1994, 2001)]


def test_upkeep_outside_of_its_window_is_a_step_with_the_moment_at_which_it_opens(pg_database: Database) -> None:
    pg_database.execute(TABLE + CLOSED)
    ((now,),) = pg_database.query("SELECT now()")
    assert isinstance(now, datetime)
    opens = (now + 3 * HOUR).replace(minute=0, second=0, microsecond=0)
    window = f"{opens:%H}:00-{opens:%H}:59"
    maintenance = {"onClose": "VacuumAndReindex", "analyzeParent": False, "window": window}
    operator = Operator(pg_database, policy(premake=1, startFrom=f"{now:%Y}-01-01", maintenance=maintenance))
    steps = [each for each in operator.plan(Mode.PLAN)[1].steps if each.name == "run_last"]
    assert [(each.action, each.not_before) for each in steps] == [
        ("VacuumPartition", opens),
        ("ReindexPartition", opens),
    ]
    assert not {name for _, name in operator.run()} & {"run_last"}
    operator.ahead = opens - now
    assert [each for each in operator.run() if each[1] == "run_last"] == [
        ("VacuumPartition", "run_last"),
        ("ReindexPartition", "run_last"),
    ]


def test_what_is_stuck_is_a_step_that_waits_for_the_user(pg_database: Database) -> None:
    pg_database.execute(TABLE + "ALTER TABLE run_2003 OWNER TO pg_monitor")
    operator = Operator(pg_database, policy(premake=0, retention=LOST), held=frozenset({"run_2002"}))
    operator.run()
    _, plan = operator.plan(Mode.PLAN)
    waits = {(each.action, each.name): [wait.on for wait in each.waits_for] for each in plan.steps}
    assert waits == {
        ("DropDetached", "run_2001"): [],
        ("DetachPartition", "run_2002"): [WaitsFor.HOLD],
        ("DropDetached", "run_2002"): [WaitsFor.HOLD, WaitsFor.DETACH],
        ("DetachPartition", "run_2003"): [WaitsFor.USER],
    }
