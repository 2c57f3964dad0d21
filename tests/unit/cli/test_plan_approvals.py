"""``approve``: the plan that the status shows is named in the annotation, that one and no other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from partwarden.api.approval import APPROVE_PLAN
from partwarden.cli.main import main
from support.api_server import ApiServer, serving

DIGEST, OTHER = "0123456789abcdef", "f" * 16


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """Namespace shop has policy run, whose plan waits."""
    server = ApiServer()
    server.add("shop", "run")
    server.policies["shop", "run"]["metadata"]["generation"] = 3
    waits(server, DIGEST)
    with serving(server, tmp_path) as kubeconfig:
        # The client reads KUBECONFIG when it is imported.
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
        yield server


def waits(api: ApiServer, digest: str | None) -> None:
    step = {"action": "DetachPartition", "partition": "run_2018", "reason": "old", "lock": "none"}
    ready = {"type": "Ready", "status": "False", "reason": "PlanPending", "message": "14 partitions to detach"}
    ready |= {"lastTransitionTime": "2026-11-22T12:00:00Z"}
    status: dict[str, Any] = {"observedGeneration": 3, "plan": [step], "conditions": [ready]}
    api.policies["shop", "run"]["status"] = status | ({"planDigest": digest} if digest else {})


def run(*arguments: str, code: int = 0, answer: str | None = None) -> Result:
    done = CliRunner().invoke(main, arguments, input=answer)
    assert done.exit_code == code, done.output
    return done


def approved(api: ApiServer) -> object:
    return api.policies["shop", "run"]["metadata"]["annotations"].get(APPROVE_PLAN)


def test_the_plan_is_shown_and_named_in_the_annotation(api: ApiServer) -> None:
    lines = run("approve", "--yes", DIGEST).stdout.splitlines()
    assert lines == [
        "PLAN: shop/run: DetachPartition run_2018",
        "shop/run: 14 partitions to detach",
        f"approved plan {DIGEST} of shop/run",
    ]
    assert approved(api) == DIGEST
    assert json.loads(run("approve", "run", "--yes", DIGEST, "-o", "json").stdout) == {
        "policy": "shop/run",
        "approved": DIGEST,
    }


def test_it_asks_on_a_terminal_and_nowhere_else(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"there is no terminal to ask at; say --yes {DIGEST}" in run("approve", code=1).stderr
    # A runner replaces sys.stdin itself.
    terminal = SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("partwarden.cli.approve.sys", terminal)
    assert "nothing is done: it is not approved" in run("approve", code=1, answer="n\n").stderr
    assert approved(api) is None
    run("approve", answer="y\n")
    assert approved(api) == DIGEST


def test_another_plan_than_the_one_that_was_read_is_not_approved(api: ApiServer) -> None:
    said = run("approve", "--yes", OTHER, code=1).stderr
    assert f"cannot approve plan {OTHER} of shop/run: by now the plan is {DIGEST}; read it first" in said

    def meanwhile() -> None:
        api.before_patch = lambda: None
        waits(api, OTHER)
        api.annotate("shop", "run", "run_2019")

    api.before_patch = meanwhile
    assert f"by now the plan is {OTHER}" in run("approve", "--yes", DIGEST, code=1).stderr
    assert approved(api) is None


def test_where_nothing_waits_or_the_plan_is_of_an_older_spec_nothing_is_approved(api: ApiServer) -> None:
    waits(api, None)
    assert "nothing of it waits for an approval" in run("approve", "--yes", DIGEST, code=1).stderr
    waits(api, DIGEST)
    api.policies["shop", "run"]["metadata"]["generation"] = 4
    assert "has not reconciled it since it was edited" in run("approve", "--yes", DIGEST, code=1).stderr
    assert approved(api) is None


def test_the_source_in_git_gets_the_line_to_add(api: ApiServer) -> None:
    api.policies["shop", "run"]["metadata"]["labels"] = {"argocd.argoproj.io/instance": "shop"}
    assert f'  {APPROVE_PLAN}: "{DIGEST}"' in run("approve", "--yes", DIGEST).stdout.splitlines()


def test_an_approval_that_was_used_is_taken_back_first(api: ApiServer) -> None:
    api.policies["shop", "run"]["status"]["approvedPlan"] = {"digest": DIGEST, "basis": OTHER, "steps": []}
    said = run("approve", "--yes", DIGEST, code=1).stderr
    assert f"take that back by kubectl annotate ppol run -n shop {APPROVE_PLAN}-" in said
    assert approved(api) is None
    # Of another plan, or of no shape at all, it is no matter.
    api.policies["shop", "run"]["status"]["approvedPlan"] = {"digest": OTHER, "basis": OTHER, "steps": []}
    run("approve", "--yes", DIGEST)
    assert approved(api) == DIGEST


def test_it_says_where_the_status_may_not_show_all_of_the_plan(api: ApiServer) -> None:
    said = "the status shows the first 50 steps of a plan, and the approval is of all of them"
    status = api.policies["shop", "run"]["status"]
    (step,) = status["plan"][:1]
    status["plan"] = [{**step, "partition": f"run_{number}"} for number in range(49)]
    assert said not in run("approve", "--yes", DIGEST).stdout
    status["plan"] = [{**step, "partition": f"run_{number}"} for number in range(50)]
    assert f"shop/run: {said}" in run("approve", "--yes", DIGEST).stdout.splitlines()
