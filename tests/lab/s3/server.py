"""An S3 server that ends with the process that started it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from html import unescape
from pathlib import Path
from types import TracebackType

from lab.cluster import Reporter
from lab.postgres import free_port, make_certificates
from lab.postgres.processes import Guarded
from lab.proxy import Proxy
from lab.s3 import command
from lab.s3.signed import Answer, Keys, S3Error, Signed

REGION = "us-east-1"
PATIENCE = 30.0
"""Seconds that a server is given to answer."""

POLL = 0.05
PORT_TRIES = 5
TAKEN = "address already in use"
LAST = 4000
"""Characters of the log that are shown when something has failed."""

HALF = ".sgwtmp"
"""Where the server keeps what is not an object yet, in the folder of each bucket."""

MAY_READ = ("s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation")


class S3Server:
    """One server. Made by `start`; as a context manager it is removed at the end.

    `endpoint` is where this machine reaches it, at `host` and `port`. `root` may do everything, `reader` may only read,
    and only in buckets that `make_bucket` made. An object is a file: `folder` / bucket / key; what else the server
    knows of it lies elsewhere. `ca` is the PEM file of who signed its certificate, None without TLS.
    """

    def __init__(self, folder: Path | None, host: str, *, tls: bool, versions: bool = False) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="partwarden-s3-"))
        self.folder, self.log = folder or self.home / "objects", self.home / "server.log"
        self.host, self.port = host, free_port(host)
        self.root, self.reader = (Keys(name, secrets.token_urlsafe(24)) for name in ("root", "reader"))
        self.region, self.version = REGION, command.version()
        self._versions = versions
        hosts = list(dict.fromkeys([host, "127.0.0.1", "localhost"]))
        self._certificates = make_certificates(self.home, hosts) if tls else None
        self._process: Guarded | None = None

    @classmethod
    def start(
        cls,
        say: Reporter,
        *,
        tls: bool = False,
        folder: Path | None = None,
        host: str = "127.0.0.1",
        versions: bool = False,
    ) -> S3Server:
        """A new server that answers, at a free port of `host`, an address of this machine.

        Objects go to `folder`, which stays, or to a temporary one. Its certificate is good for `host` and for
        127.0.0.1. ``versions``: its buckets may keep versions. Raises ClusterError when it cannot be built, S3Error
        with the end of its log when it does not start.
        """
        program = command.built(say)
        for left in reversed(range(PORT_TRIES)):
            server = cls(folder, host, tls=tls, versions=versions)
            try:
                server._start(program)
            except BaseException as error:
                server.remove()
                # Another process may have taken the port since it was found free.
                if not left or not isinstance(error, S3Error) or TAKEN not in str(error):
                    raise
            else:
                break
        return server

    @property
    def endpoint(self) -> str:
        """The URL that clients are given."""
        return self._at(self.host, self.port)

    def endpoint_over(self, proxy: Proxy) -> str:
        """The same over a way that leads here, `Way(s3.host, s3.port)`."""
        return self._at("127.0.0.1", proxy.port)

    @property
    def ca(self) -> Path | None:
        """PEM."""
        return self._certificates.authority if self._certificates else None

    @property
    def access_key(self) -> str:
        """Of the user who may do everything."""
        return self.root.access_key

    @property
    def secret_key(self) -> str:
        """Of the user who may do everything."""
        return self.root.secret_key

    @property
    def pid(self) -> int | None:
        """Its process ID, None when it does not run."""
        return self._process.pid() if self._process else None

    def as_user(self, keys: Keys) -> Signed:
        """Asks with these keys."""
        return Signed(self.endpoint, keys, self.region, self.ca)

    def ask(
        self,
        method: str,
        path: str,
        content: bytes = b"",
        query: dict[str, str] | None = None,
        more: dict[str, str] | None = None,
    ) -> Answer:
        """One request of the user who may do everything; ``more`` are headers. Raises S3Error unless it was done."""
        answer = self.as_user(self.root).ask(method, path, content, query, more)
        if answer.status >= 300:
            raise S3Error(f"{method} {path}: {answer.status} {answer.content.decode(errors='replace')}")
        return answer

    def make_bucket(self, name: str, *, locking: bool = False) -> Path:
        """A new bucket that `reader` may read, and its folder. ``locking``: with Object Lock, and with versions where
        the server has them. Raises S3Error."""
        self.ask("PUT", f"/{name}", more={"x-amz-bucket-object-lock-enabled": "true"} if locking else None)
        resources = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
        statement = {
            "Effect": "Allow",
            "Principal": {"AWS": [self.reader.access_key]},
            "Action": MAY_READ,
            "Resource": resources,
        }
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        self.ask("PUT", f"/{name}", json.dumps(policy).encode(), {"policy": ""})
        return self.folder / name

    def lock(self, bucket: str, key: str, until: str) -> None:
        """Keep an object from being deleted by anyone before that day. Raises S3Error."""
        said = f"<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>{until}T00:00:00Z</RetainUntilDate></Retention>"
        digest = base64.b64encode(hashlib.md5(said.encode(), usedforsecurity=False).digest()).decode()
        self.ask("PUT", f"/{bucket}/{key}", said.encode(), {"retention": ""}, {"content-md5": digest})

    def remove_bucket(self, name: str) -> None:
        """With all that is in it, also by hand; one that is not there is no error."""
        for place in (self.folder, self.home / "sidecar"):
            shutil.rmtree(place / name, ignore_errors=True)

    def objects(self, bucket: str) -> list[str]:
        """The keys that a bucket has, sorted; what is half uploaded is none."""
        files = [path for path in (self.folder / bucket).rglob("*") if path.is_file()]
        keys = [path.relative_to(self.folder / bucket).as_posix() for path in files]
        return sorted(key for key in keys if not key.startswith(f"{HALF}/"))

    def unfinished(self, bucket: str) -> list[str]:
        """The keys of multipart uploads that are neither completed nor aborted, sorted. Raises S3Error."""
        answer = self.ask("GET", f"/{bucket}", query={"uploads": ""})
        return sorted(unescape(key) for key in re.findall("<Key>(.*?)</Key>", answer.content.decode()))

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-LAST:] if self.log.exists() else ""

    def remove(self) -> None:
        """Ends it, and removes its files. Doing it again does nothing."""
        if self._process:
            self._process.close()
            self._process = None
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self) -> S3Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            print(f"the log of the S3 server at {self.endpoint} ends with:\n{self.said()}", file=sys.stderr)
        self.remove()

    def _at(self, host: str, port: int) -> str:
        return f"{'https' if self._certificates else 'http'}://{host}:{port}"

    def _lay_out(self) -> None:
        for name in ("objects", "sidecar", "accounts", "versions"):
            (self.home / name).mkdir()
        account = {"access": self.reader.access_key, "secret": self.reader.secret_key, "role": "user"}
        # The folder is its owner's alone.
        (self.home / "accounts" / "users.json").write_text(
            json.dumps({"accessAccounts": {self.reader.access_key: account}})
        )

    def _start(self, program: Path) -> None:
        self._lay_out()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("VGW_", "ROOT_"))}
        keys = {"ROOT_ACCESS_KEY_ID": self.root.access_key, "ROOT_SECRET_ACCESS_KEY": self.root.secret_key}
        self._process = Guarded(self.home, [str(program), *self._arguments()], None, inherited | keys)
        self._process.start()
        deadline = time.monotonic() + PATIENCE
        while why_not := self._why_not_ready():
            if self.pid is None or time.monotonic() > deadline:
                ended = "has ended" if self.pid is None else f"does not answer after {PATIENCE:.0f} s ({why_not})"
                raise S3Error(f"versitygw {self.version} {ended}; its log says:\n{self.said()}")
            time.sleep(POLL)

    def _arguments(self) -> list[str]:
        flags = [f"--port={self.host}:{self.port}", f"--region={self.region}"]
        flags += [f"--iam-dir={self.home / 'accounts'}", "--iam-cache-disable", "--keep-alive"]
        if self._certificates:
            flags += [f"--cert={self._certificates.certificate}", f"--key={self._certificates.key}"]
        # Not every file system keeps extended attributes.
        kept = [f"--versioning-dir={self.home / 'versions'}"] if self._versions else []
        return [*flags, "posix", f"--sidecar={self.home / 'sidecar'}", *kept, str(self.folder)]

    def _why_not_ready(self) -> str:
        """ "" when it answers."""
        try:
            answer = self.as_user(self.root).ask("GET", "/")
        except OSError as error:
            return str(error)
        return "" if answer.status == 200 else answer.content.decode(errors="replace")
