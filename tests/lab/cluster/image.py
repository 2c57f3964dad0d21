"""The image of sandboxes and of the self-check: one static command, packed as `docker save` would."""

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path
from typing import Any

from . import folders, gobuild
from .model import ClusterError
from .reporter import Reporter

MODULE = folders.LAB / "probe"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def probe(say: Reporter) -> tuple[str, Path]:
    """The name of the probe image and its docker-archive, which is built once and kept in the cache.

    Raises ClusterError when it cannot be built.
    """
    recipe = gobuild.Recipe("the probe image", "probe", MODULE, (".",), "-s -w")
    folder = gobuild.build(recipe, say)
    name = f"localhost/partwarden-probe:{recipe.key()}"
    archive = folder / "probe.tar"
    # Two that start at once pack it once.
    with folders.locked(folder):
        if not archive.exists():
            half = archive.with_suffix(".half")
            pack(folder / "probe", name, half)
            half.rename(archive)
    return name, archive


def pack(command: Path, name: str, archive: Path) -> None:
    """Write a docker-archive of an image that holds just `command`, as its entrypoint. Equal input, equal bytes."""
    layer = _tar({command.name: (command.read_bytes(), 0o755)})
    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Entrypoint": [f"/{command.name}"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": "1970-01-01T00:00:00Z"}],
    }
    content = json.dumps(config).encode()
    config_name = f"{hashlib.sha256(content).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    files = {
        "manifest.json": (json.dumps(manifest).encode(), 0o644),
        config_name: (content, 0o644),
        "layer.tar": (layer, 0o644),
    }
    archive.write_bytes(_tar(files))


def names_in(archive: Path) -> list[str]:
    """The names of the images in a docker-archive.

    Raises ClusterError when the file is no such archive, or when an image in it has no name.
    """
    try:
        with tarfile.open(archive) as tar:
            member = tar.extractfile("manifest.json")
            manifest: list[dict[str, Any]] = json.load(member) if member else []
            names = [name for image in manifest for name in image.get("RepoTags") or []]
    except (OSError, tarfile.TarError, KeyError, ValueError, AttributeError) as error:
        raise ClusterError(
            f"{archive} is not a docker-archive tar (`docker save` writes one): {str(error).splitlines()[0]}"
        ) from error
    if not names:
        raise ClusterError(f"{archive} holds no image with a name; tag it before saving it")
    return names


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
