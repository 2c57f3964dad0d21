"""The abilities of this machine's docker engine, through its command line only."""

import shutil
import subprocess

from .model import ClusterError
from .reporter import Reporter

ANSWER = 20.0
"""Seconds within which an engine answers a question that needs no download."""

PULL = 900.0
"""Seconds for the download of an image."""


def docker(*arguments: str, patience: float = ANSWER) -> str:
    """What a docker command printed. Raises ClusterError, in one line, when it failed or took too long."""
    command = ["docker", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterError(f"`{' '.join(command)}` failed: {error}") from error
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(command)}` failed: {' '.join(done.stderr.split()) or done.returncode}")
    return done.stdout.strip()


def why_no_engine() -> str:
    """ "" when a docker engine answers, else one line."""
    if not shutil.which("docker"):
        return "there is no docker command"
    try:
        docker("version", "--format", "{{.Server.Version}}")
    except ClusterError:
        return "no docker engine answers"
    return ""


def why_no_image(image: str, say: Reporter) -> str:
    """ "" when the engine has `image`, after a download if need be, else one line."""
    try:
        docker("image", "inspect", "--format", "{{.Id}}", image)
    except ClusterError:
        try:
            with say.progress(f"downloading {image}"):
                docker("pull", "--quiet", image, patience=PULL)
        except ClusterError as error:
            return f"the node image cannot be had (KIND_NODE_IMAGE names another): {error}"
    return ""


def why_not_privileged(image: str) -> str:
    """ "" when the engine may run a privileged container of `image`, else one line."""
    try:
        docker("run", "--rm", "--privileged", "--network=none", "--entrypoint=/bin/true", image, patience=60.0)
    except ClusterError as error:
        return f"the docker engine may not run a privileged container: {error}"
    return ""
