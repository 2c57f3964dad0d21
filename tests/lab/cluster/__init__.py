"""A Kubernetes cluster for tests and for the demo: start, kubeconfig, load an image, stop.

    cluster = start("demo", Reporter())
    cluster.kubeconfig, cluster.host_address, cluster.load_image(archive), cluster.stop()

CLUSTER=kind|local|existing chooses the provider; unset, it is kind where a docker engine may run privileged containers
and the node image can be had, else local.
"""

import os

from . import choice, existing, folders, kind, local
from . import state as states
from .model import Cluster, ClusterError
from .reporter import Reporter

__all__ = ["Cluster", "ClusterError", "Reporter", "attach", "start", "stop", "sweep"]


def start(name: str, say: Reporter, leashed: bool = False) -> Cluster:
    """A cluster that has checked itself; one of this name that runs and answers already is used as it is.

    A `leashed` cluster ends with the process that started it, even if that is killed; it is always a new one.
    Raises ClusterError, with nothing left running, when it cannot be started.
    """
    wanted = choice.wanted(os.environ)
    if wanted == choice.EXISTING:
        return existing.start(name, say)
    sweep()
    if not leashed and (running := attach(name)) and wanted in ("", running.provider):
        say.say(f"cluster {name} runs already ({running.provider}, {running.version})")
        return running
    stop(name)
    if wanted == choice.LOCAL:
        return local.start(name, say, leashed)
    try:
        if why_not := kind.why_not(say):
            raise ClusterError(why_not)
        return kind.start(name, say, leashed)
    except ClusterError as error:
        if wanted == choice.KIND:
            raise ClusterError(f"CLUSTER=kind cannot be done: {error}") from error
        say.say(f"no kind cluster, a local one instead: {error}")
    return local.start(name, say, leashed)


def attach(name: str) -> Cluster | None:
    """The cluster of this name if it runs and answers, else None."""
    if choice.wanted(os.environ) == choice.EXISTING:
        return existing.start(name, Reporter(quiet=True))
    state = states.load(name)
    if not state or state.phase != states.RUNNING:
        return None
    provider = kind if state.provider == choice.KIND else local
    return provider.cluster_of(state) if provider.answers(state) else None


def stop(name: str) -> None:
    """Remove the cluster of this name and all it left, also after a crash; doing it again does nothing.

    Raises ClusterError when something cannot be removed.
    """
    state = states.load(name)
    if state and state.provider == choice.KIND:
        kind.stop(name)
    else:
        local.stop(name)


def sweep() -> None:
    """Remove what is left of clusters whose starter was killed; every start does this first.

    Raises ClusterError when something cannot be removed.
    """
    for state in states.every():
        alive = state.supervisor and state.supervisor.alive()
        abandoned = state.phase == states.STARTING or (state.leashed and state.phase == states.RUNNING)
        # A folder that is locked belongs to a process that is starting or stopping the cluster.
        if abandoned and not alive and not folders.busy(states.folder_of(state.name)):
            stop(state.name)
