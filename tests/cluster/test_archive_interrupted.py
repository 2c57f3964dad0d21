"""An operator killed before and after each of its writes: the next one continues from the observed state."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from lab.archives import IMAGE, NOWHERE, S3, Archives, oid, proof
from lab.operator import until
from lab.postgres import Database
from lab.site import Site, partitions
from partwarden.api.archive import ARCHIVE_PLURAL
from partwarden.archive.job_order import Task
from partwarden.controller import database_work
from partwarden.controller.archive_database import find_table
from partwarden.controller.archive_reconciler import ArchiveReconciler
from partwarden.controller.archive_requests import ArchiveRequests
from partwarden.controller.event_handlers import ArchiveEventHandler, PolicyEventHandler
from partwarden.controller.job_slots import JobSlots
from partwarden.controller.ownership import TableOwnership
from partwarden.controller.policy_reconciler import PolicyReconciler
from partwarden.controller.runtime import Runtime
from partwarden.controller.settings import Settings
from partwarden.controller.shard import Shard
from partwarden.controller.workqueue import WorkQueue
from partwarden.kube.cache import ArchiveCache, parse_policy
from partwarden.kube.client import Cluster
from partwarden.kube.config import configure
from partwarden.postgres import fingerprint
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn
from support.in_process import in_this_process, long_actions, look

YEAR = datetime.now(UTC).year
OLD = f"run_{YEAR - 3}"
TABLE = f"""
CREATE TABLE run (id bigint NOT NULL, at timestamptz NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE {OLD} PARTITION OF run FOR VALUES FROM ('{YEAR - 3}-01-01Z') TO ('{YEAR - 2}-01-01Z');
INSERT INTO run SELECT number, '{YEAR - 3}-05-05Z' FROM generate_series(1, 3) number;
"""
SPEC: dict[str, Any] = {
    "premake": 0,
    "startFrom": f"{YEAR}-01-01",
    "retention": {
        "keepFor": "1y",
        "onExpire": "Drop",
        "grace": "0s",
        "archive": S3,
        "job": {"nodeSelector": NOWHERE},
    },
}
MOST_LIVES = 120


class Killed(BaseException):
    """As SIGKILL, but for the process."""


class Mortal(Cluster):
    """Its operator is killed when it changes something in the cluster: before that is done, or right after."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(configure(settings.kubeconfig))
        self.mortal, self.early = True, False
        self.done: list[str] = []

    def call(self, what: str, *arguments: Any, **options: Any) -> Any:
        if not self.mortal or not what.startswith(("create", "take", "record")):
            return super().call(what, *arguments, **options)
        if self.early:
            raise Killed
        super().call(what, *arguments, **options)
        self.done.append(" ".join(what.split()[:2]))
        raise Killed


class Lives:
    """Operators one after the other, each without memory, all with the rights of a real one."""

    def __init__(self, site: Site) -> None:
        self.namespace, self.key = site.namespace, (site.namespace, "run")
        self.settings = Settings(kubeconfig=site.operator().kubeconfig, job_image=IMAGE)
        self.cluster = Mortal(self.settings)
        self.ahead = timedelta()
        """By how much the operators' clock is."""

    def live(self, early: bool) -> bool:
        """One operator reconciles the policy and every archive once; whether it ended by itself."""
        self.cluster.early = early
        clock = lambda: datetime.now(UTC) + self.ahead  # noqa: E731
        runtime = Runtime(self.cluster, self.settings, clock)
        archive_queue = WorkQueue()
        store, queue, ownership = runtime.policies, runtime.policy_queue, TableOwnership(lambda key: None)
        archives, shard = ArchiveCache(), Shard(store)
        slots = JobSlots(self.settings, archives, shard, archive_queue.enqueue, clock)
        intake = ArchiveEventHandler(self.cluster, archives, slots, shard, archive_queue, queue)
        requests = ArchiveRequests(archives, self.cluster, archive_queue.enqueue)
        find = partial(find_table, self.cluster, self.settings, in_this_process)
        jobs = ArchiveReconciler(self.cluster, archives, requests, shard, slots, find, self.settings, clock)
        handler = PolicyEventHandler(store, ownership, queue)
        reconciler = PolicyReconciler(
            *(runtime, handler, ownership, requests, database_work.work),
            *(look, long_actions(runtime), lambda *_: None),
        )
        try:
            for body in self.cluster.policies(self.namespace):
                store.put(parse_policy(body))
            for body in self.cluster.objects(ARCHIVE_PLURAL, self.namespace):
                intake.seen(body)
            reconciler.reconcile(self.key)
            for body in self.cluster.objects(ARCHIVE_PLURAL, self.namespace):
                intake.seen(body)
                jobs.reconcile((self.namespace, body["metadata"]["name"]))
        except Killed:
            return False
        finally:
            reconciler.stop()
        return True


def what_is_held(database: Database) -> dict[str, Any]:
    """The report of a Job that archived the present contents of the old table."""
    with session(from_dsn(database.dsn)) as connection:
        taken = fingerprint.take(connection, "public", OLD)
    return proof(oid(database, OLD), fingerprint=taken.model_dump(by_alias=True))


def is_over(job: dict[str, Any]) -> bool:
    """Whether the Job has ended."""
    return any(each["type"] in ("Complete", "Failed") for each in job.get("status", {}).get("conditions", []))


def proves(archives: Archives, job: str, held: dict[str, Any]) -> None:
    """The Job's pod ends well, once there is one."""
    until(f"job {job} has a pod", lambda: archives.unfinished(job))
    archives.end(job, held, 0)
    archives.ended(job)


@pytest.fixture
def lives(site: Site, pg_database: Database) -> Lives:
    """No operator has lived yet."""
    pg_database.execute(TABLE)
    site.watch_over(pg_database, **SPEC)
    return Lives(site)


def test_one_archive_two_jobs_and_one_drop_whenever_it_is_killed(
    lives: Lives, site: Site, pg_database: Database
) -> None:
    archives, early, count = Archives(site), False, 0
    held = what_is_held(pg_database)
    there = f"SELECT to_regclass('{OLD}') IS NOT NULL"
    while not lives.live(early) or pg_database.query(there) == [(True,)]:
        early, count = not early, count + 1
        assert count < MOST_LIVES, lives.cluster.done
        for job in archives.jobs():
            if not is_over(job):
                proves(archives, job["metadata"]["name"], held)
        if pg_database.query(there) == [(True,)]:
            assert pg_database.query(f"SELECT count(*) FROM {OLD}") == [(3,)]
    (made,) = archives.kubectl.get("parc")["items"]
    assert made["status"]["check"]["ok"] is True
    tasks = [each["metadata"]["name"].rsplit("-", 2)[1] for each in archives.jobs()]
    assert tasks == [Task.ARCHIVE.lower(), Task.CHECK.lower()]
    done = lives.cluster.done
    assert (done.count("create partitionarchives"), done.count("create jobs")) == (1, 2)


@pytest.mark.parametrize("days", [-2, 2])
def test_an_operators_clock_that_is_wrong_by_days_neither_ends_the_grace_nor_proves_anything(
    lives: Lives, site: Site, pg_database: Database, days: int
) -> None:
    site.apply("run", {**SPEC, "retention": {**SPEC["retention"], "grace": "24h"}})
    lives.cluster.mortal, lives.ahead = False, timedelta(days=days)
    archives, held = Archives(site), what_is_held(pg_database)

    def under_way() -> list[str]:
        lives.live(early=False)
        return [job["metadata"]["name"] for job in archives.jobs() if not is_over(job)]

    (job,) = until("it is archived", under_way)
    proves(archives, job, held)
    until("it is detached", lambda: lives.live(early=False) and OLD not in partitions(pg_database))
    for _ in range(3):
        lives.live(early=False)
    assert pg_database.query(f"SELECT count(*) FROM {OLD}") == [(3,)]
    assert len(archives.jobs()) == 1
