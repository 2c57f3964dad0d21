"""The cache of objects: newer versions win in whatever order they come, and an index finds what it is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from partwarden.kube.cache import ObjectCache, StoredObject, vanished

KEY = ("ns", "run")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing(StoredObject):
    colour: str = "red"


def thing(version: int, name: str = "run", uid: str = "1", colour: str = "red") -> Thing:
    return Thing(key=("ns", name), uid=uid, generation=1, version=version, spec={}, colour=colour)


@pytest.fixture
def cache() -> ObjectCache[Thing]:
    return ObjectCache(lambda each: each.colour)


def test_a_newer_version_is_an_update_and_an_older_one_is_nothing(cache: ObjectCache[Thing]) -> None:
    first, second = thing(1), thing(3)
    assert cache.put(first) == (None, first)
    assert cache.put(first) is None
    assert cache.put(second) == (first, second)
    assert cache.put(thing(2)) is None
    assert cache.get(KEY) is second


def test_what_was_removed_comes_back_by_a_later_version_only(cache: ObjectCache[Thing]) -> None:
    cache.put(thing(1))
    assert cache.remove(KEY, "1", 4)
    assert cache.put(thing(3)) is None
    assert cache.put(thing(5, uid="2"))


def test_after_a_list_what_was_removed_is_no_longer_remembered(cache: ObjectCache[Thing]) -> None:
    assert not cache.remove(KEY, "1", 4)
    cache.settle()
    assert cache.put(thing(3))


@pytest.mark.parametrize(("uid", "version"), [("other", None), ("1", 4)])
def test_another_object_of_the_name_or_a_later_version_is_not_removed(
    cache: ObjectCache[Thing], uid: str, version: int | None
) -> None:
    cache.put(thing(5))
    assert not cache.remove(KEY, uid, version)
    assert cache.remove(KEY)
    assert cache.get(KEY) is None


def test_an_index_follows_each_object(cache: ObjectCache[Thing]) -> None:
    red, other, blue = thing(1), thing(1, "other"), thing(2, colour="blue")
    for each in (red, other, blue):
        cache.put(each)
    assert (cache.indexed("red"), cache.indexed("blue"), cache.indexed("green")) == ([other], [blue], [])
    cache.remove(KEY)
    assert cache.indexed("blue") == []
    assert cache.all() == [other]
    assert cache._by_index.keys() == {"red"}


def test_a_list_shows_what_was_deleted_unseen() -> None:
    stays, gone = thing(1), thing(1, "other", uid="2")
    assert vanished([stays, gone], [thing(9)]) == [gone]
