"""The chart in a real cluster: installed, used with rights in one namespace, upgraded, rolled back, uninstalled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import chart, jobs, pod, report, volume
from lab.cluster import Cluster
from lab.cluster.choice import EXISTING
from lab.helm import Helm
from lab.image import CLIENT_MAJOR
from lab.kubectl import Kubectl
from lab.operator import until
from lab.postgres import Database, Server, make_certificates
from lab.site import CRD, RESOURCES, RUN, Site, keys_of, partitions

RELEASE, CA = "pw", "/etc/postgres-ca"
USER = "jane"
YEAR = datetime.now(UTC).year
OLD = "CREATE TABLE run_2020 PARTITION OF run FOR VALUES FROM ('2020-01-01Z') TO ('2021-01-01Z')"
NEW_FIELD = "resync"
"""A field of the policy that the older chart does not know."""


@dataclass(frozen=True)
class Stand:
    """An operator that helm installed in the site's second namespace, and which serves the first."""

    site: Site
    helm: Helm
    server: Server
    authority: Path
    values: dict[str, Any]

    def set(self, command: str, folder: Path = chart.CHART, **more: Any) -> None:
        """`helm install` or `helm upgrade`, until all is ready."""
        given = yaml.safe_dump({**self.values, **more})
        # The resources are there in most tests, as if a user had applied them before.
        options = ("--values", "-", "--wait", "--timeout", "180s", "--take-ownership")
        try:
            self.helm(command, RELEASE, str(folder), *options, given=given)
        except Exception as error:
            there = Kubectl(self.site.kubectl.kubeconfig, self.site.kubectl.environment, self.site.namespaces[1])
            raise AssertionError(f"{error}\n{there.run('describe', 'pods').stdout}") from error

    def crd_fields(self) -> dict[str, Any]:
        """Of the policy's spec, as the API server has them."""
        return chart.spec_fields(self.site.kubectl.get(RESOURCES[0]))

    @property
    def jane(self) -> Kubectl:
        """kubectl of a user who may edit the first namespace, and nothing else."""
        return As(self.site.kubectl.kubeconfig, self.site.kubectl.environment, self.site.namespace)


class As(Kubectl):
    """kubectl of `USER`."""

    def command(self, *arguments: str) -> list[str]:
        return [*super().command(*arguments), "--as", USER]


@pytest.fixture
def stand(
    pods: Cluster,
    installed: Kubectl,
    operator_image: str,
    helm: Helm,
    new_server: Callable[..., Server],
    tmp_path: Path,
) -> Iterator[Stand]:
    """Nothing is installed yet; PostgreSQL speaks TLS only."""
    if not pods.host_address:
        report.could_not_run("PostgreSQL on this machine: no address is known at which pods reach it")
    certificates = make_certificates(tmp_path, [pods.host_address])
    server = new_server(CLIENT_MAJOR, listen=f"127.0.0.1,{pods.host_address}", tls=certificates, require_tls=True)
    with Site(pods, installed, tmp_path, count=2).open(role=None) as site:
        there = site.namespaces[1]
        for namespace in site.namespaces:
            installed("label", "namespace", namespace, pod.ENFORCED)
        installed("create", "configmap", "postgres-ca", f"--from-file={certificates.authority}", "--namespace", there)
        installed("create", "rolebinding", "jane", "--clusterrole=edit", f"--user={USER}", "-n", site.namespace)
        repository, _, tag = operator_image.rpartition(":")
        values = {
            "image": {"repository": repository, "tag": tag},
            "replicaCount": 2,
            "scope": {"namespaces": [site.namespace]},
            "rbac": {"secretNames": ["run", "other"]},
            "extraVolumes": [{"name": "ca", "configMap": {"name": "postgres-ca"}}],
            "extraVolumeMounts": [{"name": "ca", "mountPath": CA}],
        }
        with _ended(helm, pods, installed, there) as ours:
            yield Stand(site, ours, server, certificates.authority, values)


@contextmanager
def _ended(helm: Helm, pods: Cluster, installed: Kubectl, namespace: str) -> Iterator[Helm]:
    """At the end the release is uninstalled, and the resources are as before."""
    ours = Helm(helm.program, pods, namespace)
    try:
        yield ours
    finally:
        ours("uninstall", RELEASE, "--ignore-not-found", "--wait")
        installed("apply", "--server-side", "--force-conflicts", "--filename", str(CRD.parent))
        installed("wait", "--for=condition=Established", *RESOURCES, "--timeout=60s")


def _cnpg(stand: Stand, database: Database) -> dict[str, str]:
    """A Secret's keys as CloudNativePG writes them, of a server that pods reach."""
    host = stand.site.cluster.host_address
    uri = stand.server.dsn(database.name, host=host)
    known = keys_of(uri)
    return {
        **{key: known[key] for key in ("host", "port", "dbname", "user", "password")},
        "username": known["user"],
        "uri": uri,
        "jdbc-uri": f"jdbc:postgresql://{host}:{known['port']}/{database.name}?user={known['user']}",
        "pgpass": f"{host}:{known['port']}:{database.name}:{known['user']}:{known['password']}\n",
    }


VERIFIED = {"sslmode": "verify-full", "sslrootcert": f"{CA}/ca.crt"}


def test_a_user_with_rights_in_one_namespace_uses_the_chart(stand: Stand, operator_image: str) -> None:
    site, jane = stand.site, stand.jane
    stand.set("install")
    assert "Succeeded" in stand.helm("test", RELEASE)
    with (
        stand.server.new_database() as one,
        stand.server.new_database() as two,
        volume.claimed(site.cluster, operator_image, jobs.CLAIM, site.namespace),
    ):
        one.execute(f"{RUN} {OLD}; INSERT INTO run SELECT n, '2020-05-05Z' FROM generate_series(1, 1000) n")
        two.execute(RUN)
        # Beside the keys that CloudNativePG writes, its authority: Jobs have no volume with that.
        site.secret("run", {**_cnpg(stand, one), "ca.crt": stand.authority.read_text()})
        # Zalando's holds only these; where the server is, the policy says.
        login = keys_of(stand.server.dsn(two.name, host=site.cluster.host_address))
        site.secret("other", {"username": login["user"], "password": login["password"]})
        place = {"host": login["host"], "port": int(login["port"]), "dbname": two.name}
        retention = {"keepFor": "1y", "archive": {"pvc": {"claimName": jobs.CLAIM}}}
        jane.apply(
            site.manifest(
                "run",
                {
                    "database": {"secretRef": {"name": "run"}, "connection": {"sslmode": "verify-full"}},
                    "startFrom": f"{YEAR}-01-01",
                    "retention": retention,
                },
            ),
            site.manifest(
                "other",
                {"database": {"secretRef": {"name": "other"}, "connection": {**place, **VERIFIED}}, "premake": 1},
            ),
        )
        jane("wait", "--for=condition=Ready", "partitionpolicy/other", "--timeout=120s")
        assert len(partitions(two)) == 2
        jane("wait", "--for=condition=Ready", "partitionpolicy/run", "--timeout=240s")
        until("what expired was archived and detached", lambda: "run_2020" not in partitions(one), 240)
        (archive,) = jane.get("partitionarchives")["items"]
        assert archive["status"]["rows"] == 1000
        assert jane.get("jobs")["items"]
        shown = jane("get", "partitionpolicies")
        assert "Converged" in shown
        # With these rights and no more: a request for another namespace is refused.
        assert "forbidden" in jane.run("get", "partitionpolicies", "--all-namespaces").stderr
        _keeps_secrets(stand, [login["password"]])


def _keeps_secrets(stand: Stand, passwords: list[str]) -> None:
    """Neither the operator's log nor the objects that users can read hold a password."""
    site = stand.site
    selector = "--selector=app.kubernetes.io/name=partwarden"
    seen = [
        site.kubectl("logs", selector, "--namespace", site.namespaces[1], "--tail=-1"),
        site.kubectl("get", "ppol,parc,prst,jobs,events,pods", "--namespace", site.namespace, "--output", "yaml"),
        site.kubectl("get", "all,events", "--namespace", site.namespaces[1], "--output", "yaml"),
    ]
    for password in passwords:
        assert [text for text in seen if password in text] == []


def test_an_upgrade_brings_new_resources_and_uninstalling_keeps_policies(stand: Stand, tmp_path: Path) -> None:
    site, kubectl = stand.site, stand.site.kubectl
    if site.cluster.provider == EXISTING:
        report.could_not_run("replacing the CustomResourceDefinitions of a cluster that is not ours")
    kubectl("delete", *RESOURCES)
    stand.set("install", chart.older(tmp_path, "0.0.1", NEW_FIELD))
    assert NEW_FIELD not in stand.crd_fields()
    with stand.server.new_database() as database:
        database.execute(RUN)
        site.secret("run", _cnpg(stand, database))
        manifest = site.manifest("run", {"database": {"secretRef": {"name": "run"}, "connection": VERIFIED}})
        del manifest["spec"][NEW_FIELD]
        kubectl.apply(manifest)
        site.wait(Ready="True")
        stand.set("upgrade", operator={"logLevel": "debug"})
        assert NEW_FIELD in stand.crd_fields()
        stand.helm("rollback", RELEASE, "1", "--wait", "--timeout", "180s")
        assert NEW_FIELD not in stand.crd_fields()
        stand.helm("uninstall", RELEASE, "--wait")
        assert kubectl.get("deployments", "--namespace", site.namespaces[1])["items"] == []
        # Nothing is lost.
        assert site.policy()["status"]["conditions"]
        assert len(partitions(database)) == 3
