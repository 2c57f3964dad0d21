"""promtool, built from Prometheus' Go module: it says whether rules are right, and when their alerts fire."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lab.cluster import Reporter, gobuild

MODULE = Path(__file__).parent
"""Whose go.mod and go.sum pin it."""
REQUIRED = "github.com/prometheus/prometheus"
PATIENCE = 120.0
"""Seconds that one command is given."""


def version() -> str:
    """The pinned version of Prometheus, such as "3.16.0": its module counts as v0.316.0."""
    _, minor, patch = gobuild.version_of(MODULE, REQUIRED).removeprefix("v").split(".")
    return f"{int(minor) // 100}.{int(minor) % 100}.{patch}"


def built(say: Reporter) -> Path:
    """The command, from the cache where it was built before. Raises ClusterError when it cannot be built."""
    flags = f"-s -w -X github.com/prometheus/common/version.Version={version()}"
    recipe = gobuild.Recipe(
        f"promtool {version()}", f"promtool/v{version()}", MODULE, (f"{REQUIRED}/cmd/promtool",), flags
    )
    return gobuild.build(recipe, say) / "promtool"


class Promtool:
    """Runs it."""

    def __init__(self, program: Path) -> None:
        self.program = program

    def __call__(self, *arguments: str, given: str = "") -> tuple[int, str]:
        """Exit code, and all that it said."""
        done = subprocess.run(
            [str(self.program), *arguments], input=given, capture_output=True, text=True, timeout=PATIENCE
        )
        return done.returncode, done.stdout + done.stderr
