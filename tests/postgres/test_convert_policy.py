"""A policy that converts its plain table: it goes on where it was stopped, and leaves no CHECK unattended."""

from __future__ import annotations

from typing import Any

import pytest

from lab.postgres import Database
from partwarden.api.approval import PlanApproval
from partwarden.api.policy import PartitionPolicySpec
from partwarden.api.status import ConditionStatus, State
from partwarden.controller import conversion_work, database_work
from partwarden.controller.conversion_rests import COSTLY
from partwarden.controller.database_work import Supervisor, WorkReport, WorkRequest
from partwarden.errors import PolicyConflict, TableBusy
from partwarden.planner.conversion_rules import CHECK
from partwarden.planner.drop_preconditions import Archives
from partwarden.postgres import conversion_engine, conversion_swap, conversion_undo
from partwarden.postgres.conninfo import from_dsn
from partwarden.status.conditions import PolicyStatusUpdate
from partwarden.status.events import CompletedAction

RUN = """CREATE TABLE run (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz NOT NULL);
    INSERT INTO run (at) SELECT now() - n * interval '1 day' FROM generate_series(0, 400) n"""
ATTACH = {"mode": "Attach", "widenKeys": True}


class Steps(Supervisor):
    """An operator that ends, or sees an edit, after so many steps."""

    def __init__(self, most: int = 100, waits: bool = False) -> None:
        self._most, self._waits = most, waits
        self.done, self.claimed = list[str](), list[int]()

    def claim(self, server: str, oid: int, table: str) -> None:
        self.claimed.append(oid)

    def did(self, action: CompletedAction) -> None:
        self.done.append(action.noun)

    def must_wait(self, step: object) -> bool:
        return self._waits

    def why_stopped(self) -> str:
        return "its policy was edited" if len(self.done) >= self._most else ""


def work(
    database: Database,
    convert: dict[str, Any] | None = None,
    steps: Steps | None = None,
    approved: str = "",
    beside: str = "",
    patience: float = 10.0,
    rests: PolicyStatusUpdate | None = None,
    **fields: Any,
) -> WorkReport:
    """One reconcile."""
    spec = {
        "table": {"name": "run"},
        "database": {"secretRef": {"name": "db"}},
        **{"key": "at", "interval": "Month", "convert": convert, **fields},
    }
    request = WorkRequest(
        spec=PartitionPolicySpec.model_validate(spec, by_alias=True, by_name=False),
        connection=from_dsn(database.dsn),
        held=frozenset(),
        archives=Archives(plan=PlanApproval(approved)),
        patience=patience,
        connect_timeout=10,
        beside=beside,
        rests=rests,
    )
    return database_work.work(request, steps or Steps())


def kind(database: Database) -> object:
    return database.query("SELECT relkind::text FROM pg_class WHERE oid = 'run'::regclass")[0][0]


def has_check(database: Database) -> bool:
    return bool(database.query("SELECT FROM pg_constraint WHERE conname = %s", CHECK))


def reasons(report: WorkReport) -> set[str]:
    assert report.update.table is not None
    return {each.reason for each in report.update.table.findings}


def stop_with_check(database: Database) -> None:
    """A conversion that ended right after its CHECK was validated: two indexes less, since one key is widened."""
    database.execute(RUN)
    report = work(database, ATTACH, Steps(most=3))
    assert report.stopped == "its policy was edited"
    assert report.update.ready.reason == "Converting"
    assert has_check(database)


def test_a_plain_table_is_converted_and_kept_by_the_same_reconcile(database: Database) -> None:
    database.execute(RUN)
    supervisor = Steps()
    report = work(database, ATTACH, supervisor)
    assert (report.update.ready.status, report.update.ready.reason) == (ConditionStatus.TRUE, "Converged")
    assert [each.split(" ")[0] for each in supervisor.done] == ["built", "added", "validated", "public.run"]
    assert report.update.table is not None
    legacy, *others = report.update.table.partitions
    assert legacy.state is State.LEGACY
    assert {each.state for each in others} == {State.FUTURE}
    assert len(set(supervisor.claimed)) == 2
    assert database.query("SELECT count(*) FROM run") == [(401,)]
    assert work(database, ATTACH).update.ready.reason == "Converged"


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_killed_after_any_step_it_goes_on(database: Database, most: int) -> None:
    """No handler of the course runs: the process ends, and the server drops its session."""
    database.execute(RUN)

    class Killed(Steps):
        def did(self, action: CompletedAction) -> None:
            super().did(action)
            if len(self.done) == most:
                raise SystemExit

    with pytest.raises(SystemExit):
        work(database, ATTACH, Killed())
    supervisor = Steps()
    assert work(database, ATTACH, supervisor).update.ready.reason == "Converged"
    assert len(supervisor.done) == 4 - most
    assert database.query("SELECT count(*) FROM run") == [(401,)]


def test_what_was_read_for_nothing_is_counted_and_not_read_again_while_it_rests(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(f"{RUN}; ALTER TABLE run ALTER at DROP NOT NULL; INSERT INTO run VALUES (DEFAULT, NULL)")
    refused = work(database, ATTACH)
    assert (refused.update.ready.reason, refused.wasted > 0) == ("ConversionRefused", True)

    def read(*_: object) -> None:
        raise AssertionError("the table is read")

    with monkeypatch.context() as patched:
        patched.setattr(conversion_engine, "read_rows", read)
        again = work(database, ATTACH, rests=refused.update)
        assert (again.update, again.wasted) == (refused.update, 0.0)
    database.execute("DELETE FROM run WHERE at IS NULL")
    converted = work(database, ATTACH)
    assert (converted.update.ready.reason, converted.wasted) == ("Converged", 0.0)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_stopped_after_any_step_it_goes_on(database: Database, most: int) -> None:
    database.execute(RUN)
    assert work(database, ATTACH, Steps(most)).stopped
    assert kind(database) == "r"
    supervisor = Steps()
    assert work(database, ATTACH, supervisor).update.ready.reason == "Converged"
    assert len(supervisor.done) == 4 - most


def test_it_says_what_it_would_do_and_does_nothing_before_it_may(database: Database) -> None:
    database.execute(RUN)
    report = work(database, ATTACH, mode="Plan")
    assert report.update.ready.reason == "PlanPending"
    assert report.update.table is not None
    assert [each.lock.split(" on ")[0] for each in report.update.table.plan] == [
        *("SHARE UPDATE EXCLUSIVE", "ACCESS EXCLUSIVE", "SHARE UPDATE EXCLUSIVE", "ACCESS EXCLUSIVE"),
    ]
    assert "ON CONFLICT (id) fails" in str(report.update.table.findings)
    report = work(database, ATTACH, mode="Approve")
    assert report.update.table is not None
    assert (report.update.ready.reason, kind(database)) == ("PlanPending", "r")
    digest, following = report.update.table.plan_digest, report.update.table.next
    assert (following and (following.text, following.when)) == ("convert run", "waits: Approval")
    assert digest is not None
    assert digest in report.update.ready.message
    assert work(database, ATTACH, approved="0" * 16, mode="Approve").update.ready.reason == "PlanPending"
    assert work(database, ATTACH, Steps(2), approved=digest, mode="Approve").stopped
    assert work(database, ATTACH, approved=digest, mode="Approve").update.ready.status is ConditionStatus.TRUE
    assert kind(database) == "p"


def test_what_forbids_it_is_a_finding_each_and_a_check_that_stands_goes(database: Database) -> None:
    stop_with_check(database)
    database.execute("CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM run")
    report = work(database, ATTACH)
    assert (report.update.ready.reason, report.update.stalled) == ("ConversionRefused", True)
    assert report.update.table is not None
    (found,) = report.update.table.findings
    assert "public.counted" in found.object
    assert not has_check(database)
    database.execute("DROP MATERIALIZED VIEW counted")
    assert work(database, ATTACH).update.ready.reason == "Converged"


@pytest.mark.parametrize("convert", [None, {"mode": "Never"}, {"mode": "Undo"}])
def test_what_was_prepared_is_taken_back(database: Database, convert: dict[str, Any] | None) -> None:
    stop_with_check(database)
    supervisor = Steps()
    report = work(database, convert, supervisor)
    assert report.update.ready.reason == ("Undone" if convert == {"mode": "Undo"} else "NotPartitioned")
    assert not has_check(database)
    wide = database.query("SELECT FROM pg_class WHERE relname = 'run_pkey_wide'")
    # Without spec.convert an index may be the user's.
    assert bool(wide) is (convert is None)
    again = Steps()
    assert work(database, convert, again).update.ready.reason == report.update.ready.reason
    assert again.done == []


def test_a_key_that_is_edited_meanwhile_takes_back_what_was_prepared_for_the_other(database: Database) -> None:
    stop_with_check(database)
    database.execute("ALTER TABLE run ADD COLUMN ended timestamptz NOT NULL DEFAULT now()")
    assert work(database, ATTACH, key="ended").more
    assert not has_check(database)
    assert work(database, ATTACH, key="ended").update.ready.reason == "Converged"


def test_while_it_may_not_go_on_it_says_from_when_on_writes_are_refused(database: Database) -> None:
    stop_with_check(database)
    for fields in ({"suspend": True}, {"mode": "Plan"}, {"mode": "Plan", "convert": {"mode": "Never"}}):
        given: dict[str, Any] = {"convert": ATTACH, **fields}
        report = work(database, **given)
        assert "CheckStands" in reasons(report)
        assert report.update.table is not None
        assert report.update.table.summary is not None
        assert has_check(database)
    assert report.update.ready.reason == "NotPartitioned"


def test_beside_a_run_that_takes_long_nothing_is_done(database: Database) -> None:
    database.execute(RUN)
    for report in (work(database, ATTACH, beside="ConvertTable"), work(database, ATTACH, Steps(waits=True))):
        assert (report.update.ready.reason, report.update.reconciling) == ("Converting", True)
    assert not has_check(database)


def test_a_check_that_stands_waits_for_no_other_action(database: Database) -> None:
    stop_with_check(database)
    assert work(database, ATTACH, Steps(waits=True)).update.ready.reason == "Converged"


REFUSE = """CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE 'not yet' USING ERRCODE = '{code}'; END $$;
    CREATE EVENT TRIGGER gate ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION refuse()"""
"""Lets nothing of the last transaction be done, and all that comes before it."""


def test_where_a_user_must_act_no_check_is_left_to_refuse_rows(database: Database) -> None:
    database.execute(RUN)
    database.execute(REFUSE.format(code="raise_exception"))
    report = work(database, ATTACH)
    assert (report.update.ready.status, report.update.stalled) == (ConditionStatus.FALSE, True)
    assert "not yet" in report.update.ready.message
    assert not has_check(database)
    assert reasons(report) == set()
    database.execute("DROP EVENT TRIGGER gate")
    assert work(database, ATTACH).update.ready.reason == "Converged"


def test_what_passes_leaves_the_check_and_comes_again_long_before_rows_are_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion_work, "PATIENCE", 0.0)
    database.execute(RUN)
    database.execute(REFUSE.format(code="lock_not_available"))
    report = work(database, ATTACH, resync="24h", patience=1.0)
    assert (report.update.ready.reason, report.update.reconciling) == ("TableBusy", True)
    assert has_check(database)
    # The CHECK is valid, and need not be made again.
    assert report.wasted < COSTLY
    assert report.boundary is not None
    ((left,),) = database.query("SELECT extract(epoch FROM date_trunc('month', now() + '1 day') + '1 month' - now())")
    assert report.boundary < 0.6 * float(str(left))
    database.execute("DROP EVENT TRIGGER gate")
    supervisor = Steps()
    assert work(database, ATTACH, supervisor).update.ready.reason == "Converged"
    assert len(supervisor.done) == 1


def test_a_policy_that_an_older_one_keeps_from_the_table_takes_nothing_back(database: Database) -> None:
    stop_with_check(database)

    class Younger(Steps):
        def claim(self, server: str, oid: int, table: str) -> None:
            raise PolicyConflict("table public.run belongs to the older policy a/run")

    for convert in (None, {"mode": "Never"}, {"mode": "Undo"}, ATTACH):
        supervisor = Younger()
        report = work(database, convert, supervisor)
        assert report.update.ready.reason == "PolicyConflict"
        assert (has_check(database), supervisor.done, reasons(report)) == (True, [], set())


def test_the_way_back_and_that_it_is_refused_beyond_its_limit(database: Database) -> None:
    database.execute(RUN)
    work(database, ATTACH)
    database.execute("INSERT INTO run (at) SELECT now() + interval '40 days' FROM generate_series(1, 3)")
    report = work(database, {"mode": "Undo", "moveBack": 2}, premake=4)
    assert (report.update.ready.status, report.update.stalled) == (ConditionStatus.FALSE, True)
    assert "3 rows" in report.update.ready.message
    assert report.update.table is not None
    assert report.update.table.plan[0].action == "UndoConversion"
    assert kind(database) == "p"
    assert report.update.table.summary is not None
    assert report.update.table.summary.ahead is not None
    assert report.update.table.summary.ahead >= 4
    assert work(database, {"mode": "Undo"}, mode="Plan").update.ready.reason == "PlanPending"
    waiting = work(database, {"mode": "Undo"}, mode="Approve").update.table
    assert waiting is not None
    assert waiting.plan_digest is not None
    assert kind(database) == "p"
    undone = work(database, {"mode": "Undo"}, mode="Approve", approved=waiting.plan_digest)
    assert (undone.update.ready.status, undone.update.ready.reason) == (ConditionStatus.TRUE, "Undone")
    assert (kind(database), database.query("SELECT count(*) FROM run")) == ("r", [(404,)])
    assert work(database, {"mode": "Undo"}).update.ready.reason == "Undone"


def test_what_a_way_back_has_left_is_finished_before_the_table_is_converted_anew(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its children would forbid that."""
    database.execute(RUN)
    work(database, ATTACH)
    database.execute("INSERT INTO run (at) SELECT now() + interval '40 days'")
    with monkeypatch.context() as patched:
        patched.setattr(conversion_undo, "finish", lambda *_: None)
        work(database, {"mode": "Undo"})
    children = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'run'::regclass"
    assert (kind(database), database.query(children)) == ("r", [(1,)])
    waits = work(database, ATTACH, mode="Plan")
    assert (waits.more, database.query(children)) == (False, [(1,)])
    supervisor = Steps()
    report = work(database, ATTACH, supervisor)
    assert (report.more, report.update.errors, database.query(children)) == (True, (), [(0,)])
    assert supervisor.done == ["finished the way back of public.run; table"]
    work(database, ATTACH)
    assert (kind(database), database.query("SELECT count(*) FROM run")) == ("p", [(402,)])


def test_foreign_keys_that_are_left_are_validated_by_the_next_reconcile(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(
        "CREATE TABLE run (id bigint, at timestamptz, PRIMARY KEY (id, at)); INSERT INTO run VALUES (1, now());"
        "CREATE TABLE log (id bigint, at timestamptz, FOREIGN KEY (id, at) REFERENCES run);"
        "INSERT INTO log SELECT * FROM run"
    )

    def busy(*_: object) -> None:
        raise TableBusy("another session holds log")

    unproven = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND NOT convalidated AND conparentid = 0"
    with monkeypatch.context() as patch:
        patch.setattr(conversion_swap, "finish", busy)
        report = work(database, {"mode": "Attach"})
        assert (report.update.ready.reason, report.update.reconciling) == ("TableBusy", True)
    assert kind(database) == "p"
    assert database.query(unproven) != [(0,)]
    supervisor = Steps()
    assert work(database, {"mode": "Attach"}, supervisor).update.ready.reason == "Converged"
    assert [each.split(" ")[0] for each in supervisor.done] == ["validated"]
    assert database.query(unproven) == [(0,)]


def test_intervals_leave_the_table_one_a_reconcile(database: Database) -> None:
    passed = "date_trunc('month', now() - interval '1 day', 'UTC')"
    database.execute(f"""CREATE TABLE run (id bigint, at timestamptz NOT NULL, PRIMARY KEY (at, id));
        INSERT INTO run SELECT n, {passed} - n * interval '1 day' FROM generate_series(1, 99) n""")
    assert work(database, ATTACH).update.ready.reason == "Converged"
    # As if it had been converted before this month.
    ((name, begin),) = database.query(
        """SELECT relname, substring(pg_get_expr(relpartbound, 0) FROM $$FROM .'([^']+)'$$) FROM pg_class
           WHERE relname ~ '_until_' AND relkind = 'r'"""
    )
    database.execute(f"""ALTER TABLE run DETACH PARTITION {name}; DO $$ BEGIN EXECUTE format('ALTER TABLE run ATTACH
        PARTITION {name} FOR VALUES FROM (%L) TO (%L)', '{begin}', {passed}); END $$""")
    supervisor = Steps()
    report = work(database, ATTACH | {"split": "Background"}, supervisor)
    assert not report.update.errors, report.update.errors
    assert report.more
    partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'run'::regclass"
    ((many,),) = database.query(partitions)
    assert isinstance(many, int)
    assert set(supervisor.done) == {"partition"}
    assert report.update.table is not None
    assert "SplitLegacy" in [each.action for each in report.update.table.plan]
    for _ in range(4):
        report = work(database, ATTACH | {"split": "Background"})
    assert not report.more
    assert report.update.table is not None
    assert "SplitLegacy" not in [each.action for each in report.update.table.plan]
    assert database.query("SELECT count(*) FROM run") == [(99,)]
    # 99 days before a month reach into four.
    assert database.query(partitions) == [(int(str(many)) + 2,)]
