"""The pair of network devices between a node and the host. The kernel removes it with the node's network namespace."""

import subprocess
import time
from pathlib import Path

from .model import ClusterError
from .packages import search_path
from .subnets import Addresses

NODE_DEVICE = "eth0"
REMOVAL = 15.0
"""Seconds within which the kernel has removed a device whose namespace ended."""


def create(device: str, node: int, addresses: Addresses) -> None:
    """Make `device` on the host, its peer in the network namespace of process `node`, and the route to the pods.

    Raises ClusterError.
    """
    peer = ["peer", "name", NODE_DEVICE, "netns", str(node)]
    _ip("link", "add", device, "type", "veth", *peer)
    _ip("address", "add", f"{addresses.host}/24", "dev", device)
    _ip("link", "set", device, "up")
    _ip("route", "add", str(addresses.pods), "via", addresses.node, "dev", device)


def remove(device: str) -> None:
    """Remove `device` with its peer; a missing one is not an error. Raises ClusterError when it stays."""
    deadline = time.monotonic() + REMOVAL
    while Path("/sys/class/net", device).exists():
        subprocess.run(["ip", "link", "delete", device], capture_output=True, env={"PATH": search_path()})
        if time.monotonic() > deadline:
            raise ClusterError(f"the network device {device} cannot be removed; try: ip link delete {device}")
        time.sleep(0.02)


def _ip(*arguments: str) -> None:
    command = ["ip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": search_path()})
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
