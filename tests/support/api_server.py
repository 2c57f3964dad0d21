"""An API server in a thread, with PartitionPolicies in memory: enough for commands that read and edit them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from partwarden.api.policy import PLURAL

Object = dict[str, Any]


class ApiServer:
    """``before_patch`` is called before each edit is compared with what is stored, as another writer would be."""

    def __init__(self) -> None:
        self.policies: dict[tuple[str, str], Object] = {}
        self.before_patch: Callable[[], object] = lambda: None
        self.conflicts = 0
        self._lock = Lock()

    def add(self, namespace: str, name: str, *partitions: Object, **annotations: str) -> None:
        """A policy whose status lists these partitions. In annotations ``hold`` is ``partwarden.dev/hold``."""
        named = {f"partwarden.dev/{key}": value for key, value in annotations.items()}
        meta = {"namespace": namespace, "name": name, "resourceVersion": "1", "annotations": named}
        listed = [{"state": "Past", "bytes": 0, **each} for each in partitions]
        self.policies[namespace, name] = {
            "metadata": meta,
            "spec": {"table": {"name": "run"}},
            "status": {"partitions": listed},
        }

    def store(self, policy: Object) -> None:
        """A policy as it is."""
        meta = policy["metadata"]
        self.policies[meta["namespace"], meta["name"]] = policy

    def annotate(self, namespace: str, name: str, value: str | None) -> None:
        """Set ``partwarden.dev/hold`` as another writer does."""
        meta = self.policies[namespace, name]["metadata"]
        self._merge(meta, {"annotations": {"partwarden.dev/hold": value}})

    def held(self, namespace: str, name: str) -> str | None:
        """What ``partwarden.dev/hold`` says."""
        found: str | None = self.policies[namespace, name]["metadata"]["annotations"].get("partwarden.dev/hold")
        return found

    def get(self, parts: list[str]) -> Object | None:
        """A policy, or all of a namespace; None where there is none."""
        namespace, plural, *name = parts
        if not name:
            found = [each for key, each in sorted(self.policies.items()) if (key[0], PLURAL) == (namespace, plural)]
            return {"items": found, "metadata": {}}
        return self.policies.get((namespace, name[0]))

    def patch(self, parts: list[str], body: Object) -> Object | None:
        """Merge; None where the resource version is another."""
        self.before_patch()
        with self._lock:
            meta = self.policies[parts[0], parts[2]]["metadata"]
            if body["metadata"].pop("resourceVersion") != meta["resourceVersion"]:
                self.conflicts += 1
                return None
            self._merge(meta, body["metadata"])
            return self.policies[parts[0], parts[2]]

    @staticmethod
    def _merge(meta: Object, change: Object) -> None:
        for key, value in change["annotations"].items():
            meta["annotations"].pop(key, None)
            if value is not None:
                meta["annotations"][key] = value
        meta["resourceVersion"] = str(int(meta["resourceVersion"]) + 1)


@contextmanager
def serving(api: ApiServer, folder: Path) -> Iterator[Path]:
    """A kubeconfig that leads to it, by namespace ``shop``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(api.get(self._parts()), 404)

        def do_PATCH(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(api.patch(self._parts(), body), 409)

        def log_message(self, *_: object) -> None:
            pass

        def _parts(self) -> list[str]:
            return self.path.partition("?")[0].partition("/namespaces/")[2].split("/")

        def _answer(self, found: Object | None, status: int) -> None:
            data = json.dumps({"message": "no"} if found is None else found).encode()
            self.send_response(status if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "c", "namespace": "shop"}}
    other = {"name": "other", "context": {"cluster": "c", "user": "c", "namespace": "other"}}
    config = {"apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [cluster]}
    config |= {"contexts": [context, other], "users": [{"name": "c", "user": {}}]}
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    try:
        yield path
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
