"""When the operator calls itself unhealthy, and when it does not: only for what a restart heals."""

from __future__ import annotations

import pytest

from partwarden.controller.health import Health, WorkerPoolStats, stuck
from partwarden.controller.workqueue import DEADLINE, Backlog, WorkQueue

CALM = WorkerPoolStats(Backlog(0, 0.0, ()), count=2, ended=0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def health(clock: Clock, crew: WorkerPoolStats = CALM) -> Health:
    made = Health({"policies": lambda: crew}, relist=300, clock=clock)
    made.beat()
    made.listed()
    return made


@pytest.mark.parametrize(
    "crew",
    [
        CALM,
        # All are busy: a large fleet, or slow databases.
        WorkerPoolStats(Backlog(900, 3600.0, (100.0, 4000.0), unserved=3600.0), 2, 0),
        WorkerPoolStats(Backlog(1, 59.0, (1.0,), unserved=59.0), 2, 0),
        # Its namespace has its share of the workers, and the other is free for others.
        WorkerPoolStats(Backlog(1, 9000.0, (9000.0,)), 2, 0),
        # Both read very large tables, and had said for how long at most.
        WorkerPoolStats(Backlog(1, 90000.0, (90000.0, 80000.0), unserved=90000.0), 2, 0),
    ],
)
def test_a_queue_that_is_served_is_healthy(clock: Clock, crew: WorkerPoolStats) -> None:
    assert health(clock, crew).unhealthy() == []


@pytest.mark.parametrize(
    ("crew", "words"),
    [
        (WorkerPoolStats(Backlog(1, 61.0, (1.0,), unserved=61.0), 2, 0), "has been due for 61 s, and a worker is free"),
        (
            WorkerPoolStats(Backlog(0, 0.0, (70.0, 80.0), late=((("a", "b"), 1.0), (("a", "c"), 20.0))), 2, 0),
            "a worker of the queue of policies has a/c for 20 s longer than it stated",
        ),
        (WorkerPoolStats(Backlog(0, 0.0, (901.0,), late=((("a", "b"), 1.0),)), 8, 0), "has a/b for 1 s longer"),
        (WorkerPoolStats(Backlog(0, 0.0, ()), 2, 1), "1 of 2 workers of the queue of policies have ended"),
    ],
)
def test_a_queue_without_workers_is_not(clock: Clock, crew: WorkerPoolStats, words: str) -> None:
    assert words in stuck("policies", crew)
    (said,) = health(clock, crew).unhealthy()
    assert words in said


def test_an_event_loop_that_hangs_is_reported(clock: Clock) -> None:
    it = health(clock)
    clock.now = 61.0
    assert it.unhealthy() == ["the event loop has been silent for 61 s"]
    it.beat()
    assert it.unhealthy() == []


def test_a_lister_that_hangs_is_reported_and_one_that_fails_is_not(clock: Clock) -> None:
    it = health(clock)
    for moment in (300.0, 600.0, 720.0):
        clock.now = moment
        it.beat()
        assert it.unhealthy() == []
    clock.now = 721.0
    assert it.unhealthy() == ["no list has come or failed for 721 s"]
    it.listed()
    assert it.unhealthy() == []


def test_it_is_ready_once_it_has_listed_and_watches(clock: Clock) -> None:
    it = Health({"policies": lambda: CALM}, relist=300, clock=clock)
    assert it.unready() == ["the first list has not come yet"]
    assert it.unhealthy() == []
    it.listed()
    assert it.unready() == ["the first list has not come yet"]
    it.beat()
    assert it.unready() == []


def test_an_operator_that_stops_is_not_ready_and_not_unhealthy_for_being_slow(clock: Clock) -> None:
    it = health(clock, WorkerPoolStats(Backlog(5, 900.0, ()), 2, 2))
    it.stopping()
    clock.now = 100000.0
    assert it.unready() == ["the operator is stopping"]
    assert it.unhealthy() == []


def test_the_backlog_of_a_queue(clock: Clock) -> None:
    queue = WorkQueue(clock=clock)
    queue.enqueue(("a", "now"))
    queue.enqueue(("a", "then"))
    queue.enqueue(("a", "later"), after=100)
    assert queue.take() == ("a", "now")
    clock.now = 7.0
    # Enqueued while it is worked on: it waits only for itself.
    queue.enqueue(("a", "now"))
    assert queue.backlog() == Backlog(1, 7.0, (7.0,), unserved=7.0)
    queue.done(("a", "now"), None)
    assert queue.backlog() == Backlog(2, 7.0, (), unserved=7.0)


def test_what_waits_for_its_namespaces_share_is_not_unserved(clock: Clock) -> None:
    queue = WorkQueue(clock=clock, share=1)
    queue.enqueue(("a", "one"))
    queue.enqueue(("a", "two"))
    assert queue.take() == ("a", "one")
    clock.now = 7.0
    assert queue.backlog() == Backlog(1, 7.0, (7.0,), unserved=0.0)


def test_a_worker_is_late_beyond_the_deadline_that_it_stated_last(clock: Clock) -> None:
    key, queue = ("a", "now"), WorkQueue(clock=clock)
    queue.enqueue(key)
    queue.deadline(key, 1.0)  # no worker has it
    assert queue.take() == key
    clock.now = DEADLINE
    assert queue.backlog().late == ()
    clock.now = DEADLINE + 1
    assert queue.backlog().late == ((key, 1.0),)
    queue.deadline(key, 90000.0)
    clock.now += 90000.0
    assert queue.backlog().late == ()
    queue.deadline(key, 5.0)
    clock.now += 8.0
    assert queue.backlog().late == ((key, 3.0),)
    queue.done(key, None)
    assert queue.backlog().late == ()
