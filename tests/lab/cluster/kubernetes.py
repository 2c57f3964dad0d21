"""The commands of a local cluster, built from their Go modules."""

from pathlib import Path

from . import folders, gobuild
from .reporter import Reporter

MODULE = folders.LAB / "kubernetes"
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
NODE = ("kubelet", "kube-proxy")
ETCD = "go.etcd.io/etcd/server/v3"


def version() -> str:
    """The Kubernetes version that is built, such as "v1.37.2"."""
    return gobuild.version_of(MODULE, "k8s.io/kubernetes")


def commands(say: Reporter) -> Path:
    """The folder with kube-apiserver and the others, and with etcd under the name of its package, `server`.

    The first time this takes minutes. Raises ClusterError when they cannot be built.
    """
    release = version()
    major, minor, _ = release.removeprefix("v").split(".")
    stamp = {"gitVersion": release, "gitMajor": major, "gitMinor": minor}
    ldflags = ["-s", "-w", *(f"-X k8s.io/component-base/version.{name}={value}" for name, value in stamp.items())]
    packages = (ETCD, *(f"k8s.io/kubernetes/cmd/{name}" for name in (*CONTROL_PLANE, *NODE)))
    recipe = gobuild.Recipe(
        title=f"Kubernetes {release} (once, some minutes)",
        folder=f"kubernetes/{release}",
        module=MODULE,
        packages=packages,
        ldflags=" ".join(ldflags),
    )
    return gobuild.build(recipe, say)
