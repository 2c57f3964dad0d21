"""Addresses for a cluster that collide with nothing this machine or another cluster uses."""

import ipaddress
import json
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .model import ClusterError
from .packages import search_path

Network = ipaddress.IPv4Network

# First the range that is set aside for tests between networks, then what private networks use.
POOLS = (Network("198.18.0.0/15"), Network("172.16.0.0/12"), Network("10.0.0.0/8"))

BLOCK = 22
"""Prefix length of what one cluster gets: a /24 each for the link to the host, the pods and the services."""

WHOLE_WORLD = 1
"""Routes at most this long say where everything else goes (a VPN splits the default route into two halves)."""


@dataclass(frozen=True)
class Addresses:
    """What one cluster uses of its block."""

    block: Network

    @property
    def host(self) -> str:
        """The host's end of the link to the node."""
        return str(self.block[1])

    @property
    def node(self) -> str:
        """The node's end of it, where the API server listens."""
        return str(self.block[2])

    @property
    def pods(self) -> Network:
        """The addresses of pods."""
        return Network((int(self.block[256]), 24))

    @property
    def services(self) -> Network:
        """The addresses of services."""
        return Network((int(self.block[512]), 24))

    @property
    def api_service(self) -> str:
        """The address of the service `kubernetes`: the first one, as the API server decides."""
        return str(self.services[1])


def choose(taken: Iterable[Network]) -> Addresses:
    """The first block that overlaps with nothing taken; default routes in `taken` do not count.

    Raises ClusterError when every block is taken.
    """
    used = [network for network in taken if network.prefixlen > WHOLE_WORLD]
    for block in _blocks():
        if not any(block.overlaps(network) for network in used):
            return Addresses(block)
    raise ClusterError("every address range for a local cluster is in use by a route of this machine (see `ip route`)")


def host_routes() -> list[Network]:
    """Every IPv4 network that some routing table of this machine knows.

    Raises ClusterError when `ip` cannot say.
    """
    command = ["ip", "-json", "-4", "route", "show", "table", "all"]
    try:
        environment = {"PATH": search_path()}
        answer = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise ClusterError(f"cannot read the routes of this machine with {' '.join(command)}: {error}") from error
    destinations = (str(route["dst"]) for route in json.loads(answer or "[]"))
    return [Network(destination) for destination in destinations if destination != "default"]


def _blocks() -> Iterator[Network]:
    for pool in POOLS:
        yield from pool.subnets(new_prefix=BLOCK)
