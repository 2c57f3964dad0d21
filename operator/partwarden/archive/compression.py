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
OPTIONS = {
    Compression.ZSTD: (f"--compress=zstd:{LEVEL}",),
    # As pg_dump does it by itself: its level of gzip is the same in every version.
    Compression.GZIP: (),
    # Known to every version, unlike the word.
    Compression.NONE: ("--compress=0",),
}
NOWHERE = "host=/dev/null"
"""Where no server can be: libpq takes it for the folder of a socket, and it is none."""
TIMEOUT = 60
"""Seconds until pg_dump must have found that out."""


@dataclass(frozen=True, slots=True)
class Dumper:
    """The pg_dump that is here, and how it is to compress."""

    version: str
    compression: Compression
    why_not: str = ""
    """Why not by what was wanted; empty where it is."""

    @property
    def options(self) -> tuple[str, ...]:
        """Of pg_dump."""
        return OPTIONS[self.compression]


def reader(version: str, compression: Compression) -> str:
    """What reads a dump of the pg_dump of that version, in words. PostgreSQL promises it of pg_restore of the same
    major and of newer ones, not of older ones."""
    built = ", built with zstd" if compression is Compression.ZSTD else ""
    return f"pg_restore of PostgreSQL {pgdump.major(version)} or newer{built}"


def choose(wanted: Compression) -> Dumper:
    """The compression that was wanted, or gzip where pg_dump cannot do it. Raises `ClientMissing`."""
    version = pgdump.version()
    if wanted is not Compression.ZSTD:
        return Dumper(version, wanted)
    # It checks its options before it connects: where its answer is the same as with an option that all versions know,
    # namely that there is no server, it has taken this one. Its words are for people, and decide nothing.
    answer = _ask(OPTIONS[Compression.ZSTD])
    if answer == _ask(OPTIONS[Compression.NONE]):
        return Dumper(version, wanted)
    return Dumper(version, Compression.GZIP, f"pg_dump {version} cannot compress by zstd: {answer[:200]}")


def _ask(options: tuple[str, ...]) -> str:
    command = [pgdump.find("pg_dump"), "--format=custom", "--no-password", *options, f"--dbname={NOWHERE}"]
    try:
        done = subprocess.run(
            command, env=pgdump.plain_environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ClientMissing(f"{command[0]} cannot be run: {error}") from None
    return " ".join(done.stderr.decode(errors="replace").split()).removeprefix("pg_dump: error: ")
