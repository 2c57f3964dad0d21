"""How a dump is compressed: what pg_dump can write here, and what reads it later.

zstd takes a sixth of the time of gzip, and its dumps are smaller. Whether a pg_dump of 16 or newer has it depends on
how it was built, and is asked of pg_dump itself.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from ..api.retention import Compression
from ..errors import ClientMissing
from . import pgdump

LEVEL = 1
"""Of zstd: see docs/explanation/benchmarks.md. Higher ones take longer than the server needs to give the rows."""
NOWHERE = "host=/dev/null"
"""Where no server can be: libpq takes it for the folder of a socket, and it is none."""
TIMEOUT = 60
"""Seconds until pg_dump must have found that out."""
UNCOMPRESSED = ("--compress=0",)


@dataclass(frozen=True, slots=True)
class Dumper:
    """The pg_dump that is here, and how it is to compress."""

    version: str
    compression: Compression
    level: int | None = None
    """None: the default of that compression."""
    why_not: str = ""
    """Why not by what was wanted; empty where it is."""

    @property
    def options(self) -> tuple[str, ...]:
        """Of pg_dump. Numbers alone, which mean gzip, are known to every version, unlike words."""
        match self.compression:
            case Compression.ZSTD:
                return (f"--compress=zstd:{self.level or LEVEL}",)
            case Compression.GZIP if self.level is None:
                # As pg_dump does it by itself: its level is the same in every version.
                return ()
            case Compression.GZIP:
                return (f"--compress={self.level}",)
        return UNCOMPRESSED


def reader(version: str, compression: Compression) -> str:
    """What reads a dump of the pg_dump of that version, in words. PostgreSQL promises it of pg_restore of the same
    major and of newer ones, not of older ones."""
    built = ", built with zstd" if compression is Compression.ZSTD else ""
    return f"pg_restore of PostgreSQL {pgdump.major(version)} or newer{built}"


def choose(wanted: Compression, level: int | None = None) -> Dumper:
    """The compression that was wanted, at that level, or gzip, at its own, where pg_dump cannot do it. Raises
    `ClientMissing`."""
    dumper = Dumper(pgdump.version(), wanted, level)
    if wanted is not Compression.ZSTD:
        return dumper
    # It checks its options before it connects: where its answer is the same as with an option that all versions know,
    # namely that there is no server, it has taken this one. Its words are for people, and decide nothing.
    answer = _ask(dumper.options)
    if answer == _ask(UNCOMPRESSED):
        return dumper
    why_not = f"pg_dump {dumper.version} cannot compress by zstd: {answer[:200]}"
    return Dumper(dumper.version, Compression.GZIP, why_not=why_not)


def _ask(options: tuple[str, ...]) -> str:
    command = [pgdump.find("pg_dump"), "--format=custom", "--no-password", *options, f"--dbname={NOWHERE}"]
    try:
        done = subprocess.run(
            command, env=pgdump.plain_environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ClientMissing(f"{command[0]} cannot be run: {error}") from None
    return " ".join(done.stderr.decode(errors="replace").split()).removeprefix("pg_dump: error: ")
