"""Which Jobs hold a slot, what one namespace may have, and which archive is next."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from partwarden.api.archive import ARCHIVE_KIND, MANAGED
from partwarden.api.policy import API_VERSION
from partwarden.api.types import ObjectKey
from partwarden.controller.job_slots import MOST_PENDING, MOST_SEEN, PATIENT, JobSlots
from partwarden.controller.job_status import PENDING_LONG, is_pending_long
from partwarden.controller.settings import Settings
from partwarden.controller.shard import Shard
from partwarden.kube.cache import ArchiveCache, Store, StoredArchive, parse_archive, parse_policy

AT = "2026-01-01T00:00:00Z"
RUNNING = {"active": 1, "ready": 1}
ENDED = {"conditions": [{"type": "Complete", "status": "True"}]}


class Slots:
    """Of an operator that knows some archives."""

    def __init__(self, jobs: int = 2, selector: str = "", **settings: Any) -> None:
        self.now = datetime.fromisoformat(AT)
        self.cache, self.policies, self.woken = ArchiveCache(), Store(), list[ObjectKey]()
        shard = Shard(self.policies, selector)
        chosen = Settings(jobs=jobs, selector=selector, **settings)
        self.slots = JobSlots(chosen, self.cache, shard, self.woken.append, lambda: self.now)

    def archive(self, namespace: str, name: str, created: str = AT, policy: str = "") -> StoredArchive:
        meta = {"namespace": namespace, "name": name, "uid": f"{namespace}/{name}", "resourceVersion": "1"}
        spec = {"policy": {"name": policy}} if policy else {}
        found = parse_archive({"metadata": {**meta, "creationTimestamp": created}, "spec": spec})
        self.cache.put(found)
        return found

    def known(self, key: ObjectKey) -> StoredArchive:
        found = self.cache.get(key)
        assert found
        return found

    def takes(self, archive: StoredArchive) -> bool:
        return self.slots.take((archive.key[0], f"{archive.key[1]}-job"), archive)

    def ends(self, archive: StoredArchive) -> list[ObjectKey]:
        """Its Job ends. Returns the archives that are woken by that."""
        self.woken.clear()
        self.slots.saw(job(archive, status=ENDED))
        return self.woken.copy()

    def holds(self, *archives: StoredArchive) -> bool:
        return self.slots.held() == {(each.key[0], f"{each.key[1]}-job") for each in archives}


def job(archive: StoredArchive, called: str = "", status: dict[str, Any] | None = None, **owner: Any) -> dict[str, Any]:
    named = {"apiVersion": API_VERSION, "kind": ARCHIVE_KIND, "name": archive.key[1], "uid": archive.uid}
    meta = {"namespace": archive.key[0], "name": called or f"{archive.key[1]}-job", "creationTimestamp": AT}
    references = [{**named, "controller": True, **owner}]
    return {"metadata": {**meta, "labels": MANAGED, "ownerReferences": references}, "status": status or {}}


def suspended(archive: StoredArchive) -> dict[str, Any]:
    return {**job(archive), "spec": {"suspend": True}}


@pytest.fixture
def slots() -> Slots:
    return Slots()


def test_slots_are_few_and_a_job_has_only_one() -> None:
    slots = Slots(2, namespaces="ns")
    first, second, third = (slots.archive("ns", each) for each in "abc")
    assert [slots.takes(each) for each in (first, second, first)] == [True] * 3
    assert not slots.takes(third)
    assert slots.ends(first) == [third.key]
    assert slots.takes(third)
    assert slots.holds(second, third)


def test_a_list_gives_back_the_slots_of_jobs_that_are_gone_but_not_of_those_made_meanwhile() -> None:
    slots = Slots(3, namespaces="ns")
    gone, new, other, over = (slots.archive("ns", each) for each in ("gone", "new", "other", "over"))
    slots.takes(gone)
    before = slots.slots.held()
    slots.takes(new)
    slots.slots.listed(before, [job(other), job(over, status=ENDED)])
    assert slots.holds(new, other)


@pytest.mark.parametrize(
    ("jobs", "namespaces", "share"), [(1, "", 1), (2, "", 1), (3, "", 1), (4, "a,b", 2), (9, "", 4), (2, "a", 2)]
)
def test_a_namespace_has_half_of_the_slots_and_one_at_least(jobs: int, namespaces: str, share: int) -> None:
    slots = Slots(jobs, namespaces=namespaces)
    assert sum(slots.takes(slots.archive("a", f"{number}")) for number in range(10)) == share
    assert sum(slots.takes(slots.archive("b", f"{number}")) for number in range(10)) == min(share, jobs - share)


@pytest.mark.parametrize(
    "change",
    [
        {"uid": "of another"},
        {"name": "unknown"},
        {"kind": "PartitionPolicy"},
        {"apiVersion": "example.com/v1"},
        {"controller": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_only_jobs_whose_controller_is_an_archive_by_uid_hold_a_slot(slots: Slots, change: dict[str, Any]) -> None:
    """Anyone may label a Job as this program does, and suspend it."""
    archive = slots.archive("ns", "a")
    for number in range(5):
        assert slots.slots.saw(job(archive, f"forged-{number}", RUNNING, **change)) is None
    assert slots.takes(archive)
    assert slots.takes(slots.archive("other", "b"))


def test_a_job_without_the_labels_or_without_an_owner_holds_no_slot(slots: Slots) -> None:
    archive = slots.archive("ns", "a")
    bare, ownerless = job(archive, "bare"), job(archive, "ownerless")
    bare["metadata"]["labels"], ownerless["metadata"]["ownerReferences"] = {}, []
    assert (slots.slots.saw(bare), slots.slots.saw(ownerless)) == (None, None)
    slots.slots.listed(frozenset(), [bare, ownerless])
    assert slots.slots.held() == frozenset()


@pytest.mark.parametrize("field", ["labels", "ownerReferences"])
def test_a_job_that_is_taken_from_its_archive_gives_its_slot_back(slots: Slots, field: str) -> None:
    archive, behind = slots.archive("ns", "a"), slots.archive("ns", "b")
    slots.takes(archive)
    assert not slots.takes(behind)
    changed = job(archive, status=RUNNING)
    del changed["metadata"][field]
    assert slots.slots.saw(changed) is None
    assert (slots.slots.held(), slots.woken) == (frozenset(), [behind.key])


def test_jobs_that_a_namespace_makes_for_its_own_archive_take_its_own_share_only(slots: Slots) -> None:
    hostile = slots.archive("hostile", "a")
    for number in range(10):
        assert slots.slots.saw(job(hostile, f"forged-{number}", RUNNING)) == hostile.key
    assert not slots.takes(slots.archive("hostile", "b"))
    assert slots.takes(slots.archive("other", "c"))


def test_jobs_of_others_take_no_slot_and_move_with_their_archives() -> None:
    slots = Slots(2, selector="shard=a", namespaces="ns")
    meta = {"namespace": "ns", "name": "mine", "uid": "mine", "resourceVersion": "1", "creationTimestamp": AT}
    slots.policies.put(parse_policy({"metadata": meta}))
    mine, mine_too = (slots.archive("ns", each, policy="mine") for each in ("mine", "mine-too"))
    theirs = slots.archive("ns", "theirs", policy="theirs")
    for number in range(5):
        assert slots.slots.saw(job(theirs, f"job-{number}", RUNNING)) is None
    assert slots.takes(mine)
    slots.policies.put(parse_policy({"metadata": {**meta, "name": "theirs", "uid": "theirs"}}))
    assert not slots.takes(mine_too)
    slots.policies.remove(("ns", "theirs"))
    assert slots.takes(mine_too)
    assert not slots.takes(slots.archive("ns", "mine-three", policy="mine"))


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_an_archive_that_is_no_longer_this_operators_leaves_its_slot_to_the_next(how: str) -> None:
    slots = Slots(1, selector="shard=a")
    meta = {"namespace": "ns", "uid": "1", "resourceVersion": "1", "creationTimestamp": AT}
    for name in ("stays", "moves"):
        slots.policies.put(parse_policy({"metadata": {**meta, "name": name}}))
    gone, waits = slots.archive("ns", "gone", policy="moves"), slots.archive("ns", "waits", policy="stays")
    assert slots.takes(gone)
    assert not slots.takes(waits)
    if how == "moved":
        slots.policies.remove(("ns", "moves"))
    else:
        slots.cache.remove(gone.key)
    slots.slots.leave(gone.key)
    assert slots.woken == [waits.key]
    assert slots.takes(waits)


@pytest.mark.parametrize("pending", [suspended, job])
def test_a_job_of_which_no_pod_has_run_for_long_does_not_count(slots: Slots, pending: Any) -> None:
    waiting = [slots.archive("a", f"{number}") for number in range(2)]
    for each in waiting:
        slots.slots.saw(pending(each))
    slots.now += PENDING_LONG - timedelta(seconds=1)
    behind = slots.archive("a", "behind")
    assert not slots.takes(behind)
    slots.now += timedelta(seconds=1)
    assert slots.slots.saw(pending(waiting[0])) == waiting[0].key
    assert slots.woken == [behind.key]
    assert slots.takes(behind)
    # Once a pod of it runs it counts again.
    slots.slots.saw(job(waiting[0], status=RUNNING))
    assert not slots.takes(slots.archive("a", "last"))


def test_beside_some_pending_jobs_a_namespace_gets_no_other_one(slots: Slots) -> None:
    """Otherwise a namespace without a node could fill the cluster with Jobs that begin together once there is one."""
    for number in range(MOST_PENDING):
        slots.slots.saw(suspended(slots.archive("a", f"{number}")))
    slots.now += PENDING_LONG
    one_more = slots.archive("a", "one-more")
    assert not slots.takes(one_more)
    assert slots.takes(slots.archive("b", "other"))
    assert slots.ends(slots.archive("a", "0")) == [one_more.key]


def test_thousands_of_jobs_that_a_namespace_makes_for_its_archive_cost_little(slots: Slots) -> None:
    hostile, own = slots.archive("hostile", "a"), slots.archive("hostile", "own")
    assert slots.takes(own)
    waits = slots.archive("hostile", "waits")
    assert not slots.takes(waits)
    began = time.process_time()
    for end in ({}, ENDED):
        for number in range(2000):
            slots.slots.saw(job(hostile, f"forged-{number}", end))
        slots.slots.listed(slots.slots.held(), [job(hostile, f"listed-{number}", end) for number in range(2000)])
    assert time.process_time() - began < 2
    assert len(slots.slots.held()) <= MOST_SEEN + 1


def test_what_a_namespace_has_too_much_is_not_at_the_cost_of_others() -> None:
    slots = Slots(4)
    for number in range(4):
        slots.slots.saw(job(slots.archive("a", f"{number}"), status=RUNNING))
    assert not slots.takes(slots.archive("a", "more"))
    assert [slots.takes(slots.archive("b", each)) for each in "xyz"] == [True, True, False]


def test_namespaces_are_served_in_turn_and_in_each_the_oldest_archive_first() -> None:
    slots = Slots(1)
    first = slots.archive("a", "first")
    assert slots.takes(first)
    years = {"a": (2024, 2021, 2022), "b": (2025,), "c": (2026, 2023)}
    for namespace, made in years.items():
        for year in made:
            assert not slots.takes(slots.archive(namespace, f"of-{year}", f"{year}-01-01T00:00:00Z"))
    order, running = [], first
    for _ in range(6):
        (following,) = slots.ends(running)
        order.append("/".join(following))
        running = slots.known(following)
        assert slots.takes(running)
    assert order == ["c/of-2023", "b/of-2025", "a/of-2021", "c/of-2026", "a/of-2022", "a/of-2024"]
    assert slots.ends(running) == []


def test_one_that_comes_late_does_not_overtake_those_that_wait() -> None:
    slots = Slots(1)
    first, waits, late = (
        slots.archive("ns", each, f"202{number}-01-01T00:00:00Z") for number, each in enumerate("abc")
    )
    slots.takes(first)
    assert not slots.takes(waits)
    slots.ends(first)
    assert not slots.takes(late)
    assert slots.takes(waits)


@pytest.mark.parametrize("how", ["ended", "deleted", "not created", "not listed"])
def test_whatever_frees_a_slot_wakes_the_one_that_is_next_and_no_other(how: str) -> None:
    slots = Slots(1)
    first, *waiting = (slots.archive("ns", f"{number}") for number in range(50))
    slots.takes(first)
    assert not any(slots.takes(each) for each in waiting)
    assert slots.woken == []
    match how:
        case "ended":
            slots.slots.saw(job(first, status=ENDED))
        case "deleted":
            slots.slots.saw(job(first), deleted=True)
        case "not created":
            slots.slots.release(("ns", "0-job"))
        case "not listed":
            slots.slots.listed(slots.slots.held(), [])
    assert slots.woken == [waiting[0].key]


def test_one_that_needs_no_slot_any_more_lets_the_next_through() -> None:
    slots = Slots(1)
    first, second, third = (slots.archive("ns", each) for each in "abc")
    slots.takes(first)
    assert not slots.takes(second)
    assert not slots.takes(third)
    slots.ends(first)
    slots.slots.leave(second.key)
    assert slots.woken == [second.key, third.key]
    assert slots.takes(third)
    slots.slots.leave(second.key)
    assert slots.woken == [second.key, third.key]


def test_a_slot_that_time_or_another_operator_has_freed_is_given_to_the_one_that_is_next() -> None:
    slots = Slots(1)
    pending, second, third = (slots.archive("ns", each) for each in "abc")
    slots.slots.saw(suspended(pending))
    assert not slots.takes(second)
    slots.now += PENDING_LONG
    assert not slots.takes(third)
    assert slots.woken == [second.key]


@pytest.mark.parametrize("namespaces", [1, 100])
def test_thousands_of_archives_that_wait_cost_little(namespaces: int) -> None:
    """Of one namespace, too, which has its share while slots are free for others."""
    slots = Slots(4)
    archives = [slots.archive(f"ns-{number % namespaces}", f"{number}") for number in range(5000)]
    began = time.process_time()
    assert sum(map(slots.takes, archives)) == min(4, 2 * namespaces)
    assert not any(reads(slots, each) for each in archives[:-1000:-1])
    for running in archives[:20]:
        if slots.slots.held() >= {(running.key[0], f"{running.key[1]}-job")}:
            (following,) = slots.ends(running)
            assert slots.takes(slots.known(following))
    for each in archives:
        slots.slots.leave(each.key)
    assert time.process_time() - began < 4


def test_of_those_that_no_table_waits_for_the_one_that_has_waited_longest_is_next() -> None:
    slots = Slots(1)
    running, young, old = (
        slots.archive("ns", each, f"202{6 - year}-01-01T00:00:00Z") for year, each in enumerate("abc")
    )
    assert slots.takes(running)
    assert not reads(slots, young)
    slots.now += PENDING_LONG / 2
    assert not reads(slots, old)
    assert not reads(slots, young)
    assert slots.ends(running) == [young.key]


def test_a_moment_at_the_end_of_time_is_not_long_ago() -> None:
    assert not is_pending_long(datetime.max.replace(tzinfo=UTC), datetime.fromisoformat(AT))


@pytest.mark.parametrize("moment", ["0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_moment_that_no_calendar_has_ends_no_list(moment: str) -> None:
    """The API server takes it in the status of a Job, and the list is of all namespaces."""
    slots = Slots(2)
    stopped = {"type": "Suspended", "status": "True", "lastTransitionTime": moment}
    forged = {**suspended(slots.archive("a", "forged")), "status": {"conditions": [stopped]}}
    slots.slots.listed(slots.slots.held(), [forged])
    slots.slots.saw(forged)
    assert slots.takes(slots.archive("b", "other"))


def reads(slots: Slots, archive: StoredArchive) -> bool:
    """Whether its reading by schedule gets a slot."""
    return slots.slots.take((archive.key[0], f"{archive.key[1]}-verify-0123456789"), archive)


def test_what_no_table_waits_for_comes_after_what_one_waits_for() -> None:
    slots = Slots(1, namespaces="ns")
    old, running, young = (slots.archive("ns", each) for each in "abc")
    assert slots.takes(running)
    assert not reads(slots, old)
    assert not slots.takes(young)
    assert slots.ends(running) == [young.key]
    slots.slots.leave(young.key)
    assert reads(slots, old)


def test_what_no_table_waits_for_leaves_the_last_slot_to_others() -> None:
    slots = Slots(4, namespaces="ns")
    some = [slots.archive("ns", each) for each in "abcdef"]
    assert [reads(slots, each) for each in some[:3]] == [True, True, False]
    assert [slots.takes(each) for each in some[3:5]] == [True, True]
    assert not slots.takes(some[5])


def test_of_several_namespaces_none_takes_the_last_slot_for_it() -> None:
    slots = Slots(2)
    first, second, other = slots.archive("a", "1"), slots.archive("b", "1"), slots.archive("c", "1")
    assert [reads(slots, first), reads(slots, second)] == [True, False]
    assert slots.takes(other)


def test_what_no_table_waits_for_never_starves() -> None:
    slots = Slots(2, namespaces="ns")
    one, two, late, waits = (slots.archive("ns", each) for each in "bcda")
    assert slots.takes(one)
    assert slots.takes(two)
    assert not reads(slots, waits)
    slots.now += PATIENT
    assert not slots.takes(late)
    # It asks again every few minutes, and has waited since it asked first.
    assert not reads(slots, waits)
    assert slots.ends(one) == [waits.key]
