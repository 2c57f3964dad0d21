"""What a start and a reconcile cost: in proportion to the fleet, whatever its policies have in common."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import generate_latest

from partwarden.api.types import ObjectKey
from partwarden.controller.event_handlers import PolicyEventHandler
from partwarden.controller.metrics import Metrics, Sources
from partwarden.controller.ownership import HANDFUL, TableIdentity, TableOwnership
from partwarden.controller.workqueue import Schedule, WorkQueue
from partwarden.kube import cache
from partwarden.kube.cache import Store, parse_policy
from support.steps import steps

pytestmark = pytest.mark.slow
SMALL, LARGE = 100, 1000


def body(number: int, table: str, namespaces: int) -> dict[str, Any]:
    created = f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}Z"
    meta = {"namespace": f"team-{number % namespaces}", "name": f"run-{number}", "uid": str(number)}
    meta |= {"creationTimestamp": created, "resourceVersion": str(number + 1)}
    return {"metadata": meta, "spec": {"table": {"name": table}}, "status": {"conditions": []}}


def in_proportion(work: Callable[[int], object]) -> bool:
    """With ten times the policies at most twelve times the steps; were it quadratic it would be a hundred times."""
    small, large = steps(lambda: work(SMALL)), steps(lambda: work(LARGE))
    assert small > SMALL
    return large <= 12 * small


@pytest.mark.parametrize("namespaces", [1, 20, LARGE])
def test_the_queue(namespaces: int) -> None:
    def work(count: int) -> None:
        schedule = Schedule(4, lambda key: None)
        for number in range(count):
            schedule.enqueue((f"team-{number % namespaces}", f"run-{number}"), 0)
        done = 0
        while (key := schedule.pop(done)) is not None:
            schedule.next_due()
            schedule.done(key, 1e9)
            done += 1
        assert done == count

    assert in_proportion(work)


@pytest.mark.parametrize("backwards", [False, True], ids=["oldest first", "youngest first"])
@pytest.mark.parametrize("of_one_table", [1, 10])
def test_claims_of_tables(of_one_table: int, backwards: bool) -> None:
    def work(count: int) -> None:
        store, enqueued = Store(), list[ObjectKey]()
        ownership = TableOwnership(enqueued.append)
        policies = [parse_policy(body(number, f"run_{number // of_one_table}", 20)) for number in range(count)]
        for policy in policies:
            store.put(policy)
        for policy in policies[:: -1 if backwards else 1] * 2:
            ownership.claim(policy.key, TableIdentity("7/5", int(policy.uid) // of_one_table), policy.age)
            ownership.older(policy.key)
            ownership.unknown(policy, store)
            ownership.note(policy.key)
        # Each that is new concerns one of its namespace, and a handful of others.
        assert len(enqueued) <= (1 + HANDFUL) * count
        for policy in policies:
            ownership.release(policy.key)

    assert in_proportion(work)


def test_policies_of_one_table_that_come_the_youngest_first_are_not_all_enqueued_by_each() -> None:
    enqueued = list[ObjectKey]()
    ownership = TableOwnership(enqueued.append)
    for policy in reversed([parse_policy(body(number, "run", 1)) for number in range(500)]):
        assert ownership.claim(policy.key, TableIdentity("7/5", 1), policy.age) is None
    assert len(enqueued) == 499


def test_an_action_costs_the_same_however_many_policies_claim_the_table() -> None:
    def work(count: int) -> int:
        ownership = TableOwnership(lambda key: None)
        policies = [parse_policy(body(number, "run", count)) for number in range(count)]
        for policy in policies:
            ownership.claim(policy.key, TableIdentity("7/5", 1), policy.age)
        return steps(lambda: ownership.older(policies[-1].key))

    assert work(SMALL) == work(LARGE)


def test_a_list() -> None:
    def work(count: int) -> None:
        store, queue = Store(), WorkQueue()
        handler = PolicyEventHandler(store, TableOwnership(queue.enqueue), queue)
        for _ in range(2):
            handler.listed(store.all(), (body(number, "run", 20) for number in range(count)))
        assert len(store.all()) == count

    assert in_proportion(work)


def test_a_scrape_parses_only_the_statuses_that_have_changed_since_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    store, parsed = Store(), list[object]()
    metrics = Metrics(Sources(store, list, {}))
    for number in range(50):
        store.put(parse_policy(body(number, "run", 5)))

    def loads(text: bytes) -> Any:
        parsed.append(text)
        return json.loads(text)

    monkeypatch.setattr(cache, "json", type("json", (), {"loads": staticmethod(loads), "dumps": json.dumps}))
    first = generate_latest(metrics.registry)
    assert len(parsed) == 50
    for _ in range(3):
        generate_latest(metrics.registry)
    assert len(parsed) == 50
    changed = body(7, "run", 5)
    changed["metadata"]["resourceVersion"] = "99"
    changed["status"] = {"summary": {"partitions": 3}}
    store.put(parse_policy(changed))
    store.remove(("team-0", "run-0"))
    last = generate_latest(metrics.registry).decode()
    assert len(parsed) == 51
    assert 'partwarden_policy_partitions{namespace="team-2",policy="run-7"} 3.0' in last
    assert 'policy="run-0"' not in last
    assert 'policy="run-0"' in first.decode()
