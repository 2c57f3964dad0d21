"""The node's own view of the file system, so that nothing it mounts or makes stays on the host.

Everything here is called in a mount namespace that ends with the node. The host's files stay visible, except that /run
is empty, /var/lib can be added to, and the cluster's folder appears under short names.
"""

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path

from .layout import COMMANDS, INSIDE

BIND = 0x1000
RECURSIVE = 0x4000
PRIVATE = 1 << 18
SHARED = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2); unlike the command it takes a source that only a descriptor still reaches.

    Raises OSError.
    """
    encoded = [os.fsencode(part) for part in (source, target, kind)]
    if _libc.mount(*encoded, ctypes.c_ulong(flags), options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mounting {source} on {target}: {os.strerror(number)}")


def arrange(folder: Path, commands: Path, settings: Mapping[str, str]) -> None:
    """Show `folder` as /run/partwarden and `commands` as /run/commands; give the node its own folders.

    `settings` are what files of /proc/sys shall seem to hold. Raises OSError.
    """
    opened = [os.open(path, os.O_PATH) for path in (folder, commands)]
    mount("none", Path("/"), flags=PRIVATE | RECURSIVE)
    _shadow(Path("/var/lib"))
    mount("tmpfs", Path("/run"), "tmpfs", options="mode=755")
    for descriptor, target in zip(opened, (INSIDE, COMMANDS), strict=True):
        target.mkdir()
        mount(f"/proc/self/fd/{descriptor}", target, flags=BIND)
        os.close(descriptor)
    for name in ("kubelet", "containerd", "cni"):
        _own(INSIDE / "data" / name, Path("/var/lib") / name)
    _own(INSIDE / "logs" / "pods", Path("/var/log"))
    for name, value in settings.items():
        file = INSIDE / "config" / "settings" / name.replace("/", "-")
        file.write_text(f"{value}\n")
        if (setting := Path("/proc/sys") / name).exists():
            mount(str(file), setting, flags=BIND)
    # Pods that ask for mount propagation need a shared root. Being private before, nothing outside shares it.
    mount("none", Path("/"), flags=SHARED | RECURSIVE)


def _own(source: Path, target: Path) -> None:
    source.mkdir(exist_ok=True)
    target.mkdir(exist_ok=True)
    mount(str(source), target, flags=BIND)


def _shadow(folder: Path) -> None:
    """Replace a folder by one with the same entries, to which entries can be added that the host does not get."""
    opened = os.open(folder, os.O_PATH)
    entries = sorted(folder.iterdir())
    mount("tmpfs", folder, "tmpfs", options="mode=755")
    for entry in entries:
        original = Path(f"/proc/self/fd/{opened}") / entry.name
        if original.is_symlink():
            entry.symlink_to(original.readlink())
        elif original.is_dir() or original.is_file():
            entry.mkdir() if original.is_dir() else entry.touch()
            mount(str(original), entry, flags=BIND | RECURSIVE)
    os.close(opened)
