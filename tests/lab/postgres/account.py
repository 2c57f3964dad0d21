"""The user that servers run as, and its folders: PostgreSQL refuses to run as root."""

import os
import pwd
import shutil
import tempfile
from pathlib import Path

from lab.postgres.errors import LabError

CANDIDATES = ("nobody", "postgres", "daemon")
MEMORY, ROOM = Path("/dev/shm"), 6 * 1024**3  # noqa: S108
"""Where files are kept in memory, and the free bytes that it needs for the servers of a test run."""


def owner() -> pwd.struct_passwd | None:
    """The unprivileged user that servers run as when this process is root's; None: they run as this process does.

    Raises LabError when root has no such user to offer.
    """
    if os.geteuid() != 0:
        return None
    for name in CANDIDATES:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise LabError(f"PostgreSQL refuses to run as root, and none of the users {', '.join(CANDIDATES)} exists")


def reachable(path: Path) -> bool:
    """Whether the servers' user may enter `path`, which may not exist yet, and all folders above it."""
    if owner() is None:
        return True
    existing = [folder for folder in (path, *path.parents) if folder.exists()]
    return all(folder.stat().st_mode & 0o001 for folder in existing)


def cache() -> Path:
    """Where binaries are kept between runs: the user's cache, or /var/cache where the servers' user cannot enter it."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    folder = (named if named.is_absolute() else Path.home() / ".cache") / "partwarden" / "postgres"
    if not reachable(folder):
        folder = Path("/var/cache/partwarden/postgres")
    return folder


def state_folder(name: str) -> Path:
    """Where the detached server `name` of this user belongs: outside the checkout, where it can run."""
    folder = cache() / "servers" / name
    make_open(folder.parent)
    return folder


def make_open(folder: Path) -> None:
    """Make a folder and what it lacks above it, for all to enter, whatever the umask. Raises LabError."""
    try:
        for each in (*reversed(folder.parents), folder):
            if not each.exists():
                each.mkdir(exist_ok=True)
                each.chmod(0o755)
    except OSError as error:
        raise LabError(f"cannot make {folder}: {error}; set XDG_CACHE_HOME to a writable folder") from error


def open_up(tree: Path) -> None:
    """Let every user read `tree`, enter its folders and run its programs."""
    for each in (tree, *tree.rglob("*")):
        if not each.is_symlink():
            each.chmod(0o755 if each.is_dir() or each.stat().st_mode & 0o100 else 0o644)


def make_folder(path: Path) -> Path:
    """Make the folder `path`, which must be new or empty, and give it to the servers' user.

    Raises LabError when it holds something, or when that user could not enter it.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise LabError(f"{path} is not empty: a server's folder must be new")
    if not reachable(path.parent):
        raise LabError(f"the user {CANDIDATES[0]}, as whom servers run for root, cannot enter {path.parent}")
    give(path)
    return path


def temporary_folder(*, in_memory: bool = False) -> Path:
    """A new folder that the servers' user owns; `in_memory` where there is room, else on the disk."""
    in_memory = in_memory and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    parent = MEMORY if in_memory else Path(tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="partwarden-pg-", dir=parent if reachable(parent) else "/var/tmp"))  # noqa: S108
    give(folder)
    return folder


def give(path: Path) -> None:
    """Make the servers' user own `path`, a file or a folder with all that is in it."""
    user = owner()
    if user is None:
        return
    for each in (path, *path.rglob("*")):
        shutil.chown(each, user.pw_uid, user.pw_gid)
