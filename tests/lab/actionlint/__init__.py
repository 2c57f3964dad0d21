"""actionlint, built from its Go module: whether the workflows of GitHub Actions are valid."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from lab.cluster import Reporter, gobuild

MODULE = Path(__file__).parent
"""Whose go.mod and go.sum pin it."""
REQUIRED = "github.com/rhysd/actionlint"
PATIENCE = 60.0
"""Seconds that one command is given."""


def version() -> str:
    """The pinned version, such as "1.7.12"."""
    return gobuild.version_of(MODULE, REQUIRED).removeprefix("v")


def built(say: Reporter) -> Path:
    """The command, from the cache where it was built before. Raises ClusterError when it cannot be built."""
    recipe = gobuild.Recipe(
        f"actionlint {version()}", f"actionlint/v{version()}", MODULE, (f"{REQUIRED}/cmd/actionlint",), "-s -w"
    )
    return gobuild.build(recipe, say) / "actionlint"


class Actionlint:
    """Checks workflow files."""

    def __init__(self, program: Path) -> None:
        self.program = program

    def __call__(self, files: Iterable[Path]) -> tuple[int, str]:
        """Exit code and findings. Scripts inside are not passed to shellcheck or pyflakes, wherever these exist."""
        command = [str(self.program), "-no-color", "-shellcheck=", "-pyflakes=", *map(str, files)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        return done.returncode, done.stdout + done.stderr
