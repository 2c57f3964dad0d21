"""The majors of PostgreSQL that a run, and each of its tests, is for.

A test of `tests/postgres` runs on the oldest major, on the newest, and on one of those between, which its name decides:
so each of these has a third of the tests in every run, and no run takes as long as all tests on all of them. Where the
majors themselves are the subject, a test names them. ``PG_MAJORS=every`` runs every test on every major, as CI does
once a week; ``PG_MAJORS=15,18`` narrows a run.
"""

import os
import zlib

import pytest

from lab.postgres import MAJORS

NARROWED = "PG_MAJORS"
EVERY = "every"


def stated() -> str:
    """What the environment says of the majors; empty where it says nothing."""
    return os.environ.get(NARROWED, "").strip()


def majors() -> tuple[int, ...]:
    """The majors of this run, oldest first. Raises pytest's UsageError for one that is not supported."""
    words = [word.strip() for word in stated().split(",") if word.strip() not in ("", EVERY)]
    known = {str(major): major for major in MAJORS}
    if unknown := [word for word in words if word not in known]:
        raise pytest.UsageError(f"{NARROWED}: {', '.join(unknown)} is none of {', '.join(known)}, nor {EVERY}")
    return tuple(sorted(known[word] for word in words)) or MAJORS


def of_test(name: str) -> tuple[int, ...]:
    """The majors of a test with that node ID, the same in every run of it."""
    chosen = majors()
    if stated() or len(chosen) < 4:
        return chosen
    oldest, *between, newest = chosen
    return oldest, between[zlib.crc32(name.encode()) % len(between)], newest
