"""The paths of one local cluster, shared by the code that prepares it and by the node itself."""

from dataclasses import dataclass
from pathlib import Path

INSIDE = Path("/run/partwarden")
"""Where the node's mount namespace shows the cluster's folder: a short path, for sockets have a limit of 108 bytes."""

COMMANDS = Path("/run/commands")
"""Where it shows the cluster's commands."""


@dataclass(frozen=True)
class Layout:
    """Paths under one folder."""

    folder: Path

    @property
    def keys(self) -> Path:
        """Certificates and keys."""
        return self.folder / "keys"

    @property
    def config(self) -> Path:
        """Configuration files and the kubeconfigs of the components."""
        return self.folder / "config"

    @property
    def data(self) -> Path:
        """What the components write."""
        return self.folder / "data"

    @property
    def logs(self) -> Path:
        """One file for each component, and `pods` with what pods printed."""
        return self.folder / "logs"

    @property
    def kubeconfig(self) -> Path:
        """The user's kubeconfig."""
        return self.folder / "kubeconfig"

    @property
    def state(self) -> Path:
        """What is known of the cluster, as JSON."""
        return self.folder / "state.json"

    @property
    def plan(self) -> Path:
        """What the node shall run, as JSON."""
        return self.folder / "node.json"

    @property
    def failure(self) -> Path:
        """One line that the node writes when it has to end by itself."""
        return self.folder / "failure"

    def make(self) -> None:
        """Make the folders, readable by their owner only."""
        for folder in (self.folder, self.keys, self.config, self.data, self.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
