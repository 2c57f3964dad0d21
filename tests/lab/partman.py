"""pg_partman for comparison: from the folder that PARTMAN_FOLDER names, else the package of Debian's testing suite.

It is SQL and PL/pgSQL, but for a background worker, which is left out. So the files of one architecture serve on every
other. To renew the pin: path and hash are in the suite's signed lists (`apt-cache show postgresql-18-partman`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from lab.postgres import Database, LabError, account

FOLDER = "PARTMAN_FOLDER"
"""Names the folder with pg_partman.control, such as /usr/share/postgresql/18/extension."""
PACKAGE = "pool/main/p/pg-partman/postgresql-18-partman_5.5.0-1_amd64.deb"
SHA256 = "896e2b0aed75f55a00852c53e0f500f6de532b0599b1a3254edf7cd08a495d47"
HELPER = "/usr/lib/apt/apt-helper"
CONTROL = "pg_partman.control"
PATIENCE = 120.0
"""Seconds for each step of fetching it."""


def install(database: Database, schema: str) -> str:
    """Create the extension in a new schema of that database, of a server of PostgreSQL 18; returns its version.

    Raises LabError where pg_partman cannot be had.
    """
    # The server finds it beside its own extensions, in a folder that goes with it.
    place = database.server.folder / "partman" / "extension"
    if not place.is_dir():
        found = files()
        place.mkdir(parents=True)
        for each in found.glob("pg_partman*"):
            shutil.copy(each, place)
        account.give(place.parent)
    path = f"$system:{place.parent}"
    database.execute(f"ALTER DATABASE {database.name} SET extension_control_path = '{path}'")
    database.execute(f"CREATE SCHEMA {schema}; CREATE EXTENSION pg_partman SCHEMA {schema}")
    ((version,),) = database.query("SELECT extversion FROM pg_extension WHERE extname = 'pg_partman'")
    return str(version)


def files() -> Path:
    """The folder with its control file and its SQL. Raises LabError where there is none, and says how to have one."""
    if named := os.environ.get(FOLDER):
        if not (Path(named) / CONTROL).is_file():
            raise LabError(f"{FOLDER} is {named}, and no {CONTROL} is there; name the folder that holds it")
        return Path(named)
    target = account.cache() / Path(PACKAGE).stem
    if not target.is_dir():
        if not (Path(HELPER).exists() and shutil.which("dpkg-deb")):
            raise LabError(f"there is no apt that could fetch Debian's pg_partman; set {FOLDER} to a folder with it")
        account.make_open(target.parent)
        with tempfile.TemporaryDirectory(prefix="partman-", dir=target.parent) as scratch:
            _download(Path(scratch) / "package.deb")
            _run("dpkg-deb", "-x", f"{scratch}/package.deb", f"{scratch}/unpacked")
            Path(scratch, "unpacked").rename(target)
    (control,) = target.rglob(CONTROL)
    return control.parent


def _download(file: Path) -> None:
    """From the first mirror of this machine's apt that has these very bytes."""
    listed = _run("apt-get", "update", "--print-uris")
    mirrors = sorted(set(re.findall(r"^'(\S+)/dists/", listed, re.MULTILINE)))
    said = "this apt knows no mirror"
    for mirror in mirrors:
        try:
            options = ["-q", "-o", "APT::Sandbox::User=root", "download-file"]
            _run(HELPER, *options, f"{mirror.rstrip('/')}/{PACKAGE}", str(file), f"SHA256:{SHA256}")
        except LabError as error:
            said = str(error)
        else:
            return
    raise LabError(f"no mirror of this apt has {PACKAGE} as it is pinned ({said}); set {FOLDER} to a folder with it")


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{command[0]} failed: {error}") from None
    if done.returncode:
        raise LabError(f"{command[0]} failed: {' '.join((done.stderr or done.stdout).split())[-300:]}")
    return done.stdout
