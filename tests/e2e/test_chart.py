"""The chart, rendered by real helm: every value, the rights, and the verdict of a real API server on the manifests."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import release
from lab.chart import CHART, CRDS, dashboard, of_kind, render
from lab.helm import Helm, HelmError
from lab.kubectl import Kubectl
from lab.prometheus import Promtool
from lab.site import RIGHTS, ROOT
from partwarden import __version__
from partwarden.api.status import ConditionType, Severity
from partwarden.controller import settings
from partwarden.controller.metrics import ARCHIVE_STATES, Metrics, Sources, families
from partwarden.kube.cache import Store

FULL: dict[str, Any] = {
    "replicaCount": 3,
    "image": {"repository": "registry.example.com/partwarden", "digest": "sha256:" + "0" * 64, "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "pull"}],
    "scope": {"namespaces": ["default", "kube-public"], "selector": "example.com/shard notin (a, b), !old"},
    "operator": {"workers": 3, "logFormat": "text", "logLevel": "debug", "lockPatience": 0.5},
    "jobs": {"max": 1, "serviceAccount": "archiver", "pullSecrets": ["pull"], "env": {"HTTPS_PROXY": "http://p:1"}},
    "serviceAccount": {"name": "warden", "annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/a"}},
    "rbac": {"secretNames": ["orchestrator-db"]},
    "crds": {"keep": False, "annotations": {"example.com/who": "me"}},
    "podAnnotations": {"a": "1"},
    "podLabels": {"b": "2"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {
                        "matchExpressions": [
                            {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]}
                        ]
                    }
                ]
            }
        }
    },
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "partwarden"}},
        }
    ],
    "priorityClassName": "system-cluster-critical",
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca"}],
    "networkPolicy": {"enabled": True, "from": [{"namespaceSelector": {}}]},
    "monitoring": {
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {
            "enabled": True,
            "runwayDays": 14,
            "claimDays": 60,
            "runbooks": "https://git.example.com/monitor.md",
        },
        "dashboard": {"enabled": True, "labels": {"team": "databases"}},
    },
    "argocd": {"healthChecks": True},
}
MATRIX: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": FULL,
    "nothing of its own": {
        "serviceAccount": {"create": False, "name": "theirs"},
        "rbac": {"create": False, "aggregate": False},
        "crds": {"install": False},
    },
    "an authority of one's own, as the README says": yaml.safe_load(
        re.findall(r"```yaml\n(.*?)```", (CHART / "README.md").read_text(), re.DOTALL)[-1]
    ),
    "one namespace": {"scope": {"namespaces": ["default"]}, "fullnameOverride": "pw"},
    "one shard": {"scope": {"selector": "shard in (a,b)"}},
}
SOURCE = "https://git.example.com/owner/partwarden"
SPEAKING = ("create", "enabled", "annotations")
"""Values whose names say all."""
FOREIGN = ("PodMonitor", "PrometheusRule")
"""Kinds of the Prometheus operator, which the API server of the tests does not know."""


def test_the_crds_are_those_of_the_project() -> None:
    names = [path.name for path in sorted((ROOT / "crds").iterdir())]
    assert [path.name for path in sorted(CRDS.iterdir())] == names
    for name in names:
        same = (CRDS / name).read_bytes() == (ROOT / "crds" / name).read_bytes()
        assert same, f"run: cp crds/{name} {CRDS.relative_to(ROOT)}/"


def test_helm_lint_finds_nothing(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))


@pytest.mark.parametrize("values", MATRIX.values(), ids=list(MATRIX))
def test_the_api_server_takes_all_of_it(helm: Helm, installed: Kubectl, values: dict[str, Any]) -> None:
    """Field by field: unknown, duplicate and wrong fields are refused."""
    manifests = [each for each in render(helm, values) if each["kind"] not in FOREIGN]
    for each in manifests:
        if each["metadata"].get("namespace") == "there":
            each["metadata"]["namespace"] = "default"
    arguments = ("--server-side", "--force-conflicts", "--validate=strict", "--dry-run=server")
    installed("apply", *arguments, "--filename", "-", given=yaml.safe_dump_all(manifests))


@pytest.mark.parametrize("keep", [True, False])
def test_the_rendered_crds_differ_by_annotations_only(helm: Helm, keep: bool) -> None:
    rendered = of_kind(render(helm, {"crds": {"keep": keep}}), "CustomResourceDefinition")
    assert len(rendered) == 3
    for each in rendered:
        notes = each["metadata"].pop("annotations")
        assert notes["argocd.argoproj.io/sync-options"] == "ServerSideApply=true"
        assert notes.get("helm.sh/resource-policy") == ("keep" if keep else None)
        plain = yaml.safe_load((ROOT / "crds" / f"{each['spec']['names']['plural']}.yaml").read_text())
        assert each == plain


def _rights(rules: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {
        (verb, resource, group)
        for rule in rules
        for verb in rule["verbs"]
        for resource in rule["resources"]
        for group in rule["apiGroups"]
    }


NEEDED = {*settings.RIGHTS, *settings.OPTIONAL_RIGHTS, ("get", "secrets", "")}


def test_the_rights_are_those_that_the_operator_asks_for_and_no_more(helm: Helm) -> None:
    (everywhere,) = [each for each in of_kind(render(helm), "ClusterRole") if "rules" in each and _is_bound(each)]
    assert _rights(everywhere["rules"]) == NEEDED
    (example,) = [each for each in yaml.safe_load_all(RIGHTS.read_text()) if each["kind"] == "ClusterRole"]
    assert _rights(example["rules"]) == NEEDED


def _is_bound(role: dict[str, Any]) -> bool:
    return not role["metadata"]["name"].endswith(("-edit", "-view"))


def test_with_namespaces_there_are_roles_in_them_and_nothing_else(helm: Helm) -> None:
    manifests = render(helm, {"scope": {"namespaces": ["one", "two"]}, "rbac": {"secretNames": ["db"]}})
    assert not [each for each in of_kind(manifests, "ClusterRole") if _is_bound(each)]
    assert not of_kind(manifests, "ClusterRoleBinding")
    roles = [each for each in of_kind(manifests, "Role") if not each["metadata"]["name"].endswith("-lease")]
    assert [each["metadata"]["namespace"] for each in roles] == ["one", "two"]
    for role in roles:
        assert _rights(role["rules"]) == NEEDED
        (secrets,) = [rule for rule in role["rules"] if rule["resources"] == ["secrets"]]
        assert secrets["resourceNames"] == ["db"]
    assert _environment(manifests)["PARTWARDEN_NAMESPACES"] == "one,two"
    assert _environment(manifests)["PARTWARDEN_SECRETS"] == "db"


def test_the_lease_may_be_used_and_no_other(helm: Helm) -> None:
    manifests = render(helm, {"scope": {"namespaces": ["there"]}})
    (role,) = [each for each in of_kind(manifests, "Role") if each["metadata"]["name"].endswith("-lease")]
    chosen = settings.load(_environment(manifests))
    asked = [each for each in settings.wanted(chosen) if each.resource == "leases"]
    assert {each.namespace for each in asked} == {role["metadata"]["namespace"]} == {"there"}
    (example,) = [each for each in yaml.safe_load_all(RIGHTS.read_text()) if each["kind"] == "Role"]
    assert [{**rule, "resourceNames": []} for rule in role["rules"]] == [
        {**rule, "resourceNames": []} for rule in example["rules"]
    ]
    given = {
        (verb, name) for rule in role["rules"] for verb in rule["verbs"] for name in rule.get("resourceNames", [None])
    }
    assert given == {(each.verb, each.name) for each in asked}


def test_shards_in_one_namespace_have_nothing_in_common(helm: Helm) -> None:
    """Helm gives no object to two releases."""
    once = {"crds": {"install": False}, "rbac": {"aggregate": False}}
    values = [FULL | {"scope": {"selector": f"shard={each}"}, "serviceAccount": {}} for each in ("a", "b")]
    first, second = render(helm, values[0], release="shard-a"), render(helm, values[1] | once, release="shard-b")
    names = [
        {(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in manifests}
        for manifests in (first, second)
    ]
    assert not names[0] & names[1]
    assert {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ServiceAccount"} <= {
        kind for kind, *_ in names[1]
    }
    chosen = [settings.load(_environment(manifests)) for manifests in (first, second)]
    assert [each.selector for each in chosen] == ["shard=a", "shard=b"]
    assert [each.lease for each in chosen] == ["there/shard-a-partwarden", "there/shard-b-partwarden"]
    (selected,) = [each["spec"]["selector"]["matchLabels"] for each in of_kind(second, "Deployment")]
    (pods,) = [each["spec"]["template"]["metadata"]["labels"] for each in of_kind(first, "Deployment")]
    assert not selected.items() <= pods.items()


def test_a_disruption_budget_comes_with_replicas(helm: Helm) -> None:
    assert of_kind(render(helm), "PodDisruptionBudget") == []
    assert len(of_kind(render(helm, {"replicaCount": 2}), "PodDisruptionBudget")) == 1


def _environment(manifests: list[dict[str, Any]]) -> dict[str, str]:
    (deployment,) = of_kind(manifests, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["value"] for each in container["env"]}


@pytest.mark.parametrize("values", MATRIX.values(), ids=list(MATRIX))
def test_the_environment_is_settings_that_the_operator_takes(helm: Helm, values: dict[str, Any]) -> None:
    chosen = settings.load(_environment(render(helm, values)))
    whole = {**yaml.safe_load((CHART / "values.yaml").read_text()), **values}
    assert chosen.namespaces == tuple(whole["scope"].get("namespaces", []))
    assert chosen.selector == whole["scope"].get("selector", "")
    assert chosen.workers == whole["operator"].get("workers", 8)
    assert chosen.job_env == whole["jobs"].get("env", {})
    assert chosen.job_image
    assert chosen.listen == ":8080"


def test_the_defaults_are_those_of_the_operator(helm: Helm) -> None:
    known = {"log_format": "json", "listen": ":8080", "job_image": "partwarden:0.1.0"}
    known["lease"] = "there/release-partwarden"
    assert settings.load(_environment(render(helm))) == settings.Settings(**known)


def test_the_variant_is_in_the_tag_of_the_operator_and_of_its_jobs(helm: Helm) -> None:
    for image, expected in (
        ({"variant": "parquet"}, "partwarden:0.1.0-parquet"),
        ({"variant": "parquet", "tag": "mine"}, "partwarden:mine-parquet"),
    ):
        manifests = render(helm, {"image": image})
        (deployment,) = of_kind(manifests, "Deployment")
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert (container["image"], settings.load(_environment(manifests)).job_image) == (expected, expected)
    digest = "sha256:" + "0" * 64
    with pytest.raises(HelmError, match="give the digest of the image whose tag ends in -parquet"):
        render(helm, {"image": {"variant": "parquet", "digest": digest}})


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"image": {"variant": "small"}}, "variant"),
        ({"opertor": {}}, "opertor"),
        ({"operator": {"workers": 0}}, "workers"),
        ({"operator": {"logLevel": "loud"}}, "logLevel"),
        ({"scope": {"namespaces": ["Not A Name"]}}, "namespaces"),
        ({"scope": {"selector": "shard > 1"}}, "selector"),
        ({"scope": {"selector": {"shard": "a"}}}, "selector"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"jobs": {"env": {"A": 1}}}, "env"),
        ({"replicaCount": -1}, "replicaCount"),
        ({"replicas": 2}, "replicas"),
    ],
)
def test_a_wrong_value_is_refused_by_name(helm: Helm, values: dict[str, Any], named: str) -> None:
    with pytest.raises(HelmError, match=named):
        render(helm, values)


def _leaves(values: dict[str, Any], path: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value and path + key != "resources":
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield path + key


def test_every_value_is_in_the_readme_and_in_the_schema() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = re.findall(r"^\| (`.*?) \|", (CHART / "README.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert named == set(_leaves(values))
    node = json.loads((CHART / "values.schema.json").read_text())
    for leaf in _leaves(values):
        found = node
        for part in leaf.split("."):
            named_so = found.get("properties", {}).get(part)
            found = named_so if named_so is not None else found["additionalProperties"]


def test_the_versions_are_those_of_the_program() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert about["appVersion"] == __version__


def test_pods_keep_to_the_restricted_standard(helm: Helm, kubectl: Kubectl, namespace: str) -> None:
    """The API server refuses others in such a namespace, and warns of the pods of a Deployment."""
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/warn=restricted")
    for values in (None, FULL):
        (deployment,) = of_kind(render(helm, values), "Deployment")
        deployment["metadata"]["namespace"] = namespace
        done = kubectl.run("create", "--filename", "-", "--dry-run=server", given=yaml.safe_dump(deployment))
        assert (done.returncode, done.stderr) == (0, "")


ALERTS = yaml.safe_load(
    (CHART / "files" / "alerts.yaml").read_text().replace("$runwayDays", "7").replace("$claimDays", "30")
)
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_every_alert_is_of_a_metric_that_there_is_and_has_a_runbook(rule: dict[str, Any]) -> None:
    registry = Metrics(Sources(Store(), lambda: [("ns", "Proven")], {})).registry
    known = {family.name for family in registry.collect()} | {family.name for family in families([])}
    used = set(re.findall(r"partwarden_\w+", rule["expr"]))
    assert used <= known | {"partwarden_build_info"}
    for label, value in re.findall(r'(\w+)="(\w+)"', rule["expr"]):
        assert value in {"condition": [*ConditionType], "state": [*ARCHIVE_STATES], "severity": [*Severity]}[label]
    page, anchor = rule["annotations"]["runbook_url"].split("#")
    assert (page, anchor) == ("$runbooks", rule["alert"].lower())
    assert f"### {rule['alert']}\n" in (ROOT / "docs/how-to/monitor.md").read_text()


def test_runbooks_are_absolute_addresses(helm: Helm, tmp_path: Path) -> None:
    alerts: dict[str, Any] = {"monitoring": {"prometheusRule": {"enabled": True}}}
    with pytest.raises(HelmError, match=r"monitoring\.prometheusRule\.runbooks is not set"):
        render(helm, alerts)
    arguments = ["copy", str(tmp_path / "partwarden"), "--image", "registry.example.com/p", "--source", SOURCE]
    assert CliRunner().invoke(release.main, arguments).exit_code == 0
    published = helm(
        *("template", "release", str(tmp_path / "partwarden"), "--set", "monitoring.prometheusRule.enabled=true")
    )
    for manifests, page in (
        (list(yaml.safe_load_all(published)), f"{SOURCE}/blob/v{__version__}/docs/how-to/monitor.md"),
        (render(helm, FULL), "https://git.example.com/monitor.md"),
    ):
        (rule,) = of_kind([each for each in manifests if each], "PrometheusRule")
        urls = [each["annotations"]["runbook_url"] for group in rule["spec"]["groups"] for each in group["rules"]]
        assert urls == [f"{page}#{each['alert'].lower()}" for each in RULES]


def test_an_image_must_be_named_and_the_message_says_how(helm: Helm) -> None:
    for command in (("template", "release"), ("install", "release", "--dry-run=client")):
        with pytest.raises(HelmError, match=r"add --set image.repository=registry.example.com/partwarden"):
            helm(*command, str(CHART))
    with pytest.raises(HelmError, match="repository"):
        render(helm, {"image": {"repository": "two words"}})


@pytest.mark.parametrize("values", [{}, {"scope": {"namespaces": ["one", "two"]}, "rbac": {"secretNames": ["db"]}}])
def test_the_notes_end_with_a_first_policy_and_its_secret(
    helm: Helm, kubectl: Kubectl, namespace: str, values: dict[str, Any]
) -> None:
    given = yaml.safe_dump({"image": {"repository": "partwarden"}, **values})
    printed = helm("install", "release", str(CHART), "--dry-run=client", "--values", "-", given=given)
    notes = textwrap.dedent(printed.split("Words in capitals are yours.\n")[1])
    secret = "db" if values else "orchestrator-db"
    assert notes.strip().startswith(f"kubectl create secret generic {secret} --from-literal=uri=")
    policy = notes.split("<<'END'\n")[1].split("END\n")[0]
    assert yaml.safe_load(policy)["spec"]["database"]["secretRef"]["name"] == secret
    kubectl(
        *("apply", "--namespace", namespace, "--dry-run=server", "--validate=strict", "--filename", "-"), given=policy
    )


def test_every_value_has_a_comment() -> None:
    """A comment stands for the values below it, until the next one or an empty line."""
    explained = False
    for line in (CHART / "values.yaml").read_text().splitlines():
        if line.lstrip().startswith("#"):
            explained = True
        elif not line:
            explained = False
        elif not line.endswith(":"):
            assert explained or line.split(":")[0].strip() in SPEAKING, line


def test_the_rule_has_the_threshold_that_is_asked_for(helm: Helm) -> None:
    (rule,) = of_kind(render(helm, FULL), "PrometheusRule")
    text = json.dumps(rule["spec"])
    assert "- time() < 86400 * 14" in text
    assert "/ 86400 < 60" in text
    assert "$runwayDays" not in text
    assert "$claimDays" not in text
    assert "{{ $labels.policy }}" in text


def test_every_metric_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    registry = Metrics(Sources(Store(), lambda: [("ns", "Proven")], {})).registry
    names = [family.name for family in registry.collect()]
    assert [name for name in names if name.startswith("partwarden_") and f"`{name}" not in text] == []


def test_the_health_checks_can_be_patched_into_argocds_configmap_as_the_docs_say(
    helm: Helm, kubectl: Kubectl, namespace: str
) -> None:
    (made,) = [
        each for each in of_kind(render(helm, FULL), "ConfigMap") if each["metadata"]["name"].endswith("-argocd")
    ]
    made["metadata"] |= {"name": "partwarden-argocd", "namespace": namespace}
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "argocd-cm", "namespace": namespace}}
    kubectl.apply(made, {**theirs, "data": {"url": "https://argocd.example.com"}})
    (line,) = re.findall(
        r"```\n(kubectl get configmap .*?)\n```", (ROOT / "docs" / "how-to" / "argocd.md").read_text(), re.DOTALL
    )
    for there in ("partwarden", "argocd"):
        line = line.replace(f"--namespace {there} ", f"--namespace {namespace} ")
    command = line.replace("kubectl ", shlex.join(kubectl.command()) + " ")
    subprocess.run(["bash", "-c", command], check=True, env=kubectl.environment, timeout=60, capture_output=True)
    data = kubectl.get("configmap", "argocd-cm", "--namespace", namespace)["data"]
    assert data == made["data"] | {"url": "https://argocd.example.com"}
    (settings_of_argocd,) = yaml.safe_load_all(
        re.findall(r"```yaml\n(data:.*?)```", (ROOT / "docs" / "how-to" / "argocd.md").read_text(), re.DOTALL)[0]
    )
    assert {key: value.strip() for key, value in made["data"].items()} == {
        key: value.strip() for key, value in settings_of_argocd["data"].items()
    }


def _panels() -> list[dict[str, Any]]:
    return list(dashboard()["panels"])


def test_the_dashboard_is_the_one_of_the_project(helm: Helm) -> None:
    (made,) = [each for each in of_kind(render(helm, FULL), "ConfigMap") if "partwarden.json" in each["data"]]
    assert json.loads(made["data"]["partwarden.json"]) == dashboard()
    assert made["metadata"]["labels"].items() >= {"grafana_dashboard": "1", "team": "databases"}.items()


QUERIES = [(each["title"], target["expr"]) for each in _panels() for target in each["targets"]]


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_every_query_of_the_dashboard_is_one_and_of_metrics_that_there_are(
    promtool: Promtool, title: str, query: str
) -> None:
    plain = query.replace("$__rate_interval", "5m").replace("$namespace", ".*").replace("$policy", ".*")
    code, said = promtool("--experimental", "promql", "format", plain)
    assert code == 0, f"{title}: {said}"
    used = set(re.findall(r"partwarden_\w+", query))
    assert used <= _names(), title


TABLE = [target["expr"] for each in _panels() if each["type"] == "table" for target in each["targets"]]


@pytest.mark.parametrize("query", TABLE)
def test_queries_of_a_table_join_to_one_row_for_each_policy(promtool: Promtool, tmp_path: Path, query: str) -> None:
    """Grafana's merge joins rows whose labels are all the same, the metric's name among them."""
    plain = query.replace("$namespace", ".*").replace("$policy", ".*")
    (metric,) = re.findall(r"partwarden_\w+", query)
    series = f'{metric}{{namespace="n",policy="p",condition="Ready",instance="i",job="j",pod="x"}}'
    value = -1 if plain.startswith("time() -") else 1
    course = {
        "interval": "1m",
        "input_series": [{"series": series, "values": "1"}],
        "promql_expr_test": [
            {
                "expr": plain,
                "eval_time": "0m",
                "exp_samples": [{"labels": '{namespace="n",policy="p"}', "value": value}],
            }
        ],
    }
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"tests": [course]}))
    code, said = promtool("test", "rules", str(file))
    assert code == 0, said


def _names() -> set[str]:
    """Of all samples that a scrape may show."""
    registry = Metrics(Sources(Store(), lambda: [("ns", "Proven")], {})).registry
    found = {sample.name for family in registry.collect() for sample in family.samples}
    return found | {family.name for family in registry.collect()} | {"partwarden_build_info"}
