"""What a node adds to the control plane: containerd, kubelet and kube-proxy, and their configuration."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.node.layout import Layout

from .components import Process
from .subnets import Addresses

SOCKET = Path("/run/containerd/containerd.sock")

# What kubelet wants the kernel to be set to. It is shown files with these values instead of the host's settings, for
# it would change those of the whole machine.
KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


@dataclass(frozen=True)
class Sandbox:
    """What containerd makes pods of: the image that holds their namespaces, CNI plugins, and a snapshotter."""

    image: str
    plugins: Path
    snapshotter: str


def node_processes(commands: Path, inside: Layout, node: str, addresses: Addresses) -> list[Process]:
    """containerd, kubelet and kube-proxy, with paths as the node's mount namespace shows them."""
    kubelet = [str(commands / "kubelet"), f"--config={inside.config / 'kubelet.json'}"]
    kubelet += [f"--kubeconfig={inside.config / 'kubelet.kubeconfig'}", f"--cert-dir={inside.data / 'kubelet-certs'}"]
    kubelet += [f"--hostname-override={node}", f"--node-ip={addresses.node}"]
    proxy = [str(commands / "kube-proxy"), f"--config={inside.config / 'kube-proxy.json'}"]
    return [
        Process("containerd", ["containerd", "--config", str(inside.config / "containerd.toml")], stage=0),
        Process("kubelet", kubelet, stage=1),
        Process("kube-proxy", proxy, stage=1),
    ]


def write_configuration(
    host: Layout, inside: Layout, node: str, addresses: Addresses, cgroup: str, sandbox: Sandbox
) -> None:
    """Write what the three read, and the description of the pods' network."""
    (host.config / "cni").mkdir(exist_ok=True)
    (host.config / "settings").mkdir(exist_ok=True)
    # Pods are given no name server: certificates and addresses here do without names.
    (host.config / "resolv.conf").write_text("")
    _json(host.config / "kubelet.json", kubelet(inside, addresses, cgroup))
    _json(host.config / "kube-proxy.json", kube_proxy(inside, node, addresses))
    _json(host.config / "cni" / "10-partwarden.conflist", pod_network(addresses))
    (host.config / "containerd.toml").write_text(containerd(inside, sandbox))


def kubelet(inside: Layout, addresses: Addresses, cgroup: str) -> dict[str, Any]:
    """The kubelet's configuration."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": addresses.node,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(inside.keys / "kubernetes-ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(inside.keys / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(inside.keys / "kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "resolvConf": str(inside.config / "resolv.conf"),
        "volumePluginDir": str(inside.data / "volume-plugins"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "protectKernelDefaults": True,
        "oomScoreAdj": 0,
        # The machine's disk is not the cluster's to guard, and no image here can be had again once it was collected.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "maxPods": 100,
        "registerWithTaints": [],
        "shutdownGracePeriod": "0s",
    }


def kube_proxy(inside: Layout, node: str, addresses: Addresses) -> dict[str, Any]:
    """kube-proxy's configuration."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(inside.config / "kube-proxy.kubeconfig")},
        "hostnameOverride": node,
        "mode": "iptables",
        # Masquerading brings answers back through the node also where the bridge does not pass packets to iptables.
        "iptables": {"masqueradeAll": True, "minSyncPeriod": "0.2s"},
        "clusterCIDR": str(addresses.pods),
        # Limits of the host's kernel, which a namespace may not set.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "oomScoreAdj": 0,
    }


def pod_network(addresses: Addresses) -> dict[str, Any]:
    """One bridge; what leaves it bears the node's address, the only one that the host can answer."""
    bridge = {
        "type": "bridge",
        "bridge": "pods",
        "isDefaultGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": "/run/cni",
            "ranges": [[{"subnet": str(addresses.pods)}]],
        },
    }
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}


def containerd(inside: Layout, sandbox: Sandbox) -> str:
    """containerd's configuration; version 2 of it is read by containerd 1.6 and by every later one."""
    return f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0

[grpc]
  address = "{SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{sandbox.image}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{sandbox.plugins}"
    conf_dir = "{inside.config / "cni"}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{sandbox.snapshotter}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def _json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2))
