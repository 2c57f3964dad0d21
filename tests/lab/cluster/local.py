"""The provider that needs no docker: Kubernetes from its own commands, in namespaces of its own."""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from lab.node.layout import Layout

from . import cgroups, check, folders, image, kubernetes, link, packages, runtime
from . import state as states
from .launch import Ingredients, Launch, why_no_namespaces
from .model import Cluster, ClusterError
from .processes import children_of
from .reporter import Reporter
from .state import State
from .subnets import Addresses, Network

_leashes: dict[str, int] = {}
"""Write ends of the pipes that hold leashed clusters; they close, and the clusters end, when this process ends."""


def start(name: str, say: Reporter, leashed: bool) -> Cluster:
    """Start a new cluster, removing what an earlier one of this name left.

    Raises ClusterError when it does not start; then, as after Ctrl-C, nothing of it is left but, after an error, its
    logs, until the next start or stop.
    """
    ingredients = _gather(say)
    folder = states.folder_of(name)
    with folders.locked(folder, lambda: say.say(f"waiting for another process that starts or stops cluster {name}")):
        _remove(name, keep=_explained(name))
        launch = Launch(name, say, leashed, ingredients)
        try:
            launch.run()
        except BaseException as error:
            _drop_leash(launch.leash)
            _abandon(launch.state, keep_logs=isinstance(error, Exception))
            if isinstance(error, (ClusterError, OSError)):
                raise ClusterError(f"{error}\nThe logs of cluster {name} are in {Layout(folder).logs}") from error
            raise
        if leashed:
            _leashes[name] = launch.leash
        return cluster_of(launch.state)


def cluster_of(state: State) -> Cluster:
    """The cluster that a state describes."""
    layout = Layout(states.folder_of(state.name))
    return Cluster(
        name=state.name,
        provider=state.provider,
        version=state.version,
        kubeconfig=Path(state.kubeconfig),
        runs_pods=not state.why_no_pods,
        why_no_pods=state.why_no_pods,
        host_address=Addresses(Network(state.block)).host if state.block else "127.0.0.1",
        logs=layout.logs,
        handle=_Handle(state),
    )


def stop(name: str) -> None:
    """Remove everything of the cluster `name`, also of one that crashed; doing it again does nothing.

    Raises ClusterError when something stays.
    """
    folder = states.folder_of(name)
    if folder.exists():
        with folders.locked(folder):
            _drop_leash(_leashes.pop(name, -1))
            _remove(name)
            folder.rmdir()


class _Handle:
    def __init__(self, state: State) -> None:
        self._state = state

    def load_image(self, archive: Path) -> list[str]:
        if not (self._state.node and self._state.node.alive()):
            raise ClusterError(f"cluster {self._state.name} does not run any more; start it again")
        return runtime.load(self._state.node, archive)

    def stop(self) -> None:
        stop(self._state.name)


def _gather(say: Reporter) -> Ingredients:
    if not sys.platform.startswith("linux"):
        raise ClusterError(f"a local cluster needs Linux, and this is {sys.platform}; start a docker engine for kind")
    commands = kubernetes.commands(say)
    why = "pods need root" if os.geteuid() != 0 else packages.provide(say) or why_no_namespaces() or cgroups.why_not()
    plugins = packages.plugin_folder()
    if why or plugins is None:
        return Ingredients(commands, why)
    return Ingredients(commands, "", *image.probe(say), plugins)


def _drop_leash(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)


def _end(state: State) -> None:
    """End the processes and remove what is not a file of the cluster's folder."""
    # First the node: the first process of a PID namespace ends only after all others in it.
    ends = [process for process in (state.node, state.supervisor) if process]
    # Without namespaces the kernel kills the components when the supervisor ends, and nothing waits for their end.
    components = children_of(state.supervisor) if state.supervisor else []
    for process in (*ends, *components):
        process.kill()
    if state.device:
        link.remove(state.device)
    if state.cgroup:
        cgroups.remove(state.cgroup)


def _explained(name: str) -> tuple[str, ...]:
    """What is to be kept because this start was preceded by a failure of kind's whose log the user was shown."""
    state = states.load(name)
    return ("logs",) if state and (state.provider, state.phase) == ("kind", states.FAILED) else ()


def _remove(name: str, keep: tuple[str, ...] = ()) -> None:
    """Leaves the folder itself, which the caller has locked."""
    if state := states.load(name):
        _end(state)
    _empty(states.folder_of(name), keep)


def _empty(folder: Path, keep: tuple[str, ...] = ()) -> None:
    for entry in folder.iterdir():
        if entry.name in keep:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _abandon(state: State, keep_logs: bool) -> None:
    _end(state)
    layout = Layout(states.folder_of(state.name))
    if not keep_logs:
        _empty(layout.folder)
        layout.folder.rmdir()
        return
    for folder in (layout.keys, layout.config, layout.data):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (layout.kubeconfig, layout.plan):
        file.unlink(missing_ok=True)
    states.save(replace(state, phase=states.FAILED, supervisor=None, node=None, block="", device="", cgroup=""))


def answers(state: State) -> bool:
    """Whether the cluster of a state runs and its API server answers."""
    if not (state.supervisor and state.supervisor.alive()):
        return False
    try:
        check.api_version(Path(state.kubeconfig), direct=True)
    except ClusterError:
        return False
    return True
