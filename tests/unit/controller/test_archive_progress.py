"""How far a running Job is: asked for rarely, written in steps, never taken back, and never in the way."""

from __future__ import annotations

from typing import Any

import pytest

from partwarden.api.archive import ARCHIVE_PLURAL
from partwarden.controller.archive_database import AFTER_FAILURE, EVERY, ArchiveProgress
from partwarden.controller.database_process import WorkerDefect
from partwarden.controller.database_work import Supervisor
from partwarden.controller.dump_progress import CopySearch, find_copy
from partwarden.controller.settings import Settings
from partwarden.controller.shard import Shard
from partwarden.errors import DatabaseUnresponsive
from partwarden.kube.cache import Store, parse_archive
from support.cluster import ApiServer

SPEC: dict[str, Any] = {
    "database": {"secretRef": {"name": "db"}},
    "partition": "run_2020",
    "destination": {"pvc": {"claimName": "archives"}},
}


class Server:
    """A database that says how much is copied, or fails."""

    def __init__(self) -> None:
        self.kubernetes, self.now, self.asked = ApiServer(), 0.0, list[CopySearch]()
        self.says: int | Exception | None = None
        self.kubernetes.secrets["ns", "db"] = {"uri": "postgresql://app@db/app"}
        shard = Shard(Store())
        cluster = self.kubernetes.cluster()
        self.progress = ArchiveProgress(cluster, Settings(), shard, self.execute, lambda: self.now)

    def execute(self, function: object, request: CopySearch, supervisor: Supervisor) -> int | None:
        assert function is find_copy
        self.asked.append(request)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    def of(self, says: int | Exception | None, before: int | None = None, after: float = EVERY) -> int | None:
        """What is to be written, so many seconds later."""
        self.says, self.now = says, self.now + after
        status = {"oid": 16402} | ({} if before is None else {"progress": before})
        body = {"metadata": {"namespace": "ns", "name": "by-hand"}, "spec": SPEC, "status": status}
        return self.progress.of(parse_archive(self.kubernetes.put(ARCHIVE_PLURAL, body)))


@pytest.fixture
def asking() -> Server:
    found = Server()
    assert found.of(50, after=0) is None
    return found


def test_a_short_job_is_never_asked_for_and_a_long_one_every_half_minute(asking: Server) -> None:
    assert asking.of(50, after=EVERY - 1) is None
    assert asking.asked == []
    assert asking.of(50, after=1) == 50
    assert asking.of(60, 50, after=EVERY - 1) is None
    assert asking.of(60, 50, after=1) == 60
    assert [each.oid for each in asking.asked] == [16402, 16402]


def test_it_goes_up_in_steps_of_five_and_never_down(asking: Server) -> None:
    assert asking.of(0) == 0
    assert asking.of(4, 0) == 0
    assert asking.of(49, 0) == 45
    assert asking.of(30, 45) == 45
    # More rows than were estimated.
    assert asking.of(100, 45) == 95


def test_a_dump_that_was_seen_and_is_no_more_is_proven_now(asking: Server) -> None:
    assert asking.of(None) is None
    assert asking.of(None, 0) == 100
    assert asking.of(50, 100) is None
    assert len(asking.asked) == 2


@pytest.mark.parametrize("error", [DatabaseUnresponsive("no answer"), WorkerDefect("ValueError", "")])
def test_a_database_that_does_not_answer_is_left_alone_for_a_while(asking: Server, error: Exception) -> None:
    assert asking.of(error, 45) is None
    assert asking.of(50, 45, after=AFTER_FAILURE - 1) is None
    assert len(asking.asked) == 1
    assert asking.of(50, 45, after=1) == 50


def test_without_the_secret_nothing_is_asked(asking: Server) -> None:
    asking.kubernetes.secrets.clear()
    assert asking.of(50) is None
    assert asking.asked == []
