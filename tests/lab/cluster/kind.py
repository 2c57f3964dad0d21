"""The provider for machines with docker: kind, from the PATH or built from its Go module."""

import os
import shutil
import socket
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from lab.node.layout import Layout

from . import check, folders, gobuild, image
from . import state as states
from .docker import docker, why_no_engine, why_no_image, why_not_privileged
from .model import Cluster, ClusterError
from .processes import identify
from .reporter import Reporter
from .state import State

MODULE = folders.LAB / "kind"
NODE_IMAGE = "kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5"
"""The image that this version of kind was released with."""

VARIABLE = "KIND_NODE_IMAGE"
LABEL = "io.x-k8s.kind.cluster"
CREATION = 600.0
"""Seconds for kind to create a cluster or to load an image."""


def node_image() -> str:
    """The image of nodes: what KIND_NODE_IMAGE names, else the pinned one."""
    return os.environ.get(VARIABLE) or NODE_IMAGE


def why_not(say: Reporter) -> str:
    """ "" when kind can work here, else one line."""
    return why_no_engine() or why_no_image(node_image(), say) or why_not_privileged(node_image())


def start(name: str, say: Reporter, leashed: bool) -> Cluster:
    """Replace the cluster. Raises ClusterError when it does not start; then only its log is left."""
    folder = states.folder_of(name)
    command = _command(say)
    probe, archive = image.probe(say)
    with folders.locked(folder):
        layout = Layout(folder)
        layout.make()
        # A leashed cluster is removed by the next start of any, when this process was killed.
        owner = identify(os.getpid()) if leashed else None
        state = State(
            name, "kind", states.STARTING, kubeconfig=str(layout.kubeconfig), leashed=leashed, supervisor=owner
        )
        states.save(state)
        try:
            with say.progress(f"starting kind cluster {_name(name)}"):
                _kind(command, layout, "create", "cluster", *_creation(name, layout))
            with say.progress(f"checking cluster {name}"):
                state = replace(state, version=check.api_version(layout.kubeconfig, direct=True))
                _kind(command, layout, "load", "image-archive", str(archive), f"--name={_name(name)}")
                check.pods(layout.kubeconfig, probe, _host_address(name), direct=True)
        except BaseException:
            _remove(name)
            states.save(replace(state, phase=states.FAILED, supervisor=None))
            raise
        state = replace(state, phase=states.RUNNING)
        states.save(state)
        return cluster_of(state)


def cluster_of(state: State) -> Cluster:
    """The cluster that a state describes."""
    return Cluster(
        name=state.name,
        provider=state.provider,
        version=state.version,
        kubeconfig=Path(state.kubeconfig),
        runs_pods=True,
        why_no_pods="",
        host_address=_host_address(state.name),
        logs=Layout(states.folder_of(state.name)).logs,
        handle=_Handle(state.name),
    )


def answers(state: State) -> bool:
    """Whether the API server of the cluster answers."""
    try:
        check.api_version(Path(state.kubeconfig), direct=True)
    except ClusterError:
        return False
    return True


def stop(name: str) -> None:
    """Remove the cluster; doing it again does nothing. Raises ClusterError when something stays."""
    folder = states.folder_of(name)
    if folder.exists():
        with folders.locked(folder):
            _remove(name)
            shutil.rmtree(folder)


class _Handle:
    def __init__(self, name: str) -> None:
        self._name = name

    def load_image(self, archive: Path) -> list[str]:
        names = image.names_in(archive)
        layout = Layout(states.folder_of(self._name))
        arguments = ("load", "image-archive", str(archive), f"--name={_name(self._name)}")
        _kind(_command(Reporter()), layout, *arguments)
        return names

    def stop(self) -> None:
        stop(self._name)


def _name(name: str) -> str:
    """As docker knows it: also the name of its network."""
    return f"partwarden-{name}"


def _creation(name: str, layout: Layout) -> list[str]:
    named = [f"--name={_name(name)}", f"--image={node_image()}", f"--kubeconfig={layout.kubeconfig}"]
    return [*named, f"--config={MODULE / 'cluster.yaml'}", "--wait=180s"]


def _command(say: Reporter) -> str:
    if on_path := shutil.which("kind"):
        return on_path
    version = gobuild.version_of(MODULE, "sigs.k8s.io/kind")
    recipe = gobuild.Recipe(f"kind {version}", f"kind/{version}", MODULE, ("sigs.k8s.io/kind",), "-s -w")
    return str(gobuild.build(recipe, say) / "kind")


def _kind(command: str, layout: Layout, *arguments: str) -> None:
    """Run kind with a docker network for this cluster alone, which can be removed with it."""
    environment = dict(os.environ, KIND_EXPERIMENTAL_DOCKER_NETWORK=_name(layout.folder.name))
    environment["KIND_EXPERIMENTAL_PROVIDER"] = "docker"
    log = layout.logs / "kind.log"
    with log.open("a") as output:
        try:
            done = subprocess.run(
                [command, *arguments], env=environment, stdout=output, stderr=output, timeout=CREATION
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"kind {arguments[0]} took longer than {CREATION:.0f} s; its log is {log}") from error
    if done.returncode != 0:
        raise ClusterError(f"kind {arguments[0]} failed: {reason_in(log.read_text())}; its log is {log}")


def reason_in(log: str) -> str:
    """The line of kind's log that says the most: what the failed command printed, else the error, shortened."""
    lines = log.splitlines()
    found = [line for line in lines if line.startswith("Command Output:")] or [
        line for line in lines if line.startswith("ERROR:")
    ]
    return found[-1].partition(":")[2].strip()[:200] if found else "it did not say why"


def _remove(name: str) -> None:
    """Remove nodes and network. Not with kind, whose command may be missing in the cache."""
    nodes = docker("ps", "--all", "--quiet", f"--filter=label={LABEL}={_name(name)}").split()
    if nodes:
        docker("rm", "--force", "--volumes", *nodes, patience=120.0)
    if _name(name) in docker("network", "ls", "--format", "{{.Name}}").split():
        docker("network", "rm", _name(name))


def _host_address(name: str) -> str:
    """The address of the network's gateway, where that is this machine; "" elsewhere (docker in a virtual machine)."""
    template = "{{range .IPAM.Config}}{{.Gateway}} {{end}}"
    for address in docker("network", "inspect", "--format", template, _name(name)).split():
        with suppress(OSError), socket.create_server((address, 0)):
            return address
    return ""
