"""`make demo-down`: remove whatever there is of a demo, however it ended."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from lab import cluster as clusters
from lab.cluster import ClusterError, folders
from lab.cluster import state as cluster_states
from lab.postgres import LabError, Server

from . import borrowed, operating
from .files import DemoError, Files, shown


def parts(files: Files) -> Iterator[tuple[str, Callable[[], object]]]:
    """What there is of the demo now, each with what removes it, in the order in which it must go."""
    if process := operating.find(files):
        yield f"the operator, process {process.pid}", lambda: operating.stop(files)
    if files.server.exists():
        yield f"PostgreSQL and its data, {shown(files.server)}", lambda: _discard(files)
    if kubeconfig := files.borrowed_cluster():
        yield f"what was made in the cluster of {shown(kubeconfig)}", lambda: borrowed.remove(files, kubeconfig)
    folder = cluster_states.folder_of(files.name)
    if folder.exists():
        yield f"the cluster, {shown(folder)}", lambda: clusters.stop(files.name)


def down(files: Files) -> list[str]:
    """Remove all parts, one failing or not, and return one line for each that stays."""
    failed = []
    for what, remove in list(parts(files)):
        print(f"removing {what} ...", flush=True)
        try:
            remove()
        except (ClusterError, LabError, DemoError, OSError) as error:
            failed.append(f"{what}: {error}")
    if not failed:
        shutil.rmtree(files.folder)
        for parent in (files.folder.parent, files.server.parent):
            _remove_empty(parent)
        print(f"nothing of the demo is left; {shown(folders.cache())} keeps what was built, for the next time")
    return failed


def _discard(files: Files) -> None:
    Server.discard(files.server)
    if files.server.exists():
        raise DemoError(f"{shown(files.server)} cannot be removed")


def _remove_empty(folder: Path) -> None:
    """Another demo may be in it."""
    with suppress(OSError):
        folder.rmdir()
