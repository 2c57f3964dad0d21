"""Create .venv in the checkout: the pinned, hash-checked packages of requirements/dev.txt and partwarden itself.

`make venv` runs this file with a Python of at least 3.11 and nothing but the standard library. A finished environment
has a stamp; one that was interrupted, copied from elsewhere or is out of date has no matching stamp and is replaced.
It keeps its Python unless --this-python is given.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "partwarden-stamp.json"
PINNED = ROOT / "requirements" / "dev.txt"
PYTHON = VENV / "bin" / "python"
# The interpreter behind an activated environment: .venv itself may be the active one, and is about to be removed.
BASE_PYTHON = str(getattr(sys, "_base_executable", sys.executable))


def main() -> None:
    """Create the environment unless a finished one exists. Exits 1 with a message on failure."""
    before = found_stamp().get("python", BASE_PYTHON)
    if "--this-python" not in sys.argv and before != BASE_PYTHON:
        # A Python that was named once is used by later runs too.
        os.execv(before, [before, "-I", __file__, "--this-python"])  # noqa: S606
    with (ROOT / ".venv.lock").open("w") as lock:
        # pip inherits the lock: if only this process is killed, the next one waits for the end of pip as well.
        os.set_inheritable(lock.fileno(), True)
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted, found = wanted_stamp(), found_stamp()
        if found == wanted:
            return
        started = time.monotonic()
        if {**found, "project": ""} != {**wanted, "project": ""}:
            make_environment()
            STAMP.write_text(json.dumps({**wanted, "project": ""}))
        pip("partwarden", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
        STAMP.write_text(json.dumps(wanted))
        say(f"{VENV} is ready ({time.monotonic() - started:.0f} s)")


def wanted_stamp() -> dict[str, str]:
    """The stamp of a finished environment: its folder, its Python, and the hashes of the files it was made from."""
    packages = hashlib.sha256(PINNED.read_bytes()).hexdigest()
    project = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    return {"folder": str(VENV), "python": BASE_PYTHON, "packages": packages, "project": project}


def found_stamp() -> dict[str, str]:
    """The stamp of the existing environment; empty when that is missing, unfinished or does not run."""
    try:
        stamp = json.loads(STAMP.read_text())
        subprocess.run([PYTHON, "-c", ""], check=True, capture_output=True)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return {}
    return dict(stamp)


def make_environment() -> None:
    """Replace .venv by one with exactly the pinned packages."""
    say(f"making {VENV} with Python {sys.version.split()[0]} ({BASE_PYTHON})")
    need_ensurepip()
    shutil.rmtree(VENV, ignore_errors=True)
    result = subprocess.run([BASE_PYTHON, "-m", "venv", str(VENV)], capture_output=True, text=True)
    if result.returncode != 0:
        fail(f"python -m venv failed:\n{result.stdout}{result.stderr}")
    pip(
        f"the pinned packages of {PINNED.name}, which takes a minute or more",
        "--require-hashes",
        "--requirement",
        str(PINNED),
    )


def need_ensurepip() -> None:
    """Install the Debian or Ubuntu package with ensurepip as root. Exits 1 with the command for other users."""
    found = importlib.util.find_spec("ensurepip")
    if found and found.origin:
        return
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    command = f"apt-get update && apt-get install -y --no-install-recommends {package}"
    if shutil.which("apt-get") is None:
        fail(f"{BASE_PYTHON} has no ensurepip module: install the full Python, or name another with PYTHON=...")
    if os.geteuid() != 0:
        fail(f"{BASE_PYTHON} has no ensurepip module. Run as root:\n  {command}\nor name another Python: PYTHON=...")
    say(f"{BASE_PYTHON} has no ensurepip module: installing {package}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    result = subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True)
    if result.returncode != 0:
        fail(f"{command}\nfailed:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")


def pip(what: str, *arguments: str) -> None:
    """Run pip install in .venv, without settings that would install elsewhere. Exits 1 when pip fails."""
    say(f"installing {what}")
    options = ["--disable-pip-version-check", "--no-input", "--quiet"]
    hidden = {"PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [str(PYTHON), "-m", "pip", "install", *options, *arguments]
    # pip inherits the open lock, see main.
    if subprocess.run(command, env=environment, close_fds=False).returncode != 0:
        fail(f"cannot install {what}: pip names the cause above; fix it and run make venv again")


def say(message: str) -> None:
    """Print one progress line."""
    print(f"venv: {message}", flush=True)


def fail(message: str) -> None:
    """Exit with code 1 and a message on standard error."""
    sys.exit(f"venv: {message}")


if __name__ == "__main__":
    main()
