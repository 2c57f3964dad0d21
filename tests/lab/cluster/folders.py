"""The folders of clusters: in the user's cache, never in the checkout."""

import fcntl
import hashlib
import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .model import ClusterError

LAB = Path(__file__).resolve().parent.parent
"""tests/lab of this checkout."""

CHECKOUT = LAB.parent.parent


def home() -> Path:
    """The user's home folder, also where HOME is not set."""
    return Path(os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)


def cache() -> Path:
    """`partwarden` in XDG_CACHE_HOME or ~/.cache, made if missing.

    Raises ClusterError when it cannot be made.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = named if named.is_absolute() else home() / ".cache"
    folder = base / "partwarden"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClusterError(f"cannot make the cache folder {folder}: {error}; set XDG_CACHE_HOME to another") from error
    return folder


def clusters() -> Path:
    """The folder that holds one folder for each cluster."""
    folder = cache() / "clusters"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def locked(folder: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold `folder` against other processes that lock it too, making it if missing; waits for as long as it takes.

    `waiting` is called when another process holds it.

    The lock is on the folder itself, so nothing is left behind. Its holder may remove the folder.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # The holder before may have removed it: then this lock is on a folder that no other process can find.
            if _is_still(folder, descriptor):
                yield
                return
        finally:
            os.close(descriptor)


def busy(folder: Path) -> bool:
    """Whether some process holds `folder` by `locked` just now."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_still(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def digest(*parts: bytes) -> str:
    """Twelve hexadecimal digits that change with any of the parts."""
    joined = hashlib.sha256()
    for part in parts:
        joined.update(len(part).to_bytes(8, "big") + part)
    return joined.hexdigest()[:12]
