"""One operator, an adversary's namespace and another team's: what must hold for the other one during an attack."""

from __future__ import annotations

import base64
import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import kubernetes.client as api
import kubernetes.config
import psutil
import psycopg
import yaml
from urllib3.exceptions import ProtocolError

from bench.memory import proportional
from lab.leases import allow
from lab.monitoring import fetch
from lab.operator import until
from lab.postgres import Server, free_port
from lab.site import GROUP, PLURAL, ROOT, RUN, VERSION, Site, conditions
from partwarden.api.archive import ARCHIVE_PLURAL
from partwarden.api.restore import RESTORE_PLURAL
from partwarden.kube.lease import PATIENCE

if TYPE_CHECKING:
    from adversary.cases import Case

READY = 10.0
"""Seconds in which a policy of another namespace is Ready, whatever an adversary does."""
CALM = 1.0
"""Seconds that it takes at most while there is no attack. On a machine where it takes longer, READY grows by the same
factor: the promise is about the adversary, not about the machine."""
CAUSE = 60.0
"""Seconds after which the log has named the cause."""
OWN_MEMORY = 256 << 20
"""Bytes that the operator's own process takes at most: what databases send never comes into it."""
SETTINGS = {"RECONCILE_TIMEOUT": "3", "CONNECT_TIMEOUT": "2", "JOB_IMAGE": "partwarden.invalid/partwarden:none"}
"""Limits shorter than by default, so that each attack is soon named. All else is as the chart has it."""
SHARE = 4
"""Workers that one of several namespaces may have, of eight."""
PLURALS = (PLURAL, ARCHIVE_PLURAL, RESTORE_PLURAL)
NEVER = ("the Lease was", "not healthy", "the watch ended", "unexpected error", "InternalError")
"""What no line of the log may hold."""


def pod_limit() -> int:
    """Bytes that the chart gives the operator's pod, with all its workers."""
    values = yaml.safe_load((ROOT / "charts" / "partwarden" / "values.yaml").read_text())
    return int(values["resources"]["limits"]["memory"].removesuffix("Mi")) << 20


@contextmanager
def api_client(site: Site) -> Iterator[api.ApiClient]:
    """With the rights of the cluster's administrator, and without the seconds that kubectl takes."""
    configuration = api.Configuration()
    kubernetes.config.load_kube_config(str(site.cluster.kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
    client = api.ApiClient(configuration)
    with closing(client.rest_client):
        yield client


class Memory:
    """The most that the operator takes while this is open, in bytes: its own process, and all its processes."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._done = process, threading.Event()
        self.own = self.whole = 0
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.is_set():
            own, whole = proportional(self._process)
            self.own, self.whole = max(self.own, own), max(self.whole, whole)
            self._done.wait(0.2)


class Stage:
    """The first namespace of the site is another team's, and has the operator; the second is the adversary's."""

    def __init__(self, site: Site, server: Server, stack: ExitStack, **settings: str) -> None:
        self.site, self.server = site, server
        self.bystander, self.adversary = site.namespaces
        client = stack.enter_context(api_client(site))
        self.custom, self.core, self.batch = api.CustomObjectsApi(client), api.CoreV1Api(client), api.BatchV1Api(client)
        self._leases = api.CoordinationV1Api(client)
        self.ports: Mapping[str, int] = {}
        """Of hostile servers, by what they do."""
        self.archive = ""
        """The adversary's last PartitionArchive."""
        self.answers: list[str] = []
        """What the operator's HTTP port has answered the adversary, as far as it tells what is wrong."""
        self._numbers = itertools.count()
        # The adversary's own database is the other one.
        database, self.own = (stack.enter_context(server.new_database()) for _ in range(2))
        self.own.execute(
            RUN + "CREATE TABLE run_2019 PARTITION OF run FOR VALUES FROM ('2019-01-01') TO ('2020-01-01')"
        )
        self._tables = stack.enter_context(psycopg.connect(database.dsn, autocommit=True))
        site.secret("run", {"uri": database.dsn})
        self.port = free_port()
        wanted = {"LEASE": allow(site), "LISTEN": f"127.0.0.1:{self.port}", **SETTINGS, **settings}
        self.operator = stack.enter_context(site.operator(**wanted).serving())
        assert self.operator.process is not None
        self.process = psutil.Process(self.operator.process.pid)
        self._offset, self._lines = 0, list[dict[str, Any]]()
        self._lease = self._read_lease()
        calm = max(self.ready_after(60.0) for _ in range(3))
        self.limit = READY * max(1.0, calm / CALM)

    def endure(self, case: Case) -> None:
        """Raises AssertionError where the attack harms another team, or its cause is not named."""
        self._read_log()
        self._lines, self.answers = [], []
        course = case.attack(self)
        try:
            with Memory(self.process) as memory:
                next(course)
                self.ready_after(self.limit)
                until(f"the log names {case.reason or 'the cause'}: {case.says!r}", lambda: self._names(case), CAUSE)
                assert fetch(self.port, "/healthz") == (200, "ok\n")
        except AssertionError as error:
            said = [each for each in self._lines if str(each.get("policy", "")).startswith(self.adversary)]
            raise AssertionError(f"{error}; of the adversary it says {said[-3:]}") from None
        finally:
            course.close()
            self.end()
        assert memory.own < OWN_MEMORY
        assert memory.whole < pod_limit()
        assert self._read_lease() == self._lease
        self._read_log()
        assert [each for each in self._lines if any(words in str(each) for words in NEVER)] == []

    def ready_after(self, limit: float) -> float:
        """The seconds until a new policy of the other team is Ready. Raises AssertionError after ``limit``."""
        name, began = f"t{next(self._numbers)}", time.monotonic()
        self._tables.execute(f"CREATE TABLE {name} (at timestamptz NOT NULL) PARTITION BY RANGE (at)".encode())
        spec = {"database": {"secretRef": {"name": "run"}}, "table": {"name": name}, "interval": "Month"}
        self.custom.create_namespaced_custom_object(GROUP, VERSION, self.bystander, PLURAL, policy(name, spec))

        def ready() -> bool:
            found: Any = self.custom.get_namespaced_custom_object(GROUP, VERSION, self.bystander, PLURAL, name)
            return conditions(found["status"]).get("Ready", {}).get("status") == "True"

        until("a policy of another namespace is Ready", ready, limit)
        return time.monotonic() - began

    # What an adversary may do.

    def secret(self, name: str, data: Mapping[str, str | bytes], **more: Any) -> None:
        """Create the Secret."""
        encoded = {
            key: base64.b64encode(value if isinstance(value, bytes) else value.encode()).decode()
            for key, value in data.items()
        }
        body: Any = {"metadata": {"name": name}, "data": encoded, **more}
        self.core.create_namespaced_secret(self.adversary, body)

    def policy(self, name: str, spec: Mapping[str, Any] | None = None, **metadata: Any) -> None:
        """Create a policy for public.run, with the Secret of its name."""
        whole = {"database": {"secretRef": {"name": name}}, "table": {"name": "run"}, "resync": "10s", **(spec or {})}
        body = policy(name, whole, **metadata)
        self.custom.create_namespaced_custom_object(GROUP, VERSION, self.adversary, PLURAL, body)

    def edit(self, name: str, spec: Mapping[str, Any]) -> None:
        """Change fields of the spec of a policy."""
        body = {"spec": dict(spec)}
        self.custom.patch_namespaced_custom_object(GROUP, VERSION, self.adversary, PLURAL, name, body)

    def name(self) -> str:
        """A new one."""
        return f"a{next(self._numbers)}"

    def connections(self, port: int) -> int:
        """How many the operator and its workers have to a port of this machine."""
        held = []
        for each in (self.process, *self.process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                held += [each for each in each.net_connections("tcp") if each.raddr[1:] == (port,)]
        return len(held)

    def end(self) -> None:
        """Delete what the adversary has made, but for Secrets."""
        for plural in PLURALS:
            try:
                self.custom.delete_collection_namespaced_custom_object(GROUP, VERSION, self.adversary, plural)
            except ProtocolError:
                # The answer has all of them, and a busy API server may break it off after a minute: the rest once more.
                self.custom.delete_collection_namespaced_custom_object(GROUP, VERSION, self.adversary, plural)
        self.batch.delete_collection_namespaced_job(self.adversary, propagation_policy="Background")
        self.core.delete_collection_namespaced_pod(self.adversary, grace_period_seconds=0)

    def _read_lease(self) -> tuple[str, int]:
        """Holder and transitions, of a Lease that is renewed."""
        spec: Any = self._leases.read_namespaced_lease("leader", self.bystander).spec
        assert datetime.now(UTC) - spec.renew_time < timedelta(seconds=PATIENCE)
        return spec.holder_identity, spec.lease_transitions

    def _names(self, case: Case) -> bool:
        """Whether the log does, the status of one of the adversary's objects, or an answer that it was given."""
        self._read_log()
        return any(map(case.is_named_by, itertools.chain(self._lines, self._statuses())))

    def _statuses(self) -> Iterator[dict[str, Any]]:
        """Conditions and findings, as lines of a log."""
        yield from ({"message": each} for each in self.answers)
        for plural in PLURALS:
            found: Any = self.custom.list_namespaced_custom_object(GROUP, VERSION, self.adversary, plural, limit=10)
            for status in (each.get("status", {}) for each in found["items"]):
                yield from (*status.get("conditions", ()), *status.get("findings", ()))

    def _read_log(self) -> None:
        with self.operator.log.open("rb") as log:
            log.seek(self._offset)
            whole = log.read().rpartition(b"\n")[0]
        self._offset += len(whole) + 1 if whole else 0
        self._lines += map(json.loads, filter(None, whole.split(b"\n")))


def policy(name: str, spec: Mapping[str, Any], **metadata: Any) -> dict[str, Any]:
    """The manifest."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "PartitionPolicy",
        "metadata": {"name": name, **metadata},
        "spec": spec,
    }
