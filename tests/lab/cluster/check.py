"""A started cluster checks itself: the API, a pod that runs, and what that pod can reach."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client

from . import api
from .model import ClusterError

PATIENCE = 120.0
"""Seconds for each step of the check."""

PAUSE = 0.2
NAMESPACE = "default"
POD = "partwarden-check"
CONNECT_SECONDS = "30"

# The containers of the pod, in the order in which their failures are reported, and what each stands for.
STEPS = {
    "hello": "run a pod to completion",
    "service": "reach the service kubernetes from a pod by its address (is kube-proxy at work?)",
    "host": "reach this machine from a pod (does a firewall refuse packets from the cluster's device?)",
}


def api_version(kubeconfig: Path, direct: bool) -> str:
    """The version of the API server, such as "v1.37.2". Raises ClusterError when it does not answer."""
    with api.connect(kubeconfig, direct) as connection:
        try:
            version = api.plain(connection, client.VersionApi(connection).get_code(_request_timeout=10))
        except (client.ApiException, urllib3.exceptions.HTTPError) as error:
            raise ClusterError(f"the API server of {kubeconfig} does not answer: {error}") from error
    return str(version["gitVersion"])


def pods(kubeconfig: Path, image: str, host_address: str, direct: bool) -> None:
    """Run the pod and wait for its good end; it is removed either way. `host_address` may be "" for unknown.

    Raises ClusterError with the step that failed.
    """
    with api.connect(kubeconfig, direct) as connection, _listener(host_address) as target:
        _PodCheck(connection).run(image, target)


class _PodCheck:
    def __init__(self, connection: client.ApiClient) -> None:
        self._connection = connection
        self._core = client.CoreV1Api(connection)

    def run(self, image: str, target: str) -> None:
        _wait("have a node that is ready", self._ready_node)
        service = api.plain(self._connection, self._core.read_namespaced_service("kubernetes", NAMESPACE))
        arguments = {"hello": ["hello"], "service": ["connect", f"{service['spec']['clusterIP']}:443", CONNECT_SECONDS]}
        if target:
            arguments["host"] = ["connect", target, CONNECT_SECONDS]
        self._delete()
        try:
            _wait("admit a pod", lambda: self._created(_pod(image, arguments)))
            _wait(STEPS["hello"], self._completed, self._warnings)
        finally:
            self._delete()

    def _ready_node(self) -> str:
        nodes = api.plain(self._connection, self._core.list_node())["items"]
        for node in nodes:
            conditions = {condition["type"]: condition for condition in node["status"].get("conditions", [])}
            ready = conditions.get("Ready", {"status": "Unknown", "message": "it has not said yet"})
            if ready["status"] != "True":
                return f"node {node['metadata']['name']}: {ready['message']}"
            if not node["spec"].get("taints"):
                return ""
        return "its nodes are tainted" if nodes else "no node has registered"

    def _created(self, pod: Any) -> str:
        try:
            self._core.create_namespaced_pod(NAMESPACE, pod)
        except client.ApiException as error:
            # The service account of the namespace, or the removal of an earlier pod, may take a moment.
            if error.status in (403, 409):
                return str(error.body)
            raise ClusterError(f"the cluster did not admit a pod: {error}") from error
        return ""

    def _completed(self) -> str:
        """Raises ClusterError for the first of STEPS that failed."""
        status = api.plain(self._connection, self._core.read_namespaced_pod(POD, NAMESPACE))["status"]
        found = {entry["name"]: entry["state"] for entry in status.get("containerStatuses", [])}
        for name, step in STEPS.items():
            ended = found.get(name, {}).get("terminated")
            if ended and ended["exitCode"] != 0:
                raise ClusterError(f"the cluster did not {step}: {ended.get('message') or ended.get('reason')}")
        if status["phase"] == "Succeeded":
            return ""
        waiting = {name: state["waiting"] for name, state in found.items() if "waiting" in state}
        failures = [
            f"{name}: {why.get('reason', '')} {why.get('message', '')}".strip() for name, why in waiting.items()
        ]
        return "; ".join(failures) or f"its phase is {status['phase']}"

    def _warnings(self) -> str:
        """What the pod's last events complain of, such as a network that cannot be set up."""
        selector = f"involvedObject.name={POD},type=Warning"
        answer = self._core.list_namespaced_event(NAMESPACE, field_selector=selector)
        events = api.plain(self._connection, answer)["items"]
        return "; ".join(dict.fromkeys(event.get("message", "") for event in events))

    def _delete(self) -> None:
        try:
            self._core.delete_namespaced_pod(POD, NAMESPACE, grace_period_seconds=0)
        except client.ApiException as error:
            if error.status != 404:
                raise ClusterError(f"the pod {NAMESPACE}/{POD} cannot be removed: {error}") from error


def _wait(step: str, attempt: Callable[[], str], more: Callable[[], str] = str) -> None:
    """Call `attempt` until it returns "" for success; it returns what is still wrong, and `more` can tell more."""
    deadline = time.monotonic() + PATIENCE
    while wrong := attempt():
        if time.monotonic() > deadline:
            raise ClusterError(f"the cluster did not {step} within {PATIENCE:.0f} s: {wrong} {more()}".rstrip())
        time.sleep(PAUSE)


def _pod(image: str, arguments: dict[str, list[str]]) -> dict[str, Any]:
    containers = [
        {"name": name, "image": image, "imagePullPolicy": "Never", "args": words} for name, words in arguments.items()
    ]
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "containers": containers,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD}, "spec": spec}


@contextmanager
def _listener(address: str) -> Iterator[str]:
    """Something to connect to on this machine, as HOST:PORT; "" where no address is known."""
    if not address:
        yield ""
        return
    with socket.create_server((address, 0)) as server:
        thread = threading.Thread(target=_accept, args=(server,), daemon=True)
        thread.start()
        yield f"{address}:{server.getsockname()[1]}"
        # Closing a socket does not end a blocking call on it; shutting it down does.
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def _accept(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        connection.close()
