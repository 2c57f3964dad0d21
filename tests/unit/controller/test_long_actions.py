"""What may take hours: how many of it there are at once, and that its policy is reconciled beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from partwarden.api.types import ObjectKey
from partwarden.controller import database_work
from partwarden.controller.archive_requests import ArchiveRequests
from partwarden.controller.event_handlers import PolicyEventHandler
from partwarden.controller.long_actions import LongActions, LongRun
from partwarden.controller.ownership import TableOwnership
from partwarden.controller.policy_reconciler import PolicyReconciler
from partwarden.controller.runtime import Runtime, Workers
from partwarden.controller.settings import Settings
from partwarden.controller.workqueue import WorkQueue
from partwarden.errors import WorkerFailed
from partwarden.kube.cache import StoredPolicy
from partwarden.kube.client import Cluster
from partwarden.planner.drop_preconditions import Archives
from partwarden.planner.recheck import Step
from support import in_process, values
from support.policies_api import SIZE, FakeCluster, FakeExecutor

A, B, C, D = ("one", "a"), ("one", "b"), ("one", "c"), ("two", "a")
STEP = Step("DropDetached", "public.run_2019", 10)
LIMIT = 30.0
"""Seconds that a test waits at most."""


def actions(queue: WorkQueue, limit: int = 3, share: int = 2, seconds: float = 0.0) -> LongActions:
    return LongActions(queue, lambda thread: None, lambda: values.NOW, limit, share, seconds)


def due(queue: WorkQueue) -> list[ObjectKey]:
    found = []
    while queue.backlog().due and (key := queue.take()):
        found.append(key)
        queue.done(key, None)
    return found


def test_a_database_has_one_at_a_time_and_the_next_is_enqueued_at_its_end() -> None:
    queue = WorkQueue()
    long = actions(queue)
    assert long.acquire("x", A)
    assert not long.acquire("x", D)
    assert not long.acquire("x", B)
    assert not long.acquire("x", D)
    long.release("x")
    assert set(due(queue)) == {B, D}
    assert long.acquire("x", B)
    assert not long.acquire("x", D)
    long.forget(D)
    long.release("x")
    assert due(queue) == []


def test_a_namespace_has_its_share_and_all_together_have_a_limit() -> None:
    queue = WorkQueue()
    long = actions(queue)
    assert long.acquire("x", A)
    assert long.acquire("y", B)
    assert not long.acquire("z", C)
    assert long.acquire("z", D)
    assert not long.acquire("w", ("three", "a"))
    long.release("z")
    # The first that waits is beyond its share still.
    assert due(queue) == [("three", "a")]
    assert long.acquire("w", ("three", "a"))
    long.release("x")
    assert due(queue) == [C]


def test_what_ends_soon_is_never_set_aside() -> None:
    queue = WorkQueue()
    queue.enqueue(A)
    assert queue.take() == A
    long = actions(queue, seconds=3600.0)
    run = LongRun(long, "x", A)
    assert run.may_begin()
    assert run.may_begin()
    run.begins(STEP)
    run.begins(None)
    run.close()
    assert long.running(A) is None
    assert long.acquire("x", B)
    assert threading.active_count() == len([each for each in threading.enumerate() if "Timer" not in each.name])


def test_where_no_thread_can_take_its_place_it_keeps_its_worker() -> None:
    def refuse(thread: threading.Thread) -> None:
        refused.set()
        raise RuntimeError("can't start new thread")

    queue, refused = WorkQueue(), threading.Event()
    queue.enqueue(A)
    assert queue.take() == A
    long = LongActions(queue, refuse, lambda: values.NOW, 3, 2, 0.0)
    run = LongRun(long, "x", A)
    assert run.may_begin()
    run.begins(STEP)
    assert refused.wait(LIMIT)
    run.close()
    assert not run.was_aside
    assert long.running(A) is None
    assert queue.backlog().due == 0


def test_a_key_that_was_set_aside_is_with_another_worker_until_it_is_taken_back() -> None:
    queue = WorkQueue()
    queue.enqueue(A)
    assert queue.take() == A
    long = actions(queue)
    run = LongRun(long, "x", A)
    assert run.may_begin()
    run.begins(STEP)
    assert queue.take() == A  # waits for the timer
    timer = next((each for each in threading.enumerate() if isinstance(each, threading.Timer)), None)
    if timer:
        timer.join(LIMIT)
    assert run.aside
    assert long.running(A) == (STEP, values.NOW)
    # The first has failed: the next is tried, and is what is said.
    assert run.may_begin()
    another = Step("VacuumPartition", "public.run_2025", 20)
    run.begins(another)
    assert long.running(A) == (another, values.NOW)
    back = threading.Thread(target=run.close)
    back.start()
    assert back.is_alive()
    queue.enqueue(A)
    queue.done(A, None)
    back.join(LIMIT)
    assert long.running(A) is None
    assert queue.backlog().due == 0
    # What was enqueued meanwhile is due when that run is done.
    queue.done(A, None)
    assert queue.take() == A


@pytest.mark.parametrize("ready", [False, True])
def test_a_key_that_is_taken_back_is_with_no_worker_whether_it_was_due_or_not(ready: bool) -> None:
    queue = WorkQueue()
    queue.enqueue(A)
    assert queue.take() == A
    queue.set_aside(A)
    if not ready:
        assert queue.take() == A
        queue.done(A, 3600.0)
    queue.enqueue(B)
    queue.take_back(A)
    assert queue.take() == B
    assert queue.backlog().due == 0
    queue.done(A, None)
    assert queue.backlog().due == int(ready)


def test_a_run_that_was_set_aside_is_late_beyond_its_own_deadline() -> None:
    now = 0.0
    queue = WorkQueue(lambda: now)
    queue.enqueue(A)
    assert queue.take() == A
    queue.deadline(A, 100.0)
    queue.set_aside(A)
    assert queue.take() == A
    queue.deadline(A, 10.0)
    assert queue.backlog().late == ()
    now = 50.0
    assert queue.backlog().late == ((A, 40.0),)
    queue.done(A, None)
    now = 150.0
    assert queue.backlog().late == ((A, 50.0),)
    queue.deadline(A, 100.0, aside=True)
    assert queue.backlog().late == ()
    assert queue.backlog().busy == ()


def test_another_thread_takes_the_place_of_one_that_was_set_aside() -> None:
    queue, began, may_end = WorkQueue(), threading.Semaphore(0), threading.Event()
    threads: list[threading.Thread] = []

    def work(key: ObjectKey) -> None:
        threads.append(threading.current_thread())
        if key == A:
            workers.set_aside(threading.current_thread())
            began.release()
            may_end.wait(LIMIT)
        else:
            began.release()

    workers = Workers(queue, work, 1)
    workers.start()
    queue.enqueue(A)
    assert began.acquire(timeout=LIMIT)
    queue.enqueue(B)
    assert began.acquire(timeout=LIMIT)
    assert (workers.count, workers.ended) == (1, 0)
    assert threads[0] is not threads[1]
    queue.close()
    assert not workers.wait(0.01)
    may_end.set()
    assert workers.wait(LIMIT)
    threads[0].join(LIMIT)
    assert not threads[0].is_alive()


KEY = ("one", "run")
RETENTION = {"keepFor": "1y", "onExpire": "Drop", "dropWithoutArchive": True, "grace": "1h"}
SPEC = {"database": {"secretRef": {"name": "db"}}, "table": {"name": "run"}, "interval": "Year", "retention": RETENTION}


class Requests:
    """Instead of PartitionArchives: there are none."""

    def known(self, policy: StoredPolicy, spec: object) -> Archives:
        return Archives(approved=policy.approved)

    def ask(self, *_: object) -> None:
        return


class Stage:
    """An operator with two workers; its policy has two tables to drop, which wait at a gate."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        since = datetime(2026, 1, 1, tzinfo=UTC)
        tables = [
            values.detached(
                f"run_{year}", datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC), since
            )
            for year in (2019, 2020)
        ]
        self.engine = FakeExecutor(replace(values.inventory(*values.years(2026)), detached=tuple(tables)))
        for name in ("observe_and_plan", "maintain", "session"):
            monkeypatch.setattr(database_work, name, getattr(self.engine, name))
        self.api, self.gate, self.at_gate = FakeCluster(), threading.Event(), threading.Event()
        self.api.secrets["one", "db"] = {"uri": "postgresql://owner@db/orchestrator"}
        self.engine.meanwhile = self.wait_at_gate
        self.runtime = Runtime(cast(Cluster, self.api), Settings(), lambda: values.NOW)
        self.queue = self.runtime.policy_queue
        ownership = TableOwnership(self.queue.enqueue)
        self.handler = PolicyEventHandler(self.runtime.policies, ownership, self.queue)
        self.long = in_process.long_actions(self.runtime, lambda thread: self.workers.set_aside(thread), 0.02)
        self.ended = threading.Semaphore(0)
        self.reconciler = PolicyReconciler(
            *(self.runtime, self.handler, ownership, cast(ArchiveRequests, Requests()), database_work.work),
            *(in_process.look, self.long, lambda *_: None),
        )
        self.workers = Workers(self.queue, self.work, 2)

    def wait_at_gate(self) -> None:
        self.at_gate.set()
        self.gate.wait(LIMIT)

    def work(self, key: ObjectKey) -> float | None:
        try:
            return self.reconciler.reconcile(key)
        finally:
            self.ended.release()

    def apply(self, **fields: Any) -> None:
        self.handler.seen(self.api.apply(KEY, SPEC | fields))

    @property
    def status(self) -> dict[str, Any]:
        return cast(dict[str, Any], self.api.policies[KEY].get("status") or {})

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait, one reconcile after the other, until it holds."""
        while not holds():
            assert self.ended.acquire(timeout=LIMIT)

    def close(self) -> None:
        self.gate.set()
        self.queue.close()
        assert self.workers.wait(LIMIT)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Stage(monkeypatch)
    made.apply(premake=0)
    made.workers.start()
    yield made
    made.close()


def test_a_policy_creates_partitions_while_its_own_drop_goes_on(stage: Stage) -> None:
    stage.until(lambda: "longAction" in stage.status)
    assert stage.status["longAction"] == {
        "action": "DropDetached",
        "object": "public.run_2019",
        "since": values.NOW.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "bytes": 1_200_000,
        "size": "1.1Mi",
    }
    assert [each.message for each in stage.api.events if each.reason == "LongAction"] == [
        "DropDetached of public.run_2019 (1.1Mi) takes long: it began at "
        f"{stage.status['longAction']['since']}; the policy is reconciled beside it"
    ]
    stage.apply(premake=1)
    stage.until(lambda: "create run_2027" in stage.engine.steps)
    assert "drop run_2019" not in stage.engine.steps
    stage.gate.set()
    stage.until(lambda: "longAction" not in stage.status and stage.status["summary"]["detached"] == 0)
    assert stage.engine.steps.count("drop run_2019") == 1
    assert stage.engine.steps.count("drop run_2020") == 1
    assert [each["reason"] for each in stage.status["conditions"] if each["type"] == "Ready"] == ["Converged"]
    assert SIZE == 1_234_567


def test_the_edit_that_is_seen_while_a_drop_goes_on_is_asked_about_before_its_end(stage: Stage) -> None:
    stage.until(lambda: "longAction" in stage.status)
    stage.apply(suspend=True)
    stage.until(lambda: stage.status["conditions"][0]["reason"] == "Suspended")
    assert stage.status["longAction"]["object"] == "public.run_2019"
    stage.gate.set()
    stage.until(lambda: "longAction" not in stage.status)
    assert stage.status["conditions"][0]["reason"] == "Suspended"


def test_a_failure_of_what_was_set_aside_is_said_and_leaves_nothing_taken(stage: Stage) -> None:
    stage.engine.breaks = WorkerFailed("the worker process ended while drop public.run_2019")
    stage.until(lambda: "longAction" in stage.status)
    stage.gate.set()
    stage.until(lambda: "longAction" not in stage.status)
    assert stage.long.running(KEY) is None
    assert "WorkerFailed" in [each.reason for each in stage.api.events]
    stage.engine.breaks = None
    stage.queue.enqueue(KEY)
    stage.until(lambda: stage.status["summary"]["detached"] == 0)


def test_a_policy_that_is_deleted_while_its_drop_goes_on_leaves_nothing_behind(stage: Stage) -> None:
    stage.until(lambda: "longAction" in stage.status)
    stage.handler.deleted(stage.api.policies.pop(KEY))
    stage.gate.set()
    stage.until(lambda: stage.long.running(KEY) is None)
    stage.api.apply(KEY, SPEC, uid="another")
    stage.handler.seen(stage.api.policies[KEY])
    stage.until(lambda: stage.status.get("summary", {}).get("detached") == 0)
    assert "longAction" not in stage.status
