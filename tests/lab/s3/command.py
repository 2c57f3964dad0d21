"""The versitygw command, built from its Go module."""

from __future__ import annotations

from pathlib import Path

from lab.cluster import Reporter, gobuild

MODULE = Path(__file__).parent
"""Whose go.mod and go.sum pin it."""

REQUIRED = "github.com/versity/versitygw"


def version() -> str:
    """The pinned version, such as "1.8.0"."""
    return gobuild.version_of(MODULE, REQUIRED).removeprefix("v")


def built(say: Reporter) -> Path:
    """The command, from the cache where it was built before. Raises ClusterError when it cannot be built."""
    flags = f"-s -w -X main.Version=v{version()}"
    recipe = gobuild.Recipe(
        f"versitygw {version()}", f"versitygw/v{version()}", MODULE, (f"{REQUIRED}/cmd/versitygw",), flags
    )
    return gobuild.build(recipe, say) / "versitygw"
