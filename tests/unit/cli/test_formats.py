"""What a terminal gets, and what a file gets."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import pytest

from partwarden.cli import formats

pytestmark = pytest.mark.slow
"""Each starts a process of its own."""

TABLE = [
    ("NAME", "STATE"),
    ("run_" + "x" * 60, "Current"),
    ("évil\x1b[2J", "Expired"),
]
PROGRAM = (
    f"from partwarden.cli import formats; formats.table({TABLE!r}); formats.line('CRITICAL: bad'); formats.line('a: b')"
)


def at_a_terminal(columns: int, **environment: str) -> str:
    """What the program writes to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    variables = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color", **environment}
    variables.pop("CI", None)
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=theirs, env=variables)
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 4096):
            said += piece
    except OSError:  # what Linux says once the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait(30) == 0
    return said.decode()


def test_a_terminal_gets_tables_no_wider_than_it_and_coloured() -> None:
    said = at_a_terminal(40)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in said.replace("\r", "").splitlines()]
    assert all(len(line) <= 40 for line in lines)
    assert "…" in lines[1]
    assert "\x1b[32mCurrent" in said
    assert "\x1b[31mCRITICAL" in said
    assert "\x1b[2J" not in said
    assert r"\x1b[2J" in said


def test_colours_can_be_refused() -> None:
    said = at_a_terminal(200, NO_COLOR="1")
    assert "\x1b[3" not in said


def test_elsewhere_nothing_is_cut_or_coloured() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert "\x1b" not in done.stdout
    assert "x" * 60 + "  Current" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["CRITICAL: bad", "a: b"]


def test_json_is_escaped_where_a_terminal_would_obey_and_stays_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"name": "run\x7f\x85\x9b2J\u2028\u202e", "plain": "größer, 表, \xa0, 🐘", "text": "a\nb\x1b"}
    formats.data(value, "json")
    shown = capsys.readouterr().out
    assert all(line.replace("\xa0", "").isprintable() for line in shown.split("\n"))
    assert "größer, 表, \xa0, 🐘" in shown
    assert json.loads(shown) == value
