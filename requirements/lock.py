"""Pins the newest fitting versions, with the hashes of all platforms' files, in requirements/*.txt: `make lock`.

pyproject.toml says what is wanted: runtime.txt is what an image needs, the extra `report` included; parquet.txt what
its variant with the suffix -parquet has beside that; dev.txt is all of that and what development needs. Each *.in is
one tool that the lab installs only where a machine lacks it. The resolver itself is pinned in lock.txt.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("go", "npm", "lock")
REPORT = ("--extra", "report")
PARQUET = (*REPORT, "--extra", "parquet")
RUNTIME = ("--constraint", "requirements/runtime.txt")
OPTIONS = ["--universal", "--python-version", "3.11", "--generate-hashes", "--upgrade", "--quiet"]
# What is written must hold on every machine: no index and no header with this one's command line.
PORTABLE = ["--no-header", "--no-emit-index-url", "--no-emit-find-links"]


def main() -> None:
    """Installs the pinned resolver for this once, and runs it for each file."""
    with tempfile.TemporaryDirectory() as folder:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", folder]
        subprocess.run([*install, "--require-hashes", "--requirement", "requirements/lock.txt"], cwd=ROOT, check=True)
        resolver = str(Path(folder) / "bin" / "uv")
        lock(resolver, "runtime", "pyproject.toml", *REPORT)
        beside = [f"--no-emit-package={name}" for name in pinned("runtime")]
        lock(resolver, "parquet", "pyproject.toml", *PARQUET, *RUNTIME, *beside)
        both = (*RUNTIME, "--constraint", "requirements/parquet.txt")
        lock(resolver, "dev", "pyproject.toml", *PARQUET, "--group", "dev", *both)
        for tool in TOOLS:
            lock(resolver, tool, f"requirements/{tool}.in")


def pinned(name: str) -> list[str]:
    """The packages in requirements/<name>.txt."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)


def lock(resolver: str, name: str, *sources: str) -> None:
    """Writes requirements/<name>.txt."""
    target = f"requirements/{name}.txt"
    command = [resolver, "pip", "compile", *OPTIONS, *PORTABLE, "--output-file", target, *sources]
    environment = {**os.environ, "UV_NO_CONFIG": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    print(f"lock: {target}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"lock: {Path(error.cmd[0]).name} failed with exit code {error.returncode}")
