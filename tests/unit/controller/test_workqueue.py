"""When policies are worked on: the schedule, the queue, its workers, pauses, and the slots of a database."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.operator import until
from partwarden import errors
from partwarden.controller import workqueue
from partwarden.controller.runtime import Runtime, Workers, share
from partwarden.controller.settings import Settings
from partwarden.controller.workqueue import Backoff, Result, Schedule, WorkQueue
from partwarden.kube.client import Cluster

A, B, C = ("one", "a"), ("one", "b"), ("two", "a")


def drained(schedule: Schedule, now: float) -> Iterator[tuple[str, str]]:
    while (key := schedule.pop(now)) is not None:
        yield key


def test_keys_come_when_they_are_due_the_longest_due_first() -> None:
    schedule = Schedule()
    schedule.enqueue(A, 3)
    schedule.enqueue(B, 1)
    schedule.enqueue(C, 2)
    assert schedule.next_due() == 1
    assert schedule.pop(0.9) is None
    assert list(drained(schedule, 2.5)) == [B, C]
    assert schedule.next_due() == 3


def test_equal_times_come_in_order_of_arrival() -> None:
    schedule = Schedule()
    for key in (C, A, B):
        schedule.enqueue(key, 1)
    assert list(drained(schedule, 1)) == [C, A, B]


def test_a_key_is_in_the_queue_once_and_the_earlier_time_wins() -> None:
    schedule = Schedule()
    for due in (5, 2, 9, 2):
        schedule.enqueue(A, due)
    assert schedule.next_due() == 2
    assert list(drained(schedule, 100)) == [A]


def test_a_key_is_with_one_worker_at_a_time_and_again_after_it_was_enqueued() -> None:
    schedule = Schedule()
    schedule.enqueue(A, 0)
    assert schedule.pop(0) == A
    schedule.enqueue(A, 0)
    assert schedule.pop(10) is None
    assert schedule.next_due() is None
    schedule.done(A, 500)
    assert schedule.pop(10) == A


@pytest.mark.parametrize(("enqueued", "next_due", "expected"), [(7, 3, 3), (3, 7, 3), (None, 7, 7), (7, None, 7)])
def test_after_work_the_earlier_of_both_times_counts(
    enqueued: float | None, next_due: float | None, expected: float
) -> None:
    schedule = Schedule()
    schedule.enqueue(A, 0)
    schedule.pop(0)
    if enqueued is not None:
        schedule.enqueue(A, enqueued)
    schedule.done(A, next_due)
    assert schedule.next_due() == expected


def test_nothing_is_due_after_the_last_time() -> None:
    schedule = Schedule()
    schedule.enqueue(A, 0)
    schedule.pop(0)
    schedule.done(A)
    assert schedule.next_due() is None


def key_of(namespace: int, number: int) -> tuple[str, str]:
    """Each database has three keys."""
    return f"team-{namespace}", f"run-{number}"


def database(key: tuple[str, str]) -> int:
    return int(key[1].removeprefix("run-")) // 3


KEYS = [key_of(namespace, number) for namespace in range(4) for number in range(9)]


@given(workers=st.integers(1, 16), blocked=st.integers(1, 40), waiting=st.integers(1, 5), at=st.floats(0, 100))
def test_whatever_one_namespace_holds_up_another_namespaces_key_is_taken_at_once(
    workers: int, blocked: int, waiting: int, at: float
) -> None:
    schedule = Schedule(share(workers), database)
    for number in range(blocked):
        schedule.enqueue(key_of(0, number), 0)
    # None of these ever ends.
    held = list(islice(drained(schedule, at), workers))
    assert len(held) == min(blocked, max(1, workers // 2))
    assert schedule.next_due() is None
    for number in range(waiting):
        schedule.enqueue(key_of(1, number), at)
    if len(held) < workers:
        assert schedule.next_due() == at
        assert schedule.pop(at) == key_of(1, 0)
    if workers > 1:
        assert len(held) < workers


class Model:
    """A schedule of two workers for each namespace, and beside it plainly what is due when and what is worked on."""

    def __init__(self) -> None:
        self.schedule, self.now = Schedule(2, database), 0.0
        self.due: dict[tuple[str, str], float] = {}
        self.busy: list[tuple[str, str]] = []

    def enqueue(self, key: tuple[str, str], after: float) -> None:
        self.schedule.enqueue(key, self.now + after)
        self.due[key] = min(self.due.get(key, self.now + after), self.now + after)

    def waiting(self) -> dict[tuple[str, str], float]:
        """For how long each key has been due that no worker has."""
        return {key: self.now - at for key, at in self.due.items() if at <= self.now and key not in self.busy}

    def may_be_taken(self) -> set[tuple[str, str]]:
        return {key for key in self.waiting() if sum(each[0] == key[0] for each in self.busy) < 2}

    def pop(self, seconds: float) -> None:
        self.now += seconds
        wanted, key = self.may_be_taken(), self.schedule.pop(self.now)
        assert (key in wanted) if wanted else (key is None)
        if key is not None:
            del self.due[key]
            self.busy.append(key)

    def done(self, index: int, after: float | None) -> None:
        if self.busy:
            key = self.busy.pop(index % len(self.busy))
            self.schedule.done(key, None if after is None else self.now + after)
            if after is not None:
                self.due[key] = min(self.due.get(key, self.now + after), self.now + after)

    def check(self) -> None:
        following = self.schedule.next_due()
        if self.may_be_taken():
            assert following is not None
            assert following <= self.now
        assert sorted(seconds for seconds, _ in self.schedule.overdue(self.now)) == sorted(self.waiting().values())


STEPS = st.one_of(
    st.tuples(st.just("enqueue"), st.sampled_from(KEYS), st.floats(0, 20)),
    st.tuples(st.just("pop"), st.floats(0, 5)),
    st.tuples(st.just("done"), st.integers(0, 7), st.none() | st.floats(0, 20)),
)


@given(st.lists(STEPS, max_size=120))
def test_no_due_key_waits_for_ever_and_shares_are_kept(steps: list[tuple[Any, ...]]) -> None:
    model = Model()
    for name, *arguments in steps:
        getattr(model, name)(*arguments)
        model.check()
    # While each key that was worked on is enqueued again at once, the others come in as many turns as there are keys.
    model.now += 100
    left = set(model.waiting())
    for _ in range(len(KEYS) + len(model.busy)):
        if model.busy:
            again = model.busy[0]
            model.done(0, None)
            model.enqueue(again, 0)
        model.pop(0)
        left -= set(model.busy)
    assert not left


def test_namespaces_take_turns_and_within_them_databases() -> None:
    schedule = Schedule(None, database)
    for key in [key_of(0, number) for number in range(6)] + [key_of(1, 0), key_of(2, 8), key_of(2, 7)]:
        schedule.enqueue(key, 0)
    assert list(drained(schedule, 0)) == [
        *(key_of(0, 0), key_of(1, 0), key_of(2, 8)),
        *(key_of(0, 3), key_of(2, 7)),
        *(key_of(0, 1), key_of(0, 4), key_of(0, 2), key_of(0, 5)),
    ]


def test_a_worker_may_go_on_with_one_database_only_while_no_other_namespace_waits() -> None:
    schedule = Schedule(database=lambda key: key[1][0])
    keys = [("one", name) for name in ("a1", "b1", "a2", "b2", "a3")]
    for key in keys:
        schedule.enqueue(key, 0)
    first = schedule.pop(0)
    assert first == ("one", "a1")
    assert schedule.pop(0, first) == ("one", "a2")
    schedule.enqueue(("two", "c1"), 0)
    assert schedule.pop(0, first) == ("one", "b1")
    assert schedule.pop(0, first) == ("two", "c1")
    assert schedule.pop(0, first) == ("one", "a3")
    assert schedule.pop(0, first) == ("one", "b2"), "nothing is left of that database"
    assert schedule.pop(0, first) is None


def test_a_namespace_whose_keys_come_again_at_once_keeps_no_other_waiting() -> None:
    schedule = Schedule()
    for number in range(100):
        schedule.enqueue(key_of(0, number), 0)
    assert schedule.pop(0) == key_of(0, 0)
    schedule.enqueue(key_of(1, 0), 50)
    assert schedule.pop(49) == key_of(0, 1)
    schedule.done(key_of(0, 0), 49)
    assert schedule.pop(50) == key_of(0, 2)
    assert schedule.pop(50) == key_of(1, 0)


def test_a_key_that_waited_for_its_share_is_taken_when_a_worker_of_its_namespace_is_done() -> None:
    queue, first, second, other = WorkQueue(share=1), threading.Event(), threading.Event(), threading.Event()
    go = threading.Event()

    def work(key: tuple[str, str]) -> float | None:
        if key == A:
            first.set()
            assert go.wait(20)
        (second if key == B else other).set()
        return None

    workers = Workers(queue, work, 2)
    workers.start()
    queue.enqueue(A)
    assert first.wait(10)
    queue.enqueue(B)
    queue.enqueue(C)
    assert other.wait(10)
    assert not second.is_set()
    go.set()
    assert second.wait(10)
    queue.close()
    assert workers.wait(10)


@pytest.mark.parametrize(("namespaces", "taken"), [((), 4), (("one",), 8), (("one", "two"), 4)])
def test_the_queue_of_the_operator_keeps_the_shares(namespaces: tuple[str, ...], taken: int) -> None:
    queue = Runtime.of(cast(Cluster, None), Settings(workers=8, namespaces=namespaces)).policy_queue
    for number in range(8):
        queue.enqueue(("one", str(number)))
    while queue.backlog().unserved:
        queue.take()
    assert len(queue.backlog().busy) == taken


@pytest.mark.parametrize(
    ("workers", "namespaces", "expected"), [(1, 0, 1), (2, 0, 1), (3, 0, 1), (8, 0, 4), (64, 3, 32), (8, 1, 8)]
)
def test_a_namespace_has_at_most_half_of_the_workers_where_there_are_others(
    workers: int, namespaces: int, expected: int
) -> None:
    assert share(workers, namespaces) == expected


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_queue_counts_from_its_clock() -> None:
    clock = Clock()
    queue = WorkQueue(clock)
    queue.enqueue(A, after=10)
    queue.enqueue(B)
    assert queue.take() == B
    clock.now = 10
    assert queue.take() == A
    queue.done(A, after=5)
    queue.done(B, after=None)
    clock.now = 15
    assert queue.take() == A


def test_closing_ends_the_waiting() -> None:
    queue = WorkQueue()
    queue.enqueue(A, after=1000)
    workers = Workers(queue, lambda _: None, 3)
    workers.start()
    queue.close()
    assert workers.wait(10)


def test_workers_are_bounded_and_never_share_a_key() -> None:
    queue, lock, done = WorkQueue(), threading.Lock(), threading.Event()
    running: list[tuple[str, str]] = []
    most, works = 0, 0

    def work(key: tuple[str, str]) -> float | None:
        nonlocal most, works
        with lock:
            assert key not in running
            running.append(key)
            most, works = max(most, len(running)), works + 1
            if works >= 200:
                done.set()
        queue.enqueue(key)  # an edit that arrives meanwhile
        with lock:
            running.remove(key)
        return 0.0

    workers = Workers(queue, work, 3)
    workers.start()
    for number in range(10):
        queue.enqueue(("one", str(number)))
    assert done.wait(30)
    queue.close()
    assert workers.wait(10)
    assert most <= 3


def test_a_later_key_is_not_forgotten_while_the_worker_that_waited_for_it_works() -> None:
    queue, second = WorkQueue(), threading.Event()
    met: list[bool] = []

    def work(key: tuple[str, str]) -> float | None:
        if key == B:
            met.append(second.wait(20))  # only when A is worked on at the same time
        else:
            second.set()
        return None

    workers = Workers(queue, work, 2)
    workers.start()
    queue.enqueue(A, after=0.3)
    queue.enqueue(B)
    assert second.wait(10)
    queue.close()
    assert workers.wait(20)
    assert met == [True]


def test_a_worker_that_comes_back_for_the_next_key_wakes_no_other() -> None:
    """Each that wakes for nothing holds up those that work, as threads of one process."""
    waits, looks = threading.Event(), list[int]()

    def clock() -> float:
        if threading.current_thread() is not threading.main_thread():
            looks.append(1)
            waits.set()
        return 0.0

    queue = WorkQueue(clock)
    queue.enqueue(A)
    assert queue.take() == A
    other = threading.Thread(target=queue.take)
    other.start()
    assert waits.wait(10)
    for _ in range(5):
        queue.done(A, 0.0, returns=True)
        assert queue.take() == A
    queue.close()
    other.join(10)
    assert len(looks) == 1


def test_what_is_enqueued_wakes_a_worker_and_not_only_one_that_takes_its_key_back() -> None:
    queue, waiting, taken = WorkQueue(lambda: 0.0), threading.Event(), threading.Event()
    busy, changed = queue._schedule.is_busy, queue._changed

    def is_busy(key: tuple[str, str]) -> bool:
        waiting.set()
        return busy(key)

    def take() -> None:
        queue.take()
        taken.set()

    queue._schedule.is_busy = is_busy  # type: ignore[method-assign]
    queue.enqueue(A)
    assert queue.take() == A
    queue.set_aside(A)
    assert queue.take() == A
    long_run = threading.Thread(target=queue.take_back, args=(A,))
    worker = threading.Thread(target=take)
    long_run.start()
    assert waiting.wait(10)
    # The lock is free only once the one before waits: so they wait in this order.
    with changed:
        worker.start()
    until("both wait", lambda: len(changed._waiters) == 2)  # type: ignore[attr-defined]
    queue.enqueue(B)
    assert taken.wait(10)
    queue.done(A, None)
    long_run.join(10)
    assert not long_run.is_alive()
    worker.join(10)


def test_no_key_is_forgotten_whatever_times_come_in_between() -> None:
    numbers, done = random.Random(1), threading.Event()
    wanted = {(f"n{number % 3}", str(number)): number % 7 for number in range(60)}
    lock, seen = threading.Lock(), set[tuple[str, str]]()

    def work(key: tuple[str, str]) -> float | None:
        with lock:
            again = wanted[key] > 0
            wanted[key] -= 1
            seen.add(key)
            if len(seen) == len(wanted) and not any(left >= 0 for left in wanted.values()):
                done.set()
            return numbers.choice((0.0, 0.001, 0.02)) if again else None

    queue = WorkQueue(share=2)
    workers = Workers(queue, work, 4)
    workers.start()
    for key in wanted:
        queue.enqueue(key, after=numbers.choice((0.0, 0.0, 0.01, 0.05)))
    assert done.wait(30)
    queue.close()
    assert workers.wait(10)


def test_an_error_in_the_work_neither_ends_the_worker_nor_makes_it_loop(caplog: pytest.LogCaptureFixture) -> None:
    queue, worked = WorkQueue(), threading.Event()
    calls: list[tuple[str, str]] = []

    def work(key: tuple[str, str]) -> float | None:
        calls.append(key)
        if key == A:
            raise KeyError("unforeseen")
        worked.set()
        return None

    workers = Workers(queue, work, 1)
    workers.start()
    queue.enqueue(A)
    queue.enqueue(B)
    assert worked.wait(10)
    queue.close()
    assert workers.wait(10)
    assert calls == [A, B]
    assert "unforeseen" in caplog.text


def pauses(found: Result, resync: float, count: int) -> list[float]:
    counted = Backoff(lambda: 0.5)
    return [counted.after(A, 1, found, resync) for _ in range(count)]


def test_outages_double_from_a_second_to_a_minute() -> None:
    assert pauses(Result.TRANSIENT, 600, 9) == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert pauses(Result.TRANSIENT, 10, 6) == [1, 2, 4, 8, 10, 10]


def test_mistakes_double_from_fifteen_seconds_to_the_resync() -> None:
    assert pauses(Result.USER_ERROR, 600, 8) == [15, 30, 60, 120, 240, 480, 600, 600]
    assert pauses(Result.USER_ERROR, 10, 3) == [10, 10, 10]


def test_success_waits_for_the_resync() -> None:
    assert pauses(Result.CONVERGED, 600, 3) == [600, 600, 600]


@pytest.mark.parametrize("between", ["success", "edit", "other kind"])
def test_what_starts_afresh(between: str) -> None:
    counted = Backoff(lambda: 0.5)
    spec = 1
    assert [counted.after(A, spec, Result.TRANSIENT, 600) for _ in range(3)] == [1, 2, 4]
    if between == "success":
        counted.after(A, spec, Result.CONVERGED, 600)
    if between == "edit":
        spec = 2
    if between == "other kind":
        counted.after(A, spec, Result.USER_ERROR, 600)
    assert counted.after(A, spec, Result.TRANSIENT, 600) == 1
    assert counted.after(B, spec, Result.TRANSIENT, 600) == 1


def test_pauses_differ_within_a_tenth() -> None:
    pauses = [Backoff().after(A, 1, Result.CONVERGED, 600) for _ in range(50)]
    assert len(set(pauses)) > 40
    assert all(540 <= pause <= 660 for pause in pauses)


@pytest.mark.parametrize(("boundary", "expected"), [(100.0, 100.0), (10_000.0, 600.0), (-3.0, workqueue.SOONEST)])
def test_a_boundary_comes_first_and_never_in_a_loop(boundary: float, expected: float) -> None:
    assert Backoff(lambda: 0.5).after(A, 1, Result.CONVERGED, 600, boundary) == expected


@pytest.mark.parametrize(
    ("found", "reconciling", "expected"),
    [
        ([], False, Result.CONVERGED),
        ([], True, Result.IN_PROGRESS),
        ([errors.NameTaken("x")], True, Result.TRANSIENT),
        ([errors.NameTaken("x")], False, Result.USER_ERROR),
        ([errors.NameTaken("x"), errors.TableBusy("x")], False, Result.TRANSIENT),
    ],
)
def test_an_outage_beside_a_mistake_is_tried_again_soon(
    found: list[errors.PartwardenError], reconciling: bool, expected: Result
) -> None:
    assert workqueue.result(found, reconciling) is expected
