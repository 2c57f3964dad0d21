"""Makes .venv in the checkout: the pinned, hash-checked packages of requirements/dev.txt and partwarden itself.

`make venv` runs this file with a Python of at least 3.11 and nothing but the standard library. A finished environment
carries a stamp; one that was interrupted, copied from elsewhere or is out of date has none that fits, and is made anew.
It keeps the Python that it was made with, unless --this-python is given.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import re
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
PROGRESS_SECONDS = 10.0


def main() -> None:
    """Makes the environment unless a finished one is there; exits 1 with a message on failure."""
    before = found_stamp().get("python", BASE_PYTHON)
    if "--this-python" not in sys.argv and before != BASE_PYTHON:
        # A Python that was named once is used by later runs too.
        os.execv(before, [before, "-I", __file__, "--this-python"])  # noqa: S606
    with (ROOT / ".venv.lock").open("w") as lock:
        # pip inherits the lock: should this process be killed alone, the next one waits until pip has gone, too.
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
    """What a finished environment says of itself: where it is, on which Python, and from which pinned files."""
    packages = hashlib.sha256(PINNED.read_bytes()).hexdigest()
    project = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    return {"folder": str(VENV), "python": BASE_PYTHON, "packages": packages, "project": project}


def found_stamp() -> dict[str, str]:
    """The stamp of the environment that is there; empty when it is missing, unfinished or does not run."""
    try:
        stamp = json.loads(STAMP.read_text())
        subprocess.run([PYTHON, "-c", ""], check=True, capture_output=True)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return {}
    return dict(stamp)


def make_environment() -> None:
    """Makes .venv anew with exactly the pinned packages."""
    say(f"making {VENV} with Python {sys.version.split()[0]} ({BASE_PYTHON})")
    need_ensurepip()
    shutil.rmtree(VENV, ignore_errors=True)
    result = subprocess.run([BASE_PYTHON, "-m", "venv", str(VENV)], capture_output=True, text=True)
    if result.returncode != 0:
        fail(f"python -m venv failed:\n{result.stdout}{result.stderr}")
    pip("pinned packages", "--require-hashes", "--requirement", str(PINNED))


def need_ensurepip() -> None:
    """Debian and Ubuntu put ensurepip in a package of its own: installs that one as root, else says how to."""
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
    """Runs pip install inside .venv, saying how far it is; its whole output goes to .venv/install.log."""
    total = len(re.findall(r"^[A-Za-z0-9][^=\s]*==", PINNED.read_text(), re.MULTILINE))
    log_path = VENV / "install.log"
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    command = [str(PYTHON), "-m", "pip", "install", *options, *arguments]
    hidden = {"PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    collected, said = 0, time.monotonic()
    with (
        log_path.open("a") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, close_fds=False
        ) as process,
    ):
        for line in process.stdout or ():
            log.write(line)
            collected += line.startswith("Collecting ")
            if time.monotonic() - said > PROGRESS_SECONDS:
                say(f"{what}: {min(collected, total)} of about {total} downloaded")
                said = time.monotonic()
            if line.startswith("Installing collected"):
                say(f"{what}: installing")
    if process.returncode != 0:
        tail = "\n".join(log_path.read_text().splitlines()[-15:])
        fail(f"installing {what} failed; the end of {log_path}:\n{tail}")


def say(message: str) -> None:
    """Prints one progress line."""
    print(f"venv: {message}", flush=True)


def fail(message: str) -> None:
    """Ends with a message on standard error and exit code 1."""
    sys.exit(f"venv: {message}")


if __name__ == "__main__":
    main()
