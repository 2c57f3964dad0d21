"""The command line `python -m lab.cluster start|stop|status|load --name NAME`."""

import argparse
import sys
from pathlib import Path

from . import Reporter, attach, start, stop
from .model import Cluster, ClusterError


def main(arguments: list[str]) -> int:
    """Run one command; 0 when it did what was asked, 1 when not, with one clear message, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser("python -m lab.cluster", description="A Kubernetes cluster for demo and tests.")
    parser.add_argument("command", choices=("start", "stop", "status", "load"))
    parser.add_argument("archives", nargs="*", type=Path, help="load: docker-archive tar files")
    parser.add_argument("--name", default="demo")
    asked = parser.parse_intermixed_args(arguments)
    try:
        return _run(asked.command, asked.name, asked.archives)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing of the cluster is left", file=sys.stderr)
        return 130


def _run(command: str, name: str, archives: list[Path]) -> int:
    if command == "stop":
        stop(name)
        return 0
    cluster = start(name, Reporter()) if command == "start" else attach(name)
    if cluster is None:
        print(f"cluster {name} does not run", file=sys.stderr)
        return 1
    if command == "load":
        for archive in archives:
            print("\n".join(cluster.load_image(archive)))
        return 0
    _show(cluster)
    return 0


def _show(cluster: Cluster) -> None:
    pods = "runs pods" if cluster.runs_pods else f"runs no pods: {cluster.why_no_pods}"
    print(f"cluster {cluster.name}: {cluster.provider}, Kubernetes {cluster.version}, {pods}")
    print(f"kubeconfig: {cluster.kubeconfig}")
    if cluster.host_address:
        print(f"this machine as pods see it: {cluster.host_address}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
