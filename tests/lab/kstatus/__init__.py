"""The kstatus of an object, computed by the library with which Flux and others wait."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.cluster import Reporter, gobuild

MODULE = Path(__file__).parent
"""Whose go.mod and go.sum pin it."""
REQUIRED = "sigs.k8s.io/cli-utils"
PATIENCE = 120.0
"""Seconds that it is given."""


def version() -> str:
    """The pinned version, such as "0.37.2"."""
    return gobuild.version_of(MODULE, REQUIRED).removeprefix("v")


def built(say: Reporter) -> Path:
    """The command, from the cache where it was built before. Raises ClusterError when it cannot be built."""
    recipe = gobuild.Recipe(f"kstatus {version()}", f"kstatus/v{version()}", MODULE, (".",), "-s -w")
    return gobuild.build(recipe, say) / "kstatus"


class KStatus:
    """Asks it."""

    def __init__(self, program: Path) -> None:
        self.program = program

    def __call__(self, objects: Sequence[Mapping[str, Any]]) -> list[str]:
        """``Current``, ``InProgress``, ``Failed`` and so on, of each of these objects of the API server."""
        done = subprocess.run(
            [str(self.program)], input=json.dumps(list(objects)), capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout))
