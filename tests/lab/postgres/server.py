"""Real PostgreSQL servers: start, stop, start again, stand by, remove."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlencode

import psutil
import psycopg
from psycopg import sql

from lab import leftovers
from lab.postgres import account, configuration
from lab.postgres.backup import base_backup
from lab.postgres.binaries import Binaries
from lab.postgres.certificates import Certificates
from lab.postgres.database import Database
from lab.postgres.errors import LabError
from lab.postgres.processes import Detached, Guarded, Process, run_as_owner

SUPERUSER = "postgres"
PATIENCE = 60.0
"""Seconds that a server is given to become ready, or to stop."""

POLL = 0.05
STOP = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT, "kill": signal.SIGKILL}
PORT_TRIES = 5


class Server:
    """One server with a folder of its own: data/, server.log and server.json. Made by `start` or `reopen`.

    As a context manager it is removed at the end. `host` and `port` are where clients of this machine reach it.
    """

    def __init__(
        self, folder: Path, binaries: Binaries, options: dict[str, str], password: str, detached: bool
    ) -> None:
        self.folder, self.binaries, self.options, self.password = folder, binaries, options, password
        self.detached, self.host = detached, "127.0.0.1"
        self.data, self.log = folder / "data", folder / "server.log"
        self.superuser = SUPERUSER
        self._process: Process
        if detached:
            self._process = Detached(self.data, self.log, binaries.program("pg_ctl"))
        else:
            command = [binaries.program("postgres"), "-D", str(self.data)]
            self._process = Guarded(folder, command, account.owner(), os.environ)

    @classmethod
    def start(
        cls,
        binaries: int | Binaries,
        folder: Path | None = None,
        *,
        options: Mapping[str, str] | None = None,
        tls: Certificates | None = None,
        require_tls: bool = False,
        listen: str = "127.0.0.1",
        port: int | None = None,
        password: str | None = None,
        detached: bool = False,
    ) -> "Server":
        """A new server that is ready.

        `binaries` may be a major version. Without `folder` it gets a temporary one; without `port`, a free one; without
        `password`, a random one for its superuser. `options` are configuration parameters. `require_tls` refuses
        connections without TLS. A `detached` server outlives this process; any other ends with it, even if it is
        killed, and its folder goes too. Raises LabError with the end of the log.
        """
        if isinstance(binaries, int):
            binaries = Binaries.of(binaries)
        folder = account.make_folder(folder) if folder else account.temporary_folder()
        server = cls(folder, binaries, {**(options or {})}, password or secrets.token_urlsafe(12), detached)
        try:
            server._initialise(tls, require_tls)
            server._start_at_some_port(listen, port)
        except BaseException:
            server.remove()
            raise
        return server

    @classmethod
    def reopen(cls, folder: Path) -> "Server":
        """The detached server that was started in `folder`, whether it runs or not.

        Raises LabError when there is none.
        """
        try:
            saved = json.loads((folder / "server.json").read_text())
        except (OSError, ValueError) as error:
            raise LabError(f"no PostgreSQL server was started in {folder}: {error}") from error
        binaries = Binaries(Path(saved["binaries"]), saved["major"])
        return cls(folder, binaries, saved["options"], saved["password"], detached=True)

    @classmethod
    def discard(cls, folder: Path) -> None:
        """Stops and removes a detached server and `folder`, in whatever state a crash left them; none is no error."""
        cls(folder, Binaries(Path(), 0), {}, "", detached=True).remove()

    @property
    def port(self) -> int:
        """The TCP port, the same for the life of the server."""
        return int(self.options["port"])

    @property
    def major(self) -> int:
        """The major version, such as 18."""
        return self.binaries.major

    @property
    def version(self) -> str:
        """The version that the running server reports, such as "18.4"."""
        with psycopg.connect(self.dsn()) as connection:
            row = connection.execute("SHOW server_version").fetchone()
        assert row is not None
        return str(row[0]).split(" ")[0]

    @property
    def running(self) -> bool:
        """Whether its postmaster runs."""
        return self.pid is not None

    @property
    def pid(self) -> int | None:
        """Its postmaster's process ID, None when it does not run."""
        return self._process.pid()

    def dsn(
        self, dbname: str = "postgres", user: str | None = None, password: str | None = None, **parameters: str
    ) -> str:
        """A postgresql:// connection string, by default the superuser's; `parameters` are libpq's, such as sslmode."""
        name, secret = user or self.superuser, self.password if password is None else password
        host = parameters.pop("host", self.host)
        query = f"?{urlencode(parameters, quote_via=quote)}" if parameters else ""
        login = f"{quote(name, safe='')}:{quote(secret, safe='')}"
        return f"postgresql://{login}@{host}:{self.port}/{quote(dbname, safe='')}{query}"

    def new_database(self, name: str | None = None) -> Database:
        """A new database, by default with a random name."""
        name = name or f"test_{secrets.token_hex(4)}"
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return Database(self, name)

    def stop(self, mode: str = "fast") -> None:
        """Stops it and waits: "smart", "fast" or "immediate" as pg_ctl has them, or "kill", as a crash would.

        One that does not run stays stopped. Raises LabError when it is still there after PATIENCE seconds.
        """
        family = self._family()
        self._process.signal(STOP[mode])
        deadline = time.monotonic() + PATIENCE
        # After "kill" the sessions end a moment later than the postmaster, and keep the next one from starting.
        while self.running or any(map(leftovers.runs, family)):
            if time.monotonic() > deadline:
                raise LabError(f"PostgreSQL in {self.folder} does not stop; its log is {self.log}")
            time.sleep(POLL)

    def _family(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children() if self.pid else []
        except psutil.NoSuchProcess:
            return []

    def start_again(self, options: Mapping[str, str] | None = None) -> None:
        """Starts it after `stop`, at the same port, with `options` added to those it had. Raises LabError."""
        self.options.update(options or {})
        self._start()

    def standby(self) -> "Server":
        """A read-only streaming standby of this server, ready for queries; remove it before its primary."""
        folder = account.temporary_folder()
        options = {**self.options, "primary_conninfo": self._primary_conninfo()}
        standby = Server(folder, self.binaries, options, self.password, detached=False)
        try:
            base_backup(self.dsn(), self.data, standby.data)
            (standby.data / "standby.signal").touch()
            standby.data.chmod(0o700)
            account.give(standby.data)
            standby._start_at_some_port(self.options["listen_addresses"], None)
        except BaseException:
            standby.remove()
            raise
        return standby

    def remove(self) -> None:
        """Stops it and removes its folder. Doing it again does nothing."""
        if self.folder.exists():
            self.stop("immediate")
        self._process.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _primary_conninfo(self) -> str:
        return f"host={self.host} port={self.port} user={self.superuser} password={self.password}"

    def _initialise(self, tls: Certificates | None, require_tls: bool) -> None:
        secret = self.folder / "password"
        secret.touch(0o600)
        secret.write_text(self.password)
        account.give(secret)
        command = [self.binaries.program("initdb"), "-D", str(self.data), "-U", self.superuser, "--no-sync"]
        command += ["--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8", "--locale=C"]
        if self.major >= 16 and not self.detached:
            # A password is random and lives for minutes; 4096 iterations are a third of what a connection costs.
            command += ["--set", "scram_iterations=1"]
        run_as_owner(command, cwd=self.folder)
        secret.unlink()
        configuration.write_access(self.data, require_tls=require_tls)
        if tls:
            self.options.update(configuration.install(self.data, tls))

    def _start_at_some_port(self, listen: str, port: int | None) -> None:
        self.options["listen_addresses"] = listen
        for left in reversed(range(PORT_TRIES)):
            self.options["port"] = str(port or configuration.free_port())
            try:
                self._start()
            except LabError as error:
                # Another process may have taken the port since it was found free.
                if port or not left or "Address already in use" not in str(error):
                    raise
            else:
                return

    def _start(self) -> None:
        configuration.write(self.data, self.options)
        if self.detached:
            self._save()
        began = self.log.stat().st_size if self.log.exists() else 0
        try:
            self._process.start()
            self._wait_until_ready()
        except LabError as error:
            said = self.log.read_bytes()[began:].decode(errors="replace") if self.log.exists() else ""
            raise LabError(f"PostgreSQL {self.major}: {error}; its log {self.log} says:\n{said[-2000:]}") from error

    def _wait_until_ready(self) -> None:
        """Waits until the postmaster has written that it accepts connections, which is where pg_ctl looks, too."""
        deadline = time.monotonic() + PATIENCE
        while (pid := self._process.pid()) is not None:
            with contextlib.suppress(FileNotFoundError):
                lines = (self.data / "postmaster.pid").read_text().splitlines()
                if len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready":
                    return
            if time.monotonic() > deadline:
                raise LabError(f"it is not ready after {PATIENCE:.0f} s")
            time.sleep(POLL)
        raise LabError("it ended at once")

    def _save(self) -> None:
        saved = {
            "binaries": str(self.binaries.folder),
            "major": self.major,
            "options": self.options,
            "password": self.password,
        }
        file = self.folder / "server.json"
        file.touch(0o600)
        file.write_text(json.dumps(saved))
