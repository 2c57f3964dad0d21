"""The control groups of one local cluster: one folder of its own in every hierarchy, cgroup v1 or v2."""

import contextlib
import os
import time
from pathlib import Path

from .model import ClusterError

ROOT = Path("/sys/fs/cgroup")
NEEDED = ("cpu", "cpuset", "memory", "pids")
"""The controllers without which kubelet does not start."""

REMOVAL = 10.0
"""Seconds that a group is given to become empty after its processes were killed."""


def unified() -> bool:
    """Whether this machine has cgroup v2 only."""
    return (ROOT / "cgroup.controllers").exists()


def hierarchies() -> list[Path]:
    """Where the hierarchies are mounted: one on v2, one for each set of controllers on v1."""
    if unified():
        return [ROOT]
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    found = {Path(where) for _, where, kind, *_ in mounts if kind in ("cgroup", "cgroup2")}
    return sorted(path for path in found if path.is_relative_to(ROOT))


def why_not() -> str:
    """ "" when groups can be made here, else one line."""
    name = f"partwarden-try-{os.getpid()}"
    try:
        create(name)
        remove(name)
    except ClusterError as error:
        return str(error)
    return ""


def create(name: str) -> None:
    """Make the group `name`, with every controller, at the top of every hierarchy.

    Raises ClusterError where that is not allowed, as in a container without a writable /sys/fs/cgroup.
    """
    mounted = hierarchies()
    if not mounted:
        raise ClusterError(f"no cgroup hierarchy is mounted under {ROOT}")
    try:
        for hierarchy in mounted:
            group = hierarchy / name
            group.mkdir(exist_ok=True)
            if unified():
                # A controller is usable in a group only where its parent hands it down.
                _hand_down(hierarchy)
                _hand_down(group)
            _copy_cpuset(hierarchy, group)
    except OSError as error:
        remove(name)
        raise ClusterError(f"cannot make a control group: {error}") from error


def remove(name: str) -> None:
    """Remove the group `name` and all groups in it from every hierarchy; those that are not there are no error.

    Raises ClusterError when one is still in use after REMOVAL seconds.
    """
    deadline = time.monotonic() + REMOVAL
    while left := [group for hierarchy in hierarchies() if not _removed(group := hierarchy / name)]:
        if time.monotonic() > deadline:
            raise ClusterError(f"control groups are still in use: {', '.join(map(str, left))}")
        time.sleep(0.05)


def _removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        for folder in sorted(group.rglob("*/"), key=lambda path: len(path.parts), reverse=True):
            folder.rmdir()
        group.rmdir()
    return not group.exists()


def _hand_down(group: Path) -> None:
    for controller in (group / "cgroup.controllers").read_text().split():
        try:
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:
            if controller in NEEDED:
                raise


def _copy_cpuset(parent: Path, group: Path) -> None:
    # On v1 a new cpuset allows nothing, and no process can enter it.
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not unified() and (group / name).exists():
            (group / name).write_text((parent / name).read_text())
