"""Run a long command with its output in a log."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from lab.cluster import ClusterError
from lab.cluster.reporter import Advance

LOG_TAIL = 600
"""Characters of a log's end that go into a message."""


def run(command: list[str], log: Path, environment: Mapping[str, str], advance: Advance) -> str:
    """The last line that it said. Each line with the word STEP is progress. Raises ClusterError when it fails."""
    steps, last = 0, ""
    try:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        raise ClusterError(f"`{command[0]}` cannot be run: {error}") from error
    with process, log.open("ab") as output:
        try:
            for line in process.stdout or ():
                output.write(line)
                output.flush()
                last = line.decode(errors="replace").strip() or last
                if " STEP " in f" {last}":
                    steps += 1
                    advance(steps, 0, last)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        said = " ".join(log.read_text(errors="replace")[-LOG_TAIL:].split())
        # What stands before "--" only sets it apart.
        program = command[command.index("--") + 1] if "--" in command else command[0]
        raise ClusterError(f"{program} exited with {process.returncode}: … {said}; its log is {log}")
    return last
