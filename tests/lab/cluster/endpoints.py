"""The addresses of the parts of one local cluster."""

import socket
from contextlib import ExitStack
from dataclasses import dataclass

from .subnets import Addresses


@dataclass(frozen=True)
class Endpoints:
    """The API server's address and the ports; `addresses` is None for a control plane on loopback, without a node."""

    api_host: str
    api_port: int
    etcd_port: int
    peer_port: int
    addresses: Addresses | None

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return f"https://{self.api_host}:{self.api_port}"

    @property
    def services(self) -> str:
        """The range of service addresses."""
        return str(self.addresses.services if self.addresses else "198.18.2.0/24")

    @property
    def api_service(self) -> str:
        """The address of the service `kubernetes`."""
        return self.addresses.api_service if self.addresses else "198.18.2.1"


def in_namespace(addresses: Addresses) -> Endpoints:
    """The usual ports: in a network namespace of its own no other process has them."""
    return Endpoints(addresses.node, 6443, 2379, 2380, addresses)


def on_loopback() -> Endpoints:
    """Three ports of 127.0.0.1 that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        api, etcd, peer = (int(one.getsockname()[1]) for one in sockets)
    return Endpoints("127.0.0.1", api, etcd, peer, None)
