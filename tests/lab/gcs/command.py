"""The fake-gcs-server command, built from its Go module."""

from __future__ import annotations

from pathlib import Path

from lab.cluster import Reporter, gobuild

MODULE = Path(__file__).parent
"""Whose go.mod and go.sum pin it."""

REQUIRED = "github.com/fsouza/fake-gcs-server"


def version() -> str:
    """The pinned version, such as "1.56.1"."""
    return gobuild.version_of(MODULE, REQUIRED).removeprefix("v")


def built(say: Reporter) -> Path:
    """The command, from the cache where it was built before. Raises ClusterError when it cannot be built."""
    recipe = gobuild.Recipe(
        f"fake-gcs-server {version()}", f"fake-gcs-server/v{version()}", MODULE, (REQUIRED,), "-s -w"
    )
    return gobuild.build(recipe, say) / "fake-gcs-server"
