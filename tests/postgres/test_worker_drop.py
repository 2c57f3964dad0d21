"""A drop in a worker process: until the operator has answered right before it, nothing is lost, whatever ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from lab.operator import until
from lab.postgres import Database
from partwarden.api.archive import Fingerprint
from partwarden.api.policy import PartitionPolicySpec
from partwarden.controller import database_work
from partwarden.controller.database_process import DatabaseProcesses
from partwarden.controller.database_work import KeySearch, Supervisor, WorkReport, WorkRequest, find_keys
from partwarden.errors import ClusterUnavailable, WorkerFailed
from partwarden.planner.drop_preconditions import UNKNOWN, Archives, ArchiveState
from partwarden.planner.recheck import Withdrawn
from partwarden.postgres.conninfo import from_dsn
from partwarden.status.events import CompletedAction, DroppedTable
from support import worker_tasks
from support.archived import here
from support.retirement import DROP, ROWS, YEARS

RETENTION = DROP["retention"] | {"grace": "0s"}
KEYS = (1, 2, 3)
OURS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'partwarden' AND datname = current_database()"


class Ended(BaseException):
    """The thread of the operator that answers ends."""


class Answers(Supervisor):
    """An operator that answers the last question before a drop as the test wants."""

    def __init__(self, latest: Callable[[], object] = lambda: None) -> None:
        self._latest, self.done, self.dropped = latest, list[str](), list[DroppedTable]()

    def latest(self, server: str) -> tuple[frozenset[str], Archives]:
        self._latest()
        return frozenset(), Archives()

    def did(self, action: CompletedAction) -> None:
        self.done.append(action.reason)
        self.dropped += [action.dropped] if action.dropped else []


class Rivals(Answers):
    """An operator that knows of a rival, and has it look for the locks of the session."""

    def __init__(self, database: Database, refuses_at: int = 0) -> None:
        super().__init__()
        self._database, self._refuses_at = database, refuses_at
        self.seen: list[tuple[set[int], bool]] = []
        """What the rival saw each time, and whether the table was locked against all others then."""

    def challenge(self) -> tuple[int, ...]:
        return KEYS

    def compare(self) -> None:
        locked = "SELECT count(*) FROM pg_locks WHERE relation = 'run_2018'::regclass AND mode = 'AccessExclusiveLock'"
        ((count,),) = self._database.query(locked)
        self.seen.append((find(self._database), count != 0))

    def latest(self, server: str) -> tuple[frozenset[str], Archives]:
        if len(self.seen) == self._refuses_at:
            raise Withdrawn("an older policy of another namespace has claimed the table")
        return super().latest(server)


def find(database: Database) -> set[int]:
    search = KeySearch(connection=from_dsn(database.dsn), connect_timeout=10, first=KEYS[0])
    return set(find_keys(search, Supervisor()))


@pytest.fixture
def processes() -> Iterator[DatabaseProcesses]:
    made = DatabaseProcesses(256 * 1024 * 1024, observation=60.0)
    yield made
    made.close()


@pytest.fixture
def detached(database: Database, processes: DatabaseProcesses) -> Database:
    """The table of 2018 was detached by a worker, and is to be dropped."""
    database.execute(YEARS)
    supervisor = Answers()
    run(processes, database, supervisor)
    assert supervisor.done == ["PartitionDetached"]
    return database


def run(
    processes: DatabaseProcesses, database: Database, supervisor: Supervisor, archives: Archives = UNKNOWN
) -> WorkReport:
    spec: dict[str, Any] = {"database": {"secretRef": {"name": "db"}}, "table": {"name": "run"}, **DROP}
    request = WorkRequest(
        spec=PartitionPolicySpec.model_validate(spec | {"retention": RETENTION}),
        connection=from_dsn(database.dsn),
        held=frozenset(),
        archives=archives,
        patience=5.0,
        connect_timeout=10,
    )
    return processes.run(database_work.work, request, supervisor)


def raised(error: BaseException) -> Callable[[], None]:
    def latest() -> None:
        raise error

    return latest


@pytest.mark.parametrize("how", ["the worker is killed", "the operator ends", "its thread ends"])
def test_what_ends_before_the_answer_drops_nothing_and_the_next_run_does(
    detached: Database, processes: DatabaseProcesses, how: str
) -> None:
    if how == "the worker is killed":
        worker = processes.run(worker_tasks.pid, None, Answers())
        with pytest.raises(WorkerFailed, match=r"exit code -9 while drop public\.run_2018"):
            run(processes, detached, Answers(lambda: os.kill(worker, signal.SIGKILL)))
    elif how == "the operator ends":
        ending = DatabaseProcesses(256 * 1024 * 1024, observation=60.0)
        with pytest.raises(WorkerFailed):
            run(ending, detached, Answers(ending.close))
    else:
        with pytest.raises(Ended):
            run(processes, detached, Answers(raised(Ended())))
    until("the session is gone", lambda: detached.query(OURS) == [(0,)])
    assert detached.query("SELECT count(*) FROM run_2018") == [(ROWS,)]
    again = Answers()
    run(processes, detached, again)
    assert again.done == ["PartitionDropped"]


@pytest.mark.parametrize(
    "error",
    [Withdrawn("its policy was edited"), ClusterUnavailable("no answer")],
    ids=["withdrawn", "no answer"],
)
def test_an_operator_that_refuses_or_does_not_know_keeps_the_table(
    detached: Database, processes: DatabaseProcesses, error: Exception
) -> None:
    supervisor = Answers(raised(error))
    report = run(processes, detached, supervisor)
    assert supervisor.done == []
    assert str(error) in (report.stopped or report.update.ready.message)
    assert detached.query("SELECT count(*) FROM run_2018") == [(ROWS,)]


@pytest.mark.parametrize("refuses", [False, True])
def test_a_rival_is_asked_after_the_claim_and_once_more_in_the_transaction_of_the_drop(
    detached: Database, processes: DatabaseProcesses, refuses: bool
) -> None:
    supervisor = Rivals(detached, refuses_at=2 if refuses else 0)
    run(processes, detached, supervisor)
    both = {*KEYS[1:]}
    assert supervisor.seen == [(both, False), (both, True)]
    assert supervisor.done == ([] if refuses else ["PartitionDropped"])
    assert find(detached) == set()


def archived(database: Database, *oids: int, **fields: Any) -> Archives:
    """A proven archive of each."""
    taken = Fingerprint(algorithm="test", rows=1, content="c" * 64)
    made = {oid: ArchiveState(f"run-{oid}", 0, here(database), oid, True, taken) for oid in oids}
    return Archives({oid: (replace(state, **fields),) for oid, state in made.items()})


def test_tables_of_archives_that_are_gone_are_reported_until_their_archives_say_so(
    detached: Database, processes: DatabaseProcesses
) -> None:
    ((attached, gone, other),) = detached.query(
        "SELECT 'run_2026'::regclass::oid::int8, 'run_2018'::regclass::oid::int8, 'pg_class'::regclass::oid::int8"
    )
    assert isinstance(attached, int)
    assert isinstance(gone, int)
    assert isinstance(other, int)
    known = archived(detached, attached, gone, other)
    held = Answers(raised(Withdrawn("it is held")))
    # A table that is no partition, nor detached by the mark in its comment, is there all the same.
    assert run(processes, detached, held, known).missing == ()
    dropping = Answers()
    assert run(processes, detached, dropping, known).missing == ()
    assert dropping.done == ["PartitionDropped"]
    assert run(processes, detached, Answers(), known).missing == (gone,)
    for other_archives in (
        archived(detached, gone, dropped=True),
        archived(detached, gone, proven=False),
        archived(detached, gone, server="another"),
    ):
        assert run(processes, detached, Answers(), other_archives).missing == ()
