"""PgBouncer, as Debian packages it, in front of a server of the lab."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

import psycopg

from lab.cluster import folders
from lab.postgres import LabError, Server, account, free_port
from lab.postgres.processes import Guarded

PACKAGE = "pgbouncer"
PATIENCE = 30.0
"""Limit for the answer to its first client, in seconds."""
POLL = 0.05
LISTS = "lists"
USUAL = "extra_float_digits"
"""Startup parameters that installations commonly let it ignore."""
OPERATORS = "extra_float_digits,options"
"""Startup parameters that the poolers of CloudNativePG and Zalando ignore."""


def program() -> list[str]:
    """The beginning of its command: that on the PATH, else Debian's, unpacked into the cache and not installed.

    Raises LabError where it cannot be had.
    """
    if found := shutil.which(PACKAGE):
        return [found]
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise LabError("no pgbouncer on the PATH, and no apt-get that could fetch Debian's")
    target = account.cache() / PACKAGE
    account.make_open(target.parent)
    with folders.locked(target.parent):
        if not target.is_dir():
            half = target.with_suffix(".half")
            shutil.rmtree(half, ignore_errors=True)
            _fetch(half)
            account.open_up(half)
            half.rename(target)
    return _command(target)


def _command(target: Path) -> list[str]:
    libraries = sorted({str(each.parent) for each in target.rglob("*.so*")})
    return ["env", f"LD_LIBRARY_PATH={':'.join(libraries)}", str(target / "usr" / "sbin" / PACKAGE)]


def _fetch(target: Path) -> None:
    """The package and the libraries that it depends on by name."""
    packages = target / "packages"
    packages.mkdir(parents=True)
    said = _apt(packages, PACKAGE)
    if said and not (said := _update(packages)):
        # A machine whose package lists are missing or old. Those of its own need no right to renew the machine's.
        said = _apt(packages, PACKAGE)
    if said:
        raise LabError(f"pgbouncer cannot be fetched: {said}")
    (fetched,) = packages.glob("*.deb")
    depends = subprocess.run(["dpkg-deb", "-f", str(fetched), "Depends"], capture_output=True, text=True).stdout
    # Most of them are in every Debian, and some machines cannot fetch those; what is missing in the end is reported.
    said = ""
    for each in re.findall(r"(?:^|, )(lib[^ ,]+)", depends):
        if each != "libc6":
            said = _apt(packages, each) or said
    for each in packages.glob("*.deb"):
        if wrong := _run(["dpkg-deb", "-x", str(each), str(target)], packages):
            raise LabError(f"{each.name} cannot be unpacked: {wrong}")
    ended = subprocess.run([*_command(target), "--version"], capture_output=True, text=True)
    if ended.returncode:
        raise LabError(f"pgbouncer does not run: {ended.stderr.strip()}; {said}")
    shutil.rmtree(packages)


def _apt(folder: Path, *packages: str) -> str:
    return _run(["apt-get", *_own_lists(folder), "download", "-q", *packages], folder)


def _update(folder: Path) -> str:
    (folder / LISTS / "partial").mkdir(parents=True)
    return _run(["apt-get", *_own_lists(folder), "update", "-q"], folder)


def _own_lists(folder: Path) -> list[str]:
    """Options of apt by which it has package lists, and caches, in the folder, once they were fetched."""
    own = {"Dir::State::lists": folder / LISTS, "Dir::Cache": folder / "cache"}
    return [f"-o{name}={path}" for name, path in own.items()] if (folder / LISTS).is_dir() else []


def _run(command: list[str], folder: Path) -> str:
    """The end of its log after a failure."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, start_new_session=True)
    return " ".join((done.stderr or f"exit code {done.returncode}").split()) if done.returncode else ""


class PgBouncer:
    """One pooler. As a context manager it is removed at the end; also ends when this process is killed."""

    def __init__(self, server: Server, folder: Path, command: list[str], users: Mapping[str, str]) -> None:
        self.server, self.folder, self.host = server, folder, "127.0.0.1"
        self.port = free_port()
        self.users = {server.superuser: server.password, **users}
        # Users have no access to the console, as in production.
        self._administrator, self._password = f"admin_{secrets.token_hex(4)}", secrets.token_hex(16)
        self._process = Guarded(folder, [*command, "pgbouncer.ini"], account.owner(), os.environ)

    @classmethod
    def start(
        cls,
        server: Server,
        pool_mode: str,
        ignored: str = OPERATORS,
        *,
        users: Mapping[str, str] | None = None,
        settings: Mapping[str, object] | None = None,
        databases: Iterable[str] = (),
    ) -> PgBouncer:
        """One that serves every database of `server` to its superuser and to `users`, whose passwords they are.

        `databases` are named in its configuration: a database that is not is forgotten when it is killed.

        `ignored` are startup parameters that it drops instead of refusing them; `settings` are more of its own. Raises
        LabError.
        """
        made = cls(server, account.temporary_folder(), program(), users or {})
        try:
            stated = {"pool_mode": pool_mode, "ignore_startup_parameters": ignored, **(settings or {})}
            made._configure(stated, [*databases, "*"])
            made._process.start()
            made._wait_until_ready()
        except BaseException:
            made.remove()
            raise
        return made

    def dsn(self, dbname: str, user: str | None = None) -> str:
        """A connection string through it, by default the superuser's."""
        name = user or self.server.superuser
        login = f"{quote(name, safe='')}:{quote(self.users[name], safe='')}"
        return f"postgresql://{login}@{self.host}:{self.port}/{quote(dbname, safe='')}"

    @property
    def version(self) -> str:
        """Such as ``1.18.0``."""
        done = subprocess.run([*program(), "--version"], capture_output=True, text=True)
        found = re.search(r"[0-9.]+", done.stdout)
        return found[0] if found else "unknown"

    def console(self, *commands: str) -> None:
        """Commands of its administrator, such as ``PAUSE`` or ``KILL app``; PAUSE returns once no client is served."""
        login = f"postgresql://{self._administrator}:{self._password}@{self.host}:{self.port}/pgbouncer"
        with psycopg.connect(login, autocommit=True) as connection:
            for command in commands:
                connection.execute(command.encode())

    def remove(self) -> None:
        """Stop it and remove its folder; idempotent."""
        # It holds nothing that could be lost. Older ones have no handler of SIGQUIT, which is ignored in what a shell
        # starts in the background: the guard would wait for it.
        self._process.signal(signal.SIGKILL)
        self._process.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> PgBouncer:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _configure(self, settings: Mapping[str, object], databases: Iterable[str]) -> None:
        users = {**self.users, self._administrator: self._password}
        known = "".join(f'"{name}" "{password}"\n' for name, password in users.items())
        stated: dict[str, object] = {
            "listen_addr": self.host,
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": "users.txt",
            "admin_users": self._administrator,
            **settings,
        }
        lines = [f"{each} = host={self.server.host} port={self.server.port}" for each in databases]
        text = "\n".join(["[databases]", *lines, "[pgbouncer]", *(f"{key} = {value}" for key, value in stated.items())])
        for name, content in (("users.txt", known), ("pgbouncer.ini", f"{text}\n")):
            file = self.folder / name
            file.touch(0o600)
            file.write_text(content)
            account.give(file)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._process.pid() is not None and time.monotonic() < deadline:
            try:
                psycopg.connect(self.dsn("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(POLL)
            else:
                return
        log = self.folder / "server.log"
        said = log.read_text(errors="replace")[-2000:] if log.exists() else "nothing"
        raise LabError(f"pgbouncer does not answer; its log says:\n{said}")
