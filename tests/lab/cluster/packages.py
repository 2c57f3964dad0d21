"""What a node needs from the distribution: containerd, runc, CNI plugins and iptables, as Debian packages them."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from . import folders
from .model import ClusterError
from .reporter import Reporter

CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))

# A command (or CNI plugin) and the package that brings it.
COMMANDS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "mount": "mount",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
PLUGINS = ("bridge", "host-local", "loopback")
PLUGIN_PACKAGE = "containernetworking-plugins"
SYSTEMD = Path("/run/systemd/system")
PATIENCE = 300
"""Seconds that another program may hold dpkg's lock."""
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")


def search_path() -> str:
    """The PATH with the folders of system commands, which not every root shell has."""
    known = os.environ.get("PATH", "").split(os.pathsep)
    return os.pathsep.join([*known, *(folder for folder in SYSTEM_FOLDERS if folder not in known)])


def plugin_folder() -> Path | None:
    """The folder that holds every CNI plugin a node needs."""
    return next((folder for folder in CNI_FOLDERS if all((folder / name).exists() for name in PLUGINS)), None)


def missing() -> list[str]:
    """The Debian packages that a node needs and this machine lacks."""
    absent = lacking(COMMANDS)
    if plugin_folder() is None:
        absent.append(PLUGIN_PACKAGE)
    return sorted(absent)


def lacking(wanted: Mapping[str, str]) -> list[str]:
    """Of packages by a command, or by the path of a file, that each brings: those that this machine lacks."""
    path = search_path()
    return sorted(
        {
            package
            for probe, package in wanted.items()
            if not (Path(probe).exists() if probe.startswith("/") else shutil.which(probe, path=path))
        }
    )


def install_command(names: list[str]) -> str:
    """What a person would type."""
    return f"apt-get update && apt-get install --no-install-recommends {' '.join(names)}"


def provide(say: Reporter) -> str:
    """Install what is missing where that is possible; return "" or one line that says why a node cannot run."""
    return _provide(say, missing)


def provide_of(say: Reporter, wanted: Mapping[str, str]) -> str:
    """The same for the packages of `lacking`."""
    return _provide(say, lambda: lacking(wanted))


def _provide(say: Reporter, missing: Callable[[], list[str]]) -> str:
    absent = missing()
    if not absent:
        return ""
    wanted = " ".join(absent)
    if os.geteuid() != 0:
        return f"not root, and missing: {wanted}; as root: {install_command(absent)}"
    if not shutil.which("apt-get", path=search_path()):
        return f"missing: {wanted} (as Debian calls them), and this system has no apt-get; install them by hand"
    # apt refuses a second one at the same time: another process of these tests may be at it, with the very packages.
    with folders.locked(folders.cache() / "packages"):
        if absent := missing():
            try:
                with say.progress(f"installing {wanted} with apt-get"):
                    _install(absent)
            except ClusterError as error:
                return f"missing: {wanted}; {error}"
    still = missing()
    return f"still missing after an installation that succeeded: {' '.join(still)}" if still else ""


def _install(names: list[str]) -> None:
    """Install without starting any service, now or at the next boot."""
    environment = dict(os.environ, PATH=search_path(), DEBIAN_FRONTEND="noninteractive")
    # A lock of another process, such as unattended upgrades, is waited for.
    patient = ["-o", f"DPkg::Lock::Timeout={PATIENCE}"]
    install = ["apt-get", "install", "-y", "-q", *patient, "--no-install-recommends", *names]
    # Maintainer scripts start services only where they see systemd: there its folder is hidden from them, in a mount
    # namespace that ends with the command.
    hide = f'mount -t tmpfs tmpfs {SYSTEMD} && exec "$@"'
    if SYSTEMD.is_dir():
        install = ["unshare", "--mount", "sh", "-c", hide, "sh", *install]
    done = _run(install, environment)
    if done.returncode != 0:
        # A machine whose package lists are missing or old.
        updated = _run(["apt-get", "update", "-q"], environment)
        done = _run(install, environment)
        if done.returncode != 0:
            said = " ".join(f"{updated.stderr if updated.returncode else ''} {done.stderr}".split())
            raise ClusterError(f"`{install_command(names)}` failed: {said}")
    if "containerd" in names and SYSTEMD.is_dir():
        _run(["deb-systemd-helper", "disable", "containerd.service"], environment)


def _run(command: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    # In a session of its own Ctrl-C does not reach it: dpkg is let finish, for a half-installed package is worse.
    return subprocess.run(command, env=environment, capture_output=True, text=True, start_new_session=True)
