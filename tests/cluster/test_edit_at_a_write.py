"""What somebody edits in the moment in which the operator writes a status: no later version shows it once more.

No watch runs here. It would show the edit right before the status, and in the worst case only after the operator knows
a newer version, by which it then calls both of them old.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from lab.postgres import Database
from lab.site import RUN, Site, is_unseen, partitions
from lab.tended import Meanwhile
from partwarden.controller.archive_requests import ArchiveRequests
from partwarden.controller.event_handlers import PolicyEventHandler
from partwarden.controller.ownership import TableOwnership
from partwarden.controller.policy_reconciler import PolicyReconciler
from partwarden.controller.runtime import Runtime
from partwarden.controller.settings import Settings
from partwarden.kube.archives import ArchivesInCluster
from partwarden.kube.cache import ArchiveCache
from partwarden.kube.config import configure

YEAR = datetime.now(UTC).year
OLD = f"run_{YEAR - 3}"
EXPIRED = f"CREATE TABLE {OLD} PARTITION OF run FOR VALUES FROM ('{YEAR - 3}-01-01Z') TO ('{YEAR - 2}-01-01Z');"
SPEC: dict[str, Any] = {"premake": 0, "resync": "1h", "startFrom": f"{YEAR}-01-01"}


class Unwatched:
    """An operator that is shown its policy once, and looks when it is due."""

    def __init__(self, site: Site, selector: str = "") -> None:
        self.key = (site.namespace, "run")
        settings = Settings(kubeconfig=site.operator().kubeconfig, selector=selector)
        self.cluster = Meanwhile(configure(settings.kubeconfig), selector=selector)
        runtime = Runtime(self.cluster, settings)
        self.store, self.queue = runtime.policies, runtime.policy_queue
        self.claims = TableOwnership(self.queue.enqueue)
        archives = ArchiveRequests(ArchiveCache(), ArchivesInCluster(self.cluster), lambda key: None)
        self.intake = PolicyEventHandler(self.store, self.claims, self.queue)
        self.reconciler = PolicyReconciler(runtime, self.intake, self.claims, archives, lambda *_: None)
        self.intake.seen(site.policy())

    def look(self) -> bool:
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


def test_a_hold(site: Site, unwatched: Callable[[], Unwatched]) -> None:
    operator = unwatched()
    operator.cluster.what = lambda: site.kubectl(
        "annotate", "ppol/run", "--namespace", site.namespace, f"partwarden.dev/hold={OLD}"
    )
    assert operator.look()
    assert operator.look()
    assert not operator.look()
    held = operator.store.get(operator.key)
    assert held is not None
    assert held.held == {OLD}


def test_another_spec(site: Site, pg_database: Database, unwatched: Callable[[], Unwatched]) -> None:
    operator = unwatched()
    operator.cluster.what = lambda: site.apply("run", {**SPEC, "premake": 1})
    assert operator.look()
    assert partitions(pg_database) == [OLD, f"run_{YEAR}"]
    assert operator.look()
    assert partitions(pg_database) == [OLD, f"run_{YEAR}", f"run_{YEAR + 1}"]
    assert not operator.look()


def test_its_deletion(site: Site, unwatched: Callable[[], Unwatched]) -> None:
    operator = unwatched()
    operator.cluster.what = lambda: site.delete("run")
    assert operator.look()
    assert operator.store.all() == []


def label(site: Site, shard: str) -> None:
    site.kubectl("label", "ppol/run", "--namespace", site.namespace, f"shard={shard}", "--overwrite")


def test_its_label(site: Site, unwatched: Callable[..., Unwatched]) -> None:
    label(site, "a")
    operator = unwatched("shard=a")
    operator.cluster.what = lambda: label(site, "b")
    assert operator.look()
    assert operator.store.all() == []
    # It is looked at once more, to be forgotten, and what it says is another's from now on.
    version = site.policy()["metadata"]["resourceVersion"]
    assert operator.look()
    assert not operator.look()
    assert site.policy()["metadata"]["resourceVersion"] == version


def test_its_label_while_it_is_looked_at(
    site: Site, pg_database: Database, unwatched: Callable[..., Unwatched]
) -> None:
    label(site, "a")
    operator = unwatched("shard=a")
    before = site.policy()

    def move() -> None:
        label(site, "b")
        operator.intake.deleted(site.policy())

    operator.cluster.early = move
    assert operator.look()
    # What had not begun when it moved is not done: that, the status and the table are another operator's.
    assert partitions(pg_database) == [OLD]
    assert is_unseen(before)
    assert is_unseen(site.policy())
    assert operator.look()
    assert not operator.look()
    assert operator.claims._claims == {}
