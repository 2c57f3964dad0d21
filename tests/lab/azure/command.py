"""Azurite, installed by npm from what package-lock.json pins.

The lock has a version and an integrity hash for every package, and no addresses: they follow from the registry that npm
is configured for. To make it anew, with another version in package.json: `npm install --package-lock-only
--ignore-scripts --omit-lockfile-registry-resolved`, and remove `engines`, `funding` and `license` of each entry.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from lab.cluster import Reporter, folders
from lab.postgres import LabError, account, npm

HERE = Path(__file__).parent
LOCK = HERE / "package-lock.json"
OLDEST_NODE = 22
INSIDE = "node_modules/"


def version() -> str:
    """The pinned version, such as "3.37.0"."""
    return str(json.loads(LOCK.read_text())["packages"][f"{INSIDE}azurite"]["version"])


def built(say: Reporter) -> list[str]:
    """The command of its blob service, from the cache where it was installed before. Raises LabError."""
    node, npm_command = npm.programs(account.cache() / "npm", OLDEST_NODE)
    target = folders.cache() / "azurite" / f"v{version()}" / folders.digest(LOCK.read_bytes())
    with folders.locked(target.parent, lambda: say.say("waiting for another process that installs azurite")):
        if not target.is_dir():
            half = target.with_suffix(".half")
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            with say.progress(f"installing azurite {version()}"):
                _install(npm_command, half)
            half.rename(target)
    return [node, str(target / INSIDE / "azurite" / "dist" / "src" / "blob" / "main.js")]


def _install(npm_command: list[str], folder: Path) -> None:
    """Into that folder; no script of a package runs."""
    registry = _npm([*npm_command, "config", "get", "registry"], folder).strip().rstrip("/")
    lock = json.loads(LOCK.read_text())
    for path, entry in lock["packages"].items():
        if path:
            entry["resolved"] = f"{registry}/{_packed(path, entry)}"
    (folder / LOCK.name).write_text(json.dumps(lock))
    shutil.copy(HERE / "package.json", folder)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", f"--cache={folder / 'npm-cache'}"]
    _npm([*npm_command, "ci", *options], folder)
    shutil.rmtree(folder / "npm-cache", ignore_errors=True)


def _packed(path: str, entry: dict[str, Any]) -> str:
    """Where registries have the package, below their address."""
    name = entry.get("name") or path.rpartition(INSIDE)[2]
    return f"{name}/-/{re.sub('^@[^/]*/', '', name)}-{entry['version']}.tgz"


def _npm(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, env=npm.environment(), capture_output=True, text=True)
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip()
        raise LabError(f"npm for azurite {version()} failed: {said}")
    return done.stdout
