"""Where a demo keeps its files: the user's cache, never the checkout."""

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
    """The demo could not go on; the message says why and what to do. `log` is where to read more."""

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log


@dataclass(frozen=True)
class Files:
    """The files of one demo. Its cluster and its server have its name, and folders of their own."""

    name: str

    @property
    def folder(self) -> Path:
        """Everything that is not the cluster's or the server's. Raises ClusterError when the name is none."""
        return folders.cache() / "demos" / clusters.folder_of(self.name).name

    @property
    def server(self) -> Path:
        """PostgreSQL's folder."""
        return state_folder(self.name)

    @property
    def operator_log(self) -> Path:
        """What the operator says."""
        return self.folder / "operator.log"

    @property
    def operator_pid(self) -> Path:
        """The operator's process ID, written by itself."""
        return self.folder / "operator.pid"

    @property
    def operator_kubeconfig(self) -> Path:
        """What the operator may do: the rights of its service account."""
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
    def borrowed(self) -> Path:
        """Names the kubeconfig of the cluster, when that is one that the user brought."""
        return self.folder / "borrowed-cluster.json"

    def write(self, path: Path, text: str, mode: int = 0o600) -> None:
        """Write one file so that nobody else can ever read it, and a reader sees the old or the new one."""
        half = path.with_name(f"{path.name}.half")
        half.unlink(missing_ok=True)
        half.touch(mode)
        half.write_text(text)
        half.rename(path)

    def borrowed_cluster(self) -> Path | None:
        """The kubeconfig of the user's own cluster that this demo runs in, None when it has one for itself."""
        try:
            return Path(json.loads(self.borrowed.read_text())["kubeconfig"])
        except (FileNotFoundError, ValueError, KeyError):
            return None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from starting or ending this demo meanwhile. Raises DemoError when one is at it."""
        while True:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever held it before may have removed it: then this lock is on a folder that nobody can find.
                if self.folder.exists() and os.path.samestat(self.folder.stat(), os.fstat(descriptor)):
                    yield
                    return
            except BlockingIOError:
                raise DemoError(
                    f"another process is starting or ending the demo {self.name!r} just now: let it finish, or end it "
                    "with Ctrl-C, and try again"
                ) from None
            finally:
                os.close(descriptor)


def shown(path: Path) -> str:
    """The path as one would type it in the checkout, for a shell."""
    if path.is_relative_to(CHECKOUT):
        return shlex.quote(str(path.relative_to(CHECKOUT)))
    home = folders.home()
    if home != Path("/") and path.is_relative_to(home):
        return f"~/{shlex.quote(str(path.relative_to(home)))}"
    return shlex.quote(str(path))
