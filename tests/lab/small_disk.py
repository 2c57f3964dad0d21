"""A file system of a few megabytes, or a database on it, which the kernel itself reports as full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from lab import report
from lab.postgres import Database, account

SIZE = 48
"""Megabytes. A new database has about eight."""
PIECE = bytes(1 << 16)


class SmallDisk:
    """A tmpfs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._ballast = folder, folder / "ballast"

    def fill(self) -> None:
        """Fill the file system until no page fits."""
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while file.write(PIECE) == len(PIECE):
                    pass
            except OSError:
                return

    def free(self) -> None:
        """Free all of that again."""
        self._ballast.unlink()

    def allow_writing(self, *, allowed: bool) -> None:
        """Remount it read-only, for root as well."""
        done = _mount("-o", f"remount,{'rw' if allowed else 'ro'}", str(self.folder))
        assert done.returncode == 0, done.stderr


@contextmanager
def small_volume() -> Iterator[SmallDisk]:
    """An empty one. Needs Linux and root; else the test is reported as not run."""
    folder = account.temporary_folder()
    done = _mount("-t", "tmpfs", "-o", f"size={SIZE}m,mode=755", "tmpfs", str(folder))
    if done.returncode:
        folder.rmdir()
        report.could_not_run(f"a small file system needs Linux as root: {done.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


@contextmanager
def small_disk(database: Database) -> Iterator[SmallDisk]:
    """One that the database has moved to; the server's WAL stays elsewhere."""
    with small_volume() as disk:
        name = f"small_{database.name}"
        try:
            place = disk.folder / "data"
            place.mkdir()
            account.give(place)
            _run(database, f"CREATE TABLESPACE {name} LOCATION '{place}'")
            _run(database, f"ALTER DATABASE {database.name} SET TABLESPACE {name}")
            yield disk
        finally:
            database.drop()
            _run(database, f"DROP TABLESPACE IF EXISTS {name}")


def _mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)


def _run(database: Database, statement: str) -> None:
    """Beside the database, to which no session may be connected."""
    with psycopg.connect(database.server.dsn(), autocommit=True) as connection:
        connection.execute(statement.encode())
