"""The command lines of the control plane's components, and their credentials."""

import json
from dataclasses import dataclass
from pathlib import Path

from lab.node.layout import Layout

from . import certificates
from .endpoints import Endpoints
from .kubeconfigs import write_kubeconfig

AUDIT = "audit.log"
"""Among the logs: a line of JSON for each request of a service account, as audit.k8s.io/v1 has it."""

# Not needed for what is tested here; each costs memory, watches and start-up time.
CONTROLLERS_OFF = (
    "bootstrap-signer-controller",
    "certificatesigningrequest-approving-controller",
    "certificatesigningrequest-cleaner-controller",
    "certificatesigningrequest-signing-controller",
    "device-taint-eviction-controller",
    "endpointslice-mirroring-controller",
    "horizontal-pod-autoscaler-controller",
    "legacy-serviceaccount-token-cleaner-controller",
    "node-ipam-controller",
    "persistentvolume-attach-detach-controller",
    "persistentvolume-expander-controller",
    "podcertificaterequest-cleaner-controller",
    "resourceclaim-controller",
    "service-cidr-controller",
    "storageversion-garbage-collector-controller",
    "token-cleaner-controller",
    "ttl-controller",
    "volumeattributesclass-protection-controller",
)


AUDITED = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}
"""What operators ask for is written down, and what the controllers do is not."""


@dataclass(frozen=True)
class Process:
    """One process of the cluster; `stage` 1 is started when the API server is ready."""

    name: str
    argv: list[str]
    stage: int


def credentials(host: Layout, name: str, node: str, endpoints: Endpoints) -> None:
    """Write every key, certificate and kubeconfig of the cluster `name`, its node being `node`, and what is audited."""
    kubernetes = certificates.Authority.create(host.keys, "kubernetes-ca")
    etcd = certificates.Authority.create(host.keys, "etcd-ca")
    etcd.issue("etcd", "etcd", hosts=["127.0.0.1"])
    etcd.issue("etcd-client", "kube-apiserver")
    names = [f"kubernetes{suffix}" for suffix in ("", ".default", ".default.svc", ".default.svc.cluster.local")]
    hosts = [*names, "localhost", "127.0.0.1", endpoints.api_host, endpoints.api_service]
    kubernetes.issue("apiserver", "kube-apiserver", hosts=dict.fromkeys(hosts))
    kubernetes.issue("apiserver-kubelet", "kube-apiserver-kubelet-client", ["system:masters"])
    kubernetes.issue("kubelet-server", f"system:node:{node}", ["system:nodes"], hosts=[node, endpoints.api_host])
    certificates.service_account_key(host.keys)
    users = {
        "kube-controller-manager": ("system:kube-controller-manager", []),
        "kube-scheduler": ("system:kube-scheduler", []),
        "kube-proxy": ("system:kube-proxy", []),
        "kubelet": (f"system:node:{node}", ["system:nodes"]),
    }
    authority = host.keys / "kubernetes-ca.crt"
    for file, (user, groups) in users.items():
        pair = kubernetes.issue(file, user, groups)
        write_kubeconfig(host.config / f"{file}.kubeconfig", name, endpoints.server, authority, *pair)
    (host.config / "audit.json").write_text(json.dumps(AUDITED))
    pair = kubernetes.issue("admin", "partwarden-admin", ["system:masters"])
    write_kubeconfig(host.kubeconfig, f"partwarden-{name}", endpoints.server, authority, *pair)


def control_plane(commands: Path, at: Layout, endpoints: Endpoints) -> list[Process]:
    """etcd, kube-apiserver, kube-controller-manager and kube-scheduler, with paths as the processes see them."""
    return [
        _etcd(commands, at, endpoints),
        _apiserver(commands, at, endpoints),
        _controller_manager(commands, at),
        Process(
            "kube-scheduler",
            [str(commands / "kube-scheduler"), *_client(at, "kube-scheduler")],
            stage=1,
        ),
    ]


def _etcd(commands: Path, at: Layout, endpoints: Endpoints) -> Process:
    client, peer = (f"https://127.0.0.1:{port}" for port in (endpoints.etcd_port, endpoints.peer_port))
    flags = {
        "name": "lab",
        "data-dir": at.data / "etcd",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"lab={peer}",
        "client-cert-auth": "true",
        "trusted-ca-file": at.keys / "etcd-ca.crt",
        "cert-file": at.keys / "etcd.crt",
        "key-file": at.keys / "etcd.key",
        "peer-client-cert-auth": "true",
        "peer-trusted-ca-file": at.keys / "etcd-ca.crt",
        "peer-cert-file": at.keys / "etcd.crt",
        "peer-key-file": at.keys / "etcd.key",
        # Nothing here outlives the machine, so nothing has to reach the disk.
        "unsafe-no-fsync": "true",
        "log-level": "warn",
    }
    return Process("etcd", [str(commands / "server"), *_flags(flags)], stage=0)


def _apiserver(commands: Path, at: Layout, endpoints: Endpoints) -> Process:
    flags = {
        "etcd-servers": f"https://127.0.0.1:{endpoints.etcd_port}",
        "etcd-cafile": at.keys / "etcd-ca.crt",
        "etcd-certfile": at.keys / "etcd-client.crt",
        "etcd-keyfile": at.keys / "etcd-client.key",
        "bind-address": endpoints.api_host,
        "advertise-address": endpoints.api_host,
        "secure-port": endpoints.api_port,
        "service-cluster-ip-range": endpoints.services,
        "tls-cert-file": at.keys / "apiserver.crt",
        "tls-private-key-file": at.keys / "apiserver.key",
        "client-ca-file": at.keys / "kubernetes-ca.crt",
        "kubelet-certificate-authority": at.keys / "kubernetes-ca.crt",
        "kubelet-client-certificate": at.keys / "apiserver-kubelet.crt",
        "kubelet-client-key": at.keys / "apiserver-kubelet.key",
        "kubelet-preferred-address-types": "InternalIP",
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "service-account-key-file": at.keys / "service-accounts.key",
        "service-account-signing-key-file": at.keys / "service-accounts.key",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "profiling": "false",
        "audit-policy-file": at.config / "audit.json",
        "audit-log-path": at.logs / AUDIT,
    }
    if endpoints.addresses is None:
        # A loopback address cannot be an endpoint of the service, and without pods nothing needs it.
        flags["endpoint-reconciler-type"] = "none"
    return Process("kube-apiserver", [str(commands / "kube-apiserver"), *_flags(flags)], stage=0)


def _controller_manager(commands: Path, at: Layout) -> Process:
    flags = {
        "controllers": ",".join(["*", *(f"-{name}" for name in CONTROLLERS_OFF)]),
        "root-ca-file": at.keys / "kubernetes-ca.crt",
        "service-account-private-key-file": at.keys / "service-accounts.key",
        "use-service-account-credentials": "true",
        # A claim that is seen before its volume is bound by the next round only; the default is 15 s.
        "pvclaimbinder-sync-period": "2s",
        # The default is a folder of the host's, which would be made.
        "flex-volume-plugin-dir": at.data / "volume-plugins",
    }
    argv = [str(commands / "kube-controller-manager"), *_client(at, "kube-controller-manager"), *_flags(flags)]
    return Process("kube-controller-manager", argv, stage=1)


def _client(at: Layout, name: str) -> list[str]:
    config = at.config / f"{name}.kubeconfig"
    # Nothing connects to these two: no port; and there is no other instance to elect.
    return _flags({"kubeconfig": config, "leader-elect": "false", "secure-port": 0, "profiling": "false"})


def _flags(values: dict[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items()]
