"""Builds the image with the docker engine of this machine."""

import os
from pathlib import Path

from lab.cluster import Reporter, folders
from lab.cluster.docker import docker

from . import given
from .running import run

SAVING = 300.0


def build(say: Reporter, log: Path, name: str, archive: Path, options: list[str]) -> None:
    """Write the image `name` to `archive`. Raises ClusterError. The engine keeps its layers, and no image."""
    log.unlink(missing_ok=True)
    command = ["docker", "build", f"--tag={name}", "--progress=plain", given.PACKAGES, *options, *given.proxies()]
    with say.progress("building the image with docker") as advance:
        run([*command, str(folders.CHECKOUT)], log, {**os.environ, "DOCKER_BUILDKIT": "1"}, advance)
        docker("save", f"--output={archive}", name, patience=SAVING)
        docker("image", "rm", name, patience=SAVING)
