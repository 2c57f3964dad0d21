"""The operator's process: its checks at startup, its shutdown, and its rights."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest

from lab import report
from lab.cluster import Cluster
from lab.kubectl import Kubectl
from lab.operator import Operator, until
from lab.postgres import Database
from lab.site import CRD, RUN, Site, conditions, is_unseen, partitions

RESOURCE = "crd/partitionpolicies.partwarden.dev"


def last_words(operator: Operator) -> str:
    """The message of the only line that it logged; it must have ended with 1."""
    assert operator.start().wait() == 1
    (line,) = operator.lines()
    assert line["level"] == "error"
    assert "\n" not in line["message"]
    return str(line["message"])


@pytest.fixture
def database(pg_database: Database) -> Database:
    pg_database.execute(RUN)
    return pg_database


@pytest.fixture
def own_crd(cluster: Cluster, installed: Kubectl) -> Kubectl:
    """For tests that change the CustomResourceDefinition: never that of a cluster which the user brought."""
    if cluster.provider == "existing":
        report.could_not_run("changing the CustomResourceDefinition of a cluster that is not ours")
    return installed


@contextmanager
def restored_crd(kubectl: Kubectl) -> Iterator[None]:
    try:
        yield
    finally:
        kubectl("apply", "--server-side", "--force-conflicts", "--filename", str(CRD))
        kubectl("wait", "--for=condition=Established", RESOURCE, "--timeout=60s")


def test_a_missing_resource_is_named_with_the_command_that_installs_it(site: Site, own_crd: Kubectl) -> None:
    with restored_crd(own_crd):
        own_crd("delete", RESOURCE)
        words = last_words(site.operator())
    assert "does not serve partitionpolicies of partwarden.dev/v1alpha1" in words
    assert "`partwarden crds | kubectl apply --server-side -f -`" in words


@pytest.mark.parametrize("selector", ["", "shard=a"])
def test_the_command_in_the_message_installs_the_resource(own_crd: Kubectl, site: Site, selector: str) -> None:
    with restored_crd(own_crd), ExitStack() as stack:
        own_crd("delete", RESOURCE)
        own_crd("apply", "--server-side", "--filename", "-", given=CRD.read_text())
        own_crd("wait", "--for=condition=Established", RESOURCE, "--timeout=60s")
        stack.enter_context(site.operator(SELECTOR=selector).serving())


def _rules() -> Iterator[tuple[str, dict[str, Any]]]:
    for group, resource, *verbs in (
        ("partwarden.dev", "partitionpolicies", "list", "watch"),
        ("partwarden.dev", "partitionpolicies/status", "patch"),
        ("partwarden.dev", "partitionarchives", "get", "list", "watch", "create"),
        ("partwarden.dev", "partitionarchives/status", "patch"),
        ("partwarden.dev", "partitionrestores", "get", "list", "watch"),
        ("partwarden.dev", "partitionrestores/status", "patch"),
        ("batch", "jobs", "get", "list", "watch", "create"),
        ("", "pods", "list"),
        ("", "secrets", "get"),
        ("", "events", "create"),
    ):
        for verb in verbs:
            full = f"{resource}.{group}" if group else resource
            yield f"{verb} {full}", {"apiGroups": [group], "resources": [resource]}


RULES = dict(_rules())


@contextmanager
def bound_to(site: Site, rights: list[str]) -> Iterator[None]:
    """A ClusterRole with these rights only, bound in every namespace of the site."""
    name = f"{site.namespace}-part"
    rules = [{**RULES[right], "verbs": [right.split()[0]]} for right in rights]
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}}
    site.kubectl.apply({**kind, "rules": rules})
    try:
        for namespace in site.namespaces:
            site.kubectl("delete", "rolebinding", "partwarden", "--namespace", namespace)
            site.bind(namespace, name)
        yield
    finally:
        site.kubectl("delete", "clusterrole", name)


@pytest.mark.parametrize("missing", list(RULES))
def test_a_missing_right_is_named(site: Site, missing: str) -> None:
    with bound_to(site, [right for right in RULES if right != missing]):
        words = last_words(site.operator())
    for namespace in site.namespaces:
        assert f"{missing} in namespace {namespace}" in words
    assert not [right for right in RULES if right != missing and right in words]


def test_rights_in_some_namespaces_are_not_enough_for_all(site: Site) -> None:
    words = last_words(site.operator(NAMESPACES=""))
    assert all(f"{right} in all namespaces" in words for right in RULES)


def test_the_rights_of_the_example_are_enough_for_all_namespaces(site: Site, database: Database) -> None:
    subject = f"--serviceaccount={site.namespace}:operator"
    name = f"{site.namespace}-all"
    site.kubectl("create", "clusterrolebinding", name, "--clusterrole=partwarden", subject)
    try:
        with site.operator(NAMESPACES="").serving() as everywhere:
            site.secret("run", {"uri": database.dsn}, site.namespaces[1])
            site.apply("run", {}, site.namespaces[1])
            site.wait("run", site.namespaces[1], Ready="True")
            assert not [line for line in everywhere.lines() if line["level"] in ("warning", "error")]
    finally:
        site.kubectl("delete", "clusterrolebinding", name)


def test_a_namespace_that_is_not_served_is_left_alone(site: Site, database: Database) -> None:
    with site.operator(NAMESPACES=site.namespaces[0]).serving():
        for namespace in site.namespaces:
            site.secret("run", {"uri": database.dsn}, namespace)
        site.apply("run", {}, site.namespaces[1])
        site.apply("run", {"mode": "Plan"})
        site.wait("run", reason="PlanPending")
    assert is_unseen(site.policy("run", site.namespaces[1]))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"WORKERS": "none"}, "Error: PARTWARDEN_WORKERS='none': must be a valid integer"),
        ({"WORKRES": "3"}, "Error: PARTWARDEN_WORKRES is not a setting"),
    ],
)
def test_a_wrong_setting_is_one_line(site: Site, settings: dict[str, str], says: str) -> None:
    operator = site.operator(**settings)
    assert operator.start().wait() == 1
    (line,) = operator.log.read_text().splitlines()
    assert line.startswith(says)


def test_a_selector_that_the_api_server_refuses_is_one_line(site: Site) -> None:
    operator = site.operator(SELECTOR="shard in a")
    assert operator.start().wait() == 1
    (line,) = operator.lines()
    assert line["message"].startswith(
        "PARTWARDEN_SELECTOR='shard in a' is no label selector: the Kubernetes API would not"
    )


def test_a_cluster_that_does_not_answer_is_one_line(site: Site) -> None:
    operator = site.operator()
    text = operator.kubeconfig.read_text()
    server = next(line.split(": ", 1)[1] for line in text.splitlines() if "server:" in line)
    operator.kubeconfig.write_text(text.replace(server, "https://127.0.0.1:1"))
    assert operator.start().wait() == 1
    errors = [line for line in operator.lines() if line["level"] == "error"]
    assert len(errors) == 1
    assert "https://127.0.0.1:1" in errors[0]["message"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_operator_stops_at_once(site: Site, operator: Operator, number: signal.Signals) -> None:
    assert operator.stop(number)[0] == 0
    assert operator.says("stopped")
    assert not operator.says("cancelling")


def test_an_operator_stops_while_a_statement_waits_for_a_lock(site: Site, database: Database) -> None:
    with site.operator(LOCK_PATIENCE="600").serving() as running, database.connect() as holder:
        holder.execute("BEGIN; LOCK TABLE run IN SHARE MODE")
        site.watch_over(database)
        ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'partwarden'"
        ours += " AND datname = current_database()"
        until("a statement waits", lambda: database.query(f"{ours} AND wait_event_type = 'Lock'") == [(1,)])
        # The lock is held all the time, and would be waited for for ten minutes.
        assert running.stop()[0] == 0
        assert running.says("stopped")
        until("the connection is gone", lambda: database.query(ours) == [(0,)])
    assert partitions(database) == []
    assert is_unseen(site.policy())
    assert site.events() == []


def test_a_secret_that_may_not_be_read_is_reported(site: Site, database: Database) -> None:
    with bound_to(site, list(RULES)), site.operator().serving():
        rules = [{**RULES[right], "verbs": [right.split()[0]]} for right in RULES if right != "get secrets"]
        patch = json.dumps({"rules": rules})
        site.kubectl("patch", "clusterrole", f"{site.namespace}-part", "--type=merge", "--patch", patch)
        probe = ["auth", "can-i", "get", "secrets", "--as", f"system:serviceaccount:{site.namespace}:operator"]
        until("the right is gone", lambda: site.kubectl.run(*probe, "--namespace", site.namespace).returncode == 1)
        site.watch_over(database)
        found = site.wait(reason="InsufficientPrivilege", Stalled="True")
        message = conditions(found["status"])["Ready"]["message"]
        assert f"may not read Secret 'run' in namespace '{site.namespace}'" in message


def test_a_spec_admitted_by_another_version_of_the_resource_is_reported(
    site: Site, operator: Operator, database: Database, own_crd: Kubectl
) -> None:
    with restored_crd(own_crd):
        path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/premake/maximum"
        own_crd("patch", RESOURCE, "--type=json", "--patch", json.dumps([{"op": "remove", "path": path}]))

        def applied() -> bool:
            return own_crd.run("apply", "--filename", "-", given=json.dumps(too_many)).returncode == 0

        too_many = site.manifest("run", {"premake": 5000})
        until("the API server takes it", applied)
        found = site.wait(reason="InvalidSpec", Stalled="True")
        message = conditions(found["status"])["Ready"]["message"]
        assert "spec.premake: must be at most 1000, found 5000" in message
        site.watch_over(database, premake=1)
        site.wait(Ready="True")


def test_two_operators_on_one_policy_do_no_harm(site: Site, operator: Operator, database: Database) -> None:
    with site.operator().serving() as second:
        site.watch_over(database, interval="Day", premake=50)
        site.wait(Ready="True")
        for each in (operator, second):
            until("both reconciled", partial(each.attempts, f"{site.namespace}/run"))
        assert len(partitions(database)) == 51
        assert not [line for line in [*operator.lines(), *second.lines()] if "traceback" in line]
