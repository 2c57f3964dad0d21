"""Where archives lie: the `Store` that all places are, a folder as one, and how a place is opened by its address."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shlex
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .. import errors
from . import objectstore_config
from .manifest import MOUNT, STORAGE_KEYS, STORAGE_PREFIX, JobSpec, TableName
from .objectstore import Objects


@dataclass(slots=True)
class Digest:
    """SHA-256 and length of what was fed to it. ``lines``: as its user counts them."""

    lines: int = 0
    size: int = 0
    _hash: Any = field(default_factory=hashlib.sha256)

    def update(self, chunk: bytes | memoryview) -> None:
        """Feed the next piece, whose lines are not counted."""
        self._hash.update(chunk)
        self.size += len(chunk)

    def through(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same chunks, each fed before it is given, and its lines counted."""
        for chunk in chunks:
            self.update(chunk)
            self.lines += chunk.count(b"\n")
            yield chunk

    @property
    def sha256(self) -> str:
        """Lower case hexadecimal digits, of what was fed so far."""
        return str(self._hash.hexdigest())


SAFE = re.compile(r"[^A-Za-z0-9._~\-\u0080-\U0010ffff]")


class Store(Protocol):
    """A place. Keys are paths with ``/``, below its root. All raise leaves of `errors` that begin with Destination."""

    def put(self, key: str, chunks: Iterable[bytes], expected: int = 0) -> None:
        """Write a new object, whole and durable, or none: what ``chunks`` raise leaves none. Raises `ObjectExists`.

        ``expected``: about how many bytes it will have.
        """

    def get(self, key: str) -> Iterator[bytes]:
        """Its bytes, piece by piece. Raises `ArchiveDamaged` where there is none."""

    def below(self, key: str, name: str) -> Iterator[str]:
        """The keys of all objects of that name in ``key`` and below, in any order."""

    def url(self, key: str) -> str:
        """For people, and for reports."""


def folder(database: str, parent: TableName | None, partition: TableName) -> str:
    """Where the archives of a partition lie: ``<database>/<schema>.<table>/<partition>``."""
    table = parent or partition
    return "/".join((_part(database), f"{_part(table.schema_)}.{_part(table.name)}", _part(partition.name)))


def _part(name: str) -> str:
    """As one part of a path, which it stays whatever characters it holds."""
    safe = SAFE.sub(lambda match: f"%{ord(match[0]):02X}", name)
    return safe if safe.strip(".") else safe.replace(".", "%2E")


CHUNK = 1 << 20
HALF = ".partwarden-"
"""How names of objects begin that are not whole: of a writer that runs, or that was killed."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


class Folder:
    """A `Store` in a directory, such as a mounted volume.

    ``root`` must exist; ``base`` is its URL, without a slash at the end.

    An object is written under another name, brought to the disk, and only then linked to its own, which fails where
    there is one: it is whole or not there, whenever power is lost.
    """

    def __init__(self, root: Path, base: str | None = None) -> None:
        self.root = root
        self.base = base if base is not None else f"file://{root.absolute()}".rstrip("/")

    def put(self, key: str, chunks: Iterable[bytes], expected: int = 0) -> None:
        path = self.root / key
        half = path.with_name(HALF + secrets.token_hex(8))
        with self._translating(key):
            self._is_there()
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                raise errors.ObjectExists(f"{self.url(key)} exists already, and is never overwritten")
        try:
            self._write(half, key, chunks)
            with self._translating(key):
                # Unlike a rename, it fails where another process has just finished one of that name.
                os.link(half, path)
        finally:
            with suppress(OSError):
                half.unlink()
        with self._translating(key):
            for folder in (path.parent, *path.parent.parents):
                _sync(folder)
                if folder == self.root:
                    break

    def _write(self, half: Path, key: str, chunks: Iterable[bytes]) -> None:
        with self._translating(key):
            # A buffer would try what it still holds once more when it is closed, and hide what the failure was.
            file = half.open("xb", buffering=0)
        with file:
            for chunk in chunks:
                with self._translating(key):
                    left = memoryview(chunk)
                    while left:
                        left = left[file.write(left) :]
            with self._translating(key):
                os.fsync(file.fileno())

    def get(self, key: str) -> Iterator[bytes]:
        with self._translating(key):
            self._is_there()
            try:
                file = (self.root / key).open("rb")
            except (FileNotFoundError, NotADirectoryError):
                raise errors.ArchiveDamaged(f"{self.url(key)} is not there") from None
        with file:
            while True:
                with self._translating(key):
                    chunk = file.read(CHUNK)
                if not chunk:
                    return
                yield chunk

    def below(self, key: str, name: str) -> Iterator[str]:
        top = self.root / key
        with self._translating(key):
            self._is_there()
            if not top.is_dir():
                raise errors.DestinationNotFound(f"folder {top} does not exist")
            for each in sorted(top.rglob(name)):
                yield each.relative_to(self.root).as_posix()

    def url(self, key: str) -> str:
        return f"{self.base}/{key}"

    def _is_there(self) -> None:
        """A volume that is not mounted must not be taken for an empty one that anything may be written beside."""
        if not self.root.is_dir():
            raise errors.DestinationNotFound(
                f"folder {self.root} of {self.base} does not exist: create it, or mount the volume"
            )

    @contextmanager
    def _translating(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise errors.ObjectExists(f"{self.url(key)} exists already, and is never overwritten") from None
        except OSError as error:
            words = f"{self.url(key)}: {error.strerror or error}"
            if error.errno in FULL:
                raise errors.DestinationFull(f"{words}: make room, or choose a larger volume") from None
            if error.errno in DENIED:
                raise errors.DestinationDenied(f"{words}: let the user of the process write there") from None
            raise errors.DestinationUnreachable(words) from None


def _sync(folder: Path) -> None:
    """Brings the names in it to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


CLAIM, FILE = "pvc://", "file://"
POD = (
    '{"spec": {"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}, '
    '"volumes": [{"name": "archives", "persistentVolumeClaim": {"claimName": %s}}], "containers": [{"name": "restore", '
    '"securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}, '
    '"volumeMounts": [{"name": "archives", "mountPath": %s}]}]}}'
)
"""As namespaces want it that take restricted pods only."""


def how_to_read(url: str) -> str:
    """What to type to read an archive at a location like ``pvc://claim/folder``, which only a pod sees."""
    claim, _, folder = url.removeprefix(CLAIM).partition("/")
    path = f"{MOUNT}/{folder}".rstrip("/")
    words = [
        *("kubectl", "run", "restore", "--image=IMAGE", "--restart=Never", "--rm", "--attach", "--quiet"),
        *("--override-type=strategic", f"--overrides={POD % (json.dumps(claim), json.dumps(MOUNT))}", "--"),
        *("restore", f"--manifest={path}", "--list"),
    ]
    return (
        f"{url} lies on PersistentVolumeClaim {claim!r}, which a pod in its namespace can read. With the operator's "
        f"image for IMAGE, and with --namespace where it is another:\n\n  {shlex.join(words)}\n\nThere it is {path}, "
        "for verify as well. With --dsn a pod needs a password, too: examples/restore.yaml is its manifest"
    )


def of_job(spec: JobSpec, environment: MutableMapping[str, str]) -> Store:
    """The store of a Job's destination.

    Takes the Secret's values out of the environment: programs that are started have no need to see them. Raises
    `DestinationDenied`, and as `objectstore_config.by_destination`.
    """
    names = {key: STORAGE_PREFIX + re.sub(r"[^A-Za-z0-9]", "_", key) for key in STORAGE_KEYS}
    values = {key: environment.pop(name) for key, name in names.items() if name in environment}
    claim, root = spec.destination.pvc, Path(spec.mount)
    if claim is None:
        return objectstore_config.by_destination(spec.destination, values)
    if claim.path:
        if ".." in claim.path.split("/"):
            raise errors.InvalidSpec(f"path {claim.path!r} of the volume leads out of it")
        root /= claim.path.strip("/")
        if Path(spec.mount).is_dir():
            try:
                root.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise errors.DestinationDenied(f"folder {root} of {spec.destination}: {error.strerror}") from None
    return Folder(root, str(spec.destination))


def at(url: str, environment: Mapping[str, str] = os.environ) -> tuple[Store, str]:
    """The store at that address, and the key in it: of a folder its parent, of a bucket all of it.

    Raises `InvalidSpec`, as `objectstore_config.by_url` does.
    """
    # Nothing is unquoted: names of archives hold percent signs of their own.
    path = url.removeprefix(FILE)
    if path.startswith(CLAIM):
        raise errors.InvalidSpec(how_to_read(path))
    if "://" in path:
        return objectstore_config.by_url(path, environment)
    if not Path(path).name:
        raise errors.InvalidSpec(f"{url!r} is no address: give a folder, s3://, gs:// or az:// with a bucket")
    return Folder(Path(path).parent), Path(path).name


def to(url: str, environment: Mapping[str, str] = os.environ) -> Store:
    """The store that archives are written to below that address. Raises as `at`."""
    path = url.removeprefix(FILE)
    if not path.strip():
        raise errors.InvalidSpec(f"{url!r} is no address: give a folder, s3://, gs:// or az:// with a bucket")
    if "://" not in path:
        return Folder(Path(path))
    store, prefix = at(url, environment)
    return store.within(prefix) if isinstance(store, Objects) else store
