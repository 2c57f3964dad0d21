"""The image of the operator, built from the checkout's Dockerfile, once for each state of what it is built from.

    image = build(Reporter())        # a docker-archive in the cache, and the image's name in it
    name = provide(cluster, say)     # the same, loaded: the name that pods of the cluster may ask for
    build(Reporter(), PARQUET)       # the variant with pyarrow

docker builds it where an engine answers; else buildah, on Linux as root, with Debian's packages and no registry.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab.cluster import Cluster, ClusterError, Reporter, folders
from lab.cluster.docker import why_no_engine

from . import by_buildah, by_docker, given

__all__ = ["CLIENT_MAJOR", "PARQUET", "VARIABLE", "Image", "build", "ingredients", "provide", "why_not"]

VARIABLE = "PARTWARDEN_IMAGE"
"""Names an image that a cluster of the user's own can pull, with pyarrow; it is used there instead."""
PARQUET = "parquet"
"""The Dockerfile's target for the variant with pyarrow: "" is the image without."""

NAME = "localhost/partwarden"
REQUIREMENTS = ("runtime.txt", "parquet.txt", "client.sh", "client.txt")
CLIENT_MAJOR = int(
    re.findall(r"^ARG PG_MAJOR=(\d+)$", (folders.CHECKOUT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)[0]
)
"""Of the image's pg_dump and pg_restore, unless it is built with another."""
KEPT = 4
"""Archives that stay in the cache: the present ones of both variants, and those that were used before them."""


@dataclass(frozen=True)
class Image:
    """An image by its name, in a docker-archive."""

    name: str
    archive: Path


def why_not(say: Reporter) -> str:
    """ "" when an image can be built here, else one line."""
    no_docker = why_no_engine()
    no_buildah = by_buildah.why_not(say) if no_docker else ""
    return f"{no_docker}; without it: {no_buildah}" if no_buildah else ""


def build(say: Reporter, target: str = "") -> Image:
    """The image of the present checkout. Raises ClusterError, with the end of the log, when it cannot be built."""
    key = "-".join(filter(None, (folders.digest(*_contents()), target)))
    name = f"{NAME}:{key}"
    folder = folders.cache() / "image"
    archive = folder / f"{key}.tar"
    with folders.locked(folder, lambda: say.say("waiting for another process that builds the image")):
        if not archive.exists():
            half = archive.with_suffix(".half")
            half.unlink(missing_ok=True)
            with given.secrets() as secrets:
                _build(say, folder, name, half, [*secrets, *([f"--target={target}"] if target else [])])
            half.rename(archive)
        archive.touch()
        for old in sorted(folder.glob("*.tar"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            old.unlink()
    return Image(name, archive)


def provide(cluster: Cluster, say: Reporter, target: str = "") -> str:
    """Build the image and load it into the cluster; into one that the user brought none is loaded, see VARIABLE.

    Raises ClusterError.
    """
    if cluster.provider == "existing":
        if named := os.environ.get(VARIABLE):
            return named
        raise ClusterError(
            f"nothing can be loaded into the existing cluster of {cluster.kubeconfig}: build the Dockerfile with "
            f"--target {PARQUET}, push the image to a registry that the cluster pulls from, and name it by {VARIABLE}"
        )
    image = build(say, target)
    with say.progress(f"loading {image.name} into cluster {cluster.name}"):
        return cluster.load_image(image.archive)[0]


def _build(say: Reporter, folder: Path, name: str, archive: Path, options: list[str]) -> None:
    if not why_no_engine():
        try:
            by_docker.build(say, folder / "docker.log", name, archive, options)
            return
        except ClusterError as error:
            if why := by_buildah.why_not(say):
                raise ClusterError(f"{error}; without docker: {why}") from error
            say.say(f"no image by docker, by buildah instead: {error}")
    elif why := by_buildah.why_not(say):
        raise ClusterError(f"the image cannot be built: there is no docker engine, and {why}")
    by_buildah.build(say, folder, name, archive, options)


def ingredients() -> list[Path]:
    """The files that the image is built from, and how: those that .dockerignore lets through."""
    names = ("Dockerfile", ".dockerignore", *(f"requirements/{name}" for name in REQUIREMENTS))
    files = [folders.CHECKOUT / name for name in names]
    return files + sorted((folders.CHECKOUT / "operator").rglob("*.py"))


def _contents() -> Iterable[bytes]:
    for file in ingredients():
        yield str(file.relative_to(folders.CHECKOUT)).encode()
        yield file.read_bytes()
