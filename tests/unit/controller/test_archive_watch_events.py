"""Which archives and policies are woken by what a watch or a list shows, and how many Jobs may run."""

from __future__ import annotations

from typing import Any

import pytest

from partwarden.api.archive import ARCHIVE_KIND, MANAGED
from partwarden.api.types import ObjectKey
from partwarden.controller.archive_job import JobSlots
from partwarden.controller.event_handlers import ArchiveEventHandler
from partwarden.controller.workqueue import WorkQueue
from partwarden.kube.cache import ArchiveStore

ARCHIVE, POLICY, JOB = ("ns", "run-2020"), ("ns", "run"), ("ns", "run-2020-archive-1")


class Known:
    """An intake, and what it woke."""

    def __init__(self) -> None:
        self.store, self.slots = ArchiveStore(), JobSlots(2)
        self.archives, self.policies = WorkQueue(clock=lambda: 0.0), WorkQueue(clock=lambda: 0.0)
        self.intake = ArchiveEventHandler(self.store, self.slots, self.archives, self.policies)

    def woken(self) -> tuple[list[ObjectKey], list[ObjectKey]]:
        """Archives and policies that are due, which then are no more."""
        return _drain(self.archives), _drain(self.policies)


def _drain(queue: WorkQueue) -> list[ObjectKey]:
    found = []
    # A key that is never due comes last: `take` would wait for another.
    queue.enqueue(("", "end"))
    while (key := queue.take()) != ("", "end"):
        assert key
        found.append(key)
        queue.done(key, None)
    queue.done(("", "end"), None)
    return found


def archive(version: int, generation: int = 1, uid: str = "1", **status: Any) -> dict[str, Any]:
    meta = {"namespace": "ns", "name": "run-2020", "uid": uid, "generation": generation}
    spec = {"policy": {"name": "run"}, "partition": "run_2020"}
    return {"metadata": {**meta, "resourceVersion": str(version)}, "spec": spec, "status": status}


def job(*ended: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    owner = {"kind": ARCHIVE_KIND, "name": "run-2020", "uid": "1"}
    meta = {"namespace": "ns", "name": JOB[1], "labels": MANAGED if labels is None else labels}
    conditions = [{"type": each, "status": "True"} for each in ended]
    return {"metadata": {**meta, "ownerReferences": [owner]}, "status": {"conditions": conditions}}


@pytest.fixture
def known() -> Known:
    """One archive is known, and nobody is woken."""
    made = Known()
    made.intake.seen(archive(5))
    assert made.woken() == ([ARCHIVE], [POLICY])
    return made


def test_what_is_no_news_wakes_nobody(known: Known) -> None:
    known.intake.seen(archive(5))
    known.intake.seen(archive(4, manifestSha256="b"))
    known.intake.seen(archive(6, phase="Archiving"))
    assert known.woken() == ([], [])


def test_what_became_of_an_archive_is_news_to_its_policy(known: Known) -> None:
    news: tuple[dict[str, Any], ...] = ({"manifestSha256": "b"}, {"check": {"ok": True}}, {"lastError": {}})
    for version, status in enumerate(news, 6):
        known.intake.seen(archive(version, **status))
        assert known.woken() == ([], [POLICY])


def test_an_archive_that_is_made_anew_or_gone_is_news_to_both(known: Known) -> None:
    known.intake.seen(archive(6, uid="2"))
    assert known.woken() == ([ARCHIVE], [POLICY])
    known.intake.deleted(archive(7, uid="1"))
    assert known.woken() == ([], [])
    known.intake.listed(known.store.all(), [])
    assert known.woken() == ([ARCHIVE], [POLICY])
    assert known.store.all() == []


def test_a_job_wakes_its_archive_and_holds_a_slot_while_it_runs(known: Known) -> None:
    known.intake.job_seen(job())
    assert known.woken() == ([ARCHIVE], [])
    assert known.slots.running() == {JOB}
    known.intake.job_seen(job("Complete"))
    assert known.slots.running() == frozenset()
    known.intake.job_seen(job(labels={}))
    assert known.slots.running() == frozenset()


def test_slots_are_few_and_a_job_has_only_one() -> None:
    slots = JobSlots(2)
    assert all(slots.take(("ns", each)) for each in ("a", "b", "a"))
    assert not slots.take(("ns", "c"))
    slots.saw(("ns", "a"), running=False)
    assert slots.take(("ns", "c"))


def test_a_list_gives_back_the_slots_of_jobs_that_are_gone_but_not_of_those_made_meanwhile() -> None:
    slots = JobSlots(3)
    slots.take(("ns", "gone"))
    before = slots.running()
    slots.take(("ns", "new"))
    slots.listed(before, {("ns", "other"): None})
    assert slots.running() == {("ns", "new"), ("ns", "other")}


def test_the_wish_for_a_check_lasts_until_another_and_goes_with_the_archive(known: Known) -> None:
    assert known.store.want_check(ARCHIVE, "one")
    assert not known.store.want_check(ARCHIVE, "one")
    assert known.store.want_check(ARCHIVE, "two")
    assert known.store.wanted_check(ARCHIVE) == "two"
    known.intake.deleted(archive(9))
    assert known.store.wanted_check(ARCHIVE) is None
