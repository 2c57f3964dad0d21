"""Which archives and Jobs are whose, where operators with disjoint selectors share a fleet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

from partwarden.api.types import ObjectKey
from partwarden.controller.archive_requests import deciding_labels
from partwarden.controller.shard import Shard
from partwarden.errors import ClusterUnavailable
from partwarden.kube import cache
from partwarden.kube.cache import Store, StoredArchive

SHARDS: dict[str, Callable[[Mapping[str, str]], bool]] = {
    "shard=a": lambda labels: labels.get("shard") == "a",
    "shard=b": lambda labels: labels.get("shard") == "b",
    "shard notin (a,b)": lambda labels: labels.get("shard") not in ("a", "b"),
}
"""As the API server reads them."""


class Fleet:
    """Policies that there are, by their shard, and the three operators that share them."""

    def __init__(self, **policies: str) -> None:
        self.policies, self.asked, self.selections, self.silent = policies, 0, 0, False
        self.listed = 0
        self.archives: dict[ObjectKey, StoredArchive] = {}
        self.stores = [Store() for _ in SHARDS]
        self.shards = [
            Shard(store, text, self.exists, partial(self.selects, text), self.existing)
            for store, text in zip(self.stores, SHARDS, strict=True)
        ]
        for store, matches in zip(self.stores, SHARDS.values(), strict=True):
            for name, shard in policies.items():
                if matches(labels(shard)):
                    store.put(cache.parse_policy(_body(name, shard)))

    def exists(self, key: ObjectKey) -> bool:
        self.asked += 1
        if self.silent:
            raise ClusterUnavailable("it does not answer")
        return key[1] in self.policies

    def existing(self, namespace: str) -> list[ObjectKey]:
        self.listed += 1
        return [(namespace, name) for name in self.policies]

    def selects(self, text: str, key: ObjectKey) -> bool:
        self.selections += 1
        if self.silent:
            raise ClusterUnavailable("it does not answer")
        return SHARDS[text](self.archives[key].labels)

    def refresh(self, number: int) -> list[ObjectKey]:
        """What a full list brings to one of the shards."""
        there, matches = list(self.archives.values()), list(SHARDS.values())[number]
        return self.shards[number].refresh(there, {each.key: each.labels for each in there if matches(each.labels)})

    def claim(self, archive: StoredArchive) -> list[bool]:
        """What each says, asked and by what it knows then."""
        self.archives[archive.key] = archive
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


def archive(policy: str, shard: str = "", name: str = "archive") -> StoredArchive:
    spec = {"policy": {"name": policy}} if policy else {}
    return cache.parse_archive(_body(name, shard, **spec))


@pytest.mark.parametrize("own", ["", "a", "b", "c"])
@pytest.mark.parametrize(("of", "whose"), [("a", 0), ("b", 1), ("c", 2), ("", 2)])
def test_an_archive_is_that_operators_whose_its_policy_is(own: str, of: str, whose: int) -> None:
    assert Fleet(run=of).claim(archive("run", own)) == [number == whose for number in range(3)]


@pytest.mark.parametrize("policy", ["", "gone"])
@pytest.mark.parametrize(("own", "whose"), [("a", 0), ("b", 1), ("c", 2), ("", 2)])
def test_one_without_a_policy_goes_by_its_own_labels(policy: str, own: str, whose: int) -> None:
    assert Fleet(run="a").claim(archive(policy, own)) == [number == whose for number in range(3)]


def test_only_the_shard_that_might_have_it_asks_for_its_policy_and_without_a_selector_none() -> None:
    fleet = Fleet(run="a")
    fleet.claim(archive("run", "a"))
    assert fleet.asked == 0
    fleet.claim(archive("run", "b"))
    assert fleet.asked == 1
    alone = Shard(Store(), "", fleet.exists, partial(fleet.selects, "shard=a"))
    asked = fleet.asked, fleet.selections
    assert alone.claims(archive("run", "b"))
    assert alone.has(None)
    assert (fleet.asked, fleet.selections) == asked


def test_what_the_selector_says_of_an_archive_is_asked_once_until_its_labels_change() -> None:
    fleet = Fleet()
    b = fleet.shards[1]
    fleet.archives["ns", "archive"] = archive("", "b")
    assert not b.has(archive("", "b"))
    assert b.decided(archive("", "b")) is None
    assert [b.claims(archive("", "b")) for _ in range(3)] == [True] * 3
    assert fleet.selections == 1
    fleet.archives["ns", "archive"] = archive("", "a")
    assert b.decided(archive("", "a")) is None
    assert not b.has(archive("", "a"))
    assert [b.claims(archive("", "a")) for _ in range(3)] == [False] * 3
    assert b.decided(archive("", "a")) is False
    assert fleet.selections == 2


def test_a_shard_without_an_answer_takes_no_archive() -> None:
    fleet = Fleet(run="a")
    fleet.silent = True
    with pytest.raises(ClusterUnavailable):
        fleet.shards[1].claims(archive("run", "b"))
    assert not fleet.shards[1].has(archive("run", "b"))
    fleet.archives["ns", "archive"] = archive("run", "b")
    with pytest.raises(ClusterUnavailable):
        fleet.refresh(1)
    assert not fleet.shards[1].has(archive("run", "b"))


def test_a_list_finds_what_has_become_this_shards_once() -> None:
    fleet = Fleet(run="a", other="b")
    of_run, of_other, of_none = archive("run", "b", "one"), archive("other", "b", "two"), archive("", "b", "three")
    fleet.archives = {each.key: each for each in (of_run, of_other, of_none)}
    assert fleet.refresh(1) == [of_none.key]
    assert fleet.selections == 0
    assert fleet.refresh(1) == []
    fleet.forget("run")
    assert not fleet.shards[1].has(of_run)
    assert fleet.refresh(1) == [of_run.key]
    assert fleet.shards[1].has(of_run)
    assert fleet.refresh(1) == []
    assert fleet.selections == 0


def test_thousands_of_archives_that_name_as_many_policies_cost_a_list_of_their_namespace() -> None:
    fleet = Fleet(run="a")
    known = [archive(f"none-{number}", "b", f"{number}") for number in range(2000)] + [archive("run", "b", "of-run")]
    fleet.archives = {each.key: each for each in known}
    assert len(fleet.refresh(1)) == 2000
    assert (fleet.asked, fleet.listed) == (0, 1)
    assert not fleet.shards[1].has(known[-1])


def test_the_labels_that_decide_are_those_whose_keys_the_selector_names() -> None:
    labels = {"shard": "a", "example.com/tier": "gold", "team": "db", "in": "x"}
    for selector, keys in {
        "": set(),
        "shard=a": {"shard"},
        "shard==a, example.com/tier != gold": {"shard", "example.com/tier"},
        "shard notin (a,b),!team": {"shard", "team"},
        "tier": set(),
    }.items():
        assert deciding_labels(selector, labels).keys() == keys
