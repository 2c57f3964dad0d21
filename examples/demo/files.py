"""The files of a demo: in the user's cache, never in the checkout."""

import fcntl
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.cluster import folders
from lab.cluster import state as clusters
from lab.postgres import state_folder

NAME = "demo"
CHECKOUT = folders.CHECKOUT


class DemoError(Exception):
    """The demo cannot continue; the message says why and what to do. `log` is the log to read."""

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log


@dataclass(frozen=True)
class Files:
    """The files of one demo. Its cluster and its server have its name, and folders of their own."""

    name: str

    @property
    def folder(self) -> Path:
        """All files but those of the cluster and the server. Raises ClusterError when the name is not valid."""
        return folders.cache() / "demos" / clusters.folder_of(self.name).name

    @property
    def server(self) -> Path:
        """PostgreSQL's folder."""
        return state_folder(self.name)

    @property
    def operator_log(self) -> Path:
        """The operator's log."""
        return self.folder / "operator.log"

    @property
    def operator_pid(self) -> Path:
        """The operator's process ID, written by itself."""
        return self.folder / "operator.pid"

    @property
    def operator_kubeconfig(self) -> Path:
        """The operator's kubeconfig, with the token of its service account."""
        return self.folder / "operator.kubeconfig"

    @property
    def token(self) -> Path:
        """The service account's token."""
        return self.folder / "operator.token"

    @property
    def secret(self) -> Path:
        """The Secret's keys and values, for kubectl."""
        return self.folder / "orchestrator-db.env"

    @property
    def dsn(self) -> Path:
        """The connection string of the role that owns the table."""
        return self.folder / "dsn"

    @property
    def psql(self) -> Path:
        """A script: psql, connected to the demo's database."""
        return self.folder / "psql"

    @property
    def archives(self) -> Path:
        """A copy of what the claim holds."""
        return self.folder / "archives"

    @property
    def borrowed(self) -> Path:
        """Names the kubeconfig of the user's own cluster, when the demo runs in one."""
        return self.folder / "borrowed-cluster.json"

    def write(self, path: Path, text: str, mode: int = 0o600) -> None:
        """Write one file that other users cannot read at any moment, and that a reader sees whole: old or new."""
        half = path.with_name(f"{path.name}.half")
        half.unlink(missing_ok=True)
        half.touch(mode)
        half.write_text(text)
        half.rename(path)

    def borrowed_cluster(self) -> Path | None:
        """The kubeconfig of the user's own cluster that this demo runs in, None when the demo made its cluster."""
        try:
            return Path(json.loads(self.borrowed.read_text())["kubeconfig"])
        except (FileNotFoundError, ValueError, KeyError):
            return None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock this demo against other processes. Raises DemoError when one is starting or removing it."""
        while True:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The holder before may have removed the folder: then no other process can find this one.
                if self.folder.exists() and os.path.samestat(self.folder.stat(), os.fstat(descriptor)):
                    yield
                    return
            except BlockingIOError:
                raise DemoError(
                    f"cannot lock the demo {self.name!r}: another process is starting or removing it; wait for it, or "
                    "end it with Ctrl-C, and try again"
                ) from None
            finally:
                os.close(descriptor)


def shown(path: Path) -> str:
    """The path as typed in a shell in the checkout."""
    if path.is_relative_to(CHECKOUT):
        return shlex.quote(str(path.relative_to(CHECKOUT)))
    home = folders.home()
    if home != Path("/") and path.is_relative_to(home):
        return f"~/{shlex.quote(str(path.relative_to(home)))}"
    return shlex.quote(str(path))
