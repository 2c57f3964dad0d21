"""When the operator calls itself unhealthy, and when it does not: only for what a restart heals."""

from __future__ import annotations

import pytest

from partwarden.controller.health import Health, WorkerPoolStats, stuck
from partwarden.controller.workqueue import Backlog, WorkQueue

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
        WorkerPoolStats(Backlog(900, 3600.0, (100.0, 4000.0)), 2, 0),  # all are busy: a large fleet, or slow databases
        WorkerPoolStats(Backlog(1, 59.0, (1.0,)), 2, 0),
        WorkerPoolStats(Backlog(0, 0.0, (90000.0,)), 2, 0),  # one reads a very large table, the other is free
    ],
)
def test_a_queue_that_is_served_is_healthy(clock: Clock, crew: WorkerPoolStats) -> None:
    assert health(clock, crew).unhealthy() == []


@pytest.mark.parametrize(
    ("crew", "words"),
    [
        (WorkerPoolStats(Backlog(1, 61.0, (1.0,)), 2, 0), "has been due for 61 s, and a worker is free"),
        (WorkerPoolStats(Backlog(1, 61.0, (30000.0, 40000.0)), 2, 0), "have worked on one key for 30000 s or longer"),
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


def test_a_watch_is_mute_after_two_lists_that_knew_better(clock: Clock) -> None:
    it = health(clock)
    it.missed(True)
    assert it.unhealthy() == []
    it.missed(False)
    it.missed(True)
    assert it.unhealthy() == []
    it.missed(True)
    assert it.unhealthy() == ["the watch is mute: 2 lists in a row showed what it had not"]


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
    assert queue.backlog() == Backlog(1, 7.0, (7.0,))
    queue.done(("a", "now"), None)
    assert queue.backlog() == Backlog(2, 7.0, ())
