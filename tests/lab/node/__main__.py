"""The first process of a local cluster: starts the components, and ends when one of them or its starter ends.

`python -m lab.node FOLDER` is run by the local provider. With a node it runs as process 1 of its own network,
mount, PID, IPC and UTS namespaces, so the kernel ends and removes everything when it ends, however that happens.
Without a node each component is bound to its life by the kernel's parent-death signal.

Standard input is the leash. Lines on it say what may be done next: "net" (the link to the host is there), "api" (the
API server is ready), "keep" (live on without the starter). Its end before "keep" ends the cluster.
"""

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from .layout import INSIDE, Layout

PR_SET_PDEATHSIG = 1


class Ended(Exception):
    """The cluster is to end; the message, if any, says what went wrong."""


class Node:
    """The components and the leash."""

    def __init__(self, folder: Path, plan: dict[str, Any]) -> None:
        self.folder = folder
        self.logs = Layout(folder if plan["link"] is None else INSIDE).logs
        self.plan = plan
        self.running: dict[int, str] = {}
        self.children: list[subprocess.Popen[bytes]] = []
        self.kept = False

    def run(self) -> None:
        """Serve until a signal asks to end. Raises Ended."""
        if self.plan["link"] is None:
            self.start(stage=0)
        waker, wakened = os.pipe()
        os.set_blocking(wakened, False)
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(wakened)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        watched = [waker, sys.stdin.fileno()]
        while True:
            readable, _, _ = select.select(watched, [], [])
            if waker in readable:
                os.read(waker, 4096)
            if sys.stdin.fileno() in readable and not self.obey(os.read(sys.stdin.fileno(), 4096)):
                watched.remove(sys.stdin.fileno())
            self.reap()

    def obey(self, words: bytes) -> bool:
        """Execute the starter's next command; False after the last. Raises Ended when the starter ended too early."""
        if not words and not self.kept:
            raise Ended("")
        for word in words.decode().split():
            if word == "net":
                connect(self.plan["link"])
                self.start(stage=0)
            elif word == "api":
                self.start(stage=1)
            elif word == "keep":
                self.kept = True
        return bool(words)

    def start(self, stage: int) -> None:
        """Start the components of a stage, each with a log of its own."""
        for process in self.plan["processes"]:
            if process["stage"] != stage:
                continue
            with (self.logs / f"{process['name']}.log").open("ab") as log:
                child = subprocess.Popen(
                    process["argv"],
                    env=self.plan["environment"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    preexec_fn=die_with_parent,
                )
            self.running[child.pid] = process["name"]
            self.children.append(child)

    def reap(self) -> None:
        """Bury the dead, containers' orphans among them. Raises Ended when a component is one."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if name := self.running.pop(pid, ""):
                how = os.waitstatus_to_exitcode(status)
                raise Ended(f"{name} ended with {how}; its log is {Layout(self.folder).logs / name}.log")


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def connect(link: dict[str, str]) -> None:
    """Configure the node's end of the link to the host."""
    commands = [
        ["ip", "link", "set", "lo", "up"],
        ["ip", "address", "add", f"{link['node']}/24", "dev", link["device"]],
        ["ip", "link", "set", link["device"], "up"],
        # kubelet and kube-proxy look for the address of the default route.
        ["ip", "route", "add", "default", "via", link["host"]],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Ended(f"{' '.join(command)}: {done.stderr.strip()}")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def end(_number: int, _frame: FrameType | None) -> None:
    """Signal handler."""
    raise Ended("")


def main() -> int:
    """Run a node from its plan; the exit code is 1 when it ended because something went wrong."""
    folder = Path(sys.argv[1])
    # Not to keep the starter's folder in use.
    os.chdir("/")
    plan: dict[str, Any] = json.loads(Layout(folder).plan.read_text())
    failure = os.open(Layout(folder).failure, os.O_WRONLY | os.O_CREAT, 0o600)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        if plan["link"] is not None:
            # Imported here because it needs what only a node has.
            from .mounts import arrange

            socket.sethostname(plan["node"])
            arrange(folder, Path(plan["commands"]), plan["settings"])
        Node(folder, plan).run()
    except (Ended, OSError) as reason:
        os.write(failure, str(reason).encode())
        return 1 if str(reason) else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
