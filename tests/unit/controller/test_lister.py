"""The full list puts right what a watch missed, and finds out whether the watch is mute."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from partwarden.controller import informers
from partwarden.controller.event_handlers import ArchiveEventHandler, PolicyEventHandler
from partwarden.controller.health import Health
from partwarden.controller.informers import Lister
from partwarden.controller.ownership import TableOwnership
from partwarden.controller.runtime import Runtime
from partwarden.controller.settings import Settings
from partwarden.errors import ClusterUnavailable
from partwarden.kube.client import Cluster
from support.policies_api import OUTAGE, FakeCluster

MUTE = ["the watch is mute: 2 lists in a row showed what it had not"]


class Listed(FakeCluster):
    """Lists the policies of each namespace that it is asked for."""

    def policies_of(self, namespace: str | None) -> Iterator[dict[str, Any]]:
        if "list" in self.down:
            raise OUTAGE
        yield from [body for key, body in self.policies.items() if namespace in (None, key[0])]


class ListsNothing:
    def list(self) -> None:
        """No archives."""


class Fixture:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, *namespaces: str) -> None:
        monkeypatch.setattr(informers, "GRACE", 0.0)
        self.api, self.health = Listed(), Health({}, 300.0)
        cluster = type("Cluster", (), {"policies": staticmethod(self.api.policies_of)})()
        runtime = Runtime(cast(Cluster, cluster), Settings(namespaces=namespaces))
        self.store, self.queue = runtime.policies, runtime.policy_queue
        handler = PolicyEventHandler(self.store, TableOwnership(self.queue.enqueue), self.queue)
        self.lister = Lister(runtime, handler, cast(ArchiveEventHandler, ListsNothing()), self.health)

    def names(self) -> list[str]:
        return sorted(str(policy) for policy in self.store.all())


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Fixture:
    return Fixture(monkeypatch)


def test_a_list_adds_what_is_new_and_takes_away_what_is_deleted(made: Fixture) -> None:
    made.api.apply(("one", "a"), {})
    made.api.apply(("two", "b"), {})
    made.lister.first()
    assert made.names() == ["one/a", "two/b"]
    del made.api.policies["one", "a"]
    made.lister.again()
    assert made.names() == ["two/b"]


def test_only_the_namespaces_of_the_settings_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Fixture(monkeypatch, "one", "three")
    for namespace in ("one", "two", "three"):
        made.api.apply((namespace, "a"), {})
    made.lister.first()
    assert made.names() == ["one/a", "three/a"]


def test_an_event_of_the_watch_is_handed_on(made: Fixture) -> None:
    body = made.api.apply(("one", "a"), {})
    made.lister.on_policy({"type": None, "object": body})
    assert made.names() == ["one/a"]
    made.lister.on_policy({"type": "DELETED", "object": body})
    assert made.names() == []


def test_two_lists_in_a_row_that_show_more_than_the_watch_make_it_mute(made: Fixture) -> None:
    made.lister.first()
    for name in ("a", "b"):
        assert made.health.unhealthy() == []
        made.api.apply(("one", name), {})
        made.lister.again()
    assert made.health.unhealthy() == MUTE
    made.lister.on_policy({"type": "ADDED", "object": made.api.apply(("one", "c"), {})})
    made.lister.again()
    # It showed nothing new: that says nothing of the watch.
    assert made.health.unhealthy() == MUTE


def test_a_watch_that_shows_what_a_list_has_shown_first_is_not_mute(made: Fixture) -> None:
    made.lister.first()
    for name in ("a", "b", "c"):
        body = made.api.apply(("one", name), {})
        made.lister.shown(body, deleted=False)
        made.lister.again()
    assert made.health.unhealthy() == []


def test_the_first_list_must_come_and_a_later_one_may_fail(made: Fixture, caplog: pytest.LogCaptureFixture) -> None:
    made.api.apply(("one", "a"), {})
    made.api.down.add("list")
    with pytest.raises(ClusterUnavailable):
        made.lister.first()
    made.lister.again()
    assert "did not answer" in caplog.text
    made.api.down.clear()
    made.lister.again()
    assert made.names() == ["one/a"]


def test_a_lister_that_is_stopped_calls_no_watch_mute(made: Fixture) -> None:
    made.lister.first()
    made.lister.stop()
    for name in ("a", "b"):
        made.api.apply(("one", name), {})
        made.lister.again()
    assert made.health.unhealthy() == []
