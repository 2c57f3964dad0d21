"""Builds the image on a machine without docker and without a registry: Linux, as root, with Debian's packages.

debootstrap makes what debian:trixie-slim is, and buildah builds upon it, isolated by chroot. Both run in mount and
process namespaces of their own: what they mount or start ends with them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from lab.cluster import ClusterError, Reporter, folders, packages, runtime
from lab.cluster.launch import why_no_namespaces
from lab.cluster.reporter import Advance

from . import given
from .running import run

SUITE = "trixie"
BASE = "docker.io/library/debian:trixie-slim"
"""As the Dockerfile names it."""

NEWEST = "localhost/partwarden:newest"

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
TOOLS = {"buildah": "buildah", "debootstrap": "debootstrap", KEYRING: "debian-archive-keyring", "unshare": "util-linux"}
APART = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
UNWANTED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/doc", "usr/share/man", "usr/share/locale")
SLIM = "".join(f"path-exclude /usr/share/{name}/*\n" for name in ("doc", "man", "locale", "info"))
OTHERS = 1
"""Stores of layers that stay in the cache beside the one that is used: there is one for each set of pinned packages."""


def why_not(say: Reporter) -> str:
    """ "" when it can build here, else one line; installs what is missing."""
    if not sys.platform.startswith("linux"):
        return f"buildah needs Linux, and this is {sys.platform}"
    if os.geteuid() != 0:
        return "buildah and debootstrap need root"
    return packages.provide_of(say, TOOLS) or why_no_namespaces()


def build(say: Reporter, folder: Path, name: str, archive: Path, options: list[str]) -> None:
    """Write the image `name` to `archive`; layers stay in `folder`, for the next state. Raises ClusterError."""
    log = folder / "buildah.log"
    log.unlink(missing_ok=True)
    _keep_few(folder)
    with tempfile.TemporaryDirectory(prefix="partwarden-image-") as scratch:
        buildah = _Buildah(_store(folder), Path(scratch), log)
        with say.progress("building the image with buildah") as advance:
            # What a build that was killed has left.
            buildah("rm", "--all", advance=advance)
            if not buildah.has(BASE):
                _make_base(buildah, Path(scratch), log, advance)
            all_options = ["--layers", "--pull-never", f"--tag={name}", given.PACKAGES, *options]
            buildah("build", *all_options, str(folders.CHECKOUT), advance=advance)
            buildah("push", "--quiet", name, f"docker-archive:{archive}:{name}", advance=advance)
            # The newest keeps a name, and so its layers, with which the next build begins.
            buildah("tag", name, NEWEST, advance=advance)
            buildah("rmi", name, advance=advance)


class _Buildah:
    """buildah on one store."""

    def __init__(self, store: Path, scratch: Path, log: Path) -> None:
        driver = "vfs" if runtime.snapshotter(store) == "native" else "overlay"
        self._options = ["--root", str(store), "--runroot", str(scratch / "run"), "--storage-driver", driver]
        self._log = log

    def __call__(self, *arguments: str, advance: Advance) -> str:
        """The last line that the command said. Raises ClusterError when it fails."""
        return run([*APART, "buildah", *self._options, *arguments], self._log, _environment(), advance)

    def has(self, image: str) -> bool:
        """Whether the store has an image of this name."""
        inspect = ["buildah", *self._options, "inspect", "--type=image", image]
        return subprocess.run([*APART, *inspect], env=_environment(), capture_output=True).returncode == 0


def _make_base(buildah: _Buildah, scratch: Path, log: Path, advance: Advance) -> None:
    root, tar = scratch / "root", scratch / "base.tar"
    advance(0, 0, f"debootstrap {SUITE}")
    command = ["debootstrap", "--variant=minbase", SUITE, str(root), *_mirror()]
    run([*APART, *command], log, _environment(), advance)
    (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(SLIM)
    for name in UNWANTED:
        for entry in (root / name).iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    run([*APART, "tar", "-C", str(root), "-cf", str(tar), "."], log, _environment(), advance)
    container = buildah("from", "scratch", advance=advance)
    buildah("add", "--quiet", container, str(tar), "/", advance=advance)
    buildah("commit", "--quiet", "--rm", container, BASE, advance=advance)


def _mirror() -> list[str]:
    """Where this machine's apt has Debian from, where it has; else debootstrap knows."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment())
    found = [line for line in done.stdout.split() if line.rstrip("/").endswith("/debian") and line.startswith("http:")]
    return found[:1]


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": packages.search_path(), "BUILDAH_ISOLATION": "chroot"}


def _store(folder: Path) -> Path:
    pinned = folders.CHECKOUT / "requirements" / "runtime.txt"
    store = folder / f"layers-{folders.digest(pinned.read_bytes())}"
    store.mkdir(mode=0o700, exist_ok=True)
    store.touch()
    return store


def _keep_few(folder: Path) -> None:
    mine = _store(folder)
    others = sorted((path for path in folder.glob("layers-*") if path != mine), key=lambda path: path.stat().st_mtime)
    for store in others[: max(len(others) - OTHERS, 0)]:
        try:
            shutil.rmtree(store)
        except OSError as error:
            raise ClusterError(f"{store} cannot be removed: {error}") from error
