"""One reconcile: observe, plan, claim, apply, write status, requeue; and what each failure makes of it."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from partwarden.api import approval
from partwarden.api.types import ObjectKey
from partwarden.controller import database_work
from partwarden.controller.archive_requests import ArchiveRequests
from partwarden.controller.event_handlers import PolicyEventHandler
from partwarden.controller.ownership import TableIdentity, TableOwnership
from partwarden.controller.policy_reconciler import WAIT_FOR_OLDER, PolicyReconciler
from partwarden.controller.runtime import WAIT_FOR_SLOT, Runtime
from partwarden.controller.same_server import digest
from partwarden.controller.settings import Settings
from partwarden.controller.workqueue import Result
from partwarden.errors import AuthenticationFailed, ContentsChanged, DatabaseUnreachable, PartwardenError, TableBusy
from partwarden.kube import secrets
from partwarden.kube.cache import StoredPolicy
from partwarden.kube.client import Cluster
from partwarden.planner.drop_preconditions import Archives, server_label
from partwarden.planner.forecast import NOTHING, Measured, PastArchive
from partwarden.planner.inventory import Reference
from partwarden.postgres.conninfo import ConnectionInfo
from support import in_process, values
from support.policies_api import FakeCluster, FakeExecutor, FakeLocks

KEY, OLDER = ("one", "run"), ("one", "older")
TABLE = TableIdentity(values.SERVER.identity, values.PARENT.oid)
SPEC = {"database": {"secretRef": {"name": "db"}}, "table": {"name": "run"}, "interval": "Year", "premake": 1}
RETENTION = {"keepFor": "1y", "onExpire": "Drop", "dropWithoutArchive": True, "grace": "1h"}
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


class Requests:
    """Instead of PartitionArchives: none is known, and what was asked for."""

    def __init__(self) -> None:
        self.asked, self.doubts = 0, list[str]()

    def known(self, policy: StoredPolicy, spec: object) -> Archives:
        return Archives(
            approved=policy.approved, plan=approval.read(policy.plan_approved, policy.status, policy.generation)
        )

    def ask(self, *_: object) -> None:
        self.asked += 1

    def doubt(self, policy: StoredPolicy, name: str) -> None:
        self.doubts.append(name)


class Fixture:
    """A policy of public.run, whose partition of this year exists, and whose next one is to be created."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, selector: str = "") -> None:
        self.engine = FakeExecutor(values.inventory(*values.years(2026)))
        monkeypatch.setattr(database_work, "observe_and_plan", self.engine.observe_and_plan)
        monkeypatch.setattr(database_work, "maintain", self.engine.maintain)
        monkeypatch.setattr(database_work, "session", self.engine.session)
        self.locks = FakeLocks()
        monkeypatch.setattr(database_work, "holding_keys", self.locks.holding_keys)
        self.api, self.requests = FakeCluster(), Requests()
        self.api.secrets["one", "db"] = {"uri": "postgresql://owner@db/orchestrator"}
        self.lost, self.selector, self.measured, self.now = False, selector, NOTHING, values.NOW
        self.results: list[Result] = []
        self.well: list[bool] = []
        self.start()
        self.apply()

    def start(self) -> None:
        """The operator starts, and its watch shows every policy."""
        runtime = Runtime(cast(Cluster, self.api), Settings(selector=self.selector), lambda: self.now)
        self.store, self.queue = runtime.policies, runtime.policy_queue
        self.enqueued: list[ObjectKey] = []
        self.ownership = TableOwnership(self.enqueued.append)
        self.handler = PolicyEventHandler(self.store, self.ownership, self.queue)
        for body in self.api.policies.values():
            self.handler.seen(body)
        self.reconciler = PolicyReconciler(
            runtime,
            self.handler,
            self.ownership,
            cast(ArchiveRequests, self.requests),
            database_work.work,
            self.locks.look,
            in_process.long_actions(runtime),
            self.observe,
            lambda: self.lost,
            lambda policy, spec: self.measured,
        )

    def observe(self, _key: ObjectKey, result: Result, _seconds: float, well: bool) -> None:
        self.results.append(result)
        self.well.append(well)

    def apply(self, meta: dict[str, Any] | None = None, **fields: Any) -> None:
        """The policy is edited, and the watch shows it."""
        self.handler.seen(self.api.apply(KEY, SPEC | fields, **(meta or {})))

    def reconcile(self) -> float | None:
        return self.reconciler.reconcile(KEY)

    def condition(self, kind: str = "Ready") -> tuple[str, str, str]:
        (found,) = [each for each in self.api.policies[KEY]["status"]["conditions"] if each["type"] == kind]
        return found["status"], found["reason"], found.get("message", "")

    @property
    def reasons(self) -> list[str]:
        return [each.reason for each in self.api.events]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Fixture:
    return Fixture(monkeypatch)


def test_it_observes_plans_applies_and_writes_the_status(made: Fixture) -> None:
    after = made.reconcile()
    assert made.engine.steps == ["connect", "observe and plan", "create run_2027", "disconnect"]
    assert made.condition()[:2] == ("True", "Converged")
    assert made.results == [Result.CONVERGED]
    assert made.reasons == ["PartitionCreated"]
    assert after is not None
    assert 540 <= after <= 660
    assert made.ownership.claim(OLDER, TABLE, ("2025", OLDER)) is None
    assert made.enqueued == [KEY]


def test_the_forecast_in_the_status_has_what_the_archives_of_the_policy_took(made: Fixture) -> None:
    server = server_label(values.SERVER.identity)
    made.measured = Measured((PastArchive(server, 5, 100, 5000, 60, values.NOW),))
    made.engine.inventory = values.inventory(*(replace(each, rows=90) for each in values.years(2024, 2025, 2026)))
    retention = {"keepFor": "5y", "archive": {"pvc": {"claimName": "archives"}}}
    made.apply(retention=retention)
    made.reconcile()
    forecast = made.api.policies[KEY]["status"]["summary"]["forecast"]
    assert (forecast["partitions"], forecast["nextArchive"], forecast["nextArchiveBytes"]) == (2, "run_2024", 4500)


def test_a_converged_policy_costs_no_write(made: Fixture) -> None:
    for _ in range(3):
        made.reconcile()
    assert made.api.writes == 1
    assert made.results == [Result.CONVERGED] * 3
    assert made.reasons == ["PartitionCreated"]


def test_the_end_of_an_interval_comes_before_the_resync(made: Fixture) -> None:
    made.engine.inventory = replace(made.engine.inventory, now=datetime(2026, 12, 31, 23, 58, tzinfo=UTC))
    assert made.reconcile() == 120


def test_what_is_only_planned_is_not_applied(made: Fixture) -> None:
    made.apply(mode="Plan")
    made.reconcile()
    assert made.engine.steps == ["connect", "observe and plan", "disconnect"]
    assert made.condition()[1] == "PlanPending"
    assert made.requests.asked == 0


def test_a_wrong_spec_is_stalled_and_nothing_is_read(made: Fixture) -> None:
    made.apply(premake=-1)
    assert 13 <= (made.reconcile() or 0) <= 17
    assert made.engine.steps == []
    assert made.condition("Stalled")[0] == "True"
    assert "premake" in made.condition()[2]
    assert made.results == [Result.USER_ERROR]


def test_a_missing_secret_is_stalled_until_it_is_there(made: Fixture) -> None:
    secret = made.api.secrets.pop(("one", "db"))
    made.reconcile()
    assert made.engine.steps == []
    assert made.condition()[1] == "SecretNotFound"
    assert made.results == [Result.USER_ERROR]
    made.api.secrets["one", "db"] = secret
    made.reconcile()
    assert made.condition()[1] == "Converged"


def test_a_database_that_does_not_answer_is_tried_again_with_growing_pauses(made: Fixture) -> None:
    made.engine.unreachable = DatabaseUnreachable("no answer from db")
    pauses = [made.reconcile() or 0 for _ in range(3)]
    assert [round(pause) for pause in pauses] == [1, 2, 4]
    assert made.results == [Result.TRANSIENT] * 3
    assert (made.condition("Reconciling")[0], made.condition("DatabaseReachable")[0]) == ("True", "False")
    assert made.api.writes == 1
    made.apply(premake=2)
    assert round(made.reconcile() or 0) == 1


@pytest.mark.parametrize("error", [DatabaseUnreachable("no answer"), AuthenticationFailed("refused")])
def test_a_table_that_is_covered_outlasts_an_outage_and_is_reconciled_when_that_time_is_over(
    made: Fixture, error: PartwardenError
) -> None:
    made.reconcile()
    made.engine.unreachable = error
    pauses = [made.reconcile() or 0 for _ in range(9)]
    assert made.condition()[:2] == ("True", "ConvergedWithWarnings")
    assert made.api.writes == 2
    assert max(pauses) <= 660
    made.now += timedelta(hours=24, seconds=-3)
    assert made.reconcile() == 3
    assert made.condition()[0] == "True"
    made.now += timedelta(seconds=3)
    made.reconcile()
    assert made.condition()[:2] == ("False", error.reason)
    assert made.well == [True] + [False] * 11
    assert Result.CONVERGED not in made.results[1:]


def test_what_is_stuck_is_retried_and_a_success_all_the_same(made: Fixture) -> None:
    old = values.years(2024)[0]
    found = values.inventory(*values.years(2026, 2027), old, references={old.oid: (Reference("public.step", 7),)})
    made.engine.inventory = found
    made.apply(retention=RETENTION)
    assert [round((made.reconcile() or 0) / 15) for _ in range(3)] == [1, 2, 4]
    assert made.condition()[:2] == ("True", "ConvergedWithWarnings")
    assert (made.results, made.well) == ([Result.USER_ERROR] * 3, [True] * 3)
    assert made.api.writes == 1


def test_a_table_of_an_older_policy_is_read_and_left_alone(made: Fixture) -> None:
    made.ownership.claim(OLDER, TABLE, ("2025-01-01T00:00:00Z", OLDER))
    made.reconcile()
    assert made.engine.steps == ["connect", "observe and plan"]
    assert made.condition()[1] == "PolicyConflict"
    assert "belongs to the older policy one/older: delete one of the two" in made.condition()[2]
    assert made.requests.asked == 0
    made.ownership.release(OLDER)
    assert made.enqueued == [KEY]
    made.reconcile()
    assert made.condition()[1] == "Converged"


@pytest.fixture
def rival(made: Fixture) -> ObjectKey:
    """An older policy of another namespace, for a table of that identity."""
    rival = ("two", "older")
    made.api.secrets["two", "db"] = made.api.secrets["one", "db"]
    made.handler.seen(made.api.apply(rival, SPEC, creationTimestamp="2025-01-01T00:00:00Z"))
    made.reconciler.reconcile(rival)
    return rival


def test_a_table_of_an_older_policy_of_another_namespace_is_left_alone_where_both_see_one_lock(
    made: Fixture, rival: ObjectKey
) -> None:
    made.engine.steps.clear()
    made.reconcile()
    assert made.engine.steps == ["connect", "observe and plan"]
    assert made.condition()[1] == "PolicyConflict"
    # The user may not see that namespace.
    assert "belongs to an older policy of another namespace: delete one of the two" in made.condition()[2]
    assert made.requests.asked == 1
    made.reconcile()
    assert len(made.locks.looks) == 1
    made.ownership.release(rival)
    assert KEY in made.enqueued
    made.reconcile()
    assert made.condition()[1] == "Converged"


@pytest.mark.parametrize("how", ["a physical copy", "a Secret that was deleted", "a server that does not answer"])
def test_what_is_not_proven_keeps_no_policy_from_its_table(
    made: Fixture, rival: ObjectKey, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "FRESH", 0)
    if how == "a physical copy":
        made.locks.copies.add("db")
    elif how == "a Secret that was deleted":
        del made.api.secrets["two", "db"]
    else:
        made.locks.error = DatabaseUnreachable("no answer from db")
    made.apply(premake=2)
    made.reconcile()
    assert made.condition()[:2] == ("True", "Converged")
    assert "create run_2028" in made.engine.steps


def test_an_older_policy_of_another_namespace_that_comes_later_is_compared_before_a_drop(dropping: Fixture) -> None:
    rival = ("two", "older")
    dropping.api.secrets["two", "db"] = dropping.api.secrets["one", "db"]
    info = ConnectionInfo({"host": "db", "dbname": "orchestrator", "user": "owner"})

    def claim() -> None:
        dropping.handler.seen(dropping.api.apply(rival, SPEC, creationTimestamp="2025-01-01T00:00:00Z"))
        dropping.ownership.claim(rival, TABLE, ("2025", rival), digest(info))
        dropping.ownership.note(rival)

    dropping.engine.meanwhile = claim
    dropping.reconcile()
    assert len(dropping.locks.looks) == 1
    assert not [step for step in dropping.engine.steps if step.startswith("drop")]


def test_a_new_policy_lets_an_older_one_of_such_a_table_claim_it_first(
    made: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.handler.seen(made.api.apply(OLDER, SPEC, creationTimestamp="2025-01-01T00:00:00Z"))
    assert made.reconcile() == WAIT_FOR_OLDER
    assert made.engine.steps == []
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3.1)
    # The older one does not come: what is needed is created, and a drop would go on waiting.
    assert (made.reconcile() or 0) > 500
    assert "create run_2027" in made.engine.steps


@pytest.mark.parametrize("mode", ["Apply", "Plan"])
def test_a_policy_whose_login_does_not_own_the_table_takes_it_from_no_other(made: Fixture, mode: str) -> None:
    inventory = made.engine.inventory
    younger = ("one", "younger")
    made.apply(mode=mode)
    made.reconcile()
    assert made.ownership.claim(younger, TABLE, ("2027", younger)) == KEY
    made.engine.inventory = replace(inventory, parent=replace(values.PARENT, may_own=False))
    made.reconcile()
    assert made.enqueued[-1] == younger
    assert made.ownership.older(younger) is None
    made.engine.inventory = inventory
    made.reconcile()
    assert made.ownership.older(younger) == KEY


def test_a_policy_in_conflict_stays_so_after_a_restart_until_the_older_one_was_reconciled(made: Fixture) -> None:
    made.handler.seen(made.api.apply(OLDER, SPEC, creationTimestamp="2025-01-01T00:00:00Z"))
    for key in (OLDER, KEY):
        made.reconciler.reconcile(key)
    status, writes, events = made.api.policies[KEY]["status"], made.api.writes, list(made.reasons)
    assert made.condition()[1] == "PolicyConflict"
    made.start()
    assert [made.reconciler.reconcile(key) == WAIT_FOR_OLDER for key in (KEY, OLDER, KEY)] == [True, False, False]
    assert (made.api.policies[KEY]["status"], made.api.writes, made.reasons) == (status, writes, events)
    del made.api.policies[OLDER]
    made.start()
    made.reconcile()
    assert made.condition()[1] == "Converged"


def test_an_older_policy_that_claims_the_table_stops_it_before_the_next_action(made: Fixture) -> None:
    made.apply(premake=3)
    applied = made.engine.maintain

    def late(*arguments: Any, **options: Any) -> Any:
        made.ownership.claim(OLDER, TABLE, ("2025-01-01T00:00:00Z", OLDER))
        return applied(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database_work, "maintain", late)
        made.reconcile()
    assert not [step for step in made.engine.steps if step.startswith("create")]
    assert made.requests.asked == 0
    assert made.enqueued == [KEY]


@pytest.mark.parametrize("how", ["edited", "deleted", "stopped", "the Lease is lost"])
def test_it_stops_before_the_next_action(made: Fixture, how: str) -> None:
    def happen() -> None:
        if how == "edited":
            made.apply(premake=2)
        elif how == "deleted":
            made.handler.deleted(made.api.policies.pop(KEY))
        elif how == "stopped":
            made.reconciler.stop()
        else:
            made.lost = True

    made.engine.between = happen
    made.reconcile()
    assert not [step for step in made.engine.steps if step.startswith("create")]
    assert made.requests.asked == 0


def test_one_failed_action_is_a_condition_and_the_others_are_events(made: Fixture) -> None:
    made.apply(premake=2)
    made.engine.fails["run_2027"] = TableBusy("cannot lock public.run")
    made.reconcile()
    assert made.engine.steps[2:4] == ["create run_2027", "create run_2028"]
    assert made.condition()[1:] == ("TableBusy", "cannot lock public.run")
    assert made.reasons == ["PartitionCreated", "TableBusy"]
    assert made.results == [Result.TRANSIENT]


def test_what_was_done_before_an_error_is_recorded(made: Fixture) -> None:
    made.engine.breaks = DatabaseUnreachable("the connection was lost")
    made.reconcile()
    assert made.reasons == ["PartitionCreated", "DatabaseUnreachable"]
    assert made.condition()[1] == "DatabaseUnreachable"


def test_a_bug_is_an_internal_error_with_a_traceback_in_the_log(
    made: Fixture, caplog: pytest.LogCaptureFixture
) -> None:
    made.engine.breaks = KeyError("unforeseen")
    made.reconcile()
    assert made.condition()[1] == "InternalError"
    assert made.results == [Result.IN_PROGRESS]
    assert "unforeseen" in caplog.text


def test_a_third_reconcile_of_one_database_waits_for_a_connection(made: Fixture) -> None:
    database = "postgresql://owner@db/orchestrator"
    made.api.secrets["one", "db"] = {"uri": database}
    waiting: list[float | None] = []

    def meanwhile() -> None:
        made.engine.between = deeper
        made.handler.seen(made.api.apply(("one", "second"), SPEC, creationTimestamp="2025-01-01T00:00:00Z"))
        made.reconciler.reconcile(("one", "second"))

    def deeper() -> None:
        made.engine.between = lambda: None
        made.handler.seen(made.api.apply(("one", "third"), SPEC, creationTimestamp="2024-01-01T00:00:00Z"))
        while made.queue.backlog().due:
            key = made.queue.take()
            assert key is not None
            made.queue.done(key, None)
        waiting.append(made.reconciler.reconcile(("one", "third")))

    made.engine.between = meanwhile
    made.reconcile()
    assert waiting == [WAIT_FOR_SLOT]
    assert "status" not in made.api.policies["one", "third"]
    assert made.queue.take() == ("one", "third")


def test_a_status_that_cannot_be_written_is_tried_again(made: Fixture, caplog: pytest.LogCaptureFixture) -> None:
    made.api.down.add("write_status")
    assert round(made.reconcile() or 0) == 1
    assert made.results == [Result.TRANSIENT]
    # What was done is not done again, so it has its Event now or never.
    assert made.reasons == ["PartitionCreated"]
    assert "did not answer" in caplog.text
    made.api.down.clear()
    made.reconcile()
    assert made.condition()[1] == "Converged"


def test_an_event_that_cannot_be_recorded_is_only_logged(made: Fixture, caplog: pytest.LogCaptureFixture) -> None:
    made.api.down.add("record")
    assert (made.reconcile() or 0) > 500
    assert made.results == [Result.CONVERGED]
    assert "did not answer" in caplog.text


@pytest.mark.parametrize("how", ["deleted", "made anew"])
def test_a_write_that_finds_no_policy_forgets_it(made: Fixture, how: str) -> None:
    def happen() -> None:
        del made.api.policies[KEY]
        if how == "made anew":
            made.api.apply(KEY, SPEC, uid="another")

    made.api.before_write = happen
    assert made.reconcile() is None
    assert made.store.all() == []
    assert made.results == []
    assert made.reasons == ["PartitionCreated"]
    # The next reconcile finds that it is deleted, and gives its table free.
    assert made.reconcile() is None
    assert made.ownership.older(KEY) is None


def test_an_edit_right_before_the_write_is_seen_by_it(made: Fixture) -> None:
    made.api.before_write = lambda: made.api.apply(KEY, SPEC | {"premake": 2})
    made.reconcile()
    assert made.queue.take() == KEY
    made.api.before_write = lambda: None
    made.reconcile()
    assert made.engine.steps[-2] == "create run_2028"


@pytest.mark.parametrize(("label", "stays"), [("a", True), ("b", False)])
def test_after_a_change_of_labels_at_a_write_the_api_server_says_whether_it_is_selected(
    monkeypatch: pytest.MonkeyPatch, label: str, stays: bool
) -> None:
    made = Fixture(monkeypatch, "shard=a")
    made.api.selects = lambda labels: labels.get("shard") == "a"
    made.apply({"labels": {"shard": "a"}})
    labels = {"shard": label, "other": "x"}
    made.api.before_write = lambda: made.api.apply(KEY, SPEC, labels=labels, generation=2)
    after = made.reconcile()
    assert (after is not None, bool(made.store.all())) == (stays, stays)
    if not stays:
        # Neither an earlier list nor the watch, which shows the change as older than the write, brings it back.
        made.handler.listed([], [])
        assert made.store.all() == []


def test_a_suspended_policy_gives_its_table_free_and_observes_it_only(made: Fixture) -> None:
    made.reconcile()
    made.ownership.claim(("one", "younger"), TABLE, ("2027", ("one", "younger")))
    made.apply(suspend=True, premake=3)
    made.engine.steps.clear()
    made.enqueued.clear()
    made.requests.asked = 0
    assert 540 <= (made.reconcile() or 0) <= 660
    assert made.engine.steps == ["connect", "observe and plan", "disconnect"]
    assert made.condition()[:2] == ("Unknown", "Suspended")
    assert (made.condition("Reconciling")[0], made.condition("Stalled")[0]) == ("False", "False")
    assert made.condition("PartitionsAhead")[:2] == ("False", "PartitionsMissing")
    assert made.api.policies[KEY]["status"]["summary"]["ahead"] == 1
    assert [each["partition"] for each in made.api.policies[KEY]["status"]["plan"]] == ["run_2028", "run_2029"]
    assert made.enqueued == [("one", "younger")]
    assert made.requests.asked == 0
    assert made.results[-1] is Result.CONVERGED


def test_a_suspended_policy_sees_the_end_of_the_interval(made: Fixture) -> None:
    made.apply(suspend=True, premake=0)
    made.engine.inventory = replace(made.engine.inventory, now=datetime(2026, 12, 31, 23, 58, tzinfo=UTC))
    assert made.reconcile() == 120
    assert made.condition("PartitionsAhead")[0] == "True"
    made.engine.inventory = replace(made.engine.inventory, now=datetime(2027, 1, 1, tzinfo=UTC))
    made.reconcile()
    assert made.condition("PartitionsAhead")[0] == "False"
    assert made.engine.inventory.partitions == values.years(2026)


def test_a_suspended_policy_of_a_database_that_does_not_answer_stays_suspended_and_asks_ever_more_rarely(
    made: Fixture,
) -> None:
    made.reconcile()
    before = made.api.policies[KEY]["status"]["partitions"]
    made.apply(suspend=True)
    made.engine.unreachable = DatabaseUnreachable("no answer from db")
    assert [round(made.reconcile() or 0) for _ in range(3)] == [1, 2, 4]
    assert made.condition()[:2] == ("Unknown", "Suspended")
    assert made.condition("DatabaseReachable")[:2] == ("False", "DatabaseUnreachable")
    assert made.condition("PartitionsAhead")[:2] == ("Unknown", "DatabaseUnreachable")
    assert (made.condition("Reconciling")[0], made.condition("Stalled")[0]) == ("False", "False")
    assert made.api.policies[KEY]["status"]["partitions"] == before
    assert made.api.writes == 2


def test_an_internal_error_of_a_suspended_policy_is_shown_and_tried_again_soon(
    made: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.apply(suspend=True)
    monkeypatch.setattr(made.engine, "between", lambda: 1 // 0)
    assert (made.reconcile() or 0) < 2
    assert made.condition()[:2] == ("False", "InternalError")


@pytest.mark.parametrize("wrong", ["a spec that is not valid", "a Secret that was deleted"])
def test_a_suspended_policy_stays_suspended_whatever_keeps_it_from_being_observed(made: Fixture, wrong: str) -> None:
    made.apply(suspend=True, premake=-1 if wrong.startswith("a spec") else 1)
    if wrong.startswith("a Secret"):
        del made.api.secrets["one", "db"]
    assert (made.reconcile() or 0) > 13
    assert made.condition()[:2] == ("Unknown", "Suspended")
    assert (made.condition("Reconciling")[0], made.condition("Stalled")[0]) == ("False", "False")


def test_a_suspended_policy_waits_for_no_older_one(made: Fixture) -> None:
    made.handler.seen(made.api.apply(OLDER, SPEC, creationTimestamp="2025-01-01T00:00:00Z"))
    made.apply(suspend=True)
    made.reconcile()
    assert made.condition()[1] == "Suspended"


def test_a_failure_while_it_stops_is_not_written(made: Fixture) -> None:
    made.engine.unreachable = DatabaseUnreachable("cancelled")
    made.reconciler.stop()
    made.reconcile()
    assert made.api.writes == 0
    assert made.results == [Result.TRANSIENT]


@pytest.fixture
def dropping(made: Fixture) -> Fixture:
    """Two tables were detached long ago, and are to be dropped."""
    tables = [
        values.detached(f"run_{year}", datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC), LONG_AGO)
        for year in (2019, 2020)
    ]
    made.engine.inventory = replace(values.inventory(*values.years(2026, 2027)), detached=tuple(tables))
    made.apply(retention=RETENTION)
    return made


def test_while_tables_are_left_to_drop_it_comes_again_at_once(dropping: Fixture) -> None:
    dropping.engine.fails["run_2020"] = TableBusy("cannot lock public.run_2020")
    assert dropping.reconcile() == 0
    assert "drop run_2019" in dropping.engine.steps
    del dropping.engine.fails["run_2020"]
    assert (dropping.reconcile() or 0) > 500
    assert dropping.reasons.count("PartitionDropped") == 2


def test_while_one_policy_drops_another_of_the_database_creates_and_its_own_drop_waits(dropping: Fixture) -> None:
    dropping.engine.inventory = replace(dropping.engine.inventory, partitions=values.years(2026))
    second, wanted = ("one", "second"), SPEC | {"premake": 2, "retention": RETENTION}

    def meanwhile() -> None:
        dropping.engine.meanwhile = lambda: None
        steps, dropping.engine.steps = dropping.engine.steps, []
        dropping.handler.seen(dropping.api.apply(second, wanted, creationTimestamp="2025-01-01T00:00:00Z"))
        dropping.ownership.release(KEY)
        dropping.reconciler.reconcile(second)
        taken.extend(dropping.engine.steps)
        dropping.engine.steps = steps
        while dropping.queue.backlog().due:
            dropping.queue.done(dropping.queue.take() or KEY, None)

    taken: list[str] = []
    dropping.engine.meanwhile = meanwhile
    dropping.reconcile()
    assert [step for step in taken if step.startswith(("create", "drop"))] == ["create run_2028"]
    assert dropping.queue.take() == second


def test_a_table_that_changed_puts_its_archive_in_doubt(dropping: Fixture) -> None:
    dropping.engine.fails["run_2019"] = ContentsChanged("public.run_2019 is not as it was archived")
    dropping.reconcile()
    assert dropping.requests.doubts == [""]
    assert dropping.requests.asked == 1


# A plan that waits for the user.

FEW = {**RETENTION, "maxRetirements": 2}


def approve(made: Fixture, digest: str | None = None, **fields: Any) -> str:
    """The annotation names that plan, or the one that waits."""
    digest = digest or made.api.policies[KEY]["status"]["planDigest"]
    made.apply({"annotations": {approval.APPROVE_PLAN: digest}}, **{"retention": FEW, **fields})
    return digest


def test_what_a_slip_of_the_pen_would_retire_waits_and_partitions_are_created(made: Fixture) -> None:
    made.engine.inventory = values.inventory(*values.years(2020, 2021, 2022, 2025, 2026))
    made.apply(retention=FEW)
    made.reconcile()
    assert [each for each in made.engine.steps if "run_" in each] == ["create run_2027"]
    status, reason, message = made.condition()
    assert (status, reason, made.condition("Stalled")[0]) == ("False", "PlanPending", "False")
    digest = made.api.policies[KEY]["status"]["planDigest"]
    assert message == (
        "3 partitions (0) are to be retired at once, more than spec.retention.maxRetirements (2): 3 partitions "
        "to detach, 3 tables to drop; no more archives are asked for, and nothing is detached or dropped before plan "
        f"{digest} is approved; read status.plan, then kubectl annotate ppol run -n one"
        f" --overwrite partwarden.dev/approve-plan={digest}"
    )
    writes = made.api.writes
    made.reconcile()
    assert made.api.writes == writes


def test_an_approved_plan_is_recorded_before_any_of_it_is_done_and_survives_every_interruption(made: Fixture) -> None:
    made.engine.inventory = values.inventory(*values.years(2020, 2021, 2022, 2025, 2026, 2027))
    made.apply(retention=FEW)
    made.reconcile()
    digest = approve(made)
    made.engine.steps.clear()
    assert (made.reconcile() or 0) <= 1.1
    assert made.engine.steps == ["connect", "observe and plan", "disconnect"]
    assert made.condition()[1] == "InProgress"
    assert made.condition()[2].startswith(f"plan {digest} is approved, and begins; ")
    recorded = made.api.policies[KEY]["status"]["approvedPlan"]
    assert (recorded["digest"], len(recorded["steps"])) == (digest, 6)
    # Killed after each action: what is left is another plan, which no annotation names.
    made.engine.breaks = MemoryError()
    for _ in range(3):
        made.start()
        made.reconcile()
    assert {each.name for each in made.engine.inventory.detached} == {"run_2020", "run_2021", "run_2022"}
    made.engine.breaks = None
    made.start()
    made.reconcile()
    assert made.condition()[:2] == ("True", "Converged")
    made.engine.inventory = replace(made.engine.inventory, now=values.NOW + timedelta(hours=2))
    for _ in range(4):
        made.reconcile()
    assert made.engine.inventory.detached == ()
    # So that the same plan, as after a restore, needs another approval.
    assert made.api.policies[KEY]["status"]["approvedPlan"] == {**recorded, "steps": []}


def test_an_approval_that_is_taken_back_stops_what_has_not_begun(made: Fixture) -> None:
    made.engine.inventory = values.inventory(*values.years(2020, 2021, 2022, 2025, 2026, 2027))
    made.apply(retention=FEW)
    made.reconcile()
    approve(made)
    made.reconcile()
    made.engine.between = lambda: made.apply(retention=FEW)
    made.reconcile()
    assert made.engine.inventory.detached == ()
    made.reconcile()
    assert made.condition()[1] == "PlanPending"
    assert "approvedPlan" not in made.api.policies[KEY]["status"]


def test_the_drop_asks_the_api_server_for_the_approval_once_more(made: Fixture) -> None:
    cells = [values.bounds(each) for each in values.years(2020, 2021, 2022)]
    old = [values.detached(f"run_{each.lower.year}", each.lower, each.upper, LONG_AGO) for each in cells]
    made.engine.inventory = values.inventory(*values.years(2025, 2026, 2027), detached=tuple(old))
    made.apply(retention=FEW)
    made.reconcile()
    approve(made)
    made.reconcile()
    # No watch has shown it.
    made.engine.meanwhile = lambda: made.api.policies[KEY]["metadata"].pop("annotations", None)
    made.reconcile()
    assert len(made.engine.inventory.detached) == 3


def test_an_edit_makes_another_plan_which_the_approval_does_not_name(made: Fixture) -> None:
    made.engine.inventory = values.inventory(*values.years(2020, 2021, 2022, 2025, 2026, 2027))
    made.apply(retention=FEW)
    made.reconcile()
    digest = approve(made)
    made.reconcile()
    approve(made, digest, retention={**FEW, "grace": "0s"})
    made.reconcile()
    assert made.engine.inventory.detached == ()
    assert made.condition()[1] == "PlanPending"
    assert f", and not {digest}, which names another plan;" in made.condition()[2]


def test_in_mode_approve_not_even_a_partition_is_created(made: Fixture) -> None:
    made.apply(mode="Approve")
    made.reconcile()
    assert made.engine.steps == ["connect", "observe and plan", "disconnect"]
    assert made.condition()[2].startswith("1 partition to create; spec.mode is Approve: nothing is done before plan ")
    approve(made, mode="Approve", retention=None)
    for _ in range(2):
        made.reconcile()
    assert "create run_2027" in made.engine.steps
    assert made.condition()[:2] == ("True", "Converged")
