"""The recorded state of a cluster, with which another process can use it, stop it, or clean up after it."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from lab.node.layout import Layout

from . import folders
from .model import ClusterError
from .processes import Identity

STARTING, RUNNING, FAILED = "starting", "running", "failed"


@dataclass(frozen=True)
class State:
    """One cluster. `supervisor` is the process whose end ends it; `leashed` if it also ends with its starter."""

    name: str
    provider: str
    phase: str
    version: str = ""
    kubeconfig: str = ""
    block: str = ""
    cgroup: str = ""
    device: str = ""
    why_no_pods: str = ""
    leashed: bool = False
    supervisor: Identity | None = None
    node: Identity | None = None


def folder_of(name: str) -> Path:
    """The folder of the cluster `name`.

    Raises ClusterError when that is no name for one, for it also names a node, a device and control groups.
    """
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,28}[a-z0-9])?", name):
        raise ClusterError(f"{name!r} is no name for a cluster: use up to 30 lower-case letters, digits and hyphens")
    return folders.clusters() / name


def save(state: State) -> None:
    """Write the state so that a reader sees the old or the new one."""
    layout = Layout(folder_of(state.name))
    half = layout.state.with_suffix(".half")
    half.write_text(json.dumps(asdict(state), indent=2))
    half.rename(layout.state)


def load(name: str) -> State | None:
    """The state of the cluster `name`, None when nothing readable is written down."""
    try:
        written = json.loads(Layout(folder_of(name)).state.read_text())
        # What another version of this module wrote still has to be stopped.
        values = {field.name: written[field.name] for field in fields(State) if field.name in written}
        for role in ("supervisor", "node"):
            values[role] = Identity(**values[role]) if values.get(role) else None
        return State(**values)
    except (FileNotFoundError, ValueError, TypeError):
        return None


def every() -> Iterator[State]:
    """The state of every cluster that wrote one."""
    for folder in sorted(folders.clusters().iterdir()):
        if folder.is_dir() and (state := load(folder.name)):
            yield state
