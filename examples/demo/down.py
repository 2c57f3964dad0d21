"""`make demo-down`: remove every part of a demo, also of one that was interrupted or killed."""

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
    """The parts of the demo that exist now, each with the function that removes it, in the order of removal."""
    if process := operating.find(files):
        yield f"the operator, process {process.pid}", lambda: operating.stop(files)
    if files.server.exists():
        yield f"PostgreSQL and its data, {shown(files.server)}", lambda: _discard(files)
    if kubeconfig := files.borrowed_cluster():
        yield f"the demo's objects in the cluster of {shown(kubeconfig)}", lambda: borrowed.remove(files, kubeconfig)
    folder = cluster_states.folder_of(files.name)
    if folder.exists():
        yield f"the cluster, {shown(folder)}", lambda: clusters.stop(files.name)


def down(files: Files) -> list[str]:
    """Remove all parts, also after one failed. Returns one line for each that stays."""
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
        print(f"nothing of the demo is left; {shown(folders.cache())} keeps built programs and images for the next run")
    return failed


def _discard(files: Files) -> None:
    Server.discard(files.server)
    if files.server.exists():
        raise DemoError(f"cannot remove {shown(files.server)}")


def _remove_empty(folder: Path) -> None:
    """Remove the folder unless it holds another demo."""
    with suppress(OSError):
        folder.rmdir()
