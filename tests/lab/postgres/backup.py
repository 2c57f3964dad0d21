"""Copies a running server's data folder, as PostgreSQL's low-level backup interface allows."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import psycopg

NON_EXCLUSIVE_ONLY = 150000
"""The version in which pg_start_backup became pg_backup_start and lost its exclusive form."""


def base_backup(dsn: str, source: Path, target: Path) -> None:
    """Copies the data folder `source` of the running server behind `dsn` to the new folder `target`."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        new = connection.info.server_version >= NON_EXCLUSIVE_ONLY
        start = "pg_backup_start('standby', true)" if new else "pg_start_backup('standby', true, false)"
        stop = "pg_backup_stop(false)" if new else "pg_stop_backup(false, false)"
        connection.execute(f"SELECT {start}".encode())
        shutil.copytree(source, target, ignore=_left_out, copy_function=_copy)
        row = connection.execute(f"SELECT labelfile FROM {stop}".encode()).fetchone()
    assert row is not None
    (target / "backup_label").write_text(row[0])


def _left_out(folder: str, names: list[str]) -> Iterable[str]:
    """What belongs to the running server itself; the write-ahead log is streamed instead."""
    if Path(folder).name == "pg_wal":
        return [name for name in names if name != "archive_status"]
    return {"postmaster.pid", "postmaster.opts"} & set(names)


def _copy(source: str, target: str) -> str:
    # A file may be dropped between its listing and its copy; the log that is replayed knows.
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError:
        return target
    Path(target).chmod(0o600)
    return target
