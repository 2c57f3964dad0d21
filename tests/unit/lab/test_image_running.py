"""Long commands of the lab: what they say is kept, and a failure names the log."""

import os
from pathlib import Path

import pytest

from lab.cluster import ClusterError
from lab.image.running import run


def test_the_last_line_is_returned_and_each_step_is_reported(tmp_path: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    program = "echo 'STEP 1/2: FROM x'; echo between; echo '[1/2] STEP 2/2: RUN y'; echo done"
    last = run(["sh", "-c", program], tmp_path / "log", os.environ, lambda *step: steps.append(step))
    assert last == "done"
    assert steps == [(1, 0, "STEP 1/2: FROM x"), (2, 0, "[1/2] STEP 2/2: RUN y")]
    assert (tmp_path / "log").read_text().splitlines()[1] == "between"


def test_a_failure_says_how_it_ended_and_where_to_read_more(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(ClusterError, match=rf"exited with 7: … no space left; its log is {log}"):
        run(["sh", "-c", "echo no space left >&2; exit 7"], log, os.environ, lambda *_: None)


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="`no-such-program` cannot be run"):
        run(["no-such-program"], tmp_path / "log", os.environ, lambda *_: None)
