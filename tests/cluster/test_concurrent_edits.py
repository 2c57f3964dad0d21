"""Edits made at the moment at which the operator writes a status: no later version shows them once more.

No watch runs here. It would show the edit right before the status, and in the worst case only after the operator knows
a newer version, by which it then calls both of them old.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from lab.postgres import Database
from lab.reconciled_archive import Meanwhile
from lab.site import RUN, Site, is_unseen, partitions
from partwarden.controller import database_work
from partwarden.controller.archive_requests import ArchiveRequests
from partwarden.controller.event_handlers import PolicyEventHandler
from partwarden.controller.ownership import TableOwnership
from partwarden.controller.policy_reconciler import PolicyReconciler
from partwarden.controller.runtime import Runtime
from partwarden.controller.settings import Settings
from partwarden.kube.cache import ArchiveCache
from partwarden.kube.config import configure
from support.in_process import long_actions, look

YEAR = datetime.now(UTC).year
OLD = f"run_{YEAR - 3}"
EXPIRED = f"CREATE TABLE {OLD} PARTITION OF run FOR VALUES FROM ('{YEAR - 3}-01-01Z') TO ('{YEAR - 2}-01-01Z');"
SPEC: dict[str, Any] = {"premake": 0, "resync": "1h", "startFrom": f"{YEAR}-01-01"}


class Unwatched:
    """An operator that is shown its policy once, and reconciles it when it is due."""

    def __init__(self, site: Site, selector: str = "") -> None:
        self.key = (site.namespace, "run")
        settings = Settings(kubeconfig=site.operator().kubeconfig, selector=selector)
        self.cluster = Meanwhile(configure(settings.kubeconfig), selector=selector)
        runtime = Runtime(self.cluster, settings)
        self.store, self.queue = runtime.policies, runtime.policy_queue
        self.claims = TableOwnership(self.queue.enqueue)
        requests = ArchiveRequests(ArchiveCache(), self.cluster, lambda key: None)
        self.intake = PolicyEventHandler(self.store, self.claims, self.queue)
        self.reconciler = PolicyReconciler(
            *(runtime, self.intake, self.claims, requests, database_work.work),
            *(look, long_actions(runtime), lambda *_: None),
        )
        self.intake.seen(site.policy())

    def run_once(self) -> bool:
        """Whether one was due, and is done."""
        if not self.queue.backlog().due:
            return False
        key = self.queue.take()
        assert key == self.key
        self.queue.done(key, self.reconciler.reconcile(key))
        return True


@pytest.fixture
def unwatched(site: Site, pg_database: Database) -> Iterator[Callable[..., Unwatched]]:
    """Makes the operator, for a policy of a table one of whose partitions is three years old."""
    made: list[Unwatched] = []

    def make(selector: str = "") -> Unwatched:
        made.append(Unwatched(site, selector))
        return made[0]

    pg_database.execute(RUN + EXPIRED)
    site.watch_over(pg_database, **SPEC)
    yield make
    for each in made:
        each.reconciler.stop()


def test_a_hold_written_meanwhile_is_obeyed(site: Site, unwatched: Callable[[], Unwatched]) -> None:
    operator = unwatched()
    operator.cluster.what = lambda: site.kubectl(
        "annotate", "ppol/run", "--namespace", site.namespace, f"partwarden.dev/hold={OLD}"
    )
    assert operator.run_once()
    assert operator.run_once()
    assert not operator.run_once()
    held = operator.store.get(operator.key)
    assert held is not None
    assert held.held == {OLD}


def test_a_spec_written_meanwhile_is_applied(
    site: Site, pg_database: Database, unwatched: Callable[[], Unwatched]
) -> None:
    operator = unwatched()
    operator.cluster.what = lambda: site.apply("run", {**SPEC, "premake": 1})
    assert operator.run_once()
    assert partitions(pg_database) == [OLD, f"run_{YEAR}"]
    assert operator.run_once()
    assert partitions(pg_database) == [OLD, f"run_{YEAR}", f"run_{YEAR + 1}"]
    assert not operator.run_once()


def test_a_deletion_meanwhile_is_obeyed(site: Site, unwatched: Callable[[], Unwatched]) -> None:
    operator = unwatched()
    operator.cluster.what = lambda: site.delete("run")
    assert operator.run_once()
    assert operator.store.all() == []


def label(site: Site, shard: str) -> None:
    site.kubectl("label", "ppol/run", "--namespace", site.namespace, f"shard={shard}", "--overwrite")


def test_a_label_changed_meanwhile_moves_the_policy(site: Site, unwatched: Callable[..., Unwatched]) -> None:
    label(site, "a")
    operator = unwatched("shard=a")
    operator.cluster.what = lambda: label(site, "b")
    assert operator.run_once()
    assert operator.store.all() == []
    # It is reconciled once more, to be forgotten; from now on its status is written by another operator.
    version = site.policy()["metadata"]["resourceVersion"]
    assert operator.run_once()
    assert not operator.run_once()
    assert site.policy()["metadata"]["resourceVersion"] == version


def test_a_label_changed_during_a_reconcile_moves_the_policy(
    site: Site, pg_database: Database, unwatched: Callable[..., Unwatched]
) -> None:
    label(site, "a")
    operator = unwatched("shard=a")
    before = site.policy()

    def move() -> None:
        label(site, "b")
        operator.intake.deleted(site.policy())

    operator.cluster.early = move
    assert operator.run_once()
    # Actions that had not begun when the label changed are not executed: the policy is another operator's.
    assert partitions(pg_database) == [OLD]
    assert is_unseen(before)
    assert is_unseen(site.policy())
    assert operator.run_once()
    assert not operator.run_once()
    assert operator.claims._claims == {}
