"""How long it takes to archive and prove a partition, against bare `pg_dump -Fc` of the same table in the same run.

`ARCHIVE_MB` in the environment is the table's size, 2000 unless told.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from lab.postgres import Binaries, Database, LabError, Server
from partwarden.archive import pgdump
from partwarden.postgres import fingerprint
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn

from .figures import Figure
from .stand import TABLE, Stand

MEGABYTES = int(os.environ.get("ARCHIVE_MB") or "2000")
LIMIT = 1.8
"""Dump, digest of the rows, read-back and both fingerprints take at most this many times what a bare dump takes."""
ROW, BATCH = 425, 100_000
"""Bytes of a row on disk, and rows that are written at once."""
FILL = """
INSERT INTO run SELECT n, timestamptz '2020-01-01Z' + n * interval '1 s', 'done',
  jsonb_build_object('host', 'worker-' || n % 64, 'exit', n % 3, 'seconds', n % 1000 / 10.0,
    'image', md5(n % 200 || ''), 'log',
    (SELECT string_agg(md5(n || 'of' || i) || ' finished the step; ', '') FROM generate_series(1, 5) i))
FROM generate_series({first}, {last}) n
"""
CALM = {"shared_buffers": "256MB", "max_wal_size": "4GB"}


def measure(stand: Stand) -> list[Figure]:
    """One after the other, each once: a table of this size is long enough to be its own average."""
    binaries = Binaries.wheel()
    with (
        Server.start(binaries, options=CALM) as server,
        server.new_database() as database,
        tempfile.TemporaryDirectory(prefix="partwarden-bench-") as folder,
    ):
        _fill(stand, database)
        (size,) = database.query("SELECT pg_table_size('run_2020') / 1e6")[0]
        bare = _bare(binaries, database, Path(folder))
        whole, memory = _archive(binaries, database, Path(folder))
        second = _fingerprint(database)
    how = f"{float(str(size)):,.0f} MB on disk"
    total = whole + second
    return [
        Figure("archive: bare pg_dump -Fc", bare, "s", note=f"to a file; {how}"),
        Figure("archive: dump, proof and first fingerprint", whole, "s", note="partwarden archive, to a folder"),
        Figure("archive: fingerprint once more", second, "s", note="as after the detach"),
        Figure("archive and proof : bare pg_dump", total / bare, "x", LIMIT),
        Figure(
            "archive: memory, at most", memory / 1e6, "MB", note="of partwarden archive with pg_dump and pg_restore"
        ),
    ]


def _fill(stand: Stand, database: Database) -> None:
    database.execute(
        TABLE.format(name="run")
        + "CREATE TABLE run_2020 PARTITION OF run FOR VALUES FROM ('2020-01-01Z') TO ('2021-01-01Z')"
    )
    rows = MEGABYTES * 1_000_000 // ROW
    with stand.say.progress(f"bench: a partition of {MEGABYTES:,} MB") as advance:
        for first in range(1, rows + 1, BATCH):
            advance(first, rows, "rows")
            database.execute(FILL.format(first=first, last=min(first + BATCH - 1, rows)))
    with database.connect() as connection:
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE run_2020")
        connection.execute("CHECKPOINT")


def _bare(binaries: Binaries, database: Database, folder: Path) -> float:
    path = folder / "bare.dump"
    began = time.monotonic()
    command = [binaries.program("pg_dump"), "-Fc", "-t", "run_2020", "-f", str(path), database.dsn]
    subprocess.run(command, check=True, timeout=7200)
    took = time.monotonic() - began
    path.unlink()
    return took


def _archive(binaries: Binaries, database: Database, folder: Path) -> tuple[float, int]:
    place = folder / "archives"
    place.mkdir()
    environment = {**os.environ, pgdump.FOLDER: str(binaries.folder / "bin")}
    command = [sys.executable, "-m", "partwarden", "archive", "--dsn", database.dsn, "--table", "run"]
    command += ["--partition", "run_2020", "--to", str(place)]
    began, most = time.monotonic(), 0
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            most = max(most, _resident(watched))
            time.sleep(0.2)
        took = time.monotonic() - began
        assert process.stderr is not None
        words = process.stderr.read().decode()
    shutil.rmtree(place)
    if process.returncode:
        raise LabError(f"partwarden archive ended with {process.returncode}: {words[-500:]}")
    return took, most


def _resident(process: psutil.Process) -> int:
    try:
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
    except psutil.Error:
        return 0


def _fingerprint(database: Database) -> float:
    with session(from_dsn(database.dsn)) as connection:
        began = time.monotonic()
        fingerprint.take(connection, "public", "run_2020")
        return time.monotonic() - began
