"""Options of a build on this machine: secrets that do not stay in the image, trusted CAs and pip's configuration."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AUTHORITIES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

PACKAGES = "--build-arg=PG_PACKAGES=either"
"""Where the pinned packages cannot be had any more, tests go on with newer ones: the build's log says so."""


@contextmanager
def secrets() -> Iterator[list[str]]:
    """Options for `docker build` and for `buildah build`: the Dockerfile's secrets, as this machine has them."""
    with tempfile.NamedTemporaryFile("w", prefix="pip-", suffix=".conf") as file:
        file.write(_pip_configuration())
        file.flush()
        options = [f"--secret=id=pip,src={file.name}"]
        if bundle := _authorities():
            options.append(f"--secret=id=ca,src={bundle}")
        yield options


def proxies() -> list[str]:
    """Options for `docker build`, which takes the values from its environment; buildah takes them by itself."""
    return [f"--build-arg={name}" for name in PROXIES if os.environ.get(name)]


def _authorities() -> str:
    named = [os.environ.get(name, "") for name in AUTHORITIES]
    return next((path for path in [*named, SYSTEM_AUTHORITIES] if path and Path(path).is_file()), "")


def _pip_configuration() -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    # Lines like global.index-url='…' and :env:.index-url='…', what wins last.
    found: dict[str, str] = {}
    for line in listed:
        key, _, value = line.partition("=")
        option = key.rpartition(".")[2]
        if option in PIP_OPTIONS:
            found[option] = value.strip("'\"")
    lines = [f"{option} = {' '.join(value.split())}" for option, value in found.items()]
    return "\n".join(["[global]", *lines, ""])
