"""Which archives and policies are enqueued by what a watch or a list shows, and which Jobs hold a slot."""

from __future__ import annotations

from typing import Any

import pytest

from partwarden.api.archive import ARCHIVE_KIND, ARCHIVE_PLURAL, MANAGED
from partwarden.api.policy import API_VERSION
from partwarden.api.types import ObjectKey
from partwarden.controller.event_handlers import ArchiveEventHandler
from partwarden.controller.job_slots import JobSlots
from partwarden.controller.settings import Settings
from partwarden.controller.shard import Shard
from partwarden.controller.workqueue import WorkQueue
from partwarden.kube.cache import ArchiveCache, Store
from support.cluster import ApiServer

ARCHIVE, POLICY, JOB = ("ns", "run-2020"), ("ns", "run"), ("ns", "run-2020-archive-1")


class Known:
    """A handler, and what it enqueued."""

    def __init__(self) -> None:
        self.server, self.cache = ApiServer(), ArchiveCache()
        self.archives, self.policies = WorkQueue(clock=lambda: 0.0), WorkQueue(clock=lambda: 0.0)
        shard = Shard(Store())
        self.slots = JobSlots(Settings(), self.cache, shard, self.archives.enqueue)
        self.handler = ArchiveEventHandler(
            *(self.server.cluster(), self.cache, self.slots, shard, self.archives, self.policies)
        )

    def enqueued(self) -> tuple[list[ObjectKey], list[ObjectKey]]:
        """Archives and policies that are due, which then are no more."""
        return _drain(self.archives), _drain(self.policies)


def _drain(queue: WorkQueue) -> list[ObjectKey]:
    found = []
    # `take` would wait for another.
    while queue.backlog().due:
        key = queue.take()
        assert key
        found.append(key)
        queue.done(key, None)
    return found


def archive(version: int, generation: int = 1, uid: str = "1", **status: Any) -> dict[str, Any]:
    meta = {"namespace": "ns", "name": "run-2020", "uid": uid, "generation": generation}
    spec = {"policy": {"name": "run"}, "partition": "run_2020"}
    return {"metadata": {**meta, "resourceVersion": str(version)}, "spec": spec, "status": status}


def job(*ended: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    owner = {"apiVersion": API_VERSION, "kind": ARCHIVE_KIND, "name": "run-2020", "uid": "1", "controller": True}
    meta = {"namespace": "ns", "name": JOB[1], "labels": MANAGED if labels is None else labels}
    conditions = [{"type": each, "status": "True"} for each in ended]
    return {"metadata": {**meta, "ownerReferences": [owner]}, "status": {"conditions": conditions}}


@pytest.fixture
def known() -> Known:
    """One archive is known, and nothing is due."""
    made = Known()
    made.handler.seen(archive(5))
    assert made.enqueued() == ([ARCHIVE], [POLICY])
    return made


def test_what_is_no_news_enqueues_nothing(known: Known) -> None:
    known.handler.seen(archive(5))
    known.handler.seen(archive(4, manifestSha256="b"))
    known.handler.seen(archive(6, phase="Archiving"))
    assert known.enqueued() == ([], [])


def test_what_became_of_an_archive_is_news_to_its_policy(known: Known) -> None:
    news: tuple[dict[str, Any], ...] = ({"manifestSha256": "b"}, {"check": {"ok": True}}, {"lastError": {}})
    for version, status in enumerate(news, 6):
        known.handler.seen(archive(version, **status))
        assert known.enqueued() == ([], [POLICY])


def test_an_archive_that_is_made_anew_or_gone_is_news_to_both(known: Known) -> None:
    known.handler.seen(archive(6, uid="2"))
    assert known.enqueued() == ([ARCHIVE], [POLICY])
    known.handler.deleted(archive(7, uid="1"))
    assert known.enqueued() == ([], [])
    known.handler.listed(known.cache.all(), [])
    assert known.enqueued() == ([ARCHIVE], [POLICY])
    assert known.cache.all() == []


def test_a_job_enqueues_its_archive_and_holds_a_slot_while_it_runs(known: Known) -> None:
    known.handler.job_seen(job())
    assert known.enqueued() == ([ARCHIVE], [])
    assert known.slots.held() == {JOB}
    known.handler.job_seen(job("Complete"))
    assert known.slots.held() == frozenset()
    known.handler.job_seen(job(labels={}))
    assert known.slots.held() == frozenset()


def test_a_list_takes_in_archives_and_jobs_and_finds_what_is_gone(known: Known) -> None:
    listed = known.server.put(ARCHIVE_PLURAL, {**archive(0), "metadata": {"namespace": "ns", "name": "run-2021"}})
    known.server.put("jobs", job())
    gone = job()
    gone["metadata"]["name"] = "gone"
    known.slots.saw(gone)
    known.handler.list()
    assert [each.uid for each in known.cache.all()] == [listed["metadata"]["uid"]]
    assert known.slots.held() == {JOB}
    archives, policies = known.enqueued()
    assert (set(archives), policies) == ({ARCHIVE, ("ns", "run-2021")}, [POLICY])


def test_a_list_that_was_asked_for_before_a_deletion_does_not_bring_an_archive_back(known: Known) -> None:
    before = known.cache.all()
    known.handler.deleted(archive(6))
    known.handler.listed(before, [archive(5)])
    assert known.cache.all() == []


def test_events_of_watches_are_taken_in(known: Known) -> None:
    known.handler.on_job({"type": "ADDED", "object": job()})
    assert known.slots.held() == {JOB}
    known.handler.on_job({"type": "DELETED", "object": job()})
    assert known.slots.held() == frozenset()
    known.handler.on_archive({"type": "MODIFIED", "object": archive(6, generation=2)})
    assert known.enqueued() == ([ARCHIVE], [])
    known.handler.on_archive({"type": "DELETED", "object": archive(7, generation=2)})
    assert known.enqueued() == ([ARCHIVE], [POLICY])
