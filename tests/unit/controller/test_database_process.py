"""What hangs, dies, lies or takes too much memory costs one worker process, and nothing of the operator's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.leftovers import runs
from lab.operator import until
from partwarden.api.policy import PartitionPolicySpec
from partwarden.controller import database_work
from partwarden.controller.database_process import DatabaseProcesses, WorkerDefect
from partwarden.controller.database_work import Supervisor, WorkRequest
from partwarden.errors import ClusterUnavailable, DatabaseUnresponsive, PolicyConflict, TableBusy, WorkerFailed
from partwarden.planner.drop_preconditions import Archives
from partwarden.planner.recheck import Step, Withdrawn
from partwarden.postgres.conninfo import ConnectionInfo
from partwarden.status.events import CompletedAction
from support import worker_tasks

# They start processes.
pytestmark = pytest.mark.slow
MIB = 1024 * 1024


class Asked(Supervisor):
    """Answers, and remembers what it was asked."""

    def __init__(self) -> None:
        self.done: list[CompletedAction] = []
        self.phases: list[tuple[str, float | None]] = []
        self.claims: list[tuple[str, int, str]] = []
        self.refuses: Exception | None = None
        self.compared = 0

    def begins(self, what: str, seconds: float | None, step: Step | None = None) -> None:
        self.phases.append((what, seconds))

    def claim(self, server: str, oid: int, table: str) -> None:
        self.claims.append((server, oid, table))
        if self.refuses:
            raise self.refuses

    def challenge(self) -> tuple[int, ...]:
        return 1, 2, 3

    def compare(self) -> None:
        self.compared += 1

    def why_stopped(self) -> str:
        return "the operator ends"

    def latest(self, server: str) -> tuple[frozenset[str], Archives]:
        return frozenset({"run_2019"}), Archives(approved=frozenset({"run_2018"}))

    def did(self, action: CompletedAction) -> None:
        self.done.append(action)


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def processes() -> Iterator[DatabaseProcesses]:
    made = DatabaseProcesses(256 * MIB, observation=30.0)
    yield made
    made.close()


@pytest.fixture
def hasty() -> Iterator[DatabaseProcesses]:
    made = DatabaseProcesses(256 * MIB, observation=0.3)
    yield made
    made.close()


def test_work_runs_in_another_process_that_is_used_again(processes: DatabaseProcesses, asked: Asked) -> None:
    first = processes.run(worker_tasks.pid, None, asked)
    assert first != os.getpid()
    assert processes.run(worker_tasks.pid, None, asked) == first


def test_a_worker_has_nothing_of_kubernetes_in_its_memory(processes: DatabaseProcesses, asked: Asked) -> None:
    found = processes.run(worker_tasks.surroundings, None, asked)
    modules = {each.partition(".")[0] for each in found["modules"]}
    assert not modules & {"kubernetes", "kopf", "aiohttp", "urllib3", "obstore", "click"}
    assert not [each for each in found["modules"] if each.startswith("partwarden.kube")]
    assert "partwarden-worker-" in found["temporary"]


def test_the_operator_answers_what_the_work_asks(processes: DatabaseProcesses, asked: Asked) -> None:
    answers = processes.run(worker_tasks.ask, None, asked)
    assert answers == ["the operator ends", asked.latest("server")]
    assert (asked.claims, asked.compared) == ([("server", 4711, "public.run")], 1)


@pytest.mark.parametrize("error", [PolicyConflict("two/older has it"), ClusterUnavailable("none"), Withdrawn("edited")])
def test_what_the_operator_refuses_ends_the_work(processes: DatabaseProcesses, asked: Asked, error: Exception) -> None:
    asked.refuses = error
    with pytest.raises(type(error), match=str(error)):
        processes.run(worker_tasks.ask, None, asked)


@pytest.mark.parametrize(("how", "error"), [("error", TableBusy), ("withdrawn", Withdrawn), ("defect", WorkerDefect)])
def test_errors_come_back_as_what_they_were(
    processes: DatabaseProcesses, asked: Asked, how: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"cannot lock|edited|KeyError(.|\n)*worker_tasks.py"):
        processes.run(worker_tasks.fail, how, asked)


@pytest.mark.parametrize("how", ["exit", "killed", "memory"])
def test_a_process_that_ends_is_replaced_and_its_end_is_said(
    processes: DatabaseProcesses, asked: Asked, how: str
) -> None:
    before = processes.run(worker_tasks.pid, None, asked)
    with pytest.raises(WorkerFailed, match=r"ended with exit code (3|-9|1) while beginning"):
        processes.run(worker_tasks.fail, how, asked)
    assert processes.run(worker_tasks.pid, None, asked) != before
    assert not psutil.pid_exists(before)


def test_what_hangs_is_ended_at_its_deadline_and_what_it_did_is_known(hasty: DatabaseProcesses, asked: Asked) -> None:
    worker = hasty.run(worker_tasks.pid, None, asked)
    with pytest.raises(DatabaseUnresponsive, match=r"for \d+ s while reading what never comes: the process was ended"):
        hasty.run(worker_tasks.sleep, 600.0, asked)
    assert asked.done == [worker_tasks.DONE]
    assert not psutil.pid_exists(worker)


def test_a_step_that_says_how_long_it_lasts_has_that_time(hasty: DatabaseProcesses, asked: Asked) -> None:
    assert hasty.run(worker_tasks.last, 0.6, asked) == "done"
    assert asked.phases[-1][0] == "vacuum public.run_2020"
    assert 50 < (asked.phases[-1][1] or 0) <= 60


def test_what_must_be_brief_has_a_process_of_its_own_and_no_step_is_longer(
    processes: DatabaseProcesses, asked: Asked
) -> None:
    worker = processes.run(worker_tasks.pid, None, asked)
    brief = processes.run(worker_tasks.pid, None, asked, 30.0)
    assert brief != worker
    assert not psutil.pid_exists(brief)
    # It says of a step that it lasts a minute.
    with pytest.raises(DatabaseUnresponsive, match=r"for \d s while vacuum public.run_2020"):
        processes.run(worker_tasks.last, 600.0, asked, 5.0)
    assert processes.run(worker_tasks.pid, None, asked) == worker


@pytest.mark.parametrize(
    "how",
    [
        "a call",
        "a call of this program's own",
        "a class through a module of ours",
        "a class that a module of ours imports",
        "no pickle",
        "a class that is not there",
        "no tuple",
        "another kind",
        "another method",
        "too much",
        "half a message",
    ],
)
def test_what_a_worker_sends_can_call_nothing_in_the_operator(
    processes: DatabaseProcesses, asked: Asked, how: str
) -> None:
    folder = processes.run(worker_tasks.surroundings, None, asked)["temporary"]
    with pytest.raises(WorkerFailed):
        processes.run(worker_tasks.attack, how, asked)
    assert not Path(folder).exists()


def test_a_server_that_says_nothing_costs_a_reconcile_its_deadline(hasty: DatabaseProcesses, asked: Asked) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        parameters = {"host": "127.0.0.1", "port": str(port), "dbname": "d", "user": "u", "sslmode": "disable"}
        spec = PartitionPolicySpec.model_validate({"database": {"secretRef": {"name": "db"}}, "table": {"name": "run"}})
        request = WorkRequest(
            spec=spec,
            connection=ConnectionInfo(parameters),
            held=frozenset(),
            archives=Archives(),
            patience=1.5,
            connect_timeout=600,
        )
        with pytest.raises(DatabaseUnresponsive, match="while connecting to the database"):
            hasty.run(database_work.work, request, asked)


def test_several_work_at_once_in_processes_of_their_own(processes: DatabaseProcesses) -> None:
    ended: list[Any] = []

    def work() -> None:
        ended.append(processes.run(worker_tasks.last, 0.2, Asked()))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert ended == ["done"] * 3


def test_the_end_of_the_operator_leaves_no_process(asked: Asked) -> None:
    processes = DatabaseProcesses(256 * MIB, observation=30.0)
    worker = psutil.Process(processes.run(worker_tasks.pid, None, asked))
    processes.close()
    assert not worker.is_running()
    with pytest.raises(WorkerFailed, match="the operator ends"):
        processes.run(worker_tasks.pid, None, asked)


PROGRAM = """
import os, signal, sys
from partwarden.controller.database_process import DatabaseProcesses
from partwarden.controller.database_work import Supervisor
from support import worker_tasks

class Tells(Supervisor):
    def did(self, action):
        print(action.title, flush=True)

if __name__ == "__main__":
    processes = DatabaseProcesses(256 * 1024 * 1024, 600.0)
    print(processes.run(worker_tasks.pid, None, Tells()), flush=True)
    processes.run(worker_tasks.sleep, 600.0, Tells())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_an_operator_that_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "ends.py"
    script.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as program:
        assert program.stdout is not None
        worker = psutil.Process(int(program.stdout.readline()))
        assert program.stdout.readline() == "run_2027\n"
        children = psutil.Process(program.pid).children(recursive=True)
        program.send_signal(number)
        program.wait(30)
    until("the worker and all that belongs to it end", lambda: not any(map(runs, {worker, *children})))
