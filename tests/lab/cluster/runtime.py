"""Talks to the containerd of a local cluster from outside its namespaces."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from .image import names_in
from .model import ClusterError
from .nodeparts import SOCKET
from .packages import search_path
from .processes import Identity


def load(node: Identity, archive: Path) -> list[str]:
    """Import a docker-archive into the node whose first process is `node`; return the names of its images.

    Raises ClusterError.
    """
    names = [_familiar(name) for name in names_in(archive)]
    command = ["nsenter", f"--target={node.pid}", "--mount", "--"]
    command += ["ctr", f"--address={SOCKET}", "--namespace=k8s.io", "images", "import", "-"]
    with archive.open("rb") as content:
        done = subprocess.run(command, stdin=content, capture_output=True, text=True, env={"PATH": search_path()})
    if done.returncode != 0:
        raise ClusterError(f"containerd did not import {archive}: {done.stderr.strip()}")
    return names


def snapshotter(folder: Path) -> str:
    """The containerd snapshotter that works where `folder` is: overlayfs, or native where that cannot be stacked."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="overlay-") as name:
        for part in ("lower", "upper", "work", "merged"):
            Path(name, part).mkdir()
        options = f"lowerdir={name}/lower,upperdir={name}/upper,workdir={name}/work"
        mount = ["mount", "-t", "overlay", "overlay", "-o", options, f"{name}/merged"]
        # In a mount namespace of its own, the mount ends with the command.
        done = subprocess.run(["unshare", "--mount", *mount], capture_output=True, env={"PATH": search_path()})
        shutil.rmtree(Path(name, "work"), ignore_errors=True)
    return "overlayfs" if done.returncode == 0 else "native"


def _familiar(name: str) -> str:
    """The name by which containerd knows an image that docker calls `name`."""
    first, slash, _ = name.partition("/")
    if not slash:
        return f"docker.io/library/{name}"
    return name if "." in first or ":" in first or first == "localhost" else f"docker.io/{name}"
