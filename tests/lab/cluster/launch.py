"""One start of a local cluster, step by step."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from lab.node.layout import COMMANDS, INSIDE, Layout

from . import api, cgroups, check, components, endpoints, folders, link, nodeparts, packages, runtime, subnets
from . import state as states
from .endpoints import Endpoints
from .model import ClusterError
from .processes import Identity, children_of, identify
from .reporter import Reporter
from .state import State
from .subnets import Addresses

PATIENCE = 180.0
"""Seconds for each wait; the API server usually needs 7."""

NAMESPACES = ("--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc")


@dataclass(frozen=True)
class Ingredients:
    """What every start needs, from the cache. `why_no_pods` is "" when a node can run here."""

    commands: Path
    why_no_pods: str
    image: str = ""
    archive: Path = Path()
    plugins: Path = Path()


def why_no_namespaces() -> str:
    """ "" when this root may make namespaces and mount in them, else one line, as in many a container."""
    attempt = ["unshare", *NAMESPACES, "mount", "-t", "tmpfs", "tmpfs", "/run"]
    done = subprocess.run(attempt, capture_output=True, text=True, env={"PATH": packages.search_path()})
    return "" if done.returncode == 0 else f"this root may not make namespaces: {' '.join(done.stderr.split())}"


class Launch:
    """Starts one cluster; `state` says at every moment what there is to remove."""

    def __init__(self, name: str, say: Reporter, leashed: bool, ingredients: Ingredients) -> None:
        self.say = say
        self.ingredients = ingredients
        self.layout = Layout(states.folder_of(name))
        self.state = State(name, "local", states.STARTING, why_no_pods=ingredients.why_no_pods, leashed=leashed)
        self.leash = -1

    def run(self) -> None:
        """All steps. Raises ClusterError; then, as after any other exception, the caller removes what there is."""
        self.layout.make()
        ends = self._loopback() if self.ingredients.why_no_pods else self._namespaced()
        with self.say.progress(f"starting cluster {self.state.name}, {ends.server}"):
            components.credentials(self.layout, self.state.name, self.state.name, ends)
            self._write_plan(ends)
            self._spawn(ends)
            self._join(ends)
            self._wait("the API server", lambda: self._api(ends))
            self._tell("api")
            if ends.addresses:
                self._wait("containerd", self._import)
        with self.say.progress(f"checking cluster {self.state.name}"):
            version = check.api_version(self.layout.kubeconfig, direct=True)
            if ends.addresses:
                self._check_pods(ends.addresses)
        self._note(phase=states.RUNNING, version=version, kubeconfig=str(self.layout.kubeconfig))
        if not self.state.leashed:
            self._tell("keep")
            self.leash, leash = -1, self.leash
            os.close(leash)

    def _note(self, **changes: object) -> None:
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]
        states.save(self.state)

    def _loopback(self) -> Endpoints:
        self.say.say(f"cluster {self.state.name}: control plane only, no pods: {self.ingredients.why_no_pods}")
        self._note()
        return endpoints.on_loopback()

    def _namespaced(self) -> Endpoints:
        mark = folders.digest(str(self.layout.folder).encode())[:8]
        # Held until the choice is written down, for another start must not make the same one.
        with folders.locked(folders.clusters()):
            others = [subnets.Network(other.block) for other in states.every() if other.block]
            addresses = subnets.choose([*subnets.host_routes(), *others])
            self._note(block=str(addresses.block), device=f"pw-{mark}", cgroup=f"partwarden-{self.state.name}-{mark}")
        cgroups.create(self.state.cgroup)
        return endpoints.in_namespace(addresses)

    def _write_plan(self, ends: Endpoints) -> None:
        inside, commands = (Layout(INSIDE), COMMANDS) if ends.addresses else (self.layout, self.ingredients.commands)
        processes = components.control_plane(commands, inside, ends)
        if ends.addresses:
            snapshotter = runtime.snapshotter(self.layout.data)
            sandbox = nodeparts.Sandbox(self.ingredients.image, self.ingredients.plugins, snapshotter)
            node = self.state.name
            nodeparts.write_configuration(self.layout, inside, node, ends.addresses, self.state.cgroup, sandbox)
            processes += nodeparts.node_processes(commands, inside, node, ends.addresses)
        plan = {
            "node": self.state.name,
            "commands": str(self.ingredients.commands),
            "settings": nodeparts.KERNEL_SETTINGS,
            "link": self._link(ends.addresses) if ends.addresses else None,
            "environment": {"PATH": packages.search_path(), "HOME": "/root" if ends.addresses else str(folders.home())},
            "processes": [vars(process) for process in processes],
        }
        self.layout.plan.write_text(json.dumps(plan, indent=2))

    def _link(self, addresses: Addresses) -> dict[str, str]:
        return {"device": link.NODE_DEVICE, "node": addresses.node, "host": addresses.host}

    def _spawn(self, ends: Endpoints) -> None:
        """Start the supervisor, whose end is the end of everything, in a session that no terminal signals reach."""
        argv = [sys.executable, "-m", "lab.node", str(self.layout.folder)]
        if ends.addresses:
            argv = ["unshare", *NAMESPACES, *argv]
        environment = {**os.environ, "PYTHONPATH": str(folders.LAB.parent), "PATH": packages.search_path()}
        log = os.open(self.layout.logs / "node.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        read, self.leash = os.pipe()
        duplicates = [(os.POSIX_SPAWN_DUP2, source, target) for source, target in ((read, 0), (log, 1), (log, 2))]
        try:
            pid = os.posix_spawnp(argv[0], argv, environment, file_actions=duplicates, setsid=True)
        except OSError as error:
            raise ClusterError(f"cannot run {argv[0]}: {error}") from error
        finally:
            os.close(read)
            os.close(log)
        self._note(supervisor=identify(pid))

    def _join(self, ends: Endpoints) -> None:
        if not ends.addresses:
            return
        self._wait("the namespaces", lambda: "" if self._first() else "no process in them")
        node = self._first()
        assert node
        self._note(node=node)
        link.create(self.state.device, node.pid, ends.addresses)
        self._tell("net")

    def _first(self) -> Identity | None:
        """The first process of the namespaces, as it is seen from outside."""
        return next(iter(children_of(self.state.supervisor)), None) if self.state.supervisor else None

    def _tell(self, word: str) -> None:
        try:
            os.write(self.leash, f"{word}\n".encode())
        except BrokenPipeError as error:
            raise ClusterError(f"cluster {self.state.name} ended: {self._last_words()}") from error

    def _wait(self, what: str, attempt: Callable[[], str]) -> None:
        """Call `attempt` until it returns "" for success, for as long as the supervisor lives."""
        deadline = time.monotonic() + PATIENCE
        while wrong := attempt():
            if not (self.state.supervisor and self.state.supervisor.alive()):
                raise ClusterError(f"cluster {self.state.name} ended while {what} was starting: {self._last_words()}")
            if time.monotonic() > deadline:
                raise ClusterError(f"{what} of cluster {self.state.name} was not ready in {PATIENCE:.0f} s: {wrong}")
            time.sleep(0.1)

    def _last_words(self) -> str:
        said = self.layout.failure.read_text() if self.layout.failure.exists() else ""
        log = self.layout.logs / "node.log"
        return said or (log.read_text().strip() if log.exists() else "") or "it did not say why"

    def _api(self, ends: Endpoints) -> str:
        keys = self.layout.keys
        return api.ready(ends.server, keys / "kubernetes-ca.crt", keys / "admin.crt", keys / "admin.key")

    def _import(self) -> str:
        assert self.state.node
        try:
            runtime.load(self.state.node, self.ingredients.archive)
        except ClusterError as error:
            return str(error)
        return ""

    def _check_pods(self, addresses: Addresses) -> None:
        check.pods(self.layout.kubeconfig, self.ingredients.image, addresses.host, direct=True)
