"""Builds commands of a Go module once, keeps them in the cache, and reports progress."""

import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from . import folders, toolchain
from .model import ClusterError
from .reporter import Advance, Reporter

LAST_LINES = 15


@dataclass(frozen=True)
class Recipe:
    """What to build: packages of the module in the folder `module`, whose go.sum pins them, and linker flags."""

    title: str
    folder: str
    module: Path
    packages: tuple[str, ...]
    ldflags: str

    def key(self) -> str:
        """Changes when the outcome may change."""
        named = sorted(path for path in self.module.iterdir() if path.suffix in (".go", ".mod", ".sum"))
        sources = [path.read_bytes() for path in named]
        return folders.digest(*sources, " ".join((*self.packages, self.ldflags)).encode())


def version_of(module: Path, required: str) -> str:
    """The version, such as "v1.37.2", at which the go.mod in `module` requires another module.

    Raises ClusterError when it does not.
    """
    found = re.search(rf"^(?:require)?\s*{re.escape(required)} (v\S+)", (module / "go.mod").read_text(), re.MULTILINE)
    if not found:
        raise ClusterError(f"{module / 'go.mod'} does not require {required}")
    return found.group(1)


def build(recipe: Recipe, say: Reporter) -> Path:
    """The folder with the built commands; builds them only when the cache has none of this recipe.

    Two that start at once build once; a build that is interrupted leaves nothing that would be taken for a result.
    Raises ClusterError when the build fails, with the path of its log.
    """
    target = folders.cache() / recipe.folder / recipe.key()
    with folders.locked(target.parent, lambda: say.say(f"waiting for another process that builds {recipe.title}")):
        if target.is_dir():
            return target
        half = target.with_suffix(".half")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()
        go = toolchain.find(recipe.module, say)
        try:
            with say.progress(f"building {recipe.title}") as advance:
                _run(go, recipe, half, advance)
        except KeyboardInterrupt:
            shutil.rmtree(half)
            raise
        (half / "build.log").unlink()
        half.rename(target)
    return target


def _run(go: str, recipe: Recipe, out: Path, advance: Advance) -> None:
    log = out / "build.log"
    flags = ["-mod=readonly", "-trimpath", "-ldflags", recipe.ldflags]
    total = _count(go, recipe)
    # Whatever ends the build, its temporary files are removed with the rest of it.
    environment = {**toolchain.environment(), "GOTMPDIR": str(out)}
    command = [go, "build", "-v", *flags, "-o", f"{out}/", *recipe.packages]
    with (
        log.open("w") as copy,
        subprocess.Popen(command, cwd=recipe.module, env=environment, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr is not None
        try:
            _follow(process.stderr, copy, total, advance)
        except BaseException:
            # Asked this way it ends what it started.
            process.send_signal(signal.SIGINT)
            process.communicate()
            raise
    if process.returncode != 0:
        last = "\n".join(log.read_text().splitlines()[-LAST_LINES:])
        raise ClusterError(f"building {recipe.title} failed; the log is {log}, its last lines:\n{last}")


def _count(go: str, recipe: Recipe) -> int:
    """How many packages the commands are made of, 0 when that is unknown."""
    command = [go, "list", "-mod=readonly", "-deps", *recipe.packages]
    listed = subprocess.run(
        command, cwd=recipe.module, env=toolchain.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return len(listed.stdout.splitlines()) if listed.returncode == 0 else 0


def _follow(lines: IO[str], copy: IO[str], total: int, advance: Advance) -> None:
    compiled = 0
    for line in lines:
        copy.write(line)
        copy.flush()
        package = compiled_package(line)
        if package:
            compiled += 1
            advance(compiled, total, package)


def compiled_package(line: str) -> str:
    """The package that a line of `go build -v` says was compiled, "" when the line says something else."""
    line = line.strip()
    return line if re.fullmatch(r"[\w.~-]+(/[\w.~+-]+)*", line) else ""
