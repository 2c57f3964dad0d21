"""A local cluster starts from nothing, runs pods, and leaves nothing, however it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest

from lab import cluster as clusters
from lab import report
from lab.cluster import Cluster, ClusterError, Reporter, cgroups, choice, existing, folders, image, packages
from lab.cluster import state as states
from lab.kubectl import Kubectl
from lab.leftovers import runs
from lab.node.layout import Layout

Aloud = Callable[[], AbstractContextManager[None]]

PATIENCE = 60.0
TESTS = folders.LAB.parent


@pytest.fixture(autouse=True)
def local(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are of the local provider, whatever else the run uses."""
    if not sys.platform.startswith("linux"):
        report.could_not_run(f"a local cluster needs Linux, and this is {sys.platform}")
    monkeypatch.setenv(choice.VARIABLE, choice.LOCAL)


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a cluster that the test may do anything to."""
    own = f"own-{os.getpid()}"
    yield own
    clusters.stop(own)


@pytest.fixture
def own(name: str, aloud: Aloud) -> Cluster:
    """A cluster of the test's own that runs pods."""
    with aloud():
        started = clusters.start(name, Reporter(), leashed=True)
    if not started.runs_pods:
        started.stop()
        report.could_not_run(f"pods: {started.why_no_pods}")
    return started


@pytest.fixture
def host(name: str) -> Iterator[None]:
    """The host after the test equals the host before it."""
    before = seen_on_host(name)

    def left() -> dict[str, set[str]]:
        return difference(before, seen_on_host(name))

    yield
    clusters.stop(name)
    until("the host is as it was before", lambda: not left(), lambda: str(left()))


MADE_BY_NODES = [
    "/run/partwarden",
    "/run/commands",
    "/run/containerd",
    "/run/netns",
    "/run/cni",
    "/run/runc",
    "/run/xtables.lock",
    "/var/lib/kubelet",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/log/pods",
    "/var/log/containers",
    "/etc/cni",
    "/etc/kubernetes",
    "/opt/cni",
    "/opt/containerd",
    "/usr/libexec/kubernetes",
]


def seen_on_host(name: str) -> dict[str, set[str]]:
    """What the cluster `name` could leave: mounts, devices, routes, rules, control groups, files, kernel settings."""
    folder = states.folder_of(name)
    mark = folders.digest(str(folder).encode())[:8]
    tables = subprocess.run(["iptables-save"], capture_output=True, text=True).stdout.splitlines()
    routes = subprocess.run(["ip", "route", "show", "table", "all"], capture_output=True, text=True, check=True).stdout
    settings = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return {
        "mounts": {line for line in mounts if any(path in line for path in (str(folder), *MADE_BY_NODES))},
        "devices": {device for device in os.listdir("/sys/class/net") if mark in device or device == "pods"},
        "routes": {line for line in routes.splitlines() if mark in line},
        "rules": {line for line in tables if not line.startswith(("#", ":"))},
        "groups": {str(path) for root in cgroups.hierarchies() for path in root.glob(f"partwarden-*{mark}")},
        "files": {str(path) for path in (folder, *map(Path, MADE_BY_NODES)) if path.exists()},
        "settings": {f"{name}={(Path('/proc/sys') / name).read_text().strip()}" for name in settings},
    }


def difference(before: dict[str, set[str]], after: dict[str, set[str]]) -> dict[str, set[str]]:
    """The additions since then, by kind."""
    mine = {name: after[name] - before[name] for name in before}
    return {name: more for name, more in mine.items() if more}


def until(what: str, condition: Callable[[], bool], describe: Callable[[], str] = str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} s: {what} {describe()}"
        time.sleep(0.05)


def processes_of(name: str) -> list[psutil.Process]:
    """The supervisor of a cluster and all its descendants."""
    state = states.load(name)
    if not state or not state.supervisor or not state.supervisor.alive():
        return []
    supervisor = psutil.Process(state.supervisor.pid)
    return [supervisor, *supervisor.children(recursive=True)]


def gone(processes: list[psutil.Process]) -> bool:
    """Whether none of them runs any more."""
    return not any(map(runs, processes))


def finished(kubectl: Kubectl, pod: str) -> str:
    """Wait for the end of a pod and return its phase."""
    phases: list[str] = []

    def ended() -> bool:
        phases.append(kubectl("get", "pod", pod, "--output=jsonpath={.status.phase}").strip())
        return phases[-1] in ("Succeeded", "Failed")

    until(f"pod {pod} has ended", ended)
    return phases[-1]


def run_pod(kubectl: Kubectl, pod: str, name: str, *words: str) -> str:
    """Run the image `name` in a pod with these words as arguments and return the pod's last phase."""
    kubectl("run", pod, f"--image={name}", "--image-pull-policy=Never", "--restart=Never", "--", *words)
    return finished(kubectl, pod)


@pytest.mark.usefixtures("host")
def test_two_clusters_run_side_by_side_and_one_outlives_the_other(pods: Cluster, own: Cluster) -> None:
    assert own.kubeconfig != pods.kubeconfig
    assert own.host_address != pods.host_address
    nodes = Kubectl.of(own)("get", "nodes", "--output=name").split()
    assert nodes == [f"node/{own.name}"]
    running = processes_of(own.name)
    assert len(running) > 6
    own.stop()
    own.stop()
    assert gone(running)
    assert "ok" in Kubectl.of(pods)("get", "--raw=/readyz")


def test_a_loaded_image_is_run_and_reaches_the_api_by_its_service(own: Cluster, tmp_path: Path) -> None:
    _, archive = image.probe(Reporter(quiet=True))
    loaded = tmp_path / "image.tar"
    image.pack(archive.parent / "probe", "partwarden-test:1", loaded)
    assert own.load_image(loaded) == ["docker.io/library/partwarden-test:1"]
    kubectl = Kubectl.of(own)
    address = kubectl("get", "service", "kubernetes", "--output=jsonpath={.spec.clusterIP}").strip()
    assert run_pod(kubectl, "reaches", "partwarden-test:1", "connect", f"{address}:443", "20") == "Succeeded"
    assert kubectl("logs", "reaches").strip() == f"connected to {address}:443"
    # A port without listener is not reached: the pod's answer can be trusted.
    assert run_pod(kubectl, "misses", "partwarden-test:1", "connect", f"{address}:444", "1") == "Failed"


def test_a_file_that_is_not_an_image_is_refused(own: Cluster, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    archive.write_text("no archive")
    with pytest.raises(ClusterError, match=r"image\.tar is not a docker-archive"):
        own.load_image(archive)


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("victim", ["supervisor", "node"])
def test_a_killed_cluster_leaves_nothing(own: Cluster, victim: str) -> None:
    running = processes_of(own.name)
    state = states.load(own.name)
    assert state
    target = state.supervisor if victim == "supervisor" else state.node
    assert target
    os.kill(target.pid, signal.SIGKILL)
    until("its processes are gone", lambda: gone(running))
    assert clusters.attach(own.name) is None
    clusters.stop(own.name)
    assert not states.folder_of(own.name).exists()


def test_a_cluster_ends_and_says_why_when_a_component_ends(own: Cluster) -> None:
    running = processes_of(own.name)
    etcd = next(one for one in running if "--listen-client-urls" in " ".join(one.cmdline()))
    etcd.kill()
    until("its processes are gone", lambda: gone(running))
    said = Layout(states.folder_of(own.name)).failure.read_text()
    assert said == f"etcd ended with -9; its log is {own.logs}/etcd.log"


def starting(name: str) -> subprocess.Popen[str]:
    """`python -m lab.cluster start` in a process of its own, when its cluster has processes."""
    command = [sys.executable, "-m", "lab.cluster", "start", "--name", name]
    starter = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(TESTS)}, stderr=subprocess.PIPE, text=True)
    until("the cluster has processes", lambda: len(processes_of(name)) > 3)
    return starter


@pytest.mark.usefixtures("host", "pods")
def test_ctrl_c_while_starting_leaves_nothing(name: str) -> None:
    starter = starting(name)
    running = processes_of(name)
    starter.send_signal(signal.SIGINT)
    _, said = starter.communicate(timeout=PATIENCE)
    assert starter.returncode == 130
    assert "Traceback" not in said
    assert gone(running)
    assert not states.folder_of(name).exists()


@pytest.mark.usefixtures("host", "pods")
def test_a_starter_that_is_killed_takes_its_half_started_cluster_with_it(name: str) -> None:
    starter = starting(name)
    running = processes_of(name)
    starter.kill()
    starter.communicate(timeout=PATIENCE)
    until("its processes are gone", lambda: gone(running))
    clusters.sweep()
    assert not states.folder_of(name).exists()


def test_without_what_a_node_needs_there_is_a_control_plane(
    name: str, monkeypatch: pytest.MonkeyPatch, aloud: Aloud, tmp_path: Path
) -> None:
    monkeypatch.setattr(packages, "provide", lambda _say: "missing: runc")
    with aloud():
        cluster = clusters.start(name, Reporter(), leashed=True)
    assert not cluster.runs_pods
    assert cluster.why_no_pods == ("missing: runc" if os.geteuid() == 0 else "pods need root")
    with pytest.raises(ClusterError, match="it runs no pods"):
        cluster.load_image(tmp_path)
    kubectl = Kubectl.of(cluster)
    account = json.loads(kubectl("get", "--raw=/version"))
    assert account["gitVersion"] == cluster.version
    until("tokens are issued", lambda: "default" in kubectl("get", "serviceaccounts", "--output=name"))
    assert kubectl("create", "token", "default").count(".") == 2
    running = processes_of(name)
    state = states.load(name)
    assert state
    assert state.supervisor
    os.kill(state.supervisor.pid, signal.SIGKILL)
    until("its processes are gone", lambda: gone(running))
    clusters.stop(name)
    assert not states.folder_of(name).exists()


def test_an_existing_cluster_is_used_and_left_as_it_is(pods: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choice.VARIABLE, choice.EXISTING)
    monkeypatch.setenv(existing.VARIABLE, str(pods.kubeconfig))
    cluster = clusters.start("any", Reporter(quiet=True))
    assert (cluster.provider, cluster.version, cluster.runs_pods) == ("existing", pods.version, True)
    with pytest.raises(ClusterError, match="push its images to a registry that the cluster pulls from"):
        cluster.load_image(Path("image.tar"))
    cluster.stop()
    assert "ok" in Kubectl.of(pods)("get", "--raw=/readyz")
