"""The operator at work in a pod of its image, with the rights of its service account."""

from collections.abc import Callable
from pathlib import Path

from lab import pod, report
from lab.cluster import Cluster
from lab.kubectl import Kubectl
from lab.postgres import Server
from lab.site import RUN, Site, partitions


def test_an_operator_in_a_pod_serves_its_namespace_and_ends_on_sigterm(
    pods: Cluster, installed: Kubectl, operator_image: str, new_server: Callable[..., Server], tmp_path: Path
) -> None:
    if not pods.host_address:
        report.could_not_run("PostgreSQL on this machine: no address is known at which pods reach it")
    server = new_server(listen=f"127.0.0.1,{pods.host_address}")
    with Site(pods, installed, tmp_path).open() as site, server.new_database() as database:
        database.execute(RUN)
        installed("label", "namespace", site.namespace, pod.ENFORCED)
        kubectl = Kubectl.of(pods, site.namespace)
        operator = pod.manifest("operator", operator_image, ["run"], {"PARTWARDEN_NAMESPACES": site.namespace})
        operator["spec"] |= {"serviceAccountName": "operator", "automountServiceAccountToken": True}
        kubectl.apply(operator)
        site.secret("run", {"uri": server.dsn(database.name, host=pods.host_address, sslmode="disable")})
        site.apply("run", {"interval": "Year", "premake": 1})
        try:
            site.wait(Ready="True", reason="Converged")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{pod.describe_pod(kubectl, 'operator')}") from None
        assert len(partitions(database)) == 2
        kubectl("delete", "pod", "operator", "--timeout=20s")
