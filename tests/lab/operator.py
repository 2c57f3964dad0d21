"""The operator as a user runs it: a process of the installed command, with a service account's rights and no more."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

from lab.kubectl import Kubectl

PROGRAM = Path(sys.prefix) / "bin" / "partwarden"
PATIENCE = 60.0
"""Default limit of a wait, in seconds."""
POLL = 0.1

T = TypeVar("T")


def until(what: str, condition: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """What ``condition`` returns, once that is true. Raises AssertionError with ``what`` after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not seen within {patience:.0f} s: {what}")
        time.sleep(POLL)


def account_kubeconfig(kubectl: Kubectl, namespace: str, account: str, path: Path) -> Path:
    """A kubeconfig of the same cluster for a service account, written to ``path``."""
    view = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "--output", "json"))
    token = kubectl("create", "token", account, "--namespace", namespace, "--duration", "2h").strip()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": view["clusters"][0]["cluster"]}],
        "users": [{"name": account, "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": account}}],
        "current-context": "test",
    }
    path.touch(0o600)
    path.write_text(yaml.safe_dump(config))
    return path


class Operator:
    """One process of ``partwarden run``; its log is JSON. As a context manager it is stopped at the end."""

    def __init__(self, kubeconfig: Path, folder: Path, environment: Mapping[str, str], **settings: str) -> None:
        """``environment`` is that of the cluster; ``settings`` are PARTWARDEN_ variables without the prefix."""
        self.kubeconfig = kubeconfig
        self.log = folder / f"operator-{secrets.token_hex(3)}.log"
        clean = {
            name: value for name, value in environment.items() if not name.startswith(("PARTWARDEN_", "PG", "KUBE"))
        }
        defaults = {"LOG_FORMAT": "json", "LOG_LEVEL": "debug"}
        self.environment = clean | {f"PARTWARDEN_{name}": value for name, value in {**defaults, **settings}.items()}
        self.program = [str(PROGRAM)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Operator:
        """Start it, and do not wait until it serves."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*self.program, "run", "--kubeconfig", str(self.kubeconfig)],
                env=self.environment,
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        return self

    def serving(self) -> Operator:
        """Start it and wait until it serves."""
        self.start()
        until(f"the operator serves; its log is {self.log}", lambda: self.says("serves") or self._ended())
        assert self._ended() is None, self.log.read_text()
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Signal it and wait. Returns its exit code and the seconds that it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(number)
        code = self.wait()
        return code, time.monotonic() - began

    def wait(self, patience: float = PATIENCE) -> int:
        """Its exit code, once it has ended."""
        assert self.process is not None
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the operator still runs after {patience:.0f} s; its log is {self.log}") from None

    def lines(self, policy: str | None = None) -> list[dict[str, Any]]:
        """The log so far; of one policy, if given as namespace/name. Raises ValueError for a line that is not JSON."""
        text = self.log.read_text() if self.log.exists() else ""
        found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in found if policy in (None, line.get("policy"))]

    def says(self, words: str, policy: str | None = None) -> dict[str, Any] | None:
        """The first line with these words."""
        return next((line for line in self.lines(policy) if words in line["message"]), None)

    def attempts(self, policy: str) -> list[datetime]:
        """When reconciles of a policy ended, oldest first."""
        return [
            datetime.fromisoformat(line["time"])
            for line in self.lines(policy)
            if "; next attempt in" in line["message"] or "; next reconcile in" in line["message"]
        ]

    def _ended(self) -> int | None:
        return self.process.poll() if self.process else None

    def __enter__(self) -> Operator:
        return self if self.process else self.serving()

    def __exit__(self, *_: object) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
