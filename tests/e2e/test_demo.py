"""The demo keeps its promises when it is repeated, interrupted or killed, and its removal leaves nothing."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
import yaml

from demo import operating
from demo.database import NO_PARTITION
from demo.files import CHECKOUT, Files
from lab import report
from lab.cluster import choice, folders
from lab.cluster import state as clusters
from lab.leftovers import runs

Aloud = Callable[[], AbstractContextManager[None]]

PREFIX = "demo-test-"
PATIENCE = 900.0
"""Seconds for one run; the very first one builds a cluster's commands."""

TABLE_ROW = re.compile(r"^ (run_\d{4}) +\| FROM \(.*\) TO \(.*\) +\| +(\d+) \| +\d+ (?:bytes|kB|MB)$", re.MULTILINE)


class Demo:
    """A demo under a name of its own, so that one that the user runs is left alone."""

    def __init__(self, name: str, home: Path) -> None:
        self.files = Files(name)
        # The user's shell must not matter: this file and these addresses are invalid.
        self.kubeconfig = home / ".kube" / "config"
        self.kubeconfig.parent.mkdir(parents=True)
        self.kubeconfig.write_text("{this is not a kubeconfig")
        self.environment = dict(
            os.environ,
            PYTHONPATH=os.pathsep.join([str(folders.LAB.parent), str(CHECKOUT / "examples")]),
            XDG_CACHE_HOME=str(folders.cache().parent),
            HOME=str(home),
            KUBECONFIG=str(self.kubeconfig),
            PGHOST="no.such.host.invalid",
            PGPASSWORD="wrong",
        )
        if self.environment.get(choice.VARIABLE) == choice.EXISTING:
            del self.environment[choice.VARIABLE]  # a demo may only be tested in a cluster of its own

    def begin(self, command: str) -> subprocess.Popen[str]:
        """Start a command, with its output in a pipe."""
        return subprocess.Popen(
            [sys.executable, "-m", "demo", command, "--name", self.files.name],
            env=self.environment,
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str) -> tuple[int, str]:
        """Run a command. Returns its exit code and its output."""
        with self.begin(command) as process:
            try:
                said, _ = process.communicate(timeout=PATIENCE)
            finally:
                process.kill()
        return process.returncode, said

    def end_at(self, step: int, number: signal.Signals) -> tuple[int, str]:
        """Start `up`, send it a signal when it has begun a step, and return its exit code and its output."""
        before = []
        with self.begin("up") as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    before.append(line)
                    if line.startswith(f"[{step}/"):
                        process.send_signal(number)
                process.wait(60)
            finally:
                process.kill()
        return process.returncode, "".join(before)

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a line as it is pasted into a shell in the checkout."""
        environment = {name: value for name, value in self.environment.items() if name != "PYTHONPATH"}
        # kubectl's cache belongs to its user, unless the demo itself runs it.
        environment["KUBECACHEDIR"] = str(self.kubeconfig.parent.parent / "kubectl")
        return subprocess.run(
            ["/bin/sh", "-c", command], cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=150
        )

    def processes(self) -> list[psutil.Process]:
        """The processes of the demo and of its server."""
        places = (str(self.files.folder), str(self.files.server))
        found = []
        for process in psutil.process_iter():
            try:
                if any(place in " ".join(process.cmdline()) for place in places):
                    found.append(process)
            except psutil.Error:
                continue  # it has ended, or is another user's
        return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, aloud: Aloud) -> Iterator[Demo]:
    """The demo, not started; what a killed test run left is removed first."""
    for folder in (folders.cache() / "demos").glob(f"{PREFIX}*"):
        if not psutil.pid_exists(int(folder.name.removeprefix(PREFIX))):
            Demo(folder.name, tmp_path_factory.mktemp("home")).run("down")
    tested = Demo(f"{PREFIX}{os.getpid()}", tmp_path_factory.mktemp("home"))
    with aloud():
        print("\nthe demo: interrupted, killed, run, run again and ended ...", flush=True)
    yield tested
    code, said = tested.run("down")
    assert code == 0, said


def years() -> list[int]:
    """The years whose partitions the policy wants: this one and the next two."""
    this = datetime.now(UTC).year
    return [this, this + 1, this + 2]


def expired() -> list[str]:
    """The partitions that a policy drops which keeps five years: the youngest row that each could hold is older."""
    return [f"run_{year}" for year in range(2019, years()[0] - 5)]


def check_promises(code: int, said: str) -> None:
    """Check the output of a run of the demo."""
    assert code == 0, said
    before, after = said.split(NO_PARTITION)
    assert sum(int(rows) for _, rows in TABLE_ROW.findall(before)) == 200_000, said
    assert [name for name, _ in TABLE_ROW.findall(before)] == [f"run_{year}" for year in range(2019, 2026)], said
    made, _, retired = after.partition("are archived, proven, and dropped")
    shown = dict(TABLE_ROW.findall(made))
    assert sum(map(int, shown.values())) == 200_001, said
    assert list(shown) == [f"run_{year}" for year in range(2019, max(years()[-1], 2025) + 1)], said
    assert "partitionpolicy.partwarden.dev/run condition met" in made
    row = rf"^orchestrator +run +True +Converged +2 +create run_{years()[-1] + 1} "
    assert re.search(row, made, re.MULTILINE), said
    assert re.search(rf"^ run_{max(years()[0], 2026)} +\| \d{{4}}-", made, re.MULTILINE), said
    assert "INSERT 0 1" in made
    assert "stops and removes all of it" in after
    if retired:
        check_archived(shown, retired)
    else:
        report.note(f"the demo: {said[said.index('without archives:') :].splitlines()[0]}")
    versions = re.search(r"^done in \d+ s: Kubernetes (\S+), PostgreSQL (\S+), one operator", after, re.MULTILINE)
    assert versions, said
    report.used("Kubernetes", f"{versions[1]} (the demo's)")
    report.used("PostgreSQL", versions[2])


def check_archived(shown: Mapping[str, str], retired: str) -> None:
    """Check the output of the second half, where Jobs can run. ``shown``: the partitions before, and their rows."""
    for name in expired():
        # With the size, and how long ago it was dropped and made.
        archived = rf"^\S+ +{name} +Verified +{shown[name]} +\S+ +\d\S* +\d\S*$"
        assert re.search(archived, retired, re.MULTILINE), retired
    kept = {name: rows for name, rows in shown.items() if name not in expired()}
    assert dict(TABLE_ROW.findall(retired)) == kept, retired
    queried = dict(re.findall(r"^│ +(\d{4}) +│ +(\d+) +│ ", retired, re.MULTILINE))
    assert queried == {name.removeprefix("run_"): shown[name] for name in expired()}, retired
    before, after = re.findall(r"^ +8000 \| 2019-01-01 .* \| 2019-12-31 .*", retired, re.MULTILINE)
    assert before == after
    assert re.search(
        r"^run-2019-again +run-run-2019-\w+ +public\.run_2019_again +8000 +Restored ", retired, re.MULTILINE
    )


def try_next(said: str) -> list[str]:
    """The commands that a run ended with."""
    return re.findall(r"^\$ (.+)$", said.split("To try next")[1], re.MULTILINE)


def check_tried(demo: Demo, said: str) -> None:
    """The suggested commands do what the run says."""
    get, listing, patch, plan, *archive = try_next(said)
    done = demo.shell(get)
    assert done.returncode == 0, done.stderr
    gone = len(expired()) if archive else 0
    assert yaml.safe_load(done.stdout)["status"]["summary"]["partitions"] == years()[-1] - 2019 + 1 - gone

    done = demo.shell(listing)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^run_{years()[0]} .* Current ", done.stdout, re.MULTILINE), done.stdout

    done = demo.shell(patch)
    assert done.returncode == 0, done.stderr
    furthest = f"run_{years()[0] + 5}"
    deadline = time.monotonic() + 10
    while furthest not in (seen := demo.shell(f"{shlex.quote(str(demo.files.psql))} -c '\\d+ run'")).stdout:
        assert time.monotonic() < deadline, seen.stdout + seen.stderr
        time.sleep(0.2)

    done = demo.shell(plan)
    assert done.returncode == 2, done.stderr + done.stdout
    assert "run_2040" in done.stdout

    for command in archive:
        done = demo.shell(command)
        assert done.returncode == 0, done.stderr
        assert "partitionarchive.partwarden.dev/run-2025 condition met" in done.stdout


def test_the_demo_runs_to_its_end(demo: Demo) -> None:
    """Interrupted, killed, run, run again, tried, ended, ended again: one story, since each needs what was before."""
    code, said = demo.end_at(3, signal.SIGINT)
    assert code == 130, said
    assert "interrupted at step 3 of" in said
    assert "Left: PostgreSQL" in said
    assert "down" in said.splitlines()[-1]

    code, said = demo.end_at(6, signal.SIGKILL)
    assert code == -signal.SIGKILL, said

    code, said = demo.run("up")
    check_promises(code, said)
    code, said = demo.run("up")
    check_promises(code, said)
    check_tried(demo, said)

    left = [*demo.processes()]
    assert operating.find(demo.files) in left
    code, said = demo.run("down")
    assert code == 0, said
    assert not [process for process in left if runs(process)]
    code, said = demo.run("down")
    assert code == 0, said

    assert not demo.processes()
    for place in (demo.files.folder, demo.files.server, clusters.folder_of(demo.files.name)):
        assert not place.exists(), f"{place} is left"
    assert list(demo.kubeconfig.parent.iterdir()) == [demo.kubeconfig], "~/.kube was changed"
    assert demo.kubeconfig.read_text() == "{this is not a kubeconfig"


def test_a_failure_names_the_step_the_cause_and_the_way_out(demo: Demo) -> None:
    """Here CLUSTER names no provider."""
    before = dict(demo.environment)
    demo.environment[choice.VARIABLE] = "nonsense"
    code, said = demo.run("up")
    demo.environment = before
    assert code == 1, said
    assert "step 3 of 11 (a Kubernetes cluster) failed" in said
    assert "CLUSTER=nonsense names no provider" in said
    assert "Left: PostgreSQL" in said
    assert "Traceback" not in said
