"""Which archives and Jobs are whose, where operators with disjoint selectors share a fleet."""

from __future__ import annotations

from typing import Any

import pytest

from partwarden.api.types import ObjectKey
from partwarden.controller.archive_job import JobSlots
from partwarden.controller.ownership import Shard
from partwarden.errors import ClusterUnavailable
from partwarden.kube import cache
from partwarden.kube.cache import Store, StoredArchive
from partwarden.kube.selector import parse

SHARDS = ("shard=a", "shard=b", "shard notin (a,b)")


class Fleet:
    """Policies that there are, by their shard, and the three operators that share them."""

    def __init__(self, **policies: str) -> None:
        self.policies, self.asked, self.silent = policies, 0, False
        self.stores = [Store() for _ in SHARDS]
        self.shards = [Shard(held, parse(text), self.exists) for held, text in zip(self.stores, SHARDS, strict=True)]
        for held, text in zip(self.stores, SHARDS, strict=True):
            for name, shard in policies.items():
                if parse(text).matches(labels(shard)):
                    held.put(cache.parse_policy(_body(name, shard)))

    def exists(self, key: ObjectKey) -> bool:
        self.asked += 1
        if self.silent:
            raise ClusterUnavailable("it does not answer")
        return key[1] in self.policies

    def claim(self, archive: StoredArchive) -> list[bool]:
        """What each says, asked and by what it knows then."""
        said = [each.claims(archive) for each in self.shards]
        assert [each.has(archive) for each in self.shards] == said
        return said

    def forget(self, name: str) -> None:
        """The policy is deleted."""
        del self.policies[name]
        for held in self.stores:
            held.remove(("ns", name))


def labels(shard: str) -> dict[str, str]:
    return {"shard": shard} if shard else {}


def _body(name: str, shard: str, **spec: Any) -> dict[str, Any]:
    meta = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": "1", "labels": labels(shard)}
    return {"metadata": {**meta, "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec}


def archive(policy: str, shard: str = "") -> StoredArchive:
    spec = {"policy": {"name": policy}} if policy else {}
    return cache.parse_archive(_body("archive", shard, **spec))


@pytest.mark.parametrize("own", ["", "a", "b", "c"])
@pytest.mark.parametrize(("of", "whose"), [("a", 0), ("b", 1), ("c", 2), ("", 2)])
def test_an_archive_is_that_operators_whose_its_policy_is(own: str, of: str, whose: int) -> None:
    assert Fleet(run=of).claim(archive("run", own)) == [number == whose for number in range(3)]


@pytest.mark.parametrize("policy", ["", "gone"])
@pytest.mark.parametrize(("own", "whose"), [("a", 0), ("b", 1), ("c", 2), ("", 2)])
def test_one_without_a_policy_goes_by_its_own_labels(policy: str, own: str, whose: int) -> None:
    assert Fleet(run="a").claim(archive(policy, own)) == [number == whose for number in range(3)]


def test_only_who_might_have_it_asks_and_nobody_without_a_selector() -> None:
    fleet = Fleet(run="a")
    fleet.claim(archive("run", "a"))
    assert fleet.asked == 0
    fleet.claim(archive("run", "b"))
    assert fleet.asked == 1
    alone = Shard(Store(), exists=fleet.exists)
    assert alone.claims(archive("run", "b"))
    assert alone.has(None)
    assert fleet.asked == 1


def test_whoever_gets_no_answer_does_not_take_it() -> None:
    fleet = Fleet(run="a")
    fleet.silent = True
    with pytest.raises(ClusterUnavailable):
        fleet.shards[1].claims(archive("run", "b"))
    assert not fleet.shards[1].has(archive("run", "b"))


def test_a_list_finds_what_has_become_ours_once() -> None:
    fleet = Fleet(run="a", other="b")
    there = [archive("run", "b"), archive("other", "b"), archive("", "b")]
    assert fleet.shards[1].refresh(there) == []
    fleet.forget("run")
    assert not fleet.shards[1].has(there[0])
    assert fleet.shards[1].refresh(there) == [("ns", "archive")]
    assert fleet.shards[1].has(there[0])
    assert fleet.shards[1].refresh(there) == []


def test_jobs_of_others_take_no_slot_and_move_with_their_archives() -> None:
    ours = {("ns", "mine"), ("ns", "mine-too")}
    slots = JobSlots(2, lambda owner: owner in ours)
    for number in range(5):
        slots.saw(("ns", f"job-{number}"), True, ("ns", "theirs"))
    assert slots.take(("ns", "one"), ("ns", "mine"))
    ours.add(("ns", "theirs"))
    assert not slots.take(("ns", "two"), ("ns", "mine-too"))
    ours.remove(("ns", "theirs"))
    assert slots.take(("ns", "two"), ("ns", "mine-too"))
    assert not slots.take(("ns", "three"), ("ns", "mine"))
