"""The full list puts right what a watch missed, and goes on whatever happens."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from partwarden.controller.event_handlers import PolicyEventHandler
from partwarden.controller.health import Health
from partwarden.controller.informers import Lister
from partwarden.controller.ownership import TableOwnership
from partwarden.controller.runtime import Every, Runtime
from partwarden.controller.settings import Settings
from partwarden.errors import ClusterUnavailable
from partwarden.kube.client import Cluster
from support.policies_api import OUTAGE, FakeCluster


class Listed(FakeCluster):
    """Lists the policies of each namespace that it is asked for."""

    breaks_off = False

    def policies_of(self, namespace: str | None) -> Iterator[dict[str, Any]]:
        if "list" in self.down:
            raise OUTAGE
        listed = [body for key, body in self.policies.items() if namespace in (None, key[0])]
        yield from listed[: 1 if self.breaks_off else None]
        if self.breaks_off:
            raise OUTAGE


class ListsNothing:
    def list(self) -> None:
        """No archives, and no restores."""


class Fixture:
    def __init__(self, *namespaces: str) -> None:
        self.api, self.health = Listed(), Health({}, 300.0)
        cluster = type("Cluster", (), {"policies": staticmethod(self.api.policies_of)})()
        runtime = Runtime(cast(Cluster, cluster), Settings(namespaces=namespaces))
        self.store, self.queue = runtime.policies, runtime.policy_queue
        self.handler = PolicyEventHandler(self.store, TableOwnership(self.queue.enqueue), self.queue)
        nothing: Any = ListsNothing()
        self.lister = Lister(runtime, self.handler, nothing, nothing, self.health)

    def names(self) -> list[str]:
        return sorted(str(policy) for policy in self.store.all())


@pytest.fixture
def made() -> Fixture:
    return Fixture()


def test_a_list_adds_what_is_new_and_takes_away_what_is_deleted(made: Fixture) -> None:
    made.api.apply(("one", "a"), {})
    made.api.apply(("two", "b"), {})
    made.lister.first()
    assert made.names() == ["one/a", "two/b"]
    del made.api.policies["one", "a"]
    made.lister.again()
    assert made.names() == ["two/b"]


def test_only_the_namespaces_of_the_settings_are_listed() -> None:
    made = Fixture("one", "three")
    for namespace in ("one", "two", "three"):
        made.api.apply((namespace, "a"), {})
    made.lister.first()
    assert made.names() == ["one/a", "three/a"]


def test_an_event_of_the_watch_is_handed_on(made: Fixture) -> None:
    body = made.api.apply(("one", "a"), {})
    made.handler.on_policy({"type": None, "object": body})
    assert made.names() == ["one/a"]
    made.handler.on_policy({"type": "DELETED", "object": body})
    assert made.names() == []


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


def test_a_list_that_breaks_off_takes_nothing_away(made: Fixture) -> None:
    for name in ("a", "b"):
        made.api.apply(("one", name), {})
    made.lister.first()
    made.api.breaks_off = True
    made.lister.again()
    assert made.names() == ["one/a", "one/b"]


def test_a_thread_goes_on_after_an_error_and_reports_it(caplog: pytest.LogCaptureFixture) -> None:
    failures, third = list[str](), threading.Event()
    calls = itertools.count(1)

    def work() -> None:
        if next(calls) < 3:
            raise KeyError("unforeseen")
        third.set()

    every = Every("lister", 0.01, work, failures.append)
    every.start()
    assert third.wait(10)
    every.stop()
    assert failures == ["lister", "lister"]
    assert caplog.text.count("unexpected error of the lister") == 2
    assert "unforeseen" in caplog.text


def test_lists_that_fail_unforeseen_make_the_operator_unhealthy(made: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    made.health = made.lister._health = Health({}, 300.0, clock=lambda: now[0])
    made.lister.first()

    def fail(_: object) -> None:
        raise KeyError("unforeseen")

    monkeypatch.setattr(ListsNothing, "list", fail)
    now[0] = 721.0
    with pytest.raises(KeyError):
        made.lister.again()
    assert made.health.unhealthy() == ["no list has come or failed for 721 s"]
